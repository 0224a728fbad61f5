//! What an earlier version wrote is read, and what a later one wrote is left alone.
//!
//! `fixtures/formats/1` holds what an agent of the first version wrote: its state folder, its orders and its reports.
//! It was made by running one, and is never changed once that version is released.
//! There is no second version yet: the same program poses as it, where its environment says so (`agent/src/domain/format.rs`).

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Vault, eventually};
use serde_json::{Value, json};

fn specimen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/formats/1")
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

/// The specimens have an order for half past two in the night: by how many seconds the clock of their host is ahead, so
/// that whatever the time is here, it is noon there, give or take what a test takes.
fn ahead_to_noon() -> i64 {
    static AHEAD: LazyLock<i64> = LazyLock::new(|| {
        let since_midnight = jiff::Timestamp::now().as_second().rem_euclid(86_400);
        (12 * 3600 - since_midnight).rem_euclid(86_400)
    });
    *AHEAD
}

/// The host of the specimen: its agent has not run yet.
fn specimen_host() -> Host {
    let host = Host::on_dir("specimen");
    host.counting_task("count", "once:x", "0");
    let from = specimen();
    copy(&from.join("state"), &host.path("state"));
    for place in ["hosts", "groups", "reports"] {
        copy(&from.join(place), &host.path("store/hostler").join(place));
    }
    fs::copy(from.join("store-index"), host.path("store/.index")).expect("a copy");
    host.set_clock(ahead_to_noon(), true);
    // The specimen is no machine's; what was fixed was fixed here.
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let identity = host.path("state/identity");
    let text = fs::read_to_string(&identity).expect("an identity").replace("MACHINE", machine.trim());
    fs::write(&identity, text).expect("an identity");
    host
}

/// From now on the host's agent is of the next release, or of this one again.
fn next_release(host: &mut Host, is_next: bool) {
    if is_next {
        host.set_env("HOSTLER_NEXT_FORMATS", "1");
    } else {
        host.unset_env("HOSTLER_NEXT_FORMATS");
    }
}

/// The host of the specimen, upgraded to the next release.
fn upgraded() -> Host {
    let mut host = specimen_host();
    next_release(&mut host, true);
    host
}

fn says(host: &Host, wanted: &str) {
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains(wanted) { Ok(()) } else { Err(format!("{report}; {}", host.log_tail())) }
    });
}

/// A task whose plans need the newest format: it wants the version before of a secret.
fn rotating_task(host: &Host, name: &str) {
    let secret = "{path: secret/data/app/rotated, field: password";
    let yaml = format!(
        "name: {name}\nversion: 2\ntimeout: 60s\nsecrets:\n  password: {secret}}}\n  \
         previous: {secret}, version: previous}}\nsteps:\n  - {{name: x, run: [./add]}}\n"
    );
    // The step has both.
    let add = "#!/bin/sh\nset -e\ncd \"$HOSTLER_SECRETS\"\ncat password previous > /dev/null\n\
               echo \"$HOSTLER_ORDER $HOSTLER_RUN x\" >> EFFECTS\n";
    host.task(name, &yaml, &[("add", add)]);
}

/// A Vault with what such a task wants.
fn rotating_vault() -> Vault {
    let vault = Vault::start();
    vault.put("app/rotated", json!({"password": "first-value"}));
    vault.put("app/rotated", json!({"password": "second-value"}));
    vault
}

/// The versions of the plans in the host's folders of runs, each with its order.
fn plans(host: &Host) -> Vec<(String, u64)> {
    let folders = fs::read_dir(host.path("state/runs")).expect("runs");
    let plans = folders.map(|folder| fs::read_to_string(folder.expect("a run").path().join("plan")));
    let version = |plan: Result<String, _>| {
        let plan: Value = serde_json::from_str(&plan.expect("a plan")).expect("JSON");
        (plan["order"].as_str().expect("an order").to_owned(), plan["version"].as_u64().expect("a version"))
    };
    plans.map(version).collect()
}

