//! Putting a stream into the store, so that it is there whole or not at all.
//!
//! ```text
//! source -> sum -> zstd -> age -> cutter ==parts==> uploads in flight -> complete -> look -> manifest
//!           (a thread of its own)         (bounded)
//! ```
//! The manifest is the last write, and nothing exists before it. What this leaves when it dies is in the journal.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use ulid::Ulid;

use crate::chain;
use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::lookup;
use crate::manifest::{Backint, Manifest, Stored, VERSION};
use crate::message::complain;
use crate::name::Name;
use crate::progress::Progress;
use crate::publish::{Expected, Publication, Written, publish};
use crate::store::Store;
use crate::store::fault::Fault;
use crate::store::objects::{Block, ObjectOptions};
use crate::store::uploads;
use crate::stream::buffer_pool::BufferPool;
use crate::stream::cut::{Cutter, Layout, Part};
use crate::stream::schedule::Sizes;
use crate::stream::stages::{IngestResult, Recipe, StreamError, ingest};
use crate::transmit::{Upload, Way, transmit};

/// What to store, and how.
#[derive(Clone)]
pub struct PutRequest {
    /// Name of the backup.
    pub name: Name,
    /// Database that it is of.
    pub database: String,
    /// The backup that it builds on.
    pub parent: Option<String>,
    /// Compression and encryption.
    pub recipe: Recipe,
    /// Parameters of the stored object.
    pub object_options: ObjectOptions,
    /// How it is cut.
    pub sizes: Sizes,
    /// Bytes of memory for parts, if that was said.
    pub memory: Option<u64>,
    /// Most requests at once.
    pub parallel: usize,
    /// A stream of fewer bytes than this goes by one request, if memory has room for it; 0: each that is longer than a
    /// part goes in parts.
    pub at_once: u64,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// What SAP HANA calls it.
    pub backint: Option<Backint>,
    /// Who decides when it is deleted, if not the rules of retention.
    pub owner: Option<String>,
    /// What is to be known of it.
    pub label: Option<serde_json::Value>,
    /// A stream without a byte is a backup too.
    pub empty: bool,
    /// A backup of this name with the same contents is as good.
    pub same: bool,
}

/// How it is known that the server has the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Each of its answers had the checksum or the ETag of what was sent.
    Checksums,
    /// Its answers prove nothing: blocks were read back and held against their sums.
    Sample,
    /// Its answers prove nothing, and nothing could be read back.
    Unverified,
    /// Nothing was sent: a backup of this name has the same contents.
    Same,
}

/// Something that is read to its end, and then says whether that was a good end.
pub trait Source: Read + Send {
    /// Called at the end of the stream, before anything is promised.
    fn ended(&mut self, size: u64) -> io::Result<()>;
}

/// The stream that is stored, and those who look at it meanwhile.
pub struct Incoming {
    /// The stream.
    pub source: Box<dyn Source>,
    /// The flag that the source looks at: set when nobody needs its bytes any more.
    pub called_off: Arc<AtomicBool>,
    /// Counts the bytes that were read.
    pub progress: Arc<Progress>,
}

/// Calls off the thread that reads when the upload is over, however that came.
struct CallOff(Arc<AtomicBool>, BufferPool);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.close();
    }
}

