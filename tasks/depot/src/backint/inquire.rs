//! `inquire` and `delete`.

use ulid::Ulid;

use super::grammar::quoted;
use super::{Answer, Session, failed, place};
use crate::catalog;
use crate::error::Error;
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

/// Backups whose key begins so, newest first.
async fn below(session: &Session, prefix: &str) -> Result<Vec<(Ulid, Name)>, Error> {
    let listed = session.store.list(prefix).await.map_err(|fault| fault.error("listing backups"))?;
    let mut found: Vec<(Ulid, Name)> = listed
        .iter()
        .filter_map(|object| name::split(&object.key))
        .filter(|(_, kind)| *kind == Kind::Manifest)
        .filter_map(|(name, _)| {
            let (object, _) = name.as_str().rsplit_once('/')?;
            Some((place::ebid(&format!("{object}/"), &name)?, name))
        })
        .collect();
    found.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
    Ok(found)
}

/// The newest backup of an object, and all of its older ones.
pub(super) async fn versions(session: &Session, object: &str) -> Result<Vec<(Ulid, Name)>, Error> {
    let prefix = place::of_object(&session.user, object);
    let mut all = below(session, &prefix).await?;
    // `/a` must not find `/a/b`.
    all.retain(|(_, name)| place::ebid(&prefix, name).is_some());
    Ok(all)
}

/// The manifest, if it is that of this object.
pub(super) async fn manifest(session: &Session, name: &Name, object: &str) -> Result<Manifest, Error> {
    let manifest = catalog::manifest(&session.store, name).await?;
    match &manifest.backint {
        Some(known) if known.object == object && known.user == session.user => Ok(manifest),
        _ => Err(Error::Missing(name.as_str().to_owned())),
    }
}

pub(super) async fn null(session: &Session, object: Option<&str>) -> Answer {
    let words: Vec<&str> = object.into_iter().collect();
    let found = match object {
        Some(object) => versions(session, object).await,
        None => below(session, &place::of_user(&session.user)).await,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return failed(&words, &error),
    };
    let mut lines = Vec::new();
    match object {
        Some(object) if found.is_empty() => return vec![format!("#NOTFOUND {}", quoted(object))],
        Some(object) => lines.extend(found.iter().map(|(id, _)| told(session, *id, object))),
        None => {
            // Only the manifest knows the name that HANA uses.
            use futures_util::stream::{self, StreamExt};
            let all: Vec<(Ulid, Result<Manifest, Error>)> = stream::iter(found)
                .map(|(id, name)| async move { (id, catalog::manifest(&session.store, &name).await) })
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
        Some(object) => place::backup(&session.user, object, ebid),
        None => match below(session, &place::of_user(&session.user)).await {
            Ok(all) => all.into_iter().find(|(id, _)| id.to_string() == ebid).map(|(_, name)| name),
            Err(error) => return failed(&words, &error),
        },
    };
    let (Some(name), Ok(id)) = (name, Ulid::from_string(ebid)) else { return not_found() };
    match catalog::manifest(&session.store, &name).await {
        Ok(Manifest { backint: Some(known), .. }) if object.is_none_or(|object| object == known.object) => {
            vec![told(session, id, &known.object)]
        }
        Ok(_) | Err(Error::Missing(_)) => not_found(),
        Err(error) => failed(&words, &error),
    }
}

pub(super) async fn delete(session: &Session, ebid: &str, object: &str) -> Answer {
    let words = [ebid, object];
    let line = |keyword: &str| format!("{keyword} {} {}", quoted(ebid), quoted(object));
    let Some(name) = place::backup(&session.user, object, ebid) else { return vec![line("#NOTFOUND")] };
    let manifest = match manifest(session, &name, object).await {
        Ok(manifest) => manifest,
        Err(Error::Missing(_)) => return vec![line("#NOTFOUND")],
        Err(error) => return failed(&words, &error),
    };
    match crate::cold::delete(&session.store, &session.journal, &name, &manifest).await {
        Ok(()) => vec![line("#DELETED")],
        // Only newer callers know the word for what is locked.
        Err(error @ Error::Refused(_)) if session.version.at_least(1, 50) => {
            vec![line("#NOTDELETED"), super::comment(&error)]
        }
        Err(error) => failed(&words, &error),
    }
}
