//! What a monitoring system sees of the real agent: its measurements, whether it lives, and whether it takes orders.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use hostler_testkit::{
    Consul, DEFAULT_TIMEOUT, Host, Response, eventually, free_ports, promtool, request, signal,
};
use nix::sys::signal::Signal;

/// Asks a page, which must be there.
fn ask(port: u16, page: &str) -> Response {
    eventually(DEFAULT_TIMEOUT, || request(port, "GET", page, None, b"").map_err(|error| error.to_string()))
}

/// The value of one sample, as it is written.
fn sample(port: u16, name: &str) -> Option<f64> {
    let page = ask(port, "/metrics").text();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a sample has a value.
fn wait_for(port: u16, name: &str, wanted: f64) {
    eventually(DEFAULT_TIMEOUT, || match sample(port, name) {
        Some(value) if value == wanted => Ok(()),
        other => Err(format!("{name} is {other:?}, not {wanted}")),
    });
}

fn host(consul: &Consul) -> (Host, u16) {
    let host = Host::on_consul("measured", consul);
    let [port] = free_ports();
    host.counting_task("count", "once:x", "0");
    host.task("fail", "name: fail\nversion: 2\nsteps: [{name: a, run: [\"false\"]}]\n", &[]);
    listen(&host, port);
    (host, port)
}

fn listen(host: &Host, port: u16) {
    host.configure(&format!("telemetry: {{listen: \"127.0.0.1:{port}\"}}"));
}

fn condition(host: &Host, text: &str) {
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["conditions"].to_string().contains(text) => Ok(()),
        report => Err(format!("no {text:?} in {report:?}; {}", host.log_tail())),
    });
}

fn no_conditions(host: &Host) {
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["conditions"].as_array().is_some_and(Vec::is_empty) => Ok(()),
        report => Err(format!("conditions in {report:?}; {}", host.log_tail())),
    });
}

#[test]
fn measurements_follow_what_happens_and_satisfy_promtool() {
    let consul = Consul::dev();
    let (mut host, port) = host(&consul);
    host.start();
    wait_for(port, "hostler_ready", 1.0);
    // Shown before the first run: the increase to 1 is seen.
    wait_for(port, "hostler_runs_total{task=\"fail\",outcome=\"failed\"}", 0.0);
    host.order("good", "task: count");
    host.order("bad", "task: fail");
    host.order("later", "task: count\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("good", &["succeeded"]);
    host.wait_for("bad", &["failed"]);
    host.wait_for("later", &["waiting"]);
    wait_for(port, "hostler_runs_total{task=\"count\",outcome=\"succeeded\"}", 1.0);
    wait_for(port, "hostler_runs_total{task=\"fail\",outcome=\"failed\"}", 1.0);
    wait_for(port, "hostler_run_duration_seconds_count{task=\"count\"}", 1.0);
    wait_for(port, "hostler_orders{phase=\"failed\"}", 1.0);
    wait_for(port, "hostler_orders{phase=\"succeeded\"}", 1.0);
    wait_for(port, "hostler_orders_waiting{reason=\"schedule\"}", 1.0);
    wait_for(port, "hostler_orders_held{reason=\"repeated\"}", 0.0);
    wait_for(port, "hostler_tasks{state=\"ok\"}", 2.0);
    wait_for(port, "hostler_runs_executing", 0.0);
    let now = jiff::Timestamp::now().as_second() as f64;
    for name in [
        "process_start_time_seconds",
        "hostler_store_last_contact_timestamp_seconds",
        "hostler_reports_written_timestamp_seconds",
    ] {
        let at = sample(port, name).expect(name);
        assert!((now - 300.0..=now + 60.0).contains(&at), "{name}: {at}, now {now}");
    }
    assert!(sample(port, "hostler_ledger_size_bytes").expect("the ledger") > 100.0);
    assert!(sample(port, "hostler_ledger_records").expect("the ledger") > 3.0);
    assert!(sample(port, "hostler_state_free_bytes").expect("the disk") > 1e6);
    assert!(sample(port, "process_resident_memory_bytes").expect("the memory") > 1e6);

    let page = ask(port, "/metrics");
    assert_eq!(page.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let said = promtool(Path::new("/"), &["check", "metrics"], &page.text());
    assert_eq!(said, Ok(String::new()));

    // The counters are of this agent, the orders are not.
    host.stop();
    host.start();
    wait_for(port, "hostler_orders{phase=\"failed\"}", 1.0);
    wait_for(port, "hostler_runs_total{task=\"fail\",outcome=\"failed\"}", 0.0);
}

#[test]
fn health_and_readiness_are_two_things_and_say_why() {
    let mut consul = Consul::disk();
    let (mut host, port) = host(&consul);
    host.start();
    let ready = |status: u16, why: &str| {
        eventually(DEFAULT_TIMEOUT, || {
            let answer = ask(port, "/ready");
            let good = answer.status == status && answer.text().contains(why);
            if good { Ok(()) } else { Err(format!("{} {}", answer.head, answer.text())) }
        });
        let health = ask(port, "/health");
        assert_eq!((health.status, health.text().contains("the agent is alive")), (200, true));
    };
    ready(200, "watching Consul for orders of measured");
    consul.kill();
    ready(503, "Consul cannot be reached");
    wait_for(port, "hostler_ready", 0.0);
    consul.start();
    ready(200, "watching Consul");
    // An agent that hangs answers nobody; the monitoring system finds that out by itself, or is told.
    let pid = host.agent_pid().expect("an agent");
    signal(pid, Signal::SIGSTOP);
    assert!(request(port, "GET", "/health", None, b"").is_err());
    signal(pid, Signal::SIGCONT);
    ready(200, "watching Consul");

    host.stop();
    let ledger = host.path("state/ledger");
    let mut contents = fs::read(&ledger).expect("the ledger");
    contents[12] ^= 1;
    fs::write(&ledger, contents).expect("the ledger");
    host.start();
    ready(503, "safe mode");
    wait_for(port, "hostler_conditions{kind=\"safe_mode\"}", 1.0);
    assert_eq!(sample(port, "hostler_ledger_records"), None);
}

#[test]
fn a_taken_port_keeps_nothing_from_working() {
    let consul = Consul::dev();
    let (mut host, _) = host(&consul);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    listen(&host, port);
    host.start();
    condition(&host, "metrics are unavailable");
    host.order("good", "task: count");
    host.wait_for("good", &["succeeded"]);
    // It is had as soon as it is free, within half a minute.
    drop(taken);
    wait_for(port, "hostler_conditions{kind=\"telemetry\"}", 0.0);
    no_conditions(&host);
    // Another port is taken at a reload, and so is none.
    let [free] = free_ports();
    listen(&host, free);
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    wait_for(free, "hostler_ready", 1.0);
    host.configure("telemetry: {listen: null}");
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    eventually(DEFAULT_TIMEOUT, || match request(free, "GET", "/health", None, b"") {
        Err(_) => Ok(()),
        Ok(answer) => Err(answer.head),
    });
}

#[test]
fn who_asks_too_much_or_too_slowly_keeps_nobody_else_from_asking() {
    let consul = Consul::dev();
    let (mut host, port) = host(&consul);
    host.start();
    wait_for(port, "hostler_ready", 1.0);
    let long = format!("/metrics?{}", "x".repeat(5000));
    let answer = request(port, "GET", &long, None, b"").expect("an answer");
    assert_eq!(answer.status, 431, "{}", answer.head);
    assert_eq!(ask(port, "/").status, 404);
    assert_eq!(request(port, "POST", "/metrics", None, b"").expect("an answer").status, 405);
    let head = request(port, "HEAD", "/ready", None, b"").expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    // More than are answered at once, and none of them says a whole sentence.
    let slow: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").expect("half a request");
            stream
        })
        .collect();
    assert_eq!(ask(port, "/health").status, 200);
    // The agent has gone on meanwhile.
    host.order("good", "task: count");
    host.wait_for("good", &["succeeded"]);
    drop(slow);
    let pid = host.agent_pid().expect("an agent");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent lives").count();
    assert!(descriptors < 40, "{descriptors} descriptors");
}

