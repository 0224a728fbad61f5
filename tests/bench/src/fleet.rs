//! What a question about a fleet costs: `hostler status` of a group beside `consul kv get -recurse` of the same reports.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostler_testkit::fleet::{GROUP, ORDER, simulate};
use hostler_testkit::{Consul, program};
use nix::sys::resource::{Usage, UsageWho, getrusage};

const HOSTS: usize = 1000;
const ROUNDS: usize = 9;

/// Measures and prints. Before anything else is started: the kernel tells of the largest child so far.
pub(crate) fn measure() {
    let consul = Consul::dev();
    simulate(&consul, &program(), HOSTS);
    println!("\na group of {HOSTS} hosts, {ROUNDS} rounds (wall: median, longest; largest process so far):");
    // The smaller one first.
    row("hostler status ORDER --group", &consul, || {
        let mut command = Command::new(program());
        command.args(["status", ORDER, "--group", GROUP]);
        command
    });
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
            command.env("CONSUL_HTTP_ADDR", consul.address()).stdout(Stdio::null()).stdin(Stdio::null());
            command.status().expect("the command");
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).as_ref().map_or(0, Usage::max_rss);
    println!(
        "{name:<34} {:>7.0} ms {:>7.0} ms {:>8.1} MiB",
        took[ROUNDS / 2].as_secs_f64() * 1000.0,
        took[ROUNDS - 1].as_secs_f64() * 1000.0,
        largest as f64 / 1024.0
    );
}
