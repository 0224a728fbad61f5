//! Hot and cold: moving backups to Glacier, asking for them back, and saying how long that takes.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::clean;
use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::lookup;
use crate::manifest::{MAX_BYTES, Manifest};
use crate::name::{self, Kind, Name};
use crate::publish::{Expected, Publication, Written, publish};
use crate::store::Store;
use crate::store::fault::{Class, Fault};
use crate::store::objects::{Availability, Held, ObjectOptions};
use crate::store::uploads::{CopySource, MAX_AT_ONCE};

/// A copy in parts moves this much at once, unless the object is so large that more is needed.
const COPY_PART: u64 = 1024 * 1024 * 1024;

/// A note that a thaw was asked for: the server itself does not tell since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreRequest {
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
        ("GLACIER" | "INTELLIGENT_TIERING, archived", "Expedited") => 5,
        ("GLACIER" | "INTELLIGENT_TIERING, archived", "Standard") => 5 * 60,
        ("GLACIER" | "INTELLIGENT_TIERING, archived", "Bulk") => 12 * 60,
        ("DEEP_ARCHIVE" | "INTELLIGENT_TIERING, deeply archived", "Standard") => 12 * 60,
        ("DEEP_ARCHIVE" | "INTELLIGENT_TIERING, deeply archived", "Bulk") => 48 * 60,
        _ => return None,
    };
    Some(SignedDuration::from_mins(minutes))
}

/// Where the bytes of a backup move to.
struct Destination {
    /// Key of the copy.
    key: String,
    /// Parameters of the copy, with its storage class.
    object_options: ObjectOptions,
}

/// Moves the bytes to the storage class of `object_options`: a copy, the manifest, and only then the old bytes go. If
/// somebody else moves or deletes the backup in this time, one of the two is refused.
pub async fn relocate(
    store: &Store,
    journal: &Journal,
    name: &Name,
    manifest: &Manifest,
    object_options: ObjectOptions,
) -> Result<Manifest, Error> {
    let key = name.data(&Ulid::generate().to_string());
    let mut open = journal.begin(name.as_str(), vec![key.clone(), manifest.stored.key.clone()])?;
    let destination = Destination { key, object_options };
    match copied(store, &mut open, name, manifest, destination).await {
        Ok(moved) => clean::clear(store, open).await.map(|_| moved),
        Err(error) => {
            // Before its last write a move leaves nothing but a copy; after it, it can only go forward.
            let _ = clean::clear(store, open).await;
            Err(error)
        }
    }
}

