//! `backup`: what may be called one, what is kept, and what a death leaves.

use std::fs;
use std::process::Command;
use std::thread;

use hostler_postgres::crash::CrashPoint;
use serde_json::Value;

use crate::kit::{json, output, own};
use crate::store::{ID, Store};

/// Makes a backup; its stamp.
#[track_caller]
pub(crate) fn back_up(store: &Store) -> String {
    let (status, stamp, said) = output(&mut store.at(&["backup", "run"], &["--cluster", store.lab.name()]));
    assert_eq!(status, 0, "{said}");
    stamp.trim().to_owned()
}

#[track_caller]
fn refused(store: &Store, words: &[&str], status: i32, why: &str) {
    let all: Vec<_> = ["--cluster", store.lab.name(), "--wait", "4"].iter().chain(words).copied().collect();
    let (ended, _, said) = output(&mut store.at(&["backup", "run"], &all));
    assert!(ended == status && said.contains(why), "{status} {why}: {ended} {said}");
    assert_eq!(store.names(&format!("{ID}/backup/")).len(), 0, "there is no backup");
}

fn list(store: &Store) -> (i32, Value) {
    json(&mut store.at(&["backup", "list"], &["--json"]))
}

/// Ends the program at a point.
#[track_caller]
fn killed(store: &Store, point: CrashPoint, command: &[&str], words: &[&str]) {
    let wish = store.lab.path("wish");
    fs::write(&wish, point.name()).expect("a wish");
    let (status, _, said) = output(store.at(command, words).env("HOSTLER_CRASH_FILE", &wish));
    assert_eq!(status, -1, "{}: {said}", point.name());
    assert!(!wish.exists());
}

/// What an upgrade says of the backups under a name; its other findings are none of this.
#[track_caller]
fn required(store: &Store, when: &str, id: &str, finding: Option<&str>) {
    let config = store.lab.path("depot.yml").display().to_string();
    let words =
        ["upgrade", "check", "--json", "--cluster", store.lab.name(), "--to", "16", "--backup-id", id];
    let (_, report) = json(&mut store.program(&[&words[..], &["--depot-config", &config]].concat()));
    let findings = report["findings"].as_array().expect("findings");
    let whats = findings.iter().filter_map(|finding| finding["what"].as_str());
    let said: Vec<_> = whats.filter(|what| what.contains("backup")).collect();
    let fits = said.iter().zip(finding).all(|(what, finding)| what.starts_with(finding));
    assert!(fits && said.is_empty() == finding.is_none(), "{when}: {said:?}");
}

