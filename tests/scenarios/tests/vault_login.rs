//! How the agent logs in to a real Vault, what `hostler check` says of its role, and how large a secret may be.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hostler_testkit::{Certificates, DEFAULT_TIMEOUT, Host, ROLE_ID, SECRET_ID, Vault, eventually};
use serde_json::json;

fn logins(vault: &Vault) -> usize {
    vault.requests().iter().filter(|line| line.ends_with("/approle/login")).count()
}

fn kv_task(host: &Host) {
    let yaml = "name: kv\nversion: 1\nsecrets: {password: {path: secret/data/app/x, field: password}}\n\
                steps:\n  - {name: a, run: [/bin/true]}\n";
    host.task("kv", yaml, &[]);
}

/// A host that logs in by AppRole, with these words behind its role id.
fn by_role(name: &str, vault: &Vault, more: &str) -> Host {
    let host = Host::on_dir(name);
    let role = host.path("role_id");
    fs::write(&role, ROLE_ID).expect("the role id");
    host.configure(&format!(
        "vault:\n  address: {}\n  auth: {{approle: {{role_id_file: {}{more}}}}}",
        vault.address(),
        role.display()
    ));
    vault.put("app/x", json!({"password": "correct horse"}));
    kv_task(&host);
    host
}

#[test]
fn a_refused_login_is_not_repeated_into_a_lockout_and_a_changed_file_is_tried_at_once() {
    let vault = Vault::start();
    let mut host = Host::on_vault("l1", &vault, "");
    vault.put("app/x", json!({"password": "correct horse"}));
    kv_task(&host);
    fs::write(host.path("secret_id"), "cccccccc-0000-4000-8000-00000000dead").expect("a wrong secret id");
    host.start();
    host.order("o", "task: kv");
    let said = |host: &Host| host.agent_report().unwrap_or_default()["conditions"].to_string();
    eventually(DEFAULT_TIMEOUT, || match (logins(&vault), said(&host)) {
        (2, all) if all.contains("refuses to log the agent in") => Ok(()),
        (count, all) => Err(format!("{count} logins, {all}")),
    });
    let first = said(&host);
    assert!(first.contains("invalid"), "{first}");
    // Orders come and want tokens: nobody asks again, and the first text stays.
    for order in ["p", "q", "r"] {
        host.order(order, "task: kv");
        host.wait_until(order, "to wait for Vault", |report| report["reason"] == "vault");
    }
    let since = Instant::now();
    eventually(DEFAULT_TIMEOUT, || {
        if since.elapsed() > Duration::from_secs(8) { Ok(()) } else { Err("a little".into()) }
    });
    assert_eq!(logins(&vault), 2, "{}", host.log_tail());
    assert_eq!(said(&host), first);
    fs::write(host.path("secret_id"), SECRET_ID).expect("the right secret id");
    let since = Instant::now();
    host.wait_for("o", &["succeeded"]);
    assert!(since.elapsed() < Duration::from_secs(45), "the role was not locked");
    assert!(logins(&vault) >= 3);
}

#[test]
fn each_trouble_with_a_login_has_words_of_its_own() {
    let vault = Vault::start();
    let said = |name: &str, more: &str, secret_id: &str| {
        let host = by_role(name, &vault, more);
        fs::write(host.path("secret_id"), secret_id).expect("a secret id");
        let (status, said) = host.hostler(&["check"]);
        assert_eq!(status, 1, "{said}");
        said
    };
    let unmounted = said("l6", ", mount: nowhere", SECRET_ID);
    assert!(unmounted.contains("auth/nowhere") && unmounted.contains("is `mount` right"), "{unmounted}");
    vault.role(json!({"token_bound_cidrs": ["10.99.0.0/16"]}));
    let elsewhere = said("l7", "", SECRET_ID);
    assert!(elsewhere.contains("token_bound_cidrs"), "{elsewhere}");
    vault.role(json!({"token_bound_cidrs": []}));
    let wrong = "cccccccc-0000-4000-8000-00000000dead";
    let refused = said("l8", "", wrong);
    assert!(refused.contains("invalid"), "{refused}");
    // A server locks the role after some wrong ids, and then says of each login the same as of a wrong mount.
    let locked = eventually(DEFAULT_TIMEOUT, || {
        let text = said("l9", "", wrong);
        if text.contains("invalid") { Err(text) } else { Ok(text) }
    });
    assert!(locked.contains("locked after failed logins"), "{locked}");
}

#[test]
fn a_wrong_scheme_and_a_certificate_of_another_authority_are_named() {
    let (folder, others) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let certificates = Certificates::make(folder.path());
    let vault = Vault::start_tls(&certificates);
    let host = Host::on_dir("l10");
    fs::write(host.path("secret_id"), SECRET_ID).expect("the secret id");
    fs::write(host.path("role_id"), ROLE_ID).expect("the role id");
    let said = |address: &str, ca: &Path| {
        let role = host.path("role_id");
        let (ca, role) = (ca.display(), role.display());
        let auth = format!("{{approle: {{role_id_file: {role}}}}}");
        host.configure(&format!("vault: {{address: \"{address}\", ca_file: {ca}, auth: {auth}}}"));
        host.hostler(&["check"]).1
    };
    let plain = said(&vault.address().replace("https://", "http://"), &certificates.ca);
    assert!(plain.contains("https"), "{plain}");
    let other = said(&vault.address(), &Certificates::make(others.path()).ca);
    assert!(other.contains("certificate") && other.contains("ca_file"), "{other}");
}

