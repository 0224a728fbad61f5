//! What `upgrade check` finds: everything at once, and nothing on a database that has nothing.

use std::collections::BTreeMap;

use hostler_testkit::{eventually, free_ports};
use serde_json::Value;

use crate::kit::{Lab, SOON, as_postgres, json, output};

fn check(lab: &Lab, port: u16) -> (i32, Value) {
    let words = lab.plan(&["check", "--json"], port);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    json(&mut lab.program(&words))
}

/// What was found, by its text: severity and examples.
fn found(report: &Value) -> BTreeMap<String, (String, String)> {
    let findings = report["findings"].as_array().expect("findings");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings.iter().map(|f| (text(f, "what"), (text(f, "severity"), text(f, "examples")))).collect()
}

#[test]
fn everything_that_stands_in_the_way_is_found_at_once() {
    let mut lab = Lab::new();
    let port = lab.cluster(
        13,
        "max_prepared_transactions = 2\nvacuum_cleanup_index_scale_factor = 0.2\nmax_slot_wal_keep_size = '10GB'\n\
         max_replication_slots = 4\nmax_wal_senders = 3\nmax_logical_replication_workers = 1\n\
         max_worker_processes = 2\narchive_mode = on\narchive_command = '/bin/false'\n\
         shared_preload_libraries = 'auto_explain'\nsynchronous_standby_names = ''",
    );
    lab.sql(port, "postgres", "create database nasty");
    lab.sql(port, "nasty", include_str!("nasty.sql"));
    lab.bouncer(&["nasty"], port, "session");
    // A port that somebody listens at.
    let [taken] = free_ports();
    let listener = std::net::TcpListener::bind(("127.0.0.1", taken)).expect("the port");
    let (status, report) = check(&lab, taken);
    drop(listener);
    assert_eq!(status, 1, "{report}");
    let found = found(&report);
    let expected = [
        (
            "block",
            "table without a replica identity",
            &["keyless", "no_identity", "late_key", "by_index"][..],
        ),
        ("block", "table that belongs to an extension", &["lent"]),
        ("know", "table with REPLICA IDENTITY FULL", &["whole_row"]),
        ("know", "unlogged table", &["scratch"]),
        ("do", "sequence:", &["loose", "Good"]),
        ("do", "materialized view", &["summary"]),
        ("block", "foreign table", &["remote"]),
        ("block", "large objects", &["1"]),
        ("block", "trigger that is ENABLE ALWAYS", &["always on public.measured"]),
        ("block", "rule that is ENABLE ALWAYS", &["copied on public.late_key"]),
        ("block", "event trigger", &["listener"]),
        ("know", "generated column", &["kelvin"]),
        (
            "know",
            "column that holds object identifiers",
            &["handler regproc", "class regclass", "number oid"],
        ),
        ("know", "extension:", &["postgres_fdw"]),
        ("block", "publication:", &["feed"]),
        ("block", "subscription:", &["inbound"]),
        ("block", "transaction prepared", &["half-way"]),
        ("block", "postfix operator", &["!+"]),
        ("block", "aggregate on an array function", &["gathered"]),
        ("block", "operator on an array function", &["|||"]),
        ("block", "conversion of encodings", &["latin_again"]),
        ("know", "view on system catalogs", &["activity"]),
        ("know", "constraint that was never checked", &["warm"]),
        ("know", "foreign server", &["elsewhere"]),
        ("block", "replication slot:", &["forgotten"]),
        ("block", "too few free replication slots", &["4 in all"]),
        ("block", "too few free senders", &["3 in all"]),
        ("block", "too few workers for the way back", &["1 in all"]),
        ("block", "too few background workers", &["2 in all"]),
        ("know", "max_slot_wal_keep_size", &["10240"]),
        ("block", "database that allows no connections", &["closed"]),
        ("do", "setting of a role or database", &["nasty/reader"]),
        ("do", "role:", &["reader"]),
        ("know", "WAL archiving", &["on"]),
        ("know", "preloaded library:", &["auto_explain"]),
        ("do", "setting that version 15 does not take", &["vacuum_cleanup_index_scale_factor"]),
        ("block", &format!("port {taken} is taken"), &[]),
        ("block", "pool_mode of pgbouncer", &["nasty: session"]),
    ];
    for (severity, what, examples) in expected {
        let hit = found.iter().find(|(text, _)| text.starts_with(what));
        let (_, (is, shown)) = hit.unwrap_or_else(|| panic!("{what}: not found in {found:#?}"));
        assert_eq!(is, severity, "{what}");
        for example in examples {
            assert!(shown.contains(example), "{what}: {example} is not in {shown}");
        }
    }
    let identity = &found.iter().find(|(text, _)| text.starts_with("table without")).expect("it").1.1;
    assert!(!identity.contains("whole_row") && !identity.contains("Good"), "{identity}");
    assert!(
        !found.values().any(|(_, examples)| examples.contains("observer") || examples.contains("plain on"))
    );
    // Seen by people as well, in one go, and nothing was changed: the second look finds the same.
    let words = lab.plan(&["check"], taken + 1);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (status, table, said) = output(&mut lab.program(&words));
    assert_eq!(status, 1, "{said}");
    assert!(table.contains("SEVERITY") && table.contains("listener"), "{table}");
    assert!(said.contains("kinds of things block the upgrade"), "{said}");
}

