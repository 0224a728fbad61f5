//! What the commands print that only make sense beside a real agent, held as snapshots like those of `screens`.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::bench::{Bench, Done};
use crate::steady::{screen, shown, steady, steady_json};

/// What `run` prints at its end: how much of the way there it shows is a matter of luck.
fn end_of_run(bench: &Bench, done: Done, phase: &str) -> String {
    let end: String = done
        .out
        .lines()
        .skip_while(|line| !line.starts_with(phase))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(!end.is_empty(), "{phase} is not in {}{}", done.out, done.err);
    shown(bench, &Done { out: end, ..done })
}

/// What `check` says, without how full this machine's disk is, and so without how many checks are content.
fn check(bench: &Bench) -> String {
    let text = screen(bench, &["check"]);
    let of_machine = |line: &&str| line.contains(" free (") || line.contains("free some space");
    let kept = text.lines().filter(|line| !of_machine(line) && !line.contains(" skipped"));
    kept.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_run_and_what_the_host_says_of_it() {
    let mut bench = Bench::new();
    bench.start();
    let done = bench.run(&["run", "good", "--host", "db1"]).ends(0);
    assert_snapshot!("act-run-good", end_of_run(&bench, done, "succeeded"));
    // The report that tells of the audit's end is in the store a second after the run's own.
    bench.until(&["audit", "--verify"], "its end is told", |done| {
        done.out.contains("reported to the store is 5")
    });
    for (name, arguments) in [
        ("audit", &["audit"][..]),
        ("audit-verify", &["audit", "--verify"]),
        ("adopt", &["adopt"]),
        ("runs-here", &["runs", "--watch", "--wait", "0s"]),
    ] {
        assert_snapshot!(format!("act-{name}"), screen(&bench, arguments));
    }
    for view in ["audit", "runs"] {
        assert_snapshot!(format!("narrow-{view}-here"), shown(&bench, &bench.on_terminal(&[view])));
    }
    assert_snapshot!("act-check", check(&bench));
    for (definition, arguments) in [
        ("audit", &["audit", "--json"][..]),
        ("audit_verify", &["audit", "--verify", "--json"]),
        ("adopt", &["adopt", "--json"]),
    ] {
        let document = bench.run(arguments).ends(0).fits(definition);
        assert_snapshot!(format!("json-{definition}"), steady_json(&bench, document));
    }
    let done = bench.run(&["run", "bad", "--host", "db1"]).ends(10);
    assert_snapshot!("act-run-bad", end_of_run(&bench, done, "failed"));
    assert_snapshot!("act-retry", screen(&bench, &["retry", "bad", "--host", "db1"]));
    let document = bench.run(&["run", "good", "--host", "db1", "--json"]).ends(0).fits("run");
    assert_snapshot!("json-run", steady_json(&bench, document));
    let group = [
        "run",
        "good",
        "--group",
        "hana",
        "--spread",
        "0s",
        "--order",
        "g",
        "--confirm-hosts",
        "1",
        "--json",
    ];
    let document = bench.run(&group).ends(0).fits("run_group");
    assert_snapshot!("json-run_group", steady_json(&bench, document));
}

#[test]
fn acts_on_what_a_host_holds_does_and_cannot_tell() {
    let mut bench = Bench::new();
    bench.step_task("final", "effect: final", "exit 3", "exit 0");
    let mended = bench.path("mended").display().to_string();
    bench.step_task("stuck", "effect: undoable, undo: [./back]", "exit 3", &format!("test -e {mended}"));
    // What was there before the agent's first start is held.
    for order in ["early", "old"] {
        bench.run(&["order", "put", order, "--host", "db1", "--task", "good"]).ends(0);
    }
    bench.start();
    let held = |order: &'static str| {
        bench.until(&["status", order], "held", |done| done.out.contains("preexisting"));
    };
    held("early");
    held("old");
    assert_snapshot!("act-held", screen(&bench, &["status", "old"]));
    assert_snapshot!("act-release", screen(&bench, &["release", "early", "--host", "db1"]));
    assert_snapshot!("act-accept", screen(&bench, &["accept", "old", "--host", "db1"]));
    bench.run(&["order", "put", "slow", "--host", "db1", "--task", "slow"]).ends(0);
    bench.until(&["status", "slow"], "running", |done| done.out.contains("running"));
    assert_snapshot!("act-cancel", screen(&bench, &["cancel", "slow", "--host", "db1", "--reason", "test"]));
    for order in ["a", "b"] {
        bench.run(&["run", "final", "--host", "db1", "--order", order]).ends(13);
    }
    assert_snapshot!("act-needs-operator", screen(&bench, &["status", "a"]));
    let acknowledge = ["acknowledge", "a", "--host", "db1", "--as", "done", "--reason", "looked"];
    assert_snapshot!("act-acknowledge", screen(&bench, &acknowledge));
    assert_snapshot!("act-undo-refused", screen(&bench, &["undo", "b", "--host", "db1"]));
    bench.run(&["run", "stuck", "--host", "db1"]).ends(12);
    fs::write(mended, "").unwrap();
    assert_snapshot!("act-undo", screen(&bench, &["undo", "stuck", "--host", "db1"]));
    bench.until(&["status", "stuck"], "undone", |done| done.out.contains("phase        undone\n"));
}

#[test]
fn what_authors_see() {
    let bench = Bench::new();
    let dir = bench.path("new").display().to_string();
    fs::create_dir(&dir).unwrap();
    let program = |arguments: &[&str]| {
        Done::from(Command::new(env!("CARGO_BIN_EXE_hostler")).args(arguments).output().unwrap())
    };
    assert_snapshot!("act-task-new", shown(&bench, &program(&["task", "new", "motd", "--dir", &dir])));
    assert_snapshot!("act-task-new-again", shown(&bench, &program(&["task", "new", "motd", "--dir", &dir])));
    assert_snapshot!("act-task-try", screen(&bench, &["task", "try", "good"]));
    assert_snapshot!("act-task-try-failed", screen(&bench, &["task", "try", "bad"]));
    assert_snapshot!("act-task-try-refused", screen(&bench, &["task", "try", "good", "--param", "n=x"]));
    for document in ["configuration", "order", "output", "task"] {
        let schema = program(&["schema", document]).ends(0).out;
        let first: Vec<&str> = schema.lines().take(5).collect();
        assert_snapshot!(format!("act-schema-{document}"), steady(&bench, &first.join("\n")));
    }
}
