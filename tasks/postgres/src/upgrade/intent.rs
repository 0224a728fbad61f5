//! What is written down before the first change: that the new cluster is this program's work, and the two ports, which
//! would not be known any more in the middle of an exchange.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Method;
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;

/// The intent to upgrade a cluster. It is on the disk before the new cluster is begun, and goes with it or with the old
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Format of this file.
    version: u8,
    /// The run that began it.
    run: String,
    /// When it was begun.
    pub begun: Timestamp,
    /// The port of the old cluster before the upgrade.
    pub clients: u16,
    /// The port of the new cluster before the switch.
    pub spare: u16,
    /// Clients come in through a pgbouncer.
    pub bouncer: bool,
    /// How the rows come to the new cluster.
    #[serde(default)]
    pub method: Method,
}

impl Intent {
    /// One of this run.
    pub fn new(clients: u16, spare: u16, bouncer: bool, method: Method) -> Self {
        let run = std::env::var("HOSTLER_RUN").ok().filter(|run| !run.is_empty());
        let run = run.unwrap_or_else(|| "by hand".to_owned());
        Self { version: 1, run, begun: Timestamp::now(), clients, spare, bouncer, method }
    }

    /// The file of an upgrade to this version of the cluster of this name.
    pub fn path(to: u16, name: &str) -> PathBuf {
        durable::state().join(format!("{to}-{name}"))
    }

    /// What is on the disk.
    ///
    /// # Errors
    /// [`Error::Unclear`] if it is there and cannot be understood.
    pub fn read(to: u16, name: &str) -> Result<Option<Self>, Error> {
        let path = Self::path(to, name);
        let Some(text) = durable::read(&path)? else { return Ok(None) };
        let read = serde_json::from_str(&text).ok().filter(|intent: &Self| intent.version == 1);
        let wrong = || Error::Unclear(format!("{} is no intent to upgrade: look into it", path.display()));
        read.map(Some).ok_or_else(wrong)
    }

    /// The upgrades of the cluster of this name that are not finished, each with its version.
    ///
    /// # Errors
    /// As [`Intent::read`].
    pub fn unfinished(name: &str) -> Result<Vec<(u16, Self)>, Error> {
        let mut found = Vec::new();
        for to in 14..100 {
            found.extend(Self::read(to, name)?.map(|intent| (to, intent)));
        }
        Ok(found)
    }

    /// Its text, which the new cluster's data holds as well once it is whole.
    pub fn text(&self) -> String {
        serde_json::to_string(self).map(|text| format!("{text}\n")).unwrap_or_default()
    }

    /// Writes it, for the cluster's owner to read.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub fn begin(&self, to: u16, name: &str, owner: Owner) -> Result<(), Error> {
        let folder = durable::state();
        std::fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
        durable::replace(&Self::path(to, name), &self.text(), Owner { uid: 0, ..owner })
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it could come back.
    pub fn forget(to: u16, name: &str) -> Result<(), Error> {
        durable::remove(&Self::path(to, name))
    }
}
