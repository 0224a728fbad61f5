//! Facts of a host: whatever their commands do, the others are reported, a condition says what is wrong, and nothing of
//! a command is left. With real Consul.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually, signal};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

const EVERY: &str = "every: 10s\ntimeout: 2s\n";

/// A fact whose script is this.
fn fact(host: &Host, name: &str, script: &str) {
    let yaml = format!("run: [./{name}-script, HDB]\n{EVERY}");
    host.fact(
        &format!("{name}.yml"),
        &yaml,
        &[(&format!("{name}-script"), &format!("#!/bin/bash\n{script}\n"))],
    );
}

/// The messages of the agent's conditions about facts.
fn conditions(host: &Host) -> Vec<String> {
    let report = host.agent_report().unwrap_or_default();
    let all = report["conditions"].as_array().cloned().unwrap_or_default();
    let of_facts = all.iter().filter(|condition| condition["type"] == "fact");
    of_facts.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned()).collect()
}

fn wait_for_facts(host: &Host, good: impl Fn(&Value) -> bool) -> Value {
    eventually(DEFAULT_TIMEOUT, || match host.facts_report() {
        Some(report) if good(&report) => Ok(report),
        other => Err(format!("{other:?}: {:?}", conditions(host))),
    })
}

fn wait_for_condition(host: &Host, wanted: &str) {
    eventually(DEFAULT_TIMEOUT, || {
        let all = conditions(host);
        if all.iter().any(|message| message.contains(wanted)) {
            Ok(())
        } else {
            Err(format!("{wanted}: {all:?}"))
        }
    });
}

