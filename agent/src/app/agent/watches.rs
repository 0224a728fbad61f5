//! The prefixes that the agent watches, one for the host and one for each of its groups, and what they show: orders,
//! controls, freezes.

use super::consul_service::ConsulService;
use super::prior_reports::PriorReports;
use crate::report::agent_key::NameConflict;
use crate::store::consul::Consul;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify as Notified;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::Event;
use crate::domain::condition::{Condition, Kind};
use crate::domain::control::Control;
use crate::domain::decide::{Controls, Freezes, SeenOrder};
use crate::domain::freeze::Freeze;
use crate::domain::keys::{self, Keys};
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::store::budget::Budget;
use crate::store::watch::{Snapshot, WatchState as State};
use crate::store::{Entry, Listing, Store};

/// The store, and what it shows of this host's orders.
pub(super) struct StoreSync {
    pub(super) store: Arc<dyn Store>,
    /// The same, where it is Consul.
    pub(super) consul: Option<Arc<Consul>>,
    pub(super) consul_service: Option<ConsulService>,
    /// The places of orders, the nearest first.
    pub(super) sources: Vec<Source>,
    /// The runs that the host's own reports named before this agent wrote any; none: they are not read yet.
    pub(super) prior_reports: Option<PriorReports>,
    pub(super) name_conflicts: watch::Receiver<Option<NameConflict>>,
    /// Reports that the store refuses: one line for the operator.
    pub(super) refused_reports: watch::Receiver<Option<String>>,
    pub(super) watches: Vec<PrefixWatch>,
    /// Has the watches read plainly: somebody saw something else there.
    pub(super) reread: Arc<Notified>,
    pub(super) status: SyncStatus,
    pub(super) snapshot_count: u64,
    pub(super) desired: Desired,
    /// When to look again at what could not be taken in at once.
    pub(super) desired_retry_at: Option<Instant>,
    /// Nothing starts before this, after an outage or a start.
    pub(super) quiet_until: Option<Timestamp>,
}

/// One watched prefix: everything that is meant for the host, or for one of its groups.
pub(super) struct PrefixWatch {
    source: Source,
    keys: Keys,
    prefix: String,
    seen: watch::Receiver<Snapshot>,
    store: Arc<dyn Store>,
}

/// Everything that is in watch, read.
#[derive(Default)]
pub(super) struct Desired {
    /// Orders, by their place.
    pub(super) orders: BTreeMap<OrderKey, SeenOrder>,
    /// Controls for this host.
    pub(super) controls: Controls,
    /// The freezes of this host and its groups.
    pub(super) freezes: Freezes,
    /// The places of orders that were read since this agent started.
    read: BTreeSet<Source>,
    rate: Rate,
    /// How many orders and controls are in watch and not taken in yet, because there are too many at once.
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

impl PrefixWatch {
    /// Whether the store has answered, or was found not to.
    pub(super) fn has_answer(&self) -> bool {
        self.seen.borrow().state != State::Pending
    }

    /// What an operator should know of this prefix.
    pub(super) fn condition(&self) -> Option<Condition> {
        match &self.seen.borrow().state {
            State::Pending | State::Current(_) => None,
            State::NoMarker => {
                let cure = "has no marker or may not be read; run hostler enroll, check the token";
                Some(Condition::new(Kind::NotVisible, format!("not visible: {} {cure}", self.prefix)))
            }
            State::TooLarge(why) | State::Unreadable(why) => {
                let held = match self.source {
                    Source::Group(_) => "changes there have no effect",
                    Source::Host(_) => "nothing starts, since it may hold a cancel",
                };
                Some(Condition::new(Kind::Store, format!("store: {why}; until then {held}")))
            }
            State::Failed(why) => Some(Condition::new(Kind::Store, format!("store: {why}"))),
        }
    }

