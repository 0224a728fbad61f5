//! The commands as an operator types them, and what comes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, Done};

#[test]
fn an_order_goes_from_put_to_done_and_is_told_of_on_all_ways() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["order", "put", "o", "--host", "db1", "--task", "good"]).ends(0).says("created");
    let status = bench.until(&["status", "o", "--json"], "done", |done| done.code == 0).fits("status_rows");
    assert_eq!(status["all_done"], true);
    let row = &status["hosts"][0];
    assert_eq!((&row["status"], &row["place"]), (&"done".into(), &"hosts/db1".into()));
    assert_eq!(row["report"]["outputs"]["answer"], "42");
    let run = row["report"]["run"].as_str().unwrap().to_owned();
    bench.run(&["status", "o"]).ends(0).says("succeeded").says("answer = 42");
    bench.until(&["status"], "the agent's own report", |done| done.out.contains("1 done")).says("hana");
    bench.run(&["status", "--host", "db1"]).ends(0).says("1 done");
    bench.run(&["order", "get", "o", "--host", "db1"]).ends(0).says("task: \"good\"\nby: \"alice\"");
    bench.run(&["order", "list"]).ends(0).says("hosts/db1  o");
    let list = bench.run(&["order", "list", "--json"]).ends(0).fits("order_list");
    assert_eq!(list[0]["identity"], row["report"]["identity"]);

    bench.run(&["runs"]).ends(0).says(&run).says("good@1");
    let runs = bench.run(&["runs", "--json"]).ends(0).fits("runs");
    assert_eq!((&runs["from"], &runs["runs"][0]["run"]), (&"folders".into(), &run.as_str().into()));
    let logs = bench.run(&["logs", &run]).ends(0).says("the complete stored output");
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
    bench
        .run(&["order", "put", "p", "--host", "db1", "--task", "god"])
        .ends(0)
        .says("but good: if it is mistyped");
    bench.run(&["order", "delete", "p", "--host", "db1"]).ends(0);
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
    let json = bench.run(&["run", "good", "--host", "db1", "--json"]).ends(0).fits("run");
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
    bench.run(&[&put[..], &["--confirm-hosts", "7"]].concat()).ends(6).says("not 7");
    bench.run(&["order", "list", "--json"]).ends(0).says("[]");
    bench.run(&[&put[..], &["--confirm-hosts", "2"]].concat()).ends(0);
    let status = bench.until(&["status", "g", "--group", "all"], "one done", |done| {
        done.out.contains("1 done, 1 no report")
    });
    status.ends(1).says("db2   g").says("the agent has never reported");
    // A host that has not reported yet is not one without the order.
    bench.run(&["cancel", "g", "--host", "db2"]).ends(1).says("has no report of hosts/db2 yet");
    bench.run(&["cancel", "gg", "--host", "db2"]).ends(5).says("did you mean g?");
    bench.run(&["status", "g", "--host", "db1"]).ends(0);
    bench.run(&["status", "g", "--group", "hana"]).ends(0);
    bench.with_input(&["order", "put", "g", "-", "--host", "db2"], "skip: true").ends(0);
    bench.run(&["status", "g", "--host", "db2"]).ends(1).says("no report");
    bench.run(&["run", "good", "--host", "db2", "--wait", "0s"]).ends(19).says("has never reported");
}

