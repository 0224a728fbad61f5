//! What the audit tells: who ordered what, what was decided and why, and what became of it.
//!
//! Each entry is made from a fact before the fact counts, so that nothing is ever done without it. A crash
//! between the two leaves an entry of which nothing came; the order's next one tells what was decided then.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::downtime::Downtime;
use super::freeze::Freeze;
use super::order::Order;
use super::source::{OrderKey, Source};
use super::state::LedgerEntry;
use super::text;

/// The longest text that a line takes over, in bytes.
const MAX_LEN: usize = 300;

/// One thing that happened. What does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// What: `started`, `activation`, `prepared`, `ended`, `held`, `control`, `frozen` and so on.
    pub what: String,
    /// The order's place, or its name for a control; of a freeze the host or group (`groups/hana`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The task that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Why the activation, or the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The parameters of an activation, as JSON. A secret is never one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<String>,
    /// Of the order as it was seen; of an agent that started, of its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Under which index of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Who says that he wanted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it ended, or what was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The status of the last step that exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The step that it came to: `2/3 switch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How long services could not be used because of the run, a sum for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub downtime: Vec<Downtime>,
}

impl Entry {
    /// The agent started; `id` tells this host from others of the same name.
    pub fn started(host: &str, version: &str, boot: &str, id: &str) -> Self {
        let why = format!("hostler {version} for {host}, boot {boot}");
        Self { what: STARTED.to_owned(), why: Some(why), identity: Some(id.to_owned()), ..Self::default() }
    }

    /// Somebody adopted the host: its agent has another identity than before.
    fn adopted(before: &str, now: &str) -> Self {
        let why = format!("the identity was {before} and is {now}");
        Self { what: "adopted".to_owned(), why: Some(why), ..Self::default() }
    }

    /// A freeze came into force for this host, or another one took its place.
    fn frozen(source: &Source, freeze: &Result<Freeze, String>) -> Self {
        let entry = Self { what: FROZEN.to_owned(), order: Some(source.to_string()), ..Self::default() };
        match freeze {
            Ok(freeze) => Self {
                why: freeze.until.map(|until| format!("until {until}")),
                by: freeze.by.as_deref().map(short),
                reason: freeze.reason.as_deref().map(short),
                ..entry
            },
            Err(error) => Self { error: Some(short(error)), ..entry },
        }
    }

    /// A freeze is over.
    fn thawed(source: String) -> Self {
        Self { what: THAWED.to_owned(), order: Some(source), ..Self::default() }
    }

    /// The record goes on although the line that was reported is not in it. So a gap is never passed over in silence:
    /// the only record that may have one is a record that names it.
    pub fn gap(reported: &Head, why: &str) -> Self {
        let why = format!("{} is not in this record: {why}", gap_of(reported));
        Self { what: GAP.to_owned(), why: Some(why), ..Self::default() }
    }

    /// Whether this entry names the gap at that reported line.
    pub fn is_gap_of(&self, reported: &Head) -> bool {
        let named = format!("{} ", gap_of(reported));
        self.what == GAP && self.why.as_deref().is_some_and(|why| why.starts_with(&named))
    }

