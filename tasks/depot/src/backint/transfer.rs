//! `backup` and `restore`: the bytes of one pipe or file.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ulid::Ulid;

use super::grammar::quoted;
use super::{Answer, Session, failed, inquire, place};
use crate::cold;
use crate::download;
use crate::error::Error;
use crate::manifest::Backint;
use crate::progress::Progress;
use crate::store::objects::Warmth;
use crate::stream::pipe::{End, NewFile, Patience, is_pipe};
use crate::stream::schedule::{self, SMALLEST_PART};
use crate::upload::{self, Source, Wish};

const MIB: u64 = 1024 * 1024;

/// A pipe or file of HANA's.
struct Given {
    end: End,
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
            return Err(io::Error::other("whoever called has died"));
        }
        match self.file {
            None if size == 0 => Err(io::Error::other("the pipe was closed before its first byte")),
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
        Err(error) => failed(&[object], &error),
    }
}

async fn store(session: &Session, object: &str, file: Option<Option<u64>>) -> Result<(String, u64), Error> {
    let settings = &session.settings;
    let ebid = Ulid::generate().to_string();
    let name = place::backup(&session.user, object, &ebid);
    let name = name.ok_or_else(|| Error::Config("the name is too long for a key".to_owned()))?;
    let called_off = Arc::new(AtomicBool::new(false));
    let end = End::reading(Path::new(object), settings.pipes, Arc::clone(&called_off));
    let end = end.map_err(|error| Error::Stream(format!("{object}: {error}")))?;
    let source = Box::new(Given { end, file, parent: session.parent });
    let fair = session.fair();
    // Small enough for two of them to fit.
    let unit = fair.map_or(settings.unit, |fair| (fair / 2).clamp(SMALLEST_PART, settings.unit));
    let wish = Wish {
        name,
        database: session.user.clone(),
        parent: None,
        recipe: settings.recipe.clone(),
        terms: settings.terms()?,
        sizes: schedule::sizes(None, unit - unit % MIB),
        room: fair,
        parallel: (2 * settings.parallel / session.entries).max(2),
        rate: settings.rate.map(|rate| (rate / session.entries as u64).max(1)),
        backint: Some(Backint { user: session.user.clone(), object: object.to_owned(), ebid: ebid.clone() }),
    };
    let progress = Progress::new("stored", None);
    let manifest = upload::put(&session.store, &session.journal, wish, source, called_off, progress).await?;
    Ok((ebid, manifest.size))
}

/// A pipe that is opened when the first byte is there, or a file that appears when it is whole.
enum Wanted {
    Pipe { path: PathBuf, patience: Patience, end: Option<End> },
    File(NewFile),
}

impl Wanted {
    fn opened(path: &Path, patience: Patience) -> io::Result<End> {
        End::writing(path, patience, Arc::new(AtomicBool::new(false)))
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Pipe { end: Some(_), .. } => Ok(()),
            // Whoever reads must see an end, also of nothing.
            Self::Pipe { path, patience, end: None } => Self::opened(&path, patience).map(|_| ()),
            Self::File(file) => file.keep(),
        }
    }
}

impl Write for Wanted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Pipe { path, patience, end } => {
                if end.is_none() {
                    *end = Some(Self::opened(path, *patience)?);
                }
                end.as_mut().map_or(Ok(0), |end| end.write(bytes))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gets one object back, in this version or the newest.
pub(super) async fn restore(session: &Session, ebid: Option<&str>, object: &str, to: Option<&str>) -> Answer {
    let not_found = || match ebid {
        Some(ebid) => vec![format!("#NOTFOUND {} {}", quoted(ebid), quoted(object))],
        None => vec![format!("#NOTFOUND {}", quoted(object))],
    };
    let found = match ebid {
        Some(ebid) => place::backup(&session.user, object, ebid).map(|name| (ebid.to_owned(), name)),
        None => match inquire::versions(session, object).await {
            Ok(all) => all.into_iter().next().map(|(id, name)| (id.to_string(), name)),
            Err(error) => return failed(&[object], &error),
        },
    };
    let Some((id, name)) = found else { return not_found() };
    let fetched = async {
        let manifest = inquire::manifest(session, &name, object).await?;
        let mut reading = session.settings.reading()?;
        reading.room = session.fair();
        reading.parallel = (2 * reading.parallel / session.entries).max(2);
        if let Warmth::Cold | Warmth::Thawing = download::ready(&session.store, &manifest).await? {
            let terms = session.settings.terms()?;
            let speed = cold::Speed::Standard;
            cold::thaw(&session.store, &name, &manifest, speed, 7, &terms).await?;
            return Err(Error::Cold(format!(
                "`{name}` is in cold storage and is being thawed now: see `hostler-depot status`, and recover again"
            )));
        }
        let path = PathBuf::from(to.filter(|to| !to.is_empty()).unwrap_or(object));
        let out = if is_pipe(&path) {
            Wanted::Pipe { path, patience: session.settings.pipes, end: None }
        } else {
            Wanted::File(NewFile::create(&path).map_err(Error::local(path.display().to_string()))?)
        };
        let progress = Progress::new("read", Some(manifest.size));
        let out = download::get(&session.store, &manifest, &reading, out, progress).await?;
        let ended = tokio::task::spawn_blocking(move || out.end()).await;
        ended
            .map_err(|error| Error::Local(error.to_string()))?
            .map_err(|error| Error::Stream(error.to_string()))
    };
    match fetched.await {
        Ok(()) => vec![format!("#RESTORED {} {}", quoted(&id), quoted(object))],
        Err(Error::Missing(_)) => not_found(),
        Err(error) => failed(&[object], &error),
    }
}
