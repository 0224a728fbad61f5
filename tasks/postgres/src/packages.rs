//! The server's package of a major version, by apt and dpkg. Nothing else in the program knows how packages are called.
//!
//! The package of Debian stops every running cluster of its version before its files are replaced, and starts those that
//! are started at boot afterwards: whoever changes it restarts them all, and has to start the others himself.

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::exec;
use crate::report;

/// For what only reads.
const QUICK: Duration = Duration::from_secs(120);
/// For what changes packages, or fetches them.
const SLOW: Duration = Duration::from_secs(3600);
/// Seconds for which apt waits for another's lock.
const LOCK: &str = "DPkg::Lock::Timeout=300";

/// The server's package of a major version.
#[derive(Clone, Debug)]
pub struct Package {
    name: String,
    /// The version that is installed, as dpkg spells it.
    pub installed: String,
}

/// What is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is there.
    Installed,
    /// This version.
    Other(String),
}

async fn apt(words: &[&str], within: Duration) -> Result<String, Error> {
    let mut all = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", LOCK];
    all.extend(["-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold"]);
    all.extend(words);
    exec::succeed(None, Path::new("/usr/bin/env"), &all, within).await
}

/// Whether one version is older than another, by the rules of dpkg.
async fn older(one: &str, other: &str) -> Result<bool, Error> {
    let words = ["--compare-versions", one, "lt", other];
    let ended = exec::run(None, Path::new("/usr/bin/dpkg"), &words, QUICK).await?;
    match ended.status {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(Error::Refused(format!("{one} is no version: {}", ended.complaint))),
    }
}

impl Package {
    /// The package of the server of a major version, as it is installed.
    ///
    /// # Errors
    /// If it is not, or this is no host of apt.
    pub async fn of(version: u16) -> Result<Self, Error> {
        if !Path::new("/usr/bin/apt-get").exists() {
            return Err(Error::Missing("apt-get is missing: only packages of Debian are changed".to_owned()));
        }
        let name = format!("postgresql-{version}");
        let words = ["-W", "-f", "${db:Status-Abbrev}${Version}", &name];
        let ended = exec::run(None, Path::new("/usr/bin/dpkg-query"), &words, QUICK).await?;
        let installed = ended.output.strip_prefix("ii ").or_else(|| ended.output.strip_prefix("hi "));
        match installed.map(str::trim) {
            Some(installed) => Ok(Self { installed: installed.to_owned(), name }),
            None => Err(Error::Missing(format!("{name} is not installed: {}", ended.complaint))),
        }
    }

    /// Its name and a version, as apt wants them.
    fn at(&self, version: &str) -> String {
        format!("{}={version}", self.name)
    }

    /// Brings to its end what a package manager was doing when it was killed; nothing where nothing was.
    ///
    /// # Errors
    /// If that fails.
    pub async fn repair() -> Result<(), Error> {
        let audit = exec::run(None, Path::new("/usr/bin/dpkg"), &["--audit"], QUICK).await?;
        if audit.output.trim().is_empty() && audit.status == Some(0) {
            return Ok(());
        }
        report::message("bringing an interrupted installation to its end");
        let words = ["DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confold", "--configure", "--pending"];
        exec::succeed(None, Path::new("/usr/bin/env"), &words, SLOW).await.map(|_| ())
    }

    /// Which version is wanted: this one, or with `None` the newest that the repositories offer.
    ///
    /// # Errors
    /// If it is older than the installed one, or in no repository.
    pub async fn target(&self, wanted: Option<&str>) -> Result<Target, Error> {
        if wanted == Some(self.installed.as_str()) {
            return Ok(Target::Installed);
        }
        // What is missing in an older list is told below.
        if let Err(error) = apt(&["update"], SLOW).await {
            report::message(&format!("the lists of the repositories are as they were: {error}"));
        }
        let text =
            exec::succeed(None, Path::new("/usr/bin/apt-cache"), &["policy", &self.name], QUICK).await?;
        let (candidate, offered) = offers(&text);
        let wanted = match wanted {
            Some(wanted) => wanted.to_owned(),
            None => candidate.unwrap_or_else(|| self.installed.clone()),
        };
        if wanted == self.installed {
            return Ok(Target::Installed);
        }
        if older(&wanted, &self.installed).await? {
            return Err(Error::Refused(format!(
                "{} {wanted} is older than {}, which is installed: a minor version is not taken back",
                self.name, self.installed
            )));
        }
        if !offered.contains(&wanted) {
            return Err(Error::Refused(format!(
                "{} {wanted} is in no repository of this host: there is {}",
                self.name,
                offered.join(", ")
            )));
        }
        Ok(Target::Other(wanted))
    }

    /// Fetches a version, and looks whether it can be installed without removing anything.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn fetch(&self, version: &str) -> Result<(), Error> {
        let package = self.at(version);
        apt(&["--no-remove", "--download-only", "install", &package], SLOW).await.map(|_| ())
    }

    /// Installs a version that was fetched. It may be read again from a repository that is a folder of this host: apt
    /// fetches nothing from there.
    ///
    /// # Errors
    /// If that fails; servers may be stopped then.
    pub async fn install(&self, version: &str) -> Result<(), Error> {
        let package = self.at(version);
        apt(&["--no-remove", "install", &package], SLOW).await.map(|_| ())
    }
}

/// The newest version that apt would take, and all that it knows of, from what `apt-cache policy` prints.
fn offers(text: &str) -> (Option<String>, Vec<String>) {
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
    use super::offers;

    #[test]
    fn what_apt_offers_is_read() {
        let text = "postgresql-15:\n  Installed: 15.18-0+deb12u1\n  Candidate: 15.20-0+deb12u1\n  Version table:\n     \
             15.20-0+deb12u1 500\n        500 http://mirror.example/security bookworm-security/main amd64 Packages\n \
             *** 15.18-0+deb12u1 500\n        500 http://mirror.example/debian bookworm/main amd64 Packages\n        \
             100 /var/lib/dpkg/status\n";
        let (candidate, offered) = offers(text);
        assert_eq!(candidate.as_deref(), Some("15.20-0+deb12u1"));
        assert_eq!(offered, ["15.20-0+deb12u1", "15.18-0+deb12u1"]);
        assert_eq!(
            offers("x:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n"),
            (None, Vec::new())
        );
    }
}
