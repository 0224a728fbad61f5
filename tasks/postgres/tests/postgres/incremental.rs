//! Backups that hold only what was changed, and what is restored of them.

use std::fs;
use std::thread;

use serde_json::Value;

use crate::kit::{json, output};
use crate::restore::{restore, rows, undo};
use crate::store::{ID, Store};

/// Backs up; its record.
fn back_up(store: &Store, days: &str) -> Value {
    let words = ["--cluster", store.lab.name(), "--wait", "30", "--incremental", days];
    let (status, stamp, said) = output(&mut store.at(&["backup", "run"], &words));
    assert_eq!(status, 0, "{said}");
    let (_, backups) = json(&mut store.at(&["backup", "list", "--json"], &[]));
    let all = backups.as_array().cloned().unwrap_or_default();
    let made =
        { all }.into_iter().map(|entry| entry["backup"].clone()).find(|one| one["stamp"] == stamp.trim());
    made.expect("the backup in the list")
}

fn built_on_and_combined(version: u16) {
    let store = Store::new();
    let port = store.cluster(version, "");
    let sql = |statement: &str| store.lab.sql(port, "postgres", statement);
    let words = ["--cluster", store.lab.name(), "--incremental", "7"];
    let (status, _, said) = output(&mut store.at(&["backup", "run"], &words));
    assert!(status == 6 && said.contains("set summarize_wal = on"), "{status} {said}");
    sql("alter system set summarize_wal = on");
    sql("select pg_reload_conf()");
    sql(
        "create table t (i int); create table filler as select repeat(i::text, 50) from generate_series(1, 40000) i",
    );
    let full = back_up(&store, "7");
    assert_eq!(full["parent"], Value::Null, "the first one is full");
    sql("insert into t select generate_series(1, 10)");
    let second = back_up(&store, "7");
    sql("insert into t select generate_series(11, 20)");
    let third = back_up(&store, "7");
    assert_eq!((&second["parent"], &third["parent"]), (&full["stamp"], &second["stamp"]));
    let bytes = |record: &Value| record["bytes"].as_u64().expect("a size");
    assert!(bytes(&third) < bytes(&full) / 2, "{third} {full}");
    sql("insert into t values (21)");
    store.switch(port);
    // What is built on stays, whatever the rule.
    let prune = |words: &[&str]| output(&mut store.at(&["backup", "prune"], words));
    assert_eq!(prune(&["--keep", "1"]).0, 0);
    assert_eq!(store.names(&format!("{ID}/base/")).len(), 3);
    let name = format!("{}r", store.lab.name());
    let stamp = |record: &Value| record["stamp"].as_str().expect("a stamp").to_owned();
    for (words, wanted) in
        [(vec!["--latest"], "21 21"), (vec!["--immediate", "--backup", &stamp(&second)], "10 10")]
    {
        let (status, restored, said) = restore(&store, &name, &words);
        assert_eq!(status, 0, "{words:?}: {said}");
        assert_eq!(rows(&store, restored), wanted, "{words:?}");
        assert_eq!(store.lab.sql(restored, "postgres", "select count(*) from filler"), "40000");
        undo(&store, &name);
        if version > 17 {
            return;
        }
    }
    // A link that is missing makes all that builds on it nothing.
    let object = store.object(&format!("{ID}/base/{}", stamp(&second)));
    let aside = store.lab.path("aside");
    fs::rename(&object, &aside).expect("the object");
    assert_eq!(output(&mut store.at(&["backup", "list"], &[])).0, 7);
    let (status, _, said) = restore(&store, &name, &["--latest"]);
    assert!(status == 7 && said.contains("base is missing"), "{status} {said}");
    fs::rename(&aside, &object).expect("the object");
    // A new full one, and the old chain goes as a whole.
    let fourth = back_up(&store, "0");
    assert_eq!(fourth["parent"], Value::Null);
    assert_eq!(prune(&["--keep", "1"]).0, 0);
    assert_eq!(store.names(&format!("{ID}/base/")), [format!("{ID}/base/{}", stamp(&fourth))]);
    assert_eq!(output(&mut store.at(&["backup", "list"], &[])).0, 0);
}

#[test]
fn a_backup_holds_what_was_changed_and_is_restored_with_what_it_builds_on() {
    thread::scope(|scope| {
        for version in [17, 18] {
            scope.spawn(move || built_on_and_combined(version));
        }
    });
}
