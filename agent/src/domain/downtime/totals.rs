//! What the host remembers of downtime: sums per service and day, a lifetime sum per service, and the newest runs.
//!
//! Everything follows from [`DowntimeEntry`]s. One that was taken in before changes nothing: each run remembers the epoch and
//! number of the newest downtime that was taken from its journal, so that whoever reads a journal again counts nothing twice.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::measured::{Downtime, Journaled, Millis};
use super::service::Service;
use crate::domain::ids::RunId;
use crate::domain::name::Name;

/// How many days with a downtime are kept, newest first: a service that fails each day has so many days of history.
pub const MAX_DAYS: usize = 400;
/// How many sums of a service and a day are kept, newest first: fifty services that fail each day.
pub const MAX_SUMS: usize = 20_000;
/// How many services have a lifetime sum.
pub const MAX_SERVICES: usize = 500;
/// How many runs are kept, newest first, besides those that are not settled.
pub const MAX_RUNS: usize = 1_000;
/// How many of them are of one task: enough for a percentile, and no task drives out the others.
pub const MAX_RUNS_OF_TASK: usize = 100;

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

/// Seconds of a day.
const DAY: i64 = 86_400;

impl Day {
    /// The day of an instant.
    pub fn of(at: Timestamp) -> Self {
        // The calendar of instants ends far within the numbers of days.
        Self(i32::try_from(at.as_second().div_euclid(DAY)).unwrap_or(i32::MAX))
    }

    /// The instant at which it begins.
    pub fn begins(self) -> Timestamp {
        Timestamp::from_second(i64::from(self.0).saturating_mul(DAY)).unwrap_or(Timestamp::MAX)
    }

    /// The day so many days later.
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.begins().strftime("%Y-%m-%d"))
    }
}

/// One line of the record, as it is on the disk. Never changed once released: fields are added that may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum DowntimeEntry {
    /// A downtime in the journal of a run.
    Counted {
        /// Which run.
        run: RunId,
        /// The name of its task, without the version.
        task: Name,
        /// The order that it carried out.
        order: Name,
        /// The epoch that recorded the downtime.
        epoch: u32,
        /// Its number within that epoch, counted from 1.
        number: u32,
        /// When the journal took it in.
        at: Timestamp,
        /// How long which service could not be used.
        #[serde(flatten)]
        downtime: Downtime,
    },
    /// The sum of a service on a day.
    Sum {
        /// Which day.
        day: Day,
        /// Which service.
        service: Service,
        /// Its sum.
        #[serde(flatten)]
        cost: Cost,
    },
    /// The sum of a service over its whole life.
    Lifetime {
        /// Which service.
        service: Service,
        /// Its sum.
        #[serde(flatten)]
        cost: Cost,
    },
    /// All that is remembered of a run.
    Run {
        /// Which run.
        run: RunId,
        /// What is remembered of it.
        #[serde(flatten)]
        spender: Spender,
    },
}

/// A sum of downtimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cost {
    /// How long.
    pub seconds: Millis,
    /// How many requests failed.
    #[serde(default)]
    pub failed: u64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.seconds = self.seconds.plus(other.seconds);
        self.failed = self.failed.saturating_add(other.failed);
    }
}

/// A run that reported downtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spender {
    /// The name of its task, without the version.
    pub task: Name,
    /// The order that it carried out.
    pub order: Name,
    /// When its journal took in the newest downtime.
    pub at: Timestamp,
    /// Epoch and number of the newest downtime that was taken in.
    pub counted: (u32, u32),
    /// What it cost each service.
    pub services: BTreeMap<Service, Cost>,
}

/// What all facts add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DowntimeTotals {
    /// Per day and service.
    pub days: BTreeMap<(Day, Service), Cost>,
    /// Per service, over its whole life.
    pub lifetimes: BTreeMap<Service, Cost>,
    /// The newest runs that reported downtime.
    pub runs: BTreeMap<RunId, Spender>,
}

/// Which run a journal belongs to.
#[derive(Clone, Copy, Debug)]
pub struct RunOf<'a> {
    /// Its id.
    pub run: RunId,
    /// `name@version`
    pub task: &'a str,
    /// The order that it carries out.
    pub order: &'a Name,
}

