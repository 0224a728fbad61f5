//! `list`, `show`, `verify` and `status`: questions that change nothing.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::table::table;
use super::{Context, complain, print, print_json};
use crate::catalog::{self, Catalog, age};
use crate::chain;
use crate::cold;
use crate::download;
use crate::error::Error;
use crate::lookup;
use crate::name::Name;
use crate::progress::{Progress, bytes};
use crate::retention::is_future;
use crate::store::objects::Availability;

/// Requests of `status` at once.
const AT_ONCE: usize = 16;

#[derive(clap::Args)]
pub(super) struct List {
    /// Show only names with this prefix
    #[arg(default_value = "")]
    below: String,
    /// Show only this database
    #[arg(long, conflicts_with = "names")]
    database: Option<String>,
    /// Show only names, without reading manifests
    #[arg(long)]
    names: bool,
}

/// Reads the catalog, and reports problems on standard error.
async fn read(context: &Context, below: &str, database: Option<&String>) -> Result<Catalog, Error> {
    let mut catalog = catalog::read(&context.store, below).await?;
    catalog.backups.retain(|backup| database.is_none_or(|name| *name == backup.manifest.database));
    for one in &catalog.unreadable {
        complain(&format!("`{}` is {}: {}", one.name, one.state(), one.why));
    }
    for backup in &catalog.backups {
        if let Some(why) = backup.damage() {
            complain(&format!("`{}` is damaged: {why}", backup.name));
        }
    }
    let now = context.store.clock().now();
    for backup in catalog.backups.iter().filter(|backup| is_future(backup.manifest.time, now)) {
        complain(&format!("`{}` is dated later than now: {}", backup.name, backup.manifest.time));
    }
    if let Some(wrong) = context.store.clock().wrong() {
        complain(&wrong);
    }
    Ok(catalog)
}

/// The result of a command that only reports: 7 if anything is damaged, after everything was printed.
fn told(catalog: &Catalog, damaged: &[String]) -> Result<(), Error> {
    let bad =
        catalog.backups.iter().filter(|backup| backup.damage().is_some()).map(|backup| backup.name.as_str());
    let unread = catalog.unreadable.iter().filter(|one| one.damaged).map(|one| one.name.as_str());
    let all: BTreeSet<&str> = bad.chain(unread).chain(damaged.iter().map(String::as_str)).collect();
    let Some(first) = all.first() else { return Ok(()) };
    let count = catalog.backups.len() + catalog.unreadable.len();
    Err(Error::damaged(first, format!("{} of {count} backups are damaged", all.len())))
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        if self.names {
            let names = catalog::names(&context.store, &self.below).await?;
            if context.settings.json {
                let all: Vec<_> = names
                    .iter()
                    .map(|(name, changed)| json!({"name": name.as_str(), "changed": changed}))
                    .collect();
                return print_json(&all);
            }
            for (name, _) in names {
                print(name.as_str());
            }
            return Ok(());
        }
        let catalog = read(context, &self.below, self.database.as_ref()).await?;
        if context.settings.json {
            let mut all: Vec<_> = catalog
                .backups
                .iter()
                .map(|backup| {
                    let manifest = &backup.manifest;
                    json!({"name": manifest.name, "database": manifest.database, "time": manifest.time,
                        "parent": manifest.parent, "size": manifest.size, "stored_size": manifest.stored.size,
                        "class": manifest.stored.class, "whole": backup.whole, "state": backup.state(),
                        "why": backup.damage(), "owner": manifest.owner, "label": manifest.label})
                })
                .collect();
            // What cannot be read belongs to a database that nobody knows.
            all.extend(catalog.unreadable.iter().map(
                |one| json!({"name": one.name.as_str(), "whole": false, "state": one.state(), "why": one.why}),
            ));
            print_json(&all)?;
            return told(&catalog, &[]);
        }
        let now = context.store.clock().now();
        let mut rows: Vec<Vec<String>> = catalog
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
                    match backup.state() {
                        "good" => manifest.stored.class.clone(),
                        state => state.to_uppercase(),
                    },
                    manifest.parent.clone().unwrap_or_default(),
                    manifest.label.as_ref().map(ToString::to_string).unwrap_or_default(),
                ]
            })
            .collect();
        for one in &catalog.unreadable {
            let mut row = vec![String::new(); 9];
            if let [name, _, _, _, _, _, class, ..] = row.as_mut_slice() {
                (*name, *class) = (one.name.as_str().to_owned(), one.state().to_uppercase());
            }
            rows.push(row);
        }
        let head = ["NAME", "DATABASE", "TIME", "AGE", "SIZE", "STORED", "CLASS", "BUILDS ON", "LABEL"];
        print(&table(&head, &rows));
        told(&catalog, &[])
    }
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// Name of the backup
    name: Name,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let manifest = lookup::manifest(&context.store, &self.name).await?;
        let state = cold::state(&context.store, &self.name, &manifest).await?;
        let base = chain::whole(&context.store, &manifest.name, manifest.parent.as_deref()).await;
        if context.settings.json {
            let why = base.as_ref().err().map(ToString::to_string);
            return print_json(&json!({"backup": manifest, "state": state, "base": why}));
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
            ("base", base.as_ref().err().map(ToString::to_string)),
            ("locked until", locked),
            ("object", Some(stored.key.clone())),
            ("hana name", manifest.backint.as_ref().map(|backint| backint.object.clone())),
            ("hana id", manifest.backint.as_ref().map(|backint| backint.ebid.clone())),
            ("owner", manifest.owner.clone()),
            ("label", manifest.label.as_ref().map(ToString::to_string)),
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
    /// Backups to verify [default: all]
    names: Vec<Name>,
    /// Read only this percentage of the stored blocks
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    sample: Option<u32>,
}

