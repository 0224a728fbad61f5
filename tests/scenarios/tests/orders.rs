//! Orders on one host: each once, none at a repetition, and one that is bad stops no other (P2, P8 and P10).

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually};
use std::fs;

#[test]
fn p10_of_a_hundred_orders_five_are_bad_and_the_others_succeed() {
    let mut host = Host::on_dir("p10");
    host.configure("runs: {parallel: 8}");
    host.counting_task("good", "once:x", "0");
    host.counting_task("bad", "once:fail", "0");
    host.counting_task("hang", "once:x", "1000");
    host.task(
        "strict",
        "name: strict\nversion: 1\nparams: {type: object, properties: {n: {type: integer}}}\n\
         steps:\n  - {name: s, run: [./s, \"{{ params.n }}\"]}\n",
        &[("s", "#!/bin/sh\n")],
    );
    for n in 0..100 {
        let text = match n {
            13 => "task: [good",
            31 => "task: nothing-of-that-name",
            47 => "task: strict\nparams: {n: many}",
            62 => "task: bad",
            88 => "task: hang",
            _ => "task: good",
        };
        host.order(&format!("o{n}"), text);
    }
    host.start();
    let phase =
        |n: u32| host.report(&format!("o{n}")).map(|report| report["phase"].as_str().unwrap().to_owned());
    eventually(DEFAULT_TIMEOUT * 2, || {
        let bad: Vec<u32> = (0..100).filter(|n| phase(*n).as_deref() != Some("succeeded")).collect();
        if bad == [13, 31, 47, 62, 88] {
            Ok(())
        } else {
            Err(format!("not succeeded: {bad:?}; {}", host.log_tail()))
        }
    });
    for (n, expected) in [(13, "refused"), (31, "refused"), (47, "refused"), (62, "failed"), (88, "running")]
    {
        let report = host.wait_for(&format!("o{n}"), &[expected]);
        let error = report["error"].as_str().unwrap_or_default();
        assert!(expected == "running" || (!error.is_empty() && !error.contains('\n')), "{report}");
    }
    assert!(host.report("o13").unwrap()["error"].as_str().unwrap().contains("line 1"));
    assert!(host.report("o47").unwrap()["error"].as_str().unwrap().contains("/n"), "the parameter is named");
}

#[test]
fn p2_what_an_order_said_before_is_held_unless_its_steps_are_repeatable() {
    let mut host = Host::on_dir("repeat");
    host.counting_task("once", "once:x", "0");
    host.counting_task("again", "repeatable:x", "0");
    host.start();
    for task in ["once", "again"] {
        for revision in ["1", "2"] {
            host.order(task, &format!("task: {task}\nrevision: '{revision}'"));
            host.wait_completed(task, revision.parse().unwrap());
        }
        host.order(task, &format!("task: {task}\nrevision: '1'"));
    }
    host.wait_for("once", &["held repeated"]);
    host.wait_completed("again", 3);
    assert_eq!(host.effects("once").len(), 2);
    assert!(host.report("once").unwrap()["error"].as_str().unwrap().contains("change `revision`"));
    // Terms change nothing; a deleted and re-created order neither.
    host.order("again", "task: again\nrevision: '1'\nreason: another");
    host.delete("hostler/hosts/repeat/orders/again");
    host.order("again", "task: again\nrevision: '1'");
    host.stop();
    host.start();
    host.order("last", "task: once");
    host.wait_for("last", &["succeeded"]);
    assert_eq!(host.effects("again").len(), 3);
}

#[test]
fn p2_a_nearer_order_wins_and_what_it_uncovers_is_held() {
    let mut host = Host::on_dir("near");
    host.counting_task("count", "once:x", "0");
    let group = "hostler/groups/all/orders/o";
    host.start();
    host.order("o", "task: count\nrevision: host");
    host.wait_for("o", &["succeeded"]);
    host.put(group, "task: count\nrevision: group\nspread: 0s");
    host.delete("hostler/hosts/near/orders/o");
    let report = host.wait_for("o", &["held fallback"]);
    assert_eq!(report["source"], "groups/all");
    assert_eq!(host.effects("o").len(), 1);
    host.put(group, "task: count\nrevision: group2\nspread: 0s");
    host.wait_for("o", &["succeeded"]);
    assert_eq!(host.effects("o").len(), 2);
    host.put("hostler/hosts/near/orders/o", "skip: true");
    host.wait_for("o", &["skipped"]);
}

#[test]
fn a_thousand_flips_during_a_run_leave_the_last_one_and_nothing_piles_up() {
    let mut host = Host::on_dir("flips");
    host.counting_task("count", "once:x", "0");
    // The first run goes on for as long as the flips take, however slow the machine is.
    let (add, go) = (host.path("tasks/count/add"), host.path("go").display().to_string());
    let waits = format!("#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.1; done\n");
    fs::write(&add, fs::read_to_string(&add).unwrap().replacen("#!/bin/sh\n", &waits, 1)).unwrap();
    host.start();
    host.order("o", "task: count\nrevision: first");
    host.wait_until("o", "a step", |report| report["step"]["name"] == "x");
    for n in 0..1000 {
        host.order("o", &format!("task: count\nrevision: '{n}'"));
    }
    let waiting = host.wait_for("o", &["waiting previous_run"]);
    assert!(waiting["run"].is_string(), "it names the run that it waits for: {waiting}");
    fs::write(&go, "").unwrap();
    host.wait_completed("o", 2);
    assert_eq!(host.runs().len(), 2, "no other run was made");
    let order = fs::read_to_string(host.runs()[1].join("order")).unwrap();
    assert!(order.contains("'999'"), "{order}");
}

