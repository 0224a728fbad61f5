//! Who this host is: fixed when Hostler first starts on it, in the file `identity`.
//!
//! A host that was renamed, a disk that was cloned or restored into another machine: each would carry out orders that
//! are meant for another, or a second time. What is found later is compared with what was fixed, and a difference
//! stops all starts until somebody says `hostler adopt`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::name::Name;
use crate::host::disk::{self, DiskError};
use crate::host::{clock, machine};

/// The version of the file that this program writes and the only one that it reads.
const VERSION: u32 = 1;
/// The largest file.
const MAX_FILE: u64 = 4096;

/// What was fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    version: u32,
    /// The host's name.
    pub host: Name,
    /// The machine's id as systemd keeps it; empty where there is none.
    pub machine: String,
    /// Given at random; tells two agents under one name from one another.
    pub id: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not what this program writes.
    #[error("{} cannot be read: {why}; put it back from a backup, or say hostler adopt", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl HostIdentity {
    /// A new one, of this machine.
    pub fn new(host: Name) -> Self {
        let id = format!("{:016x}{:016x}", clock::random(), clock::random());
        Self { version: VERSION, host, machine: machine::machine_id(), id }
    }

    /// What was fixed; none on a host that Hostler never ran on.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = file(state_dir);
        let Some(json) = disk::read(&path, MAX_FILE)? else { return Ok(None) };
        let unreadable = |why: String| IdentityError::Unreadable { path: path.clone(), why };
        let identity: Self = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        match identity.version {
            VERSION => Ok(Some(identity)),
            other => Err(unreadable(format!("its version {other} is not {VERSION}"))),
        }
    }

    /// Fixes it, on the disk when this returns.
    pub fn write(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let path = file(state_dir);
        let json = serde_json::to_vec_pretty(self);
        let json =
            json.map_err(|error| IdentityError::Unreadable { path: path.clone(), why: error.to_string() })?;
        Ok(disk::replace(&path, &json, 0o600)?)
    }

    /// How this machine, or its configured name, differs from what was fixed; one line for the operator.
    pub fn difference(&self, configured: Option<&Name>, machine: &str) -> Option<String> {
        let cure = "nothing starts until an operator runs hostler adopt on this host";
        match configured {
            Some(name) if *name != self.host => {
                Some(format!("this host was {} and is configured as {name}: {cure}", self.host))
            }
            _ if !self.machine.is_empty() && !machine.is_empty() && machine != self.machine => Some(format!(
                "the disk of {} is in another machine than before, or a copy of it is: {cure}",
                self.host
            )),
            _ => None,
        }
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fixed_is_read_again_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HostIdentity::read(dir.path()).unwrap(), None);
        let db1: Name = "db1".parse().unwrap();
        let identity = HostIdentity { machine: "m1".into(), ..HostIdentity::new(db1.clone()) };
        identity.write(dir.path()).unwrap();
        assert_eq!(HostIdentity::read(dir.path()).unwrap(), Some(identity.clone()));
        for (configured, machine, differs) in [
            (None, "m1", None),
            (Some("db1"), "m1", None),
            (Some("db1"), "", None),
            (Some("db2"), "m1", Some("was db1 and is configured as db2")),
            (None, "m2", Some("another machine")),
        ] {
            let configured: Option<Name> = configured.map(|name: &str| name.parse().unwrap());
            let found = identity.difference(configured.as_ref(), machine);
            assert_eq!(found.is_some(), differs.is_some(), "{configured:?} {machine}: {found:?}");
            assert!(found.is_none_or(|found| found.contains(differs.unwrap())));
        }
        std::fs::write(file(dir.path()), "{}").unwrap();
        assert!(HostIdentity::read(dir.path()).unwrap_err().to_string().contains("hostler adopt"));
    }
}
