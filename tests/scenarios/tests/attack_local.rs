//! What a local user, or the shell that root starts Hostler from, could do to a run: descriptors that a step inherits, and
//! secrets that are left mounted.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::process::Command;

use hostler_testkit::{Host, program};

/// Tries a task from a shell that has /etc/shadow open as 9; `more` are further words. Gives what it printed.
fn attempt(host: &Host, task: &str, more: &str) -> String {
    let temp = host.path("temp");
    fs::create_dir_all(&temp).expect("a folder");
    let line = format!(
        "exec 9</etc/shadow; exec {} task try {task} --config {} {more}",
        program().display(),
        host.path("hostler.yml").display()
    );
    let output = Command::new("sh").args(["-c", &line]).env("TMPDIR", &temp).output().expect("a shell");
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let left: Vec<_> = fs::read_dir(&temp).expect("the folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}\n{said}");
    said
}

#[test]
fn a_step_finds_no_descriptor_of_the_shell_that_started_it() {
    let host = Host::on_dir("descriptors");
    let yaml = "name: look\nversion: 1\nsteps:\n  - {name: look, run: [./look], effect: repeatable}\n";
    host.task(
        "look",
        yaml,
        &[("look", "#!/bin/sh\n[ ! -e /proc/self/fd/9 ] || exit 1\necho nothing is open\n")],
    );
    assert!(attempt(&host, "look", "").contains("nothing is open"));
}

#[test]
fn p7_a_try_with_secrets_leaves_no_mount_behind() {
    let host = Host::on_dir("mounts");
    let yaml = "name: use\nversion: 1\nsecrets:\n  word: {path: secret/data/x, field: word}\n\
                steps:\n  - {name: use, run: [./use], effect: repeatable}\n";
    host.task("use", yaml, &[("use", "#!/bin/sh\n[ -s \"$HOSTLER_SECRETS/word\" ] && echo it was there\n")]);
    let secrets = host.path("secrets.yml");
    fs::write(&secrets, "word: the-secret-of-the-try\n").expect("the secrets");
    let said = attempt(&host, "use", &format!("--secrets {}", secrets.display()));
    assert!(said.contains("it was there") && !said.contains("the-secret-of"), "{said}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(!mounts.contains(&host.path("temp").display().to_string()), "{mounts}");
}
