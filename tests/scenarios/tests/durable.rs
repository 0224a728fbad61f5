//! A power cut after every write: what the real processes wrote is recorded, every crash image is built without what
//! was not synced, and the real agent goes on from each.
//!
//! SIGKILL does not lose the page cache, so `crash.rs` cannot show this.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hostler_scenarios::trace::{CALLS, Disk, Op, parse};
use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually, program, signal};
use nix::sys::signal::Signal;

fn host(name: &str) -> Host {
    let host = Host::on_dir(name);
    host.counting_task("exact", "repeatable:a! repeatable:b!", "0");
    host.counting_task("blind", "once:a", "0");
    host
}

/// Carries an order out under strace; the calls of agent, executor and steps.
fn record(host: &Host, task: &str) -> Vec<Op> {
    host.order("o", &format!("task: {task}"));
    let trace = host.path("trace");
    let log = fs::File::create(host.path("log")).expect("the log");
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "1000000", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&trace)
        .arg(program())
        .args(["agent", "--config"])
        .arg(host.path("hostler.yml"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("strace is installed by tests/install");
    host.wait_for("o", &["succeeded"]);
    let state = host.path("state");
    // The ledger has the end of the run before the report has; then the agent may end.
    let agent = child_of(strace.id());
    signal(agent, Signal::SIGTERM);
    eventually(DEFAULT_TIMEOUT, || match strace.try_wait() {
        Ok(Some(_)) => Ok(()),
        _ => Err("strace does not end".into()),
    });
    let ops = parse(&fs::read_to_string(trace).expect("the record"));
    assert!(ops.iter().filter(|op| matches!(op, Op::Sync(path) if path.starts_with(&state))).count() > 8);
    ops
}

fn child_of(pid: u32) -> u32 {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(children).expect("the children of strace");
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("the agent")
}

fn is_effect(op: &Op, effects: &Path) -> bool {
    matches!(op, Op::Write(path, _) if path == effects)
}

fn go_on_from_every_image(task: &str) {
    let mut host = host(&format!("recorded-{task}"));
    let ops = record(&host, task);
    let (state, effects_file) = (host.path("state"), host.path("effects"));
    let all_effects = fs::read_to_string(&effects_file).expect("the effects");
    let mut disk = Disk::new(&state);
    let (mut effects, mut images, mut last) = (0, 0, None);
    for (at, op) in ops.iter().enumerate() {
        let effect = is_effect(op, &effects_file);
        effects += usize::from(effect);
        if !disk.take(op) && !effect {
            continue;
        }
        // The host as the power cut left it; what the steps did outside of the state folder stays done.
        fs::remove_dir_all(&state).expect("the state folder");
        disk.crash_image(&state).expect("an image");
        // A write that was not synced changes nothing: that image was tried already.
        let image = (contents(&state), effects);
        if last.as_ref() == Some(&image) {
            continue;
        }
        last = Some(image);
        images += 1;
        let text: String = all_effects.split_inclusive('\n').take(effects).collect();
        fs::write(&effects_file, text).expect("effects");
        fs::remove_dir_all(host.path("store/hostler/reports")).expect("the reports");
        host.start();
        let report = eventually(DEFAULT_TIMEOUT, || match host.report("o") {
            Some(report) if !report["ended"].is_null() => Ok(report),
            other => Err(format!("image {images} after call {at} ({op:?}): {other:?}; {}", host.log_tail())),
        });
        host.stop();
        let found = host.effects("o");
        let journal = host.runs().pop().and_then(|run| fs::read_to_string(run.join("journal")).ok());
        let place = format!("image {images} after call {at} ({op:?}): {found:?}; {report}; {journal:?}");
        match (task, report["phase"].as_str()) {
            ("exact", Some("succeeded")) => assert_eq!(found, ["a", "b"], "{place}"),
            ("blind", Some("succeeded")) => assert_eq!(found, ["a"], "{place}"),
            ("blind", Some("needs_operator")) => assert!(found.len() <= 1, "{place}"),
            _ => panic!("{place}"),
        }
    }
    assert!(images > 8, "{images} images");
}

/// Every file below a folder.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        }
        found.push((path.clone(), fs::read(&path).unwrap_or_default()));
    }
    found.sort();
    found
}

#[test]
fn p2_each_effect_once_whatever_a_power_cut_leaves() {
    go_on_from_every_image("exact");
}

#[test]
fn p4_nothing_is_repeated_on_a_guess_whatever_a_power_cut_leaves() {
    go_on_from_every_image("blind");
}

#[test]
fn each_intent_is_on_the_disk_before_its_step_is_started() {
    let host = host("traced");
    let ops = record(&host, "exact");
    let journal = |path: &Path| path.file_name().is_some_and(|name| name == "journal");
    let (mut intended, mut synced, mut started) = (0, 0, 0);
    for op in &ops {
        match op {
            Op::Write(path, bytes) if journal(path) => {
                intended += String::from_utf8_lossy(bytes).matches("\"intended\"").count();
            }
            Op::Sync(path) if journal(path) => synced = intended,
            Op::Exec(path) if path.ends_with("add") || path.ends_with("has") => {
                started += 1;
                assert!(synced >= started, "command {started} was started when {synced} intents were synced");
            }
            _ => {}
        }
    }
    assert_eq!(started, 2, "both steps were seen");
}
