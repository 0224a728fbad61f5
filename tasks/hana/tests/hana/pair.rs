//! Two hosts that replicate: `enable`, `register`, `takeover`, and an update near zero downtime.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};

use std::os::unix::fs::PermissionsExt;

use hostler_testkit::{Host as Agent, eventually};
use serde_json::json;

use crate::agent::{LONG, install, order};
use crate::played::{Played, until};

const STORE: [&str; 2] = ["data/SSFS_HDB.DAT", "key/SSFS_HDB.KEY"];

/// Two hosts that know each other, each with the system HDB in 2.00.077.00.
pub(crate) fn two() -> (Played, Played) {
    let (one, two) = (Played::new("h1"), Played::new("h2"));
    for (host, name, other, of_other) in [(&one, "h1", "h2", &two), (&two, "h2", "h1", &one)] {
        let peer = format!("{other}={}", of_other.root());
        host.own(&["install", &host.root(), "--host", name, "--factor", "0.001", "--peer", &peer]);
        let answer = host.run(&["--number", "00", "install", "--media", "/media/2.00.077.00"]);
        assert_eq!(answer.code(), 0, "{}", answer.err());
        host.key("HOSTLER", "localhost:30013");
        host.key("OTHER", &format!("{other}:30013"));
    }
    (one, two)
}

pub(crate) fn run(host: &Played, name: &str, arguments: &[&str]) -> (i32, String) {
    let answer = host.run(&[&["--hostname", name], arguments].concat());
    (answer.code(), answer.err())
}

const DONE: (i32, String) = (0, String::new());

