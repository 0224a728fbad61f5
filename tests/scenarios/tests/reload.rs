//! SIGHUP on the real agent: what is put in force, what needs a restart, and what a fault in the configuration does.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;

use hostler::cli::policy;
use hostler::domain::keys::Keys;
use hostler_testkit::{
    Consul, DEFAULT_TIMEOUT, Host, Options, Vault, eventually, free_ports, request, signal,
};
use nix::sys::signal::Signal;

fn reload(host: &Host) {
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
}

/// Waits until the conditions are these: each holds its text, and there is no other.
fn conditions(host: &Host, texts: &[&str]) {
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default();
        let all = report["conditions"].as_array().cloned().unwrap_or_default();
        let holds = |(found, text): (&serde_json::Value, &&str)| found.to_string().contains(text);
        let good = report.is_object() && all.len() == texts.len() && all.iter().zip(texts).all(holds);
        if good { Ok(()) } else { Err(format!("wanted {texts:?}, there is {report}; {}", host.log_tail())) }
    });
}

fn up(name: &str) -> Host {
    let mut host = Host::on_dir(name);
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    host
}

#[test]
fn a_fault_leaves_the_former_settings_in_force_and_is_told() {
    let host = up("faulty");
    host.configure("runs: {parallel: 0}");
    reload(&host);
    conditions(
        &host,
        &["settings: keeping the current settings: configuration: `runs.parallel` is 1 to 1000"],
    );
    // One good setting beside a bad one is not put in force either.
    host.configure("tasks: {allow: [other]}\nhots: db1");
    reload(&host);
    conditions(&host, &["unknown field `hots`"]);
    host.order("second", "task: count");
    host.wait_for("second", &["succeeded"]);
    host.configure("vault: {address: nowhere}");
    reload(&host);
    conditions(&host, &["`vault.address`"]);
    host.configure("");
    reload(&host);
    conditions(&host, &[]);
}

#[test]
fn what_needs_a_restart_is_named_until_it_is_taken_back_or_done() {
    let mut host = up("restart");
    host.configure("groups: [hana]\nruns: {parallel: 2}");
    reload(&host);
    conditions(&host, &["settings: groups changed in the configuration: restart the agent"]);
    // Nothing follows from the new groups yet.
    assert_eq!(host.agent_report().expect("a report")["groups"], serde_json::json!(["all"]));
    host.configure("");
    reload(&host);
    conditions(&host, &[]);
    let text = fs::read_to_string(host.path("hostler.yml")).expect("the configuration");
    let elsewhere = text.replace("host: restart", "host: another").replace("/store}", "/elsewhere}");
    fs::write(host.path("hostler.yml"), elsewhere.replace("/state\n", "/another-state\n"))
        .expect("to write it");
    reload(&host);
    conditions(&host, &["settings: host, state_dir, store changed"]);
    host.order("second", "task: count");
    host.wait_for("second", &["succeeded"]);
    host.put("hostler/groups/hana/_hostler", "{}");
    host.configure("groups: [hana]");
    host.stop();
    host.start();
    conditions(&host, &[]);
    assert_eq!(host.agent_report().expect("a report")["groups"], serde_json::json!(["hana", "all"]));
}

/// Puts a configuration in force, with the tasks in this folder; it is in force when its port answers.
fn apply(host: &Host, tasks: &str, more: &str) {
    let [port] = free_ports();
    host.configure(&format!("telemetry: {{listen: \"127.0.0.1:{port}\"}}\n{more}"));
    let text = fs::read_to_string(host.path("hostler.yml")).expect("the configuration");
    fs::write(host.path("hostler.yml"), text.replace("/tasks]", &format!("/{tasks}]"))).expect("to write it");
    reload(host);
    eventually(DEFAULT_TIMEOUT, || match request(port, "GET", "/health", None, b"") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}; {}", host.log_tail())),
    });
}

