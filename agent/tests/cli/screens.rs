//! What the commands print, held as snapshots: each help, each table, each document.
//!
//! A change of a screen is a change of what people and their scripts see: it is looked at, and taken over with
//! `INSTA_UPDATE=always cargo test -p hostler --test cli screens`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::Command;
use insta::assert_snapshot;

use crate::bench::{Bench, Done};
use crate::steady::{screen, steady, steady_json};

/// The help of a command and of each below it, as it is with `--help`.
fn helps(command: &mut Command, path: &str, all: &mut Vec<(String, String)>) {
    let name = format!("{path} {}", command.get_name()).trim().to_owned();
    let help = command.clone().bin_name(&name).term_width(100).render_long_help().to_string();
    all.push((name.clone(), help));
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        helps(sub, &name, all);
    }
}

#[test]
fn help() {
    let mut command = hostler::cli::command();
    command.build();
    let mut all = Vec::new();
    helps(&mut command, "", &mut all);
    assert!(all.len() > 30, "{} commands", all.len());
    for (name, help) in all {
        assert_snapshot!(format!("help {name}").replace(' ', "-"), help);
    }
}

/// A store that hosts have written into, with every standing that there is; no agent is needed to read it.
pub(crate) fn fleet() -> Bench {
    let bench = Bench::new();
    for host in ["db2", "db3", "db4", "db5", "db6", "db7", "db8"] {
        bench.run(&["enroll", host, "--group", "hana"]).ends(0);
    }
    let put = |key: &str, text: String| {
        let path = bench.path("store/hostler").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "groups/hana/orders/backup",
        "task: postgres-backup\nparams: {cluster: main}\nby: alice\nreason: CHG1\n".into(),
    );
    put("hosts/db1/orders/broken", "tsk: x".into());
    put("hosts/db8/orders/backup", "skip: true".into());
    let list = bench.run(&["order", "list", "--json"]).ends(0).fits("order_list");
    let identity =
        list.as_array().unwrap().iter().find(|order| order["order"] == "groups/hana/backup").unwrap();
    let identity = identity["identity"].as_str().unwrap();
    let never = "2999-01-01T00:00:00Z";
    let agent = |host: &str, next_report_by: &str, conditions: &str, phase: &str| {
        let tasks = match host {
            "db1" | "db2" => {
                r#""tasks": {"hello": "1 sha256:0123456789ab", "postgres-backup": "3 sha256:aaaabbbbcccc"}, "#
            }
            "db4" => {
                r#""tasks": {"postgres-backup": "2 sha256:ddddeeeeffff", "own": "broken", "…": "and 3 more"}, "#
            }
            _ => "",
        };
        put(
            &format!("reports/agents/{host}"),
            format!(
                r#"{{"version": 1, "host": "{host}", "id": "x", "machine": "m", "agent_version": "0.1.0", "boot": "b", "groups": ["hana", "all"], {tasks}
                    "conditions": [{conditions}], "observed_index": {{}}, "audit": {{"n": 1, "hash": ""}}, "controls": {{}}, "orders": {{"backup": "{phase}"}}, "next_report_by": "{next_report_by}"}}"#
            ),
        );
    };
    let run = "01JD8000000000000000000000";
    let report = |host: &str, phase: &str, next_report_by: &str, more: &str| {
        put(
            &format!("reports/orders/{host}/backup"),
            format!(
                r#"{{"version": 1, "host": "{host}", "order": "backup", "source": "groups/hana", "identity": "{identity}", "phase": "{phase}", "epoch": 1,
                    "trigger": "placed", "task": "postgres-backup@3", "since": "2030-01-01T10:00:00Z", "next_report_by": "{next_report_by}"{more}}}"#
            ),
        );
    };
    let started =
        r#", "started": "2030-01-01T09:30:00Z", "step": {"index": 2, "count": 3, "name": "upload"}"#;
    let ended = r#", "ended": "2030-01-01T10:00:00Z""#;
    agent("db1", never, "", "succeeded");
    report(
        "db1",
        "succeeded",
        never,
        &format!(r#", "run": "{run}"{started}{ended}, "outputs": {{"backup_id": "b-17"}}, "exit_code": 0"#),
    );
    agent(
        "db2",
        never,
        r#"{"type": "disk", "message": "disk: 40 MiB are free in /var/lib/hostler"}"#,
        "failed",
    );
    report(
        "db2",
        "failed",
        never,
        &format!(
            r#", "run": "{run}"{started}{ended}, "exit_code": 3, "error": "step upload: exit status 3: no space left", "tail": "copying\nno space left on device""#
        ),
    );
    agent("db3", never, "", "waiting");
    report("db3", "waiting", never, r#", "reason": "window", "until": "2030-01-05T01:00:00Z""#);
    agent("db4", never, "", "held");
    report(
        "db4",
        "held",
        never,
        r#", "reason": "preexisting", "message": "it was there before this host remembers anything: hostler release backup --host db4""#,
    );
    agent("db5", "2020-01-01T00:00:00Z", "", "running");
    report(
        "db5",
        "running",
        "2020-01-01T00:00:00Z",
        &format!(r#"{started}, "progress": 40, "message": "copying""#),
    );
    agent("db6", never, "", "running");
    report(
        "db6",
        "paused",
        never,
        &format!(r#", "run": "{run}"{started}, "reason": "retry", "until": "2030-01-01T10:30:00Z""#),
    );
    for (host, role, stale) in
        [("db1", "primary", ""), ("db2", "secondary", "\"hana\""), ("db5", "secondary", "")]
    {
        put(
            &format!("reports/facts/{host}"),
            format!(
                r#"{{"version": 1, "host": "{host}", "labels": {{"site": "fra"}}, "facts": {{"host": {{"cpus": 4, "os": "sles"}}, "hana": {{"role": "{role}", "replication": "ACTIVE"}}}},
                    "stale": [{stale}], "left_out": [], "updated": "2030-01-01T09:30:00Z", "next_report_by": null}}"#
            ),
        );
    }
    put(
        &format!("reports/runs/db2/{run}"),
        r#"{"version": 1, "order": "backup", "source": "groups/hana", "trigger": "placed", "task": "postgres-backup@3", "phase": "failed", "epoch": 1,
            "started": "2030-01-01T09:30:00Z", "ended": "2030-01-01T10:00:00Z", "exit_code": 3, "error": "step upload: exit status 3", "tail": "no space left on device",
            "by": "alice", "reason": "CHG1", "params": "{\"cluster\":\"main\"}", "outputs": {"bytes": "17"},
            "steps": [{"name": "copy", "started": "2030-01-01T09:30:00Z", "took_ms": 61000, "exit": "0"},
                      {"name": "upload", "started": "2030-01-01T09:31:01Z", "took_ms": 1739000, "exit": "3"}]}"#
            .into(),
    );
    bench
}