    /// Keys below the prefix that have no effect, a line each: keys that are no names, values that are too large, files
    /// that are no keys.
    pub(super) fn ignored(&self) -> Vec<String> {
        let Some(listing) = self.listing() else { return Vec::new() };
        let wrong = |entry: &Entry| {
            let why = odd::key(&self.source, entry.key.strip_prefix(&self.prefix)?);
            let why = why.or_else(|| entry.read().err())?;
            Some(format!("ignored: {}: {why}", odd::shown(&entry.key)))
        };
        // Orders come first: of a long list only the beginning has room in a report.
        let is_order = |entry: &&Entry| {
            let rest = entry.key.strip_prefix(&self.prefix);
            rest.is_some_and(|rest| matches!(keys::Kind::of(rest), keys::Kind::Order(_)))
        };
        let (orders, others): (Vec<&Entry>, Vec<&Entry>) = listing.entries.iter().partition(is_order);
        let keys = orders.into_iter().chain(others).filter_map(wrong);
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
        let listing = self.listing().filter(|_| self.source == key.source)?;
        let wanted = self.keys.order(key);
        let entry = listing.entries.iter().find(|entry| entry.key == wanted)?;
        Some((entry.modify_index, entry.value.clone()))
    }

    fn listing(&self) -> Option<Arc<Listing>> {
        match &self.seen.borrow().state {
            State::Current(listing) => Some(Arc::clone(listing)),
            State::Pending
            | State::NoMarker
            | State::TooLarge(_)
            | State::Unreadable(_)
            | State::Failed(_) => None,
        }
    }

    /// The group that this is, if it answers with more than is read, or with what cannot be read.
    fn unreadable_group(&self) -> Option<&Source> {
        match (&self.source, &self.seen.borrow().state) {
            (Source::Group(_), State::TooLarge(_) | State::Unreadable(_)) => Some(&self.source),
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
    pub(super) reread: &'a Arc<Notify>,
    /// Before the first question.
    pub(super) pause: Duration,
}

impl Watching<'_> {
    /// Starts to watch everything that operators write for this host; each change is an event.
    pub(super) fn watch(&self, sources: &[Source]) -> Vec<PrefixWatch> {
        let budget = Arc::new(Budget::new(sources.len()));
        sources.iter().map(|source| self.start(source.clone(), &budget)).collect()
    }

    fn start(&self, source: Source, budget: &Arc<Budget>) -> PrefixWatch {
        let prefix = self.keys.source(&source);
        let (sender, seen) = watch::channel(Snapshot::default());
        let (store, path, reread) = (Arc::clone(self.store), prefix.clone(), Arc::clone(self.reread));
        let (pause, budget) = (self.pause, Arc::clone(budget));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            crate::store::watch::watch(store, &path, &reread, &budget, &sender).await;
        });
        let (mut changes, events) = (seen.clone(), self.events.clone());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() && events.send(Event::StoreChanged).await.is_ok() {}
        });
        PrefixWatch { source, keys: self.keys.clone(), prefix, seen, store: Arc::clone(self.store) }
    }
}

/// What was in watch when it was taken in.
///
/// A decision rests on this and on no later look: a place that has come in watch since, but whose orders are not taken
/// in yet, would look like one whose orders are gone.
#[derive(Debug, Default)]
pub(super) struct SyncStatus {
    /// Every prefix was in watch, or is a group's and cannot be read: then what was read of it before still counts, and the
    /// last look before a start asks for the order and the freeze themselves.
    pub(super) all_current: bool,
    /// The places of orders that are too large or answer with what cannot be read, and were not read since this agent
    /// started: what they hold is unknown.
    pub(super) unknown: BTreeSet<Source>,
    /// No prefix got any answer at all. A refusal is an answer: lost rights are not an outage.
    pub(super) away: bool,
    /// The store's index of each place of orders in watch.
    pub(super) indexes: BTreeMap<Source, u64>,
}

impl SyncStatus {
    /// What is in watch now.
    pub(super) fn of(watches: &[PrefixWatch], desired: &Desired) -> Self {
        let index = |watch: &PrefixWatch| Some((watch.source.clone(), watch.listing()?.index));
        let in_sight = |watch: &PrefixWatch| watch.listing().is_some() || watch.unreadable_group().is_some();
        let all_current = !watches.is_empty() && watches.iter().all(in_sight);
        let away = !watches.is_empty() && watches.iter().all(|watch| watch.seen.borrow().away);
        let unreadable = watches.iter().filter_map(PrefixWatch::unreadable_group);
        let unknown = unreadable.filter(|source| !desired.read.contains(source)).cloned().collect();
        Self { all_current, unknown, away, indexes: watches.iter().filter_map(index).collect() }
    }
}

