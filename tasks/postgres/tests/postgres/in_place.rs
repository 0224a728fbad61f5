//! `restore in-place`: the past in the place of a cluster, with what it had kept aside, whatever dies.

use std::fs;
use std::process::Command;

use hostler_postgres::crash::CrashPoint;

use crate::backup::back_up;
use crate::kit::{as_postgres, output};
use crate::store::{ID, Store};

/// Words for the cluster of the store.
fn part<'a>(store: &'a Store, words: &[&'a str]) -> Command {
    store.program(&[&["restore", "in-place"], words, &["--cluster", store.lab.name()]].concat())
}

fn prepare(store: &Store, words: &[&str]) -> Command {
    let named = ["--cluster", store.lab.name()];
    store.at(&["restore", "in-place", "prepare"], &named.iter().chain(words).copied().collect::<Vec<_>>())
}

#[track_caller]
fn works(command: &mut Command) {
    let (status, _, said) = output(command);
    assert_eq!(status, 0, "{command:?}: {said}");
}

#[track_caller]
fn dies(store: &Store, point: CrashPoint, command: &mut Command) {
    let wish = store.lab.path("wish");
    fs::write(&wish, point.name()).expect("a wish");
    let (status, _, said) = output(command.env("HOSTLER_CRASH_FILE", &wish));
    assert_eq!(status, -1, "{}: {said}", point.name());
}

/// The folders beside the data, and the process that serves it.
fn seen(store: &Store) -> (Vec<String>, String) {
    let folder = store.data(15);
    let parent = folder.parent().expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut beside: Vec<_> = fs::read_dir(parent).expect("the data").flatten().map(name).collect();
    beside.sort();
    let pid = fs::read_to_string(folder.join("postmaster.pid")).unwrap_or_default();
    (beside, pid.lines().next().unwrap_or_default().to_owned())
}

/// A cluster with a backup and ten rows, of which seven were deleted; its port, and the instant before that.
fn with_a_mistake(store: &Store) -> (u16, String) {
    let hook = store.hook("fetch", "%f %p");
    let port = store.cluster(15, &format!("restore_command = '{hook}'"));
    let sql = |statement: &str| store.lab.sql(port, "postgres", statement);
    sql("create table t (i int)");
    back_up(store);
    sql("insert into t select generate_series(1, 10)");
    let at = sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    sql("delete from t where i > 3");
    store.switch(port);
    sql("alter system set work_mem = '9MB'");
    (port, at)
}

fn rows(store: &Store, port: u16) -> String {
    store.lab.sql(port, "postgres", "select count(*) || ' ' || coalesce(max(i), 0) from t")
}

