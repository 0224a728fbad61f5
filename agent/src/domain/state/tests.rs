//! Facts add up to the same live, read again and compacted, also those of a former program.

use super::*;
use crate::domain::ids::{InstructionHash, RunId};
use crate::domain::plan::Trigger;

fn identity(n: u8) -> InstructionHash {
    InstructionHash::new([n; 32])
}

fn activation(n: u8, index: u64) -> LedgerEntry {
    LedgerEntry::Activation {
        key: key(),
        run: RunId::new(u64::from(n), 1),
        identity: identity(n),
        index,
        trigger: Trigger::Placed,
        at: Timestamp::UNIX_EPOCH,
    }
}

fn key() -> OrderKey {
    "hosts/db1/backup".parse().unwrap()
}

#[test]
fn a_compacted_ledger_says_the_same() {
    let mut memory = LedgerState::default();
    let run = RunId::new(1, 1);
    let order: Name = "backup".parse().unwrap();
    memory.apply(LedgerEntry::EffectiveSource {
        order,
        source: Some("hosts/db1".parse().unwrap()),
        index: None,
    });
    let order: Name = "gone".parse().unwrap();
    let source = Some("groups/all".parse().unwrap());
    memory.apply(LedgerEntry::EffectiveSource { order: order.clone(), source, index: None });
    memory.apply(LedgerEntry::EffectiveSource { order, source: None, index: Some(7) });
    assert_eq!(memory.left.len(), 1);
    memory.apply(activation(1, 5));
    memory.apply(LedgerEntry::Prepared { key: key(), run });
    memory.apply(activation(2, 7));
    let at = Timestamp::UNIX_EPOCH;
    let held = Held { why: Hold::Repeated, identity: identity(1), index: 9, at };
    memory.apply(LedgerEntry::Held { key: key(), held });
    let unread = ["groups/a", "groups/b"].map(|source| source.parse().unwrap()).into();
    memory.apply(LedgerEntry::HostJoined { at, unread });
    memory.apply(LedgerEntry::FirstRead { source: "groups/a".parse().unwrap() });
    assert_eq!(memory.unread_sources.len(), 1);
    let mut again = LedgerState::default();
    for fact in memory.facts() {
        let json = serde_json::to_string(&fact).unwrap();
        again.apply(serde_json::from_str(&json).unwrap());
    }
    assert_eq!(again, memory);
    assert!(memory.orders[&key()].had(identity(1)) && !memory.orders[&key()].had(identity(2)));
}

/// Lines as they stand in a file: each word of them is a promise to later programs.
#[test]
fn facts_are_read_as_they_stand_in_a_file() {
    let identity = identity(7);
    let lines = [
        format!(
            r#"{{"fact":"order_snapshot","key":"hosts/db1/backup","order":{{"last":"{identity}","index":5,"older":[],"held":null,"unreadable":null,"current":null,"previous":null,"gone":null}}}}"#
        ),
        format!(
            r#"{{"fact":"activation","key":"hosts/db1/backup","run":"{}","identity":"{identity}","index":6,"trigger":"placed","at":"2026-11-20T00:00:00Z"}}"#,
            RunId::new(1, 1)
        ),
        r#"{"fact":"schedule_armed","key":"hosts/db1/backup","terms":"30 2 * * * UTC","at":"2026-11-21T00:00:00Z"}"#.to_owned(),
        r#"{"fact":"firings_skipped","key":"hosts/db1/backup","until":"2026-11-21T02:30:00Z","missed":1,"overlaps":0,"at":"2026-11-22T00:00:00Z"}"#.to_owned(),
    ];
    let mut memory = LedgerState::default();
    for line in lines {
        memory.apply(serde_json::from_str(&line).unwrap());
    }
    let order = &memory.orders[&key()];
    assert_eq!((order.last, order.index, order.recurrence.missed), (Some(identity), 6, 1));
    assert_eq!(order.recurrence.handled.unwrap().to_string(), "2026-11-21T02:30:00Z");
    // What comes again nowhere is written as it was.
    let json = serde_json::to_string(&OrderState::default()).unwrap();
    assert!(!json.contains("recurrence"), "{json}");
    for trigger in ["placed", "firing 2026-11-21T02:30:00Z", "drift 3", "secret 4 of kv/data/a b of c"] {
        assert_eq!(String::from(Trigger::try_from(trigger.to_owned()).unwrap()), trigger);
    }
    for none in ["firing soon", "secret 4", "secret four of kv/data/a"] {
        assert!(Trigger::try_from(none.to_owned()).is_err(), "{none}");
    }
}

#[test]
fn the_older_run_keeps_its_place_until_it_is_closed() {
    let mut memory = LedgerState::default();
    memory.apply(activation(1, 1));
    memory.apply(LedgerEntry::Prepared { key: key(), run: RunId::new(1, 1) });
    for n in 2..200 {
        memory.apply(activation(n, u64::from(n)));
    }
    let order = &memory.orders[&key()];
    assert_eq!(order.previous.as_ref().unwrap().run, RunId::new(1, 1));
    assert_eq!(order.current.as_ref().unwrap().run, RunId::new(199, 1));
    let closing = Closing { end: End::Succeeded, error: None, at: Timestamp::UNIX_EPOCH, run: None };
    memory.apply(LedgerEntry::Closed { key: key(), run: RunId::new(1, 1), closing });
    assert!(memory.orders[&key()].previous.is_none());
}

#[test]
fn no_more_than_a_thousand_identities_are_kept() {
    let mut memory = LedgerState::default();
    for n in 0..1500_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let LedgerEntry::Activation { key, run, trigger, at, .. } = activation(1, 1) else { unreachable!() };
        let index = u64::from(n);
        memory.apply(LedgerEntry::Activation {
            key,
            run,
            identity: InstructionHash::new(bytes),
            index,
            trigger,
            at,
        });
    }
    assert_eq!(memory.orders[&key()].older.len(), MAX_IDENTITIES);
}
