//! Guards: a state that a step puts the host into is ended, whatever becomes of the step and its executor (promise P11).
//!
//! The state is a file, `frozen`. The step makes it and removes it at its end; the guard removes it, too.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::time::{Duration, Instant};

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Vault, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const HOLD: &str = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN hold\" >> EFFECTS\n: > FROZEN\n\
                    sleep \"$1\"\n[ -z \"$2\" ] || exit \"$2\"\nrm -f FROZEN\n\
                    echo \"$HOSTLER_ORDER $HOSTLER_RUN released\" >> EFFECTS\n";
const THAW: &str = "#!/bin/sh\nset -e\nrm -f FROZEN\necho \"$HOSTLER_ORDER $HOSTLER_RUN thaw\" >> EFFECTS\n";
const UNDO: &str = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN undo\" >> EFFECTS\n";

const UNDOABLE: &str = "effect: undoable\n    undo: [./undo]";

/// A task whose one step holds the state for some time, and then ends.
struct Freeze<'a> {
    /// Seconds for which the state is held.
    seconds: &'a str,
    /// Exit status of the step, which then leaves the state to the guard; empty: it ends the state and succeeds.
    status: &'a str,
    /// Fields of the step in YAML.
    fields: &'a str,
    /// How long the guard lets the step run.
    within: &'a str,
    /// Script of the guard.
    thaw: &'a str,
}

/// A step that does not end by itself.
const ENDLESS: Freeze<'static> =
    Freeze { seconds: "60", status: "", fields: UNDOABLE, within: "2m", thaw: THAW };

impl Freeze<'_> {
    /// Puts the task on the host.
    fn install(self, host: &Host) {
        let Self { seconds, status, fields, within, thaw } = self;
        let yaml = format!(
            "name: freeze\nversion: 1\ntimeout: 5m\nsteps:\n  - name: hold\n    run: [./hold, \"{seconds}\", \"{status}\"]\n    \
             grace: 1s\n    {fields}\n    guard: {{run: [./thaw], within: {within}}}\n"
        );
        let frozen = host.path("frozen").display().to_string();
        let script = |text: &str| text.replace("FROZEN", &frozen);
        host.task("freeze", &yaml, &[("hold", &script(HOLD)), ("thaw", &script(thaw)), ("undo", UNDO)]);
    }
}

fn is_frozen(host: &Host) -> bool {
    host.path("frozen").exists()
}

/// Waits until the step holds the state.
fn frozen(host: &Host) -> Instant {
    eventually(DEFAULT_TIMEOUT, || if is_frozen(host) { Ok(()) } else { Err(host.log_tail()) });
    Instant::now()
}

fn thawed(host: &Host, within: Duration) {
    eventually(within, || if is_frozen(host) { Err(host.log_tail()) } else { Ok(()) });
}

/// No watcher outlives what it watches over.
fn nobody_watches(host: &Host) {
    eventually(DEFAULT_TIMEOUT, || match host.watchers() {
        watchers if watchers.is_empty() => Ok(()),
        watchers => Err(format!("{watchers:?} still watch; {}", host.log_tail())),
    });
}

fn started(name: &str) -> Host {
    let mut host = Host::on_dir(name);
    host.start();
    host
}

fn journal(host: &Host) -> String {
    fs::read_to_string(host.runs()[0].join("journal")).expect("the journal")
}

