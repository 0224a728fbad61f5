//! Hot and cold: moving backups to Glacier, asking for them back, and saying how long that takes.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::error::Error;
use crate::journal::Journal;
use crate::manifest::Manifest;
use crate::name::Name;
use crate::publish::publish;
use crate::store::Store;
use crate::store::objects::{Terms, Warmth};
use crate::store::uploads::MOST_AT_ONCE;

/// A copy in parts moves this much at once, unless the object is so large that more is needed.
const COPY_PART: u64 = 1024 * 1024 * 1024;

/// A note that a thaw was asked for: the server itself does not tell since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Data that it is about.
    pub key: String,
    /// When.
    pub asked: Timestamp,
    /// How fast.
    pub tier: String,
}

/// How fast a thaw is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Speed {
    /// Minutes; not for DEEP_ARCHIVE
    Expedited,
    /// Hours
    Standard,
    /// The cheapest, up to two days
    Bulk,
}

impl Speed {
    /// As S3 spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expedited => "Expedited",
            Self::Standard => "Standard",
            Self::Bulk => "Bulk",
        }
    }
}

/// The longest that S3 says a thaw takes; `None` where it cannot be had.
pub fn longest(class: &str, tier: &str) -> Option<SignedDuration> {
    let minutes = match (class, tier) {
        ("GLACIER", "Expedited") => 5,
        ("GLACIER", "Standard") => 5 * 60,
        ("GLACIER", "Bulk") => 12 * 60,
        ("DEEP_ARCHIVE", "Standard") => 12 * 60,
        ("DEEP_ARCHIVE", "Bulk") => 48 * 60,
        _ => return None,
    };
    Some(SignedDuration::from_mins(minutes))
}

/// Moves the bytes to another storage class: a copy, the manifest, and only then the old bytes go.
pub async fn relocate(
    store: &Store,
    journal: &Journal,
    name: &Name,
    manifest: &Manifest,
    class: &str,
    terms: &Terms,
) -> Result<Manifest, Error> {
    let what = format!("moving `{name}` to {class}");
    let old = &manifest.stored;
    let key = name.data(&Ulid::generate().to_string());
    let terms = Terms { class: Some(class.to_owned()), ..terms.clone() };
    let mut open = journal.begin(name.as_str(), vec![key.clone(), old.key.clone()])?;
    let fault = |fault: crate::store::fault::Fault| fault.error(&what);
    if old.size <= MOST_AT_ONCE {
        store.copy(&old.key, &key, &terms).await.map_err(fault)?;
    } else {
        let id = store.begin(&key, &terms, false).await.map_err(fault)?;
        open.upload(&key, &id)?;
        let each = COPY_PART.max(old.size.div_ceil(10_000));
        let mut parts = Vec::new();
        let mut from = 0;
        while from < old.size {
            let length = each.min(old.size - from);
            let number = u32::try_from(parts.len() + 1).unwrap_or(u32::MAX);
            parts.push(store.part_copy(&old.key, (from, length), &key, &id, number).await.map_err(fault)?);
            from += length;
        }
        store.complete(&key, &id, &parts).await.map_err(fault)?;
    }
    let found = store.head(&key).await.map_err(fault)?;
    let found = found.filter(|found| found.size == old.size && found.class == class).ok_or_else(|| {
        Error::Store(format!("{what}: the copy is not what was asked for; nothing was changed"))
    })?;
    let mut moved = manifest.clone();
    moved.stored.key = key;
    moved.stored.class = class.to_owned();
    moved.stored.object_version = found.version;
    if let Some((_, until)) = &terms.lock {
        moved.stored.locked_until = moved.stored.locked_until.max(Some(*until));
    }
    publish(store, &mut open, name, &moved, terms.hot(), false).await?;
    crate::clean::clear(store, open).await?;
    Ok(moved)
}

