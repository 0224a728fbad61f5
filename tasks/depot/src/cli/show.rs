//! `list`, `show`, `verify` and `status`: questions that change nothing.

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::json;

use super::table::table;
use super::{Context, complain, print, print_json};
use crate::catalog::{self, Catalog, age};
use crate::cold;
use crate::download;
use crate::error::Error;
use crate::name::Name;
use crate::progress::{Progress, bytes};
use crate::store::objects::Warmth;

/// Requests of `status` at once.
const AT_ONCE: usize = 16;

#[derive(clap::Args)]
pub(super) struct List {
    /// Only names that begin so
    #[arg(default_value = "")]
    below: String,
    /// Only this database
    #[arg(long)]
    database: Option<String>,
}

async fn read(context: &Context, below: &str, database: Option<&String>) -> Result<Catalog, Error> {
    let mut catalog = catalog::read(&context.store, below).await?;
    catalog.backups.retain(|backup| database.is_none_or(|name| *name == backup.manifest.database));
    for (name, why) in &catalog.unreadable {
        complain(&format!("`{name}` is damaged: {why}"));
    }
    Ok(catalog)
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let catalog = read(context, &self.below, self.database.as_ref()).await?;
        if context.settings.json {
            let all: Vec<_> = catalog
                .backups
                .iter()
                .map(|backup| {
                    let manifest = &backup.manifest;
                    json!({"name": manifest.name, "database": manifest.database, "time": manifest.time,
                        "parent": manifest.parent, "size": manifest.size, "stored_size": manifest.stored.size,
                        "class": manifest.stored.class, "whole": backup.whole})
                })
                .collect();
            return print_json(&all);
        }
        let now = Timestamp::now();
        let rows: Vec<Vec<String>> = catalog
            .backups
            .iter()
            .map(|backup| {
                let manifest = &backup.manifest;
                vec![
                    manifest.name.clone(),
                    manifest.database.clone(),
                    format!("{:.0}", manifest.time),
                    age(manifest.time, now),
                    bytes(manifest.size),
                    bytes(manifest.stored.size),
                    if backup.whole { manifest.stored.class.clone() } else { "BYTES MISSING".to_owned() },
                    manifest.parent.clone().unwrap_or_default(),
                ]
            })
            .collect();
        print(&table(&["NAME", "DATABASE", "TIME", "AGE", "SIZE", "STORED", "CLASS", "BUILDS ON"], &rows));
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// Name of the backup
    name: Name,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let manifest = catalog::manifest(&context.store, &self.name).await?;
        let state = cold::state(&context.store, &self.name, &manifest).await?;
        if context.settings.json {
            return print_json(&json!({"backup": manifest, "state": state}));
        }
        let stored = &manifest.stored;
        let parts: u64 = stored.parts.iter().map(|(count, _)| u64::from(*count)).sum();
        let locked = stored.locked_until.map(|until| until.to_string());
        let rows = [
            ("name", Some(manifest.name.clone())),
            ("database", Some(manifest.database.clone())),
            ("time", Some(manifest.time.to_string())),
            ("builds on", manifest.parent.clone()),
            ("size", Some(format!("{} ({} bytes)", bytes(manifest.size), manifest.size))),
            ("sha256", Some(manifest.sha256.clone())),
            ("stored", Some(format!("{} ({} bytes) in {parts} parts", bytes(stored.size), stored.size))),
            ("compression", stored.compression.clone()),
            ("encryption", stored.encryption.clone()),
            ("class", Some(state.class.clone())),
            ("state", Some(format!("{}, {}", state.state, super::tend::expected(&state)))),
            ("locked until", locked),
            ("object", Some(stored.key.clone())),
            ("hana name", manifest.backint.as_ref().map(|backint| backint.object.clone())),
            ("hana id", manifest.backint.as_ref().map(|backint| backint.ebid.clone())),
            ("written by", Some(manifest.tool.clone())),
        ];
        for (key, value) in rows {
            if let Some(value) = value {
                print(&format!("{key:12}  {value}"));
            }
        }
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Verify {
    /// Names of backups [default: all]
    names: Vec<Name>,
    /// Read only so many percent of the stored blocks, and not the whole digest
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    sample: Option<u32>,
}

impl Verify {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let mut answers: Vec<(String, &str, String)> = Vec::new();
        let names = if self.names.is_empty() {
            let catalog = catalog::read(&context.store, "").await?;
            let unreadable = catalog.unreadable.into_iter();
            answers.extend(unreadable.map(|(name, why)| (name.as_str().to_owned(), "damaged", why)));
            catalog.backups.into_iter().map(|backup| backup.name).collect()
        } else {
            self.names.clone()
        };
        let mut missing = None;
        for name in names {
            let (verdict, text) = match self.one(context, &name).await {
                Ok((verdict, text)) => (verdict, text),
                Err(Error::Damaged { why, .. }) => ("damaged", why),
                Err(error @ Error::Missing(_)) => {
                    let text = error.to_string();
                    missing = Some(error);
                    ("missing", text)
                }
                Err(error) => return Err(error),
            };
            answers.push((name.as_str().to_owned(), verdict, text));
        }
        if context.settings.json {
            let all: Vec<_> = answers
                .iter()
                .map(|(name, verdict, text)| json!({"name": name, "verdict": verdict, "text": text}))
                .collect();
            print_json(&all)?;
        } else {
            let rows: Vec<Vec<String>> = answers
                .iter()
                .map(|(name, verdict, text)| vec![name.clone(), (*verdict).to_owned(), text.clone()])
                .collect();
            print(&table(&["NAME", "VERDICT", ""], &rows));
        }
        let damaged: Vec<&str> =
            answers.iter().filter(|one| one.1 == "damaged").map(|one| one.0.as_str()).collect();
        match (damaged.first(), missing) {
            (Some(first), _) => Err(Error::damaged(
                first,
                format!("{} of {} backups are damaged", damaged.len(), answers.len()),
            )),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    async fn one(&self, context: &Context, name: &Name) -> Result<(&'static str, String), Error> {
        let manifest = catalog::manifest(&context.store, name).await?;
        if let Warmth::Cold | Warmth::Thawing = download::ready(&context.store, &manifest).await? {
            return Ok(("cold", "only its size was looked at: thaw it to read it".to_owned()));
        }
        let reading = context.settings.reading()?;
        if let Some(percent) = self.sample {
            let read = download::sums(&context.store, &manifest, &reading, percent).await?;
            return Ok(("good", format!("a sample of {}", bytes(read))));
        }
        if manifest.stored.encryption.is_some() && reading.identities.is_empty() {
            let read = download::sums(&context.store, &manifest, &reading, 100).await?;
            return Ok(("good", format!("all {} that are stored; not decrypted, no key here", bytes(read))));
        }
        let progress = Progress::new("verified", Some(manifest.size));
        let sink = std::io::sink();
        let work = download::get(&context.store, &manifest, &reading, sink, progress.clone());
        progress.shown(work).await?;
        Ok(("good", bytes(manifest.size)))
    }
}

#[derive(clap::Args)]
pub(super) struct Status {
    /// Only names that begin so
    #[arg(default_value = "")]
    below: String,
    /// Only this database
    #[arg(long)]
    database: Option<String>,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let catalog = read(context, &self.below, self.database.as_ref()).await?;
        let mut states = stream::iter(&catalog.backups)
            .map(|backup| async move {
                (backup, cold::state(&context.store, &backup.name, &backup.manifest).await)
            })
            .buffered(AT_ONCE);
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        while let Some((backup, state)) = states.next().await {
            let name = backup.name.as_str().to_owned();
            match state {
                Ok(state) => {
                    rows.push(vec![
                        name.clone(),
                        state.state.to_owned(),
                        state.class.clone(),
                        super::tend::expected(&state),
                    ]);
                    all.push(json!({"name": name, "state": state}));
                }
                Err(Error::Damaged { why, .. }) => {
                    rows.push(vec![name.clone(), "damaged".to_owned(), String::new(), why.clone()]);
                    all.push(json!({"name": name, "state": {"state": "damaged", "why": why}}));
                }
                Err(error) => return Err(error),
            }
        }
        for (name, why) in &catalog.unreadable {
            all.push(json!({"name": name.as_str(), "state": {"state": "damaged", "why": why}}));
        }
        if context.settings.json {
            return print_json(&all);
        }
        print(&table(&["NAME", "STATE", "CLASS", "FIRST BYTE"], &rows));
        Ok(())
    }
}
