//! A fleet that was never there: what hosts would have written of an order for their group, in real Consul.
//!
//! Every tenth host stands otherwise, so that each standing is in it by a known number.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::Consul;

/// The group of all simulated hosts, and the order for it.
pub const GROUP: &str = "hana";
/// The order.
pub const ORDER: &str = "backup";

/// How many hosts stand how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Done.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// Under way.
    pub running: usize,
    /// Waiting.
    pub waiting: usize,
    /// Enrolled, and never heard of.
    pub not_seen: usize,
    /// Heard of long ago.
    pub silent: usize,
}

/// Writes the reports of so many hosts; `program` places their order.
pub fn simulate(consul: &Consul, program: &Path, hosts: usize) -> Standings {
    consul.put(&format!("hostler/groups/{GROUP}/_hostler"), "{}");
    for n in 0..hosts {
        let marker = json!({"groups": [GROUP]}).to_string();
        consul.put(&format!("hostler/hosts/{}/_hostler", name(n)), &marker);
    }
    let identity = place(consul, program, hosts);
    let mut standings = Standings::default();
    for n in 0..hosts {
        let (phase, next_report_by) = match n % 10 {
            6 => ("failed", NEVER),
            7 => ("running", NEVER),
            8 => ("waiting", NEVER),
            9 if n % 20 == 19 => {
                standings.not_seen += 1;
                continue;
            }
            9 => ("running", LONG_AGO),
            _ => ("succeeded", NEVER),
        };
        match (phase, next_report_by) {
            (_, LONG_AGO) => standings.silent += 1,
            ("failed", _) => standings.failed += 1,
            ("running", _) => standings.running += 1,
            ("waiting", _) => standings.waiting += 1,
            _ => standings.done += 1,
        }
        let host = name(n);
        consul
            .put(&format!("hostler/reports/agents/{host}"), &agent(&host, phase, next_report_by).to_string());
        consul.put(&format!("hostler/reports/facts/{host}"), &facts(&host, n).to_string());
        consul.put(&format!("hostler/reports/audit/{host}"), &audit(&host).to_string());
        let run = format!("01JD800000000000000000{n:04}");
        consul.put(&format!("hostler/reports/runs/{host}/{run}"), &run_report(phase).to_string());
        let report = report(&host, &identity, phase, next_report_by).to_string();
        consul.put(&format!("hostler/reports/orders/{host}/{ORDER}"), &report);
    }
    standings
}

/// The newest entries of a host's record, as many as have room in 8 KiB.
fn audit(host: &str) -> Value {
    let entry = |n: u64| {
        json!({
            "n": 100 - n, "at": "2030-01-01T10:00:00Z", "what": if n == 0 { "frozen" } else { "firings_skipped" },
            "order": if n == 0 { format!("groups/{GROUP}") } else { format!("groups/{GROUP}/nightly") },
            "by": if n == 0 { "carol" } else { "bob" }, "reason": "x".repeat(200),
        })
    };
    let entries: Vec<Value> = (0..22).map(entry).collect();
    json!({"version": 1, "host": host, "head": {"n": 100, "hash": "f".repeat(64)}, "entries": entries})
}

/// The newest run of a host, as large as one may be.
fn run_report(phase: &str) -> Value {
    let failed = phase == "failed";
    let error = failed.then_some("no space left on device (step upload, exit 3)");
    json!({
        "version": 1, "order": ORDER, "source": format!("groups/{GROUP}"), "trigger": "placed", "dry_run": false,
        "task": "postgres-backup@3", "phase": phase, "epoch": 1, "started": "2030-01-01T09:30:00Z",
        "ended": "2030-01-01T10:00:00Z", "exit_code": 3, "error": error, "warnings": [], "downtime": [],
        "tail": "x".repeat(1000), "by": "alice", "reason": "CHG1", "params": "{\"cluster\":\"main\"}",
    })
}

