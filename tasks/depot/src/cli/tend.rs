//! `thaw`, `move`, `delete`, `prune` and `clean`: what changes what is stored.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::SignedDuration;
use serde_json::json;

use super::{Context, complain, print, print_json, span};
use crate::catalog;
use crate::clean;
use crate::cold::{self, Speed, State, Wanted};
use crate::delete;
use crate::error::Error;
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
        ("thawing", None, _) => "unknown: the thaw was asked for by somebody else".to_owned(),
        (_, Some(seconds), _) => format!("at most {} after a standard thaw is asked for", long(seconds)),
        _ => "unknown".to_owned(),
    }
}

#[derive(clap::Args)]
pub(super) struct Thaw {
    /// Name of the backup
    name: Name,
    /// How fast
    #[arg(long, value_enum, default_value = "standard")]
    tier: Speed,
    /// Days that the thawed copy stays
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
}

impl Thaw {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        // What an incremental backup builds on is needed too.
        let mut chain = vec![self.name.clone()];
        let mut states = Vec::new();
        let terms = context.settings.terms(context.store.clock().now())?;
        while let Some(name) = chain.pop() {
            let manifest = catalog::manifest(&context.store, &name).await?;
            let wanted = Wanted { speed: self.tier, days: self.days };
            states.push((cold::thaw(&context.store, &name, &manifest, wanted, &terms).await?, name));
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
        let manifest = catalog::manifest(&context.store, &self.name).await?;
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
        let terms = context.settings.terms(context.store.clock().now())?;
        cold::relocate(&context.store, &context.journal, &self.name, &manifest, &self.to, &terms).await?;
        print(&format!("{} is in {} now", self.name, self.to));
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Delete {
    /// Names of backups: one call for many is faster than many calls
    #[arg(required = true)]
    names: Vec<Name>,
    /// Also if others build on them
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
            let manifest = catalog::manifest(store, &name).await;
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
    /// Only this database
    #[arg(long)]
    database: Option<String>,
    /// Say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Age from which what belongs to no backup is cleared away, whoever left it
    #[arg(long, value_parser = span, default_value = "7d")]
    stale: Duration,
}

impl Prune {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let stale = SignedDuration::try_from(self.stale).unwrap_or(SignedDuration::MAX);
        let (store, journal, settings) = (&context.store, &context.journal, &context.settings);
        let report =
            prune::run(store, journal, settings, self.database.as_deref(), stale, self.dry_run).await?;
        for line in &report.unreadable {
            complain(&format!("left alone: {line}"));
        }
        for line in &report.future {
            complain(&format!("dated later than now, so it counts for no rule and is kept: {line}"));
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
            let cleared = report.died + report.stale_uploads + report.stale_objects;
            if cleared > 0 {
                print(&format!(
                    "cleared away {cleared} leftovers of interrupted uploads, moves and deletions"
                ));
            }
        }
        if report.failed.is_empty() {
            return Ok(());
        }
        for line in &report.failed {
            complain(line);
        }
        Err(Error::No(format!("{} could not be dealt with: the others were", report.failed.len())))
    }
}

#[derive(clap::Args)]
pub(super) struct Clean {
    /// Age from which what belongs to no backup is cleared away, whoever left it
    #[arg(long, value_parser = span, default_value = "7d")]
    stale: Duration,
}

impl Clean {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let (store, journal) = (&context.store, &context.journal);
        let catalog = catalog::read(store, "").await?;
        store.clock().trusted("cleaning")?;
        let (died, bad) = clean::dead(store, journal).await;
        for why in &bad {
            complain(why);
        }
        let catalog = catalog::again(store, "", &catalog).await?;
        let stale = SignedDuration::try_from(self.stale).unwrap_or(SignedDuration::MAX);
        let done = clean::stale(store, journal, &catalog, stale).await?;
        if context.settings.json {
            print_json(&json!({"died": died, "stale_uploads": done.uploads, "stale_objects": done.objects,
                    "failed": bad}))?;
        } else {
            print(&format!(
                "cleared away {} interrupted operations of this host, and {} uploads and {} objects of no backup",
                died.saturating_sub(bad.len()),
                done.uploads,
                done.objects
            ));
        }
        if bad.is_empty() {
            return Ok(());
        }
        Err(Error::No(format!("{} could not be cleared away: the others were", bad.len())))
    }
}
