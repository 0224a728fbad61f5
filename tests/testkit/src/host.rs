//! A host with the real agent, on a folder or on Consul: everything it keeps is in a temporary folder.
//!
//! Tasks of tests count their effects by appending a line to [`Host::effects`]: the oracle of most scenarios.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Consul, ROLE_ID, SECRET_ID, Vault, eventually, request, shipped_task};

/// How long anything that an agent does at once may take on a slow machine.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The program under test: what `HOSTLER_BIN` names, built with the crash points.
#[track_caller]
pub fn program() -> PathBuf {
    let path =
        std::env::var_os("HOSTLER_BIN").expect("HOSTLER_BIN is not set: run tests/run, which builds it");
    PathBuf::from(path)
}

enum Place {
    Dir,
    Consul { port: u16, token: Option<String> },
}

/// A host; its processes end with it.
pub struct Host {
    dir: TempDir,
    name: String,
    place: Place,
    agent: Option<Child>,
    env: Vec<(String, String)>,
    program: PathBuf,
}

impl Host {
    /// A host whose store is a folder.
    pub fn on_dir(name: &str) -> Self {
        Self::new(name, Place::Dir)
    }

    /// A host on a folder that logs in to this Vault by AppRole; `more` are further lines of `vault:`.
    pub fn on_vault(name: &str, vault: &Vault, more: &str) -> Self {
        let host = Self::on_dir(name);
        host.configure_vault(vault, more);
        host
    }

    /// Gives the host a Vault.
    pub fn configure_vault(&self, vault: &Vault, more: &str) {
        fs::write(self.path("role_id"), format!("{ROLE_ID}\n")).expect("the role id");
        fs::write(self.path("secret_id"), format!("{SECRET_ID}\n")).expect("the secret id");
        let at = |name: &str| self.path(name).display().to_string();
        self.configure(&format!(
            "vault:\n  address: {}\n  {more}\n  auth: {{approle: {{role_id_file: {}, secret_id_file: {}}}}}",
            vault.address(),
            at("role_id"),
            at("secret_id"),
        ));
    }

    /// A host on a Consul server, enrolled.
    pub fn on_consul(name: &str, consul: &Consul) -> Self {
        Self::new(name, Place::Consul { port: consul.port(), token: None })
    }

    /// A host that reaches Consul by another port, such as a proxy's; not enrolled.
    pub fn on_port(name: &str, port: u16, token: Option<&str>) -> Self {
        Self::new_at(name, Place::Consul { port, token: token.map(str::to_owned) })
    }

    fn new(name: &str, place: Place) -> Self {
        let host = Self::new_at(name, place);
        host.enroll();
        host
    }

