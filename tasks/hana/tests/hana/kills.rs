//! SAP's tools, the step and its executor die at crash points, one after another: the same run is repeated until it has its
//! end, and the rows and the catalog say that nothing was done twice. Restores whose tool dies are in `restore`.

use std::fs;

use hostler_testkit::{Host as Agent, Vault, eventually};
use serde_json::{Value, json};

use crate::agent::{LONG, install};
use crate::pair::{replicate, two};
use crate::played::{PASSWORD, Played, until};

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

/// The step is killed at the point, and SAP's tool goes on by itself.
fn killed(host: &Played, point: &str, arguments: &[&str]) {
    host.fault(&format!("kill-step*1 {point}"));
    let answer = host.run(arguments);
    assert_eq!(answer.code(), -1, "{point}: {}", answer.err());
    assert!(
        fs::read_to_string(host.path("/.hana-standins/faults")).unwrap().contains("kill-step*0"),
        "{point}"
    );
    host.fault("");
}

/// Repeats it until it has its end; until then it is refused, or says what it cannot tell.
fn repeated(host: &Played, what: &str, arguments: &[&str]) {
    until(what, || {
        let answer = host.run(arguments);
        assert!([0, 4, 5, 6].contains(&answer.code()), "{what}: {}", answer.err());
        answer.code() == 0
    });
}

/// Waits until no hdblcm of this host is at work.
fn alone(played: &Played) {
    let own = |pid: &std::path::Path| fs::read(pid.join("cmdline")).is_ok_and(|line| !line.is_empty());
    until("no hdblcm is at work", || {
        let entries = fs::read_dir(played.path("/proc")).unwrap().flatten();
        !entries.filter(|entry| entry.path().is_symlink()).any(|entry| own(&entry.path()))
    });
}

