//! What a step is started from, and what it is started with: programs that the kernel does not start are handed to no
//! shell, and whoever started the agent changes nothing for a step. Without systemd.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually};

/// The head of a program for a machine that nobody has here, and behind it what a shell would carry out.
fn foreign(made: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..20].copy_from_slice(&[2, 0, 8, 0]);
    bytes.extend(format!("\ntouch {}\n", made.display()).bytes());
    bytes
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn a_program_that_the_kernel_does_not_start_is_handed_to_no_shell() {
    let mut host = Host::on_dir("enoexec");
    let (empty, foreign_path, made) = (host.path("empty"), host.path("foreign"), host.path("made"));
    put(&empty, b"");
    put(&foreign_path, &foreign(&made));
    let tasks = [
        ("step", "steps: [{name: s, run: [BAD]}]", "failed"),
        ("probe", "probe: {run: [BAD]}\nsteps: [{name: s, run: [\"/bin/true\"]}]", "failed"),
        ("verify", "verify: {run: [BAD]}\nsteps: [{name: s, run: [\"/bin/true\"]}]", "failed"),
        (
            "undo",
            "steps: [{name: s, run: [\"/bin/false\"], effect: undoable, undo: {run: [BAD]}}]",
            "undo_failed",
        ),
    ];
    host.start();
    for (kind, yaml, wanted) in tasks {
        for (bad, path, why) in
            [("empty", &empty, "is empty"), ("foreign", &foreign_path, "is built for another processor")]
        {
            let name = format!("{kind}-{bad}");
            let yaml = yaml.replace("BAD", &path.display().to_string());
            let yaml =
                if kind == "undo" { yaml.replace("{run: [", "[").replace("]}}]", "]}]") } else { yaml };
            host.task(&name, &format!("name: {name}\nversion: 1\n{yaml}\n"), &[]);
            host.order(&name, &format!("task: {name}"));
            let report = host
                .wait_for(&name, &["failed", "undo_failed", "succeeded", "unchanged", "undone", "refused"]);
            assert_eq!(report["phase"], wanted, "{name}: {report}");
            let said = format!("{} {}", report["error"], report["message"]);
            assert!(said.contains("could not be started") && said.contains(why), "{name}: {report}");
        }
    }
    assert!(!made.exists(), "nothing was read by a shell");
}

#[test]
fn a_task_with_such_a_script_is_refused() {
    let mut host = Host::on_dir("refused");
    host.task("t", "name: t\nversion: 1\nsteps: [{name: s, run: [./s]}]\n", &[("s", "")]);
    host.start();
    host.order("o", "task: t");
    let report = host.wait_for("o", &["refused", "succeeded", "failed"]);
    assert_eq!(report["phase"], "refused", "{report}");
    assert!(report["error"].as_str().is_some_and(|error| error.contains("s is empty")), "{report}");
}

#[test]
fn a_step_inherits_nothing_of_the_shell_that_started_the_agent() {
    let mut host = Host::on_dir("inherit");
    let wrapper = host.path("wrapper");
    let program = hostler_testkit::program();
    let script = format!(
        "#!/bin/sh\numask 077\nulimit -S -n 100\ntrap '' HUP INT QUIT USR1\nexec {} \"$@\"\n",
        program.display()
    );
    put(&wrapper, script.as_bytes());
    let step = "#!/bin/sh\numask > EFFECTS.umask\nulimit -n > EFFECTS.files\n\
                grep SigIgn /proc/self/status > EFFECTS.signals\ncat \"$HOSTLER_PARAMS\" > EFFECTS.params\n";
    let effects = host.path("effects");
    for name in ["umask", "files", "signals", "params"] {
        let path = effects.with_extension(name);
        fs::write(&path, "").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("its mode");
    }
    let user = if nix::unistd::geteuid().is_root() { ", user: nobody" } else { "" };
    host.task("t", &format!("name: t\nversion: 1\nsteps: [{{name: s, run: [./s]{user}}}]\n"), &[("s", step)]);
    host.start_with(&wrapper);
    host.order("o", "task: t");
    let report = host.wait_for("o", &["succeeded", "failed"]);
    assert_eq!(report["phase"], "succeeded", "{report}");
    let read = |name: &str| fs::read_to_string(effects.with_extension(name)).expect("what the step wrote");
    assert_eq!(read("umask").trim(), "0022");
    assert_eq!(read("files").trim(), "1024");
    let ignored = read("signals");
    let ignored = ignored.trim().rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    // Those from 32 on are the C library's own.
    assert_eq!(ignored.map(|mask| mask & 0x7fff_ffff), Some(0));
    assert!(read("params").starts_with('{'));
}

#[test]
fn signals_that_the_starter_blocks_reach_agent_and_steps() {
    let mut host = Host::on_dir("blocked");
    let wrapper = host.path("wrapper");
    let program = hostler_testkit::program();
    let script = format!(
        "#!/usr/bin/env python3\nimport os, signal, sys\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP}})\n\
         os.execv('{0}', ['{0}'] + sys.argv[1:])\n",
        program.display()
    );
    put(&wrapper, script.as_bytes());
    let blocked = host.path("blocked");
    let step = format!("#!/bin/sh\ngrep SigBlk /proc/self/status > {}\n", blocked.display());
    host.task("t", "name: t\nversion: 1\nsteps: [{name: s, run: [./s]}]\n", &[("s", &step)]);
    host.start_with(&wrapper);
    host.order("o", "task: t");
    host.wait_for("o", &["succeeded"]);
    let mask = fs::read_to_string(&blocked).expect("what the step wrote");
    assert_eq!(mask.trim().rsplit('\t').next(), Some("0000000000000000"));
    // Ends on TERM, or this fails.
    host.stop();
}

#[test]
fn an_agent_that_may_open_too_few_files_says_so_and_ends() {
    let mut host = Host::on_dir("files");
    let wrapper = host.path("wrapper");
    let program = hostler_testkit::program();
    put(&wrapper, format!("#!/bin/sh\nulimit -n 20\nexec {} \"$@\"\n", program.display()).as_bytes());
    host.start_with(&wrapper);
    eventually(DEFAULT_TIMEOUT, || if host.is_up() { Err("it runs".into()) } else { Ok(()) });
    let log = host.log_tail();
    assert!(log.contains("only 20 files may be open at once"), "{log}");
}
