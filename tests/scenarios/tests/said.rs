//! What a report says of what a step said and how it ended: no line is dropped in silence, and no status is made up.
//! Without systemd.

use std::fs;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

fn step(host: &Host, name: &str, script: &str) {
    let yaml = format!("name: {name}\nversion: 1\nsteps: [{{name: s, run: [./s], timeout: 60s}}]\n");
    host.task(name, &yaml, &[("s", &format!("#!/bin/bash\n{script}\n"))]);
}

/// The report of a run, as the host wrote it.
fn run_report(host: &Host, report: &Value) -> Value {
    let run = report["run"].as_str().unwrap_or_default();
    let key = format!("hostler/reports/runs/{}/{run}", host.name());
    // It may come later than the report of the order.
    let text = eventually(DEFAULT_TIMEOUT, || {
        host.get(&key).ok_or_else(|| format!("no {key}; {}", host.log_tail()))
    });
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn what_a_step_reports_arrives_however_it_writes_the_file() {
    let mut host = Host::on_dir("said");
    let progress =
        r#"echo '{"progress": 10, "message": "a line that is read before the next one replaces it"}'"#;
    let id = r#"'{"output": {"id": "B1"}}'"#;
    // The progress is in the report before the step goes on.
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", host.path("go").display());
    let ways = [
        ("no-newline", format!("{progress} >> $HOSTLER_REPORT; {wait}; printf {id} >> $HOSTLER_REPORT")),
        ("again", format!("{progress} > $HOSTLER_REPORT; {wait}; echo {id} > $HOSTLER_REPORT")),
        (
            "longer",
            format!("{progress} > $HOSTLER_REPORT; {wait}; printf '%200s\\n%s' '' {id} > $HOSTLER_REPORT"),
        ),
        ("moved", format!("{progress} > $HOSTLER_REPORT; {wait}; echo {id} > own; mv own $HOSTLER_REPORT")),
        (
            "mark",
            format!(
                "{progress} > $HOSTLER_REPORT; {wait}; printf '\\xef\\xbb\\xbf%s\\r\\n' {id} > $HOSTLER_REPORT"
            ),
        ),
    ];
    // All at once.
    host.configure("runs: {parallel: 8}");
    host.start();
    for (name, script) in &ways {
        let script = script.replace("own", &host.path(name).display().to_string());
        step(&host, name, &script);
        host.order(name, &format!("task: {name}"));
    }
    for (name, _) in &ways {
        host.wait_until(name, "its progress", |report| report["progress"] == 10);
    }
    fs::write(host.path("go"), "").unwrap();
    for (name, _) in &ways {
        let report = host.wait_for(name, &["succeeded", "failed"]);
        assert_eq!(report["outputs"]["id"], "B1", "{name}: {report}");
        assert_eq!(report["warnings"].as_array().map(Vec::len), Some(0), "{name}: {report}");
    }
}

#[test]
fn lines_that_are_not_understood_are_counted_in_reports_status_and_log() {
    let mut host = Host::on_dir("bad-lines");
    let script = "cat >> $HOSTLER_REPORT <<'END'\nprogress 40\n{\"output\": {\"Id\": \"B1\"}}\n{\"message\": \"m\", \"progress\": 400}\nEND";
    step(&host, "bad", script);
    host.start();
    host.order("o", "task: bad");
    let report = host.wait_for("o", &["succeeded"]);
    let wanted = "step 1 of 1: s: 3 lines of HOSTLER_REPORT were not understood, the first: \"progress 40\": it is not JSON";
    let said = |report: &Value| report["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(said(&report).starts_with(wanted), "{report}");
    assert!(report["message"].is_null(), "nothing of a bad line is taken: {report}");
    eventually(DEFAULT_TIMEOUT, || match run_report(&host, &report) {
        run if said(&run).starts_with(wanted) => Ok(()),
        run => Err(format!("{run}")),
    });
    assert!(fs::read_to_string(host.path("log")).unwrap().contains(wanted));
    let (_, shown) = host.hostler(&["status", "o", "--host", "bad-lines"]);
    assert!(shown.contains("3 lines of HOSTLER_REPORT were not understood"), "{shown}");
    let folder = host.path("tasks/bad").display().to_string();
    let (code, shown) = host.hostler(&["task", "try", &folder]);
    assert!(code == 0 && shown.contains("3 lines of HOSTLER_REPORT were not understood"), "{shown}");
}

#[test]
fn of_a_progress_bar_the_tail_has_what_was_written_last() {
    let mut host = Host::on_dir("bar");
    let script = "echo copying\nfor i in $(seq 2000); do printf '%s of 2000 pages of the file\\r' $i; done\n\
                  printf 'FATAL: the disk broke\\n'\nexit 3";
    step(&host, "bar", script);
    host.start();
    host.order("o", "task: bar");
    let report = host.wait_for("o", &["failed"]);
    let tail = report["tail"].as_str().unwrap_or_default();
    assert!(tail.ends_with("copying\nFATAL: the disk broke\n") && tail.starts_with("==> step 1"), "{report}");
}

#[test]
fn no_status_is_reported_of_what_did_not_end_by_itself() {
    let mut host = Host::on_dir("status");
    let go = host.path("go");
    let second = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 4", go.display());
    host.task(
        "two",
        "name: two\nversion: 1\nsteps:\n  - {name: a, run: [/bin/true]}\n  - {name: b, run: [./b]}\n",
        &[("b", &format!("#!/bin/bash\n{second}\n"))],
    );
    step(&host, "killed", "kill -9 $$");
    let yaml = "name: late\nversion: 1\nsteps:\n  - {name: a, run: [/bin/true]}\n  - {name: b, run: [sleep, \"1000\"], timeout: 1s, grace: 1s}\n";
    host.task("late", yaml, &[]);
    host.start();
    for (name, wanted) in [("killed", "was ended by signal 9"), ("late", "took too long")] {
        host.order(name, &format!("task: {name}"));
        let report = host.wait_for(name, &["failed"]);
        assert!(report["error"].as_str().is_some_and(|error| error.contains(wanted)), "{report}");
        assert!(report["exit_code"].is_null(), "{report}");
    }
    host.order("two", "task: two");
    let report = host.wait_until("two", "its second step", |report| report["step"]["name"] == "b");
    assert!(report["phase"] == "running" && report["exit_code"].is_null(), "{report}");
    let (_, shown) = host.hostler(&["status", "two", "--host", "status"]);
    assert!(!shown.contains("exit code"), "{shown}");
    fs::write(&go, "").unwrap();
    assert_eq!(host.wait_for("two", &["failed"])["exit_code"], 4);
    // Nobody knows how a step ended that was lost with its executor.
    fs::remove_file(&go).unwrap();
    host.order("lost", "task: two");
    host.wait_until("lost", "its second step", |report| report["step"]["name"] == "b");
    let executor =
        eventually(DEFAULT_TIMEOUT, || host.executors().first().copied().ok_or("no executor".into()));
    signal(executor, Signal::SIGKILL);
    let report = host.wait_for("lost", &["needs_operator"]);
    assert!(report["exit_code"].is_null(), "{report}");
}

#[test]
fn a_list_of_runs_says_why_each_ran_and_which_changed_nothing() {
    let mut host = Host::on_dir("runs");
    step(&host, "t", "true");
    host.start();
    host.order("real", "task: t");
    host.wait_for("real", &["succeeded"]);
    host.order("dry", "task: t\ndry_run: true");
    host.wait_for("dry", &["succeeded"]);
    let (code, shown) = host.hostler(&["runs", "--json"]);
    assert_eq!(code, 0, "{shown}");
    let document: Value = serde_json::from_str(&shown).unwrap();
    let of = |order: &str| {
        let runs = document["runs"].as_array().into_iter().flatten();
        let run = runs.into_iter().find(|run| run["order"] == order).cloned().unwrap_or_default();
        (run["trigger"].clone(), run["dry_run"].clone())
    };
    assert_eq!((of("real"), of("dry")), (("placed".into(), false.into()), ("placed".into(), true.into())));
    let (_, shown) = host.hostler(&["runs"]);
    let line = |order: &str| shown.lines().find(|line| line.contains(order)).unwrap_or_default().to_owned();
    assert!(line("dry").contains("dry run, placed") && !line("real").contains("dry run"), "{shown}");
}
