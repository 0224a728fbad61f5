//! Orders that come again, windows and clocks with the real program, under a clock that the tests set.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually};
use serde_json::Value;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A task with a probe whose answer a file gives, and a step that makes it hold.
const KEEP: &str = "name: keep\nversion: 1\nallow_short_interval: true\nprobe: {run: [./holds], timeout: 10s}\n\
                    steps:\n  - {name: fix, run: [./fix], effect: repeatable}\n";
const HOLDS: &str = "#!/bin/sh\nexit $(cat EFFECTS.holds)\n";
const FIX: &str = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN fix\" >> EFFECTS\necho 0 > EFFECTS.holds\n";

fn seconds(text: &Value) -> i64 {
    let text = text.as_str().unwrap_or_else(|| panic!("{text} is no time"));
    let timestamp: jiff::Timestamp = text.parse().unwrap();
    timestamp.as_second()
}

/// The start of the next day but one, in seconds from now.
fn midnight_after_next() -> i64 {
    let now = jiff::Timestamp::now().as_second();
    (now.div_euclid(DAY) + 2) * DAY - now
}

fn holds(host: &Host, status: u8) {
    fs::write(host.path("effects.holds"), status.to_string()).unwrap();
}

fn probed(host: &Host) -> usize {
    let log = fs::read_to_string(host.path("log")).unwrap_or_default();
    log.matches("the probe: ").count()
}

#[test]
fn a_schedule_fires_each_instant_once_whatever_the_clock_does() {
    let mut host = Host::on_dir("schedule");
    host.counting_task("count", "once:x", "0");
    let midnight = midnight_after_next();
    host.set_clock(midnight + 12 * HOUR, true);
    host.start();
    host.order("nightly", "task: count\nschedule: '30 2 * * *'\nspread: 0s");
    let report = host.wait_for("nightly", &["waiting schedule"]);
    assert!(report["until"].as_str().unwrap().contains("T02:30:00Z"), "{report}");
    assert!(seconds(&report["next_report_by"]) > seconds(&report["updated"]), "{report}");
    assert!(host.effects("nightly").is_empty(), "placing it starts nothing");
    // The night comes.
    host.set_clock(midnight + DAY + 2 * HOUR + 31 * 60, true);
    let report = host.wait_until("nightly", "its firing", |report| {
        report["phase"] == "waiting" && report["message"].to_string().contains("succeeded")
    });
    assert!(report["trigger"].as_str().unwrap().starts_with("firing "), "{report}");
    assert_eq!(host.effects("nightly").len(), 1);
    // Hours back, and there again: behind the ledger nothing fires, and the instant is handled.
    host.set_clock(midnight + DAY, true);
    host.wait_for("nightly", &["waiting clock"]);
    host.kill();
    host.start();
    host.set_clock(midnight + DAY + 2 * HOUR + 40 * 60, true);
    host.wait_for("nightly", &["waiting schedule"]);
    assert_eq!(host.effects("nightly").len(), 1);
    // Not synchronised: it waits, says so with the cure, and catches up afterwards.
    host.set_clock(midnight + 2 * DAY + 2 * HOUR + 31 * 60, false);
    let report = host.wait_for("nightly", &["waiting clock"]);
    assert!(report["message"].as_str().unwrap().contains("clock: trusted"), "{report}");
    // What does not depend on the time of day goes on.
    host.order("other", "task: count");
    host.wait_for("other", &["succeeded"]);
    host.set_clock(midnight + 2 * DAY + 3 * HOUR, true);
    host.wait_until("nightly", "the second night", |_| host.effects("nightly").len() == 2);
    // Five days ahead at once, in the morning after: too late, and counted.
    host.wait_for("nightly", &["waiting schedule"]);
    host.set_clock(midnight + 7 * DAY + 12 * HOUR, true);
    let report =
        host.wait_until("nightly", "what was missed", |report| report.to_string().contains("5 missed"));
    assert_eq!(report["phase"], "waiting");
    assert_eq!(host.effects("nightly").len(), 2);
}

