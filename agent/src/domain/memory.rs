//! What the agent remembers of orders, and the facts that change it.
//!
//! The ledger on disk is the list of [`Fact`]s, each there before anything follows from it; [`Memory`] is their sum.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use super::hold::Hold;

use super::control::{Act, ControlId};
pub use super::end::{End, end_of};
use super::ids::{Identity, RunId};
use super::name::Name;
use super::plan::Cause;
use super::source::{OrderKey, Source};
use super::standing::{Confirmed, Standing};
use super::summary::Summary;
use super::watched::Version;

/// How many identities are remembered for each key.
pub const MAX_IDENTITIES: usize = 1000;

/// How many keys that are gone from the store are remembered, newest first.
pub const MAX_GONE: usize = 4096;

/// How many controls are remembered, newest first.
pub const MAX_ACTS: usize = 1000;

/// An order that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Why.
    pub why: Hold,
    /// What is held.
    pub identity: Identity,
    /// Under which index it was seen.
    pub index: u64,
    /// Since when.
    pub at: Timestamp,
}

/// A document that cannot be read, so that it has no identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What is wrong with it, and where.
    pub message: String,
    /// Under which index it was seen.
    pub index: u64,
    /// Since when.
    pub at: Timestamp,
}

/// How an occasion ended, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// How.
    pub end: End,
    /// Why, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When.
    pub at: Timestamp,
    /// What its run did, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<Summary>>,
}

/// How far an occasion has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits.
    Open,
    /// Its run's folder is made; an executor may have it.
    Prepared,
    /// It is over.
    Closed(Closing),
}

/// What an operator wants of a run, and what its executor is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "lowercase")]
pub enum Asked {
    /// That it ends.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// That it is taken back, after it ended so that only a person can tell.
    Undo {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// How many times that was asked before.
        before: u32,
    },
}

/// A control that was taken in: done, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// Which order it was about.
    pub order: Name,
    /// What was to be done; none where the control could not be read.
    pub act: Option<Act>,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was taken in.
    pub at: Timestamp,
    /// `done`, or `stale: …`, or `refused: …`.
    pub answer: String,
}

/// One occasion: what is carried out at most once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occasion {
    /// The id of its run, given before there is one.
    pub run: RunId,
    /// Of the order.
    pub identity: Identity,
    /// Why.
    pub cause: Cause,
    /// When it was seen.
    pub at: Timestamp,
    /// How far it has come.
    pub stage: Stage,
    /// What an operator wants of its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Box<Asked>>,
}

/// What is remembered of one key. What few keys have is boxed: a host may have a thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The identity that it had last.
    pub last: Option<Identity>,
    /// The index that goes with it.
    pub index: u64,
    /// The identities before, oldest first.
    pub older: VecDeque<Identity>,
    /// Not carried out until an operator says more.
    pub held: Option<Box<Held>>,
    /// The present document has no identity.
    pub unreadable: Option<Box<Unreadable>>,
    /// The newest occasion.
    pub current: Option<Occasion>,
    /// An older one that still has a run; the newest waits for it.
    pub previous: Option<Box<Occasion>>,
    /// When the key was seen to be gone.
    pub gone: Option<Timestamp>,
    /// Whether and how it comes again.
    #[serde(default, skip_serializing_if = "Standing::is_blank")]
    pub standing: Standing,
}

impl Occasion {
    /// Whether it has a run that newer occasions have to wait for.
    pub fn has_run(&self) -> bool {
        match &self.stage {
            Stage::Open => false,
            Stage::Prepared => true,
            Stage::Closed(closing) => closing.end.keeps_its_place(),
        }
    }
}

impl Remembered {
    /// Whether the key had this identity before, but not last.
    pub fn had(&self, identity: Identity) -> bool {
        self.older.contains(&identity)
    }

    /// Whether an occasion waits or has a run: another one of the same order has no place beside it.
    pub fn is_under_way(&self) -> bool {
        let waits = |occasion: &Occasion| occasion.stage == Stage::Open || occasion.has_run();
        self.previous.is_some() || self.current.as_ref().is_some_and(waits)
    }

    /// The key holds this instruction from now on.
    fn stands(&mut self, identity: Identity, index: u64) {
        if let Some(last) = self.last.replace(identity).filter(|last| *last != identity) {
            self.older.retain(|older| *older != identity);
            self.older.push_back(last);
            while self.older.len() > MAX_IDENTITIES {
                self.older.pop_front();
            }
        }
        self.index = index;
        self.held = None;
        self.unreadable = None;
    }