#[test]
fn a_guard_is_armed_and_watched_before_its_step_starts_and_never_fires_after_a_success() {
    let host = started("armed");
    Freeze { seconds: "1", fields: "effect: once", within: "30s", ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    assert_eq!(host.watchers().len(), 1, "{}", host.log_tail());
    let text = journal(&host);
    let at = |word: &str| text.find(word).unwrap_or(usize::MAX);
    assert!(at("\"armed\"") < at("\"intended\""), "{text}");
    let report = host.wait_for("o", &["succeeded", "failed"]);
    assert!(
        report["phase"] == "succeeded" && report["warnings"].as_array().is_some_and(Vec::is_empty),
        "{report}"
    );
    nobody_watches(&host);
    assert_eq!(host.effects("o"), ["hold", "released"]);
}

#[test]
fn a_step_that_fails_is_cancelled_or_takes_too_long_fires_its_guard_before_its_undo() {
    for (name, seconds, status, more) in
        [("fails", "0.1", "3", ""), ("cancelled", "60", "", ""), ("late", "60", "", "\n    timeout: 1s")]
    {
        let host = started(name);
        Freeze { seconds, status, fields: &format!("{UNDOABLE}{more}"), ..ENDLESS }.install(&host);
        host.order("o", "task: freeze");
        if name == "cancelled" {
            frozen(&host);
            host.wait_for("o", &["running"]);
            let (status, said) = host.hostler(&["cancel", "o", "--host", name, "--reason", "a test"]);
            assert_eq!(status, 0, "{said}");
        }
        let report = host.wait_for("o", &["undone", "cancelled", "undo_failed", "failed", "needs_operator"]);
        let phase = if name == "cancelled" { "cancelled" } else { "undone" };
        assert_eq!(report["phase"], phase, "{report}");
        assert_eq!(host.effects("o"), ["hold", "thaw", "undo"], "{name}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("guard thaw of step hold has fired: the run leaves its step"), "{report}");
        nobody_watches(&host);
    }
}

#[test]
fn within_fires_the_guard_while_the_step_runs_and_the_run_fails() {
    let host = started("within");
    Freeze { within: "1s", ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    thawed(&host, Duration::from_secs(4));
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "undone", "{report}");
    assert_eq!(report["error"], "step hold did not end in time: guard thaw of step hold has fired");
    assert!(report["warnings"].to_string().contains("its `within` of 1s is over"), "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"]);
    nobody_watches(&host);
}

#[test]
fn p11_the_watcher_fires_when_agent_and_executor_are_gone() {
    let mut host = started("alone");
    ENDLESS.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    let executors = host.executors();
    host.kill();
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    // There is no agent.
    thawed(&host, Duration::from_secs(5));
    nobody_watches(&host);
    host.start();
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!((&report["phase"], &report["epoch"]), (&"undone".into(), &2.into()), "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"], "it fires once; {report}");
    assert!(report["warnings"].to_string().contains("its executor is gone"), "{report}");
}

#[test]
fn p11_the_next_epoch_fires_before_anything_else_when_nobody_is_left() {
    let mut host = started("nobody");
    // Its check would say that it is done.
    Freeze { fields: "effect: repeatable\n    check: [./undo]", ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    let (watchers, executors) = (host.watchers(), host.executors());
    host.kill();
    // First the watcher: the executor would start another.
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    watchers.iter().chain(&executors).for_each(|pid| signal(*pid, Signal::SIGKILL));
    assert!(is_frozen(&host));
    host.start();
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "succeeded", "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"], "the guard comes before the check");
    assert!(!is_frozen(&host));
}

#[test]
fn a_watcher_that_is_lost_is_replaced() {
    let host = started("replaced");
    Freeze { within: "4s", ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    let first = host.watchers();
    first.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    eventually(DEFAULT_TIMEOUT, || match host.watchers() {
        watchers if watchers.len() == 1 && watchers != first => Ok(()),
        watchers => Err(format!("{watchers:?}; {}", host.log_tail())),
    });
    thawed(&host, Duration::from_secs(7));
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!((&report["phase"], &report["epoch"]), (&"undone".into(), &1.into()), "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"]);
    nobody_watches(&host);
}

#[test]
fn where_nobody_can_watch_the_step_does_not_start() {
    let host = started("unwatched");
    Freeze { seconds: "1", ..ENDLESS }.install(&host);
    // A file in the place of the folder in which executor and watcher meet.
    fs::create_dir_all(host.path("run")).expect("the runtime folder");
    fs::write(host.path("run/watchers"), "").expect("a file");
    host.order("o", "task: freeze");
    let report = host.wait_for("o", &["undone", "failed", "needs_operator"]);
    let error = report["error"].as_str().unwrap_or_default();
    assert!(error.contains("its guard has no watcher"), "{report}");
    assert_eq!(
        (&report["phase"], host.effects("o")),
        (&"failed".into(), vec!["thaw".to_owned()]),
        "{report}"
    );
}

