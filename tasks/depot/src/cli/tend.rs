//! `thaw`, `move`, `delete`, `prune` and `clean`: what changes what is stored.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{Context, complain, print, print_json, span};
use crate::catalog;
use crate::clean;
use crate::cold::{self, Speed, State};
use crate::error::Error;
use crate::name::Name;
use crate::prune::{self, Action};

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
        let terms = context.settings.terms()?;
        while let Some(name) = chain.pop() {
            let manifest = catalog::manifest(&context.store, &name).await?;
            states.push((
                cold::thaw(&context.store, &name, &manifest, self.tier, self.days, &terms).await?,
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
        let terms = context.settings.terms()?;
        cold::relocate(&context.store, &context.journal, &self.name, &manifest, &self.to, &terms).await?;
        print(&format!("{} is in {} now", self.name, self.to));
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Delete {
    /// Name of the backup
    name: Name,
    /// Also if others build on it
    #[arg(long)]
    force: bool,
}

impl Delete {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        context.clean().await;
        let manifest = catalog::manifest(&context.store, &self.name).await?;
        if !self.force {
            let catalog = catalog::read(&context.store, "").await?;
            let child =
                catalog.backups.iter().find(|one| one.manifest.parent.as_deref() == Some(self.name.as_str()));
            if let Some(child) = child {
                let text =
                    format!("`{}` builds on `{}`: delete it first, or say --force", child.name, self.name);
                return Err(Error::Refused(text));
            }
        }
        cold::delete(&context.store, &context.journal, &self.name, &manifest).await?;
        print(&format!("{} is deleted", self.name));
        Ok(())
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
                print(&format!("cleared away {cleared} leftovers of uploads, moves and deletions that died"));
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
        let died = clean::dead(store, journal).await?;
        let catalog = catalog::read(store, "").await?;
        let stale = SignedDuration::try_from(self.stale).unwrap_or(SignedDuration::MAX);
        let done = clean::stale(store, journal, &catalog, stale).await?;
        if context.settings.json {
            return print_json(
                &json!({"died": died, "stale_uploads": done.uploads, "stale_objects": done.objects}),
            );
        }
        print(&format!(
            "cleared away {died} that died on this host, and {} uploads and {} objects of no backup",
            done.uploads, done.objects
        ));
        Ok(())
    }
}
