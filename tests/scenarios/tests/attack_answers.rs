//! What a hostile Consul or Vault, or a proxy before them, could do by what it answers: end an executor in the middle of a
//! step, or have the agent's own token written into its log.

use std::fs;

use hostler_testkit::{DEFAULT_TIMEOUT, Fake, Host, Reply, Vault, eventually};

/// Times at the end of their range: of a lease, of the agent's token, and of a run's while its step executes.
#[test]
fn p4_no_time_that_vault_answers_ends_a_step_or_an_agent() {
    for name in ["lease", "token", "run", "half"] {
        let vault = Vault::double();
        vault.policy("agent", &[("database/creds/*", &["read"]), ("auth/token/create", &["update"])]);
        match name {
            "lease" => vault.lease_ttl(u64::MAX, Some(u64::MAX)),
            "token" => vault.token_ttl(u64::MAX, None),
            "run" => vault.claim(u64::MAX),
            _ => vault.claim(u64::MAX >> 1),
        }
        let mut host = Host::on_vault(name, &vault, "");
        let yaml = "name: use\nversion: 1\ntimeout: 60s\nsecrets:\n  a: {path: database/creds/app, field: password}\n\
                    steps:\n  - {name: use, run: [./use], effect: once}\n";
        let script = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN x\" >> EFFECTS\nsleep 2\n";
        host.task("use", yaml, &[("use", script)]);
        host.start();
        host.order("o", "task: use");
        let report = host.wait_until("o", "an end, or a question to an operator", |report| {
            let log = fs::read_to_string(host.path("log")).unwrap_or_default();
            assert!(!log.contains("panicked"), "{name}: {report}\n{log}");
            matches!(report["phase"].as_str(), Some("succeeded" | "failed" | "held" | "unclear"))
        });
        assert_eq!(report["phase"], "succeeded", "{name}: {report}; {}", host.log_tail());
        assert_eq!(host.effects("o"), ["x"], "{name}");
        assert!(host.is_up(), "{name}: {}", host.log_tail());
    }
}

/// The text of an answer is cut where it is long: not within the token, of which a piece would stay.
#[test]
fn p7_no_piece_of_a_token_that_an_answer_repeats_is_logged() {
    const TOKEN: &str = "0123abcd-4567-89ef-fedc-ba9876543210";
    for at in [0, 150, 170, 190, 199, 230] {
        let text = format!("{}{TOKEN} is refused", ".".repeat(at));
        let fake = Fake::start(vec![Reply::Http(403, Vec::new(), text.into_bytes())]);
        let mut host = Host::on_port("repeats", fake.port(), Some(TOKEN));
        host.start();
        eventually(DEFAULT_TIMEOUT, || {
            let log = fs::read_to_string(host.path("log")).unwrap_or_default();
            let said = fake.requests().len() > 3 && log.contains("403");
            if said { Ok(()) } else { Err(log) }
        });
        host.kill();
        let log = fs::read_to_string(host.path("log")).expect("the log");
        for n in 0..TOKEN.len() - 8 {
            let piece = TOKEN.get(n..n + 8).expect("a piece of it");
            assert!(!log.contains(piece), "at {at}: {piece} is in the log:\n{log}");
        }
    }
}