/// Fails so often before it succeeds.
fn failing(host: &Host, times: u32) -> String {
    let count = host.path("count").display().to_string();
    THAW.replace(
        "set -e\n",
        &format!("set -e\necho x >> {count}\n[ $(wc -l < {count}) -gt {times} ] || exit 7\n"),
    )
}

#[test]
fn a_guard_that_fails_twice_is_tried_again_until_it_succeeds() {
    let host = started("twice");
    Freeze { seconds: "0.1", status: "3", thaw: &failing(&host, 2), ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "undone", "{report}");
    assert!(report["warnings"].to_string().contains("has fired with attempt 3"), "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"]);
}

#[test]
fn a_guard_that_its_watcher_tries_in_vain_is_named_in_the_report() {
    let mut host = started("in-vain");
    let repaired = host.path("repaired");
    let thaw = THAW.replace("set -e\n", &format!("set -e\n[ -e {} ] || exit 7\n", repaired.display()));
    Freeze { thaw: &thaw, ..ENDLESS }.install(&host);
    host.order("o", "task: freeze");
    frozen(&host);
    let executors = host.executors();
    host.kill();
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    host.start();
    let says = "guard thaw of step hold fires: attempt ";
    eventually(DEFAULT_TIMEOUT, || match host.report("o") {
        Some(report) if report["message"].as_str().is_some_and(|message| message.starts_with(says)) => Ok(()),
        other => Err(format!("{other:?}; {}", host.log_tail())),
    });
    assert!(is_frozen(&host));
    fs::write(&repaired, "").expect("the repair");
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "undone", "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"]);
}