/// Types a command that has to succeed, and gives what it printed.
fn typed(host: &Host, words: &[&str]) -> String {
    let (status, text) = host.hostler(words);
    assert_eq!(status, 0, "{words:?}: {text}");
    text
}

/// Starts the agent on an order that it never saw, waits until it says what keeps it, and ends it.
fn starts_nothing(host: &mut Host, why: &str) {
    host.put("hostler/hosts/specimen/orders/fresh", "task: count\non_preexisting: run\n");
    host.start();
    says(host, why);
    host.stop();
    assert!(host.effects("fresh").is_empty() && host.effects("done").is_empty());
}

#[test]
fn what_version_1_wrote_is_read_and_goes_on() {
    let mut host = specimen_host();
    assert!(plans(&host).len() == 8 && plans(&host).iter().all(|(_, version)| *version == 1));
    let (version, kinds) = ledger(&host);
    assert!(version == 1 && kinds.contains("version"), "{kinds:?}");
    let vault = rotating_vault();
    for version in 0..9 {
        vault.put("app/watched", json!({"password": format!("value-{version}")}));
    }
    host.configure_vault(&vault, "secret_poll_interval: 1s");
    rotating_task(&host, "rotate");
    host.start();
    // What is known of the secret is remembered: a newer version is news, and no first sight.
    host.wait_until("watching", "the newest version", |report| {
        report["trigger"] == "secret 9 of secret/data/app/watched" && report["phase"] == "succeeded"
    });
    assert_eq!(host.effects("watching").len(), 1);
    for (order, phase) in [
        ("done", "succeeded"),
        ("held", "held repeated"),
        ("waits", "waiting"),
        ("nightly", "waiting"),
        ("keyed", "succeeded"),
        ("rotated", "succeeded"),
        ("stuck", "needs_operator"),
    ] {
        host.wait_for(order, &[phase]);
        assert!(host.effects(order).is_empty(), "{order} started again");
    }
    // A run that was left open is settled.
    host.order("fresh", "task: rotate");
    host.wait_for("fresh", &["succeeded"]);
    typed(&host, &["acknowledge", "stuck", "--host", "specimen", "--as", "done"]);
    host.wait_for("stuck", &["succeeded"]);
    // The memory is whole: what was carried out once is held as repeated after another instruction.
    host.order("done", "task: count\nrevision: two");
    host.wait_completed("done", 1);
    host.order("done", "task: count\nrevision: one");
    host.wait_for("done", &["held repeated"]);
    host.order("rotated", "task: rotate\nrevision: two");
    host.wait_completed("rotated", 1);
    assert!(!host.path("state/probation").exists());
    typed(&host, &["audit", "--verify"]);
    let text = typed(&host, &["runs", "-n", "50"]);
    assert!(text.matches("succeeded").count() >= 10 && !text.contains("unreadable"), "{text}");
}

#[test]
fn reports_of_version_1_are_read() {
    // No agent runs here: what is shown is what the specimen's agent wrote.
    let host = specimen_host();
    for (order, word) in [("done", "succeeded"), ("held", "hostler retry held"), ("waits", "2999-01-01")] {
        let (_, text) = host.hostler(&["status", order, "--host", "specimen"]);
        assert!(text.contains(word) && !text.contains("unreadable"), "{text}");
    }
    // As from afar, where there are no folders.
    fs::rename(host.path("state"), host.path("away")).expect("a folder");
    let text = typed(&host, &["runs", "--host", "specimen"]);
    assert!(text.contains("succeeded") && !text.contains("unreadable"), "{text}");
}

