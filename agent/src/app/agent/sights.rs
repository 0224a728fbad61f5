//! The prefixes that the agent watches, and the orders that they show.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::Event;
use crate::domain::decide::SeenOrder;
use crate::domain::keys::Keys;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::store::watch::{Seen, Sight as State};
use crate::store::{Listing, Store};

/// One watched place of orders.
pub(super) struct Sight {
    source: Source,
    prefix: String,
    seen: watch::Receiver<Seen>,
}

impl Sight {
    /// Whether the store has answered, or was found not to.
    pub(super) fn has_answer(&self) -> bool {
        self.seen.borrow().sight != State::Unknown
    }

    /// What an operator should know of this prefix.
    pub(super) fn condition(&self) -> Option<String> {
        match &self.seen.borrow().sight {
            State::Unknown | State::Visible(_) => None,
            State::NotVisible => Some(format!(
                "not visible: {} has no marker or may not be read; run hostler enroll, check the token",
                self.prefix
            )),
            State::Trouble(why) => Some(format!("store: {why}")),
        }
    }

    /// What the store holds under an order's key, with its index.
    pub(super) fn value(&self, key: &OrderKey) -> Option<(u64, Vec<u8>)> {
        let listing = self.listing().filter(|_| key.source == self.source)?;
        let wanted = format!("{}{}", self.prefix, key.order);
        let entry = listing.entries.iter().find(|entry| entry.key == wanted)?;
        Some((entry.modify_index, entry.value.clone()))
    }

    fn listing(&self) -> Option<Arc<Listing>> {
        match &self.seen.borrow().sight {
            State::Visible(listing) => Some(Arc::clone(listing)),
            State::Unknown | State::NotVisible | State::Trouble(_) => None,
        }
    }
}

/// Starts to watch the places of orders; each change is an event.
pub(super) fn watch(
    store: &Arc<dyn Store>,
    keys: &Keys,
    sources: &[Source],
    events: &mpsc::Sender<Event>,
) -> Vec<Sight> {
    let start = |source: &Source| {
        let prefix = match source {
            Source::Host(host) => keys.host_orders(host),
            Source::Group(group) => keys.group_orders(group),
        };
        let (sender, seen) = watch::channel(Seen::default());
        let (store, watched) = (Arc::clone(store), prefix.clone());
        tokio::spawn(async move { crate::store::watch::watch(store, &watched, &sender).await });
        let (mut changes, events) = (seen.clone(), events.clone());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() && events.send(Event::Sight).await.is_ok() {}
        });
        Sight { source: source.clone(), prefix, seen }
    };
    sources.iter().map(start).collect()
}

/// What was in sight when the orders were taken in.
///
/// A decision rests on this and on no later look: a place that has come in sight since, but whose orders are not taken
/// in yet, would look like one whose orders are gone.
#[derive(Debug, Default)]
pub(super) struct Sighted {
    /// Every place was in sight.
    pub(super) visible: bool,
    /// No place got any answer at all. A refusal is an answer: lost rights are not an outage.
    pub(super) away: bool,
    /// The store's index of each place in sight.
    pub(super) indexes: BTreeMap<Source, u64>,
}

impl Sighted {
    /// What is in sight now.
    pub(super) fn of(sights: &[Sight]) -> Self {
        let index = |sight: &Sight| Some((sight.source.clone(), sight.listing()?.index));
        let indexes: BTreeMap<_, _> = sights.iter().filter_map(index).collect();
        let away = !sights.is_empty() && sights.iter().all(|sight| sight.seen.borrow().away);
        Self { visible: !sights.is_empty() && indexes.len() == sights.len(), away, indexes }
    }
}

/// Takes in what is in sight; true if an order came, went or changed. A place out of sight keeps its orders.
pub(super) fn take(sights: &[Sight], orders: &mut BTreeMap<OrderKey, SeenOrder>) -> bool {
    let mut changed = false;
    for sight in sights {
        let Some(listing) = sight.listing() else { continue };
        let mut here = BTreeMap::new();
        for entry in &listing.entries {
            let name = entry.key.strip_prefix(&sight.prefix).and_then(|name| name.parse().ok());
            let Some(order) = name else { continue }; // Not an order's name: nothing that a host could report on.
            let key = OrderKey { source: sight.source.clone(), order };
            let known = orders.get(&key).filter(|known| known.index == entry.modify_index);
            let seen = known.cloned().unwrap_or_else(|| SeenOrder {
                index: entry.modify_index,
                document: Document::read(&entry.value).map_err(|error| error.to_string()),
            });
            here.insert(key, seen);
        }
        let before = orders.len();
        orders.retain(|key, _| key.source != sight.source || here.contains_key(key));
        changed |= orders.len() != before;
        for (key, seen) in here {
            changed |= orders.get(&key) != Some(&seen);
            orders.insert(key, seen);
        }
    }
    changed
}