/// Stores the stream.
pub async fn put(
    store: &Store,
    journal: &Journal,
    request: PutRequest,
    incoming: Incoming,
) -> Result<(Manifest, Proof), Error> {
    let name = request.name.clone();
    let manifest_key = name.manifest();
    let what = format!("storing `{name}`");
    if store.head(&manifest_key).await.map_err(|fault| fault.error(&what))?.is_some() {
        if !request.same {
            return Err(taken_already(&name));
        }
        return same(store, &name, incoming).await.map(|manifest| (manifest, Proof::Same));
    }
    if let Some(wrong) = store.clock().wrong() {
        complain(&format!("{wrong}; `{name}` is dated by the server's"));
    }
    let time = store.clock().now();
    let key = name.data(&id(time).to_string());
    let mut open = journal.begin(name.as_str(), vec![key.clone()])?;
    let done = match beside_its_base(store, &mut open, &request).await {
        Ok(()) => send(store, &mut open, &request, &key, incoming).await,
        Err(error) => Err(error),
    };
    // It may have taken hours: what it builds on must still be there in the last moment.
    let done = match (done, &request.parent) {
        (Ok(done), Some(parent)) => chain::stays(store, name.as_str(), Some(parent)).await.map(|()| done),
        (done, _) => done,
    };
    let (taken, version, proof) = match done {
        Ok(done) => done,
        Err(error) => {
            // A failure in cleaning up is left to the next run, which finds it in the journal.
            let _ = crate::clean::clear(store, open).await;
            return Err(error);
        }
    };
    let (size, sha256) = (taken.size, taken.sha256.clone());
    let manifest = described(request.clone(), time, key, taken, version);
    let publication = Publication {
        name: &name,
        manifest: &manifest,
        object_options: request.object_options.hot(),
        expected: Expected::Nothing,
    };
    match publish(store, &mut open, publication).await {
        Ok(Written::There) => {
            if let Some(note) = note(&request) {
                // One that stays is cleared away by the next run.
                if store.remove(&note, None).await.is_err() {
                    return Ok((manifest, proof));
                }
            }
            open.end()?;
        }
        Ok(Written::Taken) => {
            let _ = crate::clean::clear(store, open).await;
            if request.same {
                let there = lookup::manifest(store, &name).await?;
                if (there.size, &there.sha256) == (size, &sha256) {
                    return Ok((there, Proof::Same));
                }
            }
            return Err(taken_already(&name));
        }
        Err(error) => match crate::clean::clear(store, open).await {
            Ok(true) => {}
            Ok(false) => return Err(error),
            Err(_) => {
                let text =
                    format!("{error}; all its bytes are stored, and the next run on this host finishes it");
                return Err(Error::Store(text));
            }
        },
    }
    Ok((manifest, proof))
}

fn taken_already(name: &Name) -> Error {
    Error::Refused(format!("a backup `{name}` already exists: use another name"))
}

/// An id that is unique and sorts by this time.
pub fn id(time: Timestamp) -> Ulid {
    let ms = u64::try_from(time.as_millisecond()).unwrap_or_default();
    Ulid::from_parts(ms, Ulid::generate().random())
}

/// The note beside what it builds on.
fn note(request: &PutRequest) -> Option<String> {
    let parent: Name = request.parent.as_ref()?.parse().ok()?;
    Some(parent.child(&request.name))
}

/// Says beside the base that something is being built on it, and only then looks whether it is whole.
async fn beside_its_base(store: &Store, open: &mut Open, request: &PutRequest) -> Result<(), Error> {
    let Some(note) = note(request) else { return Ok(()) };
    let what = format!("storing `{}`", request.name);
    open.key(note.clone())?;
    let text =
        serde_json::json!({"storing": request.name.as_str(), "since": store.clock().now()}).to_string();
    store
        .put(&note, text.into(), &ObjectOptions::default(), false)
        .await
        .map_err(|fault| fault.error(&what))?;
    chain::stays(store, request.name.as_str(), request.parent.as_deref()).await
}

/// Reads the stream without storing it, and compares it with the backup that has its name.
async fn same(store: &Store, name: &Name, incoming: Incoming) -> Result<Manifest, Error> {
    let Incoming { mut source, called_off, progress } = incoming;
    let there = lookup::manifest(store, name).await?;
    let guard = CallOff(called_off, BufferPool::new(None));
    let read = tokio::task::spawn_blocking(move || -> io::Result<(u64, String)> {
        let digest = crate::stream::stages::digest(&mut source, |count| progress.add(count))?;
        source.ended(digest.0)?;
        Ok(digest)
    });
    let read = read.await.map_err(|error| Error::Local(format!("comparing `{name}`: {error}")))?;
    drop(guard);
    let (size, sha256) = read.map_err(|error| Error::Stream(format!("comparing `{name}`: {error}")))?;
    if (size, &sha256) != (there.size, &there.sha256) {
        return Err(Error::Refused(format!("a backup `{name}` already exists, with other contents")));
    }
    lookup::bytes(store, name, &there).await.map(|(manifest, _)| manifest)
}