/// Makes the first host the primary and the second its secondary, and waits until that follows.
pub(crate) fn replicate(one: &Played, two: &Played) {
    one.sql("HDB", "CREATE TABLE T (N INTEGER)");
    one.sql("HDB", "INSERT INTO T VALUES (1)");
    assert_eq!(one.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
    assert_eq!(run(one, "h1", &["enable", "--site", "EAST"]), DONE);
    assert_eq!(run(one, "h1", &["enable", "--site", "EAST"]), DONE);
    let register = ["register", "--primary-key", "OTHER", "--site", "WEST"];
    // The secure store is another one: without the secrets nothing is guessed.
    let (code, why) = run(two, "h2", &register);
    assert!(code == 6 && why.contains("the secure store is not that of the primary"), "{why}");
    for (file, secret) in STORE.iter().zip(["ssfs_data", "ssfs_key"]) {
        let bytes = fs::read(one.path(&format!("/usr/sap/HDB/SYS/global/security/rsecssfs/{file}"))).unwrap();
        fs::write(two.path(&format!("secrets/{secret}")), BASE64_STANDARD.encode(bytes)).unwrap();
    }
    assert_eq!(run(two, "h2", &register), DONE);
    assert_eq!(run(one, "h1", &["enable", "--site", "EAST", "--wait", "60s"]), DONE);
    assert_eq!(run(two, "h2", &register), DONE, "a repetition changes nothing");
}

#[test]
fn there_are_never_two_primaries() {
    let (one, two) = two();
    replicate(&one, &two);
    let takeover = |run_id| ["takeover", "--primary-key", "OTHER", "--run", run_id];
    assert_eq!(run(&two, "h2", &["takeover", "--probe"]).0, 1);
    // A secondary that is behind does not take over.
    one.fault("replication-status 14");
    let (code, why) = run(&two, "h2", &takeover("T1"));
    assert!(code == 6 && why.contains("is not active"), "{why}");
    one.fault("");
    // A primary that cannot be asked is no lost primary.
    two.fault("hdbsql-refuses");
    assert_eq!(run(&two, "h2", &takeover("T1")).0, 4);
    two.fault("");
    assert_eq!(run(&two, "h2", &["takeover", "--run", "T1"]).0, 2, "nobody said which");
    // The key leads to this host, or the host has another name.
    assert_eq!(run(&two, "h2", &["takeover", "--primary-key", "HOSTLER", "--run", "T1"]).0, 4);
    assert_eq!(run(&two, "h9", &takeover("T1")).0, 6);
    // The primary itself takes nothing over, and has nothing to do.
    assert_eq!(run(&one, "h1", &["takeover", "--primary-key", "OTHER", "--run", "T1"]), DONE);
    assert!(!two.calls().contains("-sr_takeover") && !one.calls().contains("-sr_takeover"));
    // A primary that rules is not made a secondary, and Pacemaker would act against a takeover.
    let (code, why) = run(&one, "h1", &["register", "--primary-key", "OTHER", "--site", "EAST"]);
    assert!(code == 4 && why.contains("-10709"), "a secondary answers nobody: {why}");
    for (file, text) in [("cmdline", "pacemakerd\0"), ("comm", "pacemakerd\n")] {
        fs::create_dir_all(two.path("/proc/815")).unwrap();
        fs::write(two.path("/proc/815").join(file), text).unwrap();
    }
    let (code, why) = run(&two, "h2", &takeover("T1"));
    assert!(code == 6 && why.contains("Pacemaker"), "{why}");
    fs::remove_dir_all(two.path("/proc/815")).unwrap();
    // It dies with the primary suspended; the same run goes on, another one is not sure.
    two.fault("crash*1 replication.suspended");
    assert_eq!(run(&two, "h2", &takeover("T1")).0, 5);
    assert_eq!(run(&two, "h2", &takeover("T2")).0, 4, "the primary answers nobody");
    let calls = two.calls();
    assert_eq!(run(&two, "h2", &["takeover", "--finish", "--run", "T2"]), DONE, "it has begun nothing");
    let takeovers = |calls: &str| calls.matches("-sr_takeover").count();
    assert_eq!(takeovers(&two.calls()), takeovers(&calls));
    assert_eq!(run(&two, "h2", &takeover("T1")), DONE);
    assert_eq!(run(&two, "h2", &["takeover", "--probe"]).0, 0);
    assert_eq!(two.rows(), "1");
    // The former primary comes back as a secondary, once the address has moved.
    assert_eq!(run(&one, "h1", &["register", "--primary-key", "OTHER", "--site", "EAST"]), DONE);
    assert_eq!(run(&two, "h2", &["enable", "--site", "WEST", "--wait", "60s"]), DONE);
    let (code, why) = run(&one, "h1", &["restore", "--run", "R1", "--to", "latest", "--from", "file"]);
    assert!(code == 6 && why.contains("secondary is filled by replication"), "{why}");
    // The primary is lost.
    two.tool("/usr/sap/HDB/HDB00/HDB", &["kill"], "");
    until("it is down", || two.sapcontrol("GetProcessList") == Some(4));
    assert_eq!(run(&one, "h1", &["takeover", "--primary-lost", "--run", "T3"]), DONE);
    assert_eq!(one.rows(), "1");
    // The lost one comes back, and rules as well: it is stopped by nobody but an operator.
    assert_eq!(two.sapcontrol("StartWait 180 2"), Some(0));
    let (code, why) = run(&two, "h2", &["register", "--primary-key", "OTHER", "--site", "WEST"]);
    assert!(code == 6 && why.contains("stop this one first"), "{why}");
    assert_eq!(run(&two, "h2", &["stop"]), DONE);
    assert_eq!(run(&two, "h2", &["register", "--primary-key", "OTHER", "--site", "WEST"]), DONE);
    assert_eq!(run(&one, "h1", &["enable", "--site", "EAST", "--wait", "60s"]), DONE);
}

#[test]
fn the_address_is_moved_by_the_administrators_program() {
    let (one, two) = two();
    replicate(&one, &two);
    let hook = two.path("/etc/hostler/hana.d/move-address");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let moved = two.path("moved");
    fs::write(&hook, format!("#!/bin/sh\necho \"$*\" >>{}\n", moved.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).unwrap();
    let takeover = ["takeover", "--primary-key", "OTHER", "--run", "T1"];
    let (code, why) = run(&two, "h2", &takeover);
    assert!(code == 6 && why.contains("writable by nobody else"), "{why}");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&two, "h2", &takeover), DONE);
    assert_eq!(fs::read_to_string(&moved).unwrap(), "HDB h2\n");
}