impl DowntimeTotals {
    /// Takes a fact in; one that was taken in before changes nothing.
    pub fn take(&mut self, fact: DowntimeEntry) {
        match fact {
            DowntimeEntry::Counted { run, task, order, epoch, number, at, downtime } => {
                let cost = Cost { seconds: downtime.seconds, failed: downtime.failed };
                let service = downtime.service;
                let spender = self.runs.entry(run).or_insert_with(|| Spender {
                    task,
                    order,
                    at,
                    counted: (0, 0),
                    services: BTreeMap::new(),
                });
                if spender.counted >= (epoch, number) {
                    return;
                }
                spender.counted = (epoch, number);
                spender.at = at;
                spender.services.entry(service.clone()).or_default().add(cost);
                self.lifetimes.entry(service.clone()).or_default().add(cost);
                self.days.entry((Day::of(at), service)).or_default().add(cost);
            }
            DowntimeEntry::Sum { day, service, cost } => drop(self.days.insert((day, service), cost)),
            DowntimeEntry::Lifetime { service, cost } => drop(self.lifetimes.insert(service, cost)),
            DowntimeEntry::Run { run, spender } => drop(self.runs.insert(run, spender)),
        }
    }

    /// The facts for what the journal of a run holds and is not counted yet.
    pub fn uncounted(&self, of: &RunOf<'_>, journaled: &[Journaled]) -> Vec<DowntimeEntry> {
        let counted = self.runs.get(&of.run).map_or((0, 0), |spender| spender.counted);
        // A task's name is checked when it is loaded; a plan that holds another one was made by something else.
        let Ok(task) = of.task.split('@').next().unwrap_or_default().parse::<Name>() else {
            return Vec::new();
        };
        let new = journaled.iter().filter(|one| (one.epoch, one.number) > counted);
        new.map(|one| DowntimeEntry::Counted {
            run: of.run,
            task: task.clone(),
            order: of.order.clone(),
            epoch: one.epoch,
            number: one.number,
            at: one.at,
            downtime: one.downtime.clone(),
        })
        .collect()
    }

    /// Forgets what is beyond the bounds; runs in `standing` may still report, and are kept whatever their age.
    pub fn trim(&mut self, standing: &BTreeSet<RunId>) {
        let days: BTreeSet<Day> = self.days.keys().map(|(day, _)| *day).collect();
        let first = days.iter().rev().take(MAX_DAYS).next_back().copied();
        self.days.retain(|(day, _), _| Some(*day) >= first);
        while self.days.len() > MAX_SUMS {
            self.days.pop_first();
        }
        while self.lifetimes.len() > MAX_SERVICES {
            // The service that has been well for the longest: it has no days any more, or the oldest.
            let newest =
                |service: &Service| self.days.keys().rev().find(|(_, of)| of == service).map(|(day, _)| *day);
            let Some(oldest) = self.lifetimes.keys().min_by_key(|service| newest(service)).cloned() else {
                break;
            };
            self.lifetimes.remove(&oldest);
        }
        let mut of_task: BTreeMap<Name, usize> = BTreeMap::new();
        let mut forgotten = Vec::new();
        for (rank, (run, spender)) in self.runs.iter().rev().enumerate() {
            let count = of_task.entry(spender.task.clone()).or_default();
            *count = count.saturating_add(1);
            if (rank >= MAX_RUNS || *count > MAX_RUNS_OF_TASK) && !standing.contains(run) {
                forgotten.push(*run);
            }
        }
        for run in forgotten {
            self.runs.remove(&run);
        }
    }

    /// The shortest list of facts that adds up to the same.
    pub fn facts(&self) -> impl Iterator<Item = DowntimeEntry> {
        let sum = |((day, service), cost): (&(Day, Service), &Cost)| DowntimeEntry::Sum {
            day: *day,
            service: service.clone(),
            cost: *cost,
        };
        let lifetime = |(service, cost): (&Service, &Cost)| DowntimeEntry::Lifetime {
            service: service.clone(),
            cost: *cost,
        };
        let run =
            |(run, spender): (&RunId, &Spender)| DowntimeEntry::Run { run: *run, spender: spender.clone() };
        let days = self.days.iter().map(sum);
        days.chain(self.lifetimes.iter().map(lifetime)).chain(self.runs.iter().map(run))
    }

    /// What a service lost on each day, oldest first.
    pub fn days_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Day, Cost)> + 'a {
        self.days.iter().filter(move |((_, of), _)| of == service).map(|((day, _), cost)| (*day, *cost))
    }

    /// What the newest runs of a task cost a service, newest first: those that reported it at all.
    pub fn samples(&self, task: &Name, service: &Service) -> Vec<Millis> {
        let of_task = self.runs.values().rev().filter(|spender| spender.task == *task);
        of_task.filter_map(|spender| Some(spender.services.get(service)?.seconds)).collect()
    }
}

#[cfg(test)]
#[path = "totals_tests.rs"]
mod tests;
