//! A host in a temporary folder, whose commands are the built binary's, and what they print.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hostler::cli::{Document, schema};
use hostler_testkit::eventually;
use nix::pty::Winsize;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A host in a temporary folder; its agent ends with it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    agent: Option<Child>,
}

/// What a command printed, and how it ended.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out:\n{}\nerr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
        self
    }

    /// The document, which fits what `hostler schema output` says of it.
    #[track_caller]
    pub(crate) fn fits(&self, definition: &str) -> Value {
        let value = self.json();
        // Of all definitions the one that is meant.
        let mut schema: Value = serde_json::from_str(schema(Document::Output)).unwrap();
        schema["$ref"] = format!("#/$defs/{definition}").into();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        let faults: Vec<String> =
            schema.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(faults.is_empty(), "{definition}: {faults:#?}\n{}", self.out);
        value
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Bench {
    /// A host that is enrolled, with the tasks that the tests need.
    pub(crate) fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), agent: None };
        fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| bench.path(name).display().to_string();
        let config = format!(
            "host: db1\ngroups: [hana]\nstate_dir: {}\nruntime_dir: {}\ntask_dirs: [{}]\nlauncher: detached\nclock: trusted\ntelemetry: {{listen: null}}\n\
             store: dir\ndir: {{path: {}}}\n",
            at("state"),
            at("run"),
            at("tasks"),
            at("store")
        );
        fs::write(bench.path("hostler.yml"), config).unwrap();
        bench.task("good", "echo fine\necho '{\"output\": {\"answer\": \"42\"}}' >> \"$HOSTLER_REPORT\"");
        bench.task("bad", "printf 'so \\033[31mbad\\n'\nexit 3");
        bench.task("loud", "echo first\nyes 0123456789 | head -n 300000\necho last");
        bench.task("slow", "echo begin\nwhile [ ! -e \"$1\" ]; do sleep 0.1; done\necho end");
        bench.run(&["enroll", "db1", "--group", "hana"]).ends(0);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A task of one step, `./go`, which is told the path of a file that a test may make.
    pub(crate) fn task(&self, name: &str, script: &str) {
        let folder = self.path("tasks").join(name);
        fs::create_dir_all(&folder).unwrap();
        let flag = self.path("flag").display().to_string();
        let yaml = format!(
            "name: {name}\nversion: 1\nparams: {{type: object, properties: {{n: {{type: integer}}}}}}\n\
             steps:\n  - {{name: go, run: [./go, \"{flag}\"]}}\n"
        );
        fs::write(folder.join("task.yml"), yaml).unwrap();
        fs::write(folder.join("go"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(folder.join("go"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.args(arguments).arg("--config").arg(self.path("hostler.yml"));
        command
            .stdin(Stdio::null())
            .env_remove("HOSTLER_LOG")
            .env_remove("SUDO_USER")
            .env("USER", "alice")
            .env("TZ", "UTC");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    /// On a terminal of 80 columns without colours; errors come on it too, as they do for people.
    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> Done {
        self.on_terminal_of(80, arguments)
    }

    /// The same on a terminal of so many columns.
    pub(crate) fn on_terminal_of(&self, columns: u16, arguments: &[&str]) -> Done {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let mut command = self.command(arguments);
        command.env("NO_COLOR", "1").stderr(pty.slave.try_clone().unwrap()).stdout(pty.slave);
        let mut child = command.spawn().unwrap();
        // The child alone has the other side now: it ends with it.
        drop(command);
        let (mut terminal, mut bytes, mut piece) = (fs::File::from(pty.master), Vec::new(), [0; 4096]);
        // A terminal whose other side is closed answers with an error, not with an end.
        while let Ok(count @ 1..) = terminal.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        let code = child.wait().unwrap().code().unwrap_or(-1);
        let out = String::from_utf8(bytes).unwrap().replace("\r\n", "\n");
        Done { code, out, err: String::new() }
    }

    pub(crate) fn with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(&["agent"]);
        self.agent = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.until(&["status", "--json"], "the agent's report", |done| {
            done.json()["hosts"][0]["state"] == "reports"
        });
    }

    /// Asks again and again until the answer is the wanted one.
    #[track_caller]
    pub(crate) fn until(&self, arguments: &[&str], wanted: &str, good: impl Fn(&Done) -> bool) -> Done {
        eventually(SOON, || {
            let done = self.run(arguments);
            if good(&done) { Ok(done) } else { Err(format!("{wanted}: {}{}", done.out, done.err)) }
        })
    }
}

impl Bench {
    /// A task of one step with an effect of its own: what it does, and what its `back` does.
    pub(crate) fn step_task(&self, name: &str, effect: &str, go: &str, back: &str) {
        self.task(name, go);
        let folder = self.path("tasks").join(name);
        let yaml = format!("name: {name}\nversion: 1\nsteps:\n  - {{name: go, run: [./go], {effect}}}\n");
        fs::write(folder.join("task.yml"), yaml).unwrap();
        fs::write(folder.join("back"), format!("#!/bin/sh\n{back}\n")).unwrap();
        fs::set_permissions(folder.join("back"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Ends the agent; what it has started goes on.
    pub(crate) fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A step that waits for the flag must not outlive its folder.
        let _ = fs::write(self.path("flag"), "");
        self.stop();
    }
}
