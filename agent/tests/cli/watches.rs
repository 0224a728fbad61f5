//! `--watch` as an operator leaves it running: what it shows, what it does not, and how it ends.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hostler_testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, Done, SOON};

/// Watches, and waits for what it shows to become so.
struct Watching {
    child: Child,
    shown: PathBuf,
}

impl Watching {
    fn start(bench: &Bench, name: &str, arguments: &[&str]) -> Self {
        let shown = bench.path(name);
        let out = fs::File::create(&shown).unwrap();
        let child = bench.command(arguments).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, shown }
    }

    fn shown(&self) -> String {
        fs::read_to_string(&self.shown).unwrap()
    }

    #[track_caller]
    fn until(&self, text: &str) {
        let has = || if self.shown().contains(text) { Ok(()) } else { Err(self.shown()) };
        eventually(SOON, has);
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
    }

    fn end(self) -> Done {
        let out = self.shown.clone();
        let done = Done::from(self.child.wait_with_output().unwrap());
        Done { out: fs::read_to_string(out).unwrap(), ..done }
    }
}

#[test]
fn lists_are_watched_until_ctrl_c() {
    let mut bench = Bench::new();
    bench.start();
    let orders = Watching::start(&bench, "orders", &["order", "list", "--watch"]);
    let runs = Watching::start(&bench, "runs", &["runs", "-w"]);
    orders.until("there are no orders");
    runs.until("there are no runs");
    bench.run(&["order", "put", "o", "--host", "db1", "--task", "slow"]).ends(0);
    orders.until("hosts/db1  o");
    runs.until("running");
    bench.until(&["status", "o"], "running", |done| done.out.contains("step         1/1 go"));
    // What only the clock changes is no news where nobody looks: two looks, one view.
    let still = [&["runs"][..], &["status", "--host", "db1"]];
    let still = still.map(|view| Watching::start(&bench, view[0], &[view, &["-w", "--wait", "3s"]].concat()));
    for (watching, head) in still.into_iter().zip(["RUN ", "HOST "]) {
        let done = watching.end();
        assert_eq!(done.out.matches(head).count(), 1, "{}", done.out);
    }
    fs::write(bench.path("flag"), "").unwrap();
    runs.until("succeeded");
    for watching in [orders, runs] {
        watching.interrupt();
        let done = watching.end().ends(130);
        assert!(done.err.is_empty(), "{}", done.err);
    }
}

#[test]
fn output_is_seen_from_afar_while_a_run_executes_and_after_it() {
    let mut bench = Bench::new();
    bench.start();
    // Somebody who has the store and no folder of runs.
    let config = fs::read_to_string(bench.path("hostler.yml")).unwrap();
    let here = bench.path("state").display().to_string();
    let afar = bench.path("afar.yml");
    fs::write(&afar, config.replace(&here, &bench.path("nothing").display().to_string())).unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        Done::from(command.args(arguments).arg("--config").arg(&afar).output().unwrap())
    };
    bench.run(&["order", "put", "o", "--host", "db1", "--task", "slow", "--reason", "CHG8"]).ends(0);
    let logs = ["logs", "o", "--host", "db1"];
    eventually(SOON, || {
        let done = ask(&logs);
        if done.out.contains("begin") { Ok(()) } else { Err(format!("{}{}", done.out, done.err)) }
    });
    let followed = bench.path("followed");
    let mut follow = Command::new(env!("CARGO_BIN_EXE_hostler"));
    follow.args(logs).arg("-f").arg("--config").arg(&afar).stdout(fs::File::create(&followed).unwrap());
    let mut follow = follow.stderr(Stdio::null()).spawn().unwrap();
    let begun = || fs::read_to_string(&followed).unwrap();
    eventually(SOON, || if begun().contains("begin") { Ok(()) } else { Err(begun()) });
    fs::write(bench.path("flag"), "").unwrap();
    assert!(follow.wait().unwrap().success());
    assert!(begun().contains("end") && begun().matches("begin").count() == 1, "{}", begun());
    ask(&logs).ends(0).says("end");
    // The run by the short form of its id, with what only its order says.
    let run = ask(&["runs", "--json"]).json()["runs"][0]["run"].as_str().unwrap().to_owned();
    ask(&["runs", "show", &run[20..]]).ends(0).says("CHG8").says("exit 0").says("end");
    bench.run(&["runs", "show", &run[..10]]).ends(0).says("go  ").says("CHG8");
}

#[test]
fn a_watch_outlives_a_store_that_is_away_and_does_not_end_well_without_having_seen_it() {
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for view in [&["order", "list"][..], &["runs", "--host", "elsewhere"], &["status"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.args(view).args(["--watch", "--wait", "0s"]);
        command.env("CONSUL_HTTP_ADDR", format!("http://127.0.0.1:{port}"));
        let done = Done::from(command.output().unwrap()).ends(4);
        assert!(done.out.starts_with("(no view: "), "{}", done.out);
    }
}

#[test]
fn a_watch_ends_when_the_order_is_over() {
    let mut bench = Bench::new();
    bench.start();
    bench.run(&["order", "put", "slow", "--host", "db1", "--task", "slow"]).ends(0);
    bench.until(&["status", "slow"], "running", |done| done.out.contains("running"));
    bench.run(&["status", "slow", "--watch", "--wait", "0s"]).ends(18).says("step 1/1 go");
    let mut watch = bench.command(&["status", "slow", "--watch"]);
    let watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::write(bench.path("flag"), "").unwrap();
    Done::from(watch.wait_with_output().unwrap()).ends(0).says("succeeded");
    bench.run(&["status", "--watch", "--json"]).ends(2);
}
