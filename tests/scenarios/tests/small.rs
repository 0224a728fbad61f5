//! The agent stays small and quiet whatever happens around it (promise P9); the program is the one that ships.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;

use hostler_testkit::{Consul, Host, SOON, eventually};

/// The bound of the promise, in KiB.
const MOST: u64 = 12 << 10;

fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What it is made of, for whoever has to look for it.
fn parts(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parts = status.lines().filter(|line| line.starts_with("VmRSS:") || line.starts_with("Rss"));
    parts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent lives").count()
}

fn host(name: &str, consul: &Consul) -> Host {
    let mut host = Host::on_consul(name, consul);
    host.counting_task("count", "repeatable:x", "0");
    // Whatever this machine thinks of its clock, orders wait for their time, and not for the clock.
    host.configure("clock: trusted");
    host.use_program("HOSTLER_RELEASE");
    host
}

#[test]
fn p9_ten_thousand_flips_leave_the_agent_small() {
    let consul = Consul::dev();
    let mut host = host("flips", &consul);
    host.start();
    // Flips that wait: each is an occasion in the ledger, and supersedes the one before.
    for n in 0..10_000 {
        host.order("o", &format!("task: count\nrevision: '{n}'\nnot_before: 2999-01-01T00:00:00Z"));
    }
    host.order("last", "task: count");
    host.wait_for("last", &["succeeded"]);
    let pid = host.agent_pid().expect("an agent");
    assert!(rss(pid) <= MOST, "{}", parts(pid));
    assert!(descriptors(pid) < 40, "{} descriptors", descriptors(pid));
    let ledger = fs::metadata(host.path("state/ledger")).expect("the ledger").len();
    assert!(ledger < 2 << 20, "a ledger of {ledger} bytes");
}

#[test]
fn p9_a_thousand_orders_and_an_outage_leave_the_agent_small() {
    let mut consul = Consul::disk();
    let mut host = host("orders", &consul);
    for n in 0..1000 {
        host.order(&format!("o{n}"), "task: count");
    }
    host.start();
    let done = |consul: &Consul| {
        eventually(SOON * 4, || {
            let report = consul.get("hostler/reports/orders/orders/o999").unwrap_or_default();
            let count = consul.list("hostler/reports/orders/orders/").len();
            if count == 1000 && report.contains("succeeded") {
                Ok(())
            } else {
                Err(format!("{count} reports"))
            }
        });
    };
    done(&consul);
    let pid = host.agent_pid().expect("an agent");
    // What a burst of work has left free is given back when the agent is at rest.
    let small = || {
        let rss = rss(pid);
        if rss <= MOST { Ok(()) } else { Err(parts(pid)) }
    };
    eventually(SOON, small);
    consul.kill();
    consul.start();
    host.order("last", "task: count");
    host.wait_for("last", &["succeeded"]);
    eventually(SOON, small);
    assert!(descriptors(pid) < 40, "{} descriptors", descriptors(pid));
    let runs = fs::read_dir(host.path("state/runs")).expect("the runs").count();
    assert!(runs <= 1001, "{runs} runs");
}