/// The manifest of what was stored.
fn described(
    request: PutRequest,
    time: Timestamp,
    key: String,
    taken: IngestResult,
    version: Option<String>,
) -> Manifest {
    let sums: Vec<u8> = taken.layout.sums.iter().flat_map(|sum| sum.to_be_bytes()).collect();
    Manifest {
        version: VERSION,
        tool: concat!("hostler-depot ", env!("CARGO_PKG_VERSION")).to_owned(),
        name: request.name.as_str().to_owned(),
        database: request.database,
        time,
        parent: request.parent,
        size: taken.size,
        sha256: taken.sha256,
        stored: Stored {
            key,
            size: taken.layout.size,
            parts: taken.layout.parts,
            block: request.sizes.block,
            crc32c: hex::encode(sums),
            compression: request.recipe.level.map(|_| "zstd".to_owned()),
            encryption: (!request.recipe.recipients.is_empty()).then(|| "age".to_owned()),
            class: request.object_options.class.unwrap_or_else(|| "STANDARD".to_owned()),
            locked_until: request.object_options.lock.map(|(_, until)| until),
            object_version: version,
        },
        backint: request.backint,
        owner: request.owner,
        label: request.label,
    }
}

/// Sends the bytes and sees that they are there.
async fn send(
    store: &Store,
    open: &mut Open,
    request: &PutRequest,
    key: &str,
    incoming: Incoming,
) -> Result<(IngestResult, Option<String>, Proof), Error> {
    let Incoming { mut source, called_off, progress } = incoming;
    let what = format!("storing `{}`", request.name);
    let name = request.name.clone();
    let pool = BufferPool::new(request.memory);
    let guard = CallOff(called_off, pool.clone());
    let room = pool.room(request.sizes.unit);
    let (sender, mut parts) = mpsc::channel::<Part>(1);
    let cutter = Cutter::new(request.sizes, pool, Handle::current(), sender, request.rate);
    // Where nothing is done with the bytes, those that are sent have the sum of those that are read.
    let (tell, sha256) = oneshot::channel();
    let sha256 = request.recipe.is_plain().then_some(sha256);
    let recipe = request.recipe.clone();
    let empty = request.empty;
    let pump = tokio::task::spawn_blocking(move || -> Result<IngestResult, StreamError> {
        let source = std::cell::RefCell::new(&mut source);
        let mut reader = Shared(&source);
        let ended = |size| {
            source.borrow_mut().ended(size)?;
            if size == 0 && !empty {
                return Err(io::Error::other("the stream was empty: that is no backup (--empty stores it)"));
            }
            Ok(())
        };
        let taken = ingest(&mut reader, &recipe, cutter, |count| progress.add(count), ended)?;
        // Nobody waits for it where the stream goes in parts.
        let _ = tell.send(taken.sha256.clone());
        Ok(taken)
    });
    let way = Way {
        what: &what,
        key,
        object_options: &request.object_options,
        parallel: request.parallel,
        at_once: if request.rate.is_some() { 0 } else { request.at_once },
        room,
        sha256,
    };
    let sent = transmit(store, open, way, &mut parts).await;
    drop(parts);
    // If sending failed the pump must not wait for memory or for its source.
    if sent.is_err() {
        drop(guard);
    }
    let taken = pump.await.map_err(|error| Error::Local(format!("{what}: {error}")))?;
    let (taken, doubtful) = match (sent, taken) {
        (Ok(Upload::Parts(id, stored)), Ok(taken)) => {
            complete(store, key, &id, &stored, taken.layout.size)
                .await
                .map_err(|fault| fault.error(&what))?;
            let doubtful = stored.iter().filter(|part| !part.proved).map(|part| part.number).collect();
            (taken, doubtful)
        }
        (Ok(Upload::Whole { proved }), Ok(mut taken)) => {
            taken.layout.parts.clear();
            taken.layout.parts.extend((taken.layout.size > 0).then_some((1, taken.layout.size)));
            (taken, if proved { Vec::new() } else { vec![1] })
        }
        (_, Err(StreamError::Source(error))) if error.to_string() != "called off" => {
            return Err(Error::Stream(format!("{what}: nothing was stored: {error}")));
        }
        (Err(error), _) => return Err(error),
        (_, Err(StreamError::Sink(error) | StreamError::Source(error))) => {
            return Err(Error::Local(format!("{what}: {error}")));
        }
        (_, Err(StreamError::Key)) => return Err(Error::Local(format!("{what}: no key"))),
    };
    let found = store.head(key).await.map_err(|fault| fault.error(&what))?;
    match found {
        Some(found) if found.size == taken.layout.size => {
            let proof = read_back(store, request, key, &taken.layout, &doubtful).await?;
            Ok((taken, found.version, proof))
        }
        Some(found) => Err(Error::damaged(
            name.as_str(),
            format!("{} bytes were sent, the server has {}: nothing was kept", taken.layout.size, found.size),
        )),
        None => Err(Error::damaged(name.as_str(), "the server lost what it took: nothing was kept")),
    }
}

