//! What is left of an error budget, and when the gate that asks for some of it opens.
//!
//! A window is today, in UTC, and the days before it. A day leaves the window as a whole, at midnight: that is the only
//! moment at which a budget grows, so the second at which a gate opens is known as soon as it closes. Days after today, as a
//! clock leaves them that was set back, count as well: a downtime counts until its day has left the window.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use jiff::Timestamp;

use super::measured::Millis;
use super::objective::Objective;
use super::service::Service;
use super::totals::{Day, DowntimeTotals};
use crate::domain::name::Name;

/// From so many samples on, the 95th percentile counts, below it the largest.
pub const ENOUGH_SAMPLES: usize = 20;

/// What is asked for where a task has no sample yet: any budget at all.
const ANY: Millis = Millis(1);

/// The budget of one service under one objective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Which objective.
    pub objective: Objective,
    /// How much downtime its window has room for.
    pub allowed: Millis,
    /// How much of it is spent.
    pub spent: Millis,
}

impl Budget {
    /// What is left; negative if more was spent than allowed. In milliseconds.
    pub fn left(&self) -> i64 {
        let amount = |millis: Millis| i64::try_from(millis.0).unwrap_or(i64::MAX);
        amount(self.allowed).saturating_sub(amount(self.spent))
    }

    /// What is left as a share of the whole: 1 if nothing is spent, negative if more was spent than allowed.
    pub fn ratio(&self) -> f64 {
        if self.allowed == Millis(0) { 0.0 } else { self.left() as f64 / self.allowed.0 as f64 }
    }
}

/// The budgets of a service, one for each objective that covers it.
pub fn budgets(
    totals: &DowntimeTotals,
    objectives: &[Objective],
    service: &Service,
    now: Timestamp,
) -> Vec<Budget> {
    let covering = objectives.iter().filter(|objective| objective.service.matches(service));
    let budget = |objective: &Objective| Budget {
        objective: objective.clone(),
        allowed: objective.budget(),
        spent: spent(totals, service, objective.window.length(), Day::of(now)),
    };
    covering.map(budget).collect()
}

/// What a service lost in a window of so many days that ends with `today`.
pub fn spent(totals: &DowntimeTotals, service: &Service, days: i32, today: Day) -> Millis {
    let first = today.plus(1_i32.saturating_sub(days));
    let within = totals.days_of(service).filter(|(day, _)| *day >= first);
    within.fold(Millis(0), |sum, (_, cost)| sum.plus(cost.seconds))
}

/// How much budget a task needs where its gate does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The gate says it.
    Said(Millis),
    /// The 95th percentile of so many past downtimes of the task.
    Percentile(Millis, usize),
    /// The largest of so many, too few for a percentile.
    Largest(Millis, usize),
    /// The task has never reported a downtime of this service here: any budget at all.
    Unknown,
}

impl Needs {
    /// What the gate asks for.
    pub fn amount(self) -> Millis {
        match self {
            Self::Said(amount) | Self::Percentile(amount, _) | Self::Largest(amount, _) => amount,
            Self::Unknown => ANY,
        }
    }

    /// Derives it from what runs of the task cost the service before.
    pub fn of_samples(mut samples: Vec<Millis>) -> Self {
        samples.sort_unstable();
        let count = samples.len();
        let Some(largest) = samples.last().copied() else { return Self::Unknown };
        if count < ENOUGH_SAMPLES {
            return Self::Largest(largest, count);
        }
        // The smallest sample that at least 95 of 100 do not exceed (nearest rank).
        let rank = count.saturating_mul(95).div_ceil(100);
        let at = samples.get(rank.saturating_sub(1)).copied();
        Self::Percentile(at.unwrap_or(largest), count)
    }

    fn words(self) -> String {
        match self {
            Self::Said(amount) => format!("the task needs {amount}"),
            Self::Percentile(amount, count) => {
                format!("the task needs {amount}, the 95th percentile of its last {count} downtimes here")
            }
            Self::Largest(amount, 1) => format!("the task needs {amount}, its only downtime here so far"),
            Self::Largest(amount, count) => {
                format!("the task needs {amount}, the largest of its {count} downtimes here")
            }
            Self::Unknown => {
                "the task, which has reported no downtime here yet, needs any budget at all".to_owned()
            }
        }
    }
}

/// Why a gate is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// One line for the operator.
    pub why: String,
    /// When it opens if nothing more is spent. `None` if only a change of the configuration opens it.
    pub opens: Option<Timestamp>,
}

/// What a gate rests on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the host remembers.
    pub totals: &'a DowntimeTotals,
    /// What the host promises.
    pub objectives: &'a [Objective],
    /// The name of the task.
    pub task: &'a Name,
    /// The service whose budget is asked for.
    pub service: &'a Service,
    /// What the gate says that it needs. `None`: the task's past downtimes tell.
    pub needs: Option<Millis>,
}

/// Why the gate is closed at `now`; `None` if it is open. Of several objectives each has to have the budget.
pub fn closed(asked: &Asked<'_>, now: Timestamp) -> Option<Closed> {
    let Asked { totals, service, .. } = asked;
    let budgets = budgets(totals, asked.objectives, service, now);
    if budgets.is_empty() {
        let why = format!(
            "no objective of this host covers the service {service}, so its error budget is unknown: add one to `objectives` \
             in the configuration"
        );
        return Some(Closed { why, opens: None });
    }
    let needs = match asked.needs {
        Some(amount) => Needs::Said(amount),
        None => Needs::of_samples(totals.samples(asked.task, service)),
    };
    let wanted = i64::try_from(needs.amount().0).unwrap_or(i64::MAX);
    let short: Vec<&Budget> = budgets.iter().filter(|budget| budget.left() < wanted).collect();
    let worst = short.iter().min_by_key(|budget| budget.left())?;
    let opens = short.iter().map(|budget| opening(asked, budget, wanted, Day::of(now)));
    let opens = opens.collect::<Option<Vec<Day>>>().and_then(|days| days.into_iter().max());
    let Objective { target, window, .. } = &worst.objective;
    let left = match worst.left() {
        over @ ..0 => format!("is overspent by {}", Millis(over.unsigned_abs())),
        left => format!("has {} left", Millis(left.unsigned_abs())),
    };
    let why = format!(
        "the error budget of {service} ({target} over {window}) {left} of {}, and {}{}",
        worst.allowed,
        needs.words(),
        if opens.is_none() { ": more than the whole budget" } else { "" }
    );
    Some(Closed { why, opens: opens.map(Day::begins) })
}

/// The first day after today on which a budget has enough left, if nothing more is spent; `None` if it never has.
fn opening(asked: &Asked<'_>, budget: &Budget, wanted: i64, today: Day) -> Option<Day> {
    let length = budget.objective.window.length();
    // A budget grows only when a day with a downtime leaves the window.
    let leaves =
        asked.totals.days_of(asked.service).map(|(day, _)| day.plus(length)).filter(|day| *day > today);
    let enough = |day: &Day| {
        let spent = spent(asked.totals, asked.service, length, *day);
        Budget { spent, ..budget.clone() }.left() >= wanted
    };
    leaves.into_iter().find(enough)
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
