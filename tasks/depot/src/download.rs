//! Getting a backup back: several ranges at once, each held against its sum before anybody sees a byte of it, and
//! the whole held against its digest before the end is called a success.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::lookup;
use crate::manifest::{Manifest, Stored};
use crate::name::Name;
use crate::progress::Progress;
use crate::store::Store;
use crate::store::fault::Class;
use crate::store::objects::{Availability, Block};
use crate::stream::buffer_pool::{Buffer, BufferPool};
use crate::stream::stages::{StreamError, give_out};

/// What is needed to read.
#[derive(Clone)]
pub struct Reading {
    /// Keys of age, for what is encrypted.
    pub identities: Arc<Vec<age::x25519::Identity>>,
    /// Most requests at once.
    pub parallel: usize,
    /// Bytes of memory for blocks, if that was said.
    pub memory: Option<u64>,
}

/// What becomes of a block: its bytes, or why there are none.
type Fetched = Result<Bytes, Error>;

/// Blocks in order, as something to read from.
struct Blocks {
    /// The blocks on their way, in order; nothing in the place of one says that the last one came before.
    from: mpsc::Receiver<Option<oneshot::Receiver<Fetched>>>,
    piece: Bytes,
    failed: Arc<std::sync::Mutex<Option<Error>>>,
    ended: bool,
}