#[test]
fn tasks_limits_and_the_level_of_the_log_are_put_in_force() {
    let mut host = Host::on_dir("applied");
    host.counting_task("count", "once:x", "0");
    host.counting_task("slow", "once:a", "2");
    host.set_env("HOSTLER_LOG", "");
    host.configure("log: {level: warn}");
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    // Which tasks may be named.
    apply(&host, "tasks", "tasks: {allow: [slow]}\nlog: {level: warn}");
    host.order("second", "task: count");
    let refused = host.wait_for("second", &["refused"]);
    assert!(refused.to_string().contains("not allowed on this host"), "{refused}");
    // Where they are installed.
    fs::rename(host.path("tasks"), host.path("moved")).expect("to move the tasks");
    apply(&host, "moved", "log: {level: warn}");
    host.order("third", "task: slow");
    host.wait_for("third", &["succeeded"]);
    let log = fs::read_to_string(host.path("log")).expect("the log");
    assert!(!log.contains("INFO starting"), "{log}");
    // How many run at once, and what is said of it: the second of two waits for the first.
    apply(&host, "moved", "runs: {parallel: 1}\nlog: {level: info}");
    host.order("fourth", "task: slow");
    host.wait_for("fourth", &["running"]);
    host.order("fifth", "task: slow");
    host.wait_for("fifth", &["waiting parallel"]);
    host.wait_for("fifth", &["succeeded"]);
    let log = fs::read_to_string(host.path("log")).expect("the log");
    assert!(log.contains("INFO starting order=hosts/applied/fourth"), "{log}");
    assert!(!log.contains("hosts/applied/third"), "{log}");
    conditions(&host, &[]);
}

#[test]
fn a_vault_that_is_named_later_is_logged_in_to() {
    let vault = Vault::start();
    let mut host = Host::on_dir("vaulted");
    host.start();
    conditions(&host, &[]);
    let at = host.path("token");
    vault.token("host-token-0000000000001", &["agent", "default"], 3600);
    fs::write(&at, "host-token-0000000000001\n").expect("the token");
    host.configure(&format!(
        "vault: {{address: \"{}\", auth: {{token_file: {}}}}}",
        vault.address(),
        at.display()
    ));
    reload(&host);
    eventually(DEFAULT_TIMEOUT, || {
        let log = fs::read_to_string(host.path("log")).expect("the log");
        if log.contains("logged in to Vault") { Ok(()) } else { Err(log) }
    });
    conditions(&host, &[]);
}

#[test]
fn a_token_for_consul_is_taken_as_soon_as_its_file_changes() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    for prefix in ["hosts/rotated", "groups/all"] {
        consul.put(&format!("hostler/{prefix}/_hostler"), "{}");
    }
    let all = ["all".parse().expect("a name")];
    let rules = policy(&Keys::new("hostler/"), &"rotated".parse().expect("a name"), &all);
    let first = consul.token("first", &rules);
    let second = consul.token("second", &rules);
    let mut host = Host::on_port("rotated", consul.port(), Some(&first));
    host.counting_task("count", "once:x", "0");
    host.start();
    let run = |order: &str| {
        consul.put(&format!("hostler/hosts/rotated/orders/{order}"), "task: count\non_preexisting: run");
        eventually(DEFAULT_TIMEOUT * 2, || {
            match consul.get(&format!("hostler/reports/orders/rotated/{order}")) {
                Some(report) if report.contains("succeeded") => Ok(()),
                report => Err(format!("{report:?}; {}", host.log_tail())),
            }
        });
    };
    run("a");
    // The new one is in its place before the former one ends, as whoever rotates tokens does.
    fs::write(host.path("token"), &second).expect("the token");
    let found = consul.api("GET", "/v1/acl/tokens", b"").body;
    let tokens: serde_json::Value = serde_json::from_slice(&found).expect("a list");
    let of_first = |token: &&serde_json::Value| token["Policies"][0]["Name"] == "first";
    let former = tokens.as_array().expect("a list").iter().find(of_first).expect("the first token");
    let id = former["AccessorID"].as_str().expect("an id");
    consul.api("DELETE", &format!("/v1/acl/token/{id}"), b"");
    run("b");
    let log = fs::read_to_string(host.path("log")).expect("the log");
    assert!(!log.contains(&first) && !log.contains(&second), "a token in the log");
    // Consul itself writes with the token of a registration: it has to have the new one, too. What a check says is told
    // minutes later where its status is the same, so each of the two is another.
    let told = |field: &str, wanted: &str| {
        eventually(DEFAULT_TIMEOUT, || {
            let text = consul.api("GET", "/v1/health/checks/hostler-rotated", b"").text();
            let checks: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let said = checks[0][field].as_str().unwrap_or_default();
            if said.contains(wanted) { Ok(()) } else { Err(text) }
        });
    };
    told("Status", "passing");
    host.stop();
    told("Output", "the agent was stopped");
}
