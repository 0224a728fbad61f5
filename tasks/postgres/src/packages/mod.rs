//! The server's package of a major version. Nothing else in the program knows how packages are called, or by what they come.
//!
//! Both package managers promise the same: nothing is removed, a version is fetched before anything is stopped, and an older
//! one is not installed. They differ in what their packages do to servers that run, which [`Package::restarts`] says.

mod apt;
mod dnf;

use std::path::Path;
use std::time::Duration;

use crate::error::Error;

/// For what only reads.
const QUICK: Duration = Duration::from_secs(120);
/// For what changes packages, or fetches them.
const SLOW: Duration = Duration::from_secs(3600);

/// By what packages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    /// Debian's.
    Apt,
    /// That of the PGDG's rpms.
    Dnf,
}

impl Manager {
    fn here() -> Result<Self, Error> {
        for (program, manager) in [("/usr/bin/apt-get", Self::Apt), ("/usr/bin/dnf", Self::Dnf)] {
            if Path::new(program).exists() {
                return Ok(manager);
            }
        }
        Err(Error::Missing(
            "neither apt-get nor dnf is there: packages of another kind are not changed".to_owned(),
        ))
    }
}

/// The server's package of a major version.
#[derive(Clone, Debug)]
pub struct Package {
    manager: Manager,
    name: String,
    /// The version that is installed, as the package manager spells it.
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

impl Package {
    /// The package of the server of a major version, as it is installed.
    ///
    /// # Errors
    /// If it is not, or this is a host of another package manager.
    pub async fn of(version: u16) -> Result<Self, Error> {
        let manager = Manager::here()?;
        let (name, installed) = match manager {
            Manager::Apt => apt::installed(version).await?,
            Manager::Dnf => dnf::installed(version).await?,
        };
        Ok(Self { manager, name, installed })
    }

    /// Whether a change of the package restarts a running cluster of its version, by the cluster's name.
    pub fn restarts(&self, cluster: &str) -> bool {
        match self.manager {
            Manager::Apt => true,
            // The rpm knows the unit that it brings, and no other.
            Manager::Dnf => cluster == "main",
        }
    }

    /// Whether a change of the package stops all these, so that none goes on with the program of before.
    pub fn stops(&self) -> bool {
        self.manager == Manager::Apt
    }

    /// Brings to its end what a package manager was doing when it was killed; nothing where nothing was.
    ///
    /// # Errors
    /// If that fails.
    pub async fn repair() -> Result<(), Error> {
        match Manager::here()? {
            Manager::Apt => apt::repair().await,
            Manager::Dnf => dnf::repair().await,
        }
    }

    /// Which version is wanted: this one, or with `None` the newest that the repositories offer.
    ///
    /// # Errors
    /// If it is older than the installed one, or in no repository.
    pub async fn target(&self, wanted: Option<&str>) -> Result<Target, Error> {
        if wanted == Some(self.installed.as_str()) {
            return Ok(Target::Installed);
        }
        let (newest, offered) = match self.manager {
            Manager::Apt => apt::offers(&self.name).await?,
            Manager::Dnf => dnf::offers(&self.name).await?,
        };
        let wanted = match wanted {
            Some(wanted) => wanted.to_owned(),
            None => newest.unwrap_or_else(|| self.installed.clone()),
        };
        if wanted == self.installed {
            return Ok(Target::Installed);
        }
        let older = match self.manager {
            Manager::Apt => apt::older(&wanted, &self.installed).await?,
            Manager::Dnf => dnf::older(&wanted, &self.installed),
        };
        if older {
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
        match self.manager {
            Manager::Apt => apt::install(&self.name, version, true).await,
            Manager::Dnf => dnf::install(&self.name, version, true).await,
        }
    }

    /// Installs a version that was fetched. It may be read again from a repository that is a folder of this host.
    ///
    /// # Errors
    /// If that fails; servers may be stopped then.
    pub async fn install(&self, version: &str) -> Result<(), Error> {
        match self.manager {
            Manager::Apt => apt::install(&self.name, version, false).await,
            Manager::Dnf => dnf::install(&self.name, version, false).await,
        }
    }
}
