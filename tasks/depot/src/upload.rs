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
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::manifest::{Backint, Manifest, Stored, VERSION};
use crate::name::Name;
use crate::progress::Progress;
use crate::publish::{Written, publish};
use crate::store::Store;
use crate::store::fault::Fault;
use crate::store::objects::Terms;
use crate::store::uploads;
use crate::stream::cut::{Cutter, Part};
use crate::stream::room::Room;
use crate::stream::schedule::Sizes;
use crate::stream::stages::{Broken, Recipe, Taken, take_in};

/// What to store, and how.
#[derive(Clone)]
pub struct Wish {
    /// Name of the backup.
    pub name: Name,
    /// Database that it is of.
    pub database: String,
    /// The backup that it builds on.
    pub parent: Option<String>,
    /// Compression and encryption.
    pub recipe: Recipe,
    /// Parameters of the stored object.
    pub terms: Terms,
    /// How it is cut.
    pub sizes: Sizes,
    /// Bytes of memory for parts, if that was said.
    pub room: Option<u64>,
    /// Most requests at once.
    pub parallel: usize,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// What SAP HANA calls it.
    pub backint: Option<Backint>,
}

/// Something that is read to its end, and then says whether that was a good end.
pub trait Source: Read + Send {
    /// Called at the end of the stream, before anything is promised.
    fn ended(&mut self, size: u64) -> io::Result<()>;
}

/// Calls off the thread that reads when the upload is over, however that came.
struct CallOff(Arc<AtomicBool>, Room);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.close();
    }
}