/// Writes the reports of so many runs of each host, of which every fiftieth failed; gives how many those are.
///
/// Holds few of them at a time: the kernel counts what a process had before it became another program, so who measures
/// its children has to be small itself.
pub fn simulate_runs(consul: &Consul, hosts: usize, each: usize) -> usize {
    let mut failed = 0;
    let mut some = Vec::new();
    for round in 1..=each {
        for n in 0..hosts {
            let bad = (round * hosts + n) % 50 == 49;
            failed += usize::from(bad);
            let key = format!("hostler/reports/runs/{}/01JD8{round:05}{n:016}", name(n));
            some.push((key, run_report(if bad { "failed" } else { "succeeded" }).to_string()));
            if some.len() == TRANSACTION {
                consul.put_all(&some);
                some.clear();
            }
        }
    }
    consul.put_all(&some);
    failed
}

/// The most writes in one transaction of Consul.
const TRANSACTION: usize = 64;

const NEVER: &str = "2999-01-01T00:00:00Z";
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

fn name(n: usize) -> String {
    format!("db{n:04}")
}

/// Has the order placed as an operator would; gives its identity.
fn place(consul: &Consul, program: &Path, hosts: usize) -> String {
    let output = Command::new(program)
        .args(["order", "put", ORDER, "--group", GROUP, "--task", "postgres-backup", "--json"])
        .args(["--confirm-hosts", &hosts.to_string()])
        .env("CONSUL_HTTP_ADDR", consul.address())
        .output()
        .expect("the program");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    answer["identity"].as_str().expect("an identity").to_owned()
}

fn facts(host: &str, n: usize) -> Value {
    let role = if n.is_multiple_of(2) { "primary" } else { "secondary" };
    json!({
        "version": 1, "host": host, "labels": {"site": format!("site{}", n % 7)},
        "facts": {
            "hana": {"role": role, "replication": "ACTIVE", "sites": ["fra", "ber"], "version": "2.00.079.00"},
            "host": {
                "os": "sles", "os_version": "15.6", "kernel": "6.4.0-150600.23-default", "arch": "x86_64", "cpus": 64,
                "memory_bytes": 1_099_511_627_776_u64, "boot_time": "2026-11-01T04:00:00Z", "virtualization": "none",
                "machine": "0123456789abcdef0123456789abcdef", "timezone": "Europe/Berlin", "hostler": "0.1.0"
            },
        },
        "stale": [], "left_out": [], "updated": "2026-11-21T22:00:01Z", "next_report_by": null
    })
}

fn agent(host: &str, phase: &str, next_report_by: &str) -> Value {
    json!({
        "version": 1, "host": host, "id": "01JD8000000000000000000000", "machine": "0123456789abcdef0123456789abcdef",
        "agent_version": "0.1.0", "boot": "01234567-89ab-cdef-0123-456789abcdef", "groups": [GROUP, "all"], "conditions": [],
        "observed_index": {"hostler/hosts/h/": 4711, "hostler/groups/all/": 4711}, "audit": 17, "controls": {},
        "orders": {ORDER: phase}, "updated": "2026-11-21T22:00:01Z", "next_report_by": next_report_by
    })
}

fn report(host: &str, identity: &str, phase: &str, next_report_by: &str) -> Value {
    let ended = matches!(phase, "succeeded" | "failed").then_some("2026-11-21T22:40:00Z");
    let error = (phase == "failed").then_some("step upload: exit status 3: no space left on device");
    json!({
        "version": 1, "host": host, "order": ORDER, "source": format!("groups/{GROUP}"), "identity": identity,
        "phase": phase, "reason": (phase == "waiting").then_some("window"), "run": "01JD8000000000000000000000",
        "epoch": u32::from(phase != "waiting"), "trigger": "placed", "task": "postgres-backup@3",
        "task_digest": format!("sha256:{}", "0".repeat(64)), "step": {"index": 2, "count": 3, "name": "upload"},
        "progress": 40, "message": "copying", "since": "2026-11-21T22:00:01Z", "until": null,
        "started": "2026-11-21T22:00:00Z", "ended": ended, "deadline": "2026-11-22T02:00:00Z", "exit_code": null,
        "error": error, "outputs": {"backup_id": "b-17"}, "tail": error, "killed_processes": [],
        "updated": "2026-11-21T22:00:01Z", "next_report_by": next_report_by
    })
}