#[test]
fn a_failed_firing_stays_in_sight_until_the_next_one() {
    let mut host = Host::on_dir("failing");
    host.counting_task("bad", "once:fail", "0");
    host.set_clock(midnight_after_next(), true);
    host.start();
    host.order("o", "task: bad\nschedule: '0 12 * * *'");
    host.wait_for("o", &["waiting schedule"]);
    host.set_clock(midnight_after_next() + 12 * HOUR + 60, true);
    let report = host.wait_for("o", &["failed"]);
    assert!(
        seconds(&report["until"]) > seconds(&report["ended"]),
        "and it says when it comes again: {report}"
    );
    assert!(report["next_report_by"].is_string(), "the host goes on to vouch for it: {report}");
    // What the task does not bear is refused when it is placed, not in the night.
    host.order("never", "task: missing\nschedule: '0 12 * * *'");
    host.wait_for("never", &["refused"]);
    host.order("keep", "task: bad\nreconcile: 15m");
    let report = host.wait_for("keep", &["refused"]);
    assert!(report["error"].as_str().unwrap().contains("cannot reconcile"), "{report}");
}

#[test]
fn a_window_holds_a_start_back_until_it_opens() {
    let mut host = Host::on_dir("window");
    host.counting_task("count", "once:x", "0");
    let midnight = midnight_after_next();
    host.set_clock(midnight + 12 * HOUR, true);
    host.start();
    host.order("o", "task: count\nwindow: 22:00-06:00");
    let report = host.wait_for("o", &["waiting window"]);
    assert!(report["until"].as_str().unwrap().contains("T22:00:00Z"), "{report}");
    // Nobody tells the agent that the clock was set: it sees that within half a minute.
    fs::write(host.path("clock"), format!("{} synchronised", midnight + DAY + HOUR)).unwrap();
    host.wait_for("o", &["succeeded"]);
}

#[test]
fn a_state_that_drifts_away_is_brought_back_until_the_breaker_holds_it() {
    let mut host = Host::on_dir("reconcile");
    host.task("keep", KEEP, &[("holds", HOLDS), ("fix", FIX)]);
    holds(&host, 0);
    host.start();
    host.order("o", "task: keep\nreconcile: 1s");
    host.wait_for("o", &["unchanged"]);
    eventually(DEFAULT_TIMEOUT, || if probed(&host) >= 2 { Ok(()) } else { Err(host.log_tail()) });
    assert!(host.effects("o").is_empty() && host.runs().len() == 1, "asking the probe is no run");
    // It cannot tell: a condition, and no start.
    holds(&host, 7);
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["conditions"].to_string().contains("cannot tell") => Ok(()),
        report => Err(format!("{report:?}; {}", host.log_tail())),
    });
    assert!(host.effects("o").is_empty());
    for n in 1..=2 {
        holds(&host, 1);
        let report = host.wait_until("o", "a drift", |report| report["trigger"] == format!("drift {n}"));
        host.wait_until("o", "its end", |report| report["phase"] == "succeeded");
        assert_eq!(host.effects("o").len(), n, "{report}");
    }
    holds(&host, 1);
    let report = host.wait_for("o", &["held not_converging"]);
    assert!(report["error"].as_str().unwrap().contains("hostler release o"), "{report}");
    // The ledger knows, and so a restart lets nothing go.
    host.kill();
    host.start();
    host.order("last", "task: keep");
    host.wait_for("last", &["unchanged", "succeeded"]);
    assert_eq!(host.effects("o").len(), 2);
    assert_eq!(host.report("o").unwrap()["phase"], "held");
    let left = || fs::read_dir(host.path("state/checks")).unwrap().count();
    eventually(DEFAULT_TIMEOUT, || {
        if left() == 0 { Ok(()) } else { Err(format!("{} checks are left", left())) }
    });
}

