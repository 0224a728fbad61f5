//! What `upgrade check` finds: everything at once, and nothing on a database that has nothing.

use std::collections::BTreeMap;

use hostler_testkit::{eventually, free_ports};
use serde_json::Value;

use crate::kit::{Lab, SOON, as_postgres, json, output};
use crate::store::Store;

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
    // What it would do, and what clients would feel of it.
    let gap = report["forecast"]["gap_seconds"].as_f64();
    assert!(gap >= Some(0.1) && gap < Some(60.0), "{report}");
    let words = lab.plan(&["done", "upgraded", "--forecast"], free);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (status, text, said) = output(&mut lab.program(&words));
    assert!(status == 1 && text.contains("holds clients for about"), "{status} {text} {said}");
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

/// What cannot be is refused before anything is changed, and the text says what to do.
#[test]
fn bad_input_changes_nothing() {
    let mut store = Store::new();
    let port = store.cluster(15, "").to_string();
    let config = store.lab.path("depot.yml").display().to_string();
    let (name, run) = (store.lab.name().to_owned(), store.lab.path("run").display().to_string());
    store.close();
    let listed = |store: &Store| {
        let listed = store.lab.tool("pg_lsclusters").output().expect("the list").stdout;
        let state = std::fs::read_dir(store.lab.path("state")).expect("the state").count();
        (String::from_utf8_lossy(&listed).into_owned(), state)
    };
    let before = listed(&store);
    let other = format!("{name}x");
    let place = ["--id", "shop", "--depot-config", &config];
    let install = |version, port, name| {
        ["install", "run", "--version", version, "--port", port, "--cluster", name, "--socket", &run].to_vec()
    };
    let restore = |target: &'static str, instant: &'static str| {
        [&["restore", "run", "--cluster", &other, "--port", "1999", target, instant], &place[..]].concat()
    };
    let cases: &[(Vec<&str>, i32, &str)] = &[
        // A cluster that does not exist.
        (vec!["health", "--cluster", "nobody"], 5, "see pg_lsclusters"),
        (vec!["restart", "--cluster", "nobody"], 5, "see pg_lsclusters"),
        (vec!["minor", "--cluster", "nobody"], 5, "see pg_lsclusters"),
        (vec!["switchover", "undo", "--cluster", "nobody"], 5, "see pg_lsclusters"),
        (vec!["upgrade", "prepare", "--cluster", "nobody", "--to", "16"], 5, "see pg_lsclusters"),
        (vec!["link", "prepare", "--cluster", "nobody", "--to", "16"], 5, "see pg_lsclusters"),
        ([&["backup", "setup", "--cluster", "nobody"], &place[..]].concat(), 5, "see pg_lsclusters"),
        // A version that is none, that is not newer, that is not installed.
        (vec!["upgrade", "prepare", "--cluster", &name, "--to", "newest"], 2, "invalid digit"),
        (vec!["upgrade", "prepare", "--cluster", &name, "--to", "12"], 2, "is not in 14..100"),
        (vec!["upgrade", "prepare", "--cluster", &name, "--to", "15"], 5, "from 13 to before 15"),
        (vec!["link", "prepare", "--cluster", &name, "--to", "15"], 5, "from 13 to before 15"),
        (vec!["link", "prepare", "--cluster", &name, "--to", "98"], 6, "install postgresql-98"),
        (vec!["upgrade", "check", "--cluster", &name, "--to", "98"], 1, "block the upgrade"),
        (install("97", "1999", &other), 6, "install postgresql-97"),
        // A port in use, and one that is none.
        (install("15", &port, &other), 6, "say another"),
        (install("15", "0", &other), 2, "0 is not in 1.."),
        (install("15", "1999", "a-b"), 2, "a name of a-z, 0-9 and _"),
        (install("15", "1999", &name), 6, "is not touched"),
        // An instant in the future, and a depot that does not answer.
        (restore("--time", "2100-01-01T00:00:00Z"), 6, "or an instant that has"),
        (restore("--time", "yesterday"), 2, "yesterday"),
        (restore("--lsn", "here"), 2, "no place in the WAL"),
        (restore("--time", "2026-01-01T00:00:00Z"), 4, ""),
        ([&["backup", "run", "--cluster", &name], &place[..]].concat(), 4, ""),
        ([&["drill"], &place[..]].concat(), 4, ""),
    ];
    for (words, status, why) in cases {
        let (ended, _, said) = output(&mut store.program(words));
        assert!(ended == *status && said.contains(why), "{words:?} {why}: {ended} {said}");
        // What clap says of an argument has several lines.
        let reasons = said.lines().filter(|line| line.starts_with("hostler-postgres: ")).count();
        assert!(ended == 2 || reasons == 1, "{words:?}: {said}");
    }
    // Locks may be left, and nothing else.
    let after = listed(&store);
    let locks = std::fs::read_dir(store.lab.path("state")).expect("the state").flatten();
    let locks = locks.filter(|entry| entry.file_name().to_string_lossy().starts_with("lock-")).count();
    assert_eq!((after.0, after.1 - locks), before);
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
