//! Hosts that are not who they seem to be, and disks that forgot: nothing is carried out that should not be, and the
//! reports say what happened.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::path::Path;
use std::process::Command;

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, Options, eventually};

/// Waits for a condition of the agent that says so.
#[track_caller]
fn says(host: &Host, what: &str) {
    eventually(DEFAULT_TIMEOUT * 2, || match host.agent_report() {
        Some(report) if report["conditions"].to_string().contains(what) => Ok(()),
        report => Err(format!("no {what:?} in {report:?}; {}", host.log_tail())),
    });
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success());
}

/// A host that joins what is there: orders with and without a probe.
#[test]
fn at_first_sight_only_a_probe_or_an_operator_lets_an_order_go() {
    let mut host = Host::on_dir("joins");
    host.counting_task("blind", "once:x", "0");
    let probing = |answer: u8| {
        format!(
            "name: probing{answer}\nversion: 1\nprobe: {{run: [./probe]}}\nsteps:\n  - {{name: s, run: [./s]}}\n"
        )
    };
    let effects = host.path("effects").display().to_string();
    let step = format!("#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN s\" >> {effects}\n");
    let done = host.path("done").display().to_string();
    for answer in [0_u8, 1, 7] {
        // Once the step has been carried out, the state holds.
        let step = format!("{step}touch {done}\n");
        let probe = format!("#!/bin/sh\n[ {answer} != 1 ] || [ ! -e {done} ] || exit 0\nexit {answer}\n");
        host.task(&format!("probing{answer}"), &probing(answer), &[("probe", &probe), ("s", &step)]);
    }
    let put = |order: &str, text: &str| host.put(&format!("hostler/hosts/joins/orders/{order}"), text);
    put("no-probe", "task: blind");
    put("meant", "task: blind\non_preexisting: run");
    put("holds", "task: probing0");
    put("does-not-hold", "task: probing1");
    put("cannot-tell", "task: probing7");
    put("later", "task: blind\nschedule: '0 0 1 1 *'");
    host.start();
    host.wait_for("meant", &["succeeded"]);
    host.wait_for("holds", &["unchanged"]);
    host.wait_for("does-not-hold", &["succeeded"]);
    host.wait_for("later", &["waiting schedule"]);
    for order in ["no-probe", "cannot-tell"] {
        let report = host.wait_for(order, &["held preexisting"]);
        assert!(report["error"].as_str().unwrap().contains("hostler release"), "{report}");
        assert!(host.effects(order).is_empty());
    }
    host.kill();
    host.start();
    host.order("new", "task: blind");
    host.wait_for("new", &["succeeded"]);
    assert!(host.effects("no-probe").is_empty(), "a restart does not let it go");
    let (status, text) = host.hostler(&["release", "no-probe", "--host", "joins"]);
    assert_eq!(status, 0, "{text}");
    host.wait_for("no-probe", &["succeeded"]);
    assert_eq!(host.effects("no-probe").len(), 1);
}

#[test]
fn a_disk_put_back_to_yesterday_repeats_nothing() {
    let mut host = Host::on_dir("yesterday");
    host.counting_task("t", "once:x", "0");
    host.start();
    host.order("first", "task: t");
    host.wait_for("first", &["succeeded"]);
    host.stop();
    copy(&host.path("state"), &host.path("snapshot"));
    host.start();
    for (order, effects) in [("first", 2), ("second", 1)] {
        host.order(order, "task: t\nrevision: today");
        host.wait_completed(order, effects);
    }
    host.stop();
    copy(&host.path("snapshot"), &host.path("state"));
    host.start();
    for order in ["first", "second"] {
        let report = host.wait_for(order, &["held ledger_behind"]);
        assert!(report["error"].as_str().unwrap().contains("does not remember"), "{report}");
    }
    assert_eq!((host.effects("first").len(), host.effects("second").len()), (2, 1));
    let (status, text) = host.hostler(&["accept", "first", "--host", "yesterday"]);
    assert_eq!(status, 0, "{text}");
    host.kill();
    host.start();
    host.order("new", "task: t");
    host.wait_for("new", &["succeeded"]);
    assert_eq!(host.effects("first").len(), 2);
    assert_ne!(host.report("first").unwrap()["phase"], "held");
    assert_eq!(host.report("second").unwrap()["phase"], "held");
}

