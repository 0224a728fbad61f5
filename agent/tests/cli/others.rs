//! What one person's act does to another's, and what is never passed over in silence.

use std::fs;
use std::process::Command;

use crate::bench::{Bench, Done};
use crate::screens::fleet;

#[test]
fn nobody_undoes_what_somebody_else_wants_unasked() {
    let bench = Bench::new();
    let alice = ["freeze", "hana", "--by", "alice", "--reason", "year end"];
    bench.run(&alice).ends(0);
    bench.run(&["freeze", "hana", "--by", "bob"]).ends(6).says("alice").says("year end");
    bench.run(&["thaw", "hana", "--by", "bob"]).ends(6).says("alice");
    bench
        .run(&["freeze", "hana", "--by", "bob", "--until", "2020-12-24T00:00:00Z"])
        .ends(2)
        .says("has passed");
    bench.run(&["freeze", "hana", "--until", "soon"]).ends(2).says("2026-12-01T05:00:00Z");
    bench.run(&["freeze", "hana", "--by", "bob", "--replace"]).ends(0);
    bench.run(&["thaw", "hana", "--by", "alice"]).ends(6).says("bob");
    bench.run(&["thaw", "hana", "--by", "alice", "--of-others"]).ends(0);
    fs::write(bench.path("store/hostler/groups/hana/freeze"), "by: alice\nuntil: 2001-01-01T00:00:00Z")
        .unwrap();
    bench.run(&["freeze", "hana", "--by", "bob"]).ends(0);

    bench.run(&["order", "put", "nightly", "--host", "db1", "--task", "good", "--by", "alice"]).ends(0);
    let other = ["order", "put", "nightly", "--host", "db1", "--task", "bad"];
    bench.run(&other).ends(6).says("alice").says("task good");
    bench.run(&[&other[..], &["--replace"]].concat()).ends(0).says("changed");
    let late =
        ["order", "put", "late", "--host", "db1", "--task", "good", "--not-after", "2001-01-01T00:00:00Z"];
    bench.run(&late).ends(2).says("has passed");
}

#[test]
fn a_frozen_host_starts_nothing_until_the_thaw() {
    let mut bench = Bench::new();
    bench.start();
    bench
        .run(&["freeze", "--host", "db1", "--by", "alice"])
        .ends(0)
        .says("host db1 is frozen until hostler thaw --host db1");
    let freeze = bench.path("store/hostler/hosts/db1/freeze");
    assert!(freeze.exists());
    bench.run(&["freeze", "--host", "db1", "--by", "bob"]).ends(6).says("host db1 is frozen by alice");
    bench.run(&["freeze", "--host", "db7"]).ends(5).says("no host db7 is enrolled");
    bench.run(&["freeze"]).ends(2);
    bench.run(&["freeze", "all", "--host", "db1"]).ends(2);
    bench.run(&["order", "put", "later", "--host", "db1", "--task", "good"]).ends(0);
    bench.until(&["status", "later", "--host", "db1"], "frozen", |done| {
        done.out.contains("hosts/db1 is frozen by alice")
    });
    bench.run(&["thaw", "--host", "db1", "--by", "bob"]).ends(6).says("alice");
    bench.run(&["thaw", "--host", "db1", "--by", "alice"]).ends(0);
    bench.until(&["status", "later", "--host", "db1"], "done", |done| done.code == 0);
    bench.run(&["thaw", "--host", "db1"]).ends(5).says("host db1 is not frozen");
}

#[test]
fn an_order_from_a_file_says_who_wrote_it() {
    let bench = Bench::new();
    let put = |name: &str, more: &[&str], text: &str| {
        bench.with_input(&[&["order", "put", name, "-", "--host", "db1"], more].concat(), text)
    };
    for (name, text) in [("block", "task: good\n"), ("flow", "{\"task\": \"good\"}"), ("open", "task: good")]
    {
        put(name, &["--by", "carol"], text).ends(0);
        bench.run(&["order", "get", name, "--host", "db1"]).ends(0).says("carol");
    }
    put("own", &[], "task: good\nby: dave\n").ends(0);
    bench.run(&["order", "get", "own", "--host", "db1"]).ends(0).says("by: dave");
    put("own", &["--by", "carol"], "task: good\nby: dave\n").ends(2).says("dave");
}