#[test]
fn tables() {
    let bench = fleet();
    let run = "01JD8000000000000000000000";
    // No agent was ever here: there is no state folder.
    for (name, arguments) in [
        ("status", &["status"][..]),
        ("status-quiet", &["status", "-q"]),
        ("status-order", &["status", "backup"]),
        ("status-order-quiet", &["status", "backup", "-q"]),
        ("status-order-group", &["status", "backup", "--group", "hana"]),
        ("status-host", &["status", "--host", "db1"]),
        ("status-watch", &["status", "backup", "--watch", "--wait", "0s"]),
        ("status-done", &["status", "backup", "--host", "db1"]),
        ("status-failed", &["status", "backup", "--host", "db2"]),
        ("status-waiting", &["status", "backup", "--host", "db3"]),
        ("status-held", &["status", "backup", "--host", "db4"]),
        ("status-silent", &["status", "backup", "--host", "db5"]),
        ("status-not-seen", &["status", "backup", "--host", "db7"]),
        ("cancel-nothing", &["cancel", "backup", "--host", "db1"]),
        ("cancel-no-answer", &["cancel", "backup", "--host", "db6", "--answer-timeout", "0s"]),
        ("cancel-group", &["cancel", "backup", "--group", "hana"]),
        ("cancel-waiting", &["cancel", "backup", "--group", "hana", "--waiting"]),
        ("retry-group", &["retry", "backup", "--group", "hana"]),
        ("retry-group-all", &["retry", "backup", "--group", "hana", "--all", "--except", "db2"]),
        ("retry-except", &["retry", "backup", "--group", "hana", "--except", "db2"]),
        ("retry-except-other", &["retry", "backup", "--group", "hana", "--except", "db99"]),
        ("retry-hosts", &["retry", "backup", "--host", "db1,db3", "--failed"]),
        (
            "release-held",
            &[
                "release",
                "backup",
                "--group",
                "hana",
                "--held",
                "--confirm-hosts",
                "1",
                "--answer-timeout",
                "0s",
            ],
        ),
        ("accept-all", &["accept", "--all-orders", "--host", "db4", "--answer-timeout", "0s"]),
        ("accept-nothing", &["accept", "--all-orders", "--host", "db1"]),
        ("accept-order", &["accept", "--host", "db1"]),
        ("check-store-only", &["check", "--store-only"]),
        ("order-list", &["order", "list"]),
        ("order-list-watch", &["order", "list", "--watch", "--wait", "0s"]),
        ("order-list-watch-json", &["order", "list", "--watch", "--json"]),
        ("order-put", &["order", "put", "x", "--host", "db1", "--task", "good"]),
        ("order-put-again", &["order", "put", "x", "--host", "db1", "--task", "good"]),
        ("order-put-changed", &["order", "put", "x", "--host", "db1", "--task", "good", "--param", "n=1"]),
        (
            "order-put-check",
            &["order", "put", "x", "--host", "db1", "--task", "good", "--param", "n=2", "--check"],
        ),
        ("order-put-task", &["order", "put", "x", "--host", "db1", "--task", "bad"]),
        (
            "order-put-schedule",
            &["order", "put", "x", "--host", "db1", "--task", "good", "--schedule", "30 2 31 12 *"],
        ),
        ("order-put-group", &["order", "put", "x", "--group", "hana", "--task", "good"]),
        (
            "order-put-follow",
            &[
                "order",
                "put",
                "backup",
                "--group",
                "hana",
                "--task",
                "postgres-backup",
                "--param",
                "cluster=main",
                "--check",
            ],
        ),
        ("order-next-none", &["order", "next", "x", "--host", "db1"]),
        ("order-delete", &["order", "delete", "x", "--host", "db1"]),
        ("order-delete-group", &["order", "delete", "backup", "--group", "hana"]),
        ("order-revert-list", &["order", "revert", "x", "--host", "db1", "--list"]),
        ("order-revert-to", &["order", "revert", "x", "--host", "db1", "--to", "9"]),
        ("order-revert-check", &["order", "revert", "x", "--host", "db1", "--check"]),
        ("order-revert-none", &["order", "revert", "backup", "--group", "hana"]),
        ("order-get", &["order", "get", "backup", "--group", "hana"]),
        ("facts", &["facts"]),
        ("facts-where", &["facts", "--group", "hana", "--where", "hana.role == 'secondary'"]),
        ("facts-host", &["facts", "--host", "db1"]),
        ("facts-none", &["facts", "--where", "host.os == 'debian' or pg.role"]),
        ("runs", &["runs", "--host", "db2"]),
        ("runs-watch", &["runs", "--host", "db2", "--watch", "--wait", "0s"]),
        ("runs-watch-json", &["runs", "--watch", "--json"]),
        ("runs-none", &["runs", "--host", "db1"]),
        (
            "runs-failed",
            &["runs", "--group", "hana", "--order", "backup", "--task", "postgres-backup", "--failed"],
        ),
        ("runs-since", &["runs", "--host", "db1,db2", "--since", "2999-01-01"]),
        ("runs-since-bad", &["runs", "--since", "last week"]),
        ("runs-show", &["runs", "show", "000000"]),
        ("runs-show-none", &["runs", "show", "ABCDEF"]),
        ("runs-show-bad", &["runs", "show", "abc"]),
        ("audit-none", &["audit"]),
        ("audit-group", &["audit", "--group", "hana"]),
        (
            "audit-by",
            &[
                "audit",
                "--host",
                "db1,db2",
                "--by",
                "alice",
                "--task",
                "postgres-backup",
                "--since",
                "2030-01-01",
            ],
        ),
        ("audit-nothing", &["audit", "--host", "db3", "--since", "2999-01-01"]),
        ("logs", &["logs", run, "--host", "db2"]),
        ("logs-short", &["logs", "01JD80", "--host", "db2"]),
        ("logs-order", &["logs", "backup", "--host", "db2"]),
        ("logs-order-follow", &["logs", "backup", "--host", "db2", "-f"]),
        ("logs-order-failed", &["logs", "backup", "--group", "hana", "--failed"]),
        ("logs-order-all", &["logs", "backup", "--host", "db1,db2", "-n", "1"]),
        ("logs-order-none", &["logs", "backup", "--host", "db3"]),
        ("logs-run-group", &["logs", run, "--group", "hana"]),
        ("task-list", &["task", "list"]),
        ("task-list-group", &["task", "list", "--group", "hana"]),
        ("task-list-host", &["task", "list", "--host", "db1,db3"]),
        ("task-show", &["task", "show", "good"]),
        ("task-lint", &["task", "lint"]),
        ("enroll", &["enroll", "db9", "--group", "hana"]),
        ("freeze", &["freeze", "hana", "--reason", "test", "--until", "2999-01-01T00:00:00Z"]),
        ("freeze-list", &["freeze", "--list"]),
        (
            "freeze-wait",
            &["freeze", "--host", "db3", "--by", "alice", "--until", "2999-01-01T00:00:00Z", "--wait=0s"],
        ),
        ("status-frozen", &["status", "--host", "db3"]),
        ("status-waits", &["status", "--waiting"]),
        ("status-waits-not", &["status", "--waiting", "--host", "db1"]),
        ("thaw-host", &["thaw", "--host", "db3", "--by", "alice"]),
        ("thaw", &["thaw", "hana"]),
        ("freeze-list-none", &["freeze", "--list"]),
        ("mistyped-order", &["status", "bakup"]),
        ("group-as-order", &["status", "hana"]),
        ("host-as-order", &["status", "db3"]),
        ("host-as-group", &["status", "--group", "db1"]),
        ("group-as-host", &["retry", "backup", "--host", "hana"]),
        ("mistyped-host", &["status", "--host", "db11"]),
        ("mistyped-group", &["status", "--group", "hanna"]),
        ("mistyped-task", &["task", "show", "god"]),
        ("mistyped-command", &["statsu"]),
    ] {
        assert_snapshot!(format!("screen-{name}"), screen(&bench, arguments));
    }
}