#[test]
fn a_report_of_a_newer_version_is_unknown_and_holds_its_order() {
    let mut host = specimen_host();
    // What a later version may have made of the same fields.
    let newer =
        "{\"version\": 2, \"phase\": {\"word\": \"succeeded\"}, \"run\": [\"01M86SX6WG50HQZCCXK3FHHERS\"]}";
    let key = |order: &str| format!("hostler/reports/orders/specimen/{order}");
    for order in ["done", "nightly"] {
        host.put(&key(order), newer);
    }
    let why = "the report has format 2, and this hostler knows 1";
    let (status, text) = host.hostler(&["status", "done", "--host", "specimen"]);
    assert!(status != 0 && text.contains(why), "{text}");
    let (status, text) = host.hostler(&["status", "--host", "specimen"]);
    assert!(status != 0 && text.contains(why), "{text}");
    // Somebody carried out more of these orders than this host remembers.
    host.put("hostler/hosts/specimen/orders/done", "task: count\nrevision: two");
    host.start();
    for order in ["done", "nightly"] {
        let report = host.wait_for(order, &["held ledger_behind"]);
        assert!(report["error"].as_str().unwrap_or_default().contains("after a downgrade"), "{report}");
    }
    host.order("fresh", "task: count");
    host.wait_for("fresh", &["succeeded"]);
    assert!(host.effects("done").is_empty());
    // It stays so after the report is one of this version's, until somebody has looked.
    host.stop();
    host.start();
    host.order("later", "task: count");
    host.wait_for("later", &["succeeded"]);
    host.wait_for("done", &["held ledger_behind"]);
    typed(&host, &["release", "done", "--host", "specimen"]);
    host.wait_for("done", &["succeeded"]);
    assert_eq!(host.effects("done").len(), 1);
}

#[test]
fn another_agent_of_a_newer_version_is_known_by_its_report() {
    let mut host = specimen_host();
    let newer = json!({
        "version": 2, "id": "another", "boot": "another", "machine": "m2", "next_report_by": "2999-01-01T00:00:00Z",
        "conditions": {"none": true}, "groups": 3,
    });
    host.put("hostler/reports/agents/specimen", &newer.to_string());
    let (_, text) = host.hostler(&["status"]);
    assert!(text.contains("the report has format 2, and this hostler knows 1"), "{text}");
    host.start();
    says(&host, "host name also used by machine m2");
    host.order("fresh", "task: count");
    let report = host.wait_for("fresh", &["waiting identity"]);
    assert!(report["message"].as_str().unwrap_or_default().contains("m2"), "{report}");
    assert!(host.effects("fresh").is_empty());
}

#[test]
fn a_run_of_a_newer_version_is_left_alone_and_nothing_starts_beside_it() {
    let mut host = specimen_host();
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    host.crash_at("prepared");
    host.order("fresh", "task: count");
    eventually(DEFAULT_TIMEOUT, || if host.is_up() { Err(host.log_tail()) } else { Ok(()) });
    let folders = fs::read_dir(host.path("state/runs")).expect("runs").flatten();
    let folder = folders.map(|folder| folder.path()).max().expect("a run");
    let (path, old) = (folder.join("plan"), fs::read_to_string(folder.join("plan")).expect("a plan"));
    // As a later version might have written it: what it locks, and how, only that one knows.
    let mut plan: Value = serde_json::from_str(&old).expect("JSON");
    plan["version"] = json!(2);
    plan["resources"] = json!({"everything": true});
    let newer = plan.to_string();
    fs::write(&path, &newer).expect("a plan");

    host.start();
    host.order("other", "task: count");
    let why = "its plan has format 2, and this program knows 1: install the newer hostler again";
    for order in ["fresh", "other"] {
        let report = host.wait_for(order, &["waiting rollback_window"]);
        assert!(report["message"].as_str().unwrap_or_default().contains(why), "{report}");
    }
    says(&host, "safe mode: run ");
    let (_, text) = host.hostler(&["runs"]);
    assert!(text.contains("unreadable") && text.contains("succeeded"), "{text}");
    host.stop();
    assert!(host.effects("fresh").is_empty() && host.effects("other").is_empty());
    let files: BTreeSet<_> =
        fs::read_dir(&folder).expect("the run").flatten().map(|e| e.file_name()).collect();
    assert_eq!(files, ["order", "plan"].map(Into::into).into());
    assert_eq!(fs::read_to_string(&path).expect("a plan"), newer);

    // The newer program, put back, finds its run and the task's copy; here the older one finds its own.
    fs::write(&path, old).expect("a plan");
    host.start();
    for order in ["fresh", "other"] {
        host.wait_for(order, &["succeeded"]);
        assert_eq!(host.effects(order).len(), 1);
    }
}

