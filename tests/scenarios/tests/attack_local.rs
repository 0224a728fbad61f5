//! What a local user, or the shell that root starts Hostler from, could do to a run: descriptors that a step inherits, and
//! secrets that are left mounted.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use hostler_testkit::{Host, SOON, eventually, program};
use nix::sys::signal::Signal;

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

/// The agent as it is started by hand: from a shell that has a file of root's open.
#[test]
fn an_executor_inherits_no_descriptor_of_the_shell_that_started_its_agent() {
    let host = Host::on_dir("handmade");
    let yaml = "name: wait\nversion: 1\nsteps:\n  - {name: wait, run: [./wait], effect: repeatable}\n";
    host.task("wait", yaml, &[("wait", "#!/bin/sh\nexec sleep 60\n")]);
    let line = format!(
        "exec 9</etc/shadow; exec {} agent --config {} 2>/dev/null",
        program().display(),
        host.path("hostler.yml").display()
    );
    let mut agent = Command::new("sh").args(["-c", &line]).spawn().expect("a shell");
    host.order("o", "task: wait");
    let open = |pid: u32| -> Vec<String> {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.display().to_string())).collect()
    };
    let executor = eventually(SOON, || host.executors().first().copied().ok_or("no executor".to_owned()));
    let inherited = open(executor);
    // The word that it waits for comes when the ledger has the run; by then all is as it stays.
    host.wait_until("o", "a step", |report| report["phase"] == "running");
    let mut processes = host.processes();
    processes.retain(|pid| *pid != agent.id());
    let of_steps: Vec<Vec<String>> = processes.iter().map(|pid| open(*pid)).collect();
    assert!(open(agent.id()).iter().any(|path| path == "/etc/shadow"), "the agent was started with it");
    agent.kill().expect("to end the agent");
    agent.wait().expect("its end");
    processes.iter().for_each(|pid| hostler_testkit::signal(*pid, Signal::SIGKILL));
    assert!(!inherited.is_empty() && !inherited.iter().any(|path| path == "/etc/shadow"), "{inherited:?}");
    assert!(!of_steps.concat().iter().any(|path| path == "/etc/shadow"), "{of_steps:?}");
}

/// Ends a program by a signal that makes a core dump, once it is up; whether the kernel made one. Not by SIGQUIT, which
/// a shell has its background jobs ignore.
fn dumps_core(host: &Host, program: &str, is_up: impl Fn() -> bool) -> bool {
    let folder = host.path("cores");
    fs::create_dir_all(&folder).expect("a folder");
    let line = format!("ulimit -c unlimited; exec {program} 2>/dev/null");
    let mut child = Command::new("sh").args(["-c", &line]).current_dir(&folder).spawn().expect("a shell");
    eventually(SOON, || if is_up() { Ok(()) } else { Err(format!("{program} is not up")) });
    hostler_testkit::signal(child.id(), Signal::SIGABRT);
    child.wait().expect("its end").core_dumped()
}

#[test]
fn the_agent_is_in_no_core_dump() {
    let host = Host::on_dir("dumps");
    let (begun, sleeps) = (host.path("begun"), host.path("sleeps"));
    fs::write(&sleeps, format!("#!/bin/sh\n: > {}\nexec sleep 60\n", begun.display())).expect("a script");
    // The kernel of this machine makes dumps at all, or nothing would be proved.
    let control = dumps_core(&host, &format!("sh {}", sleeps.display()), || begun.exists());
    assert!(control, "an ordinary program leaves no core dump here");
    let agent = format!("{} agent --config {}", program().display(), host.path("hostler.yml").display());
    assert!(!dumps_core(&host, &agent, || host.agent_report().is_some()));
}