impl Verify {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let mut answers: Vec<(String, &str, String)> = Vec::new();
        let names: Vec<Name> = if self.names.is_empty() {
            let catalog = catalog::read(&context.store, "").await?;
            for one in catalog.unreadable {
                answers.push((
                    one.name.as_str().to_owned(),
                    if one.damaged { "damaged" } else { "unreadable" },
                    one.why,
                ));
            }
            catalog.backups.into_iter().map(|backup| backup.name).collect()
        } else {
            self.names.clone()
        };
        // What was asked for by name and is not there is an answer; what has gone since the listing is none.
        let (mut missing, mut unreadable) = (None, None);
        for name in names {
            let (verdict, text) = match self.one(context, &name).await {
                Ok((verdict, text)) => (verdict, text),
                Err(Error::Damaged { why, .. }) => ("damaged", why),
                Err(Error::Missing(_)) if self.names.is_empty() => continue,
                Err(error @ Error::Missing(_)) => {
                    let text = error.to_string();
                    missing = Some(error);
                    ("missing", text)
                }
                Err(error) => {
                    let text = error.to_string();
                    unreadable = Some(error);
                    ("unreadable", text)
                }
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
        let of = |wanted: &str| -> Vec<&(String, &str, String)> {
            answers.iter().filter(|one| one.1 == wanted).collect()
        };
        for (name, verdict, why) in of("damaged").into_iter().skip(1).chain(of("unreadable")) {
            complain(&format!("`{name}` is {verdict}: {why}"));
        }
        if let Some((first, _, why)) = of("damaged").first() {
            let why = format!("{why}; {} of {} backups are damaged", of("damaged").len(), answers.len());
            return Err(Error::damaged(first, why));
        }
        match (unreadable, missing, of("unreadable").first()) {
            (Some(error), ..) | (None, Some(error), None) => Err(error),
            (None, _, Some((name, _, why))) => {
                Err(Error::Store(format!("`{name}` could not be read: {why}")))
            }
            (None, None, None) => Ok(()),
        }
    }

    async fn one(&self, context: &Context, name: &Name) -> Result<(&'static str, String), Error> {
        let manifest = lookup::manifest(&context.store, name).await?;
        chain::whole(&context.store, name.as_str(), manifest.parent.as_deref()).await?;
        let (manifest, availability) = download::ready(&context.store, &manifest).await?;
        if let Availability::Cold | Availability::Thawing = availability {
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
    /// Show only names with this prefix
    #[arg(default_value = "")]
    below: String,
    /// Show only this database
    #[arg(long)]
    database: Option<String>,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let catalog = read(context, &self.below, self.database.as_ref()).await?;
        let mut states = stream::iter(&catalog.backups)
            .map(|backup| async move {
                let state = match backup.broken.clone() {
                    Some(why) => Err(Error::damaged(backup.name.as_str(), why)),
                    None => cold::state(&context.store, &backup.name, &backup.manifest).await,
                };
                (backup, state)
            })
            .buffered(AT_ONCE);
        let (mut rows, mut all, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        let bad = |name: &str, state: &str, why: &str| {
            let row = vec![name.to_owned(), state.to_owned(), String::new(), why.to_owned()];
            (row, json!({"name": name, "state": {"state": state, "why": why}}))
        };
        while let Some((backup, state)) = states.next().await {
            let name = backup.name.as_str();
            let (row, json) = match state {
                Ok(state) => {
                    let first = super::tend::expected(&state);
                    let row = vec![name.to_owned(), state.state.to_owned(), state.class.clone(), first];
                    (row, json!({"name": name, "state": state}))
                }
                Err(Error::Damaged { why, .. }) => {
                    damaged.push(name.to_owned());
                    bad(name, "damaged", &why)
                }
                // Deleted in this moment.
                Err(Error::Missing(_)) => continue,
                Err(error) => bad(name, "unreadable", &error.to_string()),
            };
            rows.push(row);
            all.push(json);
        }
        drop(states);
        for one in &catalog.unreadable {
            let (row, json) = bad(one.name.as_str(), one.state(), &one.why);
            rows.push(row);
            all.push(json);
        }
        if context.settings.json {
            print_json(&all)?;
        } else {
            print(&table(&["NAME", "STATE", "CLASS", "FIRST BYTE"], &rows));
        }
        told(&catalog, &damaged)
    }
}
