//! Downtime that steps report: counted once for each epoch, whoever is killed, and held against a budget.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ENDS: [&str; 4] = ["succeeded", "failed", "needs_operator", "undone"];

fn line(service: &str, seconds: &str) -> String {
    format!(
        "printf '{{\"downtime\": {{\"service\": \"{service}\", \"seconds\": {seconds}}}}}\\n' >> \"$HOSTLER_REPORT\"\n"
    )
}

/// The sums of the host's own record, by service: its lines hold each downtime once.
fn counted(host: &Host) -> Vec<(String, u64)> {
    let text = fs::read_to_string(host.path("state/downtime")).unwrap_or_default();
    let facts =
        text.lines().skip(1).filter_map(|line| serde_json::from_str::<Vec<Value>>(line.get(9..)?).ok());
    let mut sums: Vec<(String, u64)> = Vec::new();
    for fact in facts.flatten() {
        let ms = (fact["seconds"].as_f64().unwrap_or_default() * 1000.0).round();
        let service = fact["service"].as_str().unwrap_or_default().to_owned();
        match sums.iter_mut().find(|(known, _)| *known == service) {
            Some((_, sum)) => *sum += ms as u64,
            None => sums.push((service, ms as u64)),
        }
    }
    sums.sort();
    sums
}

#[test]
fn what_a_step_reports_is_in_journal_report_runs_audit_and_metrics() {
    let mut host = Host::on_dir("downtime-line");
    host.configure("objectives: [{service: \"web\", target: 99.9, window: 1d}]\n");
    let script =
        format!("#!/bin/sh\n{}{}{}exit 3\n", line("web", "0.42"), line("Web", "1"), line("web", "0.08"));
    host.task(
        "cost",
        "name: cost\nversion: 1\nsteps:\n  - {name: one, run: [./one], effect: repeatable}\n",
        &[("one", &script)],
    );
    host.order("o", "task: cost");
    host.start();
    // A step that fails has cost what it has cost.
    let report = host.wait_for("o", &ENDS);
    assert_eq!(report["downtime"], json!([{"service": "web", "seconds": 0.5}]), "{report}");
    assert!(report["warnings"].to_string().contains("not the name of a service"), "{report}");
    assert_eq!(counted(&host), [("web".to_owned(), 500)]);
    // For those who look from afar the agent reports what is left.
    let budget = json!([{"service": "web", "target": 99.9, "window": "1d", "allowed": 86.4, "spent": 0.5}]);
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["budgets"] == budget => Ok(()),
        report => Err(format!("{report:?}")),
    });
    let journal = fs::read_to_string(host.runs()[0].join("journal")).expect("the journal");
    assert!(journal.contains(r#""event":"downtime""#), "{journal}");
    let (_, runs) = host.hostler(&["runs"]);
    assert!(runs.contains("DOWNTIME") && runs.contains("web 0.500 s"), "{runs}");
    let (_, audit) = host.hostler(&["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit).expect("the audit");
    let ended = audit["entries"].as_array().and_then(|all| all.iter().find(|entry| entry["what"] == "ended"));
    assert_eq!(ended.expect("the end")["downtime"][0]["seconds"], json!(0.5), "{audit}");
}

/// Agent and executor are killed while a step has reported something and goes on; its next epoch reports it again.
#[test]
fn each_epoch_counts_once_whoever_is_killed() {
    let mut host = Host::on_dir("downtime-kills");
    let wait = host.path("wait");
    // The first two epochs report and hang; the third one ends.
    let script = format!(
        "#!/bin/sh\n{}: > {wait}.$HOSTLER_EPOCH\n[ \"$HOSTLER_EPOCH\" -ge 3 ] || sleep 300\n",
        line("web", "1.5"),
        wait = wait.display()
    );
    host.task(
        "cost",
        "name: cost\nversion: 1\nsteps:\n  - {name: one, run: [./one], effect: repeatable, grace: 1s}\n\
         \x20 - {name: two, run: [./two], effect: repeatable}\n",
        &[("one", &script), ("two", &format!("#!/bin/sh\n{}", line("db", "0.25")))],
    );
    host.order("o", "task: cost");
    host.start();
    for epoch in 1..=2 {
        let reached = host.path(&format!("wait.{epoch}"));
        eventually(DEFAULT_TIMEOUT, || if reached.exists() { Ok(()) } else { Err(host.log_tail()) });
        if epoch == 2 {
            host.kill();
        }
        host.executors().iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        if epoch == 2 {
            host.start();
        }
    }
    let report = host.wait_for("o", &ENDS);
    assert_eq!((&report["phase"], &report["epoch"]), (&json!("succeeded"), &json!(3)), "{report}");
    let sums = json!([{"service": "db", "seconds": 0.25}, {"service": "web", "seconds": 4.5}]);
    assert_eq!(report["downtime"], sums, "{report}");
    let expected = [("db".to_owned(), 250), ("web".to_owned(), 4500)];
    assert_eq!(counted(&host), expected);
    // Looked at again by an agent that knows nothing but the disk.
    host.kill();
    host.start();
    eventually(DEFAULT_TIMEOUT, || match host.hostler(&["check", "--ready"]) {
        (0, _) => Ok(()),
        (_, said) => Err(said),
    });
    assert_eq!(counted(&host), expected);
}

/// The blocks of the section about downtime in the guide.
fn example() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/writing-tasks.md");
    let page = fs::read_to_string(page).expect("the guide");
    let section = page.split("\n## Downtime\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap_or_default().1.to_owned()).collect()
}

#[test]
fn the_example_of_the_guide_runs_and_waits_when_its_budget_is_spent() {
    let mut host = Host::on_dir("downtime-guide");
    let blocks = example();
    let [yaml, restart, objectives] = blocks.as_slice() else { unreachable!("{blocks:?}") };
    host.task("restart-web", yaml, &[("restart", restart)]);
    // Without an objective the gate is closed, and says what is missing.
    let folder = host.path("tasks/restart-web").display().to_string();
    let (status, said) = host.hostler(&["task", "lint", &folder]);
    assert_eq!(status, 0, "{said}");
    host.order("early", "task: restart-web");
    host.start();
    let report = host.wait_for("early", &["waiting gate", "succeeded", "failed"]);
    assert!(
        report["message"].to_string().contains("no objective of this host covers the service web"),
        "{report}"
    );
    host.configure(objectives);
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    let report = host.wait_for("early", &ENDS);
    assert_eq!(report["phase"], "succeeded", "{report}");
    let cost = report["downtime"][0]["seconds"].as_f64().unwrap_or_default();
    assert!((0.3..60.0).contains(&cost), "{report}");
    // Somebody spends the rest: 259.2 s in 30 days.
    host.task(
        "outage",
        "name: outage\nversion: 1\nsteps:\n  - {name: one, run: [./one], effect: repeatable}\n",
        &[("one", &format!("#!/bin/sh\n{}", line("web", "259")))],
    );
    host.order("outage", "task: outage");
    host.wait_for("outage", &ENDS);
    host.order("late", "task: restart-web");
    let report = host.wait_for("late", &["waiting gate", "succeeded", "failed"]);
    let message = report["message"].to_string();
    assert!(message.contains("the error budget of web (99.99 % over 30d)"), "{report}");
    assert!(message.contains("and the task needs 2.000 s"), "{report}");
    // Today leaves the window in thirty days, at midnight.
    let until: jiff::Timestamp = report["until"].as_str().unwrap_or_default().parse().expect("an instant");
    let days = until.duration_since(jiff::Timestamp::now()).as_secs() / 86_400;
    assert!(until.as_second() % 86_400 == 0 && (28..=30).contains(&days), "{report}");
    // The operator promises less, and what waits goes on.
    host.configure(&objectives.replace("99.99", "99.9"));
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    let report = host.wait_for("late", &ENDS);
    assert_eq!(report["phase"], "succeeded", "{report}");
}
