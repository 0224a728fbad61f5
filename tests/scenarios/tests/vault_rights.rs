//! What the agent and its runs may do in Vault: no more than they ask for, and the shipped policies say exactly that.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Vault, eventually};
use serde_json::json;

/// The paths of a shipped policy with what is allowed there; the double's engine of version 2 is called `secret`.
fn shipped(name: &str) -> Vec<(String, Vec<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/policies").join(name);
    let text = fs::read_to_string(path).expect("the policy");
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut rules: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with("path ") {
            let path = quoted(line).remove(0);
            let path = path.strip_prefix("kv/").map_or(path.clone(), |rest| format!("secret/{rest}"));
            rules.push((path, Vec::new()));
        } else if line.starts_with("capabilities ") {
            rules.last_mut().expect("a path before").1 = quoted(line);
        }
    }
    assert!(rules.len() > 3 && rules.iter().all(|(_, words)| !words.is_empty()), "{rules:?}");
    rules
}

fn grant(vault: &Vault, name: &str, rules: &[(String, Vec<String>)]) {
    let words: Vec<Vec<&str>> =
        rules.iter().map(|(_, words)| words.iter().map(String::as_str).collect()).collect();
    let rules: Vec<(&str, &[&str])> =
        rules.iter().zip(&words).map(|((path, _), words)| (path.as_str(), words.as_slice())).collect();
    vault.policy(name, &rules);
}

fn allows(rule: &(String, Vec<String>), path: &str, capability: &str) -> bool {
    let fits = rule.0.strip_suffix('*').map_or(rule.0 == path, |start| path.starts_with(start));
    fits && rule.1.iter().any(|word| word == capability)
}

#[test]
fn the_shipped_policies_allow_what_is_asked_for_and_nothing_else() {
    let vault = Vault::double();
    let (agent, run) = (shipped("vault-agent.hcl"), shipped("vault-run.hcl"));
    grant(&vault, "agent", &agent);
    grant(&vault, "runs", &run);
    // Whether a server's own default policy helps is its operators' business.
    vault.policy("default", &[]);
    vault.role_policies(&["agent", "default", "runs"]);
    vault.token_ttl(3, None);
    vault.lease_ttl(3, None);
    vault.put("postgres/db1", json!({"password": "correct horse"}));
    vault.put("postgres/db1/app", json!({"password": "battery staple"}));
    let mut host = Host::on_vault("db1", &vault, "secret_poll_interval: 1s\n  run_policies: [runs]");
    // Long enough for a renewal of the lease, and of the token, which is asked for the run's time.
    let yaml = "name: t\nversion: 1\ntimeout: 3s\nsecrets:\n  a: {path: 'secret/data/postgres/{{ host }}', field: password}\n  \
                b: {path: 'secret/data/postgres/{{ host }}/app', field: password}\n  \
                c: {path: database/creds/app, field: password}\nsteps:\n  - {name: wait, run: [./wait], effect: final}\n";
    host.task("t", yaml, &[("wait", "#!/bin/sh\nuntil [ -e EFFECTS.go ]; do sleep 0.05; done\n")]);
    // What an executor held that died with an agent before this one.
    let record = host.path("state/tokens/01M8HW76HWN9KFQXCMG87DH2SR.1.x");
    fs::create_dir_all(record.parent().expect("a folder")).expect("the folder");
    let held = r#"{"run": "01M8HW76HWN9KFQXCMG87DH2SR", "epoch": 1, "accessor": "Accessor0123456789abcdef"}"#;
    fs::write(&record, held).expect("the record");
    // Long ago: nothing can still read with it.
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    fs::File::open(&record).and_then(|file| file.set_modified(long_ago)).expect("its age");
    host.start();
    eventually(DEFAULT_TIMEOUT, || if record.exists() { Err(host.log_tail()) } else { Ok(()) });
    host.order(
        "o",
        "task: t\non_secret_change: ['secret/data/postgres/db1#password', 'secret/data/postgres/db1/app#password']",
    );
    eventually(DEFAULT_TIMEOUT, || match vault.policies_of("auth/token/create") {
        all if all == [["default", "runs"]] => Ok(()),
        all => Err(format!("{all:?}; {}", host.log_tail())),
    });
    let asked =
        |child: bool, path: &str| vault.asked().iter().any(|one| one.child == child && one.path == path);
    eventually(DEFAULT_TIMEOUT, || {
        match asked(true, "sys/leases/renew") && asked(false, "secret/metadata/postgres/db1/app") {
            true => Ok(()),
            false => Err(format!("{:?}; {}", vault.asked(), host.log_tail())),
        }
    });
    fs::write(host.path("effects.go"), "").expect("the word");
    host.wait_for("o", &["succeeded"]);
    eventually(DEFAULT_TIMEOUT, || {
        if asked(false, "auth/token/renew-self") { Ok(()) } else { Err(host.log_tail()) }
    });
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("may make tokens for runs"), "{said}");
    for (child, rules) in [(false, &agent), (true, &run)] {
        let asked: BTreeSet<_> = vault.asked().into_iter().filter(|one| one.child == child).collect();
        for one in &asked {
            assert!(
                rules.iter().any(|rule| allows(rule, &one.path, &one.capability)),
                "{one:?} is not in the policy"
            );
        }
        for rule in rules.iter() {
            let used = asked.iter().any(|one| allows(rule, &one.path, &one.capability));
            assert!(used, "nobody asks for {rule:?}: {asked:?}");
        }
    }
}

#[test]
fn a_policy_for_runs_that_the_agent_lacks_is_told() {
    let vault = Vault::start();
    vault.put("app/x", json!({"password": "correct horse"}));
    let mut host = Host::on_vault("r2", &vault, "run_policies: [runs]");
    let yaml = "name: t\nversion: 1\nsecrets: {a: {path: secret/data/app/x, field: password}}\n\
                steps:\n  - {name: a, run: [/bin/true]}\n";
    host.task("t", yaml, &[]);
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("`vault.run_policies` names runs, which the agent has not got itself"), "{said}");
    host.order("o", "task: t");
    host.start();
    host.wait_until("o", "to wait, and why", |report| {
        report["reason"] == "vault" && report["message"].to_string().contains("subset of parent")
    });
    vault.policy("runs", &[("secret/data/app/*", &["read"])]);
    vault.role_policies(&["agent", "default", "runs"]);
    vault.revoke_all();
    host.wait_for("o", &["succeeded"]);
}
