//! From single checks to interruptions. Pure: all instants are distances from the beginning of the measurement.
//!
//! ```text
//!  checks:        ok   ok   --   --   --   ok   ok
//!  interruption:            |-------------|
//! ```
//!
//! It begins when the first check that fails was started, and ends when the next success began to be one: at its start, or,
//! where it took longer than the shortest success, that much later. A service that hangs and then goes on has interrupted
//! its users as well, although no check has failed.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// One check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) good: bool,
}

/// What the checks have said so far.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Timestamp,
    every: Duration,
    /// When the interruption that lasts began, and how long before that it may have.
    open: Option<(Duration, Duration)>,
    /// When the newest success, and the newest failure, was started.
    success: Option<Duration>,
    failure: Option<Duration>,
    /// How long the shortest success took.
    usual: Option<Duration>,
    total: Duration,
    longest: Duration,
    /// To within what the sum is measured.
    within: Duration,
    interruptions: u32,
    failed: u64,
    checks: u64,
    first: Option<Duration>,
    last: Option<Duration>,
    /// The last interruption had not ended.
    lasts: bool,
}

impl Tally {
    pub(crate) fn new(begun: Timestamp, every: Duration) -> Self {
        let (total, longest, within) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Self {
            begun,
            every,
            open: None,
            success: None,
            failure: None,
            usual: None,
            total,
            longest,
            within,
            interruptions: 0,
            failed: 0,
            checks: 0,
            first: None,
            last: None,
            lasts: false,
        }
    }

    /// Takes a check in; they come one after the other.
    pub(crate) fn take(&mut self, checked: Checked) {
        self.checks += 1;
        let Checked { start, end, good } = checked;
        if !good {
            self.failed += 1;
            self.failure = Some(start);
            if self.open.is_none() {
                self.begins(start);
            }
            return;
        }
        let took = end.saturating_sub(start);
        let usual = self.usual.map_or(took, |usual| usual.min(took));
        self.usual = Some(usual);
        let succeeded = end.saturating_sub(usual).max(start);
        if self.open.is_none() && succeeded.saturating_sub(start) > self.every {
            // It hung: nobody knows more than that it did between its start and its end.
            self.begins(start);
            self.failure = Some(succeeded);
        }
        if self.open.is_some() {
            // The service came back at some moment after the newest failure was started.
            let since = self.failure.map_or(Duration::ZERO, |failure| succeeded.saturating_sub(failure));
            self.ends(succeeded, since);
        }
        self.success = Some(succeeded);
    }

    /// An interruption begins; the service went away at some moment after the newest success.
    fn begins(&mut self, at: Duration) {
        let earlier = self.success.map_or(Duration::ZERO, |success| at.saturating_sub(success));
        self.open = Some((at, earlier));
        self.first = self.first.or(Some(at));
        self.interruptions += 1;
    }

    /// It is over; it may have been so for up to `later` before. What is missing at its beginning and what is too much at its
    /// end make up for each other, so only the larger counts.
    fn ends(&mut self, at: Duration, later: Duration) {
        let Some((since, earlier)) = self.open.take() else { return };
        let lasted = at.saturating_sub(since);
        self.total += lasted;
        self.longest = self.longest.max(lasted);
        self.within += earlier.max(later);
        self.last = Some(at);
    }

    /// The command has ended: what lasts counts up to now.
    pub(crate) fn finish(&mut self, now: Duration) {
        self.lasts = self.open.is_some();
        self.ends(now, Duration::ZERO);
    }

    /// The line for a step's report.
    pub(crate) fn line(&self, service: &str) -> Value {
        let mut downtime = json!({"service": service, "seconds": seconds(self.total)});
        if let (Some(fields), Some(first), Some(last)) = (downtime.as_object_mut(), self.first, self.last) {
            for (name, at) in [("from", first), ("to", last)] {
                let at = self.begun.checked_add(at).unwrap_or(self.begun);
                fields.insert(name.to_owned(), at.to_string().into());
            }
        }
        if let Some(fields) = downtime.as_object_mut().filter(|_| self.failed > 0) {
            fields.insert("failed".to_owned(), self.failed.into());
        }
        json!({"downtime": downtime, "message": self.message(service)})
    }