/// The same on a terminal of 80 columns: what is cut there, and what wraps.
#[test]
fn narrow() {
    let bench = fleet();
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("status", &["status"]),
        ("status-order", &["status", "backup"]),
        ("status-failed", &["status", "backup", "--host", "db2"]),
        ("status-held", &["status", "backup", "--host", "db4"]),
        ("status-silent", &["status", "backup", "--host", "db5"]),
        ("status-watch", &["status", "backup", "--watch", "--wait", "0s"]),
        ("order-list", &["order", "list"]),
        ("order-list-watch", &["order", "list", "--watch", "--wait", "0s"]),
        ("facts", &["facts"]),
        ("runs", &["runs", "--host", "db2"]),
        ("runs-watch", &["runs", "--host", "db2", "--watch", "--wait", "0s"]),
        ("check-store-only", &["check", "--store-only"]),
    ] {
        let done = bench.on_terminal(arguments);
        // A view that is watched ends each line for the terminal; here the lines themselves are of interest.
        let text = done.out.replace('\x1b', "ESC");
        assert_snapshot!(
            format!("narrow-{name}"),
            steady(&bench, &format!("{text}exit status {}\n", done.code))
        );
    }
    for (name, arguments) in [
        ("facts", &["facts"][..]),
        ("runs", &["runs", "--host", "db2"]),
        ("runs-show", &["runs", "show", "000000"]),
        ("status", &["status"]),
        ("status-order", &["status", "backup"]),
        ("status-host", &["status", "--host", "db2"]),
        ("status-watch", &["status", "backup", "--watch", "--wait", "0s"]),
        ("order-list", &["order", "list"]),
        ("audit-group", &["audit", "--group", "hana"]),
        ("task-list-group", &["task", "list", "--group", "hana"]),
        ("freeze-list", &["freeze", "--list"]),
    ] {
        let done = bench.on_terminal_of(60, arguments);
        // Commands are whole, so that they can be taken over with the mouse.
        let answer: Vec<&str> = done.out.lines().filter(|line| !line.contains("hostler")).collect();
        // A view that is watched begins and ends its lines with words for the terminal.
        let plain = |line: &str| line.replace("\x1b[2J\x1b[?7l\x1b[H", "").replace("\x1b[K", "");
        assert!(answer.iter().all(|line| plain(line).chars().count() <= 60), "{name}: {}", done.out);
        let text = done.out.replace('\x1b', "ESC");
        assert_snapshot!(format!("{name}-60"), steady(&bench, &text));
    }
}

