//! Every exit status that docs/exit-codes.md promises is reached, by the commands that an operator would meet it with.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Done};

/// The documented numbers.
fn documented() -> BTreeSet<i32> {
    let page = include_str!("../../../docs/exit-codes.md");
    let number = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse().ok();
    page.lines().filter_map(number).collect()
}

#[test]
fn every_documented_exit_status_is_reached() {
    let mut bench = Bench::new();
    bench.step_task("undoable", "effect: undoable, undo: [./back]", "exit 3", "exit 0");
    bench.step_task("stuck", "effect: undoable, undo: [./back]", "exit 3", "exit 4");
    bench.step_task("final", "effect: final", "exit 3", "exit 0");
    bench.start();
    let mut reached = BTreeSet::new();
    let mut ends = |code: i32, done: Done| {
        reached.insert(code);
        done.ends(code)
    };
    ends(0, bench.run(&["run", "good", "--host", "db1"]));
    ends(2, bench.run(&["run", "good"]));
    ends(3, bench.with_input(&["order", "put", "o", "-", "--host", "db1"], "tsk: good"));
    ends(5, bench.run(&["status", "nothing"]));
    ends(6, bench.run(&["run", "good", "--group", "hana"]));
    ends(10, bench.run(&["run", "bad", "--host", "db1"]));
    ends(1, bench.run(&["status", "bad", "--host", "db1"]));
    ends(11, bench.run(&["run", "undoable", "--host", "db1"]));
    ends(12, bench.run(&["run", "stuck", "--host", "db1"]));
    ends(13, bench.run(&["run", "final", "--host", "db1"]));
    ends(15, bench.run(&["run", "good", "--host", "db1", "--order", "refused", "--param", "m=1"]));
    let late = ["run", "good", "--host", "db1", "--order", "late", "--not-before", "2999-01-01T00:00:00Z"];
    let mut waiting = bench.command(&late);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bench.until(&["status", "late"], "waiting", |done| done.out.contains("waiting"));
    bench.run(&["order", "delete", "late", "--host", "db1"]).ends(0);
    ends(17, waiting.wait_with_output().unwrap().into());
    ends(18, bench.run(&["run", "slow", "--host", "db1", "--wait", "1s"]));

    // Cancelled by somebody else, while one waits for it.
    let mut waiting = bench.command(&["run", "slow", "--host", "db1", "--order", "cancelled"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bench.until(&["status", "cancelled"], "running", |done| done.out.contains("running"));
    bench.run(&["cancel", "cancelled", "--host", "db1", "--reason", "test"]).ends(0);
    ends(14, waiting.wait_with_output().unwrap().into());

    let mut waiting = bench.command(&["run", "slow", "--host", "db1", "--order", "left"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bench.until(&["status", "left"], "running", |done| done.out.contains("running"));
    kill(Pid::from_raw(waiting.id().cast_signed()), Signal::SIGINT).unwrap();
    ends(130, waiting.wait_with_output().unwrap().into());
    fs::write(bench.path("flag"), "").unwrap();
    bench.until(&["status", "left"], "done", |done| done.code == 0);

    // A host that has lost its memory does not carry out what was there before it woke.
    bench.stop();
    fs::remove_dir_all(bench.path("state")).unwrap();
    let mut waiting = bench.command(&["run", "good", "--host", "db1", "--order", "early"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bench.until(&["order", "list"], "the order", |done| done.out.contains("early"));
    bench.start();
    ends(16, waiting.wait_with_output().unwrap().into()).says("preexisting");

    bench.run(&["enroll", "db2"]).ends(0);
    ends(19, bench.run(&["run", "good", "--host", "db2", "--wait", "0s"]));
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut nobody = Command::new(env!("CARGO_BIN_EXE_hostler"));
    let nobody = nobody.arg("status").env("CONSUL_HTTP_ADDR", format!("http://127.0.0.1:{port}")).output();
    ends(4, nobody.unwrap().into());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = bench.command(&["status"]).stdout(writer).stderr(Stdio::piped()).output();
    ends(141, gone.unwrap().into());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut dev = Command::new(env!("CARGO_BIN_EXE_hostler"));
    dev.args(["dev", "--once", "--dir"]).arg(bench.path("dev")).stdout(writer).stderr(Stdio::piped());
    ends(141, dev.output().unwrap().into());

    assert_eq!(reached, documented());
}

#[test]
fn the_environment_names_the_configuration_where_no_option_does() {
    let bench = Bench::new();
    let run = |file: &str| -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.args(["task", "list"]).env("HOSTLER_CONFIG", bench.path(file)).stdin(Stdio::null());
        command.output().unwrap().into()
    };
    bench.step_task("one", "effect: repeatable", "exit 0", "exit 0");
    run("hostler.yml").ends(0).says("one");
    run("missing.yml").ends(3).says("there is no file");
}
