//! The last look: just before a run's first intent, one consistent reading of everything that could keep it back.
//!
//! What was decided rests on watches, which are a moment behind, or more: a watch that has not answered says nothing.
//! So one transaction reads the order, its controls, the markers and freezes of this host and its groups, and nearer
//! orders of this name, which would hide it; a start follows from nothing else. What differs from what the watches show
//! makes them read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use super::watches;
use crate::domain::control::ControlId;
use crate::domain::decide::{Freezes, frozen};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use crate::store::{Entry, Read, Store, StoreError};

/// What the last look found, if not the order as it was and nothing against it.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreStartError {
    /// Another order, or none.
    #[error("{0}")]
    Changed(String),
    /// Something stands against it at present.
    #[error("{0}")]
    NotNow(String),
    /// No answer that counts.
    #[error(transparent)]
    Trouble(StoreError),
}

/// What is looked at.
pub(super) struct PreStartCheck {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) host: Name,
    pub(super) sources: Vec<Source>,
    /// The order, and the index under which it was seen.
    pub(super) key: OrderKey,
    pub(super) index: u64,
    pub(super) task: Name,
    /// The controls that were in sight when the start was decided.
    pub(super) known: BTreeSet<ControlId>,
    /// Has the watches read anew.
    pub(super) reread: Arc<Notify>,
}

impl PreStartCheck {
    /// The order as it was seen, if nothing stands against its start.
    pub(super) async fn look(&self) -> Result<Entry, PreStartError> {
        let looked = self.ask().await;
        if matches!(looked, Err(PreStartError::Changed(_) | PreStartError::NotNow(_))) {
            self.reread.notify_waiters();
        }
        looked
    }