/// The text of an error whose whole is kept aside.
const ASIDE: &str = "the stored bytes could not be read";
/// A reader is shown this much at once: what is summed and then written is still in the core's cache.
const PIECE: usize = 256 * 1024;

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            // A channel that is closed is not the end: whoever fills it has been called off.
            let next = self.from.blocking_recv().ok_or_else(|| io::Error::other(ASIDE))?;
            let Some(next) = next else {
                self.ended = true;
                break;
            };
            match next.blocking_recv() {
                Ok(Ok(piece)) => self.piece = piece,
                Ok(Err(error)) => {
                    if let Ok(mut failed) = self.failed.lock() {
                        *failed = Some(error);
                    }
                    return Err(io::Error::other(ASIDE));
                }
                Err(_) => return Err(io::Error::other(ASIDE)),
            }
        }
        Ok(self.piece.get(..PIECE).unwrap_or(&self.piece))
    }

    fn consume(&mut self, count: usize) {
        self.piece.advance(count);
        if self.piece.is_empty() {
            // Its memory is given back before the next one is waited for.
            self.piece = Bytes::new();
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(bytes.len());
        if let (Some(to), Some(from)) = (bytes.get_mut(..count), piece.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// The blocks of a backup.
fn blocks(manifest: &Manifest) -> Result<Vec<Block>, Error> {
    let stored = &manifest.stored;
    let sums = manifest.sums().ok_or_else(|| Error::damaged(&manifest.name, "its manifest has no sums"))?;
    let at = (0..).step_by(usize::try_from(stored.block).unwrap_or(usize::MAX));
    let block = |(from, crc)| Block { from, length: stored.block.min(stored.size - from), crc };
    Ok(at.zip(sums).map(block).collect())
}

/// Asks the server whether the bytes are there and can be read; gives the manifest of this moment.
pub async fn ready(store: &Store, manifest: &Manifest) -> Result<(Manifest, Availability), Error> {
    let name: Name = manifest.name.parse().map_err(|why: String| Error::damaged(&manifest.name, why))?;
    let (manifest, found) = lookup::bytes(store, &name, manifest).await?;
    Ok((manifest, found.availability))
}

/// Fetches one block into the buffer, and holds it against its sum.
async fn block(store: &Store, manifest: &Manifest, block: Block, into: Buffer) -> Fetched {
    let name = manifest.name.as_str();
    let mut key = manifest.stored.key.clone();
    let into = tokio::sync::Mutex::new(into);
    loop {
        return match store.block(&key, block, &into).await {
            Ok(true) => Ok(into.into_inner().freeze()),
            Ok(false) => Err(Error::damaged(
                name,
                format!(
                    "bytes {} to {} of what is stored are not what was written",
                    block.from,
                    block.from + block.length - 1
                ),
            )),
            Err(fault) if fault.class == Class::Cold => {
                Err(Error::Cold(format!("`{name}` is in cold storage: hostler-depot thaw {name}")))
            }
            // Moved or deleted while it is read: a move keeps the bytes, so the next block is the next one.
            Err(fault) if fault.class == Class::Missing => {
                key = ready(
                    store,
                    &Manifest { stored: Stored { key, ..manifest.stored.clone() }, ..manifest.clone() },
                )
                .await?
                .0
                .stored
                .key;
                continue;
            }
            Err(fault) => Err(fault.error(&format!("reading `{name}`"))),
        };
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
        return Err(Error::Config(format!(
            "`{name}` is encrypted: set `identity_file` in the configuration"
        )));
    }
    let (queue, from) = mpsc::channel(reading.parallel);
    let failed = Arc::default();
    let stored = Blocks { from, piece: Bytes::new(), failed: Arc::clone(&failed), ended: false };
    let identities = Arc::clone(&reading.identities);
    let compressed = manifest.stored.compression.is_some();
    let writer = tokio::task::spawn_blocking(move || {
        let identities = encrypted.then_some(identities.as_slice());
        let given = give_out(stored, compressed, identities, &mut out, |count| progress.add(count));
        let given = given.and_then(|given| out.flush().map_err(StreamError::Sink).map(|()| given));
        (given, out)
    });
    fetch(store, manifest, reading, queue).await?;
    let (given, out) = writer.await.map_err(|error| Error::Local(format!("reading `{name}`: {error}")))?;
    let given = match given {
        Ok(given) => given,
        Err(StreamError::Sink(error)) => return Err(Error::Stream(format!("writing `{name}`: {error}"))),
        Err(StreamError::Key) => {
            let text = format!("`{name}` is encrypted, and none of the keys in identity_file opens it");
            return Err(Error::Config(text));
        }
        Err(StreamError::Source(error)) => {
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

/// Fetches all blocks, each in a task of its own, and queues them in order until the writer wants no more.
async fn fetch(
    store: &Store,
    manifest: &Manifest,
    reading: &Reading,
    queue: mpsc::Sender<Option<oneshot::Receiver<Fetched>>>,
) -> Result<(), Error> {
    let pool = BufferPool::new(reading.memory);
    let manifest = Arc::new(manifest.clone());
    // Dropped with this future, and all that is in flight with it.
    let mut flying = JoinSet::new();
    for one in blocks(&manifest)? {
        let into = pool.take(manifest.stored.block).await.map_err(Error::local("memory"))?;
        let (done, wanted) = oneshot::channel();
        let (store, manifest) = (store.clone(), Arc::clone(&manifest));
        flying.spawn(async move {
            let _ = done.send(block(&store, &manifest, one, into).await);
        });
        while flying.try_join_next().is_some() {}
        if queue.send(Some(wanted)).await.is_err() {
            // The writer has failed, and says why.
            return Ok(());
        }
    }
    let _ = queue.send(None).await;
    while flying.join_next().await.is_some() {}
    Ok(())
}

/// Reads a sample of the stored blocks, or all, and holds each against its sum; gives the bytes read.
pub async fn sums(store: &Store, manifest: &Manifest, reading: &Reading, percent: u32) -> Result<u64, Error> {
    let all = blocks(manifest)?;
    let last = all.len().saturating_sub(1);
    // The first and the last block are always among them: cut objects are what happens most.
    let some = all
        .into_iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || *at == last || fastrand::f64() * 100.0 < f64::from(percent))
        .map(|(_, one)| one);
    let pool = BufferPool::new(reading.memory);
    let pool = &pool;
    let mut read = stream::iter(some)
        .map(|one| async move {
            let into = pool.take(manifest.stored.block).await.map_err(Error::local("memory"))?;
            block(store, manifest, one, into).await.map(|_| one.length)
        })
        .buffer_unordered(reading.parallel);
    let mut bytes = 0;
    while let Some(one) = read.next().await {
        bytes += one?;
    }
    Ok(bytes)
}