/// Without its reader hdblcm ends when it next says something, or goes on to its end: both are an update that goes on.
#[test]
fn a_killed_step_makes_no_second_update() {
    for point in ["stop", "switch"] {
        let played = Played::with_system("h1");
        played.sql("HDB", "CREATE TABLE T (N INTEGER)");
        played.sql("HDB", "INSERT INTO T VALUES (1)");
        assert_eq!(played.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
        let update = ["update", "--media", "/media/2.00.079.00"];
        killed(&played, &format!("hdblcm.update.{point}"), &update);
        repeated(&played, point, &update);
        assert!(played.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").contains("2.00.079.00"));
        let updates = played.calls().matches("--action=update").count();
        assert!(updates <= 2, "{point}: {updates}");
        repeated(&played, point, &update);
        assert_eq!(
            (played.rows(), played.calls().matches("--action=update").count()),
            ("1".to_owned(), updates)
        );
    }
}

/// An update whose system ended with its executor: the same run starts it, and no other one does.
#[test]
fn a_system_that_an_update_left_stopped_is_started_by_its_run_alone() {
    let played = Played::with_system("h1");
    assert_eq!(played.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
    let update = |run: &str| played.run(&["update", "--media", "/media/2.00.079.00", "--run", run]);
    killed(&played, "hdblcm.update.finish", &["update", "--media", "/media/2.00.079.00", "--run", "U1"]);
    alone(&played);
    played.tool("/usr/sap/HDB/HDB00/HDB", &["kill"], "");
    until("it is down", || played.sapcontrol("GetProcessList") == Some(4));
    let answer = update("U2");
    assert!(answer.code() == 6 && answer.err().contains("not all of its processes run"), "{}", answer.err());
    assert_eq!(played.sapcontrol("GetProcessList"), Some(4), "somebody may have stopped it");
    let answer = update("U1");
    assert_eq!((answer.code(), played.sapcontrol("GetProcessList")), (0, Some(3)), "{}", answer.err());
    assert_eq!(update("U2").code(), 0);
}

#[test]
fn a_killed_step_makes_no_second_installation() {
    for undone in [false, true] {
        let played = Played::new("h1");
        let install = ["--number", "00", "install", "--media", "/media/2.00.077.00", "--run", "I1"];
        killed(&played, "hdblcm.install.create", &install);
        let folders =
            || ["/hana/shared/HDB", "/usr/sap/HDB"].iter().any(|folder| played.path(folder).exists());
        if undone {
            // It waits for an hdblcm that is still at work, and takes away what that has made, or says that it cannot.
            let answer = played.run(&[&install[..], &["--undo"]].concat());
            match answer.code() {
                0 => assert!(!folders()),
                code => assert!(
                    code == 4 && folders() && answer.err().contains("look at its log"),
                    "{}",
                    answer.err()
                ),
            }
        } else {
            alone(&played);
            let answer = played.run(&install);
            assert!(
                answer.code() == 0 || answer.code() == 6 && answer.err().contains("HDB"),
                "{}",
                answer.err()
            );
        }
        assert_eq!(played.calls().matches("--action=install").count(), 1);
    }
}

#[test]
fn a_killed_step_makes_no_second_backup_and_no_second_recovery() {
    let played = Played::with_system("h1");
    let instant = played.with_history("file");
    for (at, point) in ["noted", "volume", "recorded"].iter().enumerate() {
        let run = format!("K{at}");
        let backup = ["backup", "--run", &run, "--to", "file", "--timeout", "1s"];
        killed(&played, &format!("backup.{point}"), &backup);
        repeated(&played, point, &backup);
        for database in ["SYSTEMDB", "HDB"] {
            let good = "SELECT COUNT(*) FROM M_BACKUP_CATALOG WHERE COMMENT";
            assert_eq!(
                played.sql(database, &format!("{good} = 'hostler run {run}'")),
                "1",
                "{point}: {database}"
            );
        }
    }
    let recoveries = |of: &str| played.calls().lines().filter(|line| line.contains(of)).count();
    for point in ["read", "written", "started"] {
        let run = format!("R-{point}");
        let restore = ["restore", "--run", &run, "--to", &instant, "--from", "file", "--database", "HDB"];
        let before = recoveries("RECOVER DATABASE FOR HDB");
        killed(&played, &format!("recovery.{point}"), &restore);
        repeated(&played, point, &restore);
        assert_eq!(played.rows(), "1 2", "{point}");
        played.sql("HDB", "INSERT INTO T VALUES (9)");
        repeated(&played, point, &restore);
        assert_eq!(
            (played.rows().as_str(), recoveries("RECOVER DATABASE FOR HDB")),
            ("1 2 9", before + 1),
            "{point}"
        );
    }
    // SYSTEMDB with the whole system, and its tenant.
    let restore = ["restore", "--run", "R-all", "--to", &instant, "--from", "file"];
    killed(&played, "recovery.written", &restore);
    repeated(&played, "all of it", &restore);
    assert_eq!((played.rows().as_str(), recoveries("recoverSys.py")), ("1 2", 1));
}

/// Whatever is killed behind the suspension: one host rules, and the former primary writes nothing.
fn one_rules(one: &Played, two: &Played) {
    assert_eq!((two.run(&["takeover", "--probe"]).code(), two.rows().as_str()), (0, "1"));
    assert!(one.try_sql("HDB", "INSERT INTO T VALUES (2)").is_err(), "the former primary writes nothing");
    two.sql("HDB", "INSERT INTO T VALUES (3)");
    assert_eq!(two.rows(), "1 3");
}

#[test]
fn a_killed_step_makes_no_second_primary() {
    let (one, two) = two();
    replicate(&one, &two);
    let takeover = ["--hostname", "h2", "takeover", "--primary-key", "OTHER", "--run", "T1"];
    killed(&two, "replication.suspended", &takeover);
    repeated(&two, "the takeover", &takeover);
    one_rules(&one, &two);
}

#[test]
fn a_killed_executor_makes_no_second_primary() {
    let (one, two) = two();
    replicate(&one, &two);
    let mut host = Agent::on_dir("db2");
    install(&host, &two);
    host.start();
    let params = json!({"sid": "HDB", "hostname": "h2", "primary_key": "OTHER"});
    let order = json!({"task": "hana-takeover", "params": params});
    let phases = through_a_death(&host, &two, "takeover", order, "replication.suspended");
    assert_eq!(phases, ["succeeded"], "it goes on by itself");
    one_rules(&one, &two);
}

/// Places an order whose executor is killed at the point, and waits until it has its end or asks an operator, whose `retry`
/// gives it one: every phase of these. What an operator is asked says what to look at.
fn through_a_death(host: &Agent, played: &Played, name: &str, order: Value, point: &str) -> Vec<String> {
    played.fault(&format!("kill-executor*1 {point}"));
    host.order(name, &order.to_string());
    let mut phases: Vec<String> = Vec::new();
    eventually(LONG, || {
        let Some(report) = host.report(name) else { return Err("no report".to_owned()) };
        let phase = report["phase"].as_str().unwrap_or_default().to_owned();
        let said = |field: &str| report[field].as_str().is_some_and(|text| !text.is_empty());
        match phase.as_str() {
            "needs_operator" if !phases.contains(&phase) => {
                assert!(said("error") && said("message"), "{report}");
                let (code, text) = host.hostler(&["retry", name, "--host", host.name()]);
                assert_eq!(code, 0, "{text}");
                phases.push(phase);
                Err("retried".to_owned())
            }
            "undo_failed" => {
                assert!(
                    report["error"].as_str().is_some_and(|text| text.contains("look at its log")),
                    "{report}"
                );
                phases.push(phase);
                Ok(())
            }
            "succeeded" | "undone" => {
                phases.push(phase);
                Ok(())
            }
            _ => Err(format!("{report}; {}", host.log_tail())),
        }
    });
    let left = fs::read_to_string(played.path("/.hana-standins/faults")).unwrap();
    assert!(left.contains("kill-executor*0"), "{point} was not reached");
    played.fault("");
    phases
}

/// A host whose agent has the passwords of the system.
fn agent_of(played: &Played, vault: &Vault) -> Agent {
    vault.policy("agent", &[("secret/data/hana/*", &["read"]), ("auth/token/create", &["update"])]);
    let passwords =
        json!({"sidadm_password": PASSWORD, "system_password": PASSWORD, "sapadm_password": PASSWORD});
    vault.put("hana/db1/HDB", passwords);
    let mut host = Agent::on_vault("db1", vault, "");
    install(&host, played);
    host.start();
    host
}

fn media(version: &str) -> Value {
    json!({"sid": "HDB", "number": "00", "media": format!("/media/{version}"), "mount": "secret"})
}

/// The executor of an order is killed in the middle of each change: nothing is done twice.
#[test]
fn a_killed_executor_does_nothing_twice() {
    let vault = Vault::double();
    let played = Played::with_system("h1");
    let host = agent_of(&played, &vault);
    let through = |task: &str, params: Value, point: &str| {
        through_a_death(&host, &played, task, json!({"task": task, "params": params}), point)
    };
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    let phases = through("hana-backup", json!({"sid": "HDB", "to": "file"}), "backup.volume");
    assert_eq!(phases, ["succeeded"], "a backup needs no operator");
    let run = host.report("hana-backup").unwrap()["run"].as_str().unwrap().to_owned();
    for database in ["SYSTEMDB", "HDB"] {
        let mine = "SELECT COUNT(*) FROM M_BACKUP_CATALOG WHERE STATE_NAME = 'successful' AND COMMENT";
        assert_eq!(played.sql(database, &format!("{mine} = 'hostler run {run}'")), "1", "{database}");
    }
    let phases = through("hana-update", media("2.00.079.00"), "hdblcm.update.switch");
    assert_eq!(phases, ["succeeded"], "an update goes on from hdblcm's own state");
    assert!(played.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").contains("2.00.079.00"));
    // What is in no backup is gone, and what is in one is there.
    played.set("persistence", "log_backup_timeout_s", "9000000");
    played.sql("HDB", "INSERT INTO T VALUES (2)");
    let restore = json!({"sid": "HDB", "from": "file", "to": "latest", "databases": ["HDB"]});
    let phases = through("hana-restore", restore, "recovery.written");
    assert_eq!(phases, ["succeeded"], "a restore needs no operator");
    assert_eq!(played.rows(), "1");
}

/// Half an installation is taken back, or an operator is asked; it is never taken for a whole one.
#[test]
fn a_killed_executor_leaves_no_half_installation_unsaid() {
    let vault = Vault::double();
    let played = Played::new("h1");
    let host = agent_of(&played, &vault);
    let order = json!({"task": "hana-install", "params": media("2.00.077.00")});
    let phases = through_a_death(&host, &played, "install", order, "hdblcm.install.create");
    let there = ["/hana/shared/HDB", "/usr/sap/HDB"].iter().any(|folder| played.path(folder).exists());
    match phases.last().map(String::as_str) {
        Some("undone") => assert!(!there),
        Some("undo_failed") => assert!(there),
        _ => assert_eq!(played.run(&["start", "--probe"]).code(), 0, "{phases:?}"),
    }
    assert_eq!(played.calls().matches("--action=install").count(), 1);
}