#[test]
fn what_is_no_order_is_listed_with_its_reason() {
    let bench = Bench::new();
    let at = |key: &str| bench.path(&format!("store/hostler/hosts/db1/orders/{key}"));
    fs::create_dir_all(at("")).unwrap();
    for key in ["Backup", "backup ", "x.bak", "loose"] {
        fs::write(at(key), "task: good").unwrap();
    }
    let loose = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(at("loose"), loose).unwrap();
    let list = bench.run(&["order", "list"]).ends(0);
    for text in ["(broken)", "orders/Backup", "\"orders/backup \"", "x.bak", "loose"] {
        assert!(list.out.contains(text), "{text:?} is not in:\n{}", list.out);
    }
    let check = bench.run(&["check"]);
    for text in ["hosts/db1/orders/Backup", "\"hostler/hosts/db1/orders/backup \"", "x.bak", "chmod go-w"] {
        assert!(check.out.contains(text), "{text:?} is not in:\n{}", check.out);
    }
}

#[test]
fn a_control_that_reaches_some_hosts_only_names_them() {
    let bench = fleet();
    let controls = |host: &str| bench.path(&format!("store/hostler/hosts/{host}/control/backup"));
    // The folder of this host's controls cannot be made, whoever asks: a file is in its place.
    fs::create_dir_all(controls("db2").parent().unwrap()).unwrap();
    fs::write(controls("db2"), "").unwrap();
    let retry =
        ["retry", "backup", "--group", "hana", "--all", "--answer-timeout", "0s", "--confirm-hosts", "3"];
    let done = bench.run(&retry).ends(4);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    done.says("retry is written for db1, which carry it out, and not for db2, db4: ").says("--host");
    assert_eq!(fs::read_dir(controls("db1")).unwrap().count(), 1);
    // Where nothing was written, the trouble alone is told.
    let done = bench.run(&["retry", "backup", "--host", "db2"]).ends(4);
    assert!(!done.err.contains("is written"), "{}", done.err);
}

#[test]
fn a_status_without_a_question_ends_with_1_until_all_is_as_it_should_be() {
    let mut bench = Bench::new();
    // Enrolled, and nobody has reported yet.
    bench.run(&["status"]).ends(1).says("never reported");
    bench.run(&["status", "-q"]).ends(1).says("db1");
    bench.start();
    bench.until(&["status"], "all is well", |done| done.code == 0);
    assert_eq!(bench.run(&["status", "-q"]).ends(0).out, "");
    bench.run(&["run", "good", "--host", "db1"]).ends(0);
    bench.run(&["run", "bad", "--host", "db1"]).ends(10);
    // Right after it as well: the host's own line may still say what was so before.
    bench.run(&["status"]).ends(1).says("1 failed").says("1 done");
    let quiet = bench.run(&["status", "-q"]).ends(1);
    assert!(quiet.out.contains("bad") && !quiet.out.contains("good"), "{}", quiet.out);
    let json = bench.run(&["status", "--json"]).ends(1).fits("status");
    assert_eq!(json["all_done"], false);
    bench.run(&["order", "delete", "bad", "--host", "db1"]).ends(0);
    bench.until(&["status", "-q"], "nothing is wrong any more", |done| done.code == 0 && done.out.is_empty());
    // One that waits for its host is not done.
    bench.run(&["enroll", "db2"]).ends(0);
    bench.run(&["status", "-q"]).ends(1).says("db2");
}