#[test]
fn a_host_is_in_a_group_by_its_enrolment_and_not_by_its_own_word() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["enroll", "db3"]).ends(0);
    let reports = bench.path("store/hostler/reports/agents");
    fs::create_dir_all(&reports).unwrap();
    let report = r#"{"version": 1, "host": "db3", "id": "x", "machine": "m", "agent_version": "0.1.0", "boot": "b",
        "groups": ["hana", "all"], "conditions": [], "observed_index": {}, "controls": {}, "orders": {},
        "next_report_by": "2999-01-01T00:00:00Z"}"#;
    fs::write(reports.join("db3"), report).unwrap();
    let put = ["order", "put", "g", "--group", "hana", "--task", "good", "--spread", "0s"];
    let one = bench.run(&[&put[..], &["--confirm-hosts", "2"]].concat());
    one.ends(6).says("1 known host").says("not 2").says("not counted: db3 reports to be in group hana");
    bench.run(&[&put[..], &["--confirm-hosts", "1"]].concat()).ends(0);
    bench.until(&["status", "g", "--group", "hana"], "all done", |done| done.code == 0);
    let status =
        bench.run(&["status", "g", "--group", "hana"]).ends(0).says("hostler enroll db3 --group hana");
    assert!(!status.out.contains("db3"), "{}", status.out);
    // An enrolment without groups changes none; one with groups takes the host in.
    bench.run(&["enroll", "db1"]).ends(0);
    bench.run(&["enroll", "db3", "--group", "hana"]).ends(0);
    bench.run(&[&put[..], &["--confirm-hosts", "1"]].concat()).ends(6).says("2 known hosts");
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
        (&["logs", "x"], "", 5, "no run of order x is reported"),
        (&["logs", "X"], "", 2, "at least 6 characters"),
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
    put("hosts/db1/orders/o", "task: good\nreason: \"\\e[2J\"");
    put(
        "reports/orders/db1/o",
        r#"{"phase":"\u001b[2J\u009b","error":"a\nb\u202e","tail":"x\u001b]0;t\u0007"}"#,
    );
    put(
        "reports/agents/db1",
        r#"{"agent_version":"\u001b[2J","conditions":[{"type":"store","message":"a\u0000b"}]}"#,
    );
    put("reports/orders/db1/broken", "{");
    put("reports/runs/db1/01JD8000000000000000000000", r#"{"order":"o","tail":"\u001b[2J"}"#);
    put(
        "reports/facts/db1",
        r#"{"labels":{"\u001b[2J":"\u202e"},"facts":{"\u001bx":{"\u001b":"\u0000"}},"stale":["\u001bx"]}"#,
    );
    put(
        "reports/audit/db1",
        r#"{"entries":[{"n":1,"at":"2026-01-01T00:00:00Z","what":"\u001b[2J","order":"\u202e","why":"\u001bx"}]}"#,
    );
    for arguments in [
        &["status"][..],
        &["audit", "--host", "db1"],
        &["audit", "--host", "db1", "--json"],
        &["facts"],
        &["facts", "--json"],
        &["facts", "--where", "labels.x == '\u{1b}'"],
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
    let faults = bench.run(&["task", "lint", &folder, "--json"]).ends(1).fits("task_lint");
    assert!(!faults[0]["faults"].as_array().unwrap().is_empty(), "{faults}");
    bench.run(&["task", "list"]).ends(0).says("broken").says("ready");
    let list = bench.run(&["task", "list", "--json"]).ends(0).fits("task_list");
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
        let of = checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
        of.map(|check| check["level"].as_str().unwrap().to_owned()).collect()
    };
    let good = bench.run(&["check", "--json"]).ends(0).fits("check");
    assert_eq!(level(&good, "markers"), ["ok"; 3]);
    assert_eq!(level(&good, "rights"), ["ok"; 5]);
    for (name, expected) in
        [("state folder", "ok"), ("launcher", "warn"), ("dir store", "warn"), ("tasks", "ok")]
    {
        assert_eq!(level(&good, name), [expected], "{good}");
    }
    // The rights were tried without a trace.
    assert!(!bench.path("store/hostler/reports/runs/db1/_check").exists());

    fs::set_permissions(bench.path("state"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(bench.path("store/hostler/groups/hana/_hostler")).unwrap();
    fs::write(bench.path("tasks/bad/task.yml"), "name: bad").unwrap();
    let bad = bench.run(&["check"]).ends(1);
    let bad = bad
        .says("chmod 0711")
        .says("hostler/groups/hana/ has no marker")
        .says("hostler enroll db1 --group hana");
    bad.says("hostler task lint bad");
    let seen = bench.run(&["check", "--store-only"]).ends(0).says("may write to hosts");
    assert!(!seen.out.contains("it freezes nothing"), "{}", seen.out);
    // A freeze of a group that nobody is in keeps nothing from starting.
    for group in ["hanna", "hana"] {
        let folder = bench.path(&format!("store/hostler/groups/{group}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("freeze"), "reason: year end").unwrap();
    }
    let seen = bench.run(&["check", "--store-only"]).ends(0).says("did you mean hana?");
    assert_eq!(seen.out.matches("it freezes nothing").count(), 1, "{}", seen.out);
    fs::write(bench.path("hostler.yml"), "hots: db1").unwrap();
    bench
        .run(&["check"])
        .ends(1)
        .says("fail  configuration")
        .says("did you mean `host`")
        .says("skip  everything");
}

#[test]
fn a_word_where_an_option_is_wanted_is_answered_with_the_option() {
    let bench = Bench::new();
    let hint = "a host is named by --host db1, a group by --group db1";
    bench.run(&["run", "good", "db1"]).ends(2).says(hint);
    bench.run(&["cancel", "o", "db1"]).ends(2).says(hint);
    // Not where no host can be named, and not for what is no name.
    for line in [&["schema", "order", "db1"][..], &["run", "good", "Not a name"]] {
        let said = bench.run(line).ends(2);
        assert!(!said.err.contains("a host is named by"), "{}", said.err);
    }
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
    let json = bench.run(&["enroll", "db9", "--policy-only", "--json"]).ends(0).fits("enroll");
    assert_eq!(json["hosts"][0]["written"], Value::Array(vec![]));
    assert!(!bench.path("store/hostler/hosts/db9").exists());
    let many = bench.run(&["enroll", "db8", "db9", "db8", "--policy-only"]).ends(0);
    assert_eq!(many.out.matches("# Hostler's agent on db8").count(), 1, "{}", many.out);
    assert!(many.out.contains("key \"hostler/reports/agents/db9\""), "{}", many.out);
    bench.run(&["enroll", "db9", "--token-dir", "tokens"]).ends(2).says("has no tokens");
    assert!(!bench.path("store/hostler/hosts/db9").exists());
}

#[test]
fn a_host_gets_another_name_and_goes() {
    let bench = Bench::new();
    bench.run(&["order", "put", "o", "--host", "db1", "--task", "good"]).ends(0);
    bench.run(&["freeze", "--host", "db1"]).ends(0);
    let json = bench.run(&["host", "rename", "db1", "db7", "--json"]).ends(0).fits("host_rename");
    assert_eq!(json["host"]["groups"], serde_json::json!(["all", "hana"]));
    assert!(bench.path("store/hostler/hosts/db7/orders/o").exists());
    bench.run(&["host", "rename", "db3", "db8"]).ends(5).says("no host db3 is enrolled");
    bench.run(&["host", "rename", "db1", "db1"]).ends(6);
    // Nobody can be asked here.
    bench.run(&["host", "retire", "db1"]).ends(6).says("nothing was removed: say --yes");
    assert!(bench.path("store/hostler/hosts/db1/orders/o").exists());
    let json = bench.run(&["host", "retire", "db1", "--yes", "--json"]).ends(0).fits("host_retire");
    assert_eq!(
        json["removed"].as_array().and_then(|keys| keys.last()),
        Some(&"hostler/hosts/db1/_hostler".into())
    );
    assert!(!bench.path("store/hostler/hosts/db1/orders/o").exists());
    bench.run(&["host", "retire", "db1", "--yes"]).ends(5);
    assert!(bench.path("store/hostler/hosts/db7/orders/o").exists());
}

#[test]
fn own_tasks_become_packages() {
    let bench = Bench::new();
    let folder = |name: &str| bench.path("tasks").join(name).display().to_string();
    let out = bench.path("out").display().to_string();
    let hostler = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        Done::from(command.args(["task", "package"]).args(words).output().unwrap())
    };
    let (good, bad) = (folder("good"), folder("bad"));
    let made = hostler(&[&good, &bad, "--version", "1.4", "--name", "acme", "--out", &out, "--json"]).ends(0);
    let made = made.fits("task_package");
    assert_eq!(made["tasks"], serde_json::json!(["good", "bad"]));
    let deb = format!("{out}/acme_1.4_all.deb");
    let rpm = format!("{out}/acme-1.4-1.noarch.rpm");
    assert_eq!(made["packages"], serde_json::json!([deb, rpm]));
    let said = |program: &str, words: &[&str]| {
        Done::from(Command::new(program).args(words).output().unwrap()).ends(0).out
    };
    let fields = said("dpkg-deb", &["--field", &deb, "Package", "Version", "Architecture", "Depends"]);
    assert_eq!(fields, "Package: acme\nVersion: 1.4\nArchitecture: all\nDepends: hostler\n");
    let listed = said("rpm", &["-qp", "--qf", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}\n]", &rpm]);
    for line in [
        "/usr/share/hostler/tasks/good/go -rwxr-xr-x root",
        "/usr/share/hostler/tasks/bad/task.yml -rw-r--r-- root",
    ] {
        assert!(listed.contains(line), "{line}: {listed}");
    }
    assert!(said("rpm", &["-qp", "--scripts", &rpm]).contains("systemctl reload hostler.service"));
    // What was packed is what was there, and the same once more.
    let root = bench.path("unpacked").display().to_string();
    said("dpkg-deb", &["--extract", &deb, &root]);
    let unpacked = format!("{root}/usr/share/hostler/tasks/good");
    assert_eq!(fs::read(format!("{unpacked}/go")).unwrap(), fs::read(format!("{good}/go")).unwrap());
    let first = fs::read(&deb).unwrap();
    hostler(&[&good, &bad, "--version", "1.4", "--name", "acme", "--out", &out, "--format", "deb"])
        .ends(0)
        .says("acme_1.4_all.deb");
    assert!(fs::read(&deb).unwrap() == first, "another deb from the same folders");
    // Nothing with a fault is packed.
    fs::write(format!("{bad}/task.yml"), "name: bad\n").unwrap();
    hostler(&[&good, &bad, "--version", "1.5", "--out", &out]).ends(3);
    hostler(&[&good, &good, "--version", "1.5", "--out", &out]).ends(2).says("named twice");
    hostler(&[&folder("none"), "--version", "1.5"]).ends(5);
    hostler(&[&good, "--version", "1-5"]).ends(2).says("a version begins with a digit");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 2);
}

#[test]
fn a_new_task_works_and_its_test_too() {
    let bench = Bench::new();
    let dir = bench.path("tasks").display().to_string();
    let new = |name: &str, dir: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        Done::from(command.args(["task", "new", name, "--dir", dir]).output().unwrap())
    };
    new("motd", &dir).ends(0).says("motd/test");
    let test =
        Command::new(bench.path("tasks/motd/test")).env("HOSTLER", env!("CARGO_BIN_EXE_hostler")).output();
    Done::from(test.unwrap()).ends(0).says("all passed");
    bench.run(&["task", "list"]).ends(0).says("motd").says("Keeps one line in a file");
    new("motd", &dir).ends(6).says("nothing was written");
    new("other", "/nonexistent").ends(3).says("cannot be made");
    new("Motd", &dir).ends(2).says("is not a name");
}

#[test]
fn what_only_the_host_can_tell_fits_its_description_too() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["run", "good", "--host", "db1", "--json"]).ends(0).fits("run");
    let audit = bench.run(&["audit", "--json"]).ends(0).fits("audit");
    assert!(!audit["entries"].as_array().unwrap().is_empty());
    bench.run(&["audit", "--verify", "--json"]).ends(0).fits("audit_verify");
    assert_eq!(bench.run(&["adopt", "--json"]).ends(0).fits("adopt")["adopted"], false);
}

