//! A schedule: the instants at which an order fires, and which of those that have come are still worth firing.
//!
//! A firing is its scheduled instant, in UTC. Instants that are not after the last one handled never fire again,
//! whatever the clock does; of those that were missed only the newest may, if it is not too late.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::{Span as Calendar, Timestamp};

use super::cron::{BadCron, Cron};
use super::span::Span;
use super::zone::Zone;

/// How late a missed firing may come at most, unless the order says otherwise.
const MAX_CATCH_UP: Duration = Duration::from_secs(6 * 3600);
/// Within this a firing is on time: a busy host, or a clock that was set by some seconds, misses nothing.
const ON_TIME: Duration = Duration::from_secs(60);
/// Missed instants are counted up to this, so that no outage makes the counting long.
const MAX_COUNTED: u32 = 10_000;

/// When an order fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    cron: Cron,
    zone: Zone,
    catch_up: Option<Span>,
}

/// What has come since the last instant that was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The newest instant that has come: no other one up to it may fire any more.
    pub newest: Timestamp,
    /// Whether it is to be fired.
    pub fires: bool,
    /// How many were missed, the newest among them if it is too late.
    pub missed: u32,
}

impl Schedule {
    /// Reads a schedule; how late a firing may come is optional.
    pub fn read(expression: &str, zone: Zone, catch_up: Option<Span>) -> Result<Self, BadCron> {
        Ok(Self { cron: Cron::read(expression)?, zone, catch_up })
    }

    /// What makes it another schedule: `30 2 * * * Europe/Berlin`.
    pub fn terms(&self) -> String {
        format!("{} {}", self.cron.as_str(), self.zone.as_str())
    }

    /// Where its times are local.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The first instant after another.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let local = self.zone.local(after);
        let mut from = local.date().at(local.hour(), local.minute(), 0, 0);
        loop {
            // Local minutes up to the present one have come; of an hour said twice also later ones.
            from = from.checked_add(Calendar::new().minutes(1)).ok()?;
            from = self.cron.first_from(from)?;
            if let Some(instant) = self.zone.instant(from).filter(|instant| *instant > after) {
                return Some(instant);
            }
        }
    }

    /// The last instant that has come by then.
    pub fn last(&self, to: Timestamp) -> Option<Timestamp> {
        let mut local = self.zone.latest(to);
        loop {
            local = self.cron.last_to(local)?;
            if let Some(instant) = self.zone.instant(local).filter(|instant| *instant <= to) {
                return Some(instant);
            }
            local = local.checked_sub(Calendar::new().minutes(1)).ok()?;
        }
    }

    /// Whether it fires at this instant.
    pub fn names(&self, instant: Timestamp) -> bool {
        self.last(instant) == Some(instant)
    }

    /// What has come at `now`, on a host that fires each instant so much later, since `handled`.
    pub fn due(&self, handled: Timestamp, now: Timestamp, splay: Duration) -> Option<Due> {
        let newest = self.last(now.checked_sub(splay).ok()?).filter(|newest| *newest > handled)?;
        let late = Duration::try_from(now.duration_since(newest)).unwrap_or_default().saturating_sub(splay);
        let fires = late <= self.catch_up(newest).max(ON_TIME);
        let mut missed = u32::from(!fires);
        let mut instant = handled;
        while let Some(next) = self.next(instant).filter(|next| *next < newest && missed < MAX_COUNTED) {
            instant = next;
            missed = u32::saturating_add(missed, 1);
        }
        Some(Due { newest, fires, missed })
    }

    /// How late the firing of an instant may come.
    fn catch_up(&self, instant: Timestamp) -> Duration {
        let half = || {
            let interval = self.next(instant).map(|next| next.duration_since(instant));
            let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
            interval.map_or(MAX_CATCH_UP, |interval| {
                interval.checked_div(2).unwrap_or_default().min(MAX_CATCH_UP)
            })
        };
        self.catch_up.map_or_else(half, |span| span.0)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