/// It dies with the primary suspended: its guard goes on, and the address moves.
#[test]
fn a_takeover_that_dies_is_ended_by_its_guard() {
    let (one, two) = two();
    replicate(&one, &two);
    let moved = two.path("moved");
    let hook = two.path("/etc/hostler/hana.d/move-address");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\necho \"$*\" >>{}\n", moved.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut host = Agent::on_dir("db2");
    install(&host, &two);
    host.start();
    two.fault("crash*1 replication.suspended");
    let params = json!({"sid": "HDB", "hostname": "h2", "primary_key": "OTHER"});
    let report = order(&host, "takeover", "hana-takeover", params.clone(), "needs_operator");
    eventually(LONG, || {
        if two.run(&["takeover", "--probe"]).code() == 0 { Ok(()) } else { Err("no primary".to_owned()) }
    });
    eventually(LONG, || match fs::read_to_string(&moved) {
        Ok(moved) if moved == "HDB h2\n" => Ok(()),
        other => Err(format!("{other:?}; {report}")),
    });
    assert_eq!(two.rows(), "1");
}

/// The six commands of the guide, with a writer that counts: no row is lost, and only the takeover is felt.
#[test]
fn a_pair_is_updated_with_the_downtime_of_a_takeover() {
    let (one, two) = two();
    replicate(&one, &two);
    let mut rows = vec![1];
    let mut write = |host: &Played, row: u32| {
        host.sql("HDB", &format!("INSERT INTO T VALUES ({row})"));
        rows.push(row);
    };
    let update = ["update", "--media", "/media/2.00.079.00"];
    let former = [&update[..], &["--no-start"]].concat();
    write(&one, 2);
    assert_eq!(run(&two, "h2", &update), DONE);
    write(&one, 3);
    assert_eq!(run(&one, "h1", &["enable", "--site", "EAST", "--wait", "60s"]), DONE);
    write(&one, 4);
    assert_eq!(run(&two, "h2", &["takeover", "--primary-key", "OTHER", "--run", "T1"]), DONE);
    write(&two, 5);
    // An older system does not follow a newer one.
    let register = ["register", "--primary-key", "OTHER", "--site", "EAST"];
    let (code, why) = run(&one, "h1", &register);
    assert!(code == 6 && why.contains("update this one first"), "{why}");
    assert_eq!(run(&one, "h1", &[&former[..], &["--prepare"]].concat()), DONE);
    assert_eq!(run(&one, "h1", &former), DONE);
    write(&two, 6);
    assert_eq!(run(&one, "h1", &register), DONE);
    assert_eq!(run(&two, "h2", &["enable", "--site", "WEST", "--wait", "60s"]), DONE);
    write(&two, 7);
    // Back again, and every row is there.
    // The new primary has no backup of its own yet.
    let back = ["takeover", "--primary-key", "OTHER", "--run", "T2"];
    let (code, why) = run(&one, "h1", &back);
    assert!(code == 6 && why.contains("no complete backup; place the order"), "{why}");
    assert_eq!(run(&one, "h1", &[&back[..], &["--require-backup", "0s"]].concat()), DONE);
    let all: Vec<_> = rows.iter().map(u32::to_string).collect();
    assert_eq!(one.rows(), all.join(" "));
    for host in [&one, &two] {
        let manifest = fs::read_to_string(host.path("/usr/sap/HDB/HDB00/exe/manifest")).unwrap();
        assert!(manifest.contains("2.00.079.00"), "{manifest}");
    }
}