#[test]
fn a_task_can_be_tried_with_secrets_from_a_file() {
    let bench = Bench::new();
    bench.task(
        "secret",
        "printf 'it is %s\\n' \"$(cat \"$HOSTLER_SECRETS/password\")\"\nwc -c <\"$HOSTLER_SECRETS/password\"",
    );
    let yaml = "name: secret\nversion: 1\nsecrets: {password: {path: kv/data/x, field: y}}\nsteps: [{name: go, run: [./go]}]\n";
    fs::write(bench.path("tasks/secret/task.yml"), yaml).unwrap();
    let file = bench.path("secrets.yml").display().to_string();
    let tried = |text: &str| {
        fs::write(&file, text).unwrap();
        bench.run(&["task", "try", "secret", "--secrets", &file])
    };
    let done = tried("password: s3cret-value").ends(0).says("it is [redacted]").says("12\n");
    assert!(!done.out.contains("s3cret") && !done.err.contains("s3cret"), "{}{}", done.out, done.err);
    tried("password: short").ends(10).says("allow_short_secret");
    tried("other: s3cret-value").ends(10).says("secret password, which was not provided");
    tried("password: [1]").ends(3).says("secrets.yml:1:");
    bench.run(&["task", "try", "secret"]).ends(10).says("with --secrets");
    bench.run(&["task", "try", "secret", "--secrets", "/nonexistent"]).ends(5);
}

