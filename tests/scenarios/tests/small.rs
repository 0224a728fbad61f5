//! The agent stays small and quiet whatever happens around it (promise P9); the program is the one that ships.
//!
//! What it asks of Consul is counted by a proxy in between, also while there is none. A day passes in well under a minute
//! ([`TimeWarp`]): all timers of a day really fire.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, Proxy, TimeWarp, eventually};

/// The bound of the promise, in KiB.
const MOST: u64 = 12 << 10;

/// What of it may be the agent's own at any moment, with a thousand orders, in KiB. The rest are mapped pages of the
/// program, which the kernel drops when it needs them; a hurried agent has no time at rest, in which it gives them back.
const MAX_OWN: u64 = 5 << 10;

/// The task. In a hurry its milliseconds are minutes, so it has time.
const COUNT: &str = "name: count\nversion: 1\noffline: true\ntimeout: 12h\n\
                     steps:\n  - {name: x, run: [./add], effect: repeatable}\n";

/// The agent watches four places: the orders of the host and of its group, the controls, the freezes.
const WATCHES: u64 = 4;

/// While Consul is away each watch asks again after half a minute at the least, and whoever reads or writes reports after
/// a quarter of one: their longest pauses, less what chance takes off. The pauses grow to that, hence some more.
const ATTEMPTS_AN_HOUR: u64 = WATCHES * 120 + 240;
const FIRST_ATTEMPTS: u64 = 64;

/// The longest pauses alone would make it 360, but in a hurry an attempt itself takes its time: on a busy machine most of
/// it. The timers of an agent whose clock does not hurry would come to some ten in all.
const LEAST_ATTEMPTS_AN_HOUR: u64 = 20;

/// The loop wakes three times for each attempt (the pause is over, connected, closed), and twice a minute by itself.
const WAKES_AN_ATTEMPT: u64 = 3;
const WAKES_AN_HOUR: u64 = 120;

/// While a run executes the agent looks at it each second, in a hurry for most of an hour if the machine is busy.
const LOOKS_AN_HOUR: u64 = 3600;

/// A request is so long at the most, in bytes.
const REQUEST: u64 = 160;

/// What the agent writes for a run, and what the run leaves on the disk, each in bytes.
const RUN: u64 = 32 << 10;

/// What an agent logs of a run, and of itself, in bytes.
const LOG_OF_A_RUN: u64 = 512;
const LOG: u64 = 4 << 10;

/// The reserve for a full disk, in bytes: what a new agent's folder of state holds, with some more.
const RESERVE: u64 = 17 << 20;

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives")
}

/// The number behind a word of a file of `/proc`.
fn number(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect("the line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Small, or what it is made of, for whoever has to look for it.
fn small(pid: u32) -> Result<(), String> {
    let status = status(pid);
    if number(&status, "VmRSS:") <= MOST {
        return Ok(());
    }
    let parts = status.lines().filter(|line| line.starts_with("VmRSS:") || line.starts_with("Rss"));
    Err(parts
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", "))
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent lives").count()
}

fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        // What was trimmed meanwhile has no size.
        Err(_) => fs::metadata(path).map_or(0, |file| file.len()),
    }
}

/// What an agent has used so far.
#[derive(Clone, Copy, Debug)]
struct Used {
    connections: u64,
    requests: u64,
    /// How often its loop has woken: that of the first thread, which owns all state.
    wakes: u64,
    /// Bytes that it wrote, to files and connections.
    wrote: u64,
    /// Bytes in its folder of state.
    state: u64,
    /// Bytes that it logged.
    log: u64,
    /// Memory that is its own and not the program's, in KiB.
    anonymous: u64,
}