    /// The entry for a fact that means something to an auditor; `order` finds the document that it is about.
    pub fn of<'a>(fact: &LedgerEntry, order: impl Fn(&OrderKey) -> Option<&'a Order>) -> Option<Self> {
        let what = |what: &str, key: &OrderKey| {
            let order = order(key);
            Self {
                what: what.to_owned(),
                order: Some(key.to_string()),
                task: order.map(|order| order.task.to_string()),
                by: order.and_then(|order| order.by.as_deref()).map(short),
                reason: order.and_then(|order| order.reason.as_deref()).map(short),
                ..Self::default()
            }
        };
        Some(match fact {
            LedgerEntry::Activation { key, run, identity, index, trigger, .. } => Self {
                run: Some(run.to_string()),
                why: Some(trigger.clone().into()),
                params: order(key).and_then(params),
                identity: Some(identity.to_string()),
                index: Some(*index),
                ..what("activation", key)
            },
            LedgerEntry::BaselineTaken { key, identity, index, .. } => Self {
                identity: Some(identity.to_string()),
                index: Some(*index),
                ..what("baseline_taken", key)
            },
            LedgerEntry::Held { key, held } => Self {
                why: Some(held.why.as_str().to_owned()),
                identity: Some(held.identity.to_string()),
                index: Some(held.index),
                ..what("held", key)
            },
            LedgerEntry::Accepted { key, identity, index } => {
                Self { identity: Some(identity.to_string()), index: Some(*index), ..what("accepted", key) }
            }
            LedgerEntry::Unreadable { key, unreadable } => Self {
                error: Some(short(&unreadable.message)),
                index: Some(unreadable.index),
                ..what("unreadable", key)
            },
            LedgerEntry::FiringsSkipped { key, until, missed, overlaps, .. } if missed + overlaps > 0 => {
                Self {
                    why: Some(format!("until {until}: {missed} missed, {overlaps} skipped for overlap")),
                    ..what("firings_skipped", key)
                }
            }
            LedgerEntry::Prepared { key, run } => {
                Self { run: Some(run.to_string()), ..what("prepared", key) }
            }
            LedgerEntry::PreparationRevoked { key, run, .. } => {
                Self { run: Some(run.to_string()), ..what("preparation_revoked", key) }
            }
            LedgerEntry::Closed { key, run, closing } => {
                let summary = closing.run.as_deref();
                Self {
                    run: Some(run.to_string()),
                    end: Some(closing.end.as_str().to_owned()),
                    error: closing.error.as_deref().map(short),
                    exit_code: summary.and_then(|summary| summary.exit_code),
                    step: summary
                        .and_then(|summary| summary.step.as_ref())
                        .map(|step| format!("{}/{} {}", step.index, step.count, step.name)),
                    downtime: summary.map(|summary| summary.downtime.clone()).unwrap_or_default(),
                    ..what("ended", key)
                }
            }
            LedgerEntry::Gone { key, .. } => what("gone", key),
            LedgerEntry::ControlHandled { control, acted } => Self {
                what: "control".to_owned(),
                order: Some(acted.order.to_string()),
                why: Some(format!("{} {control}", acted.act.map_or("?", |act| act.as_str()))),
                by: Some(short(&acted.by)),
                reason: Some(short(&acted.reason)),
                end: Some(short(&acted.answer)),
                ..Self::default()
            },
            LedgerEntry::HostJoined { .. } => Self { what: "host_joined".to_owned(), ..Self::default() },
            _ => return None,
        })
    }
}

/// The parameters of an order for the record; `None`: it has none.
fn params(order: &Order) -> Option<String> {
    let text = order.params.to_string();
    (!["{}", "null"].contains(&text.as_str())).then(|| short(&text))
}

/// What entries are called that [`Standing`] reads again.
const STARTED: &str = "started";
const FROZEN: &str = "frozen";
const THAWED: &str = "thawed";
/// What an entry about a gap is called.
const GAP: &str = "gap";

fn gap_of(reported: &Head) -> String {
    let Head { n, hash } = reported;
    format!("reported line {n} with hash {hash}")
}

fn short(text: &str) -> String {
    text::head(text, MAX_LEN)
}

/// One line as it stands on the disk: what was decided at once, its place in the chain, and the hash of the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counted from 1, without a gap.
    pub n: u64,
    /// The SHA-256 of the line before, in hexadecimal; of the very first: 64 zeros.
    pub prev: String,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// The number of a line and its hash. That of the newest line is in the agent's report, and so outside of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The number; 0 before the first line.
    pub n: u64,
    /// SHA-256 in hexadecimal.
    pub hash: String,
}

/// One entry, with the place and the time of its line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NumberedEntry {
    /// The number of its line.
    pub n: u64,
    /// When the line was written.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What the record last said of things that last: an agent that starts records only what differs from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The identity of the host; `None`: the record does not say.
    identity: Option<String>,
    /// The freezes in force, by host or group.
    freezes: BTreeMap<String, Entry>,
}

impl Standing {
    /// Follows what was recorded.
    pub fn follow(&mut self, entry: &Entry) {
        match (entry.what.as_str(), &entry.order) {
            (STARTED, _) => self.identity.clone_from(&entry.identity),
            (FROZEN, Some(source)) => drop(self.freezes.insert(source.clone(), entry.clone())),
            (THAWED, Some(source)) => drop(self.freezes.remove(source)),
            _ => {}
        }
    }

    /// What an agent that starts with this identity has to record besides its start.
    pub fn adoption(&self, id: &str) -> Option<Entry> {
        let before = self.identity.as_deref().filter(|before| *before != id)?;
        Some(Entry::adopted(before, id))
    }