#[test]
fn a_guard_that_never_succeeds_is_for_an_operator_and_keeps_its_locks() {
    let mut host = Host::on_dir("never");
    host.set_env("HOSTLER_GUARD_TRIED_FOR", "3");
    host.start();
    Freeze { seconds: "0.1", status: "3", thaw: &failing(&host, 1_000_000), ..ENDLESS }.install(&host);
    let yaml = host.path("tasks/freeze/task.yml");
    let text = fs::read_to_string(&yaml).expect("the task") + "resources: [{name: the-clients}]\n";
    fs::write(&yaml, text).expect("the task");
    host.task(
        "other",
        "name: other\nversion: 1\nresources: [{name: the-clients}]\nsteps: [{name: s, run: [\"true\"]}]\n",
        &[],
    );
    host.order("o", "task: freeze");
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    let error = report["error"].as_str().unwrap_or_default();
    assert_eq!(report["phase"], "needs_operator", "{report}");
    assert!(error.starts_with("guard thaw of step hold has not succeeded: tried 2 times in 3s"), "{report}");
    assert!(error.ends_with("before that, step hold ended with status 3"), "{report}");
    assert_eq!(host.effects("o"), ["hold"], "nothing is undone beside the state");
    assert!(is_frozen(&host));
    host.order("p", "task: other");
    host.wait_for("p", &["waiting resource"]);
    let says = |report: &Value| {
        report["conditions"].to_string().contains(r#"guard thaw of step hold has not succeeded"#)
    };
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if says(&report) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // It can be repaired, and taken back: the guard first.
    fs::remove_file(host.path("count")).expect("the count");
    let thaw = THAW.replace("FROZEN", &host.path("frozen").display().to_string());
    let thaw = thaw.replace("EFFECTS", &host.path("effects").display().to_string());
    for copy in fs::read_dir(host.path("state/tasks")).expect("the copies").flatten() {
        let script = copy.path().join("thaw");
        if script.exists() {
            let _ = fs::remove_file(&script);
            fs::write(&script, &thaw).expect("the repaired guard");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
            fs::set_permissions(&script, mode).expect("its mode");
        }
    }
    let (status, said) = host.hostler(&["undo", "o", "--host", "never", "--reason", "repaired"]);
    assert_eq!(status, 0, "{said}");
    host.wait_for("o", &["undone"]);
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"]);
    host.wait_for("p", &["succeeded"]);
}

/// A state that lasts over three steps.
fn maintenance(host: &Host, seconds: &str, within: &str) {
    let yaml = format!(
        "name: care\nversion: 1\ntimeout: 5m\nsteps:\n  - name: on\n    run: [./on]\n    effect: repeatable\n    \
         guard: {{run: [./thaw], within: {within}, until: off}}\n  - {{name: work, run: [sleep, \"{seconds}\"], \
         effect: repeatable, grace: 1s}}\n  - {{name: off, run: [./off], effect: repeatable}}\n"
    );
    let frozen = host.path("frozen").display().to_string();
    let script = |text: &str| text.replace("FROZEN", &frozen);
    let on = script("#!/bin/sh\n: > FROZEN\necho \"$HOSTLER_ORDER $HOSTLER_RUN on\" >> EFFECTS\n");
    let off = script("#!/bin/sh\nrm -f FROZEN\necho \"$HOSTLER_ORDER $HOSTLER_RUN off\" >> EFFECTS\n");
    host.task("care", &yaml, &[("on", &on), ("off", &off), ("thaw", &script(THAW))]);
}

#[test]
fn a_guard_until_a_later_step_stands_until_that_has_ended() {
    let host = started("until");
    maintenance(&host, "1", "2m");
    host.order("o", "task: care");
    frozen(&host);
    host.wait_until("o", "the work", |report| report["step"]["name"] == "work");
    assert_eq!(host.watchers().len(), 1);
    host.wait_for("o", &["succeeded"]);
    assert_eq!(host.effects("o"), ["on", "off"]);
    nobody_watches(&host);
}

#[test]
fn a_guard_until_a_later_step_ends_the_step_that_runs_when_its_time_is_over() {
    let host = started("until-late");
    maintenance(&host, "60", "2s");
    host.order("o", "task: care");
    frozen(&host);
    thawed(&host, Duration::from_secs(6));
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "failed", "{report}");
    assert_eq!(report["error"], "step work did not end in time: guard thaw of step on has fired");
    assert_eq!(host.effects("o"), ["on", "thaw"]);
}

#[test]
fn steps_that_count_on_a_state_are_not_started_when_its_guard_has_fired() {
    let host = started("until-lost");
    maintenance(&host, "60", "2m");
    host.order("o", "task: care");
    host.wait_until("o", "the work", |report| report["step"]["name"] == "work");
    let executor = host.executors();
    executor.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!(report["phase"], "failed", "{report}");
    let error = "guard thaw of step on has fired, and step work counts on the state that it ended";
    assert_eq!(report["error"], error);
    assert_eq!(host.effects("o"), ["on", "thaw"]);
    nobody_watches(&host);
}

#[test]
fn a_final_step_that_is_resumable_goes_on_after_its_executor_was_lost() {
    let host = started("resumable");
    // It keeps a state of its own, and goes on from there.
    let at = host.path("at").display().to_string();
    let step = format!(
        "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN from-$(cat {at} 2>/dev/null)\" >> EFFECTS\n\
         [ -e {at} ] || {{ echo half > {at}; sleep 60; }}\necho done > {at}\n"
    );
    let check = format!("#!/bin/sh\n[ \"$(cat {at})\" = done ]\n");
    let yaml = "name: update\nversion: 1\nsteps:\n  - {name: go, run: [./go], effect: final, resumable: true, check: [./check]}\n";
    host.task("update", yaml, &[("go", &step), ("check", &check)]);
    host.order("o", "task: update");
    // The shell makes the file before it writes.
    eventually(DEFAULT_TIMEOUT, || match fs::read_to_string(&at) {
        Ok(text) if text == "half\n" => Ok(()),
        other => Err(format!("{other:?}; {}", host.log_tail())),
    });
    host.executors().iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!((&report["phase"], &report["epoch"]), (&"succeeded".into(), &2.into()), "{report}");
    assert_eq!(host.effects("o"), ["from-", "from-half"]);
}