    /// The occasions whose run has a folder that an executor may have.
    pub fn prepared(&self) -> impl Iterator<Item = &Occasion> {
        let all = self.current.iter().chain(self.previous.as_deref());
        all.filter(|occasion| occasion.stage == Stage::Prepared)
    }
}

/// One thing that the agent found or decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A new occasion.
    Occasion {
        /// Of this order.
        key: OrderKey,
        /// The id of its run.
        run: RunId,
        /// The order's identity.
        identity: Identity,
        /// The index under which it was seen.
        index: u64,
        /// Why.
        cause: Cause,
        /// When.
        at: Timestamp,
    },
    /// An identity that is no occasion of its own: the order has a schedule.
    Taken {
        /// Of this order.
        key: OrderKey,
        /// The order's identity.
        identity: Identity,
        /// The index under which it was seen.
        index: u64,
        /// When.
        at: Timestamp,
    },
    /// From now on the order comes again by these terms.
    Stands {
        /// Which.
        key: OrderKey,
        /// Its terms.
        terms: String,
        /// When.
        at: Timestamp,
    },
    /// The order does not come again.
    Rests {
        /// Which.
        key: OrderKey,
    },
    /// Instants that did not fire, and never will.
    Passed {
        /// Of this order.
        key: OrderKey,
        /// The newest of them.
        until: Timestamp,
        /// How many were missed.
        missed: u32,
        /// How many were skipped because one was still under way.
        overlaps: u32,
        /// When that was found.
        at: Timestamp,
    },
    /// The document stands as the store showed it.
    Confirmed {
        /// Of this order.
        key: OrderKey,
        /// Under which index.
        index: u64,
        /// The document; not said where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        document: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// The state has held for long enough after its drifts.
    Settled {
        /// Of this order.
        key: OrderKey,
    },
    /// A version of a secret that the order watches is known. Stands in one record with the occasion that it leads to.
    Version {
        /// Of this order.
        key: OrderKey,
        /// Where the secret is.
        path: String,
        /// Which.
        version: Version,
    },
    /// What the clock said while something kept it right.
    Clock {
        /// That instant.
        at: Timestamp,
    },
    /// The known identity has another index.
    Index {
        /// Of this order.
        key: OrderKey,
        /// The new one.
        index: u64,
    },
    /// The order is held.
    Held {
        /// Which.
        key: OrderKey,
        /// Why, and what.
        held: Held,
    },
    /// The document cannot be read.
    Unreadable {
        /// Of this order.
        key: OrderKey,
        /// Why.
        unreadable: Unreadable,
    },
    /// The run's folder is made, and an executor is about to be launched.
    Prepared {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
    },
    /// The prepared run was taken back before any executor had it.
    Voided {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// The id under which it is tried again.
        next: RunId,
    },
    /// An occasion is over.
    Closed {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// How.
        closing: Closing,
    },
    /// The key is gone from the store.
    Gone {
        /// Which.
        key: OrderKey,
        /// When.
        at: Timestamp,
    },
    /// Which place an order's name is effective from now.
    Effective {
        /// The name.
        order: Name,
        /// The place; none any more.
        source: Option<Source>,
        /// The store's index when there was none any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    /// A control was taken in. Stands in one record with the facts that it leads to.
    Acted {
        /// Its id.
        control: ControlId,
        /// What became of it.
        #[serde(flatten)]
        acted: Acted,
    },
    /// An operator wants something of a run; its executor is told next.
    Asked {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// What.
        asked: Asked,
    },
    /// What is held is what stands, and is not carried out.
    Rebased {
        /// Of this order.
        key: OrderKey,
        /// What it says.
        identity: Identity,
        /// Under which index.
        index: u64,
    },
    /// The host has joined: what was there before was judged as such.
    Joined {
        /// When.
        at: Timestamp,
    },
    /// A key of which nothing needs to be known any more.
    Forgotten {
        /// Which.
        key: OrderKey,
    },
    /// The whole of a key at once: what a compacted ledger holds.
    Whole {
        /// Which.
        key: OrderKey,
        /// All that is remembered of it.
        order: Box<Remembered>,
    },
}

/// What all facts add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// By key; boxed, since a map of a thousand leaves half of its places free.
    pub orders: BTreeMap<OrderKey, Box<Remembered>>,
    /// The place that each order's name is effective from.
    pub effective: BTreeMap<Name, Source>,
    /// The place that a name was effective from last, and the store's index when it was not any more: an order
    /// elsewhere that is not newer was only uncovered.
    pub left: BTreeMap<Name, (Source, u64)>,
    /// When the host joined.
    pub joined: Option<Timestamp>,
    /// The newest controls that were taken in.
    pub acts: BTreeMap<ControlId, Acted>,
    /// The newest instant of a clock that something kept right: a clock that is behind it is wrong.
    pub newest: Option<Timestamp>,
}

