//! `housekeeping`, `key`, `rotate` and the undo of an installation against the stand-ins.

use std::fs;

use crate::played::{PASSWORD, Played};

#[test]
fn housekeeping_keeps_what_a_kept_backup_needs() {
    let played = Played::with_system("h1");
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    for run in ["B1", "B2", "B3"] {
        played.sql("HDB", "INSERT INTO T VALUES (1)");
        assert_eq!(played.run(&["backup", "--run", run, "--to", "file"]).code(), 0);
    }
    let complete = || {
        let count = "SELECT COUNT(*) FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup'";
        (played.sql("HDB", count), played.sql("SYSTEMDB", count))
    };
    let files = || fs::read_dir(played.path("/usr/sap/HDB/HDB00/backup/data/DB_HDB")).unwrap().count();
    let three = ("3".to_owned(), "3".to_owned());
    let rule = ["housekeeping", "--keep", "2", "--window", "0s"];
    // Everything is within the window.
    assert_eq!(played.run(&["housekeeping", "--keep", "1"]).code(), 0);
    let answer = played.run(&[&["--json"], &rule[..], &["--dry-run"]].concat());
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!(answer.json()["plans"]["backups"].as_array().unwrap().len(), 2);
    assert_eq!((complete(), files()), (three, 6), "a dry run deletes nothing");
    for _ in 0..2 {
        let answer = played.run(&rule);
        assert_eq!(answer.code(), 0, "{}", answer.err());
        assert_eq!((complete(), files()), (("2".to_owned(), "2".to_owned()), 4));
    }
    // It dies behind its deletions; the next one ends them.
    played.fault("crash*1 catalog.pieces-deleted");
    let one = ["housekeeping", "--keep", "1", "--window", "0s"];
    assert_eq!(played.run(&one).code(), 5);
    assert_eq!(played.run(&one).code(), 0);
    assert_eq!((complete(), files()), (("1".to_owned(), "1".to_owned()), 2));
    let last = played.run(&["restore", "--run", "R1", "--to", "latest", "--from", "file", "--check"]);
    assert_eq!(last.code(), 0, "what is kept can be restored: {}", last.err());
}

#[test]
fn housekeeping_clears_what_is_old_and_nothing_else() {
    let played = Played::with_system("h1");
    played.with_history("file");
    let create = |user: &str| format!("CREATE USER {user} PASSWORD \"{PASSWORD}\"");
    played.sql("HDB", &create("OLD"));
    // Of last year: an entry of the audit trail, a trace and a dump; of today: the same.
    let trail = played.path("/.hana-standins/systems/HDB/audit.HDB");
    let old = fs::read_to_string(&trail).unwrap().replacen("17", "14", 1);
    fs::write(&trail, old).unwrap();
    played.sql("HDB", &create("NEW"));
    let traces = played.path("/usr/sap/HDB/HDB00/h1/trace/DB_HDB");
    fs::create_dir_all(&traces).unwrap();
    let year = std::time::SystemTime::now() - std::time::Duration::from_secs(365 * 24 * 3600);
    for (name, old) in [
        ("indexserver_h1.30003.000.trc", true),
        ("indexserver_h1.30003.001.trc", false),
        ("indexserver_h1.30003.crashdump.1.trc", true),
        ("indexserver_h1.30003.rtedump.2.trc", false),
        ("backup.log", true),
    ] {
        fs::write(traces.join(name), "text\n").unwrap();
        if old {
            fs::File::options().write(true).open(traces.join(name)).unwrap().set_modified(year).unwrap();
        }
    }
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&traces).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let free = || played.sql("HDB", "SELECT COUNT(*) FROM M_LOG_SEGMENTS WHERE STATE = 'Free'");
    assert_ne!(free(), "0");
    let rule = ["housekeeping", "--segments", "0", "--traces", "30d", "--dumps", "30d", "--audit", "30d"];
    let answer = played.run(&[&["--json"], &rule[..], &["--dry-run"]].concat());
    assert_eq!(answer.code(), 0, "{}", answer.err());
    let waste = answer.json()["plans"]["waste"].clone();
    let counted: Vec<_> = waste.as_array().unwrap().iter().filter(|one| one["database"] == "HDB").collect();
    let matters: Vec<_> = counted.iter().map(|one| one["matter"].as_str().unwrap()).collect();
    assert_eq!(matters, ["segments", "traces", "dumps", "audit"], "{waste}");
    assert!(counted[1..].iter().all(|one| one["count"] == 1), "{waste}");
    assert_eq!((names().len(), free() == "0"), (5, false), "a dry run clears nothing");
    for _ in 0..2 {
        let answer = played.run(&rule);
        assert_eq!(answer.code(), 0, "{}", answer.err());
    }
    assert_eq!(names(), ["backup.log", "indexserver_h1.30003.001.trc", "indexserver_h1.30003.rtedump.2.trc"]);
    assert_eq!(free(), "0");
    assert_eq!(played.sql("HDB", "SELECT COUNT(*) FROM AUDIT_LOG"), "1");
    // Rows and their backups are as they were.
    assert_eq!(played.rows(), "1 2 3");
    let last = played.run(&["restore", "--run", "R1", "--to", "latest", "--from", "file", "--check"]);
    assert_eq!(last.code(), 0, "{}", last.err());
    // Nobody asks for what is younger than a day, nor logs on a second time where the logon was refused.
    assert_eq!(played.run(&["housekeeping", "--traces", "23h"]).code(), 2);
    played.sql("HDB", "ALTER USER SYSTEM PASSWORD \"Another1x\" NO FORCE_FIRST_PASSWORD_CHANGE");
    let before = played.calls().matches("M_LOG_SEGMENTS").count();
    let answer = played.run(&rule);
    assert!(
        answer.code() == 0 && answer.out().contains("cannot log on"),
        "{} {}",
        answer.out(),
        answer.err()
    );
    assert_eq!(played.calls().matches("M_LOG_SEGMENTS").count(), before + 2, "once in each database");
    assert_eq!(
        played
            .calls()
            .lines()
            .filter(|line| line.contains("\"-d\",\"HDB\"") && line.contains("M_TRACEFILES"))
            .count(),
        6
    );
}

