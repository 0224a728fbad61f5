//! Nothing starts on a search for processes that failed: `/proc` that cannot be read, too many open files, a `systemctl`
//! that fails, answers something else, answers late, or hangs.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually, program, signal};
use nix::sys::signal::Signal;

fn put(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// A task whose step waits for a file in its first epoch, and is done at once in any later one.
fn task(host: &Host) {
    let script = format!(
        "#!/bin/sh\n[ \"$HOSTLER_EPOCH\" = 1 ] || exit 0\necho $$ > {0}\nwhile [ ! -e {1} ]; do sleep 0.1; done\n",
        host.path("pid").display(),
        host.path("flag").display()
    );
    let yaml = "name: t\nversion: 1\nsteps: [{name: s, run: [./s], effect: repeatable}]\n";
    host.task("t", yaml, &[("s", &script)]);
}

/// Kills the executor once its step is under way.
fn lose_the_executor(host: &Host) {
    let executor = eventually(DEFAULT_TIMEOUT, || {
        let under_way = fs::metadata(host.path("pid")).is_ok_and(|pid| pid.len() > 0);
        let executor = host.executors().first().copied();
        executor.filter(|_| under_way).ok_or_else(|| "the step is not under way".to_owned())
    });
    signal(executor, Signal::SIGKILL);
}

fn says(host: &Host, words: &str) {
    eventually(DEFAULT_TIMEOUT, || {
        let log = fs::read_to_string(host.path("log")).unwrap_or_default();
        if log.contains(words) {
            Ok(())
        } else {
            Err(format!("it does not say {words:?}: {}", host.log_tail()))
        }
    });
}

fn nothing_started(host: &Host) {
    assert!(
        !host.runs()[0].join("claim.2").exists(),
        "an epoch began although nobody knew: {}",
        host.log_tail()
    );
}

fn goes_on(host: &Host) {
    let report = host.wait_for("o", &["succeeded", "failed", "needs_operator"]);
    assert_eq!(
        (report["phase"].as_str(), report["epoch"].as_u64()),
        (Some("succeeded"), Some(2)),
        "{report}"
    );
    fs::write(host.path("flag"), "").expect("the flag");
}

/// A host whose runs are units of a systemd that only pretends; what its `systemctl` does is in the file `mode`.
fn on_pretended_systemd(name: &str, mode: &str) -> Host {
    let mut host = Host::on_dir(name);
    let bin = host.path("bin");
    fs::create_dir(&bin).expect("a folder");
    let start =
        "#!/bin/bash\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nsetsid \"$@\" > /dev/null 2>&1 &\n";
    put(&bin.join("systemd-run"), start);
    let mode_file = host.path("mode");
    fs::write(&mode_file, mode).expect("the mode");
    let answer = format!(
        "#!/bin/bash\necho >> {0}.asked\ncase \"$(cat {0})\" in\n  fails) echo broken >&2; exit 1;;\n  \
         hangs) exec sleep 1000;;\n  late) sleep 2; echo inactive;;\n  odd) echo;;\n  *) echo inactive;;\nesac\n",
        mode_file.display()
    );
    put(&bin.join("systemctl"), &answer);
    host.set_env("PATH", &format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()));
    host.configure_launcher("systemd");
    task(&host);
    host.start();
    host.order("o", "task: t");
    host
}

#[test]
fn a_systemctl_that_fails_or_answers_something_else_starts_nothing() {
    for (mode, words) in [("fails", "systemctl ended with"), ("odd", "systemctl says that")] {
        let host = on_pretended_systemd(mode, mode);
        lose_the_executor(&host);
        says(&host, words);
        nothing_started(&host);
        fs::write(host.path("mode"), "good").expect("the mode");
        goes_on(&host);
    }
}

#[test]
fn a_systemctl_that_answers_late_is_waited_for() {
    let host = on_pretended_systemd("late", "late");
    lose_the_executor(&host);
    eventually(DEFAULT_TIMEOUT, || fs::metadata(host.path("mode.asked")).map_err(|error| error.to_string()));
    nothing_started(&host);
    goes_on(&host);
}

#[test]
fn a_systemctl_that_hangs_starts_nothing() {
    let host = on_pretended_systemd("hangs", "hangs");
    lose_the_executor(&host);
    says(&host, "systemctl did not answer within");
    nothing_started(&host);
    fs::write(host.path("mode"), "good").expect("the mode");
    goes_on(&host);
}

fn run(words: &[&str]) {
    let (program, words) = words.split_first().expect("a program");
    let status = Command::new(program).args(words).status().expect("it starts");
    assert!(status.success(), "{program} {words:?}: {status}");
}

#[test]
fn a_proc_that_shows_nothing_starts_nothing() {
    let mut host = Host::on_dir("proc");
    let wrapper = host.path("wrapper");
    let own =
        format!("#!/bin/sh\nexec unshare --mount --propagation private {} \"$@\"\n", program().display());
    put(&wrapper, &own);
    task(&host);
    host.start_with(&wrapper);
    host.order("o", "task: t");
    host.wait_for("o", &["running"]);
    let agent = host.agent_pid().expect("the agent").to_string();
    run(&["nsenter", "--target", &agent, "--mount", "mount", "-t", "tmpfs", "none", "/proc"]);
    lose_the_executor(&host);
    says(&host, "it does not show this process");
    nothing_started(&host);
    run(&["nsenter", "--target", &agent, "--mount", "umount", "/proc"]);
    goes_on(&host);
}

#[test]
fn too_many_open_files_start_nothing() {
    let mut host = Host::on_dir("files");
    task(&host);
    host.start();
    host.order("o", "task: t");
    host.wait_for("o", &["running"]);
    let agent = host.agent_pid().expect("the agent").to_string();
    run(&["prlimit", "--pid", &agent, "--nofile=5:1024"]);
    lose_the_executor(&host);
    says(&host, "Too many open files");
    nothing_started(&host);
    run(&["prlimit", "--pid", &agent, "--nofile=1024:1024"]);
    goes_on(&host);
}