#[test]
fn an_order_for_a_group_is_watched_on_each_of_its_hosts() {
    let mut bench = Bench::new();
    bench.start();
    let run = ["run", "good", "--group", "hana", "--spread", "0s"];
    bench.run(&run).ends(6).says("--confirm-hosts 1");
    bench.run(&[&run[..], &["--confirm-hosts", "1"]].concat()).ends(0).says("succeeded");
    let done = bench.run(&[&run[..], &["--confirm-hosts", "1", "--json"]].concat()).ends(0);
    assert_eq!(done.fits("run_group")["status"]["all_done"], true);
    bench.run(&["enroll", "db2"]).ends(0);
    let all = ["run", "good", "--group", "all", "--spread", "0s", "--confirm-hosts", "2", "--wait", "3s"];
    bench.run(&all).ends(18).says("1 done, 1 no report").says("to end it: hostler cancel good --group all");
}

#[test]
fn quiet_says_what_is_wrong_and_nothing_else() {
    let mut bench = Bench::new();
    bench.start();
    let done = bench.run(&["-q", "run", "good", "--host", "db1"]).ends(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("  answer = 42\n", ""));
    let done = bench.run(&["order", "put", "o", "--host", "db1", "--task", "good", "--quiet"]).ends(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""));
    bench.until(&["status", "o"], "done", |done| done.code == 0);
    let done = bench.run(&["status", "o", "-q"]).ends(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""));
    bench.run(&["status", "nothing", "-q"]).ends(5).says("there is no order nothing");
    let checks = bench.run(&["check", "-q"]).ends(0);
    assert!(!checks.out.contains("ok  ") && checks.out.contains("warn  launcher"), "{}", checks.out);
}

