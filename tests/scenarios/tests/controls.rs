//! What operators do when something stands still: each way out of each state, with the real commands.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually, signal};
use nix::sys::signal::Signal;

/// Types a command that must end well.
#[track_caller]
fn good(host: &Host, words: &[&str]) -> String {
    match host.hostler(words) {
        (0, text) => text,
        (status, text) => panic!("{words:?} ended with {status}: {text}; {}", host.log_tail()),
    }
}

/// A run whose second step may not be repeated, and was interrupted.
fn needs_operator(name: &str) -> Host {
    let mut host = Host::on_dir(name);
    host.counting_task("t", "undoable:a once:b", "0");
    let slow = "#!/bin/sh\necho started > STARTED\nsleep 60\n"
        .replace("STARTED", &host.path("started").display().to_string());
    host.task(
        "stuck",
        "name: stuck\nversion: 1\nsteps:\n  \
         - {name: a, run: [./add, a, '0'], effect: undoable, undo: [./add, undo-a, '0']}\n  \
         - {name: b, run: [./slow]}\n  - {name: c, run: [./add, c, '0']}\n",
        &[("slow", &slow), ("add", &std::fs::read_to_string(host.path("tasks/t/add")).expect("a script"))],
    );
    host.start();
    host.order("o", "task: stuck");
    eventually(DEFAULT_TIMEOUT, || host.path("started").exists().then_some(()).ok_or("step b".into()));
    host.executors().iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    let report = host.wait_for("o", &["needs_operator"]);
    assert!(report["message"].to_string().contains("hostler acknowledge o --host"), "{report}");
    host
}

#[test]
fn an_acknowledged_run_ends_as_the_operator_says() {
    for (word, phase) in [("done", "succeeded"), ("failed", "failed")] {
        let mut host = needs_operator(&format!("settled-{word}"));
        let text =
            good(&host, &["acknowledge", "o", "--host", host.name(), "--as", word, "--reason", "CHG1"]);
        assert!(text.contains("o on settled") && text.contains("done"), "{text}");
        assert_eq!(text.contains("step 3 is not carried out"), word == "done", "{text}");
        let report = host.wait_for("o", &[phase]);
        assert_eq!(report["error"], format!("acknowledged as {word} by alice: CHG1"));
        let controls = format!("hostler/hosts/{}/control/o", host.name());
        let left = std::fs::read_dir(host.path("store").join(controls)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "the command takes its document away");
        host.kill();
        host.start();
        host.order("next", "task: t");
        host.wait_for("next", &["succeeded"]);
        assert_eq!(host.report("o").unwrap()["phase"], phase);
        let (status, text) = host.hostler(&["acknowledge", "o", "--host", host.name(), "--as", word]);
        assert!(status == 1 && text.contains("nothing to acknowledge"), "{status}: {text}");
    }
}

#[test]
fn a_run_goes_on_behind_a_step_that_is_done_on_an_operators_word() {
    let mut host = needs_operator("go-on");
    let text =
        good(&host, &["acknowledge", "o", "--host", host.name(), "--as", "step-done", "--reason", "CHG9"]);
    assert!(!text.contains("not carried out"), "{text}");
    host.wait_for("o", &["succeeded"]);
    assert_eq!(host.effects("o"), ["a", "c"], "neither a nor b again");
    host.kill();
    host.start();
    assert_eq!(host.report("o").unwrap()["phase"], "succeeded");
    assert_eq!(host.effects("o"), ["a", "c"], "once");
    let (status, text) = host.hostler(&["acknowledge", "o", "--host", host.name(), "--as", "step-done"]);
    assert!(status == 1 && text.contains("nothing to acknowledge"), "{status}: {text}");
}

#[test]
fn a_run_that_needs_an_operator_is_taken_back_on_his_word() {
    let mut host = needs_operator("undo");
    assert_eq!(host.effects("o"), ["a"]);
    good(&host, &["undo", "o", "--host", host.name(), "--reason", "CHG2"]);
    let report = host.wait_for("o", &["undone"]);
    assert!(report["error"].as_str().unwrap().ends_with("taken back by alice: CHG2"), "{report}");
    assert_eq!(host.effects("o"), ["a", "undo-a"]);
    host.kill();
    host.start();
    host.order("next", "task: t");
    host.wait_for("next", &["succeeded"]);
    assert_eq!(host.effects("o"), ["a", "undo-a"], "once");
}

#[test]
fn an_undo_is_carried_out_though_agent_or_executor_is_killed_meanwhile() {
    for point in ["request-recorded", "launched", "claimed", "begun", "intended", "command-ended", "end-seen"]
    {
        let mut host = needs_operator(&format!("undo-{point}"));
        host.crash_at(point);
        let run = host.runs()[0].file_name().unwrap().to_string_lossy().into_owned();
        let key = format!("hostler/hosts/{}/control/o/{}", host.name(), hostler::host::clock::new_run());
        host.put(&key, &format!("action: undo\ntarget: {run}\nby: bob\nreason: CHG3"));
        host.keep_up_until(|host| match host.report("o") {
            Some(report) if report["phase"] == "undone" && host.has_crashed() => Ok(()),
            other => Err(format!("at {point}: {other:?}")),
        });
        let effects = host.effects("o");
        assert_eq!(effects.iter().filter(|effect| *effect == "a").count(), 1, "{point}: {effects:?}");
        // An undo may be repeated, and is where nobody can tell whether it was over.
        assert_eq!(effects.last().map(String::as_str), Some("undo-a"), "{point}: {effects:?}");
    }
}

