//! `restore` and `drill` against the stand-ins, with rows.

use std::fs;

use crate::depot::Store;
use crate::played::{Played, until};

fn restore(played: &Played, run: &str, to: &str, more: &[&str]) -> (i32, String) {
    let arguments = [&["restore", "--run", run, "--to", to][..], more].concat();
    let answer = played.run(&arguments);
    (answer.code(), answer.err())
}

fn recoveries(played: &Played) -> usize {
    played.calls().lines().filter(|line| line.contains("RECOVER DATABASE")).count()
}

#[test]
fn rows_of_the_instant_come_back_from_files_once_for_a_run() {
    let played = Played::with_system("h1");
    let instant = played.with_history("file");
    let files = ["--from", "file"];
    let check = [&files[..], &["--check"]].concat();
    assert_eq!(restore(&played, "R0", &instant, &check), (0, String::new()));
    assert_eq!(restore(&played, "R1", &instant, &[&files[..], &["--done"]].concat()).0, 1);
    assert_eq!(played.rows(), "1 2 3", "a check changes nothing");
    assert_eq!(restore(&played, "R1", &instant, &files), (0, String::new()));
    assert_eq!((played.rows().as_str(), recoveries(&played)), ("1 2", 2));
    // What its users write after it stays: a repetition of the run recovers nothing again.
    played.sql("HDB", "INSERT INTO T VALUES (9)");
    assert_eq!(restore(&played, "R1", &instant, &files), (0, String::new()));
    assert_eq!(restore(&played, "R1", &instant, &[&files[..], &["--done"]].concat()).0, 0);
    assert_eq!((played.rows().as_str(), recoveries(&played)), ("1 2 9", 2));
    // Half of it is not brought to one instant and half to another.
    let (code, why) = restore(&played, "R1", "latest", &files);
    assert!(code == 6 && why.contains("this run restores to"), "{why}");
    // A tenant alone; what is not to be restored runs on.
    let tenant = [&files[..], &["--database", "HDB"]].concat();
    assert_eq!(restore(&played, "R2", &instant, &tenant), (0, String::new()));
    assert_eq!((played.rows().as_str(), recoveries(&played)), ("1 2", 3));
    // Nothing is there before the first backup.
    let (code, why) = restore(&played, "R3", "2020-01-01T00:00:00Z", &files);
    assert!(code == 6 && why.contains("no complete backup that ended before"), "{why}");
    assert_eq!(restore(&played, "R3", &instant, &["--from", "file", "--database", "NONE"]).0, 3);
}

#[test]
fn nothing_is_stopped_when_a_part_is_missing() {
    let played = Played::with_system("h1");
    played.fault("log-backup-lost HDB");
    let instant = played.with_history("file");
    let (code, why) = restore(&played, "R1", &instant, &["--from", "file"]);
    assert!(code == 6 && why.contains("parts that the recovery needs are missing"), "{why}");
    assert_eq!((played.rows().as_str(), recoveries(&played)), ("1 2 3", 0));
    let stopped = |line: &str| line.contains("StopWait") || line.contains("STOP DATABASE");
    assert!(!played.calls().lines().any(stopped));
}

/// Whatever dies: the end is the old state or the new one, and a repetition brings the new one.
#[test]
fn a_restore_that_dies_goes_on() {
    let played = Played::with_system("h1");
    let instant = played.with_history("file");
    let again = ["--from", "file", "--database", "HDB", "--timeout", "1s"];
    for point in ["read", "written", "started"] {
        let run = format!("R-{point}");
        played.fault(&format!("crash*1 recovery.{point}"));
        let (code, why) = restore(&played, &run, &instant, &again);
        // Where it died behind the recovery, the tenant that runs says so.
        assert_eq!(code, if point == "started" { 0 } else { 5 }, "{point}: {why}");
        assert_eq!(restore(&played, &run, &instant, &again), (0, String::new()), "{point}");
        assert_eq!(played.rows(), "1 2", "{point}");
    }
    // The connection is lost, and the recovery has ended.
    played.fault("hdbsql-loses*1 RECOVER");
    assert_eq!(restore(&played, "R-lost", &instant, &again), (0, String::new()));
    assert_eq!(played.rows(), "1 2");
}

#[test]
fn a_system_that_lost_its_data_comes_back_from_object_storage() {
    let store = Store::new();
    let played = Played::with_system("h1");
    store.serve(&played);
    let instant = played.with_history("backint");
    let config = store.config();
    let thaw = ["--thaw", config.as_str(), "--check"];
    assert_eq!(restore(&played, "R0", &instant, &thaw), (0, String::new()));
    // Last week's backups lie in Glacier: not now, and nothing is stopped until they can be read.
    assert_eq!(store.freeze(), 4, "a topology and a volume of each database");
    store.thaw_lasts(2);
    let cold = ["--thaw", config.as_str()];
    let (code, why) = restore(&played, "R0", &instant, &cold);
    assert!(code == 75 && why.contains("parts are being thawed"), "{code} {why}");
    assert!(played.calls().lines().all(|line| !line.contains("RECOVER") && !line.contains("StopWait")));

    assert_eq!(played.sapcontrol("StopWait 600 2"), Some(0));
    for volume in ["hdb00001", "hdb00002"] {
        fs::remove_dir_all(played.path(&format!("/hana/data/HDB/mnt00001/{volume}"))).unwrap();
        fs::remove_dir_all(played.path(&format!("/hana/log/HDB/mnt00001/{volume}"))).unwrap();
    }
    // Nothing can be asked, so nothing is begun unless an operator says that the data is lost.
    assert_eq!(restore(&played, "R1", &instant, &[]).0, 4);
    let lost = ["--data-lost", "--thaw", config.as_str()];
    until("it is thawed and restored", || match restore(&played, "R2", &instant, &lost) {
        (75, _) => false,
        end => {
            assert_eq!(end, (0, String::new()));
            true
        }
    });
    assert_eq!(played.rows(), "1 2");

    // A drill reads the newest of all, of Backint with its logs.
    played.sql("HDB", "INSERT INTO T VALUES (4)");
    played.logs_sent();
    let drill = ["--json", "drill", "--tenant", "HDB", "--count", "T", "--tenant-key", "HOSTLER"];
    let answer = played.run(&drill);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert!(answer.json()["rows"].as_u64().unwrap() >= 2, "{}", answer.out());
}