#[test]
fn a_store_of_which_nothing_is_seen_is_not_as_it_should_be() {
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().display().to_string();
    let mut status = Command::new(env!("CARGO_BIN_EXE_hostler"));
    let done = Done::from(status.args(["status", "-q", "--store-dir", &dir]).output().unwrap());
    done.ends(1).says("the token may not see it");
}

#[test]
fn the_running_agent_says_whether_it_is_ready() {
    let mut bench = Bench::new();
    bench.run(&["check", "--ready"]).ends(1).says("not ready: no agent answers").says("agent.sock");
    bench.run(&["check", "--wait", "1s"]).ends(2).says("--ready");
    bench.run(&["check", "--ready", "--wait", "1s"]).ends(1).says("not ready");
    bench.start();
    bench.run(&["check", "--ready", "--wait", "60s"]).ends(0);
    bench.run(&["check", "--ready"]).ends(0).says("ready: watching the folder for orders of db1");
    assert_eq!(bench.run(&["check", "--ready", "-q"]).ends(0).out, "");
    let json = bench.run(&["check", "--ready", "--json"]).ends(0).fits("check_ready");
    assert_eq!(json["ready"], true);
    // Its marker is gone: nothing new starts.
    let marker = bench.path("store/hostler/hosts/db1/_hostler");
    fs::rename(&marker, bench.path("marker")).unwrap();
    bench
        .until(&["check", "--ready"], "not ready", |done| done.code == 1 && done.out.contains("not ready: "));
    fs::rename(bench.path("marker"), &marker).unwrap();
    bench.until(&["check", "--ready"], "ready again", |done| done.code == 0);
    bench.stop();
    let json = bench.run(&["check", "--ready", "--json"]).ends(1).fits("check_ready");
    assert_eq!(json["ready"], false);
}

#[test]
fn a_task_is_tried_as_the_host_that_the_agent_is() {
    let mut bench = Bench::new();
    bench.task("whoami", "echo \"I am $HOSTLER_HOST.\"");
    bench.start();
    bench.run(&["check", "--ready", "--wait", "60s"]).ends(0);
    bench.stop();
    // The agent has fixed the name at its first start.
    let config = fs::read_to_string(bench.path("hostler.yml")).unwrap();
    fs::write(bench.path("hostler.yml"), config.replace("host: db1\n", "")).unwrap();
    let done = bench.run(&["task", "try", "whoami"]).ends(0).says("I am db1.");
    assert!(!done.err.contains("not known"), "{}", done.err);
    bench.run(&["audit", "--verify"]).ends(0);
    fs::remove_file(bench.path("state/identity")).unwrap();
    // Without it, Consul's node would say; nobody listens at this port.
    let kept =
        config.lines().filter(|line| !["host:", "store:", "dir:"].iter().any(|key| line.starts_with(key)));
    let text = kept.collect::<Vec<_>>().join("\n") + "\nconsul: {address: \"http://127.0.0.1:1\"}\n";
    fs::write(bench.path("hostler.yml"), text).unwrap();
    bench.run(&["task", "try", "whoami"]).ends(0).says("I am localhost.").says("is not known");
    bench
        .run(&["audit", "--verify"])
        .ends(0)
        .says("the end is not verified: the name of this host is not known");
}

#[test]
fn an_order_that_does_not_succeed_in_time_is_a_condition() {
    let mut bench = Bench::new();
    bench.start();
    let yearly = ["order", "put", "yearly", "--host", "db1", "--task", "good", "--schedule", "@yearly"];
    bench.run(&[&yearly[..], &["--expect-every", "1s"]].concat()).ends(0);
    // Nothing but the clock changes: the agent says so by itself.
    bench.until(&["status"], "it is late", |done| {
        done.out.contains("order yearly has not succeeded for 1s") && done.out.contains("never succeeded")
    });
    bench.run(&[&yearly[..], &["--expect-every", "366d"]].concat()).ends(0).says("+ expect_every: \"366d\"");
    bench.until(&["status"], "it is not late any more", |done| !done.out.contains("has not succeeded"));
    let once = ["order", "put", "once", "--host", "db1", "--task", "good", "--expect-every", "1h"];
    bench.run(&once).ends(2);
    bench
        .with_input(&["order", "put", "once", "--host", "db1", "-"], "task: good\nexpect_every: 1h")
        .ends(3)
        .says("schedule");
}

