//! Bytes on their way into the store: by one request if they are few, else as parts of an upload, several in flight.
//!
//! An upload is begun and completed by requests of its own, and stands in the journal. A short stream needs none of that:
//! its parts are held back, in the memory that they have anyway, until it is known whether it is longer.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::journal::Open;
use crate::store::Store;
use crate::store::contents::Coming;
use crate::store::fault::Fault;
use crate::store::objects::ObjectOptions;
use crate::store::uploads;
use crate::stream::cut::Part;

/// How to send.
pub struct Way<'a> {
    /// What is being done, for errors.
    pub what: &'a str,
    /// Key of the object.
    pub key: &'a str,
    /// Parameters of the object.
    pub object_options: &'a ObjectOptions,
    /// Most requests at once.
    pub parallel: usize,
    /// Parts are held back while they are fewer bytes than this.
    pub at_once: u64,
    /// Parts that memory has room for.
    pub room: u64,
    /// The SHA-256 of all that is sent, if whoever reads the stream makes it.
    pub sha256: Option<oneshot::Receiver<String>>,
}

/// What was sent: as parts, or whole.
pub enum Upload {
    /// Parts of the upload of this id.
    Parts(String, Vec<uploads::Stored>),
    /// One object.
    Whole {
        /// Whether the answer proves that the server has the bytes that were sent.
        proved: bool,
    },
}

/// Takes parts from the pump and keeps several in flight.
pub async fn transmit(
    store: &Store,
    open: &mut Open,
    way: Way<'_>,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<Upload, Error> {
    let Way { what, key, object_options, .. } = way;
    let mut coming = Coming::new(store, way.sha256.is_some());
    let mut held = Vec::new();
    loop {
        // The pump has failed, and says why.
        let Some(part) = parts.recv().await else { return Ok(Upload::Whole { proved: false }) };
        let (last, size) = (part.last, (coming.size() + part.bytes.len()) as u64);
        // While parts are held back the pump fills another one.
        if !last && (size >= way.at_once || held.len() as u64 + 1 >= way.room) {
            held.push(part);
            break;
        }
        coming.add(part.bytes.clone(), part.crc);
        held.push(part);
        if last {
            drop(held);
            let sha256 = match way.sha256 {
                Some(sum) => sum.await.ok(),
                None => None,
            };
            let sent = store.put_whole(key, coming.ended(store, sha256).await, object_options).await;
            let sent = sent.map_err(|fault| fault.error(what))?;
            return Ok(Upload::Whole { proved: sent.proved });
        }
    }
    drop(coming);
    let id = store.begin(key, object_options, true).await.map_err(|fault| fault.error(what))?;
    open.upload(key, &id)?;
    let mut flying: JoinSet<Result<uploads::Stored, Fault>> = JoinSet::new();
    let mut stored = Vec::new();
    let mut held = held.into_iter();
    let mut next = held.next();
    while let Some(part) = next {
        while flying.len() >= way.parallel {
            landed(&mut flying, &mut stored, what).await?;
        }
        let (store, key, id) = (store.clone(), key.to_owned(), id.clone());
        let part = uploads::Outgoing { number: part.number, bytes: part.bytes, crc: part.crc };
        flying.spawn(async move { store.part(&key, &id, part).await });
        next = held.next();
        // A failed part is noticed while the next one is still being filled.
        while next.is_none() {
            tokio::select! {
                // Cancel-safe: a part that is not received stays in the channel.
                part = parts.recv() => {
                    next = part;
                    break;
                }
                // Cancel-safe: a task that is not joined stays in the set.
                Some(one) = flying.join_next() => stored.push(joined(one, what)?),
            }
        }
    }
    while !flying.is_empty() {
        landed(&mut flying, &mut stored, what).await?;
    }
    stored.sort_by_key(|part| part.number);
    Ok(Upload::Parts(id, stored))
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
