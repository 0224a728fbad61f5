//! The port to the place where orders and reports stand, and its two adapters.
//!
//! The rest of the program knows [`Store`] alone. An adapter answers a listing only when it is sure of it:
//! consistent, with a known leader. It never turns trouble into an empty answer, because an absence that
//! is only apparent would be read as a withdrawn order.

use std::future::Future;
use std::pin::Pin;

/// What a store answers, some time later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The largest value that is read or written, in bytes: Consul's own limit.
pub const MAX_VALUE: usize = 524_288;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// Its value; a value above the limit of the reader is not cut but kept as it is.
    pub value: Vec<u8>,
    /// Grows with each change of this key; goes back when a snapshot is restored.
    pub modify_index: u64,
}

/// All keys below a prefix, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The store's index of the prefix; what [`Store::changed`] is asked with next.
    pub index: u64,
    /// Sorted by key.
    pub entries: Vec<Entry>,
}

/// What to read in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// One key.
    Key(String),
    /// All keys below a prefix.
    Prefix(String),
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Whatever stands there.
    Always,
    /// Only while the key has this `modify_index`; 0: only while it does not exist.
    Unchanged(u64),
}

/// Where orders and reports stand.
pub trait Store: Send + Sync {
    /// All keys below `prefix`; answers at once.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Listing>;

    /// As [`Store::list`], but waits (a minute or so) for the prefix to differ from index `seen`.
    /// An answer with the same index means that nothing happened. `None`: answers at once.
    fn changed<'a>(&'a self, prefix: &'a str, seen: Option<u64>) -> Answer<'a, Listing>;

    /// One consistent look at several places, at one moment; reads only. In the order asked.
    fn look<'a>(&'a self, reads: &'a [Read]) -> Answer<'a, Vec<Listing>>;

    /// Writes a value; false: the condition did not hold and nothing was written.
    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, when: When) -> Answer<'a, bool>;

    /// Removes a key; one that does not exist is no error.
    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;

    /// Where this store is, for a message: `Consul at http://127.0.0.1:8500`.
    fn place(&self) -> String;
}

/// What can go wrong with a store.
///
/// The loop branches on the kind: [`StoreError::Denied`] and [`StoreError::Refused`] want an operator,
/// everything else is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, a broken one, or silence beyond the deadline.
    #[error("{place} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        place: String,
        /// What the network said.
        why: String,
    },
    /// The servers have no leader, or the answer may be stale.
    #[error("{place} has no leader")]
    NoLeader {
        /// Where.
        place: String,
    },
    /// The store is there and asks to be left alone for a while (429, 5xx).
    #[error("{place} is busy: {why}")]
    Busy {
        /// Where.
        place: String,
        /// What it said.
        why: String,
    },
    /// The token may not do this.
    #[error("{place} denies {action}: {why}; check the token and its policy")]
    Denied {
        /// Where.
        place: String,
        /// What was tried, with the key.
        action: String,
        /// What it said.
        why: String,
    },
    /// The request itself is wrong: too large, malformed.
    #[error("{place} refuses {action}: {why}")]
    Refused {
        /// Where.
        place: String,
        /// What was tried, with the key.
        action: String,
        /// What it said.
        why: String,
    },
    /// The answer is not what the store's documentation says.
    #[error("{place} answered something unreadable: {why}")]
    Unreadable {
        /// Where.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}
