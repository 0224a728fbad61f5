//! A fleet of a thousand hosts, as an operator asks for it: who did not do it, and why. The program is the one that ships.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use hostler_testkit::Consul;
use hostler_testkit::fleet::{GROUP, ORDER, Standings, simulate, simulate_runs};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

/// The most that a question about a thousand hosts may take, in KiB.
const MOST: i64 = 30 << 10;

fn shipped() -> PathBuf {
    std::env::var_os("HOSTLER_RELEASE").map(PathBuf::from).expect("HOSTLER_RELEASE: the program that ships")
}

fn ask(consul: &Consul, words: &[&str]) -> Output {
    let mut command = Command::new(shipped());
    command.args(words).env("CONSUL_HTTP_ADDR", consul.address()).stdin(Stdio::null());
    command.output().expect("the program")
}

#[test]
fn a_thousand_hosts_are_told_apart_and_cost_little() {
    let consul = Consul::dev();
    let expected = simulate(&consul, &shipped(), 1000);

    let output = ask(&consul, &["status", ORDER, "--group", GROUP, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["all_done"], false);
    let hosts = answer["hosts"].as_array().expect("hosts");
    let count = |standing: &str| hosts.iter().filter(|host| host["status"] == standing).count();
    let found = Standings {
        done: count("done"),
        failed: count("failed"),
        running: count("running"),
        waiting: count("waiting"),
        not_seen: count("no_report"),
        silent: count("stale"),
    };
    assert_eq!(found, expected);
    assert_eq!(hosts.len(), 1000);

    // Each host has a line of its own, and each that did not do it says why.
    let table = ask(&consul, &["status", ORDER, "--group", GROUP, "--quiet"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert_eq!(table.lines().count(), 1 + 1000 - expected.done, "{table}");
    assert_eq!(table.matches("no space left on device").count(), expected.failed);
    assert_eq!(table.matches("the agent has never reported").count(), expected.not_seen);
    assert_eq!(table.matches("stale since 2020-01-01T00:00:00Z; it said: running").count(), expected.silent);

    // What they say of themselves.
    let said = 1000 - expected.not_seen;
    let all = ask(&consul, &["facts", "--json"]);
    let answer: Value = serde_json::from_slice(&all.stdout).expect("JSON");
    assert_eq!(answer["hosts"].as_array().map(Vec::len), Some(said));
    let words = ["facts", "--group", GROUP, "--where", "hana.role == 'primary' and labels.site == 'site3'"];
    let table = ask(&consul, &words);
    let found: std::collections::BTreeSet<String> = String::from_utf8_lossy(&table.stdout)
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    let wanted = (0..1000).filter(|n| n % 2 == 0 && n % 7 == 3 && n % 20 != 19);
    assert_eq!(found, wanted.map(|n| format!("db{n:04}")).collect());

    // Which runs failed, what waits, and what was asked for.
    let lines = |words: &[&str]| {
        let out = ask(&consul, words).stdout;
        String::from_utf8_lossy(&out).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let failed = lines(&["runs", "--group", GROUP, "--failed", "-n", "1000"]);
    assert_eq!(failed.len(), expected.failed, "{failed:?}");
    assert_eq!(lines(&["runs"]).len(), 20, "the newest twenty of all");
    let waiting = lines(&["status", "--waiting"]);
    // A blank line and the sum are below the list.
    assert_eq!(waiting.len(), expected.waiting + 2, "{waiting:?}");
    assert_eq!(lines(&["order", "list"]).len(), 1);
    let asked = lines(&["audit", "--group", GROUP, "--by", "alice", "-n", "0"]);
    assert_eq!(asked.len(), 1000 - expected.not_seen);
    let frozen = lines(&["audit", "--group", GROUP, "--by", "carol", "-n", "0"]);
    assert_eq!(frozen.len(), 1000 - expected.not_seen);
    assert_eq!(lines(&["audit", "--group", GROUP, "--by", "bob"]).len(), 50, "the newest fifty of all");
    let printed = ask(&consul, &["logs", ORDER, "--group", GROUP, "--failed", "-n", "1"]).stdout;
    assert_eq!(String::from_utf8_lossy(&printed).matches("==> db").count(), expected.failed);
    let same = ask(&consul, &["status", ORDER, "--group", GROUP]).stdout;
    let reason = format!("{} hosts: ", expected.failed);
    assert!(String::from_utf8_lossy(&same).contains(&reason), "equal reasons are told once");

    // The newest runs of all, and those that failed: of ten thousand reports the newest are read.
    let bad = simulate_runs(&consul, 1000, 10);
    let ask_runs = |words: &[&str]| {
        let output = ask(&consul, &[&["runs", "--group", GROUP, "--json"], words].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["runs"].as_array().expect("runs").clone()
    };
    let newest = ask_runs(&[]);
    assert_eq!(newest.len(), 20);
    assert!(newest.iter().all(|run| run["run"].as_str().is_some_and(|run| run.starts_with("01JD800010"))));
    let failed = ask_runs(&["--failed", "-n", "1000"]);
    assert_eq!(failed.len(), bad + expected.failed);
    assert!(failed.iter().all(|run| run["phase"] == "failed"));
    let spent = ask(&consul, &["downtime", "--group", GROUP]);
    assert_eq!(spent.status.code(), Some(0), "{}", String::from_utf8_lossy(&spent.stderr));

    // What this test has started is the program and Consul, which still lives: the largest that has ended is ours.
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel's word").max_rss();
    assert!(used <= MOST, "{used} KiB");
}
