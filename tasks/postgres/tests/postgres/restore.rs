//! `restore`: the rows of every state that is asked for, and nothing where it cannot be had.

use std::fs;
use std::thread;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::free_ports;

use crate::backup::back_up;
use crate::kit::output;
use crate::store::{ID, Store};

/// Restores into a new cluster; its exit status, port, and what it said.
pub(crate) fn restore(store: &Store, name: &str, words: &[&str]) -> (i32, u16, String) {
    let [port] = free_ports();
    let (text, socket) = (port.to_string(), store.lab.path("run").display().to_string());
    let all: Vec<_> =
        ["--cluster", name, "--port", &text, "--socket", &socket].iter().chain(words).copied().collect();
    let (status, _, said) = output(&mut store.at(&["restore", "run"], &all));
    (status, port, said)
}

pub(crate) fn undo(store: &Store, name: &str) {
    let (status, _, said) = output(&mut store.program(&["restore", "undo", "--cluster", name]));
    assert_eq!(status, 0, "{said}");
}

pub(crate) fn rows(store: &Store, port: u16) -> String {
    store.lab.sql(port, "postgres", "select count(*) || ' ' || coalesce(max(i), 0) from t")
}

fn every_instant(version: u16) {
    let store = Store::new();
    let port = store.cluster(version, "");
    let sql = |statement: &str| store.lab.sql(port, "postgres", statement);
    sql(
        "create table t (i int); alter system set work_mem = '9MB'; alter system set cluster_name = 'old'; alter system set archive_mode = 'on'; alter system set recovery_target_xid = '7'; alter system set max_wal_size = '100MB'",
    );
    let before_all = sql("select clock_timestamp()");
    back_up(&store);
    let now =
        || sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let mut instants = Vec::new();
    for i in 1..=40 {
        sql(&format!("insert into t values ({i})"));
        if i % 18 == 0 {
            instants.push((i, now()));
        }
        if i == 20 {
            store.switch(port);
        }
    }
    let lsn = sql("select pg_current_wal_insert_lsn()");
    sql("select pg_create_restore_point('before the mistake')");
    sql("delete from t where i > 3");
    store.switch(port);
    let archived = || store.names(&format!("{ID}.wal/"));
    let before = archived();
    let name = format!("{}r", store.lab.name());
    // Some at once, as they would be on a host of their own.
    let cases: Vec<(Vec<String>, String)> = instants
        .iter()
        .map(|(count, at)| (vec!["--time".to_owned(), at.clone()], format!("{count} {count}")))
        .chain([
            (vec!["--name".to_owned(), "before the mistake".to_owned()], "40 40".to_owned()),
            (vec!["--lsn".to_owned(), lsn], "40 40".to_owned()),
            (vec!["--immediate".to_owned()], "0 0".to_owned()),
            (vec!["--latest".to_owned()], "3 3".to_owned()),
        ])
        .collect();
    for (at, (words, wanted)) in cases.iter().enumerate() {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let name = format!("{name}{at}");
        let (status, restored, said) = restore(&store, &name, &words);
        assert_eq!(status, 0, "{words:?}: {said}");
        assert_eq!(&rows(&store, restored), wanted, "{words:?}");
        if at == 0 {
            let read = |setting: &str| store.lab.sql(restored, "postgres", &format!("show {setting}"));
            assert_eq!(
                (read("work_mem"), read("archive_mode"), read("max_logical_replication_workers")),
                ("9MB".to_owned(), "off".to_owned(), "0".to_owned())
            );
            assert_eq!(
                (read("port"), read("cluster_name")),
                (restored.to_string(), format!("{version}/{name}"))
            );
            assert_eq!(output(&mut store.program(&["restore", "done", "--cluster", &name])).0, 0);
            // Never over a living one, nor over a stopped one.
            let (status, _, said) = restore(&store, &name, &["--latest"]);
            assert!(status == 6 && said.contains("made or begun by restore"), "{status} {said}");
            // Nor does a second order take back, or call done, what the first has made.
            for (command, wanted) in [("undo", 0), ("done", 1)] {
                let mut other = store.program(&["restore", command, "--cluster", &name]);
                assert_eq!(output(other.env("HOSTLER_RUN", "another")).0, wanted, "{command}");
            }
            assert_eq!(&rows(&store, restored), wanted);
        }
        undo(&store, &name);
        assert!(!store.lab.path("data").join(version.to_string()).join(&name).exists());
    }
    assert_eq!(rows(&store, port), "3 3");
    assert_eq!(archived(), before, "no restore wrote into the archive of the living cluster");
    let refused = |name: &str, words: &[&str], status: i32, why: &str| {
        let (ended, _, said) = restore(&store, name, words);
        assert!(ended == status && said.contains(why), "{words:?} {why}: {ended} {said}");
    };
    let living = store.lab.name();
    refused(living, &["--latest"], 6, "never touches one");
    store.lab.run("pg_ctlcluster", &[&version.to_string(), living, "stop"]);
    refused(living, &["--latest"], 6, "never touches one");
    refused(&name, &["--time", &before_all.replace(' ', "T")], 6, "nothing before can be restored");
    refused(&name, &["--time", "2100-01-01T00:00:00Z"], 6, "has not come yet");
    refused(&name, &["--time", "yesterday"], 2, "");
    refused(&name, &["--lsn", "0/1"], 6, "nothing before");
    refused(&name, &["--latest", "--immediate"], 2, "");
    refused(&name, &[], 2, "");
    refused(&name, &["--latest", "--backup", "none"], 5, "no backup none");
    refused(&name, &["--latest", "--timeline", "7"], 7, "00000007.history is missing");
    assert!(!store.lab.path("state").join(format!("restore-{name}")).exists(), "nothing was begun");
    // The server itself finds that these never come.
    refused(&name, &["--name", "no such point"], 7, "before configured recovery target was reached");
    undo(&store, &name);
    let (status, again, said) = restore(&store, &name, &["--latest"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(rows(&store, again), "3 3");
}

#[test]
fn the_rows_of_every_instant_come_back_beside_the_living_cluster() {
    thread::scope(|scope| {
        for version in [13, 15] {
            scope.spawn(move || every_instant(version));
        }
    });
}

#[test]
fn a_lost_host_is_restored_and_goes_on_and_what_is_missing_stops_it() {
    let store = Store::new();
    let port = store.cluster(15, "");
    store.lab.sql(port, "postgres", "create table t (i int)");
    let first = back_up(&store);
    store.lab.sql(port, "postgres", "insert into t select generate_series(1, 10)");
    let last = store.switch(port);
    let system = store.system(port);
    store.lab.run("pg_ctlcluster", &["15", store.lab.name(), "stop", "-m", "immediate"]);
    let name = format!("{}n", store.lab.name());
    // Killed anywhere, it is taken back whole, and the old cluster is as it was.
    for point in [
        CrashPoint::RestoreIntended,
        CrashPoint::Unpacked,
        CrashPoint::Recovering,
        CrashPoint::Recovered,
        CrashPoint::Adopted,
    ] {
        let wish = store.lab.path("wish");
        fs::write(&wish, point.name()).expect("a wish");
        let [free] = free_ports();
        let (free, socket) = (free.to_string(), store.lab.path("run").display().to_string());
        let words = ["--cluster", &name, "--port", &free, "--socket", &socket, "--latest"];
        let (status, _, said) =
            output(store.at(&["restore", "run"], &words).env("HOSTLER_CRASH_FILE", &wish));
        assert_eq!(status, -1, "{}: {said}", point.name());
        let done = output(&mut store.program(&["restore", "done", "--cluster", &name]));
        assert_eq!(done.0, 1, "{}", point.name());
        undo(&store, &name);
        let data = store.lab.path("data/15");
        let left: Vec<_> =
            fs::read_dir(&data).expect("the data").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [store.lab.name()], "{}", point.name());
        assert!(!store.lab.path("conf/15").join(&name).exists());
    }
    // The new one takes the old one's place, and archives on under its name.
    let (status, new, said) = restore(&store, &name, &["--latest"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(rows(&store, new), "10 10");
    let conf = store.lab.path("conf/15").join(&name).join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("the configuration");
    fs::write(&conf, text.replace("archive_mode = 'off'", "archive_mode = on")).expect("the configuration");
    store.lab.run("pg_ctlcluster", &["15", &name, "restart"]);
    store.lab.sql(new, "postgres", "insert into t select generate_series(11, 20)");
    let on_two = store.switch(new);
    assert!(on_two.starts_with("00000002"), "{on_two}");
    let third = format!("{}m", store.lab.name());
    let attempt = |words: &[&str], wanted: i32, why: &str| {
        let (status, port, said) = restore(&store, &third, words);
        assert!(status == wanted && said.contains(why), "{words:?} {why}: {status} {said}");
        let found = (status == 0).then(|| rows(&store, port));
        undo(&store, &third);
        found
    };
    assert_eq!(attempt(&["--latest"], 0, "").as_deref(), Some("20 20"), "over both timelines");
    assert_eq!(attempt(&["--latest", "--timeline", "1"], 0, "").as_deref(), Some("10 10"));
    // What is missing or damaged stops it, and a restore never opens with fewer rows.
    let aside = store.lab.path("aside");
    let without = |name: &str, words: &[&str], status: i32, why: &str| {
        let object = store.object(name);
        fs::rename(&object, &aside).expect("the object");
        attempt(words, status, why);
        fs::rename(&aside, &object).expect("the object");
    };
    let wal = format!("{ID}.wal/{system}");
    without(&format!("{wal}/00000001/{last}"), &["--latest"], 7, &format!("{last} is missing"));
    without(&format!("{wal}/00000002.history"), &["--latest"], 7, "00000002.history is missing");
    without(&format!("{ID}/base/{first}"), &["--latest"], 7, "is gone");
    let damaged = |name: &str, change: &dyn Fn(&mut Vec<u8>), status: i32| {
        let files = fs::read_dir(store.object(name)).expect("the object").flatten().map(|file| file.path());
        let file = { files }.find(|path| !path.ends_with("manifest.json")).expect("its bytes");
        let bytes = fs::read(&file).expect("its bytes");
        let mut other = bytes.clone();
        change(&mut other);
        fs::write(&file, other).expect("the object");
        attempt(&["--latest"], status, "");
        fs::write(&file, bytes).expect("the object");
    };
    damaged(
        &format!("{wal}/00000001/{last}"),
        &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1
        },
        7,
    );
    damaged(
        &format!("{ID}/base/{first}"),
        &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1
        },
        7,
    );
    assert_eq!(attempt(&["--latest"], 0, "").as_deref(), Some("20 20"));
    assert_eq!(rows(&store, new), "20 20");
}
