//! Carrying out the rules: what goes is deleted, what is old enough is moved, what was left behind is cleared away.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::catalog::{self, Backup};
use crate::clean;
use crate::cold::relocate;
use crate::config::Settings;
use crate::delete;
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
    /// Entries of the journal whose writer had interrupted.
    pub interrupted: usize,
    /// Uploads of others that were aborted.
    pub stale_uploads: usize,
    /// Data objects of others without a manifest.
    pub stale_objects: usize,
    /// Why data objects without a manifest stay.
    pub kept: Vec<String>,
    /// Manifests that cannot be read: nothing of theirs is touched.
    pub unreadable: Vec<String>,
    /// Backups that are dated later than now: they are kept, and count for no rule.
    pub future: Vec<String>,
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
        gone.extend(retention::goes(&catalog.items(database), settings.rules(database).keep, now));
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
        .map(|backup| Action::Delete { name: backup.name.as_str().to_owned() });
    let moved = catalog
        .backups
        .iter()
        .filter(|backup| !gone.contains(backup.name.as_str()) && backup.whole && !backup.manifest.owned())
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

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The only database to look at; `None` for all.
    pub database: Option<&'a str>,
    /// Age after which what belongs to no backup is removed.
    pub stale: SignedDuration,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Does it. One backup that cannot be dealt with does not stop the others.
pub async fn run(
    store: &Store,
    journal: &Journal,
    settings: &Settings,
    options: Options<'_>,
) -> Result<Report, Error> {
    let only = options.database;
    let mut report = Report::default();
    let mut catalog = catalog::read(store, "").await?;
    // Ages are compared with what other hosts wrote: only the server's clock is the same for all.
    let now = store.clock().trusted("pruning")?;
    if !options.dry_run {
        let (interrupted, bad) = clean::abandoned(store, journal).await;
        (report.interrupted, report.failed) = (interrupted, bad);
        catalog = catalog::again(store, "", &catalog).await?;
    }
    report.unreadable = catalog.unreadable.iter().map(|one| format!("{}: {}", one.name, one.why)).collect();
    let judged = |backup: &&Backup| only.is_none_or(|only| only == backup.manifest.database);
    let future = catalog.backups.iter().filter(judged);
    let future = future.filter(|backup| retention::is_future(backup.manifest.time, now));
    report.future = future.map(|backup| format!("{}: {}", backup.name, backup.manifest.time)).collect();
    let actions = plan(&catalog, settings, only, now);
    if options.dry_run {
        report.actions = actions;
        return Ok(report);
    }
    let find = |name: &String| catalog.backups.iter().find(|backup| backup.name.as_str() == name);
    let mut doomed = Vec::new();
    for action in &actions {
        if let Action::Delete { name } = action
            && let Some(backup) = find(name)
        {
            doomed.push((backup.name.clone(), backup.manifest.clone()));
        }
    }
    for (name, answer) in delete::all(store, journal, doomed, &catalog, false).await {
        match answer {
            Ok(()) => report.actions.push(Action::Delete { name: name.as_str().to_owned() }),
            Err(error) => report.failed.push(error.to_string()),
        }
    }
    for action in actions {
        let Action::Move { name, class } = &action else { continue };
        let Some(backup) = find(name) else { continue };
        let moved = match settings.object_options(now) {
            Ok(object_options) => {
                relocate(store, journal, &backup.name, &backup.manifest, object_options.of_class(class))
                    .await
                    .map(|_| ())
            }
            Err(error) => Err(error),
        };
        match moved {
            Ok(()) => report.actions.push(action),
            Err(error) => report.failed.push(error.to_string()),
        }
    }
    // What was listed before may have changed: the second look decides what belongs to nobody.
    let catalog = catalog::again(store, "", &catalog).await?;
    match clean::stale(store, journal, &catalog, options.stale).await {
        Ok(done) => {
            (report.stale_uploads, report.stale_objects, report.kept) =
                (done.uploads, done.objects, done.kept);
        }
        Err(error) => report.failed.push(error.to_string()),
    }
    Ok(report)
}