struct Shared<'a, 'b>(&'a std::cell::RefCell<&'b mut Box<dyn Source>>);

impl Read for Shared<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(bytes)
    }
}

/// Blocks that are read back at most, where the server's answers prove nothing.
const SAMPLE: usize = 16;

/// Reads back what the server's answers do not prove: all blocks of the doubtful parts, or some of them.
async fn read_back(
    store: &Store,
    request: &PutRequest,
    key: &str,
    layout: &Layout,
    doubtful: &[u32],
) -> Result<Proof, Error> {
    if doubtful.is_empty() || layout.size == 0 {
        return Ok(Proof::Checksums);
    }
    let name = request.name.as_str();
    let mut blocks = Vec::new();
    let (mut number, mut from) = (0u32, 0u64);
    for (count, size) in &layout.parts {
        for _ in 0..*count {
            number += 1;
            let end = from + size;
            if doubtful.binary_search(&number).is_ok() {
                blocks.extend(from / request.sizes.block..end.div_ceil(request.sizes.block));
            }
            from = end;
        }
    }
    let step = blocks.len().div_ceil(SAMPLE).max(1);
    let last = blocks.last().copied();
    let mut some: Vec<u64> = blocks.into_iter().step_by(step).collect();
    some.extend(last.filter(|last| some.last() != Some(last)));
    let pool = BufferPool::new(request.memory);
    for at in some {
        let Some(sum) = usize::try_from(at).ok().and_then(|at| layout.sums.get(at)) else { continue };
        let from = at * request.sizes.block;
        let length = request.sizes.block.min(layout.size - from);
        let into = pool.take(request.sizes.block).await.map_err(Error::local("memory"))?;
        let block = Block { from, length, crc: *sum };
        match store.block(key, block, &tokio::sync::Mutex::new(into)).await {
            Ok(true) => {}
            Ok(false) => {
                let why = "the server has other bytes than were sent: nothing was kept";
                return Err(Error::damaged(name, why));
            }
            // What may only be written, and what is cold at once, cannot be read back.
            Err(fault) => {
                complain(&format!(
                    "`{name}` is unverified: the server's answers have no checksum, and reading back failed: {}",
                    fault.text
                ));
                return Ok(Proof::Unverified);
            }
        }
    }
    Ok(Proof::Sample)
}

/// Completes the upload. A completion that worked and whose answer was lost is refused when it is asked for again, by
/// each server in its own words; nobody else has this key, so the whole object there is ours.
async fn complete(
    store: &Store,
    key: &str,
    id: &str,
    parts: &[uploads::Stored],
    size: u64,
) -> Result<(), Fault> {
    let Err(fault) = store.complete(key, id, parts).await else { return Ok(()) };
    match store.head(key).await? {
        Some(found) if found.size == size => Ok(()),
        _ => Err(fault),
    }
}