#[test]
fn a_retry_is_carried_out_once_whatever_is_killed() {
    let mut host = Host::on_dir("retry");
    host.counting_task("fails", "repeatable:a once:fail", "0");
    host.start();
    host.order("o", "task: fails");
    let first = host.wait_for("o", &["failed"])["run"].as_str().unwrap().to_owned();
    good(&host, &["retry", "o", "--host", host.name()]);
    let second = host.wait_until("o", "another run that is over", |report| {
        report["run"] != first.as_str() && report["phase"] == "failed"
    });
    assert!(second["trigger"].as_str().unwrap().starts_with("retry 01"), "{second}");
    assert_eq!(host.effects("o"), ["a", "a"]);
    host.kill();
    host.start();
    host.order("next", "task: fails");
    host.wait_for("next", &["failed"]);
    assert_eq!(host.effects("o"), ["a", "a"]);
    let (status, text) = host.hostler(&["release", "o", "--host", host.name()]);
    assert!(status == 1 && text.contains("nothing to release"), "{text}");
    let (status, text) = host.hostler(&["retry", "oo", "--host", host.name()]);
    assert!(status == 5 && text.contains("did you mean o"), "{text}");
}

#[test]
fn a_cancel_reaches_what_runs_and_what_waits() {
    let mut host = Host::on_dir("cancel");
    host.counting_task("undo", "undoable:a", "20");
    host.start();
    host.order("runs", "task: undo");
    host.order("waits", "task: undo\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_until("runs", "a step", |report| report["step"]["name"] == "a");
    host.wait_for("waits", &["waiting schedule"]);
    for order in ["runs", "waits"] {
        good(&host, &["cancel", order, "--host", host.name(), "--reason", "CHG4"]);
        let report = host.wait_for(order, &["cancelled"]);
        assert_eq!(report["error"], "cancelled by alice: CHG4");
    }
    assert_eq!(host.effects("runs"), ["undo-a"]);
    assert!(host.effects("waits").is_empty());
}

#[test]
fn what_is_held_is_released_or_rebased() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("held", &consul);
    host.counting_task("t", "once:x", "0");
    host.start();
    for order in ["released", "accepted"] {
        for revision in ["1", "2", "1"] {
            let text = format!("identity of revision {revision}");
            let before = host.report(order).map(|report| report["identity"].clone());
            host.order(order, &format!("task: t\nrevision: '{revision}'"));
            host.wait_until(order, &text, |report| {
                Some(&report["identity"]) != before.as_ref()
                    && (report["phase"] == "succeeded" || report["phase"] == "held")
            });
        }
        assert!(host.report(order).unwrap()["error"].as_str().unwrap().contains("hostler retry"));
    }
    good(&host, &["release", "released", "--host", "held"]);
    host.wait_for("released", &["succeeded"]);
    assert_eq!(host.effects("released").len(), 3);
    good(&host, &["accept", "accepted", "--group", "all", "--confirm-hosts", "1"]);
    host.order("next", "task: t");
    host.wait_for("next", &["succeeded"]);
    assert_eq!(host.effects("accepted").len(), 2);
    assert_ne!(host.report("accepted").unwrap()["phase"], "held");
}

#[test]
fn a_freeze_that_was_written_first_stops_an_order_that_is_seen_first() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("frozen", &consul);
    host.counting_task("t", "once:x", "0");
    host.start();
    host.order("before", "task: t");
    host.wait_for("before", &["succeeded"]);
    // The freeze is in the store before the order; which of the two watches answers first is not known.
    for round in 0..20 {
        host.put("hostler/groups/all/freeze", "by: bob\nreason: year end");
        host.order(&format!("o{round}"), "task: t");
        let name = format!("o{round}");
        let report = host.wait_for(&name, &["waiting freeze"]);
        assert!(report["message"].as_str().unwrap().contains("frozen by bob: year end"), "{report}");
        assert!(host.effects(&name).is_empty());
        host.delete("hostler/groups/all/freeze");
        host.wait_for(&name, &["succeeded"]);
    }
    let text = good(&host, &["freeze", "all", "--until", "2999-01-01T00:00:00Z", "--allow", "t"]);
    assert!(text.contains("nothing new starts on 1 known host,"), "{text}");
    host.order("allowed", "task: t");
    host.wait_for("allowed", &["succeeded"]);
    good(&host, &["thaw", "all"]);
    assert_eq!(host.hostler(&["thaw", "all"]).0, 5);
}