#[test]
fn orders_that_were_deleted_count_no_more_and_what_went_wrong_is_a_warning() {
    let consul = Consul::dev();
    let (mut host, port) = host(&consul);
    // On a pipe, as without the journal: the level is a word in the line.
    host.set_env("HOSTLER_LOG", "warn");
    host.start();
    wait_for(port, "hostler_ready", 1.0);
    host.order("broken", "task: fail");
    host.order("unknown", "task: nonesuch");
    host.order("nightly", "task: nonesuch\nschedule: '@daily'");
    host.order("later", "task: count\nschedule: '0 0 1 1 *'");
    host.order("unread", "tsk: count");
    for (order, phase) in [
        ("broken", "failed"),
        ("unknown", "refused"),
        ("nightly", "refused"),
        ("later", "waiting schedule"),
        ("unread", "refused"),
    ] {
        let report = host.wait_for(order, &[phase]);
        assert_eq!(report["identity"].is_string(), order != "unread", "{report}");
    }
    wait_for(port, "hostler_orders{phase=\"failed\"}", 1.0);
    wait_for(port, "hostler_orders{phase=\"refused\"}", 3.0);
    wait_for(port, "hostler_orders_waiting{reason=\"schedule\"}", 1.0);
    let log = fs::read_to_string(host.path("log")).expect("the log");
    for words in ["failed: ", "hosts/measured/unknown", "hosts/measured/unread"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    for order in ["broken", "unknown", "nightly", "later", "unread"] {
        host.delete(&format!("hostler/hosts/measured/orders/{order}"));
    }
    let gone = |host: &Host| {
        for phase in ["failed", "refused", "withdrawn"] {
            eventually(DEFAULT_TIMEOUT, || {
                match sample(port, &format!("hostler_orders{{phase=\"{phase}\"}}")) {
                    None => Ok(()),
                    Some(value) => Err(format!("{value} {phase}")),
                }
            });
        }
        wait_for(port, "hostler_orders_waiting{reason=\"schedule\"}", 0.0);
        for (order, phase) in [
            ("broken", "failed"),
            ("unknown", "refused"),
            ("nightly", "refused"),
            ("later", "withdrawn"),
            ("unread", "withdrawn"),
        ] {
            host.wait_for(order, &[phase]);
        }
    };
    gone(&host);
    host.stop();
    host.start();
    wait_for(port, "hostler_ready", 1.0);
    gone(&host);
}
