//! The host's own record: complete, readable, and proof against changes that nobody should make.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually};
use serde_json::Value;

fn entries(host: &Host) -> Vec<Value> {
    let (status, text) = host.hostler(&["audit", "-n", "0", "--json"]);
    assert_eq!(status, 0, "{text}");
    let document: Value = serde_json::from_str(&text).expect("a document");
    document["entries"].as_array().cloned().expect("a list")
}

fn file(host: &Host) -> PathBuf {
    host.path("state/audit/000000000001.log")
}

/// A host that carried one order out, was then told to repeat it, and refused.
fn worked(name: &str) -> Host {
    let mut host = Host::on_dir(name);
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("o", "task: count\nrevision: '1'\nby: alice\nreason: CHG7");
    let first = host.wait_for("o", &["succeeded"]);
    host.order("o", "task: count\nrevision: '2'\nby: alice\nreason: CHG8");
    host.wait_until("o", "a second run", |report| {
        report["phase"] == "succeeded" && report["run"] != first["run"]
    });
    host.order("o", "task: count\nrevision: '1'\nby: mallory");
    host.wait_for("o", &["held"]);
    host
}

#[test]
fn the_audit_says_who_wanted_what_and_what_became_of_it() {
    let mut host = worked("audit-says");
    let (status, text) = host.hostler(&["release", "o", "--host", host.name(), "--reason", "agreed"]);
    assert_eq!(status, 0, "{text}");
    host.wait_for("o", &["succeeded"]);
    let found = entries(&host);
    let whats: Vec<&str> = found.iter().filter_map(|entry| entry["what"].as_str()).collect();
    let whole = [
        "started",
        "host_joined",
        "activation",
        "prepared",
        "ended",
        "activation",
        "prepared",
        "ended",
        "held",
        "control",
        "activation",
        "prepared",
        "ended",
    ];
    assert_eq!(whats, whole);
    let say = |n: usize, field: &str| found[n][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (say(2, "by"), say(2, "reason"), say(2, "task")),
        ("alice".into(), "CHG7".into(), "count".into())
    );
    assert_eq!((say(8, "by"), say(8, "why")), ("mallory".into(), "repeated".into()));
    assert_eq!((say(9, "reason"), say(9, "end")), ("agreed".into(), "done".into()));
    assert_eq!((say(12, "end"), found[12]["exit_code"].as_i64()), ("succeeded".into(), Some(0)));
    // Each run that had an effect has its lines.
    assert_eq!(host.effects("o").len(), 3);
    let (status, text) = host.hostler(&["audit", "--verify"]);
    assert!(
        status == 0 && text.contains("are complete; the last line reported to the store is"),
        "{status} {text}"
    );
    host.stop();
    host.start();
    eventually(DEFAULT_TIMEOUT, || match entries(&host).last().map(|entry| entry["what"].clone()) {
        Some(what) if what == "started" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn freezes_and_adoptions_are_in_the_record_and_known_from_afar() {
    let mut host = worked("audit-freezes");
    let name = host.name().to_owned();
    let said = |host: &Host| -> Vec<String> {
        let of = |entry: &Value| entry["what"].as_str().unwrap_or_default().to_owned();
        let all = entries(host).iter().map(of).collect::<Vec<_>>();
        all.into_iter()
            .filter(|what| ["frozen", "thawed", "adopted", "gap"].contains(&what.as_str()))
            .collect()
    };
    let until = |host: &Host, wanted: &[&str]| {
        eventually(DEFAULT_TIMEOUT, || match said(host) {
            said if said == wanted => Ok(()),
            said => Err(format!("{said:?}")),
        });
    };
    let freeze = ["freeze", "--host", &name, "--by", "carol", "--reason", "year end", "--until", "2h"];
    let (status, text) = host.hostler(&freeze);
    assert_eq!(status, 0, "{text}");
    until(&host, &["frozen"]);
    // An agent that starts knows what its record says of the freeze.
    host.stop();
    host.start();
    host.wait_until("o", "a report of the new agent", |report| report["phase"] == "held");
    let (status, text) = host.hostler(&["thaw", "--host", &name, "--by", "carol"]);
    assert_eq!(status, 0, "{text}");
    until(&host, &["frozen", "thawed"]);
    host.stop();
    let (status, text) = host.hostler(&["adopt", "--audit"]);
    assert_eq!(status, 0, "{text}");
    host.start();
    eventually(DEFAULT_TIMEOUT, || match said(&host) {
        said if said.iter().filter(|what| *what == "adopted").count() == 1 => Ok(()),
        said => Err(format!("{said:?}")),
    });
    // From afar: what the host's record says, newest first, each run once.
    let afar = |more: &[&str]| {
        let (status, text) = host.hostler(&[&["audit", "--host", &name, "--json"], more].concat());
        assert_eq!(status, 0, "{text}");
        let document: Value = serde_json::from_str(&text).expect("a document");
        document["entries"].as_array().cloned().expect("a list")
    };
    eventually(DEFAULT_TIMEOUT, || {
        let found = afar(&[]);
        let count = |what: &str| found.iter().filter(|entry| entry["what"] == what).count();
        match ["frozen", "thawed", "adopted", "held", "run", "activation", "ended"].map(count) {
            [1, 1, 1, 1, 2, 0, 0] => Ok(()),
            counts => Err(format!("{counts:?} in {found:#?}")),
        }
    });
    let [frozen] = &afar(&["--by", "carol"])[..] else { panic!("one entry is carol's") };
    assert_eq!((&frozen["reason"], &frozen["place"]), (&"year end".into(), &name.as_str().into()));
    let report = host.get(&format!("hostler/reports/audit/{name}")).expect("the report");
    assert!(report.len() <= 8192, "{}", report.len());
}

#[test]
fn what_was_changed_or_cut_off_is_found() {
    let mut host = worked("audit-changed");
    let told = || {
        let (status, text) = host.hostler(&["audit", "--verify"]);
        let number = |after: &str| text.split_once(after)?.1.split([' ', ';']).next().map(str::to_owned);
        let all = number("lines 1 to ").is_some_and(|last| number("reported to the store is ") == Some(last));
        if status == 0 && all { Ok(()) } else { Err(text.clone()) }
    };
    eventually(DEFAULT_TIMEOUT, told);
    host.stop();
    let whole = fs::read_to_string(file(&host)).expect("the audit");
    let verify = |text: &str| {
        fs::write(file(&host), text).expect("the audit");
        host.hostler(&["audit", "--verify"])
    };
    assert_eq!(verify(&whole).0, 0);
    let (status, text) = verify(&whole.replacen("CHG7", "CHG6", 1));
    assert!(status == 1 && text.contains("damaged in line"), "{status} {text}");
    let lines: Vec<&str> = whole.lines().collect();
    let without = |n: usize| {
        let kept = lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, line)| format!("{line}\n"));
        kept.collect::<String>()
    };
    let (status, text) = verify(&without(3));
    assert!(status == 1 && text.contains("lines are missing"), "{status} {text}");
    // Only what was told elsewhere shows that the end is gone.
    let (status, text) = verify(&format!("{}\n", lines[..lines.len() - 3].join("\n")));
    assert!(status == 1 && text.contains("missing at the end"), "{status} {text}");
    // An agent does not begin another record over one that cannot be believed.
    fs::write(file(&host), without(3).replacen("CHG7", "CHG6", 1)).expect("the audit");
    host.start();
    host.order("next", "task: count");
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains("audit: ") && report.contains("nothing starts") { Ok(()) } else { Err(report) }
    });
    assert!(host.effects("next").is_empty());
}