#[test]
fn a_ledger_of_a_newer_version_is_safe_mode_and_not_touched() {
    let mut host = specimen_host();
    let path = host.path("state/ledger");
    let old = fs::read_to_string(&path).expect("a ledger");
    let newer = "{\"ledger\":2}";
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
    let mut host = specimen_host();
    let path = host.path("state/ledger");
    let newer = "[{\"fact\":\"levitated\",\"key\":\"hosts/specimen/done\"}]";
    let mut text = fs::read_to_string(&path).expect("a ledger");
    text.push_str(&format!("{:08x} {newer}\n", crc32(newer.as_bytes())));
    fs::write(&path, text).expect("a ledger");
    starts_nothing(&mut host, "safe mode");
}

#[test]
fn an_identity_of_a_newer_version_starts_nothing() {
    let mut host = specimen_host();
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
    let mut host = upgraded();
    let carried_out = |host: &mut Host, order: &str| {
        host.start();
        host.order(order, "task: count");
        host.wait_for(order, &["succeeded"]);
    };
    carried_out(&mut host, "fresh");
    assert_eq!(ledger(&host).0, 1);
    // A restart does not lengthen the day; most of it is no day.
    host.stop();
    let since = fs::read(host.path("state/probation")).expect("the beginning of the day");
    host.set_clock(ahead_to_noon() + 23 * 3600, true);
    carried_out(&mut host, "later");
    assert_eq!(ledger(&host).0, 1);
    assert_eq!(fs::read(host.path("state/probation")).expect("it"), since);

    // The upgrade is taken back: the version before goes on as if nothing had been.
    host.stop();
    next_release(&mut host, false);
    carried_out(&mut host, "back");
    for order in ["fresh", "later", "done"] {
        host.wait_for(order, &["succeeded"]);
    }
    assert!(!host.path("state/probation").exists());

    // The next attempt has a day of its own, and then there is no way back.
    host.stop();
    next_release(&mut host, true);
    carried_out(&mut host, "again");
    assert_eq!(ledger(&host).0, 1);
    host.stop();
    host.set_clock(ahead_to_noon() + 48 * 3600, true);
    host.start();
    eventually(DEFAULT_TIMEOUT, || match (ledger(&host).0, host.path("state/probation").exists()) {
        (2, false) => Ok(()),
        other => Err(format!("{other:?}; {}; {}", host.agent_report().unwrap_or_default(), host.log_tail())),
    });
    let times = |order: &str| host.effects(order).len();
    assert_eq!(["fresh", "later", "back", "again", "done"].map(times), [1, 1, 1, 1, 0]);
    host.stop();
    next_release(&mut host, false);
    host.start();
    says(&host, "safe mode");
}

