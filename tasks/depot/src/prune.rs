//! Carrying out the rules: what goes is deleted, what is old enough is moved, what was left behind is cleared away.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::catalog::{self, Backup};
use crate::clean;
use crate::config::Settings;
use crate::error::Error;
use crate::journal::Journal;
use crate::retention;
use crate::store::Store;

/// What is to be done with one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum Action {
    /// It goes.
    Delete {
        /// Its name.
        name: String,
    },
    /// It is moved.
    Move {
        /// Its name.
        name: String,
        /// Where to.
        class: String,
    },
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which it was done.
    pub actions: Vec<Action>,
    /// What could not be done, a line each.
    pub failed: Vec<String>,
    /// Entries of the journal whose writer had died.
    pub died: usize,
    /// Uploads of others that were aborted.
    pub stale_uploads: usize,
    /// Data objects of others without a manifest.
    pub stale_objects: usize,
    /// Manifests that cannot be read: nothing of theirs is touched.
    pub unreadable: Vec<String>,
}

/// Decides for all databases, or one. Newest first: what builds on another goes before it.
pub fn plan(
    catalog: &catalog::Catalog,
    settings: &Settings,
    only: Option<&str>,
    now: Timestamp,
) -> Vec<Action> {
    let mut gone: BTreeSet<String> = BTreeSet::new();
    for database in catalog.databases().iter().filter(|name| only.is_none_or(|only| only == name.as_str())) {
        gone.extend(retention::goes(&catalog.items(database), settings.rules(database).keep));
    }
    // A parent may be filed under another database; who builds on it must not lose it.
    let mut needed: Vec<&str> = catalog
        .backups
        .iter()
        .filter(|backup| !gone.contains(backup.name.as_str()))
        .filter_map(|backup| backup.manifest.parent.as_deref())
        .collect();
    while let Some(name) = needed.pop() {
        if gone.remove(name) {
            let parent = catalog.backups.iter().find(|backup| backup.name.as_str() == name);
            needed.extend(parent.and_then(|backup| backup.manifest.parent.as_deref()));
        }
    }
    let deleted = catalog
        .backups
        .iter()
        .rev()
        .filter(|backup| gone.contains(backup.name.as_str()))
        .filter(|backup| backup.manifest.stored.locked_until.is_none_or(|until| until <= now))
        .filter(|backup| ours(backup))
        .map(|backup| Action::Delete { name: backup.name.as_str().to_owned() });
    let moved = catalog
        .backups
        .iter()
        .filter(|backup| !gone.contains(backup.name.as_str()) && backup.whole && ours(backup))
        .filter(|backup| only.is_none_or(|only| only == backup.manifest.database))
        .filter_map(|backup| {
            let cold = settings.rules(&backup.manifest.database).cold?;
            let age = now.duration_since(backup.manifest.time);
            let due = age >= SignedDuration::from_hours(24 * i64::from(cold.after_days));
            let hot = crate::config::cold_class(&backup.manifest.stored.class).is_err();
            (due && hot).then(|| Action::Move { name: backup.name.as_str().to_owned(), class: cold.class })
        });
    deleted.chain(moved).collect()
}

/// What came through Backint belongs to SAP HANA: its own catalog says what goes, and must find what it says.
fn ours(backup: &Backup) -> bool {
    backup.manifest.backint.is_none()
}

/// Does it. One backup that cannot be dealt with does not stop the others.
pub async fn run(
    store: &Store,
    journal: &Journal,
    settings: &Settings,
    only: Option<&str>,
    stale: SignedDuration,
    dry: bool,
) -> Result<Report, Error> {
    let mut report = Report::default();
    if !dry {
        match clean::dead(store, journal).await {
            Ok(died) => report.died = died,
            Err(error) => report.failed.push(error.to_string()),
        }
    }
    let catalog = catalog::read(store, "").await?;
    report.unreadable = catalog.unreadable.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let actions = plan(&catalog, settings, only, Timestamp::now());
    if dry {
        report.actions = actions;
        return Ok(report);
    }
    // Whoever builds on something that could not be deleted is gone already; the other way round is never seen.
    for action in actions {
        let name = match &action {
            Action::Delete { name } | Action::Move { name, .. } => name,
        };
        let Some(backup) = catalog.backups.iter().find(|backup| backup.name.as_str() == name) else {
            continue;
        };
        match act(store, journal, settings, backup, &action).await {
            Ok(()) => report.actions.push(action),
            Err(error) => report.failed.push(error.to_string()),
        }
    }
    // What was listed before may have changed: the second look decides what belongs to nobody.
    let catalog = catalog::read(store, "").await?;
    match clean::stale(store, journal, &catalog, stale).await {
        Ok(done) => (report.stale_uploads, report.stale_objects) = (done.uploads, done.objects),
        Err(error) => report.failed.push(error.to_string()),
    }
    Ok(report)
}

async fn act(
    store: &Store,
    journal: &Journal,
    settings: &Settings,
    backup: &Backup,
    action: &Action,
) -> Result<(), Error> {
    match action {
        Action::Delete { .. } => crate::cold::delete(store, journal, &backup.name, &backup.manifest).await,
        Action::Move { class, .. } => {
            let terms = settings.terms()?;
            crate::cold::relocate(store, journal, &backup.name, &backup.manifest, class, &terms)
                .await
                .map(|_| ())
        }
    }
}
