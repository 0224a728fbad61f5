//! dnf and rpm, with the packages of the PGDG.
//!
//! The rpm of a server replaces its files under the servers that run, and restarts the unit that it brings
//! (`postgresql-VERSION.service`) if that runs; units of one's own go on with the old program until somebody restarts them.
//! dnf removes nothing unless it is asked to, and brings the libraries of the same version along.

use std::cmp::Ordering;
use std::path::Path;
use std::time::Duration;

use super::{QUICK, SLOW};
use crate::error::Error;
use crate::exec;

async fn dnf(words: &[&str], within: Duration) -> Result<String, Error> {
    let all: Vec<_> = ["-q", "-y"].iter().chain(words).copied().collect();
    exec::succeed(None, Path::new("/usr/bin/dnf"), &all, within).await
}

/// Name and version of the server's package that is installed.
pub(super) async fn installed(version: u16) -> Result<(String, String), Error> {
    let name = format!("postgresql{version}-server");
    let words = ["-q", "--queryformat", "%{VERSION}-%{RELEASE}\\n", &name];
    let ended = exec::run(None, Path::new("/usr/bin/rpm"), &words, QUICK).await?;
    match ended.output.lines().last().map(str::trim) {
        Some(installed) if ended.status == Some(0) => Ok((name, installed.to_owned())),
        _ => Err(Error::Missing(format!(
            "{name} is not installed: {}{}",
            ended.output.trim(),
            ended.complaint
        ))),
    }
}

/// dnf leaves both versions of a package behind when it is killed between them: only an operator knows which one is whole.
pub(super) async fn repair() -> Result<(), Error> {
    let ended = exec::run(None, Path::new("/usr/bin/dnf"), &["-q", "check", "--duplicates"], SLOW).await?;
    if ended.status == Some(0) {
        return Ok(());
    }
    Err(Error::Unclear(format!(
        "an interrupted installation has left packages twice: `dnf remove --duplicates`, then the same again: {}",
        ended.output.trim().replace('\n', "; ")
    )))
}

/// The newest version of a package, and all that the repositories offer.
pub(super) async fn offers(name: &str) -> Result<(Option<String>, Vec<String>), Error> {
    let words = ["--refresh", "repoquery", "--queryformat", "%{version}-%{release}\\n", name];
    Ok(read(&dnf(&words, SLOW).await?))
}

fn read(text: &str) -> (Option<String>, Vec<String>) {
    let mut offered: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    offered.sort_by(|one, other| compare(one, other));
    offered.dedup();
    (offered.last().cloned(), offered)
}

/// Whether one version is older than another.
pub(super) fn older(one: &str, other: &str) -> bool {
    compare(one, other) == Ordering::Less
}

/// Installs a version, or only fetches it and looks whether it can be installed.
pub(super) async fn install(name: &str, version: &str, only_fetch: bool) -> Result<(), Error> {
    let package = format!("{name}-{version}");
    let fetch = only_fetch.then_some("--downloadonly");
    let words: Vec<_> = fetch.into_iter().chain(["install", &package]).collect();
    dnf(&words, SLOW).await.map(|_| ())
}

/// The order of versions and of releases, as rpm has it: runs of digits by their number, of letters by the alphabet, digits
/// above letters, what is longer above what it begins with, `~` below the end and `^` above it.
fn compare(one: &str, other: &str) -> Ordering {
    let split = |text: &str| {
        let (version, release) = text.rsplit_once('-').unwrap_or((text, ""));
        (version.to_owned(), release.to_owned())
    };
    let (one, other) = (split(one), split(other));
    segments(&one.0, &other.0).then_with(|| segments(&one.1, &other.1))
}

fn segments(mut one: &str, mut other: &str) -> Ordering {
    let apart = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
    loop {
        (one, other) = (one.trim_start_matches(apart), other.trim_start_matches(apart));
        match (one.strip_prefix('~'), other.strip_prefix('~')) {
            (Some(rest), Some(more)) => {
                (one, other) = (rest, more);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (one.strip_prefix('^'), other.strip_prefix('^')) {
            (Some(rest), Some(more)) => {
                (one, other) = (rest, more);
                continue;
            }
            // Against the end it is the newer one, and against all else the older.
            (Some(_), None) => return if other.is_empty() { Ordering::Greater } else { Ordering::Less },
            (None, Some(_)) => return if one.is_empty() { Ordering::Less } else { Ordering::Greater },
            (None, None) => {}
        }
        if one.is_empty() || other.is_empty() {
            return one.len().cmp(&other.len());
        }
        let digits = one.starts_with(|c: char| c.is_ascii_digit());
        let (run, rest) = run(one, digits);
        let (against, more) = self::run(other, digits);
        (one, other) = (rest, more);
        let order = match (digits, against.is_empty()) {
            // Digits are newer than letters.
            (true, true) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (true, false) => {
                let (run, against) = (run.trim_start_matches('0'), against.trim_start_matches('0'));
                run.len().cmp(&against.len()).then_with(|| run.cmp(against))
            }
            (false, false) => run.cmp(against),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The digits, or the letters, with which a text begins, and the rest of it.
fn run(text: &str, digits: bool) -> (&str, &str) {
    let fits = |c: char| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::{compare, read};

    #[test]
    fn what_a_repository_offers_is_in_order() {
        let text = "15.9-1PGDG.rhel9\n15.10-1PGDG.rhel9\n\n15.8-1PGDG.rhel9\n15.10-1PGDG.rhel9\n";
        let (newest, offered) = read(text);
        assert_eq!(newest.as_deref(), Some("15.10-1PGDG.rhel9"));
        assert_eq!(offered, ["15.8-1PGDG.rhel9", "15.9-1PGDG.rhel9", "15.10-1PGDG.rhel9"]);
        assert_eq!(read("\n"), (None, Vec::new()));
    }

    #[test]
    fn versions_have_the_order_of_rpm() {
        // Each with what `rpm --eval '%{lua:print(rpm.vercmp(…))}'` says of its two halves.
        for (one, order, other) in [
            ("15.9-1PGDG.rhel9", Ordering::Less, "15.10-1PGDG.rhel9"),
            ("15.10-2PGDG.rhel9", Ordering::Greater, "15.10-1PGDG.rhel9"),
            ("15.10-1PGDG.rhel9", Ordering::Equal, "15.10-1PGDG.rhel9"),
            ("15.10-1PGDG.rhel9.1", Ordering::Greater, "15.10-1PGDG.rhel9"),
            ("18beta1-1", Ordering::Less, "18.0-1"),
            ("18beta1-1", Ordering::Less, "18rc1-1"),
            ("18~beta1-1", Ordering::Less, "18-1"),
            ("18^git-1", Ordering::Greater, "18-1"),
            ("18^git-1", Ordering::Less, "18.1-1"),
            ("18~rc1^a-1", Ordering::Greater, "18~rc1-1"),
            ("1.05-1", Ordering::Equal, "1.5-1"),
            ("1.a-1", Ordering::Less, "1.1-1"),
        ] {
            assert_eq!(compare(one, other), order, "{one} {other}");
            assert_eq!(compare(other, one), order.reverse(), "{other} {one}");
        }
    }
}
