//! What an earlier version wrote is read, and what a later one wrote is left alone.
//!
//! `fixtures/formats/<version>` holds what an agent of that version wrote: its state folder, its orders and its reports.
//! It was made by running one, and is never changed.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hostler_testkit::{Host, SOON, Vault, eventually};
use serde_json::{Value, json};

fn specimen(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/formats/{version}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}

/// A host that was upgraded from this version: its agent has not run yet.
fn upgraded(version: u32) -> Host {
    let host = Host::on_dir("specimen");
    host.counting_task("count", "once:x", "0");
    let from = specimen(version);
    copy(&from.join("state"), &host.path("state"));
    for place in ["orders", "reports"] {
        copy(&from.join(place), &host.path("store/hostler").join(place));
    }
    fs::copy(from.join("store-index"), host.path("store/.index")).expect("a copy");
    // The specimen is no machine's; what was fixed was fixed here.
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let identity = host.path("state/identity");
    let text = fs::read_to_string(&identity).expect("an identity").replace("MACHINE", machine.trim());
    fs::write(&identity, text).expect("an identity");
    host
}

fn says(host: &Host, wanted: &str) {
    eventually(SOON, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains(wanted) { Ok(()) } else { Err(format!("{report}; {}", host.log_tail())) }
    });
}

/// Starts the agent on an order that it never saw, waits until it says what keeps it, and ends it.
fn starts_nothing(host: &mut Host, why: &str) {
    host.put("hostler/orders/hosts/specimen/fresh", "task: count\non_join: run\n");
    host.start();
    says(host, why);
    host.stop();
    assert!(host.effects("fresh").is_empty() && host.effects("done").is_empty());
}

#[test]
fn what_version_1_wrote_is_read_and_goes_on() {
    let mut host = upgraded(1);
    host.start();
    host.order("fresh", "task: count");
    host.wait_for("fresh", &["succeeded"]);
    for (order, phase) in
        [("done", "succeeded"), ("held", "held repeated"), ("waits", "waiting"), ("nightly", "waiting")]
    {
        host.wait_for(order, &[phase]);
        assert!(host.effects(order).is_empty(), "{order} started again");
    }
    // The memory is whole: what was carried out once is held as repeated after another instruction.
    host.order("done", "task: count\nrevision: two");
    host.wait_until("done", "carried out", |report| {
        report["phase"] == "succeeded" && host.effects("done").len() == 1
    });
    host.order("done", "task: count\nrevision: one");
    host.wait_for("done", &["held repeated"]);
    let (status, text) = host.hostler(&["audit", "--verify"]);
    assert_eq!(status, 0, "{text}");
    let (status, text) = host.hostler(&["runs", "-n", "50"]);
    assert!(status == 0 && text.matches("succeeded").count() == 5, "{text}");
    let oldest = fs::read_dir(specimen(1).join("state/runs")).expect("runs").count();
    assert_eq!(oldest, 3);
}

#[test]
fn a_ledger_of_a_newer_version_is_safe_mode_and_not_touched() {
    let mut host = upgraded(1);
    let path = host.path("state/ledger");
    let old = fs::read_to_string(&path).expect("a ledger");
    let newer = "{\"ledger\":3}";
    let (_, rest) = old.split_once('\n').expect("a first line");
    let text = format!("{:08x} {newer}\n{rest}", crc32(newer.as_bytes()));
    fs::write(&path, &text).expect("a ledger");
    starts_nothing(&mut host, "safe mode");
    assert_eq!(fs::read_to_string(&path).expect("a ledger"), text);
    // The newer program, put back, finds it as it was; here the older one finds its own.
    fs::write(&path, old).expect("a ledger");
    host.start();
    host.wait_for("fresh", &["succeeded"]);
    assert!(host.effects("done").is_empty());
}

#[test]
fn an_unknown_fact_in_the_ledger_is_safe_mode() {
    let mut host = upgraded(1);
    let path = host.path("state/ledger");
    let newer = "[{\"fact\":\"levitated\",\"key\":\"hosts/specimen/done\"}]";
    let mut text = fs::read_to_string(&path).expect("a ledger");
    text.push_str(&format!("{:08x} {newer}\n", crc32(newer.as_bytes())));
    fs::write(&path, text).expect("a ledger");
    starts_nothing(&mut host, "safe mode");
}

