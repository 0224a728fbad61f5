//! Reconcile: a state that is to hold. What the probe said, and what follows from a row of answers. Pure.
//!
//! ```text
//!  holds ── interval ──> asked again           three in a row after a drift: it lasts
//!  does not hold ── a minute ──> asked again ── does not hold ──> drift
//!  cannot tell ── interval ──> asked again     a condition, and never a start
//! ```
//!
//! The answers are kept in memory only: an agent that starts asks anew, and needs two of them again before anything
//! starts. How many drifts there were is in the ledger.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;

use super::span::Span;

/// The shortest interval, unless the task says `allow_short_interval_interval_interval_interval`.
pub const SHORTEST: Span = Span::secs(60);
/// The second "does not hold" counts so much later than the first; with a shorter interval, after that.
const CONFIRMED_AFTER: Duration = Duration::from_secs(60);
/// So many "holds" in a row after a drift: it lasts.
const LASTING: u32 = 3;
/// The drift that is not carried out any more, counted since the state lasted.
pub const MAX_DRIFTS: u32 = 3;

/// What a probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The wanted state holds.
    Holds,
    /// It does not.
    DoesNotHold,
    /// Nobody knows, with the reason in a line.
    CannotTell(String),
}

/// The answers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeAnswers {
    last: Option<(Timestamp, ProbeAnswer)>,
    /// Since when it is seen not to hold.
    not_since: Option<Timestamp>,
    /// How many "holds" in a row.
    holds: u32,
    /// What the probe said with its newest answer.
    said: Option<String>,
}

/// What follows from the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The probe is asked now.
    Ask,
    /// The probe is asked then.
    AskAt(Timestamp),
    /// The state has drifted away.
    Drifted,
}

impl ProbeAnswers {
    /// Takes an answer in.
    pub fn take(&mut self, at: Timestamp, answer: ProbeAnswer) {
        match &answer {
            ProbeAnswer::Holds => {
                self.holds = self.holds.saturating_add(1);
                self.not_since = None;
            }
            ProbeAnswer::DoesNotHold => {
                self.holds = 0;
                self.not_since = self.not_since.filter(|since| *since <= at).or(Some(at));
            }
            ProbeAnswer::CannotTell(_) => {
                self.holds = 0;
                self.not_since = None;
            }
        }
        self.said = None;
        self.last = Some((at, answer));
    }

    /// Takes in what the probe said with the answer that was taken in last.
    pub fn say(&mut self, said: Option<String>) {
        self.said = said;
    }

    /// What the probe said with its newest answer; `None`: nothing.
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// What follows at `now`, with an interval and the end of the last run.
    pub fn finding(&self, now: Timestamp, every: Span, run_ended: Option<Timestamp>) -> Finding {
        // What was said before or during a run says nothing of what it left behind.
        let last = self.last.as_ref().filter(|(at, _)| run_ended.is_none_or(|ended| *at >= ended));
        let (from, wait) = match (last, self.not_since) {
            (Some((at, ProbeAnswer::DoesNotHold)), Some(since)) => {
                let confirmed = CONFIRMED_AFTER.min(every.0);
                if at.duration_since(since).unsigned_abs() >= confirmed {
                    return Finding::Drifted;
                }
                (since, confirmed)
            }
            (Some((at, _)), _) => (*at, every.0),
            (None, _) => match run_ended {
                Some(ended) => (ended, every.0),
                None => return Finding::Ask,
            },
        };
        // A clock that was set back must not make the state go unwatched.
        match from.checked_add(wait) {
            Ok(next) if from <= now && next > now => Finding::AskAt(next),
            _ => Finding::Ask,
        }
    }

    /// Whether the state has held for long enough.
    pub fn lasts(&self) -> bool {
        self.holds >= LASTING
    }

    /// The newest answer.
    pub fn last(&self) -> Option<&(Timestamp, ProbeAnswer)> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    const QUARTER: Span = Span::secs(900);

    #[test]
    fn two_in_a_row_a_minute_apart_are_a_drift() {
        let mut answers = ProbeAnswers::default();
        assert_eq!(answers.finding(at(0), QUARTER, None), Finding::Ask);
        assert_eq!(answers.finding(at(0), QUARTER, Some(at(-100))), Finding::AskAt(at(800)));
        answers.take(at(0), ProbeAnswer::Holds);
        assert_eq!(answers.finding(at(1), QUARTER, None), Finding::AskAt(at(900)));
        answers.take(at(900), ProbeAnswer::DoesNotHold);
        assert_eq!(answers.finding(at(901), QUARTER, None), Finding::AskAt(at(960)));
        // Asked too early, by whatever cause: not yet.
        answers.take(at(930), ProbeAnswer::DoesNotHold);
        assert_eq!(answers.finding(at(930), QUARTER, None), Finding::AskAt(at(960)));
        answers.take(at(960), ProbeAnswer::DoesNotHold);
        assert_eq!(answers.finding(at(960), QUARTER, None), Finding::Drifted);
        // The run that follows makes these answers old.
        assert_eq!(answers.finding(at(2000), QUARTER, Some(at(1900))), Finding::AskAt(at(2800)));
    }

    #[test]
    fn an_answer_between_begins_the_row_anew() {
        for between in [ProbeAnswer::Holds, ProbeAnswer::CannotTell("?".into())] {
            let mut answers = ProbeAnswers::default();
            answers.take(at(0), ProbeAnswer::DoesNotHold);
            answers.take(at(60), between);
            assert_eq!(answers.finding(at(61), QUARTER, None), Finding::AskAt(at(960)));
            answers.take(at(960), ProbeAnswer::DoesNotHold);
            assert_eq!(answers.finding(at(961), QUARTER, None), Finding::AskAt(at(1020)));
        }
    }

    #[test]
    fn a_clock_that_is_set_asks_and_starts_nothing() {
        let mut answers = ProbeAnswers::default();
        answers.take(at(10_000), ProbeAnswer::DoesNotHold);
        assert_eq!(answers.finding(at(0), QUARTER, None), Finding::Ask);
        answers.take(at(0), ProbeAnswer::DoesNotHold);
        assert_eq!(answers.finding(at(0), QUARTER, None), Finding::AskAt(at(60)));
    }

    #[test]
    fn only_a_row_of_holds_lasts() {
        let mut answers = ProbeAnswers::default();
        for (n, answer) in [
            ProbeAnswer::Holds,
            ProbeAnswer::Holds,
            ProbeAnswer::DoesNotHold,
            ProbeAnswer::Holds,
            ProbeAnswer::Holds,
        ]
        .into_iter()
        .enumerate()
        {
            answers.take(at(i64::try_from(n).unwrap() * 900), answer);
            assert!(!answers.lasts());
        }
        answers.take(at(9000), ProbeAnswer::Holds);
        assert!(answers.lasts());
    }
}
