//! apt and dpkg.
//!
//! The package of Debian stops every running cluster of its version before its files are replaced, and starts those that
//! are started at boot afterwards: whoever changes it restarts them all, and has to start the others himself.

use std::path::Path;
use std::time::Duration;

use super::{QUICK, SLOW};
use crate::error::Error;
use crate::exec;
use crate::report;

/// Seconds for which apt waits for another's lock.
const LOCK: &str = "DPkg::Lock::Timeout=300";

async fn apt(words: &[&str], within: Duration) -> Result<String, Error> {
    let mut all = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", LOCK];
    all.extend(["-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold"]);
    all.extend(words);
    exec::succeed(None, Path::new("/usr/bin/env"), &all, within).await
}

/// Whether one version is older than another, by the rules of dpkg.
pub(super) async fn older(one: &str, other: &str) -> Result<bool, Error> {
    let words = ["--compare-versions", one, "lt", other];
    let ended = exec::run(None, Path::new("/usr/bin/dpkg"), &words, QUICK).await?;
    match ended.status {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(Error::Refused(format!("{one} is no version: {}", ended.complaint))),
    }
}

/// Name and version of the server's package that is installed.
pub(super) async fn installed(version: u16) -> Result<(String, String), Error> {
    let name = format!("postgresql-{version}");
    let words = ["-W", "-f", "${db:Status-Abbrev}${Version}", &name];
    let ended = exec::run(None, Path::new("/usr/bin/dpkg-query"), &words, QUICK).await?;
    let installed = ended.output.strip_prefix("ii ").or_else(|| ended.output.strip_prefix("hi "));
    match installed.map(str::trim) {
        Some(installed) => Ok((name, installed.to_owned())),
        None => Err(Error::Missing(format!("{name} is not installed: {}", ended.complaint))),
    }
}

/// Brings to its end what dpkg was doing when it was killed.
pub(super) async fn repair() -> Result<(), Error> {
    let audit = exec::run(None, Path::new("/usr/bin/dpkg"), &["--audit"], QUICK).await?;
    if audit.output.trim().is_empty() && audit.status == Some(0) {
        return Ok(());
    }
    report::message("bringing an interrupted installation to its end");
    let words = ["DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", "--configure", "--pending"];
    exec::succeed(None, Path::new("/usr/bin/env"), &words, SLOW).await.map(|_| ())
}

/// The newest version of a package, and all that the repositories offer.
pub(super) async fn offers(name: &str) -> Result<(Option<String>, Vec<String>), Error> {
    // What is missing in an older list is told by the caller.
    if let Err(error) = apt(&["update"], SLOW).await {
        report::message(&format!("the lists of the repositories are as they were: {error}"));
    }
    let text = exec::succeed(None, Path::new("/usr/bin/apt-cache"), &["policy", name], QUICK).await?;
    Ok(read(&text))
}

/// Installs a version, or only fetches it and looks whether it can be installed. apt fetches nothing from a repository that is
/// a folder of this host.
pub(super) async fn install(name: &str, version: &str, only_fetch: bool) -> Result<(), Error> {
    let package = format!("{name}={version}");
    let fetch = only_fetch.then_some("--download-only");
    let words: Vec<_> = ["--no-remove"].into_iter().chain(fetch).chain(["install", &package]).collect();
    apt(&words, SLOW).await.map(|_| ())
}

/// The newest version that apt would take, and all that it knows of, from what `apt-cache policy` prints.
fn read(text: &str) -> (Option<String>, Vec<String>) {
    let candidate = text.lines().find_map(|line| line.strip_prefix("  Candidate: "));
    let table = text.lines().skip_while(|line| !line.starts_with("  Version table:")).skip(1);
    // ` *** 15.18-0+deb12u1 500` and `     15.20-0+deb12u1 500`; sources are indented deeper.
    let versions = table.filter(|line| line.starts_with(" *** ") || !line.starts_with("      "));
    let offered = versions.filter_map(|line| {
        line.trim_start_matches([' ', '*']).split_ascii_whitespace().next().map(str::to_owned)
    });
    (candidate.filter(|version| *version != "(none)").map(str::to_owned), offered.collect())
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_apt_offers_is_read() {
        let text = "postgresql-15:\n  Installed: 15.18-0+deb12u1\n  Candidate: 15.20-0+deb12u1\n  Version table:\n     \
             15.20-0+deb12u1 500\n        500 http://mirror.example/security bookworm-security/main amd64 Packages\n \
             *** 15.18-0+deb12u1 500\n        500 http://mirror.example/debian bookworm/main amd64 Packages\n        \
             100 /var/lib/dpkg/status\n";
        let (candidate, offered) = read(text);
        assert_eq!(candidate.as_deref(), Some("15.20-0+deb12u1"));
        assert_eq!(offered, ["15.20-0+deb12u1", "15.18-0+deb12u1"]);
        assert_eq!(
            read("x:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"),
            (None, Vec::new())
        );
    }
}
