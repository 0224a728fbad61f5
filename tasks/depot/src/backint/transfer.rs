//! `backup` and `restore`: the bytes of one pipe or file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::grammar::quoted;
use super::{Answer, Session, inquire, place};
use crate::cold;
use crate::download;
use crate::error::Error;
use crate::manifest::Backint;
use crate::progress::Progress;
use crate::store::objects::Availability;
use crate::stream::pipe::Endpoint;
use crate::stream::schedule::SMALLEST_PART;
use crate::stream::target::Target;
use crate::upload::{self, Incoming, PutRequest, Source};

const MIB: u64 = 1024 * 1024;

/// A pipe or file of HANA's.
struct Given {
    end: Endpoint,
    /// A file, with the size that was said.
    file: Option<Option<u64>>,
    parent: i32,
}

impl Read for Given {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.end.read(bytes)
    }
}

impl Source for Given {
    fn ended(&mut self, size: u64) -> io::Result<()> {
        // The end of a pipe looks the same whether its writer is done or dead. A caller that is gone is dead.
        if nix::unistd::getppid().as_raw() != self.parent {
            return Err(io::Error::other("the calling process has died"));
        }
        match self.file {
            None if size == 0 => Err(io::Error::other("the pipe was closed before its first byte")),
            Some(_) if size == 0 => Err(io::Error::other("the file has no byte: nothing is no backup")),
            Some(Some(said)) if said != size => {
                Err(io::Error::other(format!("{size} bytes were read of a file of {said}")))
            }
            _ => Ok(()),
        }
    }
}

/// Stores one pipe, or a file (of the size that was said).
pub(super) async fn backup(session: &Session, object: &str, file: Option<Option<u64>>) -> Answer {
    match store(session, object, file).await {
        Ok((ebid, size)) => {
            vec![format!("#SAVED {} {} {size}", quoted(&ebid), quoted(object))]
        }
        Err(error) => session.failed(&[object], &error),
    }
}

async fn store(session: &Session, object: &str, file: Option<Option<u64>>) -> Result<(String, u64), Error> {
    let settings = &session.settings;
    let ebid = upload::id(session.store.clock().now()).to_string();
    let name = place::backup(&session.user, object, &ebid);
    let name = name.ok_or_else(|| Error::Config("the name is too long for a key".to_owned()))?;
    let called_off = Arc::new(AtomicBool::new(false));
    let end = Endpoint::reading(Path::new(object), settings.pipes, Arc::clone(&called_off));
    let end = end.map_err(|error| Error::Stream(format!("{object}: {error}")))?;
    let source = Box::new(Given { end, file, parent: session.parent });
    let fair = session.fair();
    // Small enough for two of them to fit.
    let unit = fair.map_or(settings.unit, |fair| (fair / 2).clamp(SMALLEST_PART, settings.unit));
    let request = PutRequest {
        name,
        database: session.user.clone(),
        parent: None,
        recipe: settings.recipe.clone(),
        object_options: settings.object_options(session.store.clock().now())?,
        sizes: settings.sizes(None, unit - unit % MIB),
        memory: fair,
        parallel: (2 * settings.parallel / session.entries).max(2),
        at_once: settings.at_once,
        rate: settings.rate.map(|rate| (rate / session.entries as u64).max(1)),
        backint: Some(Backint { user: session.user.clone(), object: object.to_owned(), ebid: ebid.clone() }),
        owner: None,
        label: None,
        empty: false,
        same: false,
    };
    let progress = Progress::new("stored", None);
    let incoming = Incoming { source, called_off, progress };
    let (manifest, _) = upload::put(&session.store, &session.journal, request, incoming).await?;
    Ok((ebid, manifest.size))
}

/// Gets one object back, in this version or the newest.
pub(super) async fn restore(session: &Session, ebid: Option<&str>, object: &str, to: Option<&str>) -> Answer {
    let not_found = || match ebid {
        Some(ebid) => vec![format!("#NOTFOUND {} {}", quoted(ebid), quoted(object))],
        None => vec![format!("#NOTFOUND {}", quoted(object))],
    };
    let found = match ebid {
        Some(ebid) => place::backup(session.source(), object, ebid).map(|name| (ebid.to_owned(), name)),
        None => match inquire::versions(session, object).await {
            Ok(all) => all.into_iter().next().map(|(id, name)| (id.to_string(), name)),
            Err(error) => return session.failed(&[object], &error),
        },
    };
    let Some((id, name)) = found else { return not_found() };
    let fetched = async {
        // Looked at before a thaw is asked for, or a byte is read.
        let path = PathBuf::from(to.filter(|to| !to.is_empty()).unwrap_or(object));
        let local = |error: io::Error| Error::Local(error.to_string());
        let target = Target::look(&path).map_err(local)?;
        let manifest = inquire::manifest(session, &name, session.source(), object).await?;
        let mut reading = session.settings.reading()?;
        reading.memory = session.fair();
        reading.parallel = (2 * reading.parallel / session.entries).max(2);
        let (manifest, availability) = download::ready(&session.store, &manifest).await?;
        if let Availability::Cold | Availability::Thawing = availability {
            let object_options = session.settings.object_options(session.store.clock().now())?;
            let wanted = cold::RestoreOptions { speed: cold::Speed::Standard, days: 7 };
            cold::restore(&session.store, &name, &manifest, wanted, &object_options).await?;
            return Err(Error::Cold(format!(
                "`{name}` is in cold storage and is being thawed now: watch `hostler-depot status`, then repeat the recovery"
            )));
        }
        let out = target.open(session.settings.pipes, Arc::new(AtomicBool::new(false))).map_err(local)?;
        let progress = Progress::new("read", Some(manifest.size));
        let out = download::get(&session.store, &manifest, &reading, out, progress).await?;
        let ended = tokio::task::spawn_blocking(move || out.keep()).await;
        ended
            .map_err(|error| Error::Local(error.to_string()))?
            .map_err(|error| Error::Stream(error.to_string()))
    };
    match fetched.await {
        Ok(()) => vec![format!("#RESTORED {} {}", quoted(&id), quoted(object))],
        Err(Error::Missing(_)) => not_found(),
        Err(error) => session.failed(&[object], &error),
    }
}