#[test]
fn a_password_is_rotated_with_its_key_and_is_seen_nowhere() {
    let played = Played::with_system("h1");
    let new = "Rotated77c0#";
    played.sql(
        "SYSTEMDB",
        &format!("CREATE USER BACKUP PASSWORD \"{PASSWORD}\" NO FORCE_FIRST_PASSWORD_CHANGE"),
    );
    let key = ["--key", "BACKUP"];
    let with = |more: &[&str]| played.run(&[&key[..], more].concat());
    let made = with(&["key", "--user", "BACKUP"]);
    assert_eq!(made.code(), 0, "{}", made.err());
    assert_eq!(with(&["key", "--probe"]).code(), 0);
    fs::write(played.path("secrets/password"), format!("{new}\n")).unwrap();
    let rotate = ["rotate", "--user", "BACKUP"];
    let probe = [&rotate[..], &["--probe"]].concat();
    assert_eq!(with(&probe).code(), 1);
    // It dies behind the change: the key is of yesterday, and a repetition sets it.
    played.fault("hdbsql-loses*1 ALTER USER");
    assert_eq!(with(&rotate).code(), 4);
    assert_eq!((with(&["key", "--probe"]).code(), with(&probe).code()), (1, 1));
    for _ in 0..2 {
        let rotated = with(&rotate);
        assert_eq!(rotated.code(), 0, "{}", rotated.err());
        assert_eq!((with(&["key", "--probe"]).code(), with(&probe).code()), (0, 0));
    }
    let changes = played.calls().lines().filter(|line| line.contains("/dev/stdin")).count();
    assert_eq!(changes, 1, "what is set is not set again");
    assert!(!played.calls().contains(new));
    // No key is left of the question, and none of another user is touched.
    let left = played.tool("/usr/sap/HDB/HDB00/exe/hdbuserstore", &["LIST"], "");
    assert!(!left.out.contains("HOSTLERTRY"), "{left:?}");
    let other = played.run(&["--key", "HOSTLER", "rotate", "--user", "BACKUP"]);
    assert!(other.code() == 6 && other.err().contains("is of the user SYSTEM"), "{}", other.err());
    // The database does not answer: nobody can tell.
    played.fault("hdbsql-refuses");
    assert_eq!(with(&probe).code(), 5);
    // What SQL would take for the end of the password is refused.
    played.fault("");
    fs::write(played.path("secrets/password"), "a\" NO\n").unwrap();
    assert_eq!(with(&rotate).code(), 3);
}

#[test]
fn an_installation_is_undone_by_the_run_that_made_it_alone() {
    let played = Played::new("h1");
    let install = ["--number", "00", "install", "--media", "/media/2.00.077.00"];
    let undo = |run: &str| played.run(&[&install[..], &["--undo", "--run", run]].concat()).code();
    assert_eq!(undo("R1"), 0, "nothing was begun");
    let made = played.run(&[&install[..], &["--run", "R1"]].concat());
    assert_eq!(made.code(), 0, "{}", made.err());
    assert_eq!(undo("R2"), 0, "it has installed nothing");
    assert!(played.path("/usr/sap/HDB/HDB00/exe/manifest").exists());
    assert_eq!((undo("R1"), undo("R1")), (0, 0));
    assert!(!played.path("/hana/shared/HDB").exists() && !played.path("/usr/sap/HDB").exists());
    // It fails half-way: its undo takes away what there is, or says that it cannot.
    played.fault("hdblcm-fails*1 start");
    assert_eq!(played.run(&[&install[..], &["--run", "R3"]].concat()).code(), 4);
    let code = undo("R3");
    let left = played.path("/usr/sap/HDB").exists() || played.path("/hana/shared/HDB").exists();
    assert_eq!(code, if left { 4 } else { 0 });
}

#[test]
fn an_instance_starts_and_stops_and_says_what_did_not_come() {
    let played = Played::with_system("h1");
    let code = |words: &[&str]| played.run(words).code();
    assert_eq!((code(&["start", "--probe"]), code(&["stop", "--probe"])), (0, 1));
    assert_eq!((code(&["start"]), code(&["stop"]), code(&["stop"])), (0, 0, 0));
    assert_eq!((code(&["start", "--probe"]), code(&["stop", "--probe"])), (1, 0));
    played.fault("process-yellow hdbindexserver");
    let answer = played.run(&["start"]);
    assert!(
        answer.code() == 4 && answer.err().contains("timed out, and hdbindexserver is Yellow"),
        "{}",
        answer.err()
    );
    played.fault("");
    assert_eq!((code(&["start"]), code(&["start", "--probe"])), (0, 0));
    played.fault("sapstartsrv-refuses");
    assert_eq!(code(&["stop"]), 5, "nobody can tell");
    played.fault("");
    let starts = played.calls().lines().filter(|line| line.contains("StartWait")).count();
    assert_eq!(starts, 1, "what runs, or comes up late, is not started again");
}