    /// What has to be recorded now that these freezes are in force.
    pub fn freezes<'a>(
        &self,
        in_force: impl Iterator<Item = (&'a Source, &'a Result<Freeze, String>)>,
    ) -> Vec<Entry> {
        let mut over: BTreeSet<&String> = self.freezes.keys().collect();
        let mut entries = Vec::new();
        for (source, freeze) in in_force {
            let entry = Entry::frozen(source, freeze);
            let known = entry.order.as_ref().and_then(|source| self.freezes.get_key_value(source));
            if let Some((source, _)) = known {
                over.remove(source);
            }
            if known.is_none_or(|(_, known)| *known != entry) {
                entries.push(entry);
            }
        }
        entries.extend(over.into_iter().cloned().map(Entry::thawed));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{InstructionHash, RunId};
    use crate::domain::plan::Trigger;

    #[test]
    fn a_head_reads_as_it_was_written_and_its_gap_is_its_own() {
        let read = |json: &str| serde_json::from_str::<Head>(json);
        let head = Head { n: 7, hash: "ab".to_owned() };
        assert_eq!(read(&serde_json::to_string(&head).unwrap()).unwrap(), head);
        assert!(read("7").is_err() && read("{\"n\": 7}").is_err());
        let gap = Entry::gap(&head, "the disk was restored");
        assert!(gap.is_gap_of(&head));
        for other in [Head { n: 70, ..head.clone() }, Head { hash: "a".to_owned(), ..head }, Head::default()]
        {
            assert!(!gap.is_gap_of(&other), "{other:?}");
        }
    }

    #[test]
    fn freezes_and_identities_are_recorded_when_they_change_and_not_at_each_start() {
        let freeze = |by: &str| Ok(Freeze { by: Some(by.to_owned()), ..Freeze::default() });
        let (host, group): (Source, Source) = ("hosts/db1".parse().unwrap(), "groups/hana".parse().unwrap());
        let record = |standing: &mut Standing, in_force: &[(&Source, &Result<Freeze, String>)]| {
            let entries = standing.freezes(in_force.iter().copied());
            entries.iter().for_each(|entry| standing.follow(entry));
            entries
        };
        let said = |entries: &[Entry]| -> Vec<String> {
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            entries
                .iter()
                .map(|entry| format!("{} {} {}", entry.what, word(&entry.order), word(&entry.by)))
                .collect()
        };
        let mut standing = Standing::default();
        let (alice, bob) = (freeze("alice"), freeze("bob"));
        let first = record(&mut standing, &[(&host, &alice), (&group, &bob)]);
        assert_eq!(said(&first), ["frozen hosts/db1 alice", "frozen groups/hana bob"]);
        assert_eq!(record(&mut standing, &[(&host, &alice), (&group, &bob)]), []);
        assert_eq!(
            said(&record(&mut standing, &[(&host, &bob)])),
            ["frozen hosts/db1 bob", "thawed groups/hana "]
        );
        let unreadable = Err("no map".to_owned());
        let entries = record(&mut standing, &[(&host, &unreadable)]);
        assert_eq!(entries.first().and_then(|entry| entry.error.as_deref()), Some("no map"));
        assert_eq!(standing.adoption("a"), None);
        standing.follow(&Entry::started("db1", "1", "boot", "a"));
        assert_eq!(standing.adoption("a"), None);
        assert_eq!(standing.adoption("b").map(|entry| entry.what), Some("adopted".to_owned()));
        // Another agent of the same record knows the same.
        assert_eq!(said(&record(&mut standing.clone(), &[])), ["thawed hosts/db1 "]);
    }

    #[test]
    fn a_line_says_who_wanted_what_and_is_bounded() {
        let text = format!("task: hello\nby: alice\nreason: {}\n", "x".repeat(2000));
        let order: Order = crate::domain::order::tests::order(&text);
        let fact = LedgerEntry::Activation {
            key: "hosts/db1/backup".parse().unwrap(),
            run: RunId::new(1, 1),
            identity: InstructionHash::new([0; 32]),
            index: 7,
            trigger: Trigger::Placed,
            at: Timestamp::UNIX_EPOCH,
        };
        let entry = Entry::of(&fact, |_| Some(&order)).unwrap();
        assert_eq!((entry.what.as_str(), entry.by.as_deref()), ("activation", Some("alice")));
        assert_eq!(entry.reason.as_deref().map(str::len), Some(MAX_LEN));
        let line = Line { n: 1, prev: String::new(), at: Timestamp::UNIX_EPOCH, entries: vec![entry] };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        assert!(json.len() < 1000, "{json}");
    }
}
