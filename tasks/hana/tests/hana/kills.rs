//! SAP's tools die at each of their crash points, one after another: the same run is repeated until it has its end, and the
//! rows and the catalog say that nothing was done twice. Restores are in `restore`.

use std::fs;

use crate::pair::{replicate, two};
use crate::played::Played;

/// Runs it with a death at each point in turn, then once without.
fn through(host: &Played, points: &[&str], arguments: &[&str]) {
    for point in points {
        host.fault(&format!("crash*1 {point}"));
        let answer = host.run(arguments);
        assert_ne!(answer.code(), 0, "{point}: {}", answer.err());
        assert_eq!(fired(host), 1, "{point} was not reached: {}", answer.err());
    }
    host.fault("");
    let answer = host.run(arguments);
    assert_eq!(answer.code(), 0, "{}", answer.err());
}

/// Whether the fault that was asked for has happened: its line is counted down then.
fn fired(host: &Played) -> usize {
    let left = fs::read_to_string(host.path("/.hana-standins/faults")).unwrap();
    usize::from(!left.contains("crash*1"))
}

#[test]
fn an_update_goes_on_wherever_hdblcm_died() {
    let played = Played::with_system("h1");
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    assert_eq!(played.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
    let points = ["prepare", "stop", "manifest", "switch", "start", "finish"];
    let points = points.map(|point| format!("hdblcm.update.{point}"));
    let points: Vec<_> = points.iter().map(String::as_str).collect();
    through(&played, &points, &["update", "--media", "/media/2.00.079.00"]);
    assert!(played.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").contains("2.00.079.00"));
    assert_eq!(played.rows(), "1");
    let updates = || played.calls().lines().filter(|line| line.contains("--action=update")).count();
    let before = updates();
    assert_eq!(played.run(&["update", "--media", "/media/2.00.079.00"]).code(), 0);
    assert_eq!(updates(), before, "what is done is not done again");
}

#[test]
fn an_installation_is_taken_back_or_says_why_not() {
    for point in ["extract", "create", "start", "finish"] {
        let played = Played::new("h1");
        let install = ["--number", "00", "install", "--media", "/media/2.00.077.00", "--run", "I1"];
        let undo = [&install[..], &["--undo"]].concat();
        played.fault(&format!("crash*1 hdblcm.install.{point}"));
        assert_ne!(played.run(&install).code(), 0, "{point}");
        played.fault("");
        let answer = played.run(&undo);
        let left = ["/hana/shared/HDB", "/usr/sap/HDB"].iter().any(|folder| played.path(folder).exists());
        match answer.code() {
            0 => assert!(!left, "{point}"),
            code => {
                assert_eq!(code, 4, "{point}: {}", answer.err());
                assert!(left && answer.err().contains("look at its log"), "{point}: {}", answer.err());
                // Half an installation is none, and nothing is begun beside it.
                assert_ne!(played.run(&install).code(), 0, "{point}");
            }
        }
    }
}

#[test]
fn a_run_has_one_backup_wherever_it_died() {
    let played = Played::with_system("h1");
    for (at, point) in ["noted", "topology", "volume", "written", "recorded", "catalog"].iter().enumerate() {
        let run = format!("B{at}");
        let backup = ["backup", "--run", &run, "--to", "file", "--timeout", "30s"];
        played.fault(&format!("crash*1 backup.{point}"));
        let first = played.run(&backup).code();
        assert_eq!(fired(&played), 1, "{point} was not reached: {first}");
        played.fault("");
        let answer = played.run(&backup);
        assert_eq!(answer.code(), 0, "{point}: {}", answer.err());
        for database in ["SYSTEMDB", "HDB"] {
            let good = "SELECT COUNT(*) FROM M_BACKUP_CATALOG WHERE STATE_NAME = 'successful' AND COMMENT";
            let count = played.sql(database, &format!("{good} = 'hostler run {run}'"));
            assert_eq!(count, "1", "{point}: {database}");
        }
    }
}

#[test]
fn a_takeover_goes_on_and_one_host_rules() {
    let (one, two) = two();
    replicate(&one, &two);
    let takeover = ["--hostname", "h2", "takeover", "--primary-key", "OTHER", "--run", "T1"];
    two.fault("crash*1 replication.suspended");
    assert_ne!(two.run(&takeover).code(), 0);
    two.fault("crash*1 replication.taken");
    let second = two.run(&takeover).code();
    assert_eq!(fired(&two), 1, "it was not reached: {second}");
    two.fault("");
    assert_eq!(two.run(&takeover).code(), 0);
    assert_eq!((two.run(&["takeover", "--probe"]).code(), two.rows().as_str()), (0, "1"));
    assert!(one.try_sql("HDB", "INSERT INTO T VALUES (2)").is_err(), "the former primary writes nothing");
    two.sql("HDB", "INSERT INTO T VALUES (3)");
    assert_eq!(two.rows(), "1 3");
}