/// What is known of a backup's way to its first byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// `hot`, `cold`, `thawing`, `thawed`.
    pub state: &'static str,
    /// Storage class.
    pub class: String,
    /// Most seconds until the first byte can be read, if a standard thaw is asked for where one is needed.
    pub seconds: Option<i64>,
    /// Until when a thawed copy can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Says where a backup is.
pub async fn state(store: &Store, name: &Name, manifest: &Manifest) -> Result<State, Error> {
    let what = format!("looking for `{name}`");
    let found = store.head(&manifest.stored.key).await.map_err(|fault| fault.error(&what))?;
    let found = found.ok_or_else(|| Error::damaged(name.as_str(), "its bytes are gone"))?;
    let class = found.class;
    let plain = |state, seconds| State { state, class: class.clone(), seconds, until: None };
    Ok(match found.warmth {
        Warmth::Hot => plain("hot", Some(0)),
        Warmth::Thawed(until) => State { until: Some(until), ..plain("thawed", Some(0)) },
        Warmth::Cold => plain("cold", longest(&class, "Standard").map(|time| time.as_secs())),
        Warmth::Thawing => {
            let note = note(store, name).await?.filter(|note| note.key == manifest.stored.key);
            let left = note.and_then(|note| {
                let end = note.asked.checked_add(longest(&class, &note.tier)?).ok()?;
                Some(end.duration_since(Timestamp::now()).as_secs().max(0))
            });
            plain("thawing", left)
        }
    })
}

async fn note(store: &Store, name: &Name) -> Result<Option<Note>, Error> {
    let what = format!("reading the note about `{name}`");
    let text = store.small(&name.thaw(), 64 * 1024).await.map_err(|fault| fault.error(&what))?;
    // A note that cannot be read costs a forecast, no more.
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Asks for a cold backup; says where it is then.
pub async fn thaw(
    store: &Store,
    name: &Name,
    manifest: &Manifest,
    speed: Speed,
    days: u32,
    terms: &Terms,
) -> Result<State, Error> {
    let before = state(store, name, manifest).await?;
    if before.state != "cold" {
        return Ok(before);
    }
    let tier = speed.as_str();
    if longest(&before.class, tier).is_none() {
        let class = before.class;
        return Err(Error::Refused(format!("{class} knows no {tier} thaw: take standard or bulk")));
    }
    let what = format!("thawing `{name}`");
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let asked = store.thaw(&manifest.stored.key, tier, days).await.map_err(|fault| fault.error(&what))?;
    if asked {
        let note = Note { key: manifest.stored.key.clone(), asked: Timestamp::now(), tier: tier.to_owned() };
        let text = serde_json::to_vec(&note).map_err(|error| Error::Local(format!("{what}: {error}")))?;
        let crc = crc32c::crc32c(&text);
        let terms = Terms { lock: None, ..terms.hot() };
        store.put(&name.thaw(), text.into(), crc, &terms, false).await.map_err(|fault| fault.error(&what))?;
    }
    state(store, name, manifest).await
}

/// Removes a backup: its manifest first, so that it stops to exist at once.
pub async fn delete(store: &Store, journal: &Journal, name: &Name, manifest: &Manifest) -> Result<(), Error> {
    if let Some(until) = manifest.stored.locked_until.filter(|until| *until > Timestamp::now()) {
        return Err(Error::Refused(format!("`{name}` is locked until {until}")));
    }
    let what = format!("deleting `{name}`");
    let data = manifest.stored.key.clone();
    let open = journal.begin(name.as_str(), vec![data.clone(), name.thaw()])?;
    store.remove(&name.manifest(), None).await.map_err(|fault| fault.error(&what))?;
    if let Some(version) = manifest.stored.object_version.as_deref().filter(|version| *version != "null") {
        // Without its version only a marker would be set, and the bytes be paid for ever.
        store.remove(&data, Some(version)).await.map_err(|fault| fault.error(&what))?;
    }
    crate::clean::clear(store, open).await.map(|_| ())
}
