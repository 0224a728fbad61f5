//! What a real Vault and its database hold for runs, tokens, leases and users, is counted before and after each way in
//! which an attempt, an executor, an agent or a host can end: there is none more afterwards.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hostler::host::crash::CrashPoint;
use hostler_scenarios::trace::{CALLS, Disk, parse};
use hostler_testkit::{DEFAULT_TIMEOUT, Held, Host, Vault, eventually, program, signal};
use nix::sys::signal::Signal;
use serde_json::json;

/// What nobody uses any more is found and given back within this: a token that no record names ends by itself after a
/// minute.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(180);

const FINE: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
const SLOW: &str = "SELECT pg_sleep(4); CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'";

fn vault() -> Vault {
    let vault = Vault::start_with_database();
    vault.policy(
        "agent",
        &[
            ("secret/data/app/*", &["read"]),
            ("database/creds/*", &["read"]),
            ("auth/token/create", &["update"]),
            ("auth/token/revoke-accessor", &["update"]),
        ],
    );
    vault.put("app/x", json!({"password": "correct horse"}));
    assert_eq!(vault.held(), Held::default());
    vault
}

/// A task with credentials for the database and another secret, which may be out of order.
fn task(host: &Host, name: &str, other: &str, steps: &str) {
    let yaml = format!(
        "name: {name}\nversion: 1\ntimeout: 60s\nsecrets:\n  a: {{path: database/creds/app, field: password}}\n  \
         z: {{path: {other}, field: password}}\nsteps:\n{steps}"
    );
    let waits = "#!/bin/sh\necho > EFFECTS.up.$HOSTLER_ORDER.$HOSTLER_EPOCH\n\
                 until [ -e EFFECTS.go.$HOSTLER_ORDER ]; do sleep 0.05; done\n";
    host.task(name, &yaml, &[("wait", waits), ("fail", "#!/bin/sh\nexit 1\n")]);
}

const WAITS: &str = "  - {name: a, run: [./wait], effect: repeatable}\n";

fn is_up(host: &Host, order: &str, epoch: u32) {
    let up = host.path(&format!("effects.up.{order}.{epoch}"));
    eventually(DEFAULT_TIMEOUT, || if up.exists() { Ok(()) } else { Err(host.log_tail()) });
}

fn go(host: &Host, order: &str) {
    fs::write(host.path(&format!("effects.go.{order}")), "").expect("the word");
}

fn cancel(host: &Host, order: &str) {
    // A command acts on what is reported, which may come a moment after what it is about.
    host.wait_until(order, "a report", |_| true);
    let (status, said) = host.hostler(&["cancel", order, "--host", host.name(), "--reason", "CHG4"]);
    assert!(status == 0 && said.contains("done"), "{status} {said}; {}", host.log_tail());
}

fn nothing_is_held(vault: &Vault, host: &Host) {
    eventually(GIVEN_BACK_WITHIN, || match vault.held() {
        held if held == Held::default() => Ok(()),
        held => Err(format!("{held:?}; {}", host.log_tail())),
    });
}

fn asked(vault: &Vault, path: &str) -> usize {
    vault.requests().iter().filter(|line| line.ends_with(path)).count()
}

/// Attempts fail at the second secret for a while; what they hold is never more than that of one attempt.
fn attempts_leave_nothing(name: &str, path: &str, word: &str, fail: impl Fn(&Vault, bool)) {
    let vault = vault();
    fail(&vault, true);
    let mut host = Host::on_vault(name, &vault, "");
    task(&host, "t", path, WAITS);
    host.start();
    for order in ["o", "p"] {
        host.order(order, "task: t");
        let before = asked(&vault, path);
        let mut most = Held::default();
        eventually(DEFAULT_TIMEOUT, || {
            let (attempts, held) = (asked(&vault, path) - before, vault.held());
            most = if held.users > most.users { held } else { most };
            if attempts >= 4 {
                Ok(())
            } else {
                Err(format!("{attempts} attempts, {held:?}; {}", host.log_tail()))
            }
        });
        assert!(most.users <= 2, "one attempt holds {most:?}");
        let report = host.wait_for(order, &["waiting vault"]);
        assert!(report["message"].to_string().contains(word), "{report}");
        if order == "o" {
            cancel(&host, order);
            host.wait_for(order, &["cancelled"]);
            nothing_is_held(&vault, &host);
        }
    }
    fail(&vault, false);
    is_up(&host, "p", 1);
    let held = vault.held();
    assert!(held.tokens == 1 && held.users >= 1, "{held:?}");
    go(&host, "p");
    host.wait_for("p", &["succeeded"]);
    nothing_is_held(&vault, &host);
}

#[test]
fn p7_attempts_with_an_engine_that_fails_leave_nothing() {
    attempts_leave_nothing("h1", "database/creds/other", "syntax error", |vault, fails| {
        vault.database_role("other", if fails { "NOT SQL" } else { FINE });
    });
}

#[test]
fn p7_attempts_under_a_quota_leave_nothing() {
    attempts_leave_nothing("h2", "secret/data/app/x", "429", |vault, fails| {
        vault.quota("secret/data/app/x", fails);
        if fails {
            // The one request that is allowed.
            let _ = vault.ask_as_root("secret/data/app/x");
        }
    });
}