    fn message(&self, service: &str) -> String {
        let (total, longest) = (seconds(self.total), seconds(self.longest));
        let within = self.within.as_millis();
        let lasts = if self.lasts { ", and the last one lasted when the command ended" } else { "" };
        match self.interruptions {
            0 => format!("{service}: no interruption in {} checks", self.checks),
            1 => format!("{service}: {total} s without a success, to within {within} ms{lasts}"),
            n => format!(
                "{service}: {total} s without a success in {n} interruptions, the longest {longest} s, to within \
                 {within} ms{lasts}"
            ),
        }
    }
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Checks that take a millisecond, every 20 ms, of a service that is away as `is_away` says.
    fn tally(until: u64, is_away: impl Fn(u64) -> bool) -> Tally {
        let mut tally = Tally::new(Timestamp::UNIX_EPOCH, ms(20));
        for start in (0..until).step_by(20) {
            tally.take(Checked { start: ms(start), end: ms(start + 1), good: !is_away(start) });
        }
        tally.finish(ms(until));
        tally
    }

    #[test]
    fn each_interruption_is_measured_to_within_an_interval_whenever_it_begins() {
        for away in 100..140 {
            for back in (away + 1..away + 400).step_by(7) {
                let tally = tally(2_000, |at| (away..back).contains(&at));
                let (true_ms, found) = (back - away, u64::try_from(tally.total.as_millis()).unwrap());
                let error = found.abs_diff(true_ms);
                assert!(error <= 20, "{away} to {back}: {found}");
                let within = u64::try_from(tally.within.as_millis()).unwrap();
                assert!(
                    within <= 20 && (tally.interruptions == 0 || error <= within),
                    "{away} to {back}: {within}"
                );
            }
        }
    }

    #[test]
    fn several_add_up_and_the_longest_is_named() {
        let tally = tally(3_000, |at| (100..300).contains(&at) || (1_000..1_500).contains(&at));
        assert_eq!(
            (tally.total, tally.longest, tally.interruptions, tally.failed),
            (ms(700), ms(500), 2, 35)
        );
        let line = tally.line("web");
        assert_eq!(line["downtime"]["seconds"], json!(0.7));
        assert_eq!(line["downtime"]["from"], json!("1970-01-01T00:00:00.1Z"));
        assert_eq!(line["downtime"]["to"], json!("1970-01-01T00:00:01.5Z"));
        assert_eq!(
            line["message"],
            json!("web: 0.7 s without a success in 2 interruptions, the longest 0.5 s, to within 40 ms")
        );
    }

    #[test]
    fn one_that_lasts_counts_up_to_the_end_and_none_is_zero() {
        let lasting = tally(1_000, |at| at >= 400);
        assert_eq!(lasting.total, ms(600));
        assert!(
            lasting.message("web").ends_with("lasted when the command ended"),
            "{}",
            lasting.message("web")
        );
        let none = tally(1_000, |_| false);
        assert_eq!(
            none.line("web"),
            json!({"downtime": {"service": "web", "seconds": 0.0},
            "message": "web: no interruption in 50 checks"})
        );
        assert_eq!(tally(1_000, |_| true).total, ms(1_000), "never there at all");
    }

    /// Frozen and thawed: the one check that was under way succeeds late.
    #[test]
    fn a_service_that_hangs_has_interrupted_its_users_and_a_slow_check_has_not() {
        let checks = |durations: &[u64]| {
            let mut tally = Tally::new(Timestamp::UNIX_EPOCH, ms(20));
            let mut at = 0;
            for took in durations {
                tally.take(Checked { start: ms(at), end: ms(at + took), good: true });
                at += (*took).max(20);
            }
            tally.finish(ms(at));
            tally
        };
        let hung = checks(&[1, 2, 1, 501, 1]);
        assert_eq!((hung.total, hung.interruptions), (ms(500), 1));
        assert!(hung.within <= ms(21), "{:?}", hung.within);
        // A program that takes 200 ms each time is no interruption.
        assert_eq!(checks(&[200, 210, 205, 215]).total, ms(0));
    }
}
