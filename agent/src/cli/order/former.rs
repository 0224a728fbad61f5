//! The former documents of an order: the last ten that were replaced or deleted, kept in the store for people.
//!
//! They lie beside what hosts watch and mean nothing to any host. That they cannot be kept keeps no order from being
//! written: it costs a note.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use crate::cli::connection::Connection;
use crate::cli::show;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use crate::ledger::{Folder, trim};
use crate::store::{When, portions};

/// How many are kept of each order.
pub(in crate::cli) const KEPT: usize = 10;
/// The largest that is kept, in bytes of JSON: less than a value in the store may have.
const MAX_FORMER: usize = 60 << 10;

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Fate {
    /// Another one took its place.
    Replaced,
    /// The order was deleted.
    Deleted,
    /// A run on this host carried it out; never in the store.
    CarriedOut,
}

impl Fate {
    /// As people read it.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
            Self::CarriedOut => "carried out",
        }
    }
}

/// A document that stood there before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Former {
    /// Until when; of a run, when it was made.
    pub(in crate::cli) at: Timestamp,
    /// What became of it.
    pub(in crate::cli) did: Fate,
    /// Who did that.
    pub(in crate::cli) by: Option<String>,
    /// Why.
    pub(in crate::cli) reason: Option<String>,
    /// The document.
    pub(in crate::cli) text: String,
}

/// Keeps a document that stands there no more.
pub(in crate::cli) async fn keep(place: &Connection, key: &OrderKey, former: &Former) {
    if let Err(error) = try_keep(place, key, former).await {
        show::note(format!(
            "the former document is not kept, so hostler order revert does not have it: {}",
            show::inline(&error.to_string())
        ));
    }
}

async fn try_keep(place: &Connection, key: &OrderKey, former: &Former) -> Result<(), Failure> {
    let json = serde_json::to_vec(former)?;
    if json.len() > MAX_FORMER {
        return Err(format!("it has more than {MAX_FORMER} bytes").into());
    }
    let prefix = place.keys.former(key);
    // The id begins with the time, so keys are in the order of time.
    place.store.put(&format!("{prefix}{}", clock::new_run()), json, When::Unchanged(0)).await?;
    let mut keys: Vec<String> =
        place.store.list(&prefix).await?.entries.into_iter().map(|entry| entry.key).collect();
    keys.sort_unstable();
    let surplus = keys.len().saturating_sub(KEPT);
    for old in keys.iter().take(surplus) {
        place.store.delete(old).await?;
    }
    Ok(())
}

/// The former documents, the newest first; what cannot be read is left out.
pub(in crate::cli) async fn all(place: &Connection, key: &OrderKey) -> Result<Vec<Former>, Failure> {
    let mut entries = place.store.list(&place.keys.former(key)).await?.entries;
    entries.sort_by(|a, b| b.key.cmp(&a.key));
    Ok(entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect())
}

/// The documents that this host's runs carried out for an order, the newest first, each once: those that it still has in
/// the folders of its runs.
pub(in crate::cli) fn of_runs(dir: &Path, key: &OrderKey) -> Result<Vec<Former>, Failure> {
    let mut found: Vec<Former> = Vec::new();
    if !dir.exists() {
        return Ok(found);
    }
    for run in trim::folders(dir)?.into_iter().rev() {
        let folder = Folder::new(dir, run);
        let is_of = folder.plan().is_ok_and(|plan| (&plan.source, &plan.order) == (&key.source, &key.order));
        let text = folder.order().filter(|_| is_of).and_then(|text| String::from_utf8(text).ok());
        let Some(text) = text.filter(|text| found.iter().all(|one| one.text != *text)) else { continue };
        let (by, reason) = folder.ordered_by();
        let millis = i64::try_from(run.millis()).unwrap_or(i64::MAX);
        let at = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH);
        found.push(Former { at, did: Fate::CarriedOut, by, reason, text });
        if found.len() >= KEPT {
            break;
        }
    }
    Ok(found)
}

/// The former documents of all orders of a host or group.
pub(in crate::cli) async fn of_source(
    place: &Connection,
    source: &Source,
) -> Result<Vec<(Name, Former)>, Failure> {
    let prefix = place.keys.former_of(source);
    let mut found = Vec::new();
    let unread = portions::read(place.store.as_ref(), &prefix, |entry| {
        let order = entry.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
        let order = order.and_then(|(order, _)| order.parse::<Name>().ok());
        let former = serde_json::from_slice::<Former>(&entry.value).ok();
        found.extend(order.zip(former));
    });
    for (key, why) in unread.await? {
        show::note(format!("not read: {}: {why}", show::inline(&key)));
    }
    Ok(found)
}
