//! The prefixes that the agent watches, and what they show: orders, controls, freezes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::Event;
use crate::domain::condition::{Condition, Kind};
use crate::domain::control::Control;
use crate::domain::decide::{Controls, Freezes, SeenOrder};
use crate::domain::freeze::Freeze;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::store::watch::{Seen, Sight as State};
use crate::store::{Entry, Listing, Store};

/// What stands below a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Orders.
    Orders(Source),
    /// Controls for this host.
    Controls,
    /// Freezes of all groups.
    Freezes,
}

/// One watched prefix.
pub(super) struct Sight {
    place: Place,
    prefix: String,
    seen: watch::Receiver<Seen>,
    store: Arc<dyn Store>,
}

/// Everything that is in sight, read.
#[derive(Default)]
pub(super) struct Seeing {
    /// Orders, by their place.
    pub(super) orders: BTreeMap<OrderKey, SeenOrder>,
    /// Controls for this host.
    pub(super) controls: Controls,
    /// Freezes of all groups.
    pub(super) freezes: Freezes,
}

impl Sight {
    /// Whether the store has answered, or was found not to.
    pub(super) fn has_answer(&self) -> bool {
        self.seen.borrow().sight != State::Unknown
    }

    /// What an operator should know of this prefix.
    pub(super) fn condition(&self) -> Option<Condition> {
        match &self.seen.borrow().sight {
            State::Unknown | State::Visible(_) => None,
            State::NotVisible => {
                let cure = "has no marker or may not be read; run hostler enroll, check the token";
                Some(Condition::new(Kind::NotVisible, format!("not visible: {} {cure}", self.prefix)))
            }
            State::Trouble(why) => Some(Condition::new(Kind::Store, format!("store: {why}"))),
        }
    }

    /// What is below the prefix and has no effect, a line each: keys that are no names, files that are no keys.
    pub(super) fn ignored(&self, host: &Name, groups: &[Name]) -> Vec<String> {
        let Some(listing) = self.listing() else { return Vec::new() };
        let wrong = |entry: &Entry| {
            let name = entry.key.strip_prefix(&self.prefix)?;
            let why = match &self.place {
                Place::Orders(_) => odd::order(name),
                Place::Controls => odd::control(name),
                Place::Freezes => odd::freeze(name, host, groups),
            }?;
            Some(format!("ignored: {}: {why}", odd::shown(&entry.key)))
        };
        let keys = listing.entries.iter().filter_map(wrong);
        // What editors leave comes and goes; what an operator may take for an order is named.
        let files = self.store.passed_over(&self.prefix).into_iter();
        let files =
            files.filter(|(_, why)| !why.contains("no part of a key") && !why.contains("a copy that"));
        keys.chain(files.map(|(key, why)| format!("ignored: the file {}: {why}", odd::shown(&key)))).collect()
    }

    /// When the store last gave an answer that counts; `None`: never yet.
    pub(super) fn contact(&self) -> Option<std::time::Instant> {
        self.seen.borrow().contact
    }

    /// What the store holds under an order's key, with its index.
    pub(super) fn value(&self, key: &OrderKey) -> Option<(u64, Vec<u8>)> {
        let listing = self.listing().filter(|_| self.place == Place::Orders(key.source.clone()))?;
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

/// What watching needs.
pub(super) struct Watching<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) keys: &'a Keys,
    pub(super) events: &'a mpsc::Sender<Event>,
    /// Has every watch read plainly.
    pub(super) doubt: &'a Arc<Notify>,
    /// Before the first question.
    pub(super) pause: Duration,
}

impl Watching<'_> {
    /// Starts to watch everything that operators write for this host; each change is an event.
    pub(super) fn watch(&self, host: &Name, sources: &[Source]) -> Vec<Sight> {
        let orders = sources.iter().cloned().map(Place::Orders);
        orders.chain([Place::Controls, Place::Freezes]).map(|place| self.start(place, host)).collect()
    }

    fn start(&self, place: Place, host: &Name) -> Sight {
        let prefix = match &place {
            Place::Orders(Source::Host(host)) => self.keys.host_orders(host),
            Place::Orders(Source::Group(group)) => self.keys.group_orders(group),
            Place::Controls => self.keys.controls(host),
            Place::Freezes => self.keys.freezes(),
        };
        let (sender, seen) = watch::channel(Seen::default());
        let (store, path, doubt) = (Arc::clone(self.store), prefix.clone(), Arc::clone(self.doubt));
        let pause = self.pause;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            crate::store::watch::watch(store, &path, &doubt, &sender).await;
        });
        let (mut changes, events) = (seen.clone(), self.events.clone());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() && events.send(Event::Sight).await.is_ok() {}
        });
        Sight { place, prefix, seen, store: Arc::clone(self.store) }
    }
}