#[test]
fn a_database_in_order_is_let_through_and_a_setting_or_a_session_refused() {
    let mut lab = Lab::new();
    let port = lab.cluster(13, "");
    lab.sql(port, "postgres", "create database shop");
    lab.sql(port, "shop", "create table orders (id bigserial primary key, what text)");
    lab.bouncer(&["shop"], port, "transaction");
    let [free] = free_ports();
    let (status, report) = check(&lab, free);
    assert_eq!(status, 0, "{report}");
    assert!(!report.to_string().contains("\"block\""), "{report}");
    // A session of the role that the fence lets in is made known.
    let mut sleeper = as_postgres("/usr/lib/postgresql/15/bin/psql");
    let run = lab.path("run");
    sleeper.stderr(std::process::Stdio::null()).arg("-h").arg(&run).args([
        "-p",
        &port.to_string(),
        "-XqAt",
        "-c",
        "select pg_sleep(600)",
    ]);
    let mut sleeper = sleeper.spawn().expect("psql");
    eventually(SOON, || {
        let report = check(&lab, free).1;
        report.to_string().contains("session of the role postgres").then_some(()).ok_or(report.to_string())
    });
    lab.sql(
        port,
        "postgres",
        "select pg_terminate_backend(pid) from pg_stat_activity where query ~ '^select pg_sleep'",
    );
    sleeper.wait().expect("psql");
    // What waits for a restart.
    let conf = lab.conf(13).join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).expect("the configuration").replace("wal_level = logical", "");
    std::fs::write(&conf, text).expect("the configuration");
    lab.run("pg_ctlcluster", &["13", lab.name(), "restart"]);
    let (status, report) = check(&lab, free);
    assert_eq!(status, 1);
    let found = found(&report);
    let (severity, example) = &found["wal_level has to be logical: set it and restart the cluster"];
    assert_eq!((severity.as_str(), example.as_str()), ("block", "it is replica"));
    // A server that is down is no cluster in order.
    lab.run("pg_ctlcluster", &["13", lab.name(), "stop"]);
    let words = lab.plan(&["check"], free);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (status, _, said) = output(&mut lab.program(&words));
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("no login") && said.trim().lines().count() == 1, "{said}");
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    let mut lab = Lab::new();
    let port = lab.cluster(15, "");
    lab.bouncer(&["shop"], port, "transaction");
    let words = lab.plan(&["check"], 1);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    // 15 is not older than 15.
    let (status, _, said) = output(&mut lab.program(&words));
    assert_eq!(status, 5, "{said}");
    assert!(said.contains("there is no cluster"), "{said}");
    let words: Vec<_> = words.iter().map(|&word| if word == "15" { "12" } else { word }).collect();
    assert_eq!(output(&mut lab.program(&words)).0, 2);
    let (status, _, said) = output(&mut lab.program(&["health", "--cluster", "nothing_here"]));
    assert_eq!(status, 5, "{said}");
}