#[test]
fn nothing_is_done_of_which_the_audit_cannot_tell() {
    let mut host = Host::on_dir("audit-full");
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    host.stop();
    // A folder in the place of the next file cannot be opened, whoever tries.
    fs::rename(host.path("state/audit"), host.path("state/kept")).expect("the audit");
    fs::write(host.path("state/audit"), "").expect("a file");
    fs::set_permissions(host.path("state/audit"), fs::Permissions::from_mode(0o600)).expect("its mode");
    host.start();
    host.order("second", "task: count");
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains("audit: ") { Ok(()) } else { Err(report) }
    });
    assert!(host.effects("second").is_empty());
    host.stop();
    fs::remove_file(host.path("state/audit")).expect("the file");
    fs::rename(host.path("state/kept"), host.path("state/audit")).expect("the audit");
    host.start();
    host.wait_for("second", &["succeeded"]);
    assert_eq!(host.effects("second"), ["x"]);
}

fn lines(host: &Host) -> usize {
    fs::read_to_string(file(host)).expect("the audit").lines().count()
}

/// Number and hash of the newest line, as the host's report has them.
fn reported(host: &Host) -> Value {
    host.agent_report().unwrap_or_default()["audit"].clone()
}

#[test]
fn an_agent_does_not_go_on_from_a_record_that_was_cut() {
    let mut host = worked("audit-cut");
    eventually(DEFAULT_TIMEOUT, || {
        if reported(&host)["n"].as_u64() >= Some(9) { Ok(()) } else { Err(reported(&host).to_string()) }
    });
    host.stop();
    let before = reported(&host);
    assert_eq!(before["hash"].as_str().map(str::len), Some(64), "{before}");
    let whole = fs::read_to_string(file(&host)).expect("the audit");
    let kept: String = whole.lines().take(6).map(|line| format!("{line}\n")).collect();
    fs::write(file(&host), &kept).expect("the audit");
    // Also after restarts, which add lines of their own, and beyond the number that was reported.
    for _ in 0..2 {
        let before_start = lines(&host);
        host.start();
        // The report may still be the one of before; a line more says that this agent works.
        eventually(DEFAULT_TIMEOUT, || {
            if lines(&host) > before_start { Ok(()) } else { Err("no line more".to_owned()) }
        });
        host.order("next", "task: count\non_preexisting: run");
        eventually(DEFAULT_TIMEOUT, || {
            let report = host.agent_report().unwrap_or_default()["conditions"].to_string();
            if report.contains("lines are missing at the end") { Ok(()) } else { Err(report) }
        });
        assert!(host.effects("next").is_empty());
        assert_eq!(reported(&host), before, "the evidence stays");
        let (status, text) = host.hostler(&["audit", "--verify"]);
        assert!(status == 1 && text.contains("missing at the end"), "{status} {text}");
        host.stop();
    }
    let (status, text) = host.hostler(&["adopt", "--audit"]);
    assert_eq!(status, 0, "{text}");
    host.start();
    host.wait_for("next", &["succeeded"]);
    let gap = entries(&host).into_iter().find(|entry| entry["what"] == "gap").expect("the gap");
    assert!(
        gap["why"].as_str().is_some_and(|why| why.contains(before["hash"].as_str().expect("a hash"))),
        "{gap}"
    );
    eventually(DEFAULT_TIMEOUT, || {
        let (status, text) = host.hostler(&["audit", "--verify"]);
        if status == 0 { Ok(()) } else { Err(text) }
    });
}
