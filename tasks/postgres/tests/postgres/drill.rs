//! `drill`: what it says of a backup, and that nothing is left of it.

use std::fs;
use std::thread;

use hostler_postgres::crash::CrashPoint;

use crate::backup::back_up;
use crate::kit::{output, own};
use crate::store::{ID, Store};

fn drilled(version: u16) {
    let store = Store::new();
    let port = store.cluster(version, "");
    store.lab.sql(
        port,
        "postgres",
        "create table t as select generate_series(1, 5000) as i; create index on t (i)",
    );
    back_up(&store);
    store.lab.sql(port, "postgres", "insert into t select generate_series(5001, 6000)");
    let last = store.switch(port);
    let (state, before) = (store.system(port), store.names(ID));
    let folder = store.lab.path("drills");
    fs::create_dir(&folder).expect("a folder");
    own(&folder);
    let place = folder.join(format!("hostler-drill-{ID}"));
    let queries = store.lab.path("queries");
    let folder = folder.display().to_string();
    let drill = |text: &str, status: i32, why: &str| {
        fs::write(&queries, text).expect("the queries");
        own(&queries);
        let report = store.lab.path("report");
        fs::write(&report, "").expect("the report");
        let mut command =
            store.at(&["drill"], &["--folder", &folder, "--queries", queries.to_str().expect("a path")]);
        let (ended, _, said) = output(command.env("HOSTLER_REPORT", &report));
        let report = fs::read_to_string(&report).expect("the report");
        assert!(
            ended == status && (said.contains(why) || report.contains(why)),
            "{status} {why}: {ended} {said} {report}"
        );
        report
    };
    let rows = "# rows\npostgres: select count(*) = 6000 from public.t\n";
    let report = drill(rows, 0, "can be restored");
    for output in ["newest_commit_age_seconds", "replay_seconds", "segments", "fetch_seconds"] {
        assert!(report.contains(output), "{report}");
    }
    assert!(!place.exists(), "nothing is left");
    drill("postgres: select count(*) = 5000 from public.t", 1, "is not true of the restored rows");
    drill("postgres select 1", 6, "is not DATABASE: QUERY");
    drill("postgres: select nonsense", 4, "nonsense");
    assert!(!place.exists());
    // One that was killed is cleared away by the next, with its server.
    let wish = store.lab.path("wish");
    fs::write(&wish, CrashPoint::DrillRecovered.name()).expect("a wish");
    let (status, _, said) =
        output(store.at(&["drill"], &["--folder", &folder]).env("HOSTLER_CRASH_FILE", &wish));
    assert_eq!(status, -1, "{said}");
    assert!(place.join("data/postmaster.pid").exists());
    let pid = fs::read_to_string(place.join("data/postmaster.pid")).expect("the number");
    let pid = pid.lines().next().expect("a number").to_owned();
    drill(rows, 0, "can be restored");
    assert!(!place.exists());
    // Whoever has taken the orphan over may not have asked for its end yet: a process that has ended works nowhere.
    assert!(fs::read_link(format!("/proc/{pid}/cwd")).is_err());
    fs::create_dir(&place).expect("a folder");
    fs::write(place.join("mine"), "").expect("a file");
    drill(rows, 6, "is nothing of a drill");
    fs::remove_dir_all(&place).expect("the folder");
    // A hole.
    let object = store.object(&format!("{ID}.wal/{state}/00000001/{last}"));
    fs::rename(&object, store.lab.path("aside")).expect("the object");
    drill("postgres: select count(*) = 6000 from public.t", 1, "not true");
    store.switch(port);
    drill(rows, 7, &format!("{last} is missing"));
    fs::rename(store.lab.path("aside"), &object).expect("the object");
    assert!(before.iter().all(|name| store.names(ID).contains(name)));
    assert_eq!(
        store.names(&format!("{ID}.wal/{state}/00000002")).len(),
        0,
        "no drill has begun a timeline there"
    );
    assert_eq!(store.lab.sql(port, "postgres", "select count(*) from t"), "6000");
}

#[test]
fn a_drill_says_whether_the_backup_can_be_restored_and_leaves_nothing() {
    thread::scope(|scope| {
        for version in [13, 15] {
            scope.spawn(move || drilled(version));
        }
    });
}
