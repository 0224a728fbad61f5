//! `fact`: what the fleet sees of one system, and of all systems of a host.

use std::fs;
use std::time::{Duration, Instant};

use hostler_testkit::{Host as Agent, eventually};
use serde_json::{Value, json};

use crate::host::{Answer, Host};
use crate::pair::{replicate, run, two};
use crate::played::Played;

#[test]
fn of_one_system() {
    let fact = Host::healthy().run(&["fact"]).json();
    assert_eq!(fact["version"], "2.00.077.00");
    assert_eq!((&fact["running"], &fact["role"]), (&Value::Bool(true), &Value::from("none")));
    assert_eq!(fact["tenants"], json!(["HDB"]));
    assert!(fact["backup"].is_string() && fact["unclear"].is_null(), "{fact:#}");
    let host = Host::healthy();
    host.script("usr/sap/HDB/HDB00/exe/sapcontrol", "exit 0");
    let fact = host.run(&["fact"]).json();
    assert!(fact["running"].is_null(), "{fact:#}");
    assert!(fact["unclear"][0].as_str().unwrap().starts_with("processes: "), "{fact:#}");
    let fact = Host::empty().run(&["fact", "--number", "00"]).json();
    assert_eq!(fact, json!({"sid": "HDB", "number": "00", "installed": false}));
    assert_eq!(Host::empty().run(&["fact"]).code(), 3);
}

fn systems(host: &Host) -> Value {
    Answer::of(host.command_of_host(&["fact"]).output().unwrap()).json()["systems"].clone()
}

#[test]
fn of_all_systems_of_a_host() {
    assert_eq!(systems(&Host::empty()), json!({}));
    let host = Host::healthy();
    let line = |sid: &str| {
        format!("/usr/sap/{sid}/HDB02/exe/sapstartsrv pf=/usr/sap/{sid}/SYS/profile/{sid}_HDB02_east1 -D\n")
    };
    host.file("usr/sap/sapservices", &format!("#!/bin/sh\n{}", line("GON")));
    for number in ["10", "11"] {
        host.file(&format!("usr/sap/QA1/HDB{number}/exe/manifest"), "");
    }
    let all = systems(&host);
    assert_eq!((&all["HDB"]["role"], &all["HDB"]["running"]), (&json!("none"), &json!(true)), "{all:#}");
    assert_eq!(all["GON"], json!({"sid": "GON", "number": "02", "installed": false}));
    assert_eq!(all["QA1"], json!({"sid": "QA1", "unclear": ["number: it has the instances 10, 11"]}));
    // What cannot be read is no host without systems.
    host.file("usr/sap/sapservices", &"x".repeat(1_100_000));
    let answer = Answer::of(host.command_of_host(&["fact"]).output().unwrap());
    let fact = answer.json();
    assert!(answer.code() == 0 && fact["unclear"].to_string().contains("larger than 1 MiB"), "{fact}");
}

#[test]
fn it_does_not_wait_for_what_hangs() {
    let host = Host::healthy();
    let hangs = "trap '' TERM; sleep 1000 & wait; wait";
    for tool in ["usr/sap/HDB/HDB00/exe/hdbsql", "usr/sap/HDB/HDB00/exe/sapcontrol"] {
        host.script(tool, hangs);
    }
    let begun = Instant::now();
    let fact = &systems(&host)["HDB"];
    // The agent gives a fact 10 s.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((&fact["version"], &fact["role"]), (&json!("2.00.077.00"), &json!("none")), "{fact:#}");
    assert!(fact["running"].is_null() && fact["tenants"].is_null() && fact["backup"].is_null(), "{fact:#}");
    let why: Vec<_> = fact["unclear"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
    assert!(why[0].starts_with("processes: no end within the time-out"), "{why:?}");
    assert!(why.iter().any(|why| why.starts_with("databases: ")), "{why:?}");
    assert!(why.iter().any(|why| why.starts_with("backups: ")), "{why:?}");
}

/// The fact of the host's HDB.
fn of(host: &Played) -> Value {
    host.run_of_host(&["fact"]).json()["systems"]["HDB"].clone()
}

#[test]
fn of_a_pair_that_replicates() {
    let (one, two) = two();
    assert_eq!(of(&one)["backup"], Value::Null, "an active database has no backup");
    replicate(&one, &two);
    let (primary, secondary) = (of(&one), of(&two));
    assert_eq!((&primary["role"], &primary["site"]), (&json!("primary"), &json!("EAST")), "{primary:#}");
    assert_eq!(primary["replication"], "active", "{primary:#}");
    assert!(primary["backup"].is_string() && primary["tenants"] == json!(["HDB"]), "{primary:#}");
    assert_eq!(
        (&secondary["role"], &secondary["site"]),
        (&json!("secondary"), &json!("WEST")),
        "{secondary:#}"
    );
    assert!(secondary["tenants"].is_null() && secondary["unclear"].is_null(), "{secondary:#}");
    one.fault("replication-status 11");
    assert_eq!(of(&one)["replication"], "error");
    one.fault("");
    assert_eq!(run(&two, "h2", &["stop"]).0, 0);
    assert_eq!((&of(&two)["running"], &of(&two)["role"]), (&json!(false), &json!("secondary")));
}

/// The file of the fact as it is shipped, but for the program's path.
#[test]
fn the_agent_reports_it() {
    let played = Played::with_system("h1");
    let mut host = Agent::on_dir("db1");
    crate::agent::install(&host, &played);
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/facts/hana.yml")).unwrap();
    let program = host.path("hostler-hana").display().to_string();
    host.fact("hana.yml", &shipped.replace("/usr/bin/hostler-hana", &program), &[]);
    host.start();
    let hana = eventually(Duration::from_secs(60), || match host.facts_report() {
        Some(report) if report["facts"]["hana"].is_object() => Ok(report["facts"]["hana"].clone()),
        other => Err(format!("{other:?}")),
    });
    let system = &hana["systems"]["HDB"];
    assert_eq!((&system["version"], &system["running"]), (&json!("2.00.077.00"), &json!(true)), "{hana:#}");
}
