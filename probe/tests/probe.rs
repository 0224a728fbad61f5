//! The built program beside a service that is taken away: what it measures, its status, its signals, its bounds.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn probe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler-probe"));
    command.args(arguments).env_remove("HOSTLER_REPORT").env_remove("HOSTLER_TASK").stdin(Stdio::null());
    command
}

#[track_caller]
fn line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {output:?}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[track_caller]
fn until(wanted: &str, mut good: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !good() {
        assert!(Instant::now() < end, "{wanted}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A service at a port that can be taken away.
struct Service {
    port: u16,
    answer: &'static str,
    served: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Service {
    fn new(answer: &'static str) -> Self {
        // Kept until it serves: another test of this process would be given the same port.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::new(AtomicU64::new(0));
        let mut service = Self { port, answer, served, ends: Arc::default(), thread: None };
        service.serve(listener);
        service
    }

    /// The instant from which on it is there.
    fn up(&mut self) -> Instant {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        let up = Instant::now();
        self.serve(listener);
        up
    }

    fn serve(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let (served, ends) = (Arc::clone(&self.served), Arc::new(AtomicBool::new(false)));
        self.ends = Arc::clone(&ends);
        let answer = self.answer;
        self.thread = Some(thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        served.fetch_add(1, Ordering::Relaxed);
                        if !answer.is_empty() {
                            let _ = stream.set_nonblocking(false);
                            let _ = stream.read(&mut [0; 1024]);
                            let _ = stream.write_all(answer.as_bytes());
                        }
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        }));
    }

    /// The instant from which on it is gone.
    fn down(&mut self) -> Instant {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        Instant::now()
    }

    /// Waits until it was asked some more times.
    #[track_caller]
    fn is_asked(&self) {
        let before = self.served.load(Ordering::Relaxed);
        until("the checks go on", || self.served.load(Ordering::Relaxed) > before + 3);
    }
}

/// A command that ends with the status when the file is there.
fn waits_for(flag: &Path, status: u8) -> String {
    format!("while [ ! -e {} ]; do sleep 0.01; done; exit {status}", flag.display())
}

/// Where what a check says counts, and not how long it takes, which may be long on a busy machine.
const UNHURRIED: [&str; 4] = ["--every", "10s", "--timeout", "10s"];

fn unhurried(words: &[&str]) -> Command {
    probe(&[&UNHURRIED[..], words].concat())
}

fn output(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// The milliseconds that the message says the sum is measured to within.
fn within(line: &Value) -> u64 {
    let message = line["message"].as_str().unwrap();
    let number = message.split("to within ").nth(1).unwrap_or_else(|| panic!("{message}")).split(' ').next();
    number.unwrap().parse().unwrap()
}

/// The service is taken away for known times, by instants that this test takes itself. What the program says of its own
/// precision must be true each time; and on a machine that lets it look every 20 ms, which a busy one does not always, that is
/// 30 ms.
#[test]
fn a_service_that_is_taken_away_is_measured_to_within_thirty_milliseconds() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for (attempt, away) in [310, 170, 640, 230, 420].into_iter().cycle().take(40).enumerate() {
        let mut service = Service::new("");
        let flag = dir.path().join(format!("flag{attempt}"));
        let (command, address) = (waits_for(&flag, 7), format!("127.0.0.1:{}", service.port));
        let words = [
            "--service",
            "web",
            "--every",
            "20ms",
            "--for-command",
            "sh",
            "-c",
            &command,
            "--",
            "--tcp",
            &address,
        ];
        let child = probe(&words).stdout(Stdio::piped()).spawn().unwrap();
        service.is_asked();
        let down = service.down();
        // This is what is measured.
        thread::sleep(Duration::from_millis(away));
        let up = service.up();
        service.is_asked();
        fs::write(&flag, "").unwrap();
        let output = output(child);
        service.down();
        assert_eq!(output.status.code(), Some(7), "the command's own status");
        let line = line(&output);
        let measured = (line["downtime"]["seconds"].as_f64().unwrap() * 1000.0).round() as u64;
        let truth = u64::try_from(up.duration_since(down).as_millis()).unwrap();
        let (error, within) = (measured.abs_diff(truth), within(&line));
        // A millisecond for the rounding of each amount, two for what passes between an act and its instant here.
        assert!(error <= within + 4, "{measured} ms of {truth} ms: {line}");
        assert!(
            line["downtime"]["failed"].as_u64().unwrap() > 0 && line["downtime"]["service"] == "web",
            "{line}"
        );
        let instant =
            |name: &str| line["downtime"][name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(instant("from") < instant("to"), "{line}");
        if within <= 30 && error <= 30 {
            return;
        }
        said.push(line.to_string());
    }
    panic!("never to within 30 ms: {said:#?}");
}

#[test]
fn nothing_was_interrupted_and_the_report_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    fs::write(&report, "{\"progress\": 1}\n").unwrap();
    let mut command = unhurried(&["--for-command", "true", "--", "true"]);
    let done = command.env("HOSTLER_REPORT", &report).env("HOSTLER_TASK", "restart-web@3").output().unwrap();
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    let text = fs::read_to_string(&report).unwrap();
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["downtime"], serde_json::json!({"service": "restart-web", "seconds": 0.0}), "{line}");
    // A file that cannot be written is said, and the command's status stays.
    let mut command = probe(&["--for-command", "sh", "-c", "exit 5", "--", "true"]);
    let done = command.env("HOSTLER_REPORT", dir.path().join("no/such/file")).output().unwrap();
    assert_eq!(done.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&done.stderr).contains("is not reported"), "{done:?}");
}

#[test]
fn the_status_is_the_commands_and_signals_are_handed_on() {
    let status = |words: &[&str]| probe(words).output().unwrap().status.code();
    assert_eq!(status(&["--for-command", "/no/such/program", "--", "true"]), Some(127));
    assert_eq!(status(&["--for-command", "sh", "-c", "kill -9 $$", "--", "true"]), Some(137));
    assert_eq!(status(&["--for-command", "true"]), Some(2));
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let command = format!("trap 'exit 9' TERM; : >{}; while :; do sleep 0.02; done", ready.display());
    let child = unhurried(&["--for-command", "sh", "-c", &command, "--", "true"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the command runs", || ready.exists());
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let output = output(child);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(line(&output)["downtime"]["seconds"], 0.0, "what was measured is reported all the same");
}

#[test]
fn a_check_that_hangs_fails_at_its_time_out_and_nothing_of_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let check = format!("echo $$ >>{}; sleep 600 & wait", pids.display());
    let words = ["--timeout", "100ms", "--for-command", "sleep", "0.5", "--", "sh", "-c", &check];
    let done = probe(&words).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let line = line(&done);
    assert!(line["downtime"]["seconds"].as_f64().unwrap() >= 0.4, "{line}");
    let groups: Vec<i32> =
        fs::read_to_string(&pids).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(!groups.is_empty());
    for group in groups {
        let gone = || kill(Pid::from_raw(-group), None).is_err();
        until("the process group of the check is gone", gone);
    }
}

#[test]
fn an_answer_over_http_is_a_success_by_its_status() {
    for (answer, good) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.0 302 Found\r\n\r\n", true),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
        ("nonsense\r\n", false),
    ] {
        let mut service = Service::new(answer);
        let url = format!("http://127.0.0.1:{}/health?x=1", service.port);
        let done = unhurried(&["--for-command", "sleep", "0.3", "--", "--http", &url]).output().unwrap();
        service.down();
        let seconds = line(&done)["downtime"]["seconds"].as_f64().unwrap();
        assert_eq!(seconds == 0.0, good, "{answer}: {done:?}");
    }
}
