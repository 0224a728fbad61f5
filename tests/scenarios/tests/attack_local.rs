//! What a local user, or the shell that root starts Hostler from, could do to a run or an agent: hold its locks, its folders
//! or its port, and find a descriptor, a core dump or a mount.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Vault, eventually, free_ports, program, request};
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
    let executor =
        eventually(DEFAULT_TIMEOUT, || host.executors().first().copied().ok_or("no executor".to_owned()));
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
    eventually(DEFAULT_TIMEOUT, || if is_up() { Ok(()) } else { Err(format!("{program} is not up")) });
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

/// Somebody who is no user of Hostler's: a program, ended with it.
struct Nobody(Child);

impl Nobody {
    /// Takes a lock, if he can open its file, and keeps it; whether he has it.
    fn locks(path: &Path) -> (Self, bool) {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "flock",
            "--exclusive",
            "--nonblock",
        ]);
        command.arg(path).args(["sh", "-c", "echo locked; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("setpriv");
        let mut word = [0; 6];
        let has = child.stdout.take().expect("its output").read_exact(&mut word).is_ok();
        (Self(child), has)
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run with secrets takes a lock; an agent takes one. A file that an earlier version made for everybody is no way in.
#[test]
fn p10_a_local_user_holds_no_lock_that_a_run_or_an_agent_waits_for() {
    let vault = Vault::double();
    vault.policy("agent", &[("secret/data/*", &["read"]), ("auth/token/create", &["update"])]);
    vault.put("x", serde_json::json!({"word": "the-secret"}));
    let mut host = Host::on_vault("locks", &vault, "");
    let yaml = "name: use\nversion: 1\nsecrets:\n  word: {path: secret/data/x, field: word}\n\
                steps:\n  - {name: use, run: [./use], effect: repeatable}\n";
    host.task("use", yaml, &[("use", "#!/bin/sh\n[ -s \"$HOSTLER_SECRETS/word\" ]\n")]);
    host.start();
    host.order("first", "task: use");
    host.wait_for("first", &["succeeded"]);
    let (of_runs, is_held) = Nobody::locks(&host.path("run/secrets.lock"));
    host.order("second", "task: use");
    let report = eventually(DEFAULT_TIMEOUT, || match host.report("second") {
        Some(report) if report["phase"] == "succeeded" => Ok(report),
        other => Err(format!("nobody has the lock of runs with secrets: {is_held}; {other:?}")),
    });
    assert!(!is_held, "nobody has the lock of runs with secrets; {report}");
    drop(of_runs);
    host.kill();
    let (of_agents, is_held) = Nobody::locks(&host.path("state/lock"));
    host.start();
    host.order("third", "task: use");
    eventually(DEFAULT_TIMEOUT, || match host.report("third") {
        Some(report) if report["phase"] == "succeeded" => Ok(()),
        other => Err(format!("nobody has the agent's lock: {is_held}; {other:?}; {}", host.log_tail())),
    });
    assert!(!is_held, "nobody has the agent's lock");
    drop(of_agents);
    host.kill();
    for file in ["state/lock", "run/secrets.lock"] {
        let path = host.path(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode");
    }
    host.start();
    host.order("fourth", "task: use");
    host.wait_for("fourth", &["succeeded"]);
    for file in ["state/lock", "run/secrets.lock"] {
        assert!(!Nobody::locks(&host.path(file)).1, "nobody has {file}, which was made for everybody");
    }
}

/// What a step may leave running still uses the folder that it was given, whatever is started next.
#[test]
fn a_process_that_a_step_left_keeps_no_later_command_from_its_folder() {
    let mut host = Host::on_dir("leaves");
    let yaml = "name: leave\nversion: 1\nsteps:\n\
                - {name: leave, run: [./leave], user: nobody, keep_processes: true, effect: repeatable}\n\
                - {name: root, run: [./add], effect: undoable, undo: [./add]}\n";
    let add = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN x\" >> EFFECTS\n";
    let leave = "#!/bin/sh\ncd \"$HOSTLER_SECRETS\" || exit 1\nchmod 700 .\n\
                 for i in 1 2 3 4; do\n(while :; do : >$i.1; : >$i.2; : >$i.3; done) >/dev/null 2>&1 </dev/null &\ndone\n\
                 until [ -e 4.3 ]; do :; done\n";
    host.task("leave", yaml, &[("leave", leave), ("add", add)]);
    host.start();
    for n in 0..3 {
        host.order(&format!("o{n}"), "task: leave");
        let report = host.wait_for(&format!("o{n}"), &["succeeded", "failed", "undone", "undo_failed"]);
        assert_eq!(report["phase"], "succeeded", "{report}; {}", host.log_tail());
        assert_eq!(host.effects(&format!("o{n}")), ["x"]);
    }
}

/// A step's user finds a setuid program: a step that says so gains nothing by it, and neither do its `done` and `undo`.
#[test]
fn a_step_without_new_privileges_gains_none_by_a_setuid_program() {
    let mut host = Host::on_dir("setuid");
    let program = host.path("gain");
    fs::copy("/usr/bin/id", &program).expect("a copy of id");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("a mode");
    let gain = program.display();
    let steps = |more: &str| {
        format!(
            "name: gain\nversion: 1\nsteps:\n  - name: gain\n    run: [./gain]\n    user: nobody\n    \
             effect: undoable\n    undo: [./gain]\n{more}"
        )
    };
    let script = format!("#!/bin/sh\n{gain} -u\nexit 1\n");
    host.task("gains", &steps("").replacen("name: gain", "name: gains", 1), &[("gain", &script)]);
    let more = "    no_new_privileges: true\n";
    host.task("gain", &steps(more), &[("gain", &script)]);
    host.start();
    let printed = |host: &Host, order: &str| -> Vec<String> {
        host.order(order, &format!("task: {order}"));
        let run = host.wait_for(order, &["undo_failed"])["run"].as_str().expect("a run").to_owned();
        let output = fs::read_to_string(host.path(&format!("state/runs/{run}/output"))).expect("its output");
        output.lines().filter(|line| line.parse::<u32>().is_ok()).map(str::to_owned).collect()
    };
    assert_eq!(printed(&host, "gains"), ["0", "0"], "setuid programs work here");
    let nobody = nix::unistd::User::from_name("nobody").expect("the users").expect("nobody").uid.to_string();
    assert_eq!(printed(&host, "gain"), [nobody.clone(), nobody]);
}

/// Silent connections, and some that begin a request, many times as many as are taken at once.
#[test]
fn p10_silent_connections_keep_telemetry_from_no_answer() {
    let mut host = Host::on_dir("silent");
    let [port] = free_ports();
    host.configure(&format!("telemetry: {{listen: \"127.0.0.1:{port}\"}}"));
    host.start();
    let ask = || request(port, "GET", "/metrics", None, b"").map_err(|error| error.to_string());
    assert_eq!(eventually(DEFAULT_TIMEOUT, ask).status, 200);
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        if n % 2 == 0 {
            stream.write_all(b"GET /metri").expect("a part of a request");
        }
        silent.push(stream);
    }
    let (sent, answered) = mpsc::channel();
    std::thread::spawn(move || {
        sent.send(request(port, "GET", "/metrics", None, b"").map(|answer| answer.status))
    });
    let answer = answered.recv_timeout(DEFAULT_TIMEOUT / 2).expect("an answer beside them");
    assert_eq!(answer.expect("an answer"), 200);
    drop(silent);
}