impl Used {
    fn of(host: &Host, proxy: &Proxy) -> Self {
        let pid = host.agent_pid().expect("an agent");
        let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("the agent lives");
        Self {
            connections: proxy.connections() as u64,
            requests: proxy.requests() as u64,
            wakes: number(&status(pid), "voluntary_ctxt_switches:"),
            wrote: number(&io, "wchar:"),
            state: size(&host.path("state")),
            log: size(&host.path("log")),
            anonymous: number(&status(pid), "RssAnon:"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            requests: self.requests - before.requests,
            wakes: self.wakes - before.wakes,
            wrote: self.wrote - before.wrote,
            state: self.state.saturating_sub(before.state),
            log: self.log - before.log,
            anonymous: self.anonymous.saturating_sub(before.anonymous),
        }
    }
}

/// Holds what an agent has used in so many hours without Consul against what it may; `runs` were executed meanwhile.
fn assert_quiet(used: Used, hours: u64, runs: u64) {
    let attempts = hours * LEAST_ATTEMPTS_AN_HOUR..=hours * ATTEMPTS_AN_HOUR + FIRST_ATTEMPTS;
    assert!(attempts.contains(&used.connections), "{hours} hours, {attempts:?} attempts: {used:?}");
    let looks = if runs > 0 { LOOKS_AN_HOUR } else { 0 };
    let wakes = used.connections * WAKES_AN_ATTEMPT + hours * (WAKES_AN_HOUR + looks);
    assert!(used.wakes <= wakes, "{hours} hours, {wakes} wake-ups: {used:?}");
    let wrote = used.connections * REQUEST + (runs + 1) * RUN;
    assert!(used.wrote <= wrote, "{hours} hours, {wrote} bytes written: {used:?}");
    let log = runs * LOG_OF_A_RUN + LOG;
    assert!(used.log <= log, "{hours} hours, {log} bytes logged: {used:?}");
}

fn host(name: &str, proxy: &Proxy) -> Host {
    let mut host = Host::on_port(name, proxy.port(), None);
    host.enroll();
    host.task("count", COUNT, &[("add", "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN x\" >> EFFECTS\n")]);
    // Whatever this machine thinks of its clock, orders wait for their time, and not for the clock.
    host.configure("clock: trusted");
    host.use_program("HOSTLER_RELEASE");
    host.set_env("HOSTLER_LOG", "info");
    host
}

#[test]
fn p9_ten_thousand_flips_leave_the_agent_small_and_quiet() {
    let consul = Consul::dev();
    let proxy = Proxy::start(consul.port());
    let mut host = host("flips", &proxy);
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    let (before, begun) = (Used::of(&host, &proxy), Instant::now());
    // Flips that wait: each is an activation in the ledger, and supersedes the one before.
    for n in 0..10_000 {
        let order = format!("task: count\nrevision: '{n}'\nnot_before: 2999-01-01T00:00:00Z");
        consul.put("hostler/hosts/flips/orders/o", &order);
    }
    consul.put("hostler/hosts/flips/orders/last", "task: count");
    eventually(DEFAULT_TIMEOUT, || {
        let report = consul.get("hostler/reports/orders/flips/last").unwrap_or_default();
        if report.contains("succeeded") { Ok(()) } else { Err(host.log_tail()) }
    });
    let (used, seconds) = (Used::of(&host, &proxy).since(before), begun.elapsed().as_secs() + 1);
    eprintln!("10,000 flips in {seconds} s: {used:?}");
    let pid = host.agent_pid().expect("an agent");
    assert_eq!(small(pid), Ok(()));
    assert!(descriptors(pid) < 40, "{} descriptors", descriptors(pid));
    let ledger = size(&host.path("state/ledger"));
    assert!(ledger < 2 << 20, "a ledger of {ledger} bytes");
    // The watch takes five answers a second and ten at once; two reports and the service are written at most once a
    // second, and the last order has a few requests of its own. The watches that see nothing wait for 10 s at a time in
    // their first minute, and read plainly once in a minute.
    let answers = seconds * 5 + 10;
    let idle = (WATCHES - 1) * (seconds / 10 + seconds / 50 + 2);
    let requests = answers + idle + seconds * 3 + 30;
    assert!(used.requests <= requests, "{requests} requests: {used:?}");
    assert!(used.connections <= 8, "new connections: {used:?}");
    // Each answer is an activation: some lines in the ledger and the audit, and a report.
    assert!(used.wrote <= answers * (4 << 10) + RUN, "bytes written: {used:?}");
    assert!(used.state <= answers * (2 << 10) + RUN, "bytes on the disk: {used:?}");
    assert!(used.log <= answers * LOG_OF_A_RUN + LOG, "bytes logged: {used:?}");
}

/// An agent with a thousand orders, one of them hourly, has no Consul for a day; another one is started meanwhile.
#[test]
fn p9_a_day_without_consul_leaves_the_agent_small_and_quiet() {
    let mut consul = Consul::disk();
    let clock = TimeWarp::start();
    let proxies = [Proxy::start(consul.port()), Proxy::start(consul.port())];
    let [mut host, mut late] = [host("orders", &proxies[0]), host("late", &proxies[1])];
    clock.take(&mut host);
    clock.take(&mut late);
    for n in 0..1000 {
        host.order(&format!("o{n}"), "task: count");
    }
    host.order("hourly", "task: count\nschedule: '0 * * * *'\nspread: 0s");
    host.start();
    eventually(DEFAULT_TIMEOUT * 4, || {
        let report = consul.get("hostler/reports/orders/orders/o999").unwrap_or_default();
        let count = consul.list("hostler/reports/orders/orders/").len();
        let ledger = fs::read_to_string(host.path("state/ledger")).unwrap_or_default();
        // What fires while Consul is away has its document in the ledger.
        if count == 1001 && report.contains("succeeded") && ledger.contains("\"document_confirmed\"") {
            Ok(())
        } else {
            Err(format!("{count} reports"))
        }
    });
    let pid = host.agent_pid().expect("an agent");
    // What a burst of work has left free is given back when the agent is at rest.
    let burst = number(&status(pid), "RssAnon:");
    eventually(DEFAULT_TIMEOUT, || {
        small(pid)?;
        let own = number(&status(pid), "RssAnon:");
        if own <= MAX_OWN { Ok(()) } else { Err(format!("{own} KiB of its own, {burst} after the burst")) }
    });
    let before = Used::of(&host, &proxies[0]);
    // First the clock: that Consul goes wakes whoever waits for it.
    clock.run(2400);
    consul.kill();
    late.start();
    let late_pid = late.agent_pid().expect("an agent");
    let late_before = Used::of(&late, &proxies[1]);
    let mut own = 0;
    eventually(DEFAULT_TIMEOUT * 3, || {
        assert_eq!(small(late_pid), Ok(()));
        own = own.max(number(&status(pid), "RssAnon:"));
        for pid in [pid, late_pid] {
            assert!(descriptors(pid) < 40, "{} descriptors", descriptors(pid));
        }
        // Each instant fires once: between the first and the twenty-fifth is a day.
        match host.effects("hourly").len() {
            25.. => Ok(()),
            n => Err(format!("{n} hours; {}", host.log_tail())),
        }
    });
    let hours = clock.ahead().as_secs() / 3600 + 1;
    let used = Used::of(&host, &proxies[0]).since(before);
    let late_used = Used::of(&late, &proxies[1]).since(late_before);
    eprintln!(
        "{hours} hours, {burst} KiB of its own after the burst, {} at rest, at most {own}:",
        before.anonymous
    );
    eprintln!("{used:?}\n{late_used:?}");
    assert!(own <= MAX_OWN, "{own} KiB of its own");
    assert!(used.anonymous <= 512, "KiB more than before the outage: {used:?}");
    let fired = host.effects("hourly").len() as u64;
    assert_quiet(used, hours, fired);
    assert!(used.state <= fired * RUN, "bytes on the disk: {used:?}");
    assert_quiet(late_used, hours, 0);
    assert!(late_used.state <= RESERVE, "bytes on the disk: {late_used:?}");
    // Consul is back, and holds what was written meanwhile; the longest pause is over in two seconds.
    clock.run(30);
    consul.start();
    consul.put("hostler/hosts/orders/orders/o0", "task: count\nrevision: '2'");
    consul.put("hostler/hosts/late/orders/o", "task: count\non_preexisting: run");
    late.wait_for("o", &["succeeded"]);
    host.wait_completed("o0", 2);
    // By the agent's own account a day has passed, less what that took; and of that day's runs the newest are told.
    let report = host.wait_until("hourly", "its last firing", |report| {
        report["message"].as_str().is_some_and(|message| message.contains("succeeded"))
    });
    let updated: jiff::Timestamp = report["updated"].as_str().unwrap_or_default().parse().expect("a time");
    let ahead = updated.duration_since(jiff::Timestamp::now());
    assert!(ahead.as_hours() >= 23, "{ahead}: {report}");
    eventually(DEFAULT_TIMEOUT, || match consul.list("hostler/reports/runs/orders/").len() {
        20 => Ok(()),
        n => Err(format!("{n} runs are told; {}", host.log_tail())),
    });
    for pid in [pid, late_pid] {
        eventually(DEFAULT_TIMEOUT, || small(pid));
        assert!(descriptors(pid) < 40, "{} descriptors", descriptors(pid));
    }
    assert_eq!((host.agent_pid(), host.is_up(), late.is_up()), (Some(pid), true, true));
}