/// Stores the stream. `called_off` is the flag that the source looks at.
pub async fn put(
    store: &Store,
    journal: &Journal,
    wish: Wish,
    source: Box<dyn Source>,
    called_off: Arc<AtomicBool>,
    progress: Arc<Progress>,
) -> Result<Manifest, Error> {
    let name = wish.name.clone();
    let manifest_key = name.manifest();
    let what = format!("storing `{name}`");
    let taken_already = || Error::Refused(format!("there is a backup `{name}` already: take another name"));
    if store.head(&manifest_key).await.map_err(|fault| fault.error(&what))?.is_some() {
        return Err(taken_already());
    }
    let time = Timestamp::now();
    let key = name.data(&Ulid::generate().to_string());
    let mut open = journal.begin(name.as_str(), vec![key.clone()])?;
    let done = send(store, &mut open, &wish, &key, source, called_off, &progress).await;
    let (taken, version) = match done {
        Ok(done) => done,
        Err(error) => {
            // A failure in cleaning up is left to the next run, which finds it in the journal.
            let _ = crate::clean::clear(store, open).await;
            return Err(error);
        }
    };
    let sums: Vec<u8> = taken.layout.sums.iter().flat_map(|sum| sum.to_be_bytes()).collect();
    let manifest = Manifest {
        version: VERSION,
        tool: concat!("hostler-depot ", env!("CARGO_PKG_VERSION")).to_owned(),
        name: name.as_str().to_owned(),
        database: wish.database,
        time,
        parent: wish.parent,
        size: taken.size,
        sha256: taken.sha256,
        stored: Stored {
            key,
            size: taken.layout.size,
            parts: taken.layout.parts,
            block: wish.sizes.block,
            crc32c: crate::manifest::hex(&sums),
            compression: wish.recipe.level.map(|_| "zstd".to_owned()),
            encryption: (!wish.recipe.recipients.is_empty()).then(|| "age".to_owned()),
            class: wish.terms.class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
            locked_until: wish.terms.lock.as_ref().map(|(_, until)| *until),
            object_version: version,
        },
        backint: wish.backint,
    };
    match publish(store, &mut open, &name, &manifest, wish.terms.hot(), true).await {
        Ok(Written::There) => open.end()?,
        Ok(Written::Taken) => {
            let _ = crate::clean::clear(store, open).await;
            return Err(taken_already());
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
    Ok(manifest)
}

/// Sends the bytes and sees that they are there.
async fn send(
    store: &Store,
    open: &mut Open,
    wish: &Wish,
    key: &str,
    mut source: Box<dyn Source>,
    called_off: Arc<AtomicBool>,
    progress: &Arc<Progress>,
) -> Result<(Taken, Option<String>), Error> {
    let what = format!("storing `{}`", wish.name);
    let name = wish.name.clone();
    let room = Room::new(wish.room);
    let guard = CallOff(called_off, room.clone());
    let (sender, mut parts) = mpsc::channel::<Part>(1);
    let cutter = Cutter::new(wish.sizes, room, Handle::current(), sender, wish.rate);
    let recipe = wish.recipe.clone();
    let seen = Arc::clone(progress);
    let pump = tokio::task::spawn_blocking(move || {
        let source = std::cell::RefCell::new(&mut source);
        let mut reader = Shared(&source);
        take_in(&mut reader, &recipe, cutter, |count| seen.add(count), |size| source.borrow_mut().ended(size))
    });
    let sent = transmit(store, open, wish, key, &mut parts).await;
    drop(parts);
    // If sending failed the pump must not wait for room or for its source.
    if sent.is_err() {
        drop(guard);
    }
    let taken = pump.await.map_err(|error| Error::Local(format!("{what}: {error}")))?;
    let taken = match (sent, taken) {
        (Ok(upload), Ok(taken)) => {
            if let Some((id, stored)) = upload {
                complete(store, key, &id, &stored, taken.layout.size)
                    .await
                    .map_err(|fault| fault.error(&what))?;
            }
            taken
        }
        (_, Err(Broken::Source(error))) if error.to_string() != "called off" => {
            return Err(Error::Stream(format!("{what}: nothing was stored: {error}")));
        }
        (Err(error), _) => return Err(error),
        (_, Err(Broken::Sink(error) | Broken::Source(error))) => {
            return Err(Error::Local(format!("{what}: {error}")));
        }
    };
    let found = store.head(key).await.map_err(|fault| fault.error(&what))?;
    match found {
        Some(found) if found.size == taken.layout.size => Ok((taken, found.version)),
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

type Upload = Option<(String, Vec<uploads::Stored>)>;

/// Takes parts from the pump and keeps several in flight.
async fn transmit(
    store: &Store,
    open: &mut Open,
    wish: &Wish,
    key: &str,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<Upload, Error> {
    let what = format!("storing `{}`", wish.name);
    let Some(first) = parts.recv().await else { return Ok(None) };
    if first.last {
        store
            .put(key, first.bytes, first.crc, &wish.terms, false)
            .await
            .map_err(|fault| fault.error(&what))?;
        return Ok(None);
    }
    let id = store.begin(key, &wish.terms, true).await.map_err(|fault| fault.error(&what))?;
    open.upload(key, &id)?;
    let mut flying: JoinSet<Result<uploads::Stored, Fault>> = JoinSet::new();
    let mut stored = Vec::new();
    let mut next = Some(first);
    while let Some(part) = next {
        while flying.len() >= wish.parallel {
            landed(&mut flying, &mut stored, &what).await?;
        }
        let (store, key, id) = (store.clone(), key.to_owned(), id.clone());
        flying.spawn(async move { store.part(&key, &id, part.number, part.bytes, part.crc).await });
        // A failed part is noticed while the next one is still being filled.
        next = loop {
            tokio::select! {
                // Cancel-safe: a part that is not received stays in the channel.
                part = parts.recv() => break part,
                // Cancel-safe: a task that is not joined stays in the set.
                Some(one) = flying.join_next() => stored.push(joined(one, &what)?),
            }
        };
    }
    while !flying.is_empty() {
        landed(&mut flying, &mut stored, &what).await?;
    }
    stored.sort_by_key(|part| part.number);
    Ok(Some((id, stored)))
}

type Joined = Result<Result<uploads::Stored, Fault>, tokio::task::JoinError>;

fn joined(one: Joined, what: &str) -> Result<uploads::Stored, Error> {
    one.map_err(|error| Error::Local(format!("{what}: {error}")))?.map_err(|fault| fault.error(what))
}

async fn landed(
    flying: &mut JoinSet<Result<uploads::Stored, Fault>>,
    stored: &mut Vec<uploads::Stored>,
    what: &str,
) -> Result<(), Error> {
    if let Some(one) = flying.join_next().await {
        stored.push(joined(one, what)?);
    }
    Ok(())
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