#[test]
fn the_secret_id_is_a_credential_or_beside_the_configuration_where_none_is_named() {
    let vault = Vault::start();
    let mut host = by_role("l2", &vault, "");
    host.start();
    host.order("o", "task: kv");
    host.wait_until("o", "to be refused without a secret id", |report| report["reason"] == "vault");
    // Beside the configuration, where the operator puts it.
    fs::write(host.path("secret_id"), SECRET_ID).expect("the secret id");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    fs::remove_file(host.path("secret_id")).expect("the secret id");
    // As the unit hands it over.
    let credentials = host.path("credentials");
    fs::create_dir(&credentials).expect("a folder");
    fs::write(credentials.join("vault.secret_id"), SECRET_ID).expect("the credential");
    host.set_env("CREDENTIALS_DIRECTORY", &credentials.display().to_string());
    host.start();
    host.order("p", "task: kv");
    host.wait_for("p", &["succeeded"]);
}

#[test]
fn check_names_a_role_whose_tokens_can_make_no_others() {
    let vault = Vault::start();
    let host = by_role("l3", &vault, "");
    fs::write(host.path("secret_id"), SECRET_ID).expect("the secret id");
    for (settings, word) in [
        (json!({"token_type": "batch"}), "its tokens are of type batch"),
        (json!({"token_type": "service", "token_num_uses": 20}), "its tokens end after a number of uses"),
    ] {
        vault.role(settings);
        let (status, said) = host.hostler(&["check"]);
        assert!(status == 1 && said.contains(word), "{status} {said}");
        assert!(!said.contains("ok    vault rights    may make tokens"), "{said}");
    }
    vault.role(json!({"token_type": "service", "token_num_uses": 0}));
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("may make tokens for runs"), "{said}");
}

#[test]
fn check_takes_the_agents_own_word_where_the_secret_id_is_wrapped() {
    let vault = Vault::start();
    let mut host = by_role("l4", &vault, ", wrapped: true");
    fs::write(host.path("secret_id"), vault.wrapped_secret_id()).expect("the wrapped secret id");
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("skip  vault") && said.contains("a login from here would spend it"), "{said}");
    host.start();
    host.order("o", "task: kv");
    host.wait_for("o", &["succeeded"]);
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("the agent reports no problem"), "{said}");
    assert!(!said.contains("fail  vault"), "{said}");
    vault.seal(true);
    eventually(Duration::from_secs(75), || match host.hostler(&["check"]) {
        (1, said) if said.contains("the agent reports vault: ") && said.contains("is sealed") => Ok(()),
        (status, said) => Err(format!("{status} {said}")),
    });
}

#[test]
fn p7_the_longest_secret_is_kept_out_of_outputs_and_costs_little_memory() {
    let vault = Vault::start();
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain("0123456789+/ \"$'<&%".chars()).collect();
    let mut state = 7_u64;
    let mut text = String::new();
    while text.len() < 1 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let line_ends = text.len() % 77 == 76;
        text.push(if line_ends { '\n' } else { letters[(state >> 33) as usize % letters.len()] });
    }
    vault.put_v1("app/large", json!({"value": text}));
    vault.put_v1("app/larger", json!({"value": text.clone() + "x"}));
    let mut host = Host::on_vault("l5", &vault, "");
    let task = |name: &str| {
        let yaml = format!(
            "name: {name}\nversion: 1\ntimeout: 120s\nsecrets: {{s: {{path: kv1/app/{name}, field: value}}}}\n\
             steps:\n  - {{name: a, run: [./print]}}\n"
        );
        let print = "#!/bin/sh\nhead -c 200000 \"$HOSTLER_SECRETS/s\"; echo; base64 -w 0 \"$HOSTLER_SECRETS/s\" | \
                     head -c 200000; echo\necho the end\n: > EFFECTS.up\nuntil [ -e EFFECTS.go ]; do sleep 0.05; done\n";
        host.task(name, &yaml, &[("print", print)]);
    };
    task("large");
    task("larger");
    host.start();
    host.order("larger", "task: larger");
    let report = host.wait_for("larger", &["failed"]);
    assert!(report.to_string().contains("a secret has at most 1048576"), "{report}");
    host.order("large", "task: large");
    eventually(Duration::from_secs(180), || {
        if host.path("effects.up").exists() { Ok(()) } else { Err(host.log_tail()) }
    });
    let run = host.runs().pop().expect("a run");
    let claim = fs::read(run.join("claim.1")).expect("the claim");
    let claim: serde_json::Value = serde_json::from_slice(&claim).expect("JSON");
    let status = fs::read_to_string(format!("/proc/{}/status", claim["pid"])).expect("the executor");
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number")
    };
    // The program's own pages, which are many without optimisation, are not what the secret costs.
    let peak = kib("VmHWM:") - kib("RssFile:");
    eprintln!("the executor's memory was {peak} KiB at most");
    assert!(peak < (20 + 10) << 10, "{status}");
    fs::write(host.path("effects.go"), "").expect("the word");
    host.wait_for("large", &["succeeded"]);
    let mut output = String::new();
    for part in ["output", "output.prev", "output.last"] {
        output += &fs::read_to_string(run.join(part)).unwrap_or_default();
    }
    assert!(output.contains("[redacted]") && output.contains("the end"), "{output:.2000}");
    assert!(output.len() < 500, "{output:.2000}");
}
