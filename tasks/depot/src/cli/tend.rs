//! `thaw`, `move`, `delete`, `prune` and `clean`: what changes what is stored.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use serde_json::json;

use super::{Context, complain, print, print_json, span};
use crate::catalog;
use crate::clean;
use crate::cold::{self, RestoreOptions, Speed, State};
use crate::delete;
use crate::error::Error;
use crate::lookup;
use crate::manifest::Manifest;
use crate::name::Name;
use crate::prune::{self, Action};

/// Manifests read at once.
const AT_ONCE: usize = 16;

/// When the first byte can be read, for people.
pub(super) fn expected(state: &State) -> String {
    let long = |seconds: i64| match seconds {
        0..=3600 => format!("{} min", (seconds + 59) / 60),
        _ => format!("{} h", (seconds + 3599) / 3600),
    };
    match (state.state, state.seconds, &state.until) {
        ("hot", ..) => "now".to_owned(),
        ("thawed", _, Some(until)) => format!("now, until {until}"),
        ("thawing", Some(0), _) => "any moment".to_owned(),
        ("thawing", Some(seconds), _) => format!("in at most {}", long(seconds)),
        ("thawing", None, _) => "unknown: the thaw was not requested by hostler-depot".to_owned(),
        (_, Some(seconds), _) => format!("at most {} after a standard thaw is requested", long(seconds)),
        _ => "unknown".to_owned(),
    }
}

#[derive(clap::Args)]
pub(super) struct Thaw {
    /// Name of the backup
    name: Name,
    /// Retrieval tier
    #[arg(long, value_enum, default_value = "standard")]
    tier: Speed,
    /// Days to keep the thawed copy
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
}

impl Thaw {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        // What an incremental backup builds on is needed too.
        let mut chain = vec![self.name.clone()];
        let mut states = Vec::new();
        let object_options = context.settings.object_options(context.store.clock().now())?;
        while let Some(name) = chain.pop() {
            let manifest = lookup::manifest(&context.store, &name).await?;
            let wanted = RestoreOptions { speed: self.tier, days: self.days };
            states.push((
                cold::restore(&context.store, &name, &manifest, wanted, &object_options).await?,
                name,
            ));
            if let Some(parent) = manifest.parent.and_then(|parent| parent.parse().ok()) {
                if states.iter().any(|(_, name)| *name == parent) {
                    return Err(Error::damaged(self.name.as_str(), "it builds on itself"));
                }
                chain.push(parent);
            }
        }
        if context.settings.json {
            let all: Vec<_> =
                states.iter().map(|(state, name)| json!({"name": name.as_str(), "state": state})).collect();
            return print_json(&all);
        }
        for (state, name) in &states {
            print(&format!("{name}: {}, first byte {}", state.state, expected(state)));
        }
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Move {
    /// Name of the backup
    name: Name,
    /// Storage class, such as GLACIER, DEEP_ARCHIVE or STANDARD
    #[arg(long, value_name = "CLASS")]
    to: String,
}

impl Move {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        context.clean().await;
        let manifest = lookup::manifest(&context.store, &self.name).await?;
        if manifest.stored.class == self.to {
            print(&format!("{} is in {} already", self.name, self.to));
            return Ok(());
        }
        if matches!(cold::state(&context.store, &self.name, &manifest).await?.state, "cold" | "thawing") {
            return Err(Error::Cold(format!(
                "`{0}` must be thawed first: hostler-depot thaw {0}",
                self.name
            )));
        }
        let object_options = context.settings.object_options(context.store.clock().now())?;
        let object_options = object_options.of_class(&self.to);
        cold::relocate(&context.store, &context.journal, &self.name, &manifest, object_options).await?;
        print(&format!("{} is in {} now", self.name, self.to));
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Delete {
    /// Backups to delete; one call for many is faster
    #[arg(required = true)]
    names: Vec<Name>,
    /// Delete even if other backups build on them
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        context.clean().await;
        let store = &context.store;
        let mut names = self.names;
        names.sort();
        names.dedup();
        let read = stream::iter(names).map(|name| async move {
            let manifest = lookup::manifest(store, &name).await;
            (name, manifest)
        });
        let read: Vec<(Name, Result<Manifest, Error>)> = read.buffered(AT_ONCE).collect().await;
        let mut doomed = Vec::new();
        let mut answers = Vec::new();
        for (name, manifest) in read {
            match manifest {
                Ok(manifest) => doomed.push((name, manifest)),
                Err(error) => answers.push((name, Err(error))),
            }
        }
        let nothing = catalog::Catalog::default();
        answers.extend(delete::all(store, &context.journal, doomed, &nothing, self.force).await);
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        if context.settings.json {
            let all: Vec<_> = answers
                .iter()
                .map(|(name, answer)| {
                    let why = answer.as_ref().err().map(ToString::to_string);
                    json!({"name": name.as_str(), "deleted": answer.is_ok(), "why": why})
                })
                .collect();
            print_json(&all)?;
        }
        let count = answers.len();
        let mut failed = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok(()) if !context.settings.json => print(&format!("{name} is deleted")),
                Ok(()) => {}
                Err(error) => failed.push(error),
            }
        }
        if failed.len() > 1 {
            for error in &failed {
                complain(&error.to_string());
            }
            return Err(Error::No(format!("{} of {count} were not deleted", failed.len())));
        }
        failed.pop().map_or(Ok(()), Err)
    }
}

