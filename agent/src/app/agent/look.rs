//! The last look: just before a run's first intent, one consistent reading of everything that could keep it back.
//!
//! What was decided rests on watches, which are a moment behind: a freeze or a cancel that was written before the
//! order was seen must stop it all the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::sights;
use crate::domain::control::ControlId;
use crate::domain::decide::frozen;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use crate::store::{Entry, Read, Store, StoreError};

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
}

impl LastLook {
    /// The order as it was seen, if nothing stands against its start.
    pub(super) async fn look(&self) -> Result<Entry, Look> {
        let prefix = match &self.key.source {
            Source::Host(host) => self.keys.host_orders(host),
            Source::Group(group) => self.keys.group_orders(group),
        };
        let order = format!("{prefix}{}", self.key.order);
        let (freezes, controls) = (self.keys.freezes(), self.keys.controls(&self.host));
        let reads = [Read::Key(order), Read::Prefix(freezes.clone()), Read::Prefix(controls.clone())];
        let mut found = self.store.look(&reads).await.map_err(Look::Trouble)?.into_iter();
        let entry = found.next().and_then(|listing| listing.entries.into_iter().next());
        let mut visible = |prefix: &str| {
            // Lost rights look like an empty prefix: without its marker nothing follows from what is not there.
            let listing = found.next().and_then(|listing| listing.without_marker(prefix));
            let blind = || format!("{prefix} has no marker or may not be read: run hostler enroll");
            listing.ok_or_else(|| Look::NotNow(blind()))
        };
        let frozen_groups = sights::freezes(&freezes, &visible(&freezes)?);
        let present = sights::controls(&controls, &visible(&controls)?);
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