/// What was in sight when it was taken in.
///
/// A decision rests on this and on no later look: a place that has come in sight since, but whose orders are not taken
/// in yet, would look like one whose orders are gone.
#[derive(Debug, Default)]
pub(super) struct Sighted {
    /// Every prefix was in sight.
    pub(super) visible: bool,
    /// No prefix got any answer at all. A refusal is an answer: lost rights are not an outage.
    pub(super) away: bool,
    /// The store's index of each place of orders in sight.
    pub(super) indexes: BTreeMap<Source, u64>,
}

impl Sighted {
    /// What is in sight now.
    pub(super) fn of(sights: &[Sight]) -> Self {
        let index = |sight: &Sight| match &sight.place {
            Place::Orders(source) => Some((source.clone(), sight.listing()?.index)),
            Place::Controls | Place::Freezes => None,
        };
        let visible = !sights.is_empty() && sights.iter().all(|sight| sight.listing().is_some());
        let away = !sights.is_empty() && sights.iter().all(|sight| sight.seen.borrow().away);
        Self { visible, away, indexes: sights.iter().filter_map(index).collect() }
    }
}

/// The store's index in the last answer for each prefix that is in sight, for the agent's report.
pub(super) fn seen(sights: &[Sight]) -> BTreeMap<String, u64> {
    let index = |sight: &Sight| Some((sight.prefix.clone(), sight.listing()?.index));
    sights.iter().filter_map(index).collect()
}

/// Takes in what is in sight; true if an order came, went or changed. A place out of sight keeps what it had.
pub(super) fn take(sights: &[Sight], seeing: &mut Seeing) -> bool {
    let mut changed = false;
    for sight in sights {
        let Some(listing) = sight.listing() else { continue };
        match &sight.place {
            Place::Orders(source) => {
                changed |= take_orders(source, &sight.prefix, &listing, &mut seeing.orders);
            }
            Place::Controls => seeing.controls = controls(&sight.prefix, &listing),
            Place::Freezes => seeing.freezes = freezes(&sight.prefix, &listing),
        }
    }
    changed
}

fn take_orders(
    source: &Source,
    prefix: &str,
    listing: &Listing,
    orders: &mut BTreeMap<OrderKey, SeenOrder>,
) -> bool {
    let mut changed = false;
    let mut here = BTreeSet::new();
    for entry in &listing.entries {
        let name = entry.key.strip_prefix(prefix).and_then(|name| name.parse().ok());
        let Some(order) = name else { continue }; // Not an order's name: nothing that a host could report on.
        let key = OrderKey { source: source.clone(), order };
        here.insert(key.clone());
        let index = entry.modify_index;
        if orders.get(&key).is_none_or(|known| known.index != index) {
            let document = Document::read(&entry.value).map_err(|error| error.to_string());
            orders.insert(key, SeenOrder { index, document });
            changed = true;
        }
    }
    let before = orders.len();
    orders.retain(|key, _| key.source != *source || here.contains(key));
    changed || orders.len() != before
}

/// The controls in a listing; a key that is not `<order>/<id>` is nobody's control.
pub(super) fn controls(prefix: &str, listing: &Listing) -> Controls {
    let read = |entry: &Entry| {
        let (order, id) = entry.key.strip_prefix(prefix)?.split_once('/')?;
        let control = Control::read(&entry.value).map_err(|error| error.to_string());
        Some(((order.parse().ok()?, id.parse().ok()?), control))
    };
    listing.entries.iter().filter_map(read).collect()
}

/// The freezes in a listing.
pub(super) fn freezes(prefix: &str, listing: &Listing) -> Freezes {
    let read = |entry: &Entry| {
        let group = entry.key.strip_prefix(prefix)?.parse().ok()?;
        Some((group, Freeze::read(&entry.value).map_err(|error| error.to_string())))
    };
    listing.entries.iter().filter_map(read).collect()
}
