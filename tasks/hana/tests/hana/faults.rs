//! Faults of a system and of its host: each is named, nothing rests on a guess, and when it is over the work goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::pair::{replicate, two};
use crate::played::Played;

#[test]
fn each_fault_is_named_and_passes() {
    let played = Played::with_system("h1");
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    let backup = |run: &str| played.run(&["backup", "--run", run, "--to", "file"]);
    // The statement succeeds, and the catalog knows nothing of the tenant.
    played.fault("tenant-not-in-backup HDB");
    let answer = backup("B1");
    assert!(answer.code() == 5 && answer.err().contains("no backup of HDB"), "{}", answer.err());
    // The disk of the backups is full.
    played.fault("disk-full /usr/sap/HDB/HDB00/backup");
    let answer = backup("B2");
    assert!(answer.code() == 4 && answer.err().contains("SQL error 447"), "{}", answer.err());
    played.fault("");
    assert_eq!(backup("B2").code(), 0);
    // With an expired license nothing is updated.
    played.fault("license-expired");
    let update = ["update", "--media", "/media/2.00.079.00"];
    let answer = played.run(&update);
    assert!(answer.code() == 6 && answer.err().contains("license"), "{}", answer.err());
    assert!(!played.calls().contains("--action=update"));
    // Without an answer of sapstartsrv nothing is known of the processes; the rest is.
    played.fault("sapstartsrv-hangs");
    let fact = played.run_of_host(&["fact"]).json()["systems"]["HDB"].clone();
    assert!(fact["running"].is_null() && fact["unclear"].to_string().contains("processes"), "{fact}");
    assert_eq!(fact["tenants"], json!(["HDB"]), "{fact}");
    played.fault("");
    assert_eq!(played.rows(), "1");
}

/// What the host agent lists without its being there is no system, and nothing is begun beside it.
#[test]
fn a_stale_instance_is_no_installation() {
    let played = Played::new("h1");
    played.fault("stale-instance HDB 00");
    let install = ["--number", "00", "install", "--media", "/media/2.00.077.00"];
    assert_eq!(played.run(&[&install[..], &["--probe"]].concat()).code(), 1);
    let answer = played.run(&install);
    assert!(answer.code() == 6 && !played.calls().contains("--action=install"), "{}", answer.err());
    played.fault("");
    assert_eq!(played.run(&install).code(), 0);
}

/// Whatever keeps a secondary behind, and whatever its primary does not say, it does not become a primary.
#[test]
fn no_status_but_active_allows_a_takeover() {
    let (one, two) = two();
    replicate(&one, &two);
    let takeover = ["--hostname", "h2", "takeover", "--primary-key", "OTHER", "--run", "T1"];
    for status in ["11", "12", "13", "14"] {
        one.fault(&format!("replication-status {status}"));
        let answer = two.run(&takeover);
        assert!(answer.code() == 6 && answer.err().contains("is not active"), "{status}: {}", answer.err());
        let answer = one.run(&["enable", "--site", "EAST", "--wait", "0s"]);
        assert!(answer.code() == 1 && answer.err().contains("not active"), "{status}: {}", answer.err());
    }
    one.fault("");
    assert!(!two.calls().contains("-sr_takeover"));
    // A lost primary's users are led here first: where that fails, this host does not rule.
    let hook = two.path("/etc/hostler/hana.d/move-address");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let write = |body: &str| {
        fs::write(&hook, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("exit 1");
    let lost = ["--hostname", "h2", "takeover", "--primary-lost", "--run", "T2"];
    let answer = two.run(&lost);
    assert!(answer.code() == 4 && answer.err().contains("move-address ended with 1"), "{}", answer.err());
    assert_eq!((two.run(&["takeover", "--probe"]).code(), two.calls().contains("-sr_takeover")), (1, false));
    let moved = two.path("moved");
    write(&format!(
        "grep -c sr_takeover {} >>{}; true",
        two.path("/.hana-standins/calls").display(),
        moved.display()
    ));
    let answer = two.run(&lost);
    assert_eq!((answer.code(), two.run(&["takeover", "--probe"]).code()), (0, 0), "{}", answer.err());
    assert_eq!(fs::read_to_string(&moved).unwrap(), "0\n", "the address has moved before the takeover");
}

/// With a process that is not up nothing is updated, and the process is named.
#[test]
fn an_update_says_which_process_is_not_up() {
    let played = Played::with_system("h1");
    assert_eq!(played.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
    played.fault("process-yellow hdbindexserver");
    let update = ["update", "--media", "/media/2.00.079.00"];
    let answer = played.run(&update);
    assert!(answer.code() == 6 && answer.err().contains("hdbindexserver is Yellow"), "{}", answer.err());
    assert!(!played.calls().contains("--action=update"));
    played.fault("");
    let answer = played.run(&update);
    assert_eq!(answer.code(), 0, "{}", answer.err());
}
