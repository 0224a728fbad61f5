//! System replication between two hosts: a primary ships its rows to a secondary, which is another root.
//!
//! The secondary fetches the whole of every database behind its start; from then on it is ACTIVE. In `sync` and `syncmem`
//! the primary writes each commit to an active secondary before it answers; in `async` the secondary fetches it later. Who
//! needs both systems' locks takes the primary's first.

use crate::clock;
use crate::database::{Change, Entry, Volume};
use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use crate::system::{self, Database, Site, System};

/// Nominal seconds behind the start of a secondary until it is syncing, and until it is active.
const INITIALIZING: f64 = 25.0;
const SYNCING: f64 = 35.0;

/// Status of a secondary, as `systemReplicationStatus.py` ends.
pub(crate) const NONE: i32 = 10;
pub(crate) const ERROR: i32 = 11;
pub(crate) const ACTIVE: i32 = 15;

/// The name of a status.
pub(crate) fn name(status: i32) -> &'static str {
    match status {
        11 => "ERROR",
        13 => "INITIALIZING",
        14 => "SYNCING",
        15 => "ACTIVE",
        _ => "UNKNOWN",
    }
}

/// The system at a site, on its host; `None` where it is not to be found or follows another primary.
fn secondary(root: &Root, system: &System, site: &Site) -> Result<Option<(Root, System)>, Halt> {
    let Some(other) = root.peer(&site.host) else { return Ok(None) };
    let found = system::load(&other, &system.sid)?;
    let follows = |found: &System| found.is_secondary() && found.replication.remote_host == root.host();
    Ok(found.filter(follows).map(|found| (other, found)))
}

/// How the replication to a site goes: 11 to 15.
pub(crate) fn status(root: &Root, system: &System, site: &Site) -> Result<i32, Halt> {
    if let Some(asked) = root.faults().find("replication-status", |_| true) {
        return Ok(asked.parse().unwrap_or(12));
    }
    let Some((other, found)) = secondary(root, system, site)? else { return Ok(ERROR) };
    if !found.lives(&other) || found.stopping.is_some() {
        return Ok(ERROR);
    }
    let age = clock::now() - found.started;
    let synced: Option<i64> = files::load(&found.state(&other, "synced.json"))?;
    Ok(match synced {
        _ if age < other.micros(INITIALIZING) => 13,
        Some(start) if start == found.started && age >= other.micros(SYNCING) => ACTIVE,
        _ => 14,
    })
}

/// Writes a commit of the primary to each active secondary that is not asynchronous.
pub(crate) fn ship(root: &Root, system: &System, database: &str, entry: &Entry) -> Result<(), Halt> {
    for site in &system.replication.sites {
        if site.mode == "async" || status(root, system, site)? != ACTIVE {
            continue;
        }
        let Some((other, found)) = secondary(root, system, site)? else { continue };
        let _held = system::lock(&other, &found.sid)?;
        let target = found.databases().into_iter().find(|known| known.name == database);
        if let Some(target) = target {
            Volume::of(&other, &found, &target).receive(&other, entry)?;
        }
    }
    Ok(())
}

/// Fetches what the secondary does not have yet. Called by its server again and again.
pub(crate) fn fetch(root: &Root, system: &System) -> Result<(), Halt> {
    let Some(source) = root.peer(&system.replication.remote_host) else { return Ok(()) };
    let Some(primary) = system::load(&source, &system.sid)? else { return Ok(()) };
    let mode = primary.replication.mode == "primary" && primary.lives(&source) && primary.stopping.is_none();
    let cut = source.faults().has("replication-status");
    if !mode || cut || clock::now() - system.started < root.micros(INITIALIZING) {
        return Ok(());
    }
    let _held_there = system::lock(&source, &primary.sid)?;
    let _held = system::lock(root, &system.sid)?;
    // Asked again under the lock: a takeover may have come between.
    let Some(mut own) = system::load(root, &system.sid)?.filter(System::is_secondary) else { return Ok(()) };
    if own.tenants.len() != primary.tenants.len() {
        own.tenants = primary.tenants.clone();
        own.save(root)?;
    }
    for database in primary.databases() {
        let theirs = Volume::of(&source, &primary, &database).content()?;
        let volume = Volume::of(root, &own, &database);
        let same = volume
            .content()
            .is_ok_and(|mine| (mine.branch, mine.position) == (theirs.branch, theirs.position));
        if !same {
            volume.savepoint(root, &theirs, &[])?;
        }
    }
    let noted: Option<i64> = files::load(&own.state(root, "synced.json"))?;
    if noted != Some(own.started) {
        files::crash_point(root, "replication.fetched");
        files::save(root, &own.state(root, "synced.json"), &own.started)?;
    }
    Ok(())
}

/// A commit on a primary: on its own disk, then on that of its secondaries.
pub(crate) fn commit(root: &Root, system: &System, database: &Database, change: Change) -> Result<(), Halt> {
    let volume = Volume::of(root, system, database);
    let mut content = volume.content()?;
    let entry = volume.commit(root, &mut content, change)?;
    ship(root, system, &database.name, &entry)
}
