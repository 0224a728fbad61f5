//! What is remembered of an order that comes again: by its schedule, because a state is to hold, or for a new secret.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::instant::later;
use super::secret_watch::{ObservedVersion, SecretVersion};
use super::span::Span;

/// How long the last confirmed document counts while the store is away.
const COUNTS_FOR: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// So often the ledger is told that the document still stands.
const CONFIRMED_EVERY: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// A document as the store showed it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Under which index.
    pub index: u64,
    /// The document.
    pub document: String,
    /// When it was last seen to stand.
    pub at: Timestamp,
}

/// What is remembered; all of it is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recurrence {
    /// The terms that count; `None`: the order does not come again at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
    /// Instants that are not after this one never fire. It never goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled: Option<Timestamp>,
    /// How many firings were missed.
    pub missed: u32,
    /// How many firings were skipped because one was still under way.
    pub overlaps: u32,
    /// How many drifts there were: the next one is the next number.
    pub drifts: u32,
    /// How many of them since the state lasted.
    pub unsettled: u32,
    /// The versions of the secrets that it watches, by their paths: none of them is news.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, ObservedVersion>,
    /// When the newest version was written that was known before these terms: none from then starts anything again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_secret: Option<Timestamp>,
    /// When a run for it succeeded last, or found that there was nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// Since when it comes again, under whichever terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// For a task that may fire while the store is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Confirmed>,
}

impl Recurrence {
    /// Whether there is nothing to remember.
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// The order does not come again until its terms count anew; what never may happen twice stays known.
    pub fn rest(&mut self) {
        self.terms = None;
        self.since = None;
        self.unsettled = 0;
        self.forget_secrets();
        self.confirmed = None;
    }

    /// These terms count from now on.
    pub fn begin(&mut self, terms: String, at: Timestamp) {
        self.terms = Some(terms);
        self.since = self.since.or(Some(at));
        // Other secrets, perhaps: what there is now is what is known.
        self.forget_secrets();
        self.pass(at);
    }

    /// This version of a watched secret is known from now on.
    pub fn know(&mut self, path: String, version: SecretVersion) {
        let mut seen = ObservedVersion::after(self.secrets.get(&path), version);
        seen.newest = self.newest_secret.map_or(seen.newest, |newest| newest.max(seen.newest));
        self.secrets.insert(path, seen);
    }

    fn forget_secrets(&mut self) {
        let all = std::mem::take(&mut self.secrets);
        self.newest_secret = all.into_values().map(|seen| seen.newest).chain(self.newest_secret).max();
    }

    /// A run of the order succeeded, or found that there was nothing to do.
    pub fn succeeded(&mut self, at: Timestamp) {
        if self.terms.is_some() {
            self.last_success = self.last_success.max(Some(at));
        }
    }

    /// When a success is late that is expected so often; `None`: none is expected. What has never succeeded counts from
    /// when the order began to come again.
    pub fn late_at(&self, every: Span) -> Option<Timestamp> {
        Some(later(self.last_success.max(self.since)?, every.0))
    }

    /// Instants up to this one are handled.
    pub fn pass(&mut self, until: Timestamp) {
        self.handled = self.handled.max(Some(until));
    }
}

impl Confirmed {
    /// Whether the copy may be used at `now`.
    pub fn counts(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) <= COUNTS_FOR
    }

    /// When it is to be confirmed again.
    pub fn again_at(&self, now: Timestamp) -> Timestamp {
        let again = self.at.checked_add(CONFIRMED_EVERY).unwrap_or(now);
        // After a clock that was set back.
        if self.at > now { now } else { again }
    }
}

/// A recurrence that takes room only once there is something to remember: of a thousand orders most never come again.
#[derive(Clone, Debug, Default)]
pub struct RareRecurrence(Option<Box<Recurrence>>);

/// What is remembered of an order that never came again.
static BLANK: Recurrence = Recurrence {
    terms: None,
    handled: None,
    missed: 0,
    overlaps: 0,
    drifts: 0,
    unsettled: 0,
    secrets: BTreeMap::new(),
    newest_secret: None,
    last_success: None,
    since: None,
    confirmed: None,
};

impl RareRecurrence {
    /// As [`Recurrence::rest`]; what never came again has nothing to forget.
    pub fn rest(&mut self) {
        if let Some(recurrence) = &mut self.0 {
            recurrence.rest();
        }
    }

    /// As [`Recurrence::succeeded`], which counts only for what comes again.
    pub fn succeeded(&mut self, at: Timestamp) {
        if let Some(recurrence) = &mut self.0 {
            recurrence.succeeded(at);
        }
    }
}

impl Deref for RareRecurrence {
    type Target = Recurrence;

    fn deref(&self) -> &Recurrence {
        self.0.as_deref().unwrap_or(&BLANK)
    }
}

impl DerefMut for RareRecurrence {
    fn deref_mut(&mut self) -> &mut Recurrence {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for RareRecurrence {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for RareRecurrence {}

impl Serialize for RareRecurrence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Recurrence::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for RareRecurrence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Recurrence::deserialize(deserializer)?;
        Ok(Self((!read.is_blank()).then(|| Box::new(read))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_late_after_the_last_one_or_after_the_order_began_to_come_again() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut recurrence = Recurrence::default();
        let every = Span::secs(60);
        assert_eq!(recurrence.late_at(every), None, "it does not come again");
        recurrence.succeeded(at(1));
        assert_eq!(recurrence.last_success, None, "nor is its success one of many");
        recurrence.begin("@daily UTC".into(), at(100));
        assert_eq!(recurrence.late_at(every), Some(at(160)));
        // Other terms are no success.
        recurrence.begin("@hourly UTC".into(), at(150));
        assert_eq!(recurrence.late_at(every), Some(at(160)));
        recurrence.succeeded(at(155));
        recurrence.succeeded(at(140));
        assert_eq!((recurrence.last_success, recurrence.late_at(every)), (Some(at(155)), Some(at(215))));
        recurrence.rest();
        recurrence.begin("@daily UTC".into(), at(500));
        assert_eq!(recurrence.late_at(every), Some(at(560)), "what was deleted meanwhile was not late");
    }
}