#[test]
fn p7_who_is_killed_leaves_nothing() {
    let vault = vault();
    let mut host = Host::on_vault("h3", &vault, "");
    task(&host, "t", "secret/data/app/x", WAITS);
    host.start();
    for victim in ["executor", "agent", "both"] {
        host.order(victim, "task: t");
        is_up(&host, victim, 1);
        assert_eq!(vault.held(), Held { tokens: 1, leases: 1, users: 1 }, "{victim}");
        let executors = host.executors();
        assert_eq!(executors.len(), 1);
        if victim != "executor" {
            host.kill();
        }
        if victim != "agent" {
            executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        }
        if victim != "executor" {
            host.start();
        }
        if victim != "agent" {
            is_up(&host, victim, 2);
        }
        go(&host, victim);
        host.wait_for(victim, &["succeeded"]);
        nothing_is_held(&vault, &host);
    }
}

#[test]
fn p7_a_cancel_leaves_nothing_in_whichever_phase_it_comes() {
    let vault = vault();
    vault.database_role("slow", SLOW);
    vault.database_role("broken", "NOT SQL");
    let mut host = Host::on_vault("h4", &vault, "");
    task(&host, "waiting", "database/creds/broken", WAITS);
    task(&host, "reading", "database/creds/slow", WAITS);
    task(&host, "t", "secret/data/app/x", "  - {name: a, run: [./wait], on_cancel: kill}\n");
    let undo =
        "  - {name: a, run: [/bin/true], undo: [./wait], effect: undoable}\n  - {name: b, run: [./fail]}\n";
    task(&host, "undo", "secret/data/app/x", undo);
    host.start();
    for (phase, task, end) in [
        ("waiting", "waiting", "cancelled"),
        ("reading", "reading", "cancelled"),
        ("claim", "t", "cancelled"),
        ("step", "t", "cancelled"),
        ("undo", "undo", "undone"),
    ] {
        let before = asked(&vault, "database/creds/slow");
        if phase == "claim" {
            host.crash_at(CrashPoint::SecretsRead.name());
        }
        host.order(phase, &format!("task: {task}\nrevision: {phase}"));
        match phase {
            "waiting" => drop(host.wait_for(phase, &["waiting vault"])),
            "reading" => eventually(DEFAULT_TIMEOUT, || {
                if asked(&vault, "database/creds/slow") > before { Ok(()) } else { Err(host.log_tail()) }
            }),
            "claim" => {
                eventually(
                    DEFAULT_TIMEOUT,
                    || if host.has_crashed() { Ok(()) } else { Err(host.log_tail()) },
                );
            }
            _ => {
                is_up(&host, phase, 1);
                host.wait_until(phase, "its epoch", |report| report["epoch"] == 1);
            }
        }
        cancel(&host, phase);
        if phase == "undo" {
            go(&host, phase);
        }
        host.wait_for(phase, &[end]);
        nothing_is_held(&vault, &host);
    }
}

/// The host's agent under strace, so that it is known what a power cut leaves.
fn start_traced(host: &mut Host) {
    let wrapper = host.path("traced");
    let text = format!(
        "#!/bin/sh\nexec strace -f -y -xx -s 1000000 -e trace={CALLS} -o {} {} \"$@\"\n",
        host.path("trace").display(),
        program().display()
    );
    fs::write(&wrapper, text).expect("the wrapper");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("its mode");
    host.start_with(&wrapper);
}

/// All processes end at once, and what was not synced is lost, as is all that lay in memory.
fn power_cut(host: &mut Host) {
    let trace = host.path("trace");
    eventually(DEFAULT_TIMEOUT, || {
        host.processes().iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        if host.is_up() { Err("strace waits for a process".into()) } else { Ok(()) }
    });
    let state = host.path("state");
    let mut disk = Disk::new(&state);
    for op in parse(&fs::read_to_string(trace).expect("the record")) {
        disk.take(&op);
    }
    fs::remove_dir_all(&state).expect("the state folder");
    disk.crash_image(&state).expect("an image");
    for entry in fs::read_dir(host.path("run/secrets")).into_iter().flatten().flatten() {
        fs::remove_dir_all(entry.path()).expect("what lay in memory");
    }
}

#[test]
fn p7_a_power_cut_at_any_point_leaves_nothing() {
    let vault = vault();
    // Points that this run passes: nobody asks anything of it, and no step of it has a guard.
    let elsewhere = |point: &CrashPoint| {
        *point == CrashPoint::RequestRecorded
            || ["guard", "watcher"].iter().any(|word| point.name().starts_with(word))
    };
    let points: Vec<_> = CrashPoint::ALL.iter().filter(|point| !elsewhere(point)).collect();
    // Each host is up at the end, as it would be: what the last of them left is theirs to give back.
    let cut = |point: &CrashPoint| {
        let mut host = Host::on_vault(point.name(), &vault, "");
        task(&host, "t", "secret/data/app/x", "  - {name: a, run: [/bin/true], effect: repeatable}\n");
        host.crash_at(point.name());
        host.order("o", "task: t");
        start_traced(&mut host);
        eventually(DEFAULT_TIMEOUT, || {
            let waits = || format!("nothing ended at {}; {}", point.name(), host.log_tail());
            if host.has_crashed() { Ok(()) } else { Err(waits()) }
        });
        power_cut(&mut host);
        host.start();
        host.wait_for("o", &["succeeded"]);
        host
    };
    let (one, other) = points.split_at(points.len() / 2);
    let hosts = std::thread::scope(|scope| {
        let both =
            [one, other].map(|half| scope.spawn(|| half.iter().map(|point| cut(point)).collect::<Vec<_>>()));
        both.map(|half| half.join().expect("each point"))
    });
    let hosts: Vec<&Host> = hosts.iter().flatten().collect();
    assert_eq!(hosts.len(), points.len());
    nothing_is_held(&vault, hosts[0]);
}
