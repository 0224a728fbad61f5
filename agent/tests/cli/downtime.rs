//! `hostler downtime`: on the host from its record, from afar from the reports of runs, wide and narrow.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use hostler::domain::downtime::totals::DowntimeEntry;
use hostler::domain::downtime::{Day, Downtime, Millis};
use hostler::domain::ids::RunId;
use hostler::ledger::DowntimeRecord;
use insta::assert_snapshot;
use jiff::Timestamp;

use crate::bench::Bench;
use crate::screens::fleet;
use crate::steady::{shown, steady, steady_json};

/// A run that cost a service so much, so many days ago.
fn counted(run: u64, task: &str, days: i32, service: &str, ms: u64) -> DowntimeEntry {
    let downtime =
        Downtime { service: service.parse().unwrap(), seconds: Millis(ms), from: None, to: None, failed: 2 };
    DowntimeEntry::Counted {
        run: RunId::new(1_700_000_000_000 + run, 1),
        task: task.parse().unwrap(),
        order: "change".parse().unwrap(),
        epoch: 1,
        number: u32::try_from(run).unwrap(),
        at: Day::of(Timestamp::now()).plus(-days).begins(),
        downtime,
    }
}

fn remembering() -> Bench {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("state/runs")).unwrap();
    let mut record = DowntimeRecord::open(&bench.path("state")).unwrap();
    let facts = vec![
        counted(1, "postgres-upgrade", 40, "postgres:main", 99_000),
        counted(2, "postgres-upgrade", 20, "postgres:main", 12_345),
        counted(3, "restart-web", 3, "web", 420),
        counted(4, "postgres-upgrade", 0, "postgres:main", 250_000),
    ];
    record.count(facts, &BTreeSet::new()).unwrap();
    let mut config = fs::OpenOptions::new().append(true).open(bench.path("hostler.yml")).unwrap();
    config
        .write_all(
            b"objectives:\n  - {service: \"postgres:*\", target: 99.99, window: 30d}\n  - {service: \"postgres:*\", target: 99.9, window: 1d}\n  - {service: api, target: 99.5, window: 7d}\n",
        )
        .unwrap();
    bench
}

/// Days of the table become words, the ids of fixtures stay.
fn without_days(text: &str) -> String {
    let day = |word: &str| word.len() == 10 && word.parse::<jiff::civil::Date>().is_ok();
    let words: Vec<&str> = text.split(' ').map(|word| if day(word) { "YYYY-MM-DD" } else { word }).collect();
    words.join(" ")
}

#[test]
fn the_record_of_the_host() {
    let bench = remembering();
    for (name, arguments) in [
        ("downtime-here", &["downtime"][..]),
        ("downtime-here-service", &["downtime", "--service", "web", "--window", "7d"]),
        ("downtime-here-none", &["downtime", "--service", "nothing"]),
        ("downtime-here-odd-window", &["downtime", "--window", "36h"]),
    ] {
        assert_snapshot!(name, without_days(&shown(&bench, &bench.run(arguments))));
    }
    for columns in [60, 120] {
        let done = bench.on_terminal_of(columns, &["downtime"]);
        assert!(done.out.lines().all(|line| line.chars().count() <= usize::from(columns)), "{}", done.out);
        assert_snapshot!(format!("downtime-here-{columns}"), without_days(&steady(&bench, &done.out)));
    }
    let document = bench.run(&["downtime", "--json"]).ends(0).fits("downtime");
    assert_snapshot!("json-downtime", steady_json(&bench, document));
    bench.run(&["check"]).says("postgres:* 99.99 % over 30d");
    fs::write(
        bench.path("tasks/good/task.yml"),
        "name: good\nversion: 1\ngates: [{error_budget: {service: web}}]\nsteps: [{name: go, run: [./go]}]\n",
    )
    .unwrap();
    bench.run(&["check"]).says("no objective covers web of task good");
    bench.run(&["task", "lint", "good"]).ends(0).says("no objective of this host covers web");
    fs::write(bench.path("state/downtime"), "nonsense\n").unwrap();
    bench.run(&["check"]).says("is damaged in line 1");
    bench.run(&["downtime"]).ends(3).says("is damaged in line 1");
}

#[test]
fn the_reports_of_a_fleet() {
    let bench = fleet();
    for (host, service, seconds) in
        [("db2", "web", "1.5"), ("db3", "web", "2"), ("db3", "db", "0.25"), ("db1", "web", "9")]
    {
        let path =
            bench.path(&format!("store/hostler/reports/runs/{host}/01JD80000000000000000000{}0", &host[2..]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let at = Timestamp::now();
        let before = fs::read_to_string(&path)
            .ok()
            .and_then(|text| Some(text.split_once("\"downtime\": [")?.1.to_owned()));
        let more = before.map(|before| format!(", {}", before.trim_end_matches("]}"))).unwrap_or_default();
        fs::write(
            path,
            format!(
                r#"{{"version": 1, "order": "o", "task": "t@1", "phase": "succeeded", "started": "{at}", "ended": "{at}", "downtime": [{{"service": "{service}", "seconds": {seconds}}}{more}]}}"#
            ),
        )
        .unwrap();
    }
    let path = bench.path("store/hostler/reports/agents/db3");
    let agent = fs::read_to_string(&path).unwrap();
    let budget = |service: &str, spent: &str| {
        format!(
            r#"{{"service": "{service}", "target": 99.99, "window": "30d", "allowed": 259.2, "spent": {spent}}}"#
        )
    };
    let budgets = format!(r#", "budgets": [{}, {}]}}"#, budget("web", "300.5"), budget("idle", "0"));
    fs::write(&path, format!("{}{budgets}", agent.trim_end().strip_suffix('}').unwrap())).unwrap();
    for (name, arguments) in [
        ("downtime-group", &["downtime", "--group", "hana"][..]),
        ("downtime-host", &["downtime", "--host", "db3"]),
        ("downtime-no-host", &["downtime", "--host", "nobody"]),
    ] {
        assert_snapshot!(name, without_days(&shown(&bench, &bench.run(arguments))));
    }
    bench.run(&["downtime", "--group", "hana", "--json"]).ends(0).fits("downtime");
}