#[test]
fn the_past_takes_the_place_of_the_present_which_can_be_put_back() {
    let store = Store::new();
    let (port, at) = with_a_mistake(&store);
    let before = seen(&store);
    // What is missing is found while the cluster serves, and nothing is changed.
    let segment = |name: &String| name.rsplit('/').next().is_some_and(|name| name.len() == 24);
    let last =
        { store.names(&format!("{ID}.wal/")) }.into_iter().filter(segment).rev().nth(1).expect("a segment");
    let aside = store.lab.path("aside");
    fs::rename(store.object(&last), &aside).expect("the object");
    let refused = |command: &mut Command, wanted: i32, why: &str| {
        let (status, _, said) = output(command);
        assert!(status == wanted && said.contains(why), "{why}: {status} {said}");
        assert!(!store.lab.path("state").join(format!("in-place-{}", store.lab.name())).exists(), "{why}");
        assert_eq!(seen(&store), before, "{why}");
    };
    let name = last.rsplit('/').next().expect("a name");
    refused(&mut prepare(&store, &["--latest"]), 7, &format!("{name} is missing"));
    fs::rename(&aside, store.object(&last)).expect("the object");
    refused(&mut prepare(&store, &["--time", "2100-01-01T00:00:00Z"]), 6, "has not come yet");
    refused(&mut prepare(&store, &["--lsn", "0/1"]), 6, "nothing before");
    refused(&mut part(&store, &["replace"]), 6, "nothing is prepared");
    works(&mut part(&store, &["undo"]));
    let wal = store.data(15).join("pg_wal");
    let elsewhere = store.lab.path("wal");
    fs::rename(&wal, &elsewhere).expect("the WAL");
    std::os::unix::fs::symlink(&elsewhere, &wal).expect("a link");
    refused(&mut prepare(&store, &["--latest"]), 6, "leads to another place");
    fs::remove_file(&wal).and_then(|()| fs::rename(&elsewhere, &wal)).expect("the WAL");
    // It is prepared while the cluster serves.
    works(&mut prepare(&store, &["--time", &at]));
    assert_eq!((rows(&store, port), seen(&store).1), ("3 3".to_owned(), before.1.clone()));
    assert_eq!(output(&mut prepare(&store, &["--latest"])).0, 6, "one at a time");
    let other = output(part(&store, &["replace"]).env("HOSTLER_RUN", "another"));
    assert!(other.0 == 6 && other.2.contains("was begun by run by-hand"), "{other:?}");
    works(&mut part(&store, &["replace"]));
    assert_eq!(rows(&store, port), "10 10");
    works(&mut part(&store, &["done", "replace"]));
    assert_eq!(output(part(&store, &["done", "replace"]).env("HOSTLER_RUN", "another")).0, 1);
    assert_eq!(store.lab.sql(port, "postgres", "show work_mem"), "9MB", "a setting of the host stays");
    // It archives on, on a timeline of its own.
    store.lab.sql(port, "postgres", "insert into t values (11)");
    assert!(store.switch(port).starts_with("00000002"));
    // What docs/postgres.md says of the way back, for the files that were kept: the three rows.
    let old = store.data(15);
    let first = seen(&store).0.iter().find(|name| name.contains(".before-")).cloned().expect("a folder");
    let conf = store.lab.conf(15).join("conf.d");
    store.lab.run("pg_ctlcluster", &["15", store.lab.name(), "stop"]);
    fs::rename(&old, old.with_extension("restored-aside")).expect("the restored data");
    fs::rename(old.with_file_name(first), &old).expect("the old data");
    works(as_postgres("touch").arg(old.join("recovery.signal")));
    fs::create_dir_all(&conf).expect("a folder");
    fs::write(conf.join("put-back.conf"), "recovery_target_timeline = 'current'\n").expect("the settings");
    let main = store.lab.conf(15).join("postgresql.conf");
    let text = fs::read_to_string(&main).expect("the configuration");
    assert!(text.contains("include_dir = 'conf.d'"), "{text}");
    store.lab.run("pg_ctlcluster", &["15", store.lab.name(), "start"]);
    hostler_testkit::eventually(crate::kit::SOON, || {
        let open = store.lab.psql(port, "postgres", "select not pg_is_in_recovery()");
        let open = String::from_utf8_lossy(&open.stdout).trim() == "t";
        open.then_some(()).ok_or_else(|| "it recovers".to_owned())
    });
    assert_eq!(rows(&store, port), "3 3");
    fs::remove_file(conf.join("put-back.conf")).expect("the settings");
    store.lab.sql(port, "postgres", "insert into t values (99)");
    assert!(store.switch(port).starts_with("00000003"), "a timeline of its own again");
    let name = format!("{}b", store.lab.name());
    let [free] = hostler_testkit::free_ports();
    let (free_text, socket) = (free.to_string(), store.lab.path("run").display().to_string());
    let words = ["--cluster", &name, "--port", &free_text, "--socket", &socket, "--latest"];
    works(&mut store.at(&["restore", "run"], &words));
    assert_eq!(rows(&store, free), "4 99", "what was put back is what a restore finds");
}

#[test]
fn whatever_dies_in_a_restore_in_place_the_files_say_what_is_true() {
    let store = Store::new();
    let (port, at) = with_a_mistake(&store);
    let before = seen(&store);
    for point in [CrashPoint::InPlaceIntended, CrashPoint::Recovering, CrashPoint::InPlaceReady] {
        dies(&store, point, &mut prepare(&store, &["--time", &at]));
        assert_eq!(
            (rows(&store, port), seen(&store).1),
            ("3 3".to_owned(), before.1.clone()),
            "{}",
            point.name()
        );
        let ready = i32::from(point != CrashPoint::InPlaceReady);
        assert_eq!(output(&mut part(&store, &["done", "prepare"])).0, ready, "{}", point.name());
        if ready == 1 {
            assert_eq!(output(&mut part(&store, &["replace"])).0, 6, "{}", point.name());
        }
        works(&mut part(&store, &["undo"]));
        assert_eq!(seen(&store), before, "{}", point.name());
    }
    works(&mut prepare(&store, &["--time", &at]));
    for point in [
        CrashPoint::InPlaceStopped,
        CrashPoint::InPlaceExchanged,
        CrashPoint::InPlaceKept,
        CrashPoint::InPlaceStarted,
    ] {
        dies(&store, point, &mut part(&store, &["replace"]));
        assert_eq!(output(&mut part(&store, &["done", "replace"])).0, 1, "{}", point.name());
        if point == CrashPoint::InPlaceStopped {
            store.lab.start("15");
            assert_eq!(rows(&store, port), "3 3", "after a boot clients are where they were");
            continue;
        }
        if point == CrashPoint::InPlaceExchanged {
            store.lab.start("15");
            assert_eq!(rows(&store, port), "10 10", "whoever starts it now starts the restored files");
        }
        let (status, _, said) = output(&mut part(&store, &["undo"]));
        assert!(status == 6 && said.contains("are in place"), "{}: {status} {said}", point.name());
    }
    works(&mut part(&store, &["replace"]));
    assert_eq!(rows(&store, port), "10 10");
    works(&mut part(&store, &["done", "replace"]));
    let kept: Vec<_> = seen(&store).0.into_iter().filter(|name| !before.0.contains(name)).collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(kept.contains(".before-") && store.data(15).with_file_name(kept).join("PG_VERSION").exists());
}