#[test]
fn p8_parameters_are_data() {
    let mut host = Host::on_dir("p8");
    let yaml = "name: echo\nversion: 1\nparams: {type: object, required: [text], properties: {text: {type: string}}}\n\
                steps:\n  - {name: s, run: [./s, \"{{ params.text }}\"]}\n";
    let script = "#!/bin/sh\nprintf '%s|' \"$#\" \"$1\" > EFFECTS\n";
    host.task("echo", yaml, &[("s", script)]);
    host.start();
    let nasty = "$(touch X) `id` ; rm -rf / {{ 7*7 }} \\\" ' \\n two words";
    host.order("o", &serde_json::json!({"task": "echo", "params": {"text": nasty}}).to_string());
    host.wait_for("o", &["succeeded"]);
    assert_eq!(fs::read_to_string(host.path("effects")).unwrap(), format!("1|{nasty}|"));
    // An argument that would become an option is refused, and so is what the schema does not admit.
    for (order, params, expected) in [
        ("option", serde_json::json!({"text": "--force"}), "-"),
        (
            "unknown",
            serde_json::json!({"text": "a", "ansible_python_interpreter": "/bin/evil"}),
            "ansible_python",
        ),
        ("traversal", serde_json::json!({"text": "a", "../x": 1}), "../x"),
    ] {
        host.order(order, &serde_json::json!({"task": "echo", "params": params}).to_string());
        let report = host.wait_for(order, &["refused"]);
        assert!(report["error"].as_str().unwrap().contains(expected), "{report}");
    }
    host.order("path", "task: ../../../etc");
    host.wait_for("path", &["refused"]);
}

#[test]
fn p8_a_task_that_others_may_write_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut host = Host::on_dir("loose");
    host.counting_task("loose", "once:x", "0");
    fs::set_permissions(host.path("tasks/loose/add"), fs::Permissions::from_mode(0o777)).unwrap();
    host.start();
    host.order("o", "task: loose");
    let report = host.wait_for("o", &["refused"]);
    assert!(report["error"].as_str().unwrap().contains("add"), "{report}");
    assert!(host.effects("o").is_empty());
}

#[test]
fn terms_hold_a_start_back_and_let_it_go() {
    let mut host = Host::on_dir("terms");
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("late", "task: count\nnot_after: 2020-01-01T00:00:00Z");
    host.wait_for("late", &["expired"]);
    host.order("early", "task: count\nnot_before: 2999-01-01T00:00:00Z");
    let report = host.wait_for("early", &["waiting schedule"]);
    assert!(report["until"].as_str().unwrap().starts_with("2999"));
    host.put("hostler/groups/all/orders/wide", "task: count\nspread: 300d");
    host.wait_for("wide", &["waiting spread"]);
    // Changed terms change the waiting order in place.
    host.order("early", "task: count\nnot_before: 2020-01-01T00:00:00Z");
    host.wait_for("early", &["succeeded"]);
    host.order("gone", "task: count\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("gone", &["waiting schedule"]);
    host.delete("hostler/hosts/terms/orders/gone");
    host.wait_for("gone", &["withdrawn"]);
    host.order("dry", "task: count\ndry_run: true");
    let report = host.wait_for("dry", &["succeeded"]);
    assert!(report["message"].as_str().unwrap().contains("would carry out x"), "{report}");
    assert!(
        host.effects("dry").is_empty() && host.effects("late").is_empty() && host.effects("gone").is_empty()
    );
}

#[test]
fn runs_that_want_the_same_resource_come_one_after_the_other() {
    let mut host = Host::on_dir("locks");
    let yaml = "name: locked\nversion: 1\nparams: {type: object, properties: {k: {type: string}}}\n\
                resources: [{name: \"db:{{ params.k }}\"}]\nsteps:\n  - {name: s, run: [./s]}\n";
    let script = "#!/bin/sh\nmkdir EFFECTS.lock || exit 9\nsleep 0.3\nrmdir EFFECTS.lock\n";
    host.task("locked", yaml, &[("s", script)]);
    host.start();
    for n in 0..4 {
        host.order(&format!("o{n}"), &format!("task: locked\nparams: {{k: same}}\nrevision: '{n}'"));
    }
    for n in 0..4 {
        host.wait_for(&format!("o{n}"), &["succeeded"]);
    }
}

#[test]
fn not_now_waits_and_comes_again() {
    let mut host = Host::on_dir("retry");
    let yaml = "name: later\nversion: 1\nretry: {max: 3, initial: 1s}\nsteps:\n  - {name: s, run: [./s]}\n";
    let script = "#!/bin/sh\necho x >> EFFECTS\n[ $(wc -l < EFFECTS) -ge 3 ] || exit 75\n";
    host.task("later", yaml, &[("s", script)]);
    host.start();
    host.order("o", "task: later");
    let report = host.wait_for("o", &["succeeded"]);
    assert_eq!(report["epoch"], 3, "{report}");
}
