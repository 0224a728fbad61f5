//! `fact`: what the fleet shows of a system. What cannot be told is left out, and `unclear` says why.

use jiff::Timestamp;
use serde::Serialize;

use crate::check::{Observed, Seen};
use crate::neighbours::catalog::{Entry, Kind, State};
use crate::neighbours::nsutil::Role;
use crate::neighbours::sapcontrol;
use crate::neighbours::scripts::Replication;
use crate::system::Version;

/// The fact of one system.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Its name.
    pub sid: String,
    /// Its number.
    pub number: String,
    /// Whether it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<bool>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Whether all processes run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// none, primary or secondary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Name of its site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// On a primary: how far its secondaries are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// Its active databases beside SYSTEMDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
    /// When the oldest of the newest complete backups of all active databases began; `null`: a database has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Option<Timestamp>>,
    /// What cannot be told, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unclear: Vec<String>,
}

/// Reads the fact from what was seen.
pub fn fact(seen: &Observed) -> Fact {
    let mut fact = Fact { sid: seen.sid.to_string(), number: seen.number.to_string(), ..Fact::default() };
    let mut unclear = Vec::new();
    if let Some(version) = value("version", Some(&seen.installed), &mut unclear) {
        fact.installed = Some(version.is_some());
        fact.version = *version;
    }
    fact.running = value("processes", seen.processes.as_ref(), &mut unclear).and_then(|state| match state {
        sapcontrol::State::Running(_) => Some(true),
        sapcontrol::State::Stopped | sapcontrol::State::Partly(_) => Some(false),
        // Without sapstartsrv nothing is known of the processes.
        sapcontrol::State::NoAnswer(_) => None,
    });
    if let Some(state) = value("replication", seen.replication.as_ref(), &mut unclear) {
        fact.role = Some(match state.role {
            Role::None => "none",
            Role::Primary => "primary",
            Role::Secondary(_) => "secondary",
        });
        fact.site.clone_from(&state.site);
    }
    fact.replication = value("secondaries", seen.secondaries.as_ref(), &mut unclear).copied();
    let databases = value("databases", seen.databases.as_ref(), &mut unclear);
    let backups = value("backups", seen.backups.as_ref(), &mut unclear);
    if let Some(databases) = databases {
        let active = databases.iter().filter(|(_, active)| *active).map(|(database, _)| database);
        let tenants = active.clone().filter(|database| !database.is_system());
        fact.tenants = Some(tenants.map(|database| database.as_str().to_owned()).collect());
        if let Some(backups) = backups {
            let good = |entry: &&Entry| entry.kind == Kind::Complete && entry.state == State::Successful;
            let newest = active.map(|database| {
                backups
                    .iter()
                    .filter(good)
                    .filter(|entry| entry.database == *database)
                    .map(|entry| entry.begun)
                    .max()
            });
            // None is less than any time: one database without a backup is a system without one.
            fact.backup = Some(newest.min().flatten());
        }
    }
    fact.unclear = unclear;
    fact
}

fn value<'a, T>(name: &str, seen: Option<&'a Seen<T>>, unclear: &mut Vec<String>) -> Option<&'a T> {
    match &seen?.value {
        Ok(value) => Some(value),
        Err(why) => {
            unclear.push(format!("{name}: {why}"));
            None
        }
    }
}