#[test]
fn a_schedule_says_when_it_fires() {
    let bench = fleet();
    let order = ["order", "put", "nightly", "--host", "db1", "--task", "good", "--schedule", "30 2 * * *"];
    let times = ["--timezone", "Europe/Berlin", "--window", "Sat 03:00-05:00"];
    let put = bench.run(&[&order[..], &times].concat()).ends(0).says("next firings: ");
    assert_eq!(put.out.matches("02:30 Europe/Berlin").count(), 3, "{}", put.out);
    let next = bench.run(&["order", "next", "nightly", "--host", "db1", "-n", "7"]).ends(0);
    assert_eq!(next.out.lines().count(), 8, "{}", next.out);
    // Its window opens once in these seven days, and each firing waits for it.
    assert_eq!(next.out.matches("when the window opens, Sat ").count(), 7, "{}", next.out);
    let json = bench.run(&["order", "next", "nightly", "--host", "db1", "--json"]).fits("order_next");
    assert_eq!(json["firings"].as_array().unwrap().len(), 5);
    let list = bench.run(&["order", "list", "--host", "db1"]).ends(0);
    list.says("30 2 * * * Europe/Berlin").says(" 02:30 ");
    // Without the schedule it would be carried out now: that is asked first.
    bench.run(&order[..7]).ends(6).says("with 30 2 * * * Europe/Berlin").says("--replace");
    bench.run(&[&order[..7], &["--replace"]].concat()).ends(0).says("- schedule: \"30 2 * * *\"");
    bench.run(&["order", "delete", "nightly", "--host", "db1", "--by", "bob", "--reason", "CHG7"]).ends(0);
    let kept = ["order", "revert", "nightly", "--host", "db1"];
    bench.run(&[&kept[..], &["--list"]].concat()).ends(0).says("deleted").says("bob").says("CHG7");
    let back = bench.run(&[&kept[..], &["--to", "2"]].concat()).ends(0).says("next firings: ");
    assert!(back.out.contains("+ revision: "), "hosts would hold what they held before: {}", back.out);
    let only =
        ["order", "put", "watched", "--host", "db1", "--task", "good", "--reconcile", "15m", "--report-only"];
    let only = bench.run(&[&only[..], &["--check"]].concat()).ends(0);
    assert!(only.out.contains(r#"{"every":"15m","only":"report"}"#), "{}", only.out);
    // An editor that changes nothing, one that makes a mistake, and one that does what is wanted.
    let edit = |script: &str| {
        let editor = bench.path("editor");
        fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = bench.command(&["order", "edit", "nightly", "--host", "db1"]);
        command.env("VISUAL", &editor).env("TMPDIR", bench.dir.path());
        Done::from(command.output().unwrap())
    };
    edit("true").ends(0).says("nothing was changed");
    edit("echo 'tusk: x' >> \"$1\"").ends(3).says("tusk").says("your text is kept in");
    edit("echo 'not_after: 2999-01-01T00:00:00Z' >> \"$1\"")
        .ends(0)
        .says("+ not_after: \"2999-01-01T00:00:00Z\"");
    edit("exit 1").ends(3).says("set EDITOR");
}

#[test]
fn documents() {
    let bench = fleet();
    let run = "01JD8000000000000000000000";
    for (definition, arguments) in [
        ("status", &["status", "--json"][..]),
        ("status_rows", &["status", "backup", "--json"]),
        ("order_list", &["order", "list", "--json"]),
        ("order_get", &["order", "get", "backup", "--group", "hana", "--json"]),
        ("order_put", &["order", "put", "x", "--host", "db1", "--task", "good", "--json"]),
        ("order_delete", &["order", "delete", "x", "--host", "db1", "--json"]),
        ("runs", &["runs", "--host", "db2", "--json"]),
        ("facts", &["facts", "--json"]),
        ("runs_show", &["runs", "show", run, "--json"]),
        ("logs", &["logs", run, "--host", "db2", "--json"]),
        ("logs_order", &["logs", "backup", "--group", "hana", "--json"]),
        ("task_list", &["task", "list", "--json"]),
        ("task_list_fleet", &["task", "list", "--group", "hana", "--json"]),
        ("task_show", &["task", "show", "good", "--json"]),
        ("task_lint", &["task", "lint", "--json"]),
        ("enroll", &["enroll", "db9", "--json"]),
        ("order_former", &["order", "revert", "x", "--host", "db1", "--list", "--json"]),
        ("freeze", &["freeze", "hana", "--json"]),
        ("freeze_list", &["freeze", "--list", "--json"]),
        ("audit_fleet", &["audit", "--group", "hana", "--json"]),
        ("thaw", &["thaw", "hana", "--json"]),
        ("control", &["cancel", "backup", "--host", "db6", "--answer-timeout", "0s", "--json"]),
        ("check", &["check", "--json", "--store-only"]),
    ] {
        let document = bench.run(arguments).fits(definition);
        assert_snapshot!(format!("json-{definition}"), steady_json(&bench, document));
    }
}