    async fn ask(&self) -> Result<Entry, PreStartError> {
        let order_in = |source: &Source| {
            self.keys.order(&OrderKey { source: source.clone(), order: self.key.order.clone() })
        };
        let Some(rank) = self.sources.iter().position(|source| *source == self.key.source) else {
            return Err(PreStartError::Changed(format!("this host is not in {} any more", self.key.source)));
        };
        let nearer = self.sources.get(..rank).unwrap_or_default();
        let controls = self.keys.controls_of_order(&self.host, &self.key.order);
        let mut reads = vec![Read::Key(order_in(&self.key.source)), Read::Prefix(controls)];
        reads.extend(self.sources.iter().map(|source| Read::Key(self.keys.marker(source))));
        reads.extend(self.sources.iter().map(|source| Read::Key(self.keys.freeze(source))));
        reads.extend(nearer.iter().map(|source| Read::Key(order_in(source))));
        let mut found = self.store.look(&reads).await.map_err(PreStartError::Trouble)?.into_iter();
        let mut next = || found.next().unwrap_or_default();
        let entry = next().entries.into_iter().next();
        let present = watches::controls(&self.keys.controls(&self.host), &next());
        // Lost rights look like an empty prefix: without its marker nothing follows from what is not there.
        for source in &self.sources {
            if next().entries.is_empty() {
                let prefix = self.keys.source(source);
                let why = format!("{prefix} has no marker or may not be read: run hostler enroll");
                return Err(PreStartError::NotNow(why));
            }
        }
        let freeze = |source: &Source| Some((source.clone(), watches::freeze(source, &self.keys, &next())?));
        let freezes: Freezes = self.sources.iter().filter_map(freeze).collect();
        if let Some(source) = nearer.iter().find(|_| !next().entries.is_empty()) {
            return Err(PreStartError::Changed(format!("the order in {source} took its place")));
        }
        let entry = match entry {
            Some(entry) if entry.modify_index == self.index => entry,
            Some(_) => return Err(PreStartError::Changed("the order has changed".into())),
            None => return Err(PreStartError::Changed("the order is gone".into())),
        };
        if let Some(frozen) = frozen(&self.sources, &freezes, &self.task, clock::now()) {
            return Err(PreStartError::NotNow(frozen.why));
        }
        match present.keys().find(|(_, id)| !self.known.contains(id)) {
            Some((_, id)) => Err(PreStartError::NotNow(format!("control {id} came first"))),
            None => Ok(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::store::{Listing, StoreFuture, When};

    const ORDER: &str = "hostler/groups/db/orders/o";

    /// Keys with their index; looked at as a whole.
    #[derive(Clone)]
    struct Kept(BTreeMap<String, u64>);

    impl Kept {
        /// A host `h` in the groups `db` and `all`, with an order of `db` and nothing against it.
        fn usual() -> Self {
            let markers = ["hosts/h/_hostler", "groups/db/_hostler", "groups/all/_hostler"];
            let markers = markers.map(|key| (format!("hostler/{key}"), 1));
            Self(markers.into_iter().chain([(ORDER.to_owned(), 7)]).collect())
        }

        fn listing(&self, wanted: impl Fn(&str) -> bool) -> Listing {
            let entries: Vec<Entry> = (self.0.iter().filter(|(key, _)| wanted(key)))
                .map(|(key, index)| Entry {
                    key: key.clone(),
                    value: b"{}".to_vec(),
                    too_large: false,
                    modify_index: *index,
                })
                .collect();
            Listing { index: 9, entries, sent: 0 }
        }
    }

    impl Store for Kept {
        fn list<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Listing> {
            Box::pin(std::future::pending())
        }
        fn changed<'a>(&'a self, _: &'a str, _: Option<u64>, _: Duration) -> StoreFuture<'a, Listing> {
            Box::pin(std::future::pending())
        }
        fn look<'a>(&'a self, reads: &'a [Read]) -> StoreFuture<'a, Vec<Listing>> {
            let found = reads.iter().map(|read| match read {
                Read::Key(asked) => self.listing(|key| key == asked),
                Read::Prefix(asked) => self.listing(|key| key.starts_with(asked)),
            });
            let found = Ok(found.collect());
            Box::pin(async move { found })
        }
        fn put<'a>(&'a self, _: &'a str, _: Vec<u8>, _: When) -> StoreFuture<'a, bool> {
            Box::pin(std::future::pending())
        }
        fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ()> {
            Box::pin(std::future::pending())
        }
        fn node(&self) -> StoreFuture<'_, String> {
            Box::pin(std::future::pending())
        }
        fn place(&self) -> String {
            "a test".to_owned()
        }
    }

    /// What the last look says, in a word, and whether it had the watches read anew.
    async fn look(kept: &Kept, groups: &[&str]) -> (&'static str, bool) {
        let host: Name = "h".parse().unwrap();
        let groups = groups.iter().map(|group| Source::Group(group.parse().unwrap()));
        let reread = Arc::new(Notify::new());
        let doubted = reread.notified();
        let last = PreStartCheck {
            store: Arc::new(kept.clone()),
            keys: Keys::new("hostler"),
            sources: std::iter::once(Source::Host(host.clone())).chain(groups).collect(),
            host,
            key: "groups/db/o".parse().unwrap(),
            index: 7,
            task: "t".parse().unwrap(),
            known: BTreeSet::new(),
            reread: Arc::clone(&reread),
        };
        let word = match last.look().await {
            Ok(_) => "starts",
            Err(PreStartError::Changed(_)) => "changed",
            Err(PreStartError::NotNow(_)) => "not now",
            Err(PreStartError::Trouble(_)) => "trouble",
        };
        tokio::pin!(doubted);
        (word, doubted.as_mut().enable())
    }

    #[tokio::test]
    async fn nothing_starts_but_on_what_is_there_at_one_moment() {
        let groups = ["db", "all"];
        assert_eq!(look(&Kept::usual(), &groups).await, ("starts", false));
        // Without any of the markers nothing is believed, and that of an unwatched group is nobody's.
        for marker in Kept::usual().0.keys().filter(|key| key.ends_with("_hostler")) {
            let mut kept = Kept::usual();
            kept.0.remove(marker);
            assert_eq!(look(&kept, &groups).await, ("not now", true), "{marker}");
        }
        for (key, index, expected) in [
            ("hostler/hosts/h/orders/o", 3, ("changed", true)),
            ("hostler/hosts/h/orders/o2", 3, ("starts", false)),
            ("hostler/hosts/h2/orders/o", 3, ("starts", false)),
            ("hostler/groups/all/orders/o", 3, ("starts", false)),
            (ORDER, 8, ("changed", true)),
            ("hostler/groups/all/freeze", 8, ("not now", true)),
            ("hostler/hosts/h/freeze", 8, ("not now", true)),
            ("hostler/hosts/h2/freeze", 8, ("starts", false)),
            ("hostler/groups/elsewhere/freeze", 8, ("starts", false)),
            ("hostler/hosts/h/control/o/01JD8000000000000000000000", 8, ("not now", true)),
            ("hostler/hosts/h/control/other/01JD8000000000000000000000", 8, ("starts", false)),
        ] {
            let mut kept = Kept::usual();
            kept.0.insert(key.to_owned(), index);
            assert_eq!(look(&kept, &groups).await, expected, "{key}");
        }
        let mut kept = Kept::usual();
        kept.0.remove(ORDER);
        assert_eq!(look(&kept, &groups).await, ("changed", true));
        // A nearer group hides it as the host does; one that the host has left is no place of orders any more.
        let mut kept = Kept::usual();
        kept.0.insert("hostler/groups/near/_hostler".to_owned(), 1);
        assert_eq!(look(&kept, &["near", "db", "all"]).await, ("starts", false));
        kept.0.insert("hostler/groups/near/orders/o".to_owned(), 3);
        assert_eq!(look(&kept, &["near", "db", "all"]).await, ("changed", true));
        assert_eq!(look(&kept, &["db", "all"]).await, ("starts", false));
        assert_eq!(look(&kept, &["all"]).await, ("changed", true));
    }
}
