//! What questions about a fleet cost: each list of `hostler` beside `consul kv get -recurse` of the same reports.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostler_testkit::fleet::{simulate, simulate_runs};
use hostler_testkit::{Consul, program};
use nix::sys::resource::{Usage, UsageWho, getrusage};

const HOSTS: usize = 1000;
const ROUNDS: usize = 9;
/// As many as a host keeps reported.
const RUNS: usize = 20;
/// The lists that an operator asks for.
const LISTS: [&str; 12] = [
    "status backup --group hana",
    "status --waiting",
    "status",
    "order list",
    "freeze --list",
    "task list --group hana",
    "facts --group hana",
    "downtime --group hana",
    "logs backup --group hana --failed",
    "runs --group hana",
    "audit --group hana",
    "runs --group hana --failed",
];

/// Measures and prints. Before anything else is started: the kernel tells of the largest child so far.
pub(crate) fn measure() {
    let consul = Consul::dev();
    simulate(&consul, &program(), HOSTS);
    simulate_runs(&consul, HOSTS, RUNS);
    println!(
        "\na group of {HOSTS} hosts with {RUNS} runs each, {ROUNDS} rounds (wall: median, longest; largest process so far):"
    );
    // The smaller ones first.
    for words in LISTS {
        row(&format!("hostler {words}"), &consul, || {
            let mut command = Command::new(program());
            command.args(words.split(' '));
            command
        });
    }
    row("consul kv get -recurse reports/", &consul, || {
        let mut command = Command::new("consul");
        command.args(["kv", "get", "-recurse", "hostler/reports/"]);
        command
    });
}

fn row(name: &str, consul: &Consul, command: impl Fn() -> Command) {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let mut command = command();
            command
                .env("CONSUL_HTTP_ADDR", consul.address())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .stdin(Stdio::null());
            command.status().expect("the command");
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).as_ref().map_or(0, Usage::max_rss);
    println!(
        "{name:<42} {:>7.0} ms {:>7.0} ms {:>8.1} MiB",
        took[ROUNDS / 2].as_secs_f64() * 1000.0,
        took[ROUNDS - 1].as_secs_f64() * 1000.0,
        largest as f64 / 1024.0
    );
}