#[test]
fn p11_a_guard_fires_while_the_next_epoch_waits_for_vault() {
    let mut vault = Vault::double();
    vault.policy("agent", &[("secret/data/*", &["read"]), ("auth/token/create", &["update"])]);
    vault.put("app", json!({"password": "correct horse"}));
    let mut host = Host::on_vault("vaultless", &vault, "");
    ENDLESS.install(&host);
    let yaml = host.path("tasks/freeze/task.yml");
    let text = fs::read_to_string(&yaml).expect("the task");
    fs::write(&yaml, text + "secrets: {pass: {path: secret/data/app, field: password}}\n").expect("the task");
    host.order("o", "task: freeze");
    host.start();
    frozen(&host);
    let (watchers, executors) = (host.watchers(), host.executors());
    host.kill();
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    watchers.iter().chain(&executors).for_each(|pid| signal(*pid, Signal::SIGKILL));
    // As after a boot at which Vault is not there yet.
    vault.stop();
    host.start();
    thawed(&host, Duration::from_secs(10));
    nobody_watches(&host);
    assert_eq!(host.effects("o"), ["hold", "thaw"], "{}", host.log_tail());
    vault.start_again();
    let report = host.wait_for("o", &["undone", "undo_failed", "failed", "needs_operator"]);
    assert_eq!((&report["phase"], &report["epoch"]), (&"undone".into(), &2.into()), "{report}");
    assert_eq!(host.effects("o"), ["hold", "thaw", "undo"], "it has fired once; {report}");
}

/// The blocks of the section about guards in the guide.
fn example() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/writing-tasks.md");
    let page = fs::read_to_string(page).expect("the guide");
    let section = page.split("\n## Guards\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap_or_default().1.to_owned()).collect()
}

#[test]
fn the_example_of_the_guide_does_what_it_says() {
    let host = started("guide");
    let blocks = example();
    let [yaml, copy, let_go] = blocks.as_slice() else { unreachable!("{blocks:?}") };
    host.task("quiet-copy", yaml, &[("copy", copy), ("let-go", let_go)]);
    let (status, said) =
        host.hostler(&["task", "lint", &host.path("tasks/quiet-copy").display().to_string()]);
    assert_eq!(status, 0, "{said}");
    let folder = host.path("data");
    fs::create_dir(&folder).expect("a folder");
    let order = format!("task: quiet-copy\nparams: {{folder: {}}}", folder.display());
    // There is nothing to copy: the step fails in the middle, and the guard lets the writers go.
    host.order("bad", &order);
    let report = host.wait_for("bad", &["failed", "succeeded", "needs_operator"]);
    assert!(report["phase"] == "failed" && !folder.join("hold").exists(), "{report}");
    assert!(report["warnings"].to_string().contains("guard let-go of step copy has fired"), "{report}");
    fs::write(folder.join("data"), "x").expect("the data");
    host.order("good", &order);
    let report = host.wait_for("good", &["failed", "succeeded", "needs_operator"]);
    assert!(report["phase"] == "succeeded" && !folder.join("hold").exists(), "{report}");
    assert_eq!(fs::read_to_string(folder.join("copy")).expect("the copy"), "x");
    // By hand as well, and nothing is said of a folder that is gone.
    let params = host.path("params.json");
    fs::write(&params, json!({"folder": folder}).to_string()).expect("the parameters");
    let (task, params) = (host.path("tasks/quiet-copy").display().to_string(), params.display().to_string());
    let words = ["task", "try", &task, "--params", &params];
    let (status, said) = host.hostler(&words);
    assert!(status == 0 && !said.contains("cannot"), "{said}");
    fs::remove_file(folder.join("data")).expect("the data");
    let (status, said) = host.hostler(&words);
    assert!(status == 10 && said.contains("guard let-go of step copy has fired"), "{said}");
    assert!(!said.contains("cannot open") && !folder.join("hold").exists(), "{said}");
}
