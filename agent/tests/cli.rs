//! The operators' commands as an operator types them: the built binary, a store in a folder, and a real agent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hostler_testkit::eventually;
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A host in a temporary folder; its agent ends with it.
struct Bench {
    dir: TempDir,
    agent: Option<Child>,
}

/// What a command printed, and how it ended.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out:\n{}\nerr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(all.contains(text), "{text:?} is not in:\n{all}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
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
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), agent: None };
        fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| bench.path(name).display().to_string();
        let config = format!(
            "host: db1\ngroups: [hana]\nstate_dir: {}\nruntime_dir: {}\ntask_dirs: [{}]\nlauncher: detached\n\
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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A task of one step, `./go`, which is told the path of a file that a test may make.
    fn task(&self, name: &str, script: &str) {
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

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.args(arguments).arg("--config").arg(self.path("hostler.yml"));
        command.stdin(Stdio::null()).env_remove("HOSTLER_LOG").env("USER", "alice");
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(&["agent"]);
        self.agent = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.until(&["status", "--json"], "the agent's report", |done| {
            done.json()["hosts"][0]["state"] == "reports"
        });
    }

    /// Asks again and again until the answer is the wanted one.
    #[track_caller]
    fn until(&self, arguments: &[&str], wanted: &str, good: impl Fn(&Done) -> bool) -> Done {
        eventually(SOON, || {
            let done = self.run(arguments);
            if good(&done) { Ok(done) } else { Err(format!("{wanted}: {}{}", done.out, done.err)) }
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A step that waits for the flag must not outlive its folder.
        let _ = fs::write(self.path("flag"), "");
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

#[test]
fn an_order_goes_from_put_to_done_and_is_told_of_on_all_ways() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["order", "put", "o", "--host", "db1", "--task", "good"]).ends(0).says("created");
    let status = bench.until(&["status", "o", "--json"], "done", |done| done.code == 0).json();
    assert_eq!(status["all_done"], true);
    let row = &status["hosts"][0];
    assert_eq!((&row["standing"], &row["place"]), (&"done".into(), &"hosts/db1".into()));
    assert_eq!(row["report"]["outputs"]["answer"], "42");
    let run = row["report"]["run"].as_str().unwrap().to_owned();
    bench.run(&["status", "o"]).ends(0).says("succeeded").says("answer = 42");
    bench.until(&["status"], "the agent's own report", |done| done.out.contains("1 succeeded")).says("hana");
    bench.run(&["status", "--host", "db1"]).ends(0).says("1 done");
    bench.run(&["order", "get", "o", "--host", "db1"]).ends(0).says("task: \"good\"\nby: \"alice\"");
    bench.run(&["order", "list"]).ends(0).says("hosts/db1  o");
    let list = bench.run(&["order", "list", "--json"]).ends(0).json();
    assert_eq!(list[0]["identity"], row["report"]["identity"]);

    bench.run(&["runs"]).ends(0).says(&run).says("good@1");
    let runs = bench.run(&["runs", "--json"]).ends(0).json();
    assert_eq!((&runs["from"], &runs["runs"][0]["run"]), (&"folders".into(), &run.as_str().into()));
    let logs = bench.run(&["logs", &run]).ends(0).says("the whole output");
    assert!(logs.out.ends_with("fine\n"), "{}", logs.out);

    // A success of an older instruction is no success of the present one.
    fs::remove_dir_all(bench.path("tasks/good")).unwrap();
    bench
        .run(&["order", "put", "o", "--host", "db1", "--task", "good", "--revision", "2"])
        .ends(0)
        .says("changed");
    bench
        .until(&["status", "o"], "refused", |done| done.out.contains("refused"))
        .ends(1)
        .says("no task good");
    bench.run(&["order", "delete", "o", "--host", "db1"]).ends(0);
    bench.run(&["order", "get", "o", "--host", "db1"]).ends(5).says("hostler order list");
}

#[test]
fn run_waits_for_its_own_instruction_and_ends_as_the_run_did() {
    let mut bench = Bench::new();
    bench.start();
    let done = bench.run(&["run", "good", "--host", "db1"]).ends(0).says("succeeded").says("answer = 42");
    assert!(!done.out.contains('\r'), "no terminal, no line that changes: {:?}", done.out);
    // Again: another instruction, carried out again.
    let json = bench.run(&["run", "good", "--host", "db1", "--json"]).ends(0).json();
    assert_eq!((&json["exit"], &json["report"]["phase"]), (&0.into(), &"succeeded".into()));
    assert_eq!(bench.run(&["runs", "--json"]).json()["runs"].as_array().unwrap().len(), 2);

    let bad = bench.run(&["run", "bad", "--host", "db1", "--order", "x"]).ends(10).says("failed");
    assert!(bad.out.contains("| so [31mbad") && !bad.out.contains('\x1b'), "{:?}", bad.out);
    let run = bench.run(&["status", "x", "--json"]).json()["hosts"][0]["report"]["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let store = bench.path("store").display().to_string();
    let afar =
        Command::new(env!("CARGO_BIN_EXE_hostler")).args(["logs", &run, "--store-dir", &store]).output();
    Done::from(afar.unwrap()).ends(0).says("the end of the output only").says("so [31mbad");
    bench.run(&["run", "good", "--host", "db1", "--param", "m=1"]).ends(15).says("refused");

    bench.run(&["run", "slow", "--host", "db1", "--wait", "1s"]).ends(18).says("stays in place");
    bench.run(&["run", "slow", "--host", "db1"]).ends(6).says("is running");
    let run = bench.run(&["status", "slow", "--json"]).ends(1).json();
    let run = run["hosts"][0]["report"]["run"].as_str().unwrap().to_owned();
    let mut follow = bench.command(&["logs", &run, "-f"]);
    let follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::write(bench.path("flag"), "").unwrap();
    let followed = Done::from(follow.wait_with_output().unwrap()).ends(0);
    assert!(followed.out.contains("begin\n") && followed.out.ends_with("end\n"), "{}", followed.out);
}

#[test]
fn ctrl_c_and_a_reader_that_goes_away_leave_the_order_in_place() {
    let mut bench = Bench::new();
    bench.start();
    let mut run = bench.command(&["run", "slow", "--host", "db1"]);
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    bench.until(&["status", "slow"], "running", |done| done.out.contains("running"));
    let pid = nix::unistd::Pid::from_raw(run.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let interrupted = Done::from(run.wait_with_output().unwrap()).ends(130);
    interrupted.says("hosts/db1/slow stays in place: hostler status slow --host db1");
    fs::write(bench.path("flag"), "").unwrap();
    bench.until(&["status", "slow"], "done", |done| done.code == 0);

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = bench.command(&["status"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(gone.status.code(), Some(141));
    assert!(gone.stderr.is_empty(), "{}", String::from_utf8_lossy(&gone.stderr));
}

#[test]
fn of_a_long_output_the_beginning_and_the_end_are_shown_and_the_gap_is_told() {
    let mut bench = Bench::new();
    bench.start();
    let run = bench.run(&["run", "loud", "--host", "db1", "--json"]).ends(0).json();
    let run = run["report"]["run"].as_str().unwrap().to_owned();
    for follow in [&["logs", &run][..], &["logs", &run, "-f"]] {
        let done = bench.run(follow).ends(0);
        assert!(done.out.contains("\nfirst\n") && done.out.ends_with("\nlast\n"));
        assert_eq!(done.out.matches("may be left out here").count(), 1);
    }
}

#[test]
fn a_group_is_asked_for_by_its_number_and_done_when_each_member_is() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["enroll", "db2"]).ends(0);
    let put = ["order", "put", "g", "--group", "all", "--task", "good", "--spread", "0s"];
    bench.run(&put).ends(6).says("groups/all has 2 known hosts");
    bench.run(&[&put[..], &["--yes-to", "7"]].concat()).ends(6).says("not 7");
    bench.run(&["order", "list", "--json"]).ends(0).says("[]");
    bench.run(&[&put[..], &["--yes-to", "2"]].concat()).ends(0);
    let status = bench.until(&["status", "g", "--group", "all"], "one done", |done| {
        done.out.contains("1 done, 1 not seen")
    });
    status.ends(1).says("db2   g").says("the agent has never reported");
    bench.run(&["status", "g", "--host", "db1"]).ends(0);
    bench.run(&["status", "g", "--group", "hana"]).ends(0);
    bench.with_input(&["order", "put", "g", "-", "--host", "db2"], "skip: true").ends(0);
    bench.run(&["status", "g", "--host", "db2"]).ends(1).says("not seen");
    bench.run(&["run", "good", "--host", "db2", "--wait", "0s"]).ends(19).says("has never reported");
}

#[test]
fn mistakes_cost_one_line_and_write_nothing() {
    let bench = Bench::new();
    for (arguments, input, code, says) in [
        (&["order", "put", "o", "-", "--host", "db1"][..], "tsk: good", 3, "did you mean `task`"),
        (&["order", "put", "o", "/nonexistent", "--host", "db1"], "", 5, "no file"),
        (&["order", "put", "o", "-", "--host", "db11"], "task: good", 5, "did you mean db1?"),
        (&["order", "put", "o", "-", "--group", "hanna"], "task: good", 5, "did you mean hana?"),
        (&["order", "put", "o", "--host", "db1"], "", 2, ""),
        (&["order", "put", "o", "--host", "db1", "--group", "hana", "--task", "t"], "", 2, ""),
        (&["order", "put", "O", "--host", "db1", "--task", "t"], "", 2, "is not a name"),
        (&["order", "put", "o", "--host", "db1", "--task", "t", "--timeout", "5"], "", 2, "length of time"),
        (&["run", "good", "--host", "db3"], "", 5, "did you mean db1?"),
        (&["status", "nothing"], "", 5, "there is no order nothing"),
        (&["status", "--host", "elsewhere"], "", 5, "hostler enroll elsewhere"),
        (&["logs", "01JD8000000000000000000000"], "", 5, "neither on this host"),
        (&["logs", "x"], "", 2, "26 letters"),
    ] {
        let done = bench.with_input(arguments, input).ends(code).says(says);
        if code != 2 {
            assert!(done.err.starts_with("hostler: ") && done.err.lines().count() == 1, "{}", done.err);
        }
    }
    assert_eq!(bench.run(&["order", "list", "--json"]).ends(0).json(), Value::Array(vec![]));
    let store =
        Command::new(env!("CARGO_BIN_EXE_hostler")).args(["status", "--store-dir", "/nonexistent"]).output();
    Done::from(store.unwrap()).ends(5).says("there is no store in /nonexistent");
}

#[test]
fn what_reports_say_never_reaches_the_terminal_as_a_command() {
    let bench = Bench::new();
    let put = |key: &str, text: &str| {
        let path = bench.path("store/hostler").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("orders/hosts/db1/o", "task: good\nreason: \"\\e[2J\"");
    put(
        "reports/orders/db1/o",
        r#"{"phase":"\u001b[2J\u009b","error":"a\nb\u202e","tail":"x\u001b]0;t\u0007"}"#,
    );
    put("reports/agents/db1", r#"{"hostler":"\u001b[2J","conditions":["a\u0000b"]}"#);
    put("reports/orders/db1/broken", "{");
    put("reports/runs/db1/01JD8000000000000000000000", r#"{"order":"o","tail":"\u001b[2J"}"#);
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "o"],
        &["status", "o", "--json"],
        &["status", "broken"],
        &["order", "list"],
        &["runs"],
        &["runs", "--json"],
        &["logs", "01JD8000000000000000000000"],
    ] {
        let done = bench.run(arguments);
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!done.out.contains(bad) && !done.err.contains(bad), "{arguments:?}: {:?}", done.out);
        assert!([0, 1].contains(&done.code), "{arguments:?}: {}", done.err);
    }
}

#[test]
fn authors_see_faults_and_can_try_a_task() {
    let bench = Bench::new();
    bench.run(&["task", "lint"]).ends(0).says("good: no faults");
    fs::write(bench.path("tasks/bad/task.yml"), "name: bad\nversion: one\n").unwrap();
    bench.run(&["task", "lint"]).ends(1).says("bad/task.yml:2:");
    let folder = bench.path("tasks/bad").display().to_string();
    let faults = bench.run(&["task", "lint", &folder, "--json"]).ends(1).json();
    assert!(!faults[0]["faults"].as_array().unwrap().is_empty(), "{faults}");
    bench.run(&["task", "list"]).ends(0).says("broken").says("ready");
    let list = bench.run(&["task", "list", "--json"]).ends(0).json();
    assert_eq!(list.as_array().unwrap().len(), 4);
    bench.run(&["task", "show", "good"]).ends(0).says("step 1   go (once): ./go");
    bench.run(&["task", "show", "god"]).ends(5).says("did you mean good?");

    let folder = bench.path("tasks/good").display().to_string();
    fs::write(bench.path("params.yml"), "n: 1").unwrap();
    let params = bench.path("params.yml").display().to_string();
    let tried = bench.run(&["task", "try", &folder, "--params", &params]).ends(0).says("answer = 42");
    assert!(tried.out.contains("\nfine\n") && tried.out.ends_with("succeeded\n"), "{}", tried.out);
    bench.run(&["task", "try", &folder, "--param", "n=x"]).ends(15).says("/n");
    bench.task("bad", "exit 3");
    bench.run(&["task", "try", "bad"]).ends(10).says("failed");
}

#[test]
fn check_names_what_is_wrong_with_its_cure() {
    let mut bench = Bench::new();
    bench.start();
    let level = |checks: &Value, name: &str| -> Vec<String> {
        let of = checks.as_array().unwrap().iter().filter(|check| check["name"] == name);
        of.map(|check| check["level"].as_str().unwrap().to_owned()).collect()
    };
    let good = bench.run(&["check", "--json"]).ends(0).json();
    assert_eq!(level(&good, "visible"), ["ok"; 5]);
    assert_eq!(level(&good, "rights"), ["ok"; 3]);
    for (name, expected) in
        [("state folder", "ok"), ("launcher", "warn"), ("dir store", "warn"), ("tasks", "ok")]
    {
        assert_eq!(level(&good, name), [expected], "{good}");
    }
    // The rights were tried without a trace.
    assert!(!bench.path("store/hostler/reports/runs/db1/_check").exists());

    fs::set_permissions(bench.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(bench.path("store/hostler/freeze/_hostler")).unwrap();
    fs::write(bench.path("tasks/bad/task.yml"), "name: bad").unwrap();
    let bad = bench.run(&["check"]).ends(1);
    let bad =
        bad.says("chmod 0711").says("hostler/freeze/ has no marker").says("hostler enroll db1 --group hana");
    bad.says("hostler task lint bad");
    bench.run(&["check", "--store-only"]).ends(0).says("may write orders");
    fs::write(bench.path("hostler.yml"), "hots: db1").unwrap();
    bench.run(&["check"]).ends(1).says("fail  configuration").says("did you mean `host`");
}

#[test]
fn the_policy_can_be_printed_without_a_store() {
    let bench = Bench::new();
    let again = bench.run(&["enroll", "db1"]).ends(0).says("is there");
    assert!(
        again.out.contains("key \"hostler/reports/agents/db1\" {\n  policy = \"write\"\n}"),
        "{}",
        again.out
    );
    let json = bench.run(&["enroll", "db9", "--policy-only", "--json"]).ends(0).json();
    assert_eq!(json["written"], Value::Array(vec![]));
    assert!(!bench.path("store/hostler/orders/hosts/db9").exists());
}