#[derive(clap::Args)]
pub(super) struct Prune {
    /// Apply the rules of this database only
    #[arg(long)]
    database: Option<String>,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Remove what belongs to no backup after this age
    #[arg(long, value_parser = span, default_value = "7d")]
    stale: Duration,
}

impl Prune {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let stale = SignedDuration::try_from(self.stale).unwrap_or(SignedDuration::MAX);
        let (store, journal, settings) = (&context.store, &context.journal, &context.settings);
        let options = prune::Options { database: self.database.as_deref(), stale, dry_run: self.dry_run };
        let report = prune::run(store, journal, settings, options).await?;
        for line in &report.unreadable {
            complain(&format!("left alone: {line}"));
        }
        for line in &report.kept {
            complain(&format!("a leftover stays: {line}"));
        }
        for line in &report.future {
            complain(&format!("dated in the future, so no rule counts it and it is kept: {line}"));
        }
        if settings.json {
            print_json(&report)?;
        } else {
            let (delete, shift) =
                if self.dry_run { ("would delete", "would move") } else { ("deleted", "moved") };
            for action in &report.actions {
                match action {
                    Action::Delete { name } => print(&format!("{delete} {name}")),
                    Action::Move { name, class } => print(&format!("{shift} {name} to {class}")),
                }
            }
            let cleared = report.interrupted + report.stale_uploads + report.stale_objects;
            if cleared > 0 {
                print(&format!("removed {cleared} leftovers of interrupted uploads, moves and deletions"));
            }
        }
        if report.failed.is_empty() {
            return Ok(());
        }
        for line in &report.failed {
            complain(line);
        }
        Err(Error::No(format!("{} could not be processed; the others were", report.failed.len())))
    }
}

#[derive(clap::Args)]
pub(super) struct Clean {
    /// Remove what belongs to no backup after this age
    #[arg(long, value_parser = span, default_value = "7d")]
    stale: Duration,
}

impl Clean {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let (store, journal) = (&context.store, &context.journal);
        let catalog = catalog::read(store, "").await?;
        store.clock().trusted("cleaning")?;
        let (interrupted, bad) = clean::abandoned(store, journal).await;
        for why in &bad {
            complain(why);
        }
        let catalog = catalog::again(store, "", &catalog).await?;
        let stale = SignedDuration::try_from(self.stale).unwrap_or(SignedDuration::MAX);
        let done = clean::stale(store, journal, &catalog, stale).await?;
        for line in &done.kept {
            complain(&format!("a leftover stays: {line}"));
        }
        if context.settings.json {
            print_json(
                &json!({"interrupted": interrupted, "stale_uploads": done.uploads, "stale_objects": done.objects, "kept": done.kept,
                    "failed": bad}),
            )?;
        } else {
            print(&format!(
                "cleaned up {} interrupted operations of this host, and removed {} uploads and {} objects of no backup",
                interrupted.saturating_sub(bad.len()),
                done.uploads,
                done.objects
            ));
        }
        if bad.is_empty() {
            return Ok(());
        }
        Err(Error::No(format!("{} could not be cleaned up; the others were", bad.len())))
    }
}