#[test]
fn a_drill_counts_the_rows_of_the_newest_backup_and_leaves_nothing() {
    let played = Played::with_system("h1");
    played.with_history("file");
    let drill = ["drill", "--tenant", "HDB", "--from", "file", "--count", "T", "--tenant-key", "HOSTLER"];
    let tenants = || played.sql("SYSTEMDB", "SELECT DATABASE_NAME FROM M_DATABASES ORDER BY DATABASE_NAME");
    let answer = played.run(&[&["--json"], &drill[..]].concat());
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!(answer.json()["rows"], 1, "without its logs");
    assert_eq!((tenants().as_str(), played.rows().as_str()), ("\"HDB\"\n\"SYSTEMDB\"", "1 2 3"));
    let answer = played.run(&[&drill[..], &["--at-least", "2"]].concat());
    assert!(answer.code() == 1 && answer.err().contains("has 1 rows in the backup"), "{}", answer.err());
    // A drill that dies leaves its tenant to the next one.
    played.fault("crash*1 recovery.written");
    assert_eq!(played.run(&drill).code(), 5);
    played.fault("hdbsql-hangs RECOVER");
    let mut hung = played.command(&drill).spawn().unwrap();
    until("the tenant is there", || tenants().contains("HOSTLER_DRILL"));
    hung.kill().unwrap();
    hung.wait().unwrap();
    played.fault("");
    assert_eq!(played.run(&drill).code(), 0);
    assert_eq!(tenants(), "\"HDB\"\n\"SYSTEMDB\"");
    assert_eq!(played.run(&["drill", "--tenant", "SYSTEMDB"]).code(), 3);
}

/// A scratch system on this host restores the newest backup of another one, out of the depot that both read.
#[test]
fn a_scratch_system_proves_the_backup_of_another_one() {
    let store = Store::new();
    let played = Played::with_system("h1");
    store.serve(&played);
    played.with_history("backint");
    let scratch = ["--sid", "SCR", "--number", "01", "--key", "SCRATCH"];
    let run = |more: &[&str]| played.run(&[&scratch[..], more].concat());
    let answer = run(&["install", "--media", "/media/2.00.077.00"]);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    played.key("SCRATCH", "localhost:30113");
    let backint = |sid: &str| played.path(&format!("/usr/sap/{sid}/SYS/global/hdb/opt/hdbbackint"));
    fs::create_dir_all(backint("SCR").parent().unwrap()).unwrap();
    fs::copy(backint("HDB"), backint("SCR")).unwrap();
    let depot = store.config();
    let drill = [
        "--json",
        "drill",
        "--tenant",
        "HDB",
        "--source",
        "HDB",
        "--depot",
        &depot,
        "--tenant-key",
        "SCRATCH",
    ];
    let held =
        [&drill[..], &["--statements", "[\"SELECT COUNT(*) FROM T\", \"SELECT MAX(N) FROM T\"]"]].concat();
    let answer = run(&held);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!(answer.json()["answers"], serde_json::json!(["3", "3"]), "with its logs");
    assert!(answer.json()["age"].as_u64().unwrap() < 300, "{}", answer.out());
    let calls = played.calls();
    assert!(calls.contains("FOR HOSTLER_DRILL") && calls.contains("USING SOURCE 'HDB@HDB'"), "{calls}");
    // What does not hold is said, and nothing is left of either drill.
    let odd =
        [&drill[..], &["--statements", "[\"SELECT 1 FROM DUMMY\", \"SELECT COUNT(*) FROM T WHERE N = 9\"]"]]
            .concat();
    let answer = run(&odd);
    assert!(answer.code() == 1 && answer.err().contains("statement 2 does not hold"), "{}", answer.err());
    let tenants = ["-U", "SCRATCH", "-E", "3", "-x", "-a", "SELECT COUNT(*) FROM M_DATABASES"];
    assert_eq!(played.tool("/usr/sap/SCR/HDB01/exe/hdbsql", &tenants, "").out.trim(), "2");
    assert_eq!(played.rows(), "1 2 3");
    let none = run(&["drill", "--tenant", "QA1", "--source", "HDB", "--depot", &depot]);
    assert!(
        none.code() == 6 && none.err().contains("the depot has no data backup of QA1@HDB"),
        "{}",
        none.err()
    );
    assert_eq!(
        run(&["drill", "--tenant", "HDB", "--source", "HDB", "--depot", &depot, "--from", "file"]).code(),
        3
    );
}