#[test]
fn a_command_that_hangs_forks_floods_or_prints_garbage_costs_its_own_fact_alone() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("facts", &consul);
    host.configure("labels: {site: fra}");
    let left = host.path("left").display().to_string();
    fact(&host, "role", r#"echo "{\"role\": \"secondary\", \"sid\": \"$1\", \"host\": \"$HOSTLER_HOST\"}""#);
    host.fact("site.json", r#"{"name": "fra"}"#, &[]);
    fact(&host, "hangs", "trap '' TERM; setsid sleep 1000 & sleep 1000");
    fact(&host, "forks", &format!("env -i setsid sleep 1000 & echo $! > {left}; echo '{{\"ok\": true}}'"));
    fact(&host, "floods", "yes '{\"a\": 1}'");
    fact(&host, "prints", "echo role: primary");
    fact(&host, "fails", "echo 'no connection to HDB' >&2; exit 3");
    fact(
        &host,
        "greedy",
        "head -c 200000000 /dev/zero | tail -c 100000000 | wc -c > /dev/null; exit ${PIPESTATUS[1]}",
    );
    host.fact("foreign.yml", "run: [./role-script]\n", &[]);
    fs::set_permissions(host.path("facts/foreign.yml"), fs::Permissions::from_mode(0o666)).unwrap();
    host.start();
    let report = wait_for_facts(&host, |report| report["facts"]["role"]["role"] == "secondary");
    assert_eq!(
        (&report["facts"]["role"]["sid"], &report["facts"]["role"]["host"]),
        (&"HDB".into(), &"facts".into())
    );
    assert_eq!(report["facts"]["site"]["name"], "fra");
    assert_eq!(report["labels"]["site"], "fra");
    assert_eq!(report["facts"]["forks"]["ok"], true);
    assert!(report["facts"]["host"]["kernel"].is_string(), "{report}");
    let names: Vec<&String> = report["facts"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["forks", "host", "role", "site"]);
    for wanted in [
        "fact hangs: it did not end within 2 s, and was ended; it is absent",
        "fact floods: it printed more than 4096 bytes",
        "fact prints: what it printed is no value: it is not JSON",
        "fact fails: it ended with 3: no connection to HDB; it is absent",
        "fact greedy: it ended with",
        "foreign.yml: writable by its group or by others",
    ] {
        wait_for_condition(&host, wanted);
    }
    // Nothing of them is left, not even what hid itself, and they were no runs.
    let hidden: i32 = fs::read_to_string(&left).unwrap().trim().parse().unwrap();
    assert!(!fs::exists(format!("/proc/{hidden}")).unwrap(), "{hidden} lives");
    assert!(host.runs().is_empty());
    assert!(consul.list("hostler/reports/runs/").is_empty());
    // Asked from anywhere.
    for (words, code, wanted) in [
        (&["facts"][..], 0, "role=secondary"),
        (
            &["facts", "--host", "facts", "--where", "role.role == 'secondary' and labels.site == 'fra'"],
            0,
            "ok=true",
        ),
        (&["facts", "--where", "role.role == 'primary'"], 1, "none of 1 hosts matches"),
        (&["facts", "--group", "all", "--json"], 0, "\"site\": \"fra\""),
        (&["facts", "--where", "role.role =="], 2, "not an expression"),
    ] {
        let (status, said) = host.hostler(words);
        assert!(status == code && said.contains(wanted), "{words:?}: {status} {said}");
    }
    // Root adds one.
    host.fact("rack.json", r#"{"name": "r7"}"#, &[]);
    signal(host.agent_pid().unwrap(), Signal::SIGHUP);
    wait_for_facts(&host, |report| report["facts"]["rack"]["name"] == "r7");
    host.stop();
    eventually(DEFAULT_TIMEOUT, || match host.processes() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

/// Whoever of agent and executor is killed: what was asked goes away, and is asked again.
#[test]
fn a_question_whose_executor_or_agent_is_killed_leaves_nothing() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("killed", &consul);
    let go = host.path("go").display().to_string();
    let began = host.path("began");
    let script = format!(
        "#!/bin/bash\n: >{}\nwhile [ ! -e {go} ]; do sleep 0.1; done\necho '{{\"ok\": true}}'\n",
        began.display()
    );
    host.fact("slow.yml", "run: [./slow]\nevery: 30s\ntimeout: 30s\n", &[("slow", &script)]);
    let asked = |host: &Host| {
        eventually(DEFAULT_TIMEOUT, || fs::remove_file(&began).map_err(|error| error.to_string()));
        host.executors().first().copied().expect("the executor of the question")
    };
    host.start();
    signal(asked(&host), Signal::SIGKILL);
    wait_for_condition(&host, "fact slow: its executor was lost; it is absent");
    let nothing = |host: &Host| {
        eventually(DEFAULT_TIMEOUT, || {
            let folders = fs::read_dir(host.path("run/questions")).map_or(0, Iterator::count);
            match host.processes() {
                left if left.is_empty() && folders == 0 => Ok(()),
                left => Err(format!("{left:?}, {folders} folders")),
            }
        });
    };
    nothing(&host);
    // Each agent asks at its start.
    host.kill();
    host.start();
    asked(&host);
    host.kill();
    fs::write(&go, "").unwrap();
    host.start();
    wait_for_facts(&host, |report| report["facts"]["slow"]["ok"] == true);
    nothing(&host);
}

#[test]
fn a_fact_that_always_changes_is_written_twice_a_minute() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("restless", &consul);
    fact(&host, "ticks", "echo \"{\\\"at\\\": $(date +%s%N)}\"");
    host.start();
    let updated = |report: &Value| report["updated"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let first = wait_for_facts(&host, |report| report["facts"]["ticks"]["at"].is_u64());
    let second = wait_for_facts(&host, |report| report["updated"] != first["updated"]);
    let between = updated(&second).duration_since(updated(&first));
    assert!(between.as_secs() >= 29, "{between}");
    assert_ne!(first["facts"]["ticks"], second["facts"]["ticks"]);
    assert!(Duration::try_from(between).is_ok());
}

/// The blocks of the section about facts in the guide.
fn example() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/writing-tasks.md");
    let page = fs::read_to_string(page).expect("the guide");
    let section = page.split("\n## Facts\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap_or_default().1.to_owned()).collect()
}

/// With the example of the guide.
#[test]
fn a_gate_opens_with_the_fact_and_a_stale_fact_closes_it() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("gated", &consul);
    let blocks = example();
    let [fact, script, task] = blocks.as_slice() else { unreachable!("{blocks:?}") };
    let script = script.replace("/run/replica-", &host.path("replica-").display().to_string());
    host.fact("replica.yml", fact, &[("replica-role", &script)]);
    host.task("promote", task, &[("promote", "#!/bin/sh\n")]);
    let (status, said) = host.hostler(&["task", "lint", &host.path("tasks/promote").display().to_string()]);
    assert_eq!(status, 0, "{said}");
    fs::create_dir(host.path("replica-main")).expect("the folder of the replica");
    host.start();
    host.order("first", "{task: promote, params: {role: secondary}}");
    let waits = |order: &str, wanted: &str| {
        host.wait_until(order, wanted, |report| {
            report["reason"].as_str().is_some_and(|reason| reason.contains("gate"))
                && report.to_string().contains(wanted)
        })
    };
    waits("first", "is not met");
    fs::write(host.path("replica-main/standby.signal"), "").expect("the replica");
    host.wait_for("first", &["succeeded"]);
    fs::remove_file(host.path("facts/replica-role")).expect("the script");
    wait_for_condition(&host, "its last value is stale");
    host.order("second", "{task: promote, params: {role: secondary}}");
    waits("second", "the fact replica is stale");
    let report = wait_for_facts(&host, |report| !report["stale"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(report["facts"]["replica"]["role"], "secondary", "the last good value is kept");
}
