//! The backup catalog of a system: one entry a backup, each with its pieces.
//!
//! It is kept for all databases in one file, and every backup of a database sends that database's part along, so that a
//! recovery on an empty host finds it.

use crate::clock;
use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use crate::system::System;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A backup.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) entry_id: i64,
    /// Its start in milliseconds since 1970.
    pub(crate) backup_id: i64,
    pub(crate) database: String,
    /// `complete data backup`, `log backup` …
    pub(crate) kind: String,
    /// `running`, `successful`, `failed`, `prepared`, `canceled`.
    pub(crate) state: String,
    pub(crate) start: i64,
    pub(crate) end: Option<i64>,
    pub(crate) comment: String,
    pub(crate) message: String,
    /// Pid of the process that makes it; 0 until it has begun.
    pub(crate) pid: u32,
    /// Which history of the database it belongs to: a recovery that clears the log begins a new one.
    pub(crate) branch: i64,
    /// Positions in the log: of a log backup its first and last, of a data backup twice its own.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) pieces: Vec<Piece>,
}

/// A file or a stream of a backup.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// `topology`, `volume`, `catalog`.
    pub(crate) kind: String,
    pub(crate) volume: u32,
    /// `file` or `backint`.
    pub(crate) destination: String,
    pub(crate) path: String,
    /// Of a stream, the id that the Backint program gave it.
    pub(crate) ebid: Option<String>,
    pub(crate) size: u64,
}

/// All entries of a system.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Catalog {
    pub(crate) entries: Vec<Entry>,
}

impl Entry {
    /// A backup that begins now: nothing of it is written yet.
    pub(crate) fn begun(entry_id: i64, backup_id: i64, database: &str, kind: &str, state: &str) -> Self {
        Self {
            entry_id,
            backup_id,
            database: database.into(),
            kind: kind.into(),
            state: state.into(),
            start: clock::now(),
            end: None,
            comment: String::new(),
            message: String::new(),
            pid: 0,
            branch: 0,
            first: 0,
            last: 0,
            pieces: Vec::new(),
        }
    }

    pub(crate) fn is_data(&self) -> bool {
        self.kind.ends_with("data backup") || self.kind == "data snapshot"
    }
}

impl Catalog {
    /// Reads the catalog; a backup whose process died is one that failed. The caller holds the system's lock if it saves.
    pub(crate) fn load(root: &Root, system: &System) -> Result<Self, Halt> {
        let mut catalog: Self = files::load(&system.state(root, "catalog.json"))?.unwrap_or_default();
        for entry in catalog.entries.iter_mut().filter(|entry| entry.state == "running") {
            let begins = entry.pid == 0 && clock::now() - entry.start < 10_000_000;
            if !begins && !Path::new(&format!("/proc/{}", entry.pid)).exists() {
                entry.state = "failed".into();
                entry.message = "the service was restarted".into();
                entry.end = Some(clock::now());
            }
        }
        Ok(catalog)
    }

    pub(crate) fn save(&self, root: &Root, system: &System) -> Result<(), Halt> {
        files::save(root, &system.state(root, "catalog.json"), self)
    }

    /// An id that no entry has: the instant, or the next that is free.
    pub(crate) fn free_id(&self) -> i64 {
        let now = clock::now() / 1000;
        self.entries.iter().map(|entry| entry.entry_id + 1).max().map_or(now, |next| next.max(now))
    }

    /// The entries of a database.
    pub(crate) fn of<'a>(&'a self, database: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.database == database)
    }
}
