//! `inquire` and `delete`.

use ulid::Ulid;

use super::grammar::quoted;
use super::{Answer, Session, place};
use crate::error::Error;
use crate::lookup;
use crate::manifest::Manifest;
use crate::name::{self, Kind, Name};

/// A backup as the answer tells it.
fn told(session: &Session, id: Ulid, object: &str) -> String {
    let line = format!("#BACKUP {} {}", quoted(&id.to_string()), quoted(object));
    if !session.version.at_least(1, 50) {
        return line;
    }
    let time =
        i64::try_from(id.timestamp_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or_default();
    format!("{line} \"{time:.3}\"")
}

/// When a backup was begun, by its id. An id of the future was made by a clock that was wrong: of it only the server knows
/// when it came.
fn begun(id: Ulid, modified: Option<jiff::Timestamp>, now: jiff::Timestamp) -> jiff::Timestamp {
    let time =
        i64::try_from(id.timestamp_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match time.filter(|time| !crate::retention::is_future(*time, now)) {
        Some(time) => time,
        None => modified.unwrap_or_default(),
    }
}

/// Backups whose key begins so, newest first.
async fn below(session: &Session, prefix: &str) -> Result<Vec<(Ulid, Name)>, Error> {
    let listed = session.store.list(prefix).await.map_err(|fault| fault.error("listing backups"))?;
    let now = session.store.clock().now();
    let mut found: Vec<(jiff::Timestamp, Ulid, Name)> = listed
        .iter()
        .filter_map(|object| {
            let (name, kind) = name::split(&object.key)?;
            let (path, _) = name.as_str().rsplit_once('/').filter(|_| kind == Kind::Manifest)?;
            let id = place::ebid(&format!("{path}/"), &name)?;
            Some((begun(id, object.modified, now), id, name))
        })
        .collect();
    found.sort_by_key(|(time, id, _)| std::cmp::Reverse((*time, *id)));
    Ok(found.into_iter().map(|(_, id, name)| (id, name)).collect())
}

/// The newest backup of an object, and all of its older ones.
pub(super) async fn versions(session: &Session, object: &str) -> Result<Vec<(Ulid, Name)>, Error> {
    let prefix = place::of_object(session.source(), object);
    let mut all = below(session, &prefix).await?;
    // `/a` must not find `/a/b`.
    all.retain(|(_, name)| place::ebid(&prefix, name).is_some());
    Ok(all)
}

/// The manifest, if it is that of this object.
pub(super) async fn manifest(
    session: &Session,
    name: &Name,
    user: &str,
    object: &str,
) -> Result<Manifest, Error> {
    let manifest = lookup::manifest(&session.store, name).await?;
    match &manifest.backint {
        Some(known) if known.object == object && known.user == user => Ok(manifest),
        _ => Err(Error::Missing(name.as_str().to_owned())),
    }
}

pub(super) async fn null(session: &Session, object: Option<&str>) -> Answer {
    let words: Vec<&str> = object.into_iter().collect();
    let found = match object {
        Some(object) => versions(session, object).await,
        None => below(session, &place::of_user(session.source())).await,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return session.failed(&words, &error),
    };
    let mut lines = Vec::new();
    match object {
        Some(object) if found.is_empty() => return vec![format!("#NOTFOUND {}", quoted(object))],
        Some(object) => lines.extend(found.iter().map(|(id, _)| told(session, *id, object))),
        None => {
            // Only the manifest knows the name that HANA uses.
            use futures_util::stream::{self, StreamExt};
            let all: Vec<(Ulid, Result<Manifest, Error>)> = stream::iter(found)
                .map(|(id, name)| async move { (id, lookup::manifest(&session.store, &name).await) })
                .buffered(16)
                .collect()
                .await;
            for (id, manifest) in all {
                match manifest.map(|manifest| manifest.backint) {
                    Ok(Some(known)) => lines.push(told(session, id, &known.object)),
                    Ok(None) | Err(Error::Missing(_)) => {}
                    // One manifest that cannot be read must not hide all others.
                    Err(error) => lines.push(super::comment(&error)),
                }
            }
            if !lines.iter().any(|line| line.starts_with("#BACKUP")) {
                lines.push("#NOTFOUND".to_owned());
            }
        }
    }
    lines
}

pub(super) async fn ebid(session: &Session, ebid: &str, object: Option<&str>) -> Answer {
    let words: Vec<&str> = std::iter::once(ebid).chain(object).collect();
    let not_found = || {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        vec![format!("#NOTFOUND {}", words.join(" "))]
    };
    let name = match object {
        Some(object) => place::backup(session.source(), object, ebid),
        None => match below(session, &place::of_user(session.source())).await {
            Ok(all) => all.into_iter().find(|(id, _)| id.to_string() == ebid).map(|(_, name)| name),
            Err(error) => return session.failed(&words, &error),
        },
    };
    let (Some(name), Ok(id)) = (name, Ulid::from_string(ebid)) else { return not_found() };
    match lookup::manifest(&session.store, &name).await {
        Ok(Manifest { backint: Some(known), .. }) if object.is_none_or(|object| object == known.object) => {
            vec![told(session, id, &known.object)]
        }
        Ok(_) | Err(Error::Missing(_)) => not_found(),
        Err(error) => session.failed(&words, &error),
    }
}

pub(super) async fn delete(session: &Session, ebid: &str, object: &str) -> Answer {
    let words = [ebid, object];
    let line = |keyword: &str| format!("{keyword} {} {}", quoted(ebid), quoted(object));
    let Some(name) = place::backup(&session.user, object, ebid) else { return vec![line("#NOTFOUND")] };
    let manifest = match manifest(session, &name, &session.user, object).await {
        Ok(manifest) => manifest,
        Err(Error::Missing(_)) => return vec![line("#NOTFOUND")],
        Err(error) => return session.failed(&words, &error),
    };
    match crate::delete::one(&session.store, &session.journal, &name, &manifest).await {
        Ok(()) => vec![line("#DELETED")],
        // Only newer callers know the word for what is locked.
        Err(error @ Error::Refused(_)) if session.version.at_least(1, 50) => {
            vec![line("#NOTDELETED"), super::comment(&error)]
        }
        Err(error) => session.failed(&words, &error),
    }
}