async fn copied(
    store: &Store,
    open: &mut Open,
    name: &Name,
    manifest: &Manifest,
    destination: Destination,
) -> Result<Manifest, Error> {
    let Destination { key, object_options } = destination;
    let class = object_options.class.clone().unwrap_or_default();
    let what = format!("moving `{name}` to {class}");
    let old = &manifest.stored;
    let changed =
        || Error::Refused(format!("{what}: it was moved or deleted at the same time; nothing was changed"));
    let fault = |fault: Fault| if fault.class == Class::Missing { changed() } else { fault.error(&what) };
    let before = store.head(&old.key).await.map_err(fault)?.ok_or_else(changed)?;
    // A lock that is over asks for nothing.
    let held = Held { until: before.held.until.filter(|until| *until > store.clock().now()), ..before.held };
    let object_options = &object_options.kept_as(&held);
    if old.size <= MAX_AT_ONCE {
        store.copy(&old.key, &key, object_options).await.map_err(fault)?;
    } else {
        let id = store.begin(&key, object_options, false).await.map_err(fault)?;
        open.upload(&key, &id)?;
        let each = COPY_PART.max(old.size.div_ceil(10_000));
        let mut parts = Vec::new();
        let mut from = 0;
        while from < old.size {
            let length = each.min(old.size - from);
            let number = u32::try_from(parts.len() + 1).unwrap_or(u32::MAX);
            let copied = CopySource { key: &old.key, from, length };
            parts.push(store.part_copy(&key, &id, number, copied).await.map_err(fault)?);
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
    moved.stored.class = class;
    moved.stored.object_version = found.version;
    if let Some((_, until)) = &object_options.lock {
        moved.stored.locked_until = moved.stored.locked_until.max(Some(*until));
    }
    let beside = store.list(&name.data("")).await.map_err(fault)?;
    if beside.iter().any(|one| matches!(name::split(&one.key), Some((_, Kind::Mark)))) {
        return Err(Error::Refused(format!("{what}: it is being deleted")));
    }
    let text = store.small_tagged(&name.manifest(), MAX_BYTES).await.map_err(fault)?;
    let (text, etag) = text.ok_or_else(changed)?;
    if Manifest::open(&text).as_ref() != Ok(manifest) {
        return Err(changed());
    }
    let publication = Publication {
        name,
        manifest: &moved,
        object_options: object_options.hot(),
        expected: Expected::Same(etag),
    };
    match publish(store, open, publication).await? {
        Written::There => Ok(moved),
        Written::Taken => {
            open.forget()?;
            Err(changed())
        }
    }
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

/// Classes whose objects can be read at once. Of any other class a byte is asked for.
const HOT: [&str; 9] = [
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
    "SNOW",
];

/// Says where a backup is.
pub async fn state(store: &Store, name: &Name, manifest: &Manifest) -> Result<State, Error> {
    let (manifest, found) = lookup::bytes(store, name, manifest).await?;
    let what = format!("looking for `{name}`");
    // INTELLIGENT_TIERING has archives of its own, which take as long as Glacier's.
    let class = match found.archive.as_deref() {
        Some("ARCHIVE_ACCESS") => "INTELLIGENT_TIERING, archived".to_owned(),
        Some(_) => "INTELLIGENT_TIERING, deeply archived".to_owned(),
        None => found.class,
    };
    let plain = |state, seconds| State { state, class: class.clone(), seconds, until: None };
    Ok(match found.availability {
        Availability::Hot if HOT.contains(&class.as_str()) || manifest.stored.size == 0 => {
            plain("hot", Some(0))
        }
        Availability::Hot => match store.readable(&manifest.stored.key).await {
            Ok(()) => plain("hot", Some(0)),
            Err(fault) if fault.class == Class::Cold => plain("cold", None),
            Err(fault) => return Err(fault.error(&what)),
        },
        Availability::Thawed(until) => State { until: Some(until), ..plain("thawed", Some(0)) },
        Availability::Cold => plain("cold", longest(&class, "Standard").map(|time| time.as_secs())),
        Availability::Thawing => {
            let note = restore_request(store, name).await?.filter(|note| note.key == manifest.stored.key);
            let left = note.and_then(|note| {
                let end = note.asked.checked_add(longest(&class, &note.tier)?).ok()?;
                Some(end.duration_since(store.clock().now()).as_secs().max(0))
            });
            plain("thawing", left)
        }
    })
}

async fn restore_request(store: &Store, name: &Name) -> Result<Option<RestoreRequest>, Error> {
    let what = format!("reading the note about `{name}`");
    let text = store.small(&name.thaw(), 64 * 1024).await.map_err(|fault| fault.error(&what))?;
    // A note that cannot be read costs a forecast, no more.
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// What a thaw is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// How fast.
    pub speed: Speed,
    /// How many days the thawed copy is to stay.
    pub days: u32,
}

/// Asks for a cold backup; says where it is then. One that is on its way already is asked for faster, one that is
/// thawed for longer, if that is what is wanted.
///
/// # Errors
/// [`Error::Refused`] if the server will not change what it has begun.
pub async fn restore(
    store: &Store,
    name: &Name,
    manifest: &Manifest,
    wanted: RestoreOptions,
    object_options: &ObjectOptions,
) -> Result<State, Error> {
    let before = state(store, name, manifest).await?;
    let tier = wanted.speed.as_str();
    let what = format!("thawing `{name}`");
    let rank = |tier: &str| ["Bulk", "Standard", "Expedited"].iter().position(|one| *one == tier);
    let now = store.clock().now();
    match before.state {
        "cold" => {}
        "thawing" => {
            // Who asked without a note asked for something unknown: only the fastest is surely no slower.
            let known = restore_request(store, name).await?.filter(|note| note.key == manifest.stored.key);
            let known = known.map(|note| note.tier);
            let faster = known.map_or(wanted.speed == Speed::Expedited, |known| rank(tier) > rank(&known));
            if !faster {
                return Ok(before);
            }
        }
        "thawed" => {
            let longer = before.until.as_deref().and_then(end_of).is_some_and(|until| {
                let days = SignedDuration::from_hours(24 * i64::from(wanted.days));
                // An end that differs by less was asked for in the same hour.
                now.checked_add(days)
                    .is_ok_and(|asked| asked.duration_since(until) > SignedDuration::from_hours(1))
            });
            if !longer {
                return Ok(before);
            }
        }
        _ => return Ok(before),
    }
    let archived = before.class.starts_with("INTELLIGENT_TIERING");
    let known = ["GLACIER", "DEEP_ARCHIVE"].contains(&before.class.as_str()) || archived;
    if known && longest(&before.class, tier).is_none() {
        let class = before.class;
        return Err(Error::Refused(format!("{class} has no {tier} thaw: use standard or bulk")));
    }
    let days = (!archived).then(|| i32::try_from(wanted.days).unwrap_or(i32::MAX));
    let asked = store.restore(&manifest.stored.key, tier, days).await.map_err(|fault| fault.error(&what))?;
    let unchanged = match before.state {
        "thawing" => Some("will not make the thaw that is in progress any faster"),
        "thawed" => Some("will not keep the thawed copy any longer"),
        _ => None,
    };
    if let Some(why) = unchanged.filter(|_| !asked) {
        return Err(Error::Refused(format!("{what}: not changed: the server {why}")));
    }
    if asked && before.state != "thawed" {
        let note = RestoreRequest { key: manifest.stored.key.clone(), asked: now, tier: tier.to_owned() };
        let text = serde_json::to_vec(&note).map_err(|error| Error::Local(format!("{what}: {error}")))?;
        let object_options = ObjectOptions { lock: None, ..object_options.hot() };
        store
            .put(&name.thaw(), text.into(), &object_options, false)
            .await
            .map_err(|fault| fault.error(&what))?;
    }
    state(store, name, manifest).await
}

/// A date as S3 writes it into `x-amz-restore`.
fn end_of(text: &str) -> Option<Timestamp> {
    let time =
        aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::HttpDate).ok()?;
    Timestamp::from_second(time.secs()).ok()
}