fn made_kept_and_let_go(version: u16) {
    let store = Store::new();
    let port = store.cluster(version, "");
    store.lab.sql(port, "postgres", "create table t as select generate_series(1, 30000) as i");
    let first = back_up(&store);
    let system = store.system(port);
    for what in ["base", "manifest", "conf", "backup"] {
        assert_eq!(store.names(&format!("{ID}/{what}/")), [format!("{ID}/{what}/{first}")]);
    }
    let (status, backups) = list(&store);
    assert_eq!((status, backups[0]["good"].as_bool()), (0, Some(true)), "{backups}");
    let record = &backups[0]["backup"];
    assert_eq!((record["system"].as_str(), record["timeline"].as_u64()), (Some(system.as_str()), Some(1)));
    required(&store, "it is not older than a day", ID, None);
    required(&store, "there is no backup of this name", "another", Some("there is no good backup"));
    // The depot's own rules leave it alone.
    let mut depot = Command::new(store.lab.path("bin/hostler-depot"));
    depot.arg("--config").arg(store.lab.path("depot.yml")).args(["--json", "prune", "--dry-run"]);
    let (status, said, _) = output(&mut depot);
    assert!(status == 0 && !said.contains(&first), "{said}");
    // Killed in between: no backup, and the next one is.
    for point in [CrashPoint::BaseStored, CrashPoint::BackupProved] {
        killed(&store, point, &["backup", "run"], &["--cluster", store.lab.name()]);
        assert_eq!(list(&store).1.as_array().map(Vec::len), Some(1), "{}", point.name());
    }
    store.lab.sql(port, "postgres", "insert into t select generate_series(1, 30000)");
    store.switch(port);
    let second = back_up(&store);
    let after = store.switch(port);
    let wal = || store.names(&format!("{ID}.wal/{system}/"));
    let prune = |words: &[&str]| output(&mut store.at(&["backup", "prune"], words));
    assert_eq!(prune(&["--keep", "2"]).0, 0, "from here on the WAL begins with the first backup");
    let before = wal();
    assert_eq!(prune(&["--window", "1"]).0, 0, "the first is needed for yesterday evening");
    // The archiver may still bring what the second backup ended with.
    let kept = wal();
    assert!(before.iter().all(|key| kept.contains(key)), "{before:?} {kept:?}");
    assert_eq!(prune(&["--keep", "1", "--dry-run"]).1.trim(), first);
    assert_eq!(prune(&[]).0, 2, "what is to be kept has to be said");
    // What was killed is younger than a week, so it may become a backup: it stays, and its WAL.
    for point in [CrashPoint::Unrecorded, CrashPoint::BasesGone] {
        if point == CrashPoint::BasesGone {
            let third = back_up(&store);
            assert!(third > second);
        }
        killed(&store, point, &["backup", "prune"], &["--keep", "1"]);
        let (status, backups) = list(&store);
        assert_eq!((status, backups.as_array().map(Vec::len)), (0, Some(1)), "{backups}");
    }
    assert!(before.iter().all(|key| wal().contains(key)));
    for half in store.names(&format!("{ID}/base/")) {
        let stamp = half.rsplit('/').next().expect("a stamp");
        if !store.names(&format!("{ID}/backup/")).iter().any(|name| name.ends_with(stamp)) {
            for what in ["conf", "manifest", "base"] {
                let folder = store.object(&format!("{ID}/{what}/{stamp}"));
                if folder.exists() {
                    fs::remove_dir_all(folder).expect("the object");
                }
            }
        }
    }
    assert_eq!(prune(&["--keep", "1"]).0, 0);
    let left = wal();
    assert!(left.len() < before.len() && !left.iter().any(|key| key.ends_with(&after)), "{left:?}");
    assert_eq!(list(&store).0, 0, "the one that is kept has all its WAL");
    // A hole, and damage.
    let newest = store.switch(port);
    store.switch(port);
    let folder = store.object(&format!("{ID}.wal/{system}/00000001/{newest}"));
    fs::rename(&folder, store.lab.path("aside")).expect("the object");
    let (status, backups) = list(&store);
    assert!(status == 7 && backups.to_string().contains(&format!("before {newest}")), "{status} {backups}");
    fs::rename(store.lab.path("aside"), &folder).expect("the object");
    assert_eq!(list(&store).0, 0);
    let base = store.names(&format!("{ID}/base/")).pop().expect("a base");
    let bytes = fs::read_dir(store.object(&base)).expect("the object").flatten().map(|file| file.path());
    for file in bytes.filter(|path| !path.ends_with("manifest.json")) {
        fs::write(file, "cut off").expect("the object");
    }
    assert_eq!(list(&store).0, 7);
    required(&store, "the only one is damaged", ID, Some("there is no good backup"));
    assert_eq!(prune(&["--keep", "1"]).0, 0);
    assert_eq!(list(&store).1.as_array().map(Vec::len), Some(1), "damage is for people to look at");
}

#[test]
fn a_backup_is_made_kept_and_let_go() {
    thread::scope(|scope| {
        for version in [13, 15] {
            scope.spawn(move || made_kept_and_let_go(version));
        }
    });
}

#[test]
fn what_cannot_be_restored_is_never_called_a_backup() {
    let mut store = Store::new();
    let port = store.cluster(15, "");
    let name = store.lab.name().to_owned();
    let set = |sql: &str| store.lab.sql(port, "postgres", &format!("alter system {sql}"));
    let reload = || store.lab.sql(port, "postgres", "select pg_reload_conf()");
    refused(&store, &["--incremental", "7"], 6, "begin with version 17");
    // The server is told that everything is archived, and nothing is.
    set("set archive_command = '/bin/true'");
    reload();
    refused(&store, &[], 6, "leads to another place");
    set(&format!(
        "set archive_command = '{}'",
        store.hook("archive", "%p").replace("--id shop", "--id other")
    ));
    reload();
    refused(&store, &[], 6, "leads to another place");
    set("set archive_command = '/bin/false'");
    reload();
    refused(&store, &[], 6, "/bin/false failed");
    set("reset archive_command");
    set("set full_page_writes = off");
    reload();
    refused(&store, &[], 6, "full_page_writes");
    set("reset full_page_writes");
    reload();
    fs::create_dir(store.lab.path("space")).expect("a folder");
    own(&store.lab.path("space"));
    let space = store.lab.path("space").display().to_string();
    store.lab.sql(port, "postgres", &format!("create tablespace far location '{space}'"));
    refused(&store, &[], 6, "tablespaces");
    store.lab.sql(port, "postgres", "drop tablespace far");
    refused(&store, &["--cluster", "nobody"], 2, "");
    let nobody = store.at(&["backup", "run"], &["--cluster", "nobody"]).status().expect("the program");
    assert_eq!(nobody.code(), Some(5));
    set("set archive_mode = off");
    store.lab.run("pg_ctlcluster", &["15", &name, "restart"]);
    refused(&store, &[], 6, "archive_mode is off");
    store.lab.run("pg_ctlcluster", &["15", &name, "stop"]);
    refused(&store, &[], 4, "no login");
    store.close();
    let (status, _, said) = output(&mut store.at(&["backup", "list"], &[]));
    assert_eq!(status, 4, "no list is not an empty list: {said}");
}
