//! What is left of a run's processes, and what a run survives (promises P1, P4 and P6), without systemd.

use std::fs;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually, lives, signal};
use nix::sys::signal::Signal;

/// Forks twice, opens sessions of its own and ignores TERM; the marks are in `pids`.
const STUBBORN: &str = "#!/bin/bash\n\
    trap '' TERM\n\
    (trap '' TERM; setsid bash -c 'trap \"\" TERM; echo $$ >> PIDS; while :; do sleep 1; done' & \
     bash -c 'trap \"\" TERM; echo $$ >> PIDS; while :; do sleep 1; done' &)\n\
    echo $$ >> PIDS\n\
    while :; do sleep 1; done\n";

fn pids(host: &Host) -> Vec<u32> {
    let text = fs::read_to_string(host.path("pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn stubborn(host: &Host) -> String {
    STUBBORN.replace("PIDS", &host.path("pids").display().to_string())
}

#[test]
fn p6_nothing_is_left_of_a_step_that_forks_opens_sessions_and_ignores_term() {
    let mut host = Host::on_dir("p6");
    let yaml = "name: stubborn\nversion: 1\nsteps:\n  - {name: s, run: [./s], timeout: 2s, grace: 1s}\n";
    host.task("stubborn", yaml, &[("s", &stubborn(&host))]);
    host.start();
    host.order("o", "task: stubborn");
    let report = host.wait_for("o", &["failed"]);
    assert_eq!(report["error"], "step s took too long and was ended: its `timeout` is 2s");
    let pids = pids(&host);
    assert_eq!(pids.len(), 3, "all three had started");
    assert!(!pids.iter().any(|pid| lives(*pid)), "survivors of {pids:?}");
}

#[test]
fn p6_what_a_finished_step_leaves_behind_is_ended_and_named() {
    let mut host = Host::on_dir("left");
    let script = "#!/bin/sh\nsetsid sleep 1000 &\necho $! >> PIDS\n";
    let script = script.replace("PIDS", &host.path("pids").display().to_string());
    host.task("leaver", "name: leaver\nversion: 1\nsteps:\n  - {name: s, run: [./s]}\n", &[("s", &script)]);
    host.start();
    host.order("o", "task: leaver");
    let report = host.wait_for("o", &["succeeded"]);
    let named = report["killed_processes"].to_string();
    assert!(named.contains("sleep ("), "{report}");
    assert!(!pids(&host).into_iter().any(lives));
}

/// The children of a process that have ended and that nobody has waited for, and those that live.
fn children(parent: u32) -> (usize, Vec<u32>) {
    let (mut zombies, mut alive) = (0, Vec::new());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace().collect();
        match fields.as_slice() {
            ["Z", of, ..] if *of == parent.to_string() => zombies += 1,
            [_, of, ..] if *of == parent.to_string() => alive.push(pid),
            _ => {}
        }
    }
    (zombies, alive)
}

#[test]
fn an_agent_that_is_the_first_process_leaves_no_zombies() {
    let mut host = Host::on_dir("first");
    let wrapper = host.path("wrapper");
    let as_root = if nix::unistd::geteuid().is_root() { "" } else { "--map-root-user" };
    let program = hostler_testkit::program();
    let script = format!(
        "#!/bin/sh\nexec unshare {as_root} --pid --fork --mount-proc --kill-child {} \"$@\"\n",
        program.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let yaml = "name: leaver\nversion: 1\nsteps:\n  - {name: s, run: [./s], keep_processes: true}\n";
    // Three that end behind the run: a child, one in a session of its own, and one whose parent ends at once.
    let (go, ended) = (host.path("go"), host.path("ended"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done; echo x >> {}", go.display(), ended.display());
    let script =
        format!("#!/bin/bash\n({wait}) &\nsetsid bash -c '{wait}' &\n(bash -c '{wait}' &)\nexit 0\n");
    host.task("leaver", yaml, &[("s", &script)]);
    host.start_with(&wrapper);
    for order in ["o1", "o2"] {
        host.order(order, "task: leaver");
        host.wait_for(order, &["succeeded"]);
    }
    let unshare = host.agent_pid().unwrap();
    let first = children(unshare).1[0];
    eventually(DEFAULT_TIMEOUT, || match children(first) {
        // The agent, what was left, and no executor any more.
        (_, alive) if alive.len() == 7 => Ok(()),
        other => Err(format!("{other:?}; {}", host.log_tail())),
    });
    fs::write(&go, "").unwrap();
    eventually(DEFAULT_TIMEOUT, || {
        match (fs::read_to_string(&ended).unwrap_or_default().lines().count(), children(first)) {
            (6, (0, alive)) if alive.len() == 1 => Ok(()),
            other => Err(format!("zombies and living children of the first process: {other:?}")),
        }
    });
    // The status of the agent's own children is still the agent's: it carries out more, and ends in order.
    host.order("o3", "task: leaver");
    assert_eq!(host.wait_for("o3", &["succeeded", "failed"])["phase"], "succeeded");
    signal(first, Signal::SIGTERM);
    eventually(DEFAULT_TIMEOUT, || if lives(first) { Err("it does not end".into()) } else { Ok(()) });
    eventually(DEFAULT_TIMEOUT, || match host.is_up() {
        true => Err("its namespace does not end".into()),
        false => Ok(()),
    });
}

#[test]
fn p4_a_survivor_of_a_lost_executor_is_ended_before_the_next_epoch() {
    let mut host = Host::on_dir("survivor");
    let yaml = "name: stubborn\nversion: 1\nsteps:\n  - {name: s, run: [./s], effect: repeatable}\n";
    // In the second epoch it looks for the first one's processes, and says what it found.
    let script = format!(
        "#!/bin/bash\nif [ \"$HOSTLER_EPOCH\" != 1 ]; then for p in $(cat PIDS); do grep -q '^State:.[^ZX]' /proc/$p/status && exit 9; done; exit 0; fi\n{}",
        STUBBORN.trim_start_matches("#!/bin/bash\n")
    );
    let script = script.replace("PIDS", &host.path("pids").display().to_string());
    host.task("stubborn", yaml, &[("s", &script)]);
    host.start();
    host.order("o", "task: stubborn");
    let executor = eventually(DEFAULT_TIMEOUT, || match (host.executors().first(), pids(&host).len()) {
        (Some(executor), 3) => Ok(*executor),
        other => Err(format!("not under way: {other:?}")),
    });
    signal(executor, Signal::SIGKILL);
    let report = host.wait_for("o", &["succeeded", "failed"]);
    assert_eq!(
        (report["phase"].as_str(), report["epoch"].as_u64()),
        (Some("succeeded"), Some(2)),
        "{report}"
    );
    assert!(!pids(&host).into_iter().any(lives));
}

#[test]
fn p1_a_run_outlives_its_agent() {
    let mut host = Host::on_dir("p1");
    host.counting_task("slow", "once:a once:b", "1");
    host.start();
    host.order("o", "task: slow");
    host.wait_for("o", &["running"]);
    host.kill();
    // The run ends while there is no agent; nobody reports it, and nothing is lost.
    eventually(DEFAULT_TIMEOUT, || match host.effects("o") {
        effects if effects == ["a", "b"] => Ok(()),
        effects => Err(format!("{effects:?}")),
    });
    assert_eq!(host.report("o").unwrap()["phase"], "running");
    host.start();
    let report = host.wait_for("o", &["succeeded"]);
    assert_eq!(report["epoch"], 1, "nobody took it up again: {report}");
    host.stop();
    host.start();
    host.order("o2", "task: slow");
    host.wait_for("o2", &["succeeded"]);
    assert_eq!(host.effects("o"), ["a", "b"], "a restart starts nothing");
}

#[test]
fn a_term_that_nobody_announced_means_that_the_host_is_stopping() {
    let mut host = Host::on_dir("stopping");
    host.counting_task("undo", "undoable:a!", "20");
    host.start();
    host.order("o", "task: undo");
    host.wait_until("o", "a step", |report| report["step"]["name"] == "a");
    let executor =
        eventually(DEFAULT_TIMEOUT, || host.executors().first().copied().ok_or("no executor".into()));
    signal(executor, Signal::SIGTERM);
    let report = host.wait_for("o", &["interrupted stopped"]);
    assert!(report["ended"].is_null());
    assert!(host.effects("o").is_empty(), "no undo begins: {:?}", host.effects("o"));
    let journal = fs::read_to_string(host.runs()[0].join("journal")).unwrap();
    assert!(journal.contains("\"stopping\"") && journal.contains("\"interrupted\""), "{journal}");
}

#[test]
fn the_deadline_of_a_final_step_is_told_and_ends_nothing() {
    let mut host = Host::on_dir("overdue");
    let flag = host.path("flag");
    let step = format!("#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.1; done\n", flag.display());
    let yaml = "name: last\nversion: 1\ntimeout: 1s\nsteps:\n  - {name: go, run: [./go], effect: final}\n";
    host.task("last", yaml, &[("go", &step)]);
    host.order("o", "task: last");
    host.start();
    let report = host.wait_until("o", "overdue", |report| report["reason"] == "overdue");
    assert_eq!(report["phase"], "running");
    fs::write(&flag, "").expect("the flag");
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!((&report["phase"], &report["reason"]), (&"succeeded".into(), &serde_json::Value::Null));
}

#[test]
fn a_cancel_ends_the_step_and_undoes_what_was_done() {
    let mut host = Host::on_dir("cancel");
    host.counting_task("undo", "undoable:a", "20");
    host.start();
    host.order("o", "task: undo");
    host.wait_until("o", "a step", |report| report["step"]["name"] == "a");
    let request = "{\"action\": \"cancel\", \"by\": \"alice\", \"reason\": \"a test\"}";
    fs::write(host.runs()[0].join("request.1"), request).unwrap();
    let report = host.wait_for("o", &["cancelled"]);
    assert_eq!(report["error"], "cancelled by alice: a test");
    assert_eq!(host.effects("o"), ["undo-a"]);
}

#[test]
fn the_output_of_a_chatty_step_is_bounded_and_its_ends_are_kept() {
    let mut host = Host::on_dir("chatty");
    let script = "#!/bin/sh\necho first\nhead -c 20000000 /dev/zero | tr '\\0' x\necho\necho last\nexit 1\n";
    host.task("chatty", "name: chatty\nversion: 1\nsteps:\n  - {name: s, run: [./s]}\n", &[("s", script)]);
    host.start();
    host.order("o", "task: chatty");
    let report = host.wait_for("o", &["failed"]);
    assert!(report["tail"].as_str().unwrap().ends_with("x\nlast\n"));
    assert!(report.to_string().len() < 8192);
    let folder = &host.runs()[0];
    let size: u64 = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 3 << 20, "{size} bytes");
    assert!(fs::read_to_string(folder.join("output")).unwrap().contains("\nfirst\n"));
}

#[test]
fn an_agent_that_is_started_while_a_killed_one_is_still_going_takes_its_place() {
    let mut host = Host::on_dir("heir");
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("o1", "task: count");
    host.wait_for("o1", &["succeeded"]);
    // The kill is not waited for, as at a shell.
    signal(host.agent_pid().unwrap(), Signal::SIGKILL);
    let mut killed = host.replace_agent().unwrap();
    host.order("o2", "task: count");
    host.wait_for("o2", &["succeeded"]);
    assert!(!killed.wait().unwrap().success());
}