#[test]
fn a_drift_that_is_only_reported_has_a_status_and_starts_nothing() {
    let mut bench = Bench::new();
    bench.task("watched", "touch \"$1\".ran");
    let folder = bench.path("tasks/watched");
    let flag = bench.path("holds");
    let yaml = format!(
        "name: watched\nversion: 1\nallow_short_interval: true\nprobe: {{run: [./ask, \"{}\"]}}\n\
         steps:\n  - {{name: go, run: [./go, \"{}\"], effect: final}}\n",
        flag.display(),
        flag.display()
    );
    fs::write(folder.join("task.yml"), yaml).unwrap();
    fs::copy(folder.join("go"), folder.join("ask")).unwrap();
    fs::write(folder.join("ask"), "#!/bin/sh\n[ -e \"$1\" ] || { echo the value is 7; exit 1; }\n").unwrap();
    bench.start();
    let put = ["order", "put", "w", "--host", "db1", "-"];
    let order = "task: watched\nreconcile: {every: 1s, only: report}\n";
    bench.with_input(&put, order).ends(0).says("only");
    bench.until(&["status"], "it has drifted", |done| done.out.contains("1 drifted"));
    bench.run(&["status", "w", "--host", "db1"]).ends(1).says("drifted").says("the value is 7").says("asked");
    fs::write(&flag, "").unwrap();
    bench.until(&["status", "w"], "it holds", |done| done.code == 0 && done.out.contains("done"));
    fs::remove_file(&flag).unwrap();
    bench.until(&["status", "w"], "it has drifted again", |done| done.out.contains("drifted"));
    let runs = bench.run(&["runs", "--json"]).json();
    assert!(runs["runs"].as_array().unwrap().is_empty(), "{runs}");
    // Without the word it is carried out as any other, which this task does not bear.
    bench.with_input(&put, "task: watched\nreconcile: 1s\n").ends(6).says("every 1s, only reported");
    bench.with_input(&[&put[..], &["--replace"]].concat(), "task: watched\nreconcile: 1s\n").ends(0);
    bench.until(&["status", "w"], "it is refused", |done| done.out.contains("cannot reconcile"));
    for bad in ["{every: 15m, only: repair}", "{only: report}", "15", "{every: 1s, onli: report}"] {
        let text = format!("task: watched\nreconcile: {bad}\n");
        bench.with_input(&put, &text).ends(3).says("reconcile");
    }
}

#[test]
fn an_agent_reports_its_tasks_and_what_was_changed_since() {
    let mut bench = Bench::new();
    fs::create_dir_all(bench.path("tasks/wrong")).unwrap();
    fs::write(bench.path("tasks/wrong/task.yml"), "nam: wrong").unwrap();
    bench.start();
    let list = ["task", "list", "--host", "db1", "--json"];
    let of = |name: &str| {
        let all = bench.run(&list).fits("task_list_fleet");
        let tasks = all["tasks"].as_array().unwrap().clone();
        tasks.into_iter().find(|task| task["task"] == name).unwrap()
    };
    let before = of("good");
    assert_eq!((before["version"].as_str(), &before["hosts"]), (Some("1"), &serde_json::json!(["db1"])));
    assert_eq!(of("wrong")["version"], "broken");
    // A new version is known as soon as an order asks for it.
    bench.task("good", "echo another");
    bench.run(&["run", "good", "--host", "db1"]).ends(0);
    bench.until(&list, "the new digest", |_| of("good")["digest"] != before["digest"]);
}
