//! What the agent counts of runs since it started: their ends and how long they took, by task.
//!
//! Nothing of it is kept on the disk: whoever asks expects counters to begin at 0 with the process, and knows from
//! their decrease that it did. A run is counted when the ledger has its end, so by one agent only.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::domain::state::End;

/// The bounds of the buckets of durations, in seconds: from a moment to half a day.
pub const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

/// How a run can end.
pub const ENDS: [End; 7] = [
    End::Succeeded,
    End::Unchanged,
    End::Failed,
    End::Undone,
    End::UndoFailed,
    End::Cancelled,
    End::NeedsOperator,
];

/// Tasks that are counted by their own name; all others are counted together.
const MAX_TASKS: usize = 200;

/// Where runs of tasks beyond that are counted. No task has this name: it is none.
const OTHERS: &str = "_others";

/// What is counted of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    ends: [u64; ENDS.len()],
    /// How many took at most so long as the bound of the same place; not summed up.
    buckets: [u64; BUCKETS.len()],
    /// How many were timed.
    pub timed: u64,
    /// All their seconds.
    pub seconds: f64,
}

impl Counts {
    /// Each end with its count.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ENDS.iter().zip(self.ends).map(|(end, count)| (end.as_str(), count))
    }

    /// Each bound with the count of those that took at most so long.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        BUCKETS.into_iter().zip(self.buckets).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }
}

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCounters {
    tasks: BTreeMap<SmolStr, Counts>,
}

impl RunCounters {
    /// Shows a task from now on, also before its first run: an increase from nothing to 1 is seen by nobody.
    pub fn know(&mut self, task: &str) {
        self.of(task);
    }

    /// Counts the end of a run.
    pub fn count(&mut self, task: &str, end: End, seconds: Option<f64>) {
        let counts = self.of(task);
        if let Some(count) =
            ENDS.iter().position(|known| *known == end).and_then(|at| counts.ends.get_mut(at))
        {
            *count += 1;
        }
        if let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) {
            // A clock that was set back meanwhile makes no time negative.
            let seconds = seconds.max(0.0);
            let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
            if let Some(count) = bucket.and_then(|at| counts.buckets.get_mut(at)) {
                *count += 1;
            }
            counts.timed += 1;
            counts.seconds += seconds;
        }
    }

    /// Each task with what is counted of it.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, &Counts)> {
        self.tasks.iter().map(|(task, counts)| (task.as_str(), counts))
    }

    fn of(&mut self, task: &str) -> &mut Counts {
        let known = self.tasks.contains_key(task) || self.tasks.len() < MAX_TASKS;
        self.tasks.entry(SmolStr::new(if known { task } else { OTHERS })).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_task_and_end_and_timed_in_buckets() {
        let mut counters = RunCounters::default();
        counters.know("backup");
        for (end, seconds) in
            [(End::Succeeded, 0.5), (End::Succeeded, 60.0), (End::Failed, 50_000.0), (End::Failed, -3.0)]
        {
            counters.count("backup", end, Some(seconds));
        }
        counters.count("backup", End::Cancelled, None);
        let (_, counts) = counters.tasks().next().unwrap();
        let ends: Vec<_> = counts.ends().filter(|(_, count)| *count > 0).collect();
        assert_eq!(ends, [("succeeded", 2), ("failed", 2), ("cancelled", 1)]);
        let cumulative: Vec<u64> = counts.cumulative().map(|(_, count)| count).collect();
        assert_eq!(cumulative, [2, 2, 2, 3, 3, 3, 3, 3, 3]);
        assert_eq!((counts.timed, counts.seconds), (4, 50_060.5));
    }

    #[test]
    fn the_names_of_tasks_have_a_bound() {
        let mut counters = RunCounters::default();
        for n in 0..1000 {
            counters.count(&format!("t{n}"), End::Succeeded, Some(1.0));
        }
        assert_eq!(counters.tasks().count(), MAX_TASKS + 1);
        let others = counters.tasks().find(|(task, _)| *task == OTHERS).unwrap().1;
        assert_eq!(others.timed, 1000 - MAX_TASKS as u64);
        assert!(OTHERS.parse::<crate::domain::name::Name>().is_err());
    }
}