#[test]
fn a_lost_state_folder_repeats_nothing() {
    let mut host = Host::on_dir("lost");
    host.counting_task("t", "once:x", "0");
    host.start();
    host.order("o", "task: t");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    fs::remove_dir_all(host.path("state")).unwrap();
    host.start();
    host.wait_for("o", &["held ledger_behind"]);
    assert_eq!(host.effects("o").len(), 1);
    // It is the same machine in the same boot: nobody else's name.
    host.order("new", "task: t");
    host.wait_for("new", &["succeeded"]);
}

#[test]
fn a_renamed_host_starts_nothing_until_it_is_adopted() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("before", &consul);
    host.counting_task("t", "once:x", "0");
    host.start();
    host.order("o", "task: t\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("o", &["waiting schedule"]);
    host.stop();
    host.rename("after");
    host.enroll();
    host.put("hostler/hosts/after/orders/mine", "task: t\non_preexisting: run");
    // What an operator wants of the orders of that other host is not for this one.
    let waiting = consul.get("hostler/reports/orders/before/o").expect("the report of the order");
    let waiting: serde_json::Value = serde_json::from_str(&waiting).expect("a report");
    let (identity, id) =
        (waiting["identity"].as_str().expect("an identity"), hostler::host::clock::new_run());
    let cancel = format!("action: cancel\ntarget: {identity}\nby: bob\nreason: CHG3");
    host.put(&format!("hostler/hosts/after/control/o/{id}"), &cancel);
    host.start();
    says(&host, "was before and is configured as after");
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["observed_index"]["hostler/hosts/after/"].is_u64() => Ok(()),
        report => Err(format!("the controls are not seen: {report:?}")),
    });
    assert!(host.effects("mine").is_empty() && host.report("mine").is_none());
    let ledger = fs::read_to_string(host.path("state/ledger")).expect("the ledger");
    assert!(!ledger.contains("\"control_handled\""), "a control was taken in: {ledger}");
    let old = consul.get("hostler/reports/orders/before/o").unwrap();
    assert!(old.contains("\"waiting\""), "nothing was withdrawn: {old}");
    let (status, text) = host.hostler(&["adopt"]);
    assert!(status == 0 && text.contains("restart"), "{status}: {text}");
    host.stop();
    host.start();
    host.wait_for("mine", &["succeeded"]);
}

#[test]
fn two_agents_under_one_name_find_one_another_and_start_nothing_new() {
    let consul = Consul::dev();
    let mut first = Host::on_consul("twin", &consul);
    first.counting_task("t", "once:x", "0");
    first.start();
    first.order("o", "task: t");
    first.wait_for("o", &["succeeded"]);
    // Another machine would have another boot: what it writes is written here in its place.
    let mut other = first.agent_report().unwrap();
    other["boot"] = "11111111-2222-3333-4444-555555555555".into();
    other["machine"] = "cafe".into();
    other["next_report_by"] = "2999-01-01T00:00:00Z".into();
    consul.put("hostler/reports/agents/twin", &other.to_string());
    // A change of condition makes the agent write its own report, and see the other's.
    first.task("broken", "name: broken\nnonsense: 1\n", &[]);
    first.order("now", "task: broken");
    says(&first, "host name also used by machine cafe");
    first.order("next", "task: t");
    first.wait_for("next", &["waiting identity"]);
    assert!(first.effects("next").is_empty());
}

#[test]
fn a_host_without_the_right_to_ask_for_its_name_waits_until_it_has_it() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let rights = "key_prefix \"hostler/\" { policy = \"write\" }\n";
    let token = consul.token("nameless", rights);
    let node = consul.node();
    for prefix in [&*format!("hosts/{node}"), "groups/all"] {
        consul.put(&format!("hostler/{prefix}/_hostler"), "{}");
    }
    let mut host = Host::on_port(&node, consul.port(), Some(&token));
    let config = fs::read_to_string(host.path("hostler.yml")).expect("the configuration");
    fs::write(host.path("hostler.yml"), config.replace(&format!("host: {node}\n"), ""))
        .expect("without a name");
    host.start();
    let log = |host: &Host| fs::read_to_string(host.path("log")).unwrap_or_default();
    eventually(DEFAULT_TIMEOUT, || match log(&host) {
        log if log.contains("waiting for the name of this host") => Ok(()),
        log => Err(log),
    });
    assert!(host.is_up(), "{}", log(&host));
    consul.set_rules("nameless", &format!("{rights}agent_prefix \"\" {{ policy = \"read\" }}\n"));
    eventually(DEFAULT_TIMEOUT, || match consul.get(&format!("hostler/reports/agents/{node}")) {
        Some(_) => Ok(()),
        None => Err(log(&host)),
    });
    assert!(host.is_up(), "{}", log(&host));
}