impl Memory {
    /// Takes a fact in.
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Taken { key, identity, index, .. } => self.present(key).stands(identity, index),
            Fact::Stands { key, terms, at } => self.present(key).standing.begin(terms, at),
            Fact::Rests { key } => self.orders.entry(key).or_default().standing.rest(),
            Fact::Passed { key, until, missed, overlaps, .. } => {
                let standing = &mut self.orders.entry(key).or_default().standing;
                standing.pass(until);
                standing.missed = standing.missed.saturating_add(missed);
                standing.overlaps = standing.overlaps.saturating_add(overlaps);
            }
            Fact::Confirmed { key, index, document, at } => {
                let standing = &mut self.orders.entry(key).or_default().standing;
                let known = standing.confirmed.take().map(|confirmed| confirmed.document);
                let document = document.or(known);
                standing.confirmed = document.map(|document| Confirmed { index, document, at });
            }
            Fact::Settled { key } => self.orders.entry(key).or_default().standing.unsettled = 0,
            Fact::Version { key, path, version } => {
                self.orders.entry(key).or_default().standing.know(path, version);
            }
            Fact::Clock { at } => self.newest = self.newest.max(Some(at)),
            Fact::Occasion { key, run, identity, index, cause, at } => {
                let order = self.present(key);
                order.stands(identity, index);
                match &cause {
                    Cause::Placed | Cause::Retry(_) | Cause::Secret { .. } => {}
                    Cause::Firing(instant) => order.standing.pass(*instant),
                    Cause::Drift(n) => {
                        order.standing.drifts = order.standing.drifts.max(*n);
                        order.standing.unsettled = order.standing.unsettled.saturating_add(1);
                    }
                }
                let newest = Occasion { run, identity, cause, at, stage: Stage::Open, asked: None };
                let before = order.current.replace(newest);
                // At most one older occasion has a run: newer ones wait for it, and are superseded waiting.
                if let Some(before) = before.filter(|before| before.has_run()) {
                    order.previous = Some(Box::new(before));
                }
            }
            Fact::Index { key, index } => {
                let order = self.present(key);
                order.index = index;
                order.held = None;
                order.unreadable = None;
            }
            Fact::Held { key, held } => {
                let order = self.present(key);
                order.unreadable = None;
                order.held = Some(Box::new(held));
                order.standing.rest();
            }
            Fact::Unreadable { key, unreadable } => {
                let order = self.present(key);
                order.held = None;
                order.unreadable = Some(Box::new(unreadable));
                order.standing.rest();
            }
            Fact::Prepared { key, run } => self.stage(&key, run, Stage::Prepared),
            Fact::Voided { key, run, next } => {
                self.stage(&key, run, Stage::Open);
                if let Some(occasion) = self.occasion(&key, run) {
                    occasion.run = next;
                }
            }
            Fact::Closed { key, run, closing } => {
                let place_kept = closing.end.keeps_its_place();
                self.stage(&key, run, Stage::Closed(closing));
                if let Some(order) = self.orders.get_mut(&key)
                    && order.previous.as_ref().is_some_and(|previous| previous.run == run && !place_kept)
                {
                    order.previous = None;
                }
            }
            Fact::Gone { key, at } => {
                let order = self.orders.entry(key).or_default();
                order.gone = Some(at);
                order.held = None;
                order.unreadable = None;
                order.standing.rest();
            }
            Fact::Effective { order, source: Some(source), .. } => {
                self.left.remove(&order);
                self.effective.insert(order, source);
            }
            Fact::Effective { order, source: None, index } => {
                if let (Some(before), Some(index)) = (self.effective.remove(&order), index) {
                    self.left.insert(order, (before, index));
                }
                if self.left.len() > MAX_GONE {
                    self.left.pop_first();
                }
            }
            Fact::Acted { control, acted } => {
                self.acts.insert(control, acted);
                if self.acts.len() > MAX_ACTS {
                    self.acts.pop_first();
                }
            }
            Fact::Asked { key, run, asked } => {
                if matches!(asked, Asked::Undo { .. }) {
                    self.stage(&key, run, Stage::Prepared);
                }
                if let Some(occasion) = self.occasion(&key, run) {
                    occasion.asked = Some(Box::new(asked));
                }
            }
            Fact::Joined { at } => self.joined = Some(at),
            Fact::Rebased { key, identity, index } => self.present(key).stands(identity, index),
            Fact::Forgotten { key } => {
                self.orders.remove(&key);
            }
            Fact::Whole { key, order } => {
                self.orders.insert(key, order);
            }
        }
    }

    /// The shortest list of facts that adds up to the same.
    pub fn facts(&self) -> Vec<Fact> {
        let effective = |(order, source): (&Name, &Source)| Fact::Effective {
            order: order.clone(),
            source: Some(source.clone()),
            index: None,
        };
        let left = |(order, (source, index)): (&Name, &(Source, u64))| {
            let not_any_more = Fact::Effective { order: order.clone(), source: None, index: Some(*index) };
            [effective((order, source)), not_any_more]
        };
        let acted =
            |(control, acted): (&ControlId, &Acted)| Fact::Acted { control: *control, acted: acted.clone() };
        let whole = self.orders.iter();
        let whole = whole.map(|(key, order)| Fact::Whole { key: key.clone(), order: order.clone() });
        let orders = whole.chain(self.acts.iter().map(acted));
        let places = self.effective.iter().map(effective).chain(self.left.iter().flat_map(left));
        let joined = self.joined.map(|at| Fact::Joined { at });
        orders.chain(places).chain(joined).chain(self.newest.map(|at| Fact::Clock { at })).collect()
    }

    /// Whether nothing at all is remembered of orders, not even that there were none.
    pub fn is_blank(&self) -> bool {
        self.joined.is_none() && self.orders.is_empty()
    }

    /// Whether a control was taken in, or is older than all that are remembered of very many.
    pub fn has_acted(&self, control: ControlId) -> bool {
        let forgotten = |(oldest, _): (&ControlId, _)| self.acts.len() >= MAX_ACTS && control < *oldest;
        self.acts.contains_key(&control) || self.acts.first_key_value().is_some_and(forgotten)
    }

    /// The keys to forget so that no more than [`MAX_GONE`] that are gone stay: those gone longest.
    pub fn forgettable(&self) -> Vec<OrderKey> {
        let free = |order: &Remembered| order.previous.is_none() && order.prepared().next().is_none();
        let mut gone: Vec<_> = self
            .orders
            .iter()
            .filter(|(_, order)| free(order))
            .filter_map(|(key, order)| order.gone.map(|at| (at, key)))
            .collect();
        gone.sort_unstable_by(|a, b| b.cmp(a));
        gone.into_iter().skip(MAX_GONE).map(|(_, key)| key.clone()).collect()
    }

    /// All occasions whose run an executor may have.
    pub fn prepared(&self) -> impl Iterator<Item = (&OrderKey, &Occasion)> {
        self.orders.iter().flat_map(|(key, order)| order.prepared().map(move |occasion| (key, occasion)))
    }

    fn present(&mut self, key: OrderKey) -> &mut Remembered {
        let order = self.orders.entry(key).or_default();
        order.gone = None;
        order
    }

    fn occasion(&mut self, key: &OrderKey, run: RunId) -> Option<&mut Occasion> {
        let order = self.orders.get_mut(key)?;
        order.current.iter_mut().chain(order.previous.as_deref_mut()).find(|occasion| occasion.run == run)
    }

    fn stage(&mut self, key: &OrderKey, run: RunId, stage: Stage) {
        if let Some(occasion) = self.occasion(key, run) {
            occasion.stage = stage;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u8) -> Identity {
        Identity::new([n; 32])
    }

    fn occasion(n: u8, index: u64) -> Fact {
        Fact::Occasion {
            key: key(),
            run: RunId::new(u64::from(n), 1),
            identity: identity(n),
            index,
            cause: Cause::Placed,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn key() -> OrderKey {
        "hosts/db1/backup".parse().unwrap()
    }

    #[test]
    fn a_compacted_ledger_says_the_same() {
        let mut memory = Memory::default();
        let run = RunId::new(1, 1);
        let order: Name = "backup".parse().unwrap();
        memory.take(Fact::Effective { order, source: Some("hosts/db1".parse().unwrap()), index: None });
        let order: Name = "gone".parse().unwrap();
        let source = Some("groups/all".parse().unwrap());
        memory.take(Fact::Effective { order: order.clone(), source, index: None });
        memory.take(Fact::Effective { order, source: None, index: Some(7) });
        assert_eq!(memory.left.len(), 1);
        memory.take(occasion(1, 5));
        memory.take(Fact::Prepared { key: key(), run });
        memory.take(occasion(2, 7));
        let at = Timestamp::UNIX_EPOCH;
        let held = Held { why: Hold::Repeated, identity: identity(1), index: 9, at };
        memory.take(Fact::Held { key: key(), held });
        let mut again = Memory::default();
        for fact in memory.facts() {
            let json = serde_json::to_string(&fact).unwrap();
            again.take(serde_json::from_str(&json).unwrap());
        }
        assert_eq!(again, memory);
        assert!(memory.orders[&key()].had(identity(1)) && !memory.orders[&key()].had(identity(2)));
    }

    /// Lines as a program wrote them that knew no schedules, and new facts beside them.
    #[test]
    fn facts_of_a_former_program_are_read_beside_new_ones() {
        let identity = identity(7);
        let lines = [
            format!(
                r#"{{"fact":"whole","key":"hosts/db1/backup","order":{{"last":"{identity}","index":5,"older":[],"held":null,"unreadable":null,"current":null,"previous":null,"gone":null}}}}"#
            ),
            format!(
                r#"{{"fact":"occasion","key":"hosts/db1/backup","run":"{}","identity":"{identity}","index":6,"cause":"placed","at":"2026-11-20T00:00:00Z"}}"#,
                RunId::new(1, 1)
            ),
            r#"{"fact":"stands","key":"hosts/db1/backup","terms":"30 2 * * * UTC","at":"2026-11-21T00:00:00Z"}"#.to_owned(),
            r#"{"fact":"passed","key":"hosts/db1/backup","until":"2026-11-21T02:30:00Z","missed":1,"overlaps":0,"at":"2026-11-22T00:00:00Z"}"#.to_owned(),
        ];
        let mut memory = Memory::default();
        for line in lines {
            memory.take(serde_json::from_str(&line).unwrap());
        }
        let order = &memory.orders[&key()];
        assert_eq!((order.last, order.index, order.standing.missed), (Some(identity), 6, 1));
        assert_eq!(order.standing.handled.unwrap().to_string(), "2026-11-21T02:30:00Z");
        // What comes again nowhere is written as it was.
        let json = serde_json::to_string(&Remembered::default()).unwrap();
        assert!(!json.contains("standing"), "{json}");
        for cause in ["placed", "firing 2026-11-21T02:30:00Z", "drift 3", "secret 4 of kv/data/a b of c"] {
            assert_eq!(String::from(Cause::try_from(cause.to_owned()).unwrap()), cause);
        }
        for none in ["firing soon", "secret 4", "secret four of kv/data/a"] {
            assert!(Cause::try_from(none.to_owned()).is_err(), "{none}");
        }
    }

    #[test]
    fn the_older_run_keeps_its_place_until_it_is_closed() {
        let mut memory = Memory::default();
        memory.take(occasion(1, 1));
        memory.take(Fact::Prepared { key: key(), run: RunId::new(1, 1) });
        for n in 2..200 {
            memory.take(occasion(n, u64::from(n)));
        }
        let order = &memory.orders[&key()];
        assert_eq!(order.previous.as_ref().unwrap().run, RunId::new(1, 1));
        assert_eq!(order.current.as_ref().unwrap().run, RunId::new(199, 1));
        let closing = Closing { end: End::Succeeded, error: None, at: Timestamp::UNIX_EPOCH, run: None };
        memory.take(Fact::Closed { key: key(), run: RunId::new(1, 1), closing });
        assert!(memory.orders[&key()].previous.is_none());
    }

    #[test]
    fn no_more_than_a_thousand_identities_are_kept() {
        let mut memory = Memory::default();
        for n in 0..1500_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            let Fact::Occasion { key, run, cause, at, .. } = occasion(1, 1) else { unreachable!() };
            let index = u64::from(n);
            memory.take(Fact::Occasion { key, run, identity: Identity::new(bytes), index, cause, at });
        }
        assert_eq!(memory.orders[&key()].older.len(), MAX_IDENTITIES);
    }
}
