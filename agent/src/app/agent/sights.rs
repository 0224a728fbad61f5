//! The prefixes that the agent watches, and what they show: orders, controls, freezes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

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
use crate::store::budget::Budget;
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
    /// The places of orders that were read since this agent started.
    read: BTreeSet<Source>,
    rate: Rate,
    /// How many orders and controls are in sight and not taken in yet, because there are too many at once.
    pub(super) postponed: usize,
}

/// How many orders and controls are taken in at once, and in the long run. Each writes lines to the audit, of which the
/// newest 64 MiB are kept: whoever may write orders must not be able to push out within minutes what he did before. What
/// comes at once takes half of it at the most; from then on it takes hours.
#[derive(Debug)]
struct Rate {
    left: f64,
    at: Option<Instant>,
}

/// At once: more than the watches ever hold ([`Budget`]), so that the first look of a host takes in all that was there.
const ACTS_AT_ONCE: f64 = 20_000.0;
/// In the long run.
const ACTS_A_SECOND: f64 = 5.0;

impl Default for Rate {
    fn default() -> Self {
        Self { left: ACTS_AT_ONCE, at: None }
    }
}

impl Rate {
    /// Time has passed.
    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.left = (self.left + passed * ACTS_A_SECOND).min(ACTS_AT_ONCE);
        self.at = Some(now);
    }

    /// Takes one, if one is left.
    fn take(&mut self) -> bool {
        let is_left = self.left >= 1.0;
        self.left -= if is_left { 1.0 } else { 0.0 };
        is_left
    }
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
            State::TooLarge(why) => {
                let held = match self.place {
                    Place::Orders(_) => "what changes there has no effect",
                    Place::Controls => "nothing starts, since it may hold a cancel",
                    Place::Freezes => "nothing starts, since it may hold a freeze",
                };
                Some(Condition::new(Kind::Store, format!("store: {why}; until then {held}")))
            }
            State::Trouble(why) => Some(Condition::new(Kind::Store, format!("store: {why}"))),
        }
    }

    /// What is below the prefix and has no effect, a line each: keys that are no names, values that are too large, files
    /// that are no keys.
    pub(super) fn ignored(&self, host: &Name, groups: &[Name]) -> Vec<String> {
        let Some(listing) = self.listing() else { return Vec::new() };
        let wrong = |entry: &Entry| {
            let name = entry.key.strip_prefix(&self.prefix)?;
            let why = match &self.place {
                Place::Orders(_) => odd::order(name),
                Place::Controls => odd::control(name),
                Place::Freezes => odd::freeze(name, host, groups),
            };
            let why = why.or_else(|| entry.read().err())?;
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
            State::Unknown | State::NotVisible | State::TooLarge(_) | State::Trouble(_) => None,
        }
    }

    /// The place of orders that this is, if it answers with more than is read.
    fn too_large(&self) -> Option<&Source> {
        match (&self.place, &self.seen.borrow().sight) {
            (Place::Orders(source), State::TooLarge(_)) => Some(source),
            _ => None,
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
        let places: Vec<Place> = orders.chain([Place::Controls, Place::Freezes]).collect();
        let budget = Arc::new(Budget::new(places.len()));
        places.into_iter().map(|place| self.start(place, host, &budget)).collect()
    }

    fn start(&self, place: Place, host: &Name, budget: &Arc<Budget>) -> Sight {
        let prefix = match &place {
            Place::Orders(Source::Host(host)) => self.keys.host_orders(host),
            Place::Orders(Source::Group(group)) => self.keys.group_orders(group),
            Place::Controls => self.keys.controls(host),
            Place::Freezes => self.keys.freezes(),
        };
        let (sender, seen) = watch::channel(Seen::default());
        let (store, path, doubt) = (Arc::clone(self.store), prefix.clone(), Arc::clone(self.doubt));
        let (pause, budget) = (self.pause, Arc::clone(budget));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            crate::store::watch::watch(store, &path, &doubt, &budget, &sender).await;
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
    /// Every prefix was in sight, or holds orders and is too large: then what was read of it before still counts, and the
    /// last look before a start asks for the order itself.
    pub(super) visible: bool,
    /// The places of orders that are too large, and were not read since this agent started: what they hold is unknown.
    pub(super) unknown: BTreeSet<Source>,
    /// No prefix got any answer at all. A refusal is an answer: lost rights are not an outage.
    pub(super) away: bool,
    /// The store's index of each place of orders in sight.
    pub(super) indexes: BTreeMap<Source, u64>,
}

impl Sighted {
    /// What is in sight now.
    pub(super) fn of(sights: &[Sight], seeing: &Seeing) -> Self {
        let index = |sight: &Sight| match &sight.place {
            Place::Orders(source) => Some((source.clone(), sight.listing()?.index)),
            Place::Controls | Place::Freezes => None,
        };
        let in_sight = |sight: &Sight| sight.listing().is_some() || sight.too_large().is_some();
        let visible = !sights.is_empty() && sights.iter().all(in_sight);
        let away = !sights.is_empty() && sights.iter().all(|sight| sight.seen.borrow().away);
        let too_large = sights.iter().filter_map(Sight::too_large);
        let unknown = too_large.filter(|source| !seeing.read.contains(source)).cloned().collect();
        Self { visible, unknown, away, indexes: sights.iter().filter_map(index).collect() }
    }
}

/// The store's index in the last answer for each prefix that is in sight, for the agent's report.
pub(super) fn seen(sights: &[Sight]) -> BTreeMap<String, u64> {
    let index = |sight: &Sight| Some((sight.prefix.clone(), sight.listing()?.index));
    sights.iter().filter_map(index).collect()
}

/// Takes in what is in sight; true if an order came, went or changed. A place out of sight keeps what it had.
pub(super) fn take(sights: &[Sight], seeing: &mut Seeing, now: Instant) -> bool {
    let mut changed = false;
    seeing.rate.refill(now);
    seeing.postponed = 0;
    for sight in sights {
        let Some(listing) = sight.listing() else { continue };
        match &sight.place {
            Place::Orders(source) => {
                changed |= take_orders(source, &sight.prefix, &listing, seeing);
                seeing.read.insert(source.clone());
            }
            Place::Controls => {
                let mut now = controls(&sight.prefix, &listing);
                let known = std::mem::take(&mut seeing.controls);
                now.retain(|id, _| known.contains_key(id) || seeing.admit());
                seeing.controls = now;
            }
            Place::Freezes => seeing.freezes = freezes(&sight.prefix, &listing),
        }
    }
    changed
}

fn take_orders(source: &Source, prefix: &str, listing: &Listing, seeing: &mut Seeing) -> bool {
    let mut changed = false;
    let mut here = BTreeSet::new();
    for entry in &listing.entries {
        let name = entry.key.strip_prefix(prefix).and_then(|name| name.parse().ok());
        let Some(order) = name else { continue }; // Not an order's name: nothing that a host could report on.
        let key = OrderKey { source: source.clone(), order };
        here.insert(key.clone());
        let index = entry.modify_index;
        if seeing.orders.get(&key).is_none_or(|known| known.index != index) && seeing.admit() {
            let read = |text: &[u8]| Document::read(text).map_err(|error| error.to_string());
            let document = entry.read().and_then(read);
            seeing.orders.insert(key, SeenOrder { index, document });
            changed = true;
        }
    }
    let before = seeing.orders.len();
    seeing.orders.retain(|key, _| key.source != *source || here.contains(key));
    changed || seeing.orders.len() != before
}

impl Seeing {
    /// Whether one more order or control is taken in now.
    fn admit(&mut self) -> bool {
        let admitted = self.rate.take();
        self.postponed += usize::from(!admitted);
        admitted
    }

    /// What an operator should know of what is not taken in yet.
    pub(super) fn condition(&self) -> Option<Condition> {
        let per_minute = ACTS_A_SECOND * 60.0;
        let text = format!(
            "store: {} orders and controls wait: no more than {per_minute} a minute are taken in",
            self.postponed
        );
        (self.postponed > 0).then(|| Condition::new(Kind::Store, text))
    }
}

/// The controls in a listing; a key that is not `<order>/<id>` is nobody's control.
pub(super) fn controls(prefix: &str, listing: &Listing) -> Controls {
    let read = |entry: &Entry| {
        let (order, id) = entry.key.strip_prefix(prefix)?.split_once('/')?;
        let read = |text: &[u8]| Control::read(text).map_err(|error| error.to_string());
        let control = entry.read().and_then(read);
        Some(((order.parse().ok()?, id.parse().ok()?), control))
    };
    listing.entries.iter().filter_map(read).collect()
}

/// The freezes in a listing.
pub(super) fn freezes(prefix: &str, listing: &Listing) -> Freezes {
    let read = |entry: &Entry| {
        let group = entry.key.strip_prefix(prefix)?.parse().ok()?;
        let read = |text: &[u8]| Freeze::read(text).map_err(|error| error.to_string());
        Some((group, entry.read().and_then(read)))
    };
    listing.entries.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn listing(prefix: &str, count: usize, index: u64) -> Listing {
        let entry = |n: usize| Entry {
            key: format!("{prefix}o{n}"),
            value: b"task: t".to_vec(),
            too_large: false,
            modify_index: index,
        };
        Listing { index, entries: (0..count).map(entry).collect(), sent: 0 }
    }

    #[test]
    fn a_flood_of_changes_is_taken_in_bit_by_bit_and_none_is_lost() {
        let source: Source = "hosts/h".parse().unwrap();
        let (mut seeing, start) = (Seeing::default(), Instant::now());
        let mut take = |count: usize, index: u64, seconds: u64| {
            seeing.rate.refill(start + Duration::from_secs(seconds));
            seeing.postponed = 0;
            take_orders(&source, "p/", &listing("p/", count, index), &mut seeing);
            let newest = seeing.orders.values().filter(|order| order.index == index).count();
            (newest, seeing.postponed)
        };
        // Ten thousand names at once are no flood.
        assert_eq!(take(18_000, 1, 0), (18_000, 0));
        assert_eq!(take(10_000, 2, 0), (2_000, 8_000));
        // Nothing more comes in at the same moment, and 300 in a minute.
        assert_eq!(take(10_000, 2, 0), (2_000, 8_000));
        assert_eq!(take(10_000, 2, 60), (2_300, 7_700));
        assert_eq!(take(10_000, 2, 3_600), (10_000, 0));
        // What is gone is seen to be gone whatever the rate.
        assert_eq!(take(1, 2, 3_600), (1, 0));
    }
}
