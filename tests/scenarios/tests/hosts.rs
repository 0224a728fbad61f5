//! Hosts that come, get another name, and go: `hostler enroll --token-dir`, `hostler host rename` and
//! `hostler host retire`, with the rights that the shipped policies give.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, Options, eventually, program};

/// A person's command, with that token; its exit status, and all that it printed.
fn hostler(consul: &Consul, token: &str, words: &[&str]) -> (i32, String) {
    let config = consul.folder().join("hostler.yml");
    fs::write(&config, format!("consul: {{address: \"{}\"}}\n", consul.address())).expect("a configuration");
    let mut command = Command::new(program());
    command.args(words).arg("--config").arg(config).env("CONSUL_HTTP_TOKEN", token).env("USER", "alice");
    let output = command.stdin(Stdio::null()).output().expect("the command");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn many_hosts_are_enrolled_with_a_token_each_and_retired_again() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let enroller = consul.token(
        "enroller",
        &format!("{}\nacl = \"write\"\n", include_str!("../../../packaging/policies/consul-enroller.hcl")),
    );
    let operator = consul.token("operator", include_str!("../../../packaging/policies/consul-operator.hcl"));
    let reader = consul.token("reader", include_str!("../../../packaging/policies/consul-reader.hcl"));
    let tokens = consul.folder().join("tokens");
    let dir = tokens.to_str().expect("a path");
    let enroll = ["enroll", "db1", "db2", "--group", "hana", "--token-dir", dir];

    // Without the right nothing is written anywhere.
    let (status, said) = hostler(&consul, &operator, &enroll);
    assert!(status == 4 && said.contains("to list policies"), "{status}: {said}");
    assert!(consul.get("hostler/hosts/db1/_hostler").is_none() && !tokens.exists());

    let (status, said) = hostler(&consul, &enroller, &enroll);
    assert!(status == 0 && said.contains(&format!("{dir}/db2")), "{status}: {said}");
    let file = tokens.join("db1");
    assert_eq!(fs::metadata(&file).expect("a token").permissions().mode() & 0o777, 0o600);
    let token = fs::read_to_string(&file).expect("a token");
    assert!(!said.contains(token.trim()), "a token is shown: {said}");
    // The token of each host is good for its agent, and only there.
    let mut host = Host::on_port("db1", consul.port(), Some(token.trim()));
    host.counting_task("t", "once:x", "0");
    host.configure("groups: [hana]");
    host.start();
    consul.put("hostler/groups/hana/orders/o", "task: t");
    eventually(DEFAULT_TIMEOUT, || match consul.get("hostler/reports/orders/db1/o") {
        Some(report) if report.contains("\"preexisting\"") => Ok(()),
        report => Err(format!("{report:?}")),
    });
    let (_, said) = hostler(&consul, token.trim(), &["status", "--host", "db2"]);
    assert!(said.contains("no host db2 is enrolled"), "{said}");

    // Repeated with another group, the policy grows and the token stays.
    let (status, said) =
        hostler(&consul, &enroller, &["enroll", "db1", "--group", "extra", "--token-dir", dir]);
    assert!(status == 0 && said.contains("no other token was made"), "{status}: {said}");
    assert_eq!(fs::read_to_string(&file).expect("a token"), token);
    assert!(consul.api("GET", "/v1/acl/policy/name/hostler-db1", b"").text().contains("groups/extra/"));

    // Whose token is it?
    for (token, role, status) in [
        (&operator, "operator", 0),
        (&reader, "reader", 0),
        (&reader, "operator", 1),
        (&operator, "reader", 0),
    ] {
        let (ended, said) = hostler(&consul, token, &["check", "--store-only", "--as", role]);
        assert_eq!(ended, status, "{role}: {said}");
        let more = said.contains("may write to hosts, which it does not need");
        assert_eq!(more, token == &operator && role == "reader", "{role}: {said}");
    }

    // An agent that reports is not retired by mistake, and a reader retires nothing.
    let (status, said) = hostler(&consul, &enroller, &["host", "retire", "db1", "--yes"]);
    assert!(status == 6 && said.contains("stop it first"), "{status}: {said}");
    host.stop();
    let retire = ["host", "retire", "db1", "--yes", "--force"];
    let (status, said) = hostler(&consul, &reader, &retire);
    assert!(status == 4, "{status}: {said}");
    let (status, said) = hostler(&consul, &enroller, &retire);
    assert!(status == 0 && said.contains("db1 is retired"), "{status}: {said}");
    let left = consul.api("GET", "/v1/kv/hostler/?keys", b"").text();
    assert!(!left.contains("/db1") && left.contains("hosts/db2/_hostler"), "{left}");
}

#[test]
fn a_renamed_host_keeps_its_orders_and_repeats_nothing() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("before", &consul);
    host.counting_task("t", "once:x", "0");
    host.start();
    host.order("done", "task: t");
    host.wait_for("done", &["succeeded"]);
    host.order("later", "task: t\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("later", &["waiting schedule"]);
    let (status, said) = host.hostler(&["host", "rename", "before", "after"]);
    assert!(status == 0 && said.contains("key \"hostler/reports/agents/after\""), "{status}: {said}");
    host.stop();
    host.rename("after");
    let (status, said) = host.hostler(&["adopt"]);
    assert!(status == 0, "{status}: {said}");
    host.start();
    // Orders of another name are new to it: a person says which of them are still to be carried out.
    host.wait_for("later", &["held fallback"]);
    host.wait_for("done", &["held fallback"]);
    let (status, said) = host.hostler(&["accept", "done", "--host", "after"]);
    assert!(status == 0, "{status}: {said}");
    let (status, said) = host.hostler(&["release", "later", "--host", "after"]);
    assert!(status == 0, "{status}: {said}");
    host.wait_for("later", &["waiting schedule"]);
    host.wait_for("done", &["unchanged"]);
    assert_eq!(host.effects("done").len(), 1, "it was repeated");
    let (status, said) = host.hostler(&["host", "retire", "before", "--yes", "--force"]);
    assert!(status == 0, "{status}: {said}");
    assert!(!consul.api("GET", "/v1/kv/hostler/?keys", b"").text().contains("before"));
    host.wait_for("later", &["waiting schedule"]);
}
