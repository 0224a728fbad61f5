//! When a fact is asked, how long its value counts, and when it is stale.
//!
//! ```text
//!  asked, a value -> fresh ── asked, a failure ──> stale ── 3 x every after the value ──> absent
//!                      ^──────────── asked, a value ──┴────────────────────────────────────┘
//! ```
//!
//! Times are spans since the boot, with the time that the host slept: a host that wakes up has no fresh facts.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use super::value::Object;

/// A value counts for so many intervals.
const KEPT_INTERVALS: u32 = 3;
/// Why a fact fails is said for so long before another reason is.
const SAID_AT_LEAST: Duration = Duration::from_secs(300);

/// What is known of a fact at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known<'a> {
    /// Its present value.
    Fresh(&'a Object),
    /// The last good value: asking for another has failed since.
    Stale(&'a Object),
    /// Nothing.
    Absent,
}

/// A fact that is asked at an interval.
#[derive(Clone, Debug, Default)]
pub struct AskedFact {
    every: Duration,
    /// When it is to be asked next.
    next: Duration,
    asking: bool,
    /// The last good value, and when it was asked for.
    last: Option<(Duration, Object)>,
    /// Why asking failed, and since when that is said; `None`: the last time it did not.
    failure: Option<(Duration, String)>,
    /// Whether it was asked at all.
    answered: bool,
}

impl AskedFact {
    /// A fact that is asked every so often, and was never asked: it is due at once.
    pub fn new(every: Duration) -> Self {
        Self { every, ..Self::default() }
    }

    /// Follows a file that was read anew: what is known stays known, and another interval counts at once.
    pub fn set_every(&mut self, every: Duration, now: Duration) {
        if every != self.every {
            self.next = self.next.min(now.saturating_add(every));
            self.every = every;
        }
    }

    /// Whether it is to be asked.
    pub fn is_due(&self, now: Duration) -> bool {
        !self.asking && self.next <= now
    }

    /// Whether nobody has heard of it so far.
    pub fn is_awaited(&self) -> bool {
        !self.answered
    }

    /// It is being asked. The next time keeps the pace of the times before, but nothing is made up for.
    pub fn ask(&mut self, now: Duration) {
        self.asking = true;
        let kept = self.next.saturating_add(self.every);
        self.next = if kept > now { kept } else { now.saturating_add(self.every) };
    }

    /// Takes in what came of asking at `asked`; true: its value, or how it stands, is another one now.
    pub fn take(&mut self, asked: Duration, answer: Result<Object, String>) -> bool {
        (self.asking, self.answered) = (false, true);
        match answer {
            Ok(value) => {
                let same =
                    self.failure.is_none() && self.last.as_ref().is_some_and(|(_, last)| *last == value);
                (self.last, self.failure) = (Some((asked, value)), None);
                !same
            }
            Err(why) => {
                // A message that is another one each time, as one with a time in it, is no news each time.
                let said = self.failure.as_ref().map(|(since, _)| since.saturating_add(SAID_AT_LEAST));
                if said.is_some_and(|until| asked < until) {
                    return false;
                }
                let news = self.failure.as_ref().is_none_or(|(_, known)| *known != why);
                self.failure = Some((asked, why));
                news
            }
        }
    }

    /// What is known of it.
    pub fn known(&self, now: Duration) -> Known<'_> {
        match (&self.last, self.ends()) {
            (Some((_, value)), Some(ends)) if now < ends => match self.failure {
                None => Known::Fresh(value),
                Some(_) => Known::Stale(value),
            },
            _ => Known::Absent,
        }
    }

    /// Why it failed, if it did the last time that it was asked; said for five minutes, also when it fails otherwise.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|(_, why)| why.as_str())
    }

    /// When something is to be done or to be said of it next.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let next = (!self.asking).then_some(self.next);
        next.into_iter().chain(self.counts_until(now)).min()
    }

    /// When its present value counts no more, unless there is another one by then; `None`: there is no value.
    pub fn counts_until(&self, now: Duration) -> Option<Duration> {
        self.ends().filter(|ends| *ends > now)
    }

    /// When the last good value counts no more.
    fn ends(&self) -> Option<Duration> {
        let (asked, _) = self.last.as_ref()?;
        Some(asked.saturating_add(self.every.saturating_mul(KEPT_INTERVALS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn value(n: u64) -> Object {
        serde_json::json!({ "n": n }).as_object().unwrap().clone()
    }

    #[test]
    fn a_fact_that_fails_is_stale_for_three_intervals_and_then_absent() {
        let mut fact = AskedFact::new(s(60));
        assert!(fact.is_due(s(1000)) && fact.is_awaited());
        fact.ask(s(1000));
        assert!(!fact.is_due(s(2000)), "one at a time");
        assert_eq!(fact.known(s(1000)), Known::Absent);
        assert!(fact.take(s(1000), Ok(value(1))));
        assert_eq!(fact.known(s(1059)), Known::Fresh(&value(1)));
        assert_eq!(fact.wake(s(1001)), Some(s(1060)));
        fact.ask(s(1060));
        assert!(!fact.take(s(1060), Ok(value(1))), "the same again is no news");
        fact.ask(s(1121));
        assert!(fact.take(s(1121), Err("exit 1".into())));
        assert_eq!((fact.known(s(1122)), fact.failure()), (Known::Stale(&value(1)), Some("exit 1")));
        fact.ask(s(1181));
        assert!(!fact.take(s(1181), Err("exit 1".into())), "the same failure is no news");
        assert_eq!(fact.known(s(1239)), Known::Stale(&value(1)));
        assert_eq!(fact.known(s(1240)), Known::Absent, "3 x 60 s after it was asked for at 1060");
        fact.ask(s(1235));
        assert!(!fact.take(s(1235), Err("exit 1 at noon".into())));
        assert_eq!(fact.failure(), Some("exit 1"), "another message is no news for five minutes");
        fact.ask(s(1240));
        assert!(fact.take(s(1240), Ok(value(1))), "it is fresh again");
        assert_eq!(fact.known(s(1241)), Known::Fresh(&value(1)));
    }

    #[test]
    fn a_host_that_slept_makes_up_for_nothing() {
        let mut fact = AskedFact::new(s(60));
        fact.ask(s(0));
        fact.take(s(0), Ok(value(1)));
        assert_eq!(fact.known(s(100_000)), Known::Absent);
        assert!(fact.is_due(s(100_000)));
        fact.ask(s(100_000));
        fact.take(s(100_000), Ok(value(1)));
        assert_eq!(fact.wake(s(100_001)), Some(s(100_060)));
    }

    #[test]
    fn the_pace_does_not_drift_and_a_new_interval_counts_at_once() {
        let mut fact = AskedFact::new(s(60));
        fact.ask(s(10));
        fact.take(s(10), Ok(value(1)));
        for (now, next) in [(73, 120), (131, 180)] {
            fact.ask(s(now));
            fact.take(s(now), Ok(value(1)));
            assert_eq!(fact.wake(s(now)), Some(s(next)));
        }
        fact.set_every(s(10), s(132));
        assert_eq!(fact.wake(s(132)), Some(s(142)));
        fact.set_every(s(3600), s(133));
        assert_eq!(fact.wake(s(133)), Some(s(142)), "not later than it was to be");
    }

    #[test]
    fn a_value_ends_in_its_own_time_although_nobody_answers() {
        let mut fact = AskedFact::new(s(10));
        fact.ask(s(0));
        fact.take(s(0), Ok(value(1)));
        fact.ask(s(10));
        assert_eq!(fact.wake(s(11)), Some(s(30)), "the end of its value");
        assert_eq!(fact.known(s(30)), Known::Absent);
        assert_eq!(fact.wake(s(31)), None, "nothing but the answer");
    }
}