#[test]
fn a_mistyped_word_leads_to_no_act_and_a_mistyped_parameter_to_its_name() {
    let bench = Bench::new();
    for word in ["delete", "relase", "retri", "undoo", "runn"] {
        let done = bench.run(&[word]).ends(2).says("unrecognized subcommand");
        for act in ["'release'", "'retry'", "'undo'", "'run'"] {
            assert!(!done.err.contains(act), "{word}: {}", done.err);
        }
    }
    bench.run(&["statsu"]).ends(2).says("'status'");
    let yaml = "name: good\nversion: 1\nparams: {type: object, properties: {cluster: {type: string}}}\nsteps:\n  - {name: go, run: [./go]}\n";
    fs::write(bench.path("tasks/good/task.yml"), yaml).unwrap();
    bench.run(&["task", "try", "good", "--param", "clustr=main"]).ends(15).says("did you mean cluster?");
}

#[test]
fn a_step_that_fails_as_asked_shows_what_is_taken_back() {
    let bench = Bench::new();
    let folder = bench.path("tasks/good");
    let yaml = "name: good\nversion: 1\nsteps:\n  - {name: one, run: [./do, a], effect: undoable, undo: [./undo, a]}\n  \
                - {name: two, run: [./do, \"b c\"], effect: undoable, undo: [./undo, \"b c\"]}\n";
    fs::write(folder.join("task.yml"), yaml).unwrap();
    let log = bench.path("log").display().to_string();
    for (name, word) in [("do", "did"), ("undo", "undid")] {
        fs::write(folder.join(name), format!("#!/bin/sh\necho \"{word} $1\" >>{log}\n")).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bench.run(&["task", "try", "good", "--fail-at", "two"]).ends(11).says("the step fails as asked");
    assert_eq!(fs::read_to_string(&log).unwrap(), "did a\ndid b c\nundid b c\nundid a\n");
    bench.run(&["task", "try", "good", "--fail-at", "three"]).ends(5).says("it has one, two");
    bench.run(&["task", "try", "good", "--fail-at", "two", "--dry-run"]).ends(2);
    // The plan is shown, and nothing is done.
    let before = fs::read_to_string(&log).unwrap();
    let plan = bench.run(&["task", "try", "good", "--dry-run"]).ends(0);
    assert!(plan.out.contains("  1/2 one (undoable): ./do a; undo: ./undo a\n"), "{}", plan.out);
    assert!(plan.out.contains("  2/2 two (undoable): ./do 'b c'; undo: ./undo 'b c'\n"), "{}", plan.out);
    assert_eq!(fs::read_to_string(&log).unwrap(), before);
}

#[test]
fn an_order_goes_back_to_what_a_run_of_the_host_carried_out() {
    let mut bench = Bench::new();
    let of_runs = |bench: &Bench, more: &[&str]| {
        bench.run(&[&["order", "revert", "x", "--host", "db1", "--of-runs"], more].concat())
    };
    bench.run(&["order", "put", "x", "--host", "db1", "--task", "good"]).ends(0);
    of_runs(&bench, &["--list"]).ends(0).says("no former document");
    bench.start();
    for reason in ["CHG1", "CHG2"] {
        let run = ["run", "good", "--host", "db1", "--order", "x", "--reason", reason, "--replace"];
        bench.run(&run).ends(0);
    }
    let listed = of_runs(&bench, &["--list", "--json"]).fits("order_former");
    let former = listed["former"].as_array().unwrap();
    let said = |at: usize| format!("{} {}", former[at]["did"], former[at]["text"]);
    assert!(former.len() >= 2, "{listed}");
    assert!(
        said(0).contains("carried_out") && said(0).contains("CHG2") && said(1).contains("CHG1"),
        "{listed}"
    );
    let back = of_runs(&bench, &["--to", "2", "--check"]).ends(0);
    assert!(back.out.contains("revision"), "{}", back.out);
}

#[test]
fn a_step_that_is_interrupted_as_asked_shows_what_another_executor_makes_of_it() {
    let bench = Bench::new();
    let folder = bench.path("tasks/good");
    let log = bench.path("log").display().to_string();
    fs::write(folder.join("do"), format!("#!/bin/sh\necho \"did $1\" >>{log}\n")).unwrap();
    fs::write(folder.join("undo"), format!("#!/bin/sh\necho \"undid $1\" >>{log}\n")).unwrap();
    for name in ["do", "undo"] {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tried = |terms: &str, step: &str| {
        let _ = fs::remove_file(&log);
        let last = "{name: last, run: [./do, last]}";
        let yaml = format!(
            "name: good\nversion: 1\nsteps:\n  - {{name: mid, run: [./do, mid], {terms}}}\n  - {last}\n"
        );
        fs::write(folder.join("task.yml"), yaml).unwrap();
        let done = bench.run(&["task", "try", "good", "--interrupt", step]);
        (done.code, fs::read_to_string(&log).unwrap(), done.err)
    };
    // What may be repeated is repeated; what is found done is not; what nobody can tell is left to an operator.
    let (code, did, err) = tried("effect: repeatable", "mid");
    assert_eq!((code, did.as_str()), (0, "did mid\ndid mid\ndid last\n"), "{err}");
    assert!(err.contains("another executor goes on"), "{err}");
    let (code, did, err) = tried("effect: once, check: [\"true\"]", "mid");
    assert_eq!((code, did.as_str()), (0, "did mid\ndid last\n"), "{err}");
    let (code, did, err) = tried("effect: undoable, undo: [./undo, mid]", "mid");
    assert_eq!((code, did.as_str()), (11, "did mid\nundid mid\n"), "{err}");
    let (code, did, _) = tried("effect: once", "mid");
    assert_eq!((code, did.as_str()), (13, "did mid\n"));
    bench.run(&["task", "try", "good", "--interrupt", "none"]).ends(5).says("it has mid, last");
}

#[test]
fn a_shell_completes_the_names_of_the_store() {
    let bench = Bench::new();
    bench.run(&["order", "put", "nightly", "--host", "db1", "--task", "good"]).ends(0);
    let config = bench.path("hostler.yml").display().to_string();
    // What bash does when the key is pressed at the end of the line.
    let complete = |line: &str| {
        let script = r#"
            source <(COMPLETE=bash hostler)
            read -ra COMP_WORDS <<<"$LINE"
            [[ $LINE != *' ' ]] || COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9
            handler=$(complete -p hostler | sed -n 's/.*-F \([^ ]*\) .*/\1/p')
            "$handler" hostler "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_hostler")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let line = line.replace("CONFIG", &format!("--config {config}"));
        let output = Command::new("bash").args(["-c", script]).env("PATH", path).env("LINE", line).output();
        let done = Done::from(output.unwrap()).ends(0);
        done.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("hostler stat"), ["status"]);
    assert_eq!(complete("hostler status CONFIG --host "), ["db1"]);
    assert_eq!(complete("hostler runs --wat"), ["--watch"]);
    assert_eq!(complete("hostler order list --wat"), ["--watch"]);
    assert_eq!(complete("hostler freeze CONFIG h"), ["hana"]);
    assert_eq!(complete("hostler status CONFIG n"), ["nightly"]);
    assert_eq!(complete("hostler run CONFIG lo"), ["loud"]);
    assert_eq!(complete("hostler run good CONFIG --param "), ["n="]);
    assert_eq!(
        complete("hostler status --store-dir /nonexistent --host "),
        [""],
        "no store, no names, no noise"
    );
}