#[test]
fn for_a_day_after_an_upgrade_no_run_is_made_that_the_version_before_cannot_go_on_with() {
    let mut host = upgraded();
    let vault = rotating_vault();
    host.configure_vault(&vault, "secret_poll_interval: 1s");
    rotating_task(&host, "rotate");
    host.start();
    host.order("again", "task: count");
    host.wait_for("again", &["succeeded"]);
    host.order("anew", "task: rotate");
    let report = host.wait_until("anew", "until when", |report| {
        report["reason"] == "rollback_window" && report["until"].is_string()
    });
    // What waits, until when, and why, in one line.
    let until = report["until"].as_str().expect("an instant");
    let line = format!(
        "not started before {until}: its plan needs format 2, the version of hostler before this one reads 1, and until \
         then the upgrade can be taken back"
    );
    assert_eq!((&report["phase"], &report["message"]), (&json!("waiting"), &json!(line)));
    let (_, text) = host.hostler(&["status", "anew", "--host", "specimen"]);
    assert!(text.contains(&line), "{text}");
    // A task that was changed under an order, which somebody retries.
    rotating_task(&host, "count");
    typed(&host, &["retry", "again", "--host", "specimen"]);
    host.wait_for("again", &["waiting rollback_window"]);
    // And one that was changed while its order was only frozen.
    let freeze = "hostler/groups/all/freeze";
    host.put(freeze, r#"{"reason": "audit", "by": "carol"}"#);
    host.counting_task("thawed", "once:x", "0");
    host.order("thawed", "task: thawed");
    host.wait_for("thawed", &["waiting freeze"]);
    rotating_task(&host, "thawed");
    host.delete(freeze);
    host.wait_for("thawed", &["waiting rollback_window"]);
    host.counting_task("plain", "once:x", "0");
    host.order("plain", "task: plain");
    host.wait_for("plain", &["succeeded"]);

    host.stop();
    host.set_clock(ahead_to_noon() + 23 * 3600, true);
    host.start();
    host.order("later", "task: plain");
    host.wait_for("later", &["succeeded"]);
    for order in ["anew", "again", "thawed"] {
        host.wait_for(order, &["waiting rollback_window"]);
    }
    assert_eq!((host.effects("anew").len(), host.effects("again").len()), (0, 1));
    assert!(
        plans(&host).iter().all(|(_, version)| *version < 2) && ledger(&host).0 == 1,
        "{:?}",
        plans(&host)
    );

    // Nobody does anything: the day ends, and each is carried out once.
    host.set_clock(ahead_to_noon() + 25 * 3600, true);
    for (order, times) in [("anew", 1), ("again", 2), ("thawed", 1)] {
        host.wait_for(order, &["succeeded"]);
        assert_eq!(host.effects(order).len(), times, "{order}");
    }
    assert_eq!(ledger(&host).0, 2);
    // The night may have come as well meanwhile, with a task that was changed.
    let mut newest: Vec<_> = plans(&host).into_iter().filter(|(_, version)| *version == 2).collect();
    newest.retain(|(order, _)| order != "nightly");
    newest.sort();
    assert_eq!(newest.iter().map(|(order, _)| &**order).collect::<Vec<_>>(), ["again", "anew", "thawed"]);
}

#[test]
fn what_a_later_program_left_behind_shortens_no_day() {
    let mut host = specimen_host();
    // Another release began a day here, and the host is back at one whose own format the ledger has.
    fs::write(host.path("state/probation"), "{\"program\":\"9.9.9\",\"since\":\"2000-01-01T00:00:00Z\"}")
        .expect("it");
    host.start();
    host.order("fresh", "task: count");
    host.wait_for("fresh", &["succeeded"]);
    assert!(!host.path("state/probation").exists());
}

#[test]
fn a_host_that_is_new_begins_with_the_newest_format() {
    let mut host = Host::on_dir("new");
    next_release(&mut host, true);
    host.counting_task("count", "once:x", "0");
    let vault = rotating_vault();
    host.configure_vault(&vault, "");
    rotating_task(&host, "rotate");
    host.start();
    for (order, task) in [("fresh", "count"), ("rotated", "rotate")] {
        host.order(order, &format!("task: {task}"));
        host.wait_for(order, &["succeeded"]);
    }
    assert_eq!(ledger(&host).0, 2);
    assert!(plans(&host).contains(&("rotated".to_owned(), 2)));
    assert!(!host.path("state/probation").exists());
}