    fn new_at(name: &str, place: Place) -> Self {
        let dir = tempfile::Builder::new().prefix("hostler-").tempdir().expect("a temporary folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::create_dir(dir.path().join("tasks")).expect("the folder of tasks");
        let host =
            Self { dir, name: name.to_owned(), place, agent: None, env: Vec::new(), program: program() };
        host.configure("");
        host
    }

    /// Writes the configuration, with more lines of it.
    pub fn configure(&self, more: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let store = match &self.place {
            Place::Dir => format!("store: dir\ndir: {{path: {}}}", at("store")),
            Place::Consul { port, token } => {
                let token = token.as_ref().map(|token| {
                    fs::write(self.path("token"), token).expect("the token");
                    format!(", token_file: {}", at("token"))
                });
                format!("consul: {{address: \"http://127.0.0.1:{port}\"{}}}", token.unwrap_or_default())
            }
        };
        // Many agents run beside one another: each would want the one port.
        let telemetry = if more.contains("telemetry:") { "" } else { "telemetry: {listen: null}\n" };
        let text = format!(
            "host: {}\nstate_dir: {}\nruntime_dir: {}\ntask_dirs: [{}]\nfacts_dirs: [{}]\nlauncher: detached\n{telemetry}{store}\n{more}\n",
            self.name,
            at("state"),
            at("run"),
            at("tasks"),
            at("facts"),
        );
        fs::write(self.path("hostler.yml"), text).expect("the configuration");
    }

    /// Installs a fact: its file, and scripts beside it.
    pub fn fact(&self, file: &str, text: &str, scripts: &[(&str, &str)]) {
        let folder = self.path("facts");
        fs::create_dir_all(&folder).expect("the folder of facts");
        for (name, text) in scripts {
            let path = folder.join(name);
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        fs::write(folder.join(file), text).expect("a fact");
    }

    /// What the host says of itself, in the store.
    pub fn facts_report(&self) -> Option<Value> {
        serde_json::from_str(&self.get(&format!("hostler/reports/facts/{}", self.name))?).ok()
    }

    /// Has runs started in another way: systemd, in place of detached.
    pub fn configure_launcher(&self, launcher: &str) {
        let path = self.path("hostler.yml");
        let text = fs::read_to_string(&path).expect("the configuration");
        let text = text.replace("launcher: detached", &format!("launcher: {launcher}"));
        fs::write(path, text).expect("the configuration");
    }

    /// Moves the folder of what lives as long as the host is up, which is the host's own elsewhere.
    pub fn configure_runtime(&self, folder: &Path) {
        let path = self.path("hostler.yml");
        let text = fs::read_to_string(&path).expect("the configuration");
        let (own, other) = (self.path("run").display().to_string(), folder.display().to_string());
        fs::write(path, text.replace(&format!("runtime_dir: {own}"), &format!("runtime_dir: {other}")))
            .expect("the configuration");
    }

    /// Gives the host another name in its configuration.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        self.configure("");
    }

    /// Lets the host speak to another server from the next start on.
    pub fn move_to(&mut self, consul: &Consul) {
        self.place = Place::Consul { port: consul.port(), token: None };
        self.configure("");
    }

    /// Writes the markers.
    pub fn enroll(&self) {
        for source in [format!("hosts/{}", self.name), "groups/all".into()] {
            self.put(&format!("hostler/{source}/_hostler"), "{}");
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path below its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes the program that another variable names than `HOSTLER_BIN`.
    #[track_caller]
    pub fn use_program(&mut self, variable: &str) {
        let path = std::env::var_os(variable);
        self.program =
            path.unwrap_or_else(|| panic!("{variable} is not set: run tests/run, which builds it")).into();
    }

    /// Sets a variable of the agent's environment for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Takes it away again.
    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// Installs a task as it is shipped, with `policy` in place of `/etc/hostler/tasks.yml`.
    pub fn shipped(&self, name: &str, policy: &str) {
        let admit = self.admit(policy);
        let mut files = shipped_task(name);
        let yaml = files.remove("task.yml").expect("a task");
        files
            .values_mut()
            .for_each(|text| *text = text.replace("${HOSTLER_ADMIT:-/usr/bin/hostler admit}", &admit));
        let scripts: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        self.task(name, &yaml, &scripts);
    }

    /// What the scripts of shipped tasks call for what they may touch, with `policy` in place of
    /// `/etc/hostler/tasks.yml`.
    pub fn admit(&self, policy: &str) -> String {
        let file = self.path("tasks.yml");
        fs::write(&file, policy).expect("what is admitted");
        let config = self.path("hostler.yml");
        format!(
            "{} admit --config {} --tasks-file {}",
            self.program.display(),
            config.display(),
            file.display()
        )
    }

    /// Installs a task: its `task.yml` and its scripts; `EFFECTS` in them is the path of [`Host::effects`].
    pub fn task(&self, name: &str, yaml: &str, scripts: &[(&str, &str)]) {
        let folder = self.path("tasks").join(name);
        fs::create_dir_all(&folder).expect("the task's folder");
        fs::write(folder.join("task.yml"), yaml).expect("the task's file");
        for (script, text) in scripts {
            let path = folder.join(script);
            let text = text.replace("EFFECTS", &self.path("effects").display().to_string());
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
    }

    /// A task whose steps append a line each; `kinds` as in `once:a repeatable:b!`: effect, line, and `!` for a
    /// `done` that looks for the line; `undoable` steps append `undo-<line>` when they are undone.
    pub fn counting_task(&self, name: &str, kinds: &str, delay: &str) {
        let mut yaml = format!("name: {name}\nversion: 1\ntimeout: 60s\nsteps:\n");
        for kind in kinds.split_whitespace() {
            let (effect, line) = kind.split_once(':').expect("effect:line");
            let (line, done) = line.strip_suffix('!').map_or((line, false), |line| (line, true));
            yaml.push_str(&format!("  - name: {line}\n    effect: {effect}\n    grace: 1s\n"));
            yaml.push_str(&format!("    run: [./add, \"{line}\", \"{delay}\"]\n"));
            if done {
                yaml.push_str(&format!("    check: [./has, \"{line}\"]\n"));
            }
            if effect == "undoable" {
                yaml.push_str(&format!("    undo: [./add, \"undo-{line}\", \"0\"]\n"));
            }
        }
        let add = "#!/bin/sh\nset -e\n[ \"$1\" != fail ] || exit 3\n\
                   sleep \"$2\"\necho \"$HOSTLER_ORDER $HOSTLER_RUN $1\" >> EFFECTS\nsleep \"$2\"\n";
        // Before the first effect there is no file: that is "not done", and not grep's "cannot tell".
        let has =
            "#!/bin/sh\n[ -e EFFECTS ] || exit 1\ngrep -qxF \"$HOSTLER_ORDER $HOSTLER_RUN $1\" EFFECTS\n";
        self.task(name, &yaml, &[("add", add), ("has", has)]);
    }

    /// The lines that steps of an order have appended, without order and run.
    pub fn effects(&self, order: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("effects")).unwrap_or_default();
        let of = |line: &str| {
            let mut words = line.split(' ');
            (words.next() == Some(order)).then(|| words.nth(1).unwrap_or_default().to_owned())
        };
        text.lines().filter_map(of).collect()
    }

    /// Waits until steps of an order have appended so many lines, and the run of the last one is reported as succeeded: until
    /// a run that is over in a moment is reported, the report of the one before stands.
    #[track_caller]
    pub fn wait_completed(&self, order: &str, count: usize) -> Value {
        self.wait_until(order, &format!("{count} effects, and the success of the last"), |report| {
            let text = fs::read_to_string(self.path("effects")).unwrap_or_default();
            let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let of_order: Vec<_> = lines.filter(|words| words.first() == Some(&order)).collect();
            let last = of_order.last().and_then(|words| words.get(1)).copied();
            of_order.len() == count && report["phase"] == "succeeded" && report["run"].as_str() == last
        })
    }

    /// Places an order on the host. One that may be there before the host has joined says that it is meant.
    pub fn order(&self, name: &str, text: &str) {
        let ledger = fs::read_to_string(self.path("state/ledger")).unwrap_or_default();
        let meant = match text.strip_prefix('{') {
            Some(rest) => format!("{{\"on_preexisting\": \"run\", {rest}"),
            None => format!("{text}\non_preexisting: run"),
        };
        let text = if ledger.contains("\"host_joined\"") { text } else { &meant };
        self.put(&format!("hostler/hosts/{}/orders/{name}", self.name), text);
    }

    /// Writes a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        match &self.place {
            Place::Dir => {
                let path = self.path("store").join(key);
                fs::create_dir_all(path.parent().expect("a folder")).expect("the key's folder");
                let temp = path.with_extension("tmp");
                fs::write(&temp, value).expect("the value");
                fs::rename(&temp, &path).expect("the key");
            }
            Place::Consul { port, .. } => {
                let answer = request(*port, "PUT", &format!("/v1/kv/{key}"), None, value.as_bytes());
                assert_eq!(answer.expect("an answer of Consul").status, 200, "{key}");
            }
        }
    }

    /// Removes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        match &self.place {
            Place::Dir => fs::remove_file(self.path("store").join(key)).expect("the key"),
            Place::Consul { port, .. } => {
                let answer = request(*port, "DELETE", &format!("/v1/kv/{key}"), None, b"");
                assert_eq!(answer.expect("an answer of Consul").status, 200, "{key}");
            }
        }
    }

    /// Reads a key.
    pub fn get(&self, key: &str) -> Option<String> {
        match &self.place {
            Place::Dir => fs::read_to_string(self.path("store").join(key)).ok(),
            Place::Consul { port, .. } => {
                let answer = request(*port, "GET", &format!("/v1/kv/{key}?raw"), None, b"").ok()?;
                (answer.status == 200).then(|| String::from_utf8_lossy(&answer.body).into_owned())
            }
        }
    }

    /// The report of an order, as the store holds it.
    pub fn report(&self, order: &str) -> Option<Value> {
        let text = self.get(&format!("hostler/reports/orders/{}/{order}", self.name))?;
        serde_json::from_str(&text).ok()
    }

    /// The agent's report of itself.
    pub fn agent_report(&self) -> Option<Value> {
        serde_json::from_str(&self.get(&format!("hostler/reports/agents/{}", self.name))?).ok()
    }

    /// Waits until the report of an order is in one of the phases (`held repeated`: with that reason).
    #[track_caller]
    pub fn wait_for(&self, order: &str, phases: &[&str]) -> Value {
        self.wait_until(order, &format!("one of {phases:?}"), |report| {
            let phase = report["phase"].as_str().unwrap_or_default();
            let both = format!("{phase} {}", report["reason"].as_str().unwrap_or_default());
            phases.iter().any(|wanted| *wanted == phase || *wanted == both)
        })
    }

    /// Waits until the report of an order is as wanted.
    #[track_caller]
    pub fn wait_until(&self, order: &str, wanted: &str, good: impl Fn(&Value) -> bool) -> Value {
        eventually(DEFAULT_TIMEOUT, || match self.report(order) {
            Some(report) if good(&report) => Ok(report),
            Some(report) => Err(format!("{order}: wanted {wanted}, it says {report}; {}", self.log_tail())),
            None => Err(format!("{order}: wanted {wanted}, there is no report; {}", self.log_tail())),
        })
    }

    /// Starts the agent through another program, which gets its words.
    #[track_caller]
    pub fn start_with(&mut self, program: &Path) {
        let own = std::mem::replace(&mut self.program, program.to_owned());
        self.start();
        self.program = own;
    }

    /// Starts the agent. That it was killed before costs it no pause: a test may do that as often as it likes.
    #[track_caller]
    pub fn start(&mut self) {
        let _ = fs::remove_file(self.path("run/early-deaths"));
        self.start_once_more();
    }

    /// Starts the agent, which knows of its earlier deaths.
    #[track_caller]
    pub fn start_once_more(&mut self) {
        let log = fs::File::options().append(true).create(true).open(self.path("log")).expect("the log");
        let mut command = Command::new(&self.program);
        command.arg("agent").arg("--config").arg(self.path("hostler.yml"));
        command.env("HOSTLER_CRASH_FILE", self.path("crash")).env("HOSTLER_LOG", "hostler=debug");
        command.env("HOSTLER_CLOCK_FILE", self.path("clock"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.agent = Some(command.spawn().expect("the agent"));
    }

    /// Types a command, as an operator would on this host; its status, and what it printed.
    #[track_caller]
    pub fn hostler(&self, words: &[&str]) -> (i32, String) {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--config")
            .arg(self.path("hostler.yml"))
            .env("USER", "alice")
            .env("TZ", "UTC");
        let output = command.env_remove("SUDO_USER").stdin(Stdio::null()).output().expect("the command");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    /// Ends the agent by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Ends the agent in order.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            signal(agent.id(), Signal::SIGTERM);
            eventually(DEFAULT_TIMEOUT, || match agent.try_wait() {
                Ok(Some(status)) if status.success() => Ok(()),
                Ok(Some(status)) => panic!("the agent ended with {status}; {}", self.log_tail()),
                _ => Err("the agent does not end".into()),
            });
        }
    }

    /// Starts another agent and gives the former back, whatever has become of it.
    #[track_caller]
    pub fn replace_agent(&mut self) -> Option<Child> {
        let former = self.agent.take();
        self.start();
        former
    }

    /// Whether the agent lives.
    pub fn is_up(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| matches!(agent.try_wait(), Ok(None)))
    }

    /// The agent's process.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// Starts the agent again whenever it is down, until `done`.
    #[track_caller]
    pub fn keep_up_until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Result<T, String>) -> T {
        eventually(DEFAULT_TIMEOUT * 2, || {
            if !self.is_up() {
                self.start();
            }
            done(self).map_err(|error| format!("{error}; {}", self.log_tail()))
        })
    }

    /// Wishes the process that passes this point next to end there; see `host/crash.rs`.
    pub fn crash_at(&self, point: &str) {
        fs::write(self.path("crash"), point).expect("the wish");
    }

    /// Sets the clock of this host's agent and executors by so many seconds, and says whether it is synchronised. The agent
    /// looks at it at once.
    pub fn set_clock(&self, ahead: i64, synchronised: bool) {
        let word = if synchronised { "synchronised" } else { "unsynchronised" };
        let temp = self.path("clock.tmp");
        fs::write(&temp, format!("{ahead} {word}")).expect("the clock");
        fs::rename(&temp, self.path("clock")).expect("the clock");
        if let Some(pid) = self.agent_pid() {
            // Before the agent listens to it, the signal would end it.
            eventually(DEFAULT_TIMEOUT, || {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
                let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
                let hangup = caught.is_some_and(|mask| mask & 1 == 1);
                if hangup { Ok(()) } else { Err(format!("the agent is not up; {}", self.log_tail())) }
            });
            signal(pid, Signal::SIGHUP);
        }
    }

    /// Whether the wish came true.
    pub fn has_crashed(&self) -> bool {
        !self.path("crash").exists()
    }

    /// The living executors of this host.
    pub fn executors(&self) -> Vec<u32> {
        let mark = format!("executor\0{}", self.dir.path().display());
        processes_with("cmdline", &mark)
    }

    /// The living watchers of guards of this host.
    pub fn watchers(&self) -> Vec<u32> {
        let mark = format!("watcher\0{}", self.dir.path().display());
        processes_with("cmdline", &mark)
    }

    /// All living processes that carry this host's folder in their environment or arguments, but the agent.
    pub fn processes(&self) -> Vec<u32> {
        let mark = self.dir.path().display().to_string();
        let mut all = processes_with("cmdline", &mark);
        all.extend(processes_with("environ", &mark));
        all.sort_unstable();
        all.dedup();
        let agent = self.agent_pid();
        all.retain(|pid| Some(*pid) != agent);
        all
    }

    /// The folders of its runs, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("state/runs")).into_iter().flatten().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        runs.sort();
        runs
    }

    /// The end of the agent's and the executors' log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("log:\n{}", lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n"))
    }
}

impl Drop for Host {
    // The folder of secrets is a file system of its own, and would keep the temporary folder from going.
    fn drop(&mut self) {
        self.kill();
        // What a step left behind could start more while it is ended.
        for _ in 0..20 {
            let alive = self.processes();
            alive.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
            if alive.is_empty() {
                break;
            }
        }
        // Where nothing may be mounted there is nothing to take away.
        let _ = nix::mount::umount2(&self.path("run/secrets"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Sends a signal to a process of this test's own.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Whether a process lives: exists and is no zombie.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn processes_with(file: &str, mark: &str) -> Vec<u32> {
    let me = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
        bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    pids.filter(|pid| *pid != me && lives(*pid)).filter(has).collect()
}
