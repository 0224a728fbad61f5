//! Agent and executor are ended by SIGKILL at every crash point, and at random moments; the oracle is the count of
//! effects and the end states that are allowed (promises P1, P2 and P4).

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::time::{Duration, Instant};

use hostler::host::crash::CrashPoint;
use hostler_testkit::{Host, lives, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What a task may have done at the end, whatever was killed: the phase, and the effects that go with it.
fn check(task: &str, phase: &str, effects: &[String]) -> Result<(), String> {
    let effects: Vec<&str> = effects.iter().map(String::as_str).collect();
    let count = |line: &str| effects.iter().filter(|effect| **effect == line).count();
    let good = match (task, phase) {
        // Each step can tell whether it is done: exactly once, in order.
        ("exact", "succeeded") => effects == ["a", "b"],
        // Nothing tells: at most once, and only a person goes on.
        ("blind", "succeeded") => effects == ["a", "b"],
        ("blind", "needs_operator") => count("a") <= 1 && count("b") <= 1 && effects.len() <= 2,
        // Undone: never done again after its undo, which may be repeated.
        ("undone", "undone") => count("a") <= 1 && count("undo-a") >= 1 && effects.last() == Some(&"undo-a"),
        // May be repeated: at least once.
        ("again", "succeeded") => count("a") >= 1 && effects.last() == Some(&"b") && count("b") >= 1,
        _ => false,
    };
    if good { Ok(()) } else { Err(format!("{task} ended {phase} with {effects:?}")) }
}

const TASKS: [(&str, &str); 4] = [
    ("exact", "repeatable:a! repeatable:b!"),
    ("blind", "once:a once:b"),
    ("undone", "undoable:a repeatable:fail"),
    ("again", "repeatable:a repeatable:b"),
];

fn host(name: &str, delay: &str) -> Host {
    let host = Host::on_dir(name);
    for (task, kinds) in TASKS {
        host.counting_task(task, kinds, delay);
    }
    host
}

/// The report of a run that is over.
fn ended(host: &Host, order: &str) -> Result<Value, String> {
    match host.report(order) {
        Some(report) if !report["ended"].is_null() => Ok(report),
        other => Err(format!("{order} is not over: {other:?}")),
    }
}

fn crash_everywhere(task: &str, both: bool) {
    let host_name = format!("{task}-{}", if both { "both" } else { "one" });
    let mut host = host(&host_name, "0.01");
    // What an operator asks for is struck in controls.rs.
    // What an attempt to read secrets leaves is counted in vault_held.rs, and guards are struck in guards_crash.rs.
    let elsewhere = [
        CrashPoint::GuardRecorded,
        CrashPoint::GuardArmed,
        CrashPoint::GuardDisarming,
        CrashPoint::WatcherStarted,
        CrashPoint::GuardFiring,
        CrashPoint::GuardAttempted,
        CrashPoint::GuardFired,
        CrashPoint::RequestRecorded,
        CrashPoint::TokenMade,
        CrashPoint::TokenRecorded,
        CrashPoint::SecretsRead,
    ];
    for point in CrashPoint::ALL.iter().filter(|point| !elsewhere.contains(point)) {
        let order = format!("{task}-{}", point.name());
        host.crash_at(point.name());
        host.order(&order, &format!("task: {task}"));
        let mut struck = false;
        host.keep_up_until(|host| {
            if host.has_crashed() && both && !struck {
                struck = true;
                let executors = host.executors();
                executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
                host.kill();
            }
            // The last point comes after what the report rests on.
            ended(host, &order)?;
            let waits = format!("nothing was ended at {}", point.name());
            if host.has_crashed() { Ok(()) } else { Err(waits) }
        });
        let report = host.report(&order).expect("the report");
        let phase = report["phase"].as_str().unwrap_or_default();
        check(task, phase, &host.effects(&order)).unwrap_or_else(|error| {
            panic!("crash at {}: {error}; {report}; {}", point.name(), host.log_tail());
        });
    }
}

#[test]
fn p2_each_effect_once_whatever_crash_point_ends_one_process() {
    crash_everywhere("exact", false);
}

#[test]
fn p2_each_effect_once_whatever_crash_point_ends_agent_and_executor() {
    crash_everywhere("exact", true);
}

#[test]
fn p4_a_step_that_may_not_be_repeated_is_not_whatever_crash_point_ends_the_executor() {
    crash_everywhere("blind", true);
}

#[test]
fn an_undo_comes_to_its_end_whatever_crash_point_is_hit() {
    crash_everywhere("undone", true);
}

/// 125 kills of each of four hosts: 500 in all.
fn kill_at_random(task: &str, seed: u64) {
    const KILLS: u32 = 125;
    let mut host = host(&format!("random-{task}"), "0.02");
    let mut random = seed;
    let mut next = move |below: u64| {
        // Knuth's MMIX generator: the moments differ, and a seed gives the same ones again.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut kills, mut n) = (0, 0);
    while kills < KILLS {
        let order = format!("{task}-{n}");
        n += 1;
        host.order(&order, &format!("task: {task}"));
        let mut due = Instant::now() + Duration::from_millis(next(150));
        host.keep_up_until(|host| {
            if Instant::now() >= due && kills < KILLS {
                due = Instant::now() + Duration::from_millis(next(400));
                match (next(3), host.executors().first()) {
                    (0, Some(pid)) | (1, Some(pid)) if lives(*pid) => signal(*pid, Signal::SIGKILL),
                    _ => host.kill(),
                }
                kills += 1;
            }
            ended(host, &order).map(drop)
        });
        let report = host.report(&order).expect("the report");
        let phase = report["phase"].as_str().unwrap_or_default();
        check(task, phase, &host.effects(&order))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}; {report}; {}", host.log_tail()));
    }
}

#[test]
fn random_kills_of_steps_that_can_tell() {
    kill_at_random("exact", 1);
}

#[test]
fn random_kills_of_steps_that_cannot_tell() {
    kill_at_random("blind", 2);
}

#[test]
fn random_kills_of_undos() {
    kill_at_random("undone", 3);
}

#[test]
fn random_kills_of_repeatable_steps() {
    kill_at_random("again", 4);
}
