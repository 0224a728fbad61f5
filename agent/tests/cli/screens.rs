//! What the commands print, held as snapshots: each help, each table, each document.
//!
//! A change of a screen is a change of what people and their scripts see: it is looked at, and taken over with
//! `INSTA_UPDATE=always cargo test -p hostler --test cli screens`.

use std::fs;

use clap::Command;
use insta::assert_snapshot;

use crate::bench::Bench;
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
        put(
            &format!("reports/agents/{host}"),
            format!(
                r#"{{"version": 1, "host": "{host}", "id": "x", "machine": "m", "agent_version": "0.1.0", "boot": "b", "groups": ["hana", "all"],
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
    agent("db2", never, "\"clock not synchronised\"", "failed");
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
            "started": "2030-01-01T09:30:00Z", "ended": "2030-01-01T10:00:00Z", "exit_code": 3, "error": "step upload: exit status 3", "tail": "no space left on device"}"#
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
        ("check-store-only", &["check", "--store-only"]),
        ("order-list", &["order", "list"]),
        ("order-list-watch", &["order", "list", "--watch", "--wait", "0s"]),
        ("order-list-watch-json", &["order", "list", "--watch", "--json"]),
        ("order-put", &["order", "put", "x", "--host", "db1", "--task", "good"]),
        ("order-put-again", &["order", "put", "x", "--host", "db1", "--task", "good"]),
        ("order-put-changed", &["order", "put", "x", "--host", "db1", "--task", "good", "--param", "n=1"]),
        ("order-put-group", &["order", "put", "x", "--group", "hana", "--task", "good"]),
        ("order-delete", &["order", "delete", "x", "--host", "db1"]),
        ("order-get", &["order", "get", "backup", "--group", "hana"]),
        ("facts", &["facts"]),
        ("facts-where", &["facts", "--group", "hana", "--where", "hana.role == 'secondary'"]),
        ("facts-host", &["facts", "--host", "db1"]),
        ("facts-none", &["facts", "--where", "host.os == 'debian' or pg.role"]),
        ("runs", &["runs", "--host", "db2"]),
        ("runs-watch", &["runs", "--host", "db2", "--watch", "--wait", "0s"]),
        ("runs-watch-json", &["runs", "--watch", "--json"]),
        ("runs-none", &["runs", "--host", "db1"]),
        ("audit-none", &["audit"]),
        ("logs", &["logs", run, "--host", "db2"]),
        ("task-list", &["task", "list"]),
        ("task-show", &["task", "show", "good"]),
        ("task-lint", &["task", "lint"]),
        ("enroll", &["enroll", "db9", "--group", "hana"]),
        ("freeze", &["freeze", "hana", "--reason", "test", "--until", "2999-01-01T00:00:00Z"]),
        ("thaw", &["thaw", "hana"]),
        ("mistyped-order", &["status", "bakup"]),
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
    let done = bench.on_terminal_of(60, &["facts"]);
    assert!(done.out.lines().all(|line| line.chars().count() <= 60), "{}", done.out);
    assert_snapshot!("facts-60", steady(&bench, &done.out));
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
        ("logs", &["logs", run, "--host", "db2", "--json"]),
        ("task_list", &["task", "list", "--json"]),
        ("task_show", &["task", "show", "good", "--json"]),
        ("task_lint", &["task", "lint", "--json"]),
        ("enroll", &["enroll", "db9", "--json"]),
        ("freeze", &["freeze", "hana", "--json"]),
        ("thaw", &["thaw", "hana", "--json"]),
        ("control", &["cancel", "backup", "--host", "db6", "--answer-timeout", "0s", "--json"]),
        ("check", &["check", "--json", "--store-only"]),
    ] {
        let document = bench.run(arguments).fits(definition);
        assert_snapshot!(format!("json-{definition}"), steady_json(&bench, document));
    }
}