/// The agent and the executor are killed at each point on the way from an instant to its report: it fires once.
#[test]
fn p2_a_firing_happens_once_wherever_the_agent_is_killed() {
    let mut host = Host::on_dir("killed");
    host.counting_task("count", "repeatable:x!", "0");
    let midnight = midnight_after_next();
    host.set_clock(midnight, true);
    host.start();
    host.order("o", "task: count\nschedule: '0 12 * * *'");
    host.wait_for("o", &["waiting schedule"]);
    let points = [
        "activation-recorded",
        "looked",
        "folder-made",
        "prepared",
        "launched",
        "claimed",
        "begun",
        "intended",
        "finished",
        "end-seen",
        "closed",
        "reported",
    ];
    for (n, point) in points.into_iter().enumerate() {
        host.crash_at(point);
        // It may be gone before the signal comes.
        host.keep_up_until(|_| Ok::<_, String>(()));
        host.set_clock(midnight + i64::try_from(n).unwrap() * DAY + 12 * HOUR + 60, true);
        host.keep_up_until(|host| {
            let fired = host.effects("o").len();
            let report = host.report("o").unwrap_or_default();
            let over = report["phase"] == "waiting" && report["trigger"].is_string() && host.has_crashed();
            let until = report["until"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let ahead = midnight + i64::try_from(n).unwrap() * DAY + 13 * HOUR;
            let next =
                until.is_some_and(|until| until.as_second() > jiff::Timestamp::now().as_second() + ahead);
            if fired == n + 1 && over && next {
                Ok(())
            } else {
                Err(format!("{point}: {fired} firings, {report}"))
            }
        });
    }
    assert_eq!(host.effects("o").len(), points.len());
}

/// A day without Consul, hour by hour, with a restart in the middle of it: the nightly backup ran once, and was reported.
#[test]
fn a_nightly_backup_runs_once_in_a_day_without_consul_and_is_reported_when_it_is_back() {
    let mut consul = Consul::disk();
    let mut host = Host::on_consul("away", &consul);
    for (name, offline) in [("backup", true), ("other", false)] {
        let yaml =
            format!("name: {name}\nversion: 1\noffline: {offline}\nsteps:\n  - {{name: s, run: [./s]}}\n");
        host.task(name, &yaml, &[("s", "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN s\" >> EFFECTS\n")]);
    }
    let noon = midnight_after_next() + 12 * HOUR;
    host.set_clock(noon, true);
    host.start();
    host.order("backup", "task: backup\nschedule: '30 2 * * *'");
    host.order("other", "task: other\nschedule: '30 2 * * *'");
    host.wait_for("backup", &["waiting schedule"]);
    host.wait_for("other", &["waiting schedule"]);
    // Its document is in the ledger.
    eventually(DEFAULT_TIMEOUT, || {
        let ledger = fs::read_to_string(host.path("state/ledger")).unwrap_or_default();
        if ledger.contains("\"document_confirmed\"") { Ok(()) } else { Err(host.log_tail()) }
    });
    consul.kill();
    for hour in 1..=24 {
        host.set_clock(noon + hour * HOUR, true);
        if hour == 12 || hour == 18 {
            host.kill();
            host.start();
        }
        if hour == 15 {
            eventually(DEFAULT_TIMEOUT, || match host.effects("backup").len() {
                1 => Ok(()),
                n => Err(format!("{n} backups; {}", host.log_tail())),
            });
        }
    }
    consul.start();
    let report = host.wait_until("backup", "the night's run", |report| {
        report["message"].to_string().contains("succeeded")
    });
    assert!(report["trigger"].as_str().unwrap().contains("T02:30:00Z"), "{report}");
    // The other one could not fire, and comes too late now.
    host.wait_until("other", "what was missed", |report| report["message"].to_string().contains("1 missed"));
    assert_eq!((host.effects("backup").len(), host.effects("other").len()), (1, 0));
    // The report of a run may come later than that of its order.
    eventually(DEFAULT_TIMEOUT, || match consul.list("hostler/reports/runs/away/").len() {
        1 => Ok(()),
        n => Err(format!("{n} reports of runs; {}", host.log_tail())),
    });
}

/// What comes again for ever must not fill the disk of an agent that is never restarted.
#[test]
fn old_runs_are_removed_while_the_agent_runs() {
    let mut host = Host::on_dir("trim");
    host.configure("runs: {keep_count: 20}");
    host.counting_task("count", "repeatable:x", "0");
    host.start();
    for n in 0..45 {
        host.order(&format!("o{n}"), "task: count");
    }
    for n in 0..45 {
        host.wait_for(&format!("o{n}"), &["succeeded"]);
    }
    // Forty have ended and been trimmed to twenty; the newest five came later.
    eventually(DEFAULT_TIMEOUT, || match host.runs().len() {
        20..=40 => Ok(()),
        n => Err(format!("{n} runs are kept; {}", host.log_tail())),
    });
}
