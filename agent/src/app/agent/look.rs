//! The last look: just before a run's first intent, one consistent reading of everything that could keep it back.
//!
//! What was decided rests on watches, which are a moment behind, or more: a watch that has not answered says nothing.
//! So in one transaction it is asked for the order, for the marker of each place of this host's, for nearer orders of
//! this name, which would hide it, for freezes and controls; and a start follows from nothing else. What differs from
//! what the watches show has them read anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use super::sights;
use crate::domain::control::ControlId;
use crate::domain::decide::frozen;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use crate::store::{Entry, Listing, Read, Store, StoreError};

/// What the last look found, if not the order as it was and nothing against it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Look {
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
pub(super) struct LastLook {
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
    pub(super) doubt: Arc<Notify>,
}

impl LastLook {
    /// The order as it was seen, if nothing stands against its start.
    pub(super) async fn look(&self) -> Result<Entry, Look> {
        let looked = self.ask().await;
        if matches!(looked, Err(Look::Changed(_) | Look::NotNow(_))) {
            self.doubt.notify_waiters();
        }
        looked
    }

    async fn ask(&self) -> Result<Entry, Look> {
        let prefix = |source: &Source| match source {
            Source::Host(host) => self.keys.host_orders(host),
            Source::Group(group) => self.keys.group_orders(group),
        };
        let order_in = |source: &Source| format!("{}{}", prefix(source), self.key.order);
        let Some(rank) = self.sources.iter().position(|source| *source == self.key.source) else {
            return Err(Look::Changed(format!("this host is not in {} any more", self.key.source)));
        };
        let nearer = self.sources.get(..rank).unwrap_or_default();
        let (freezes, controls) = (self.keys.freezes(), self.keys.controls(&self.host));
        let mut reads = vec![
            Read::Key(order_in(&self.key.source)),
            Read::Prefix(freezes.clone()),
            Read::Prefix(controls.clone()),
        ];
        reads.extend(self.sources.iter().map(|source| Read::Key(Keys::marker(&prefix(source)))));
        reads.extend(nearer.iter().map(|source| Read::Key(order_in(source))));
        let mut found = self.store.look(&reads).await.map_err(Look::Trouble)?.into_iter();
        // Lost rights look like an empty prefix: without its marker nothing follows from what is not there.
        let blind = |prefix: &str| {
            Look::NotNow(format!("{prefix} has no marker or may not be read: run hostler enroll"))
        };
        let mut next = || found.next().unwrap_or_default();
        let entry = next().entries.into_iter().next();
        let visible =
            |listing: Listing, prefix: &str| listing.without_marker(prefix).ok_or_else(|| blind(prefix));
        let frozen_groups = sights::freezes(&freezes, &visible(next(), &freezes)?);
        let present = sights::controls(&controls, &visible(next(), &controls)?);
        for source in &self.sources {
            if next().entries.is_empty() {
                return Err(blind(&prefix(source)));
            }
        }
        if let Some(source) = nearer.iter().find(|_| !next().entries.is_empty()) {
            return Err(Look::Changed(format!("the order in {source} took its place")));
        }
        let entry = match entry {
            Some(entry) if entry.modify_index == self.index => entry,
            Some(_) => return Err(Look::Changed("the order has changed".into())),
            None => return Err(Look::Changed("the order is gone".into())),
        };
        if let Some(frozen) = frozen(&self.sources, &frozen_groups, &self.task, clock::now()) {
            return Err(Look::NotNow(frozen.why));
        }
        let mut of_order = present.keys().filter(|(order, _)| *order == self.key.order);
        match of_order.find(|(_, id)| !self.known.contains(id)) {
            Some((_, id)) => Err(Look::NotNow(format!("control {id} came first"))),
            None => Ok(entry),
        }
    }
}
