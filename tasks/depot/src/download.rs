//! Getting a backup back: several ranges at once, each held against its sum before anybody sees a byte of it, and
//! the whole held against its digest before the end is called a success.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::store::Store;
use crate::store::fault::Class;
use crate::store::objects::Warmth;
use crate::stream::stages::{Broken, give_out};

/// What is needed to read.
#[derive(Clone)]
pub struct Reading {
    /// Keys of age, for what is encrypted.
    pub identities: Arc<Vec<age::x25519::Identity>>,
    /// Most requests at once.
    pub parallel: usize,
    /// Bytes of memory for blocks.
    pub room: u64,
}

impl Reading {
    /// Requests at once for blocks of this size: one more waits to be written.
    fn at_once(&self, block: u64) -> usize {
        let fit = usize::try_from(self.room / block.max(1)).unwrap_or(usize::MAX);
        self.parallel.min(fit.saturating_sub(1)).max(1)
    }
}

/// Blocks in order, as something to read from.
struct Blocks {
    from: mpsc::Receiver<Result<Vec<Bytes>, Error>>,
    pieces: std::collections::VecDeque<Bytes>,
    failed: Arc<std::sync::Mutex<Option<Error>>>,
    ended: bool,
}

/// The text of an error whose whole is kept aside.
const ASIDE: &str = "the stored bytes could not be read";

impl Read for Blocks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = self.pieces.front_mut() {
                let count = piece.len().min(bytes.len());
                if let Some(bytes) = bytes.get_mut(..count) {
                    piece.copy_to_slice(bytes);
                }
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
                if count > 0 {
                    return Ok(count);
                }
                continue;
            }
            if self.ended {
                return Ok(0);
            }
            match self.from.blocking_recv() {
                Some(Ok(pieces)) => self.pieces.extend(pieces),
                Some(Err(error)) => {
                    if let Ok(mut failed) = self.failed.lock() {
                        *failed = Some(error);
                    }
                    return Err(io::Error::other(ASIDE));
                }
                // The sender says an empty block at the end; a closed channel alone is not the end.
                None => return Err(io::Error::other(ASIDE)),
            }
            self.ended = self.pieces.is_empty();
        }
    }
}

/// The blocks of a backup: offset, length and sum of each.
fn blocks(manifest: &Manifest) -> Result<Vec<(u64, u64, u32)>, Error> {
    let stored = &manifest.stored;
    let sums = manifest.sums().ok_or_else(|| Error::damaged(&manifest.name, "its manifest has no sums"))?;
    let at = (0..).step_by(usize::try_from(stored.block).unwrap_or(usize::MAX));
    Ok(at.zip(sums).map(|(from, sum)| (from, stored.block.min(stored.size - from), sum)).collect())
}

/// Asks the server whether the bytes are there and can be read.
pub async fn ready(store: &Store, manifest: &Manifest) -> Result<Warmth, Error> {
    let name = &manifest.name;
    let what = format!("looking for `{name}`");
    match store.head(&manifest.stored.key).await.map_err(|fault| fault.error(&what))? {
        None => Err(Error::damaged(name, "its bytes are gone")),
        Some(found) if found.size != manifest.stored.size => {
            let why = format!("{} bytes are stored, {} were written", found.size, manifest.stored.size);
            Err(Error::damaged(name, why))
        }
        Some(found) => Ok(found.warmth),
    }
}

async fn block(store: &Store, manifest: &Manifest, block: (u64, u64, u32)) -> Result<Vec<Bytes>, Error> {
    let (from, length, sum) = block;
    let name = &manifest.name;
    match store.range(&manifest.stored.key, from, length, sum).await {
        Ok(Some(pieces)) => Ok(pieces),
        Ok(None) => Err(Error::damaged(
            name,
            format!("bytes {from} to {} of what is stored are not what was written", from + length - 1),
        )),
        Err(fault) if fault.class == Class::Cold => {
            Err(Error::Cold(format!("`{name}` is in cold storage: hostler-depot thaw {name}")))
        }
        Err(fault) if fault.class == Class::Missing => Err(Error::damaged(name, "its bytes are gone")),
        Err(fault) => Err(fault.error(&format!("reading `{name}`"))),
    }
}

/// Reads the whole backup into `out`. Success means that every byte was right.
///
/// `out` is given back for the caller to end: a file is kept, a command is waited for.
pub async fn get<W: Write + Send + 'static>(
    store: &Store,
    manifest: &Manifest,
    reading: &Reading,
    mut out: W,
    progress: Arc<Progress>,
) -> Result<W, Error> {
    let name = manifest.name.clone();
    let encrypted = manifest.stored.encryption.is_some();
    if encrypted && reading.identities.is_empty() {
        return Err(Error::Config(format!("`{name}` is encrypted: say identity_file in the configuration")));
    }
    let at_once = reading.at_once(manifest.stored.block);
    let (sender, from) = mpsc::channel(1);
    let failed = Arc::default();
    let stored = Blocks { from, pieces: Default::default(), failed: Arc::clone(&failed), ended: false };
    let identities = Arc::clone(&reading.identities);
    let compressed = manifest.stored.compression.is_some();
    let writer = tokio::task::spawn_blocking(move || {
        let identities = encrypted.then_some(identities.as_slice());
        let given = give_out(stored, compressed, identities, &mut out, |count| progress.add(count));
        let given = given.and_then(|given| out.flush().map_err(Broken::Sink).map(|()| given));
        (given, out)
    });
    let mut read = stream::iter(blocks(manifest)?).map(|one| block(store, manifest, one)).buffered(at_once);
    let mut good = true;
    while let Some(one) = read.next().await {
        good = one.is_ok();
        // A closed channel: the writer has failed, and says why.
        if sender.send(one).await.is_err() || !good {
            break;
        }
    }
    if good {
        let _ = sender.send(Ok(Vec::new())).await;
    }
    drop(sender);
    let (given, out) = writer.await.map_err(|error| Error::Local(format!("reading `{name}`: {error}")))?;
    let given = match given {
        Ok(given) => given,
        Err(Broken::Sink(error)) => return Err(Error::Stream(format!("writing `{name}`: {error}"))),
        Err(Broken::Source(error)) => {
            let aside = failed.lock().ok().and_then(|mut failed| failed.take());
            return Err(aside.unwrap_or_else(|| Error::damaged(&name, error.to_string())));
        }
    };
    if given.size != manifest.size || given.sha256 != manifest.sha256 {
        let why = format!(
            "{} bytes came out with another digest than the {} that went in",
            given.size, manifest.size
        );
        return Err(Error::damaged(&name, why));
    }
    Ok(out)
}

/// Reads a sample of the stored blocks, or all, and holds each against its sum; gives the bytes read.
pub async fn sums(store: &Store, manifest: &Manifest, reading: &Reading, percent: u32) -> Result<u64, Error> {
    let all = blocks(manifest)?;
    let last = all.len().saturating_sub(1);
    // The first and the last block are always among them: cut objects are what happens most.
    let some = all
        .into_iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || *at == last || crate::store::random() * 100.0 < f64::from(percent))
        .map(|(_, one)| one);
    let at_once = reading.at_once(manifest.stored.block);
    let mut read = stream::iter(some)
        .map(|one| async move { block(store, manifest, one).await.map(|_| one.1) })
        .buffer_unordered(at_once);
    let mut bytes = 0;
    while let Some(one) = read.next().await {
        bytes += one?;
    }
    Ok(bytes)
}
