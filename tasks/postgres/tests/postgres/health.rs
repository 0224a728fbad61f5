//! What `health` finds, on a cluster that is well and on one that is not.

use hostler_testkit::eventually;
use serde_json::Value;

use crate::kit::{Lab, SOON, json, output};

fn health(lab: &Lab) -> (i32, Value) {
    json(&mut lab.program(&["health", "--cluster", lab.name(), "--json"]))
}

fn finding<'a>(report: &'a Value, probe: &str) -> Option<&'a Value> {
    report["findings"].as_array()?.iter().find(|finding| finding["probe"] == probe)
}

#[test]
fn what_hurts_is_found_with_its_numbers() {
    for version in [13, 15] {
        let lab = Lab::new();
        let port = lab.cluster(
            version,
            "archive_mode = on\narchive_command = '/bin/false'\nmax_connections = 10\n\
             superuser_reserved_connections = 8\nmax_wal_senders = 2",
        );
        lab.sql(port, "postgres", "create database \"odd \"\"name\"");
        let database = "odd \"name";
        lab.sql(
            port,
            database,
            "create table small (id smallserial primary key, name text); select setval('small_id_seq', 31998);
             create sequence wide; select setval('wide', 32000);
             insert into small (name) values ('a'), ('a');",
        );
        let failed = lab.psql(port, database, "create unique index concurrently twice on small (name)");
        assert!(!failed.status.success());
        lab.sql(
            port,
            "postgres",
            "select pg_create_physical_replication_slot('left', true); select pg_switch_wal()",
        );
        lab.sql(port, "postgres", "alter system set shared_buffers = '20MB'; select pg_reload_conf()");
        eventually(SOON, || {
            let report = health(&lab).1;
            let both = finding(&report, "archiving").is_some() && finding(&report, "restart").is_some();
            both.then_some(()).ok_or_else(|| report.to_string())
        });
        let (status, report) = health(&lab);
        let text = |probe: &str, key: &str| {
            let finding = finding(&report, probe).unwrap_or_else(|| panic!("{probe}: {report:#}"));
            finding[key].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(text("invalid indexes", "subject"), "public.twice");
        assert_eq!(text("invalid indexes", "database"), database);
        assert_eq!(text("sequences", "subject"), "public.small_id_seq");
        assert_eq!(text("sequences", "text"), "32000 of 32767 are used");
        assert_eq!(text("sequences", "level"), "bad");
        assert_eq!(status, 1, "something is bad");
        assert_eq!(text("slots", "subject"), "left");
        assert_eq!(text("restart", "subject"), "shared_buffers");
        assert!(text("archiving", "text").contains("times in all"));
        assert!(!text("slots", "statement").is_empty());
        assert!(finding(&report, "wraparound").is_none());
        assert!(!report.to_string().contains("unknown"), "every probe is answered: {report:#}");
        assert!(!report.to_string().contains("wide"), "{report:#}");
        let (status, page, _) = output(&mut lab.program(&["health", "--cluster", lab.name(), "--html"]));
        assert!(
            status == 1 && page.starts_with("<!doctype html>") && page.contains("odd &quot;name"),
            "{page}"
        );
        let (status, table, said) = output(&mut lab.program(&["health", "--cluster", lab.name()]));
        assert_eq!(status, 1);
        let mut lines = table.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("LEVEL")), "{table}");
        assert!(lines.next().is_some_and(|line| line.starts_with("bad")), "the worst is first: {table}");
        // An archiver that has failed often enough is bad, too: how often it has by now is the machine's affair.
        let bad = table.lines().filter(|line| line.starts_with("bad")).count();
        assert!(matches!(bad, 1 | 2) && said.contains(&format!(" {bad} bad")), "{table}{said}");
    }
}

#[test]
fn a_cluster_that_is_well_has_no_finding_and_one_that_is_down_is_not_well() {
    let lab = Lab::new();
    lab.cluster(15, "");
    let (status, text, _) = output(&mut lab.program(&["health", "--cluster", lab.name()]));
    assert_eq!((status, text.trim()), (0, format!("15/{}: nothing hurts", lab.name()).as_str()));
    // An upgrade that somebody has forgotten.
    let intent = lab.path("state").join(format!("16-{}", lab.name()));
    let text = r#"{"version": 1, "run": "r", "begun": "2020-01-01T00:00:00Z", "clients": 1, "spare": 2, "bouncer": false}"#;
    std::fs::write(&intent, text).expect("the intent");
    let (status, text, _) = output(&mut lab.program(&["health", "--cluster", lab.name()]));
    assert!(status == 0 && text.contains("days ago: finish it, or take it back"), "{status} {text}");
    std::fs::write(&intent, "nonsense").expect("the intent");
    assert_eq!(output(&mut lab.program(&["health", "--cluster", lab.name()])).0, 1, "it is not known");
    lab.run("pg_ctlcluster", &["15", lab.name(), "stop"]);
    let (status, _, said) = output(&mut lab.program(&["health", "--cluster", lab.name()]));
    assert_eq!(status, 4, "{said}");
}
