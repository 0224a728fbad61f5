//! The port to the place where orders and reports stand, and its two adapters.
//!
//! The rest of the program knows [`Store`] alone. An adapter answers a listing only when it is sure of it:
//! consistent, with a known leader. It never turns trouble into an empty answer, because an absence that
//! is only apparent would be read as a withdrawn order.

pub mod budget;
pub mod consul;
pub mod dir;
pub mod portions;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::domain::keys::MARKER;

/// What a store answers, some time later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The largest value that is written, in bytes: Consul's own limit.
pub const MAX_VALUE: usize = 524_288;

/// The largest value that is read, in bytes: nothing that Hostler writes or reads has more, an order neither.
pub const MAX_READ_VALUE: usize = crate::domain::order::MAX_ORDER;

/// The longest key, in bytes: names are short, and a path on disk has an end.
pub const MAX_KEY: usize = 512;

/// The longest that [`Store::changed`] waits, but for what a store stretches it by.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// The most reads in one [`Store::look`]: Consul's own limit.
pub const MAX_READS: usize = 64;

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// Its value; empty where it is [`Entry::too_large`].
    pub value: Vec<u8>,
    /// Its value has more than [`MAX_READ_VALUE`] bytes and was dropped while it was read.
    pub too_large: bool,
    /// Grows with each change of this key; goes back when a snapshot is restored.
    pub modify_index: u64,
}

impl Entry {
    /// Its value; or, in a line for the operator, why it was not read.
    pub fn read(&self) -> Result<&[u8], String> {
        match self.too_large {
            true => Err(format!("its value has more than {MAX_READ_VALUE} bytes and was not read")),
            false => Ok(&self.value),
        }
    }
}

/// All keys below a prefix, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The store's index of the prefix; what [`Store::changed`] is asked with next.
    pub index: u64,
    /// Sorted by key.
    pub entries: Vec<Entry>,
    /// How many bytes the store sent for it, dropped values included; 0 where it does not send.
    pub sent: usize,
}

impl Listing {
    /// The listing without the marker of `prefix`; `None` where the marker is missing.
    ///
    /// Consul leaves out of a listing what the token may not read, so an answer proves something only
    /// when it holds the marker.
    pub fn without_marker(mut self, prefix: &str) -> Option<Self> {
        let at = self.entries.iter().position(|entry| entry.key.strip_prefix(prefix) == Some(MARKER))?;
        self.entries.remove(at);
        Some(self)
    }
}

/// Why a key cannot stand in a store: `None` for a good one.
///
/// An empty part, `.` and `..` mean something else to an HTTP path and to a folder than to Consul, so no
/// adapter takes them.
pub(crate) fn bad_key(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("the key is empty");
    }
    bad_prefix(key).or_else(|| key.ends_with('/').then_some("a key does not end in '/'"))
}

/// As [`bad_key`], for a prefix: it may be empty and may end in `/`.
pub(crate) fn bad_prefix(prefix: &str) -> Option<&'static str> {
    let parts = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        None
    } else if prefix.len() > MAX_KEY {
        Some("a key has at most 512 bytes")
    } else if prefix.contains(char::is_control) {
        Some("a key has no control characters")
    } else if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Some("no part of a key is empty, '.' or '..'")
    } else {
        None
    }
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
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing>;

    /// As [`Store::list`], but waits for the prefix to differ from index `seen`, at most for `within` and for a minute
    /// or so. An answer with the same index means that the store noticed nothing. `None`: answers at once.
    fn changed<'a>(
        &'a self,
        prefix: &'a str,
        seen: Option<u64>,
        within: Duration,
    ) -> StoreFuture<'a, Listing>;

    /// One consistent look at several places, at one moment; reads only. In the order asked, at most
    /// [`MAX_READS`]. A key that does not exist is an empty listing; the index of each listing is the
    /// greatest `modify_index` in it and of no use for [`Store::changed`].
    fn look<'a>(&'a self, reads: &'a [Read]) -> StoreFuture<'a, Vec<Listing>>;

    /// Writes a value; false: the condition did not hold and nothing was written.
    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, when: When) -> StoreFuture<'a, bool>;

    /// Removes a key; one that does not exist is no error.
    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()>;

    /// The name that the store knows this host by.
    fn node(&self) -> StoreFuture<'_, String>;

    /// What the last listing that reached as far as `prefix` passed over, with the reason of each: files that are no
    /// keys. Empty where a store has nothing of that kind.
    fn passed_over(&self, _prefix: &str) -> Vec<(String, String)> {
        Vec::new()
    }

    /// All keys below `prefix` without their values, sorted.
    fn keys<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(
            async move { Ok(self.list(prefix).await?.entries.into_iter().map(|entry| entry.key).collect()) },
        )
    }

    /// The names directly below `prefix`, sorted: of keys as they are, of folders with their final slash. For reading a
    /// large tree in portions.
    fn names<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(async move {
            let below = |entry: &Entry| {
                let name = entry.key.strip_prefix(prefix)?;
                Some(name.find('/').map_or(name, |at| name.get(..=at).unwrap_or(name)).to_owned())
            };
            let mut names: Vec<String> = self.list(prefix).await?.entries.iter().filter_map(below).collect();
            names.dedup();
            Ok(names)
        })
    }

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
    /// There is more below a prefix, or in an answer, than is read.
    #[error("{place} has too much to answer {action}: {why}; delete what does not belong there")]
    TooLarge {
        /// Where.
        place: String,
        /// What was asked, with the key.
        action: String,
        /// Which bound it breaks.
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

impl StoreError {
    /// Whether the store gave no answer that it stands by: an outage, and not a refusal.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoLeader { .. } | Self::Busy { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_mean_something_else_on_the_way_are_refused() {
        for good in ["a", "a/b", "hostler/hosts/db 1/_hostler", "a/..b"] {
            assert_eq!(bad_key(good), None, "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a/../b", "..", "./a", "a/.", "a\nb", &"x".repeat(513)] {
            assert!(bad_key(bad).is_some(), "{bad}");
        }
        for good in ["", "a/", "a/b/", "a"] {
            assert_eq!(bad_prefix(good), None, "{good}");
        }
        for bad in ["/", "//", "a//", "../"] {
            assert!(bad_prefix(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_listing_without_its_marker_proves_nothing() {
        let entry =
            |key: &str| Entry { key: key.to_owned(), value: vec![], too_large: false, modify_index: 3 };
        let blind = Listing { index: 3, entries: vec![entry("p/x"), entry("p/q/_hostler")], sent: 0 };
        assert_eq!(blind.without_marker("p/"), None);
        let seen = Listing { index: 3, entries: vec![entry("p/_hostler"), entry("p/x")], sent: 0 };
        assert_eq!(seen.without_marker("p/").unwrap().entries, vec![entry("p/x")]);
    }
}