#[test]
fn an_identity_of_a_newer_version_starts_nothing() {
    let mut host = upgraded(1);
    let path = host.path("state/identity");
    let newer = fs::read_to_string(&path).expect("an identity").replace("\"version\": 1", "\"version\": 2");
    fs::write(&path, &newer).expect("an identity");
    starts_nothing(&mut host, "its version 2 is not 1");
    assert_eq!(fs::read_to_string(&path).expect("an identity"), newer);
}

/// As the record files have it, computed by the plain definition.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// The facts that a program of version 1 knows; over any other it goes to safe mode.
const KNOWN_TO_1: [&str; 22] = [
    "occasion",
    "taken",
    "stands",
    "rests",
    "passed",
    "confirmed",
    "settled",
    "clock",
    "index",
    "held",
    "unreadable",
    "prepared",
    "voided",
    "closed",
    "gone",
    "effective",
    "acted",
    "asked",
    "rebased",
    "joined",
    "forgotten",
    "whole",
];

/// The version of the host's ledger, and the kinds of facts in it.
fn ledger(host: &Host) -> (u64, BTreeSet<String>) {
    let text = fs::read_to_string(host.path("state/ledger")).expect("a ledger");
    // Before each record stands its checksum.
    let records = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, record)| record);
    let records = records.map(|record| serde_json::from_str::<Value>(record).expect("a record"));
    let mut version = 0;
    let mut kinds = BTreeSet::new();
    for record in records {
        match &record {
            Value::Array(facts) => {
                kinds.extend(facts.iter().filter_map(|fact| fact["fact"].as_str()).map(str::to_owned))
            }
            header => version = header["ledger"].as_u64().expect("a version"),
        }
    }
    (version, kinds)
}

#[test]
fn for_a_day_after_an_upgrade_the_version_before_can_read_everything() {
    let mut host = upgraded(1);
    let vault = Vault::start();
    vault.put("app/watched", json!({"password": "first-value"}));
    host.configure_vault(&vault, "watch_every: 1s");
    host.set_clock(0, true);
    host.start();
    host.order("fresh", "task: count");
    host.wait_for("fresh", &["succeeded"]);
    // What the former format cannot say waits, and that is told.
    host.order("watching", "task: count\non_secret_change: ['secret/data/app/watched#password']\n");
    says(&host, "until then this upgrade can be taken back");
    let (version, kinds) = ledger(&host);
    let known: BTreeSet<String> = KNOWN_TO_1.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(version, 1);
    assert!(kinds.is_subset(&known), "{kinds:?}");

    // A restart does not lengthen the day; most of it is no day.
    host.stop();
    host.set_clock(23 * 3600, true);
    host.start();
    // Its store and its ledger are in order again when it has done something.
    host.order("later", "task: count");
    host.wait_for("later", &["succeeded"]);
    says(&host, "until then this upgrade can be taken back");
    assert_eq!(ledger(&host).0, 1);

    host.stop();
    host.set_clock(25 * 3600, true);
    host.start();
    eventually(SOON, || match ledger(&host) {
        (2, kinds) if kinds.contains("version") => Ok(()),
        other => Err(format!("{other:?}; {}; {}", host.agent_report().unwrap_or_default(), host.log_tail())),
    });
    assert!(!host.path("state/probation").exists());
    // And now it does what only the new format can say.
    assert_eq!(host.effects("watching").len(), 1);
    vault.put("app/watched", json!({"password": "second-value"}));
    host.wait_until("watching", "the new version", |report| {
        report["cause"] == "secret 2 of secret/data/app/watched" && report["phase"] == "succeeded"
    });
    assert_eq!(host.effects("watching").len(), 2);
}

#[test]
fn a_host_that_is_new_begins_with_the_newest_format() {
    let mut host = Host::on_dir("new");
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("fresh", "task: count");
    host.wait_for("fresh", &["succeeded"]);
    assert_eq!(ledger(&host).0, 2);
    assert!(!host.path("state/probation").exists());
}