/// The store's index in the last answer for each prefix that is in watch, for the agent's report.
pub(super) fn observed_index(watches: &[PrefixWatch]) -> BTreeMap<String, u64> {
    let index = |watch: &PrefixWatch| Some((watch.prefix.clone(), watch.listing()?.index));
    watches.iter().filter_map(index).collect()
}

/// Takes in what is in watch; true if an order came, went or changed. A place out of watch keeps what it had.
pub(super) fn take(watches: &[PrefixWatch], desired: &mut Desired, now: Instant) -> bool {
    let mut changed = false;
    desired.rate.refill(now);
    desired.postponed = 0;
    for watch in watches {
        let Some(listing) = watch.listing() else { continue };
        changed |= take_orders(&watch.source, &watch.keys, &listing, desired);
        take_freeze(&watch.source, &watch.keys, &listing, desired);
        if let Source::Host(host) = &watch.source {
            take_controls(host, &watch.keys, &listing, desired);
        }
    }
    changed
}

fn take_orders(source: &Source, keys: &Keys, listing: &Listing, desired: &mut Desired) -> bool {
    let mut changed = false;
    let mut here = BTreeSet::new();
    let prefix = keys.orders(source);
    // What was there before is judged as a whole, so all of it is taken in at once, however much else there was.
    let is_first = desired.read.insert(source.clone());
    for entry in &listing.entries {
        let name = entry.key.strip_prefix(&prefix).and_then(|name| name.parse().ok());
        let Some(order) = name else { continue }; // Not an order's name: nothing that a host could report on.
        let key = OrderKey { source: source.clone(), order };
        here.insert(key.clone());
        let index = entry.modify_index;
        if desired.orders.get(&key).is_none_or(|known| known.index != index) && desired.admit(is_first) {
            let read = |text: &[u8]| Document::read(text).map_err(|error| error.to_string());
            let document = entry.read().and_then(read);
            desired.orders.insert(key, SeenOrder { index, document });
            changed = true;
        }
    }
    let before = desired.orders.len();
    desired.orders.retain(|key, _| key.source != *source || here.contains(key));
    changed || desired.orders.len() != before
}

fn take_freeze(source: &Source, keys: &Keys, listing: &Listing, desired: &mut Desired) {
    match freeze(source, keys, listing) {
        Some(freeze) => drop(desired.freezes.insert(source.clone(), freeze)),
        None => drop(desired.freezes.remove(source)),
    }
}

fn take_controls(host: &Name, keys: &Keys, listing: &Listing, desired: &mut Desired) {
    let mut now = controls(&keys.controls(host), listing);
    let known = std::mem::take(&mut desired.controls);
    now.retain(|id, _| known.contains_key(id) || desired.admit(false));
    desired.controls = now;
}

impl Desired {
    /// Whether one more order or control is taken in now; one of a first reading is in any case.
    fn admit(&mut self, is_first: bool) -> bool {
        let admitted = self.rate.take() || is_first;
        self.postponed += usize::from(!admitted);
        admitted
    }

    /// Whether all that these watches hold was read since this agent started.
    pub(super) fn has_read(&self, watches: &[PrefixWatch]) -> bool {
        watches.iter().all(|watch| self.read.contains(&watch.source))
    }

    /// Whether a line about freezes may go to the audit now: they count among the acts.
    pub(super) fn admit_freezes(&mut self) -> bool {
        self.rate.take()
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

/// The freeze of a host or group in a listing; `Err`: it cannot be read; `None`: there is none.
pub(super) fn freeze(source: &Source, keys: &Keys, listing: &Listing) -> Option<Result<Freeze, String>> {
    let key = keys.freeze(source);
    let entry = listing.entries.iter().find(|entry| entry.key == key)?;
    let read = |text: &[u8]| Freeze::read(text).map_err(|error| error.to_string());
    Some(entry.read().and_then(read))
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
        let (source, keys): (Source, _) = ("hosts/h".parse().unwrap(), Keys::new("p"));
        let (mut desired, start) = (Desired::default(), Instant::now());
        let mut take = |count: usize, index: u64, seconds: u64| {
            desired.rate.refill(start + Duration::from_secs(seconds));
            desired.postponed = 0;
            take_orders(&source, &keys, &listing(&keys.orders(&source), count, index), &mut desired);
            let newest = desired.orders.values().filter(|order| order.index == index).count();
            (newest, desired.postponed)
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
