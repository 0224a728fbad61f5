//! What happens around an order that was carried out: against a real Consul none of it carries the order out again.
//!
//! The pure decision is held against each order of these events in `domain/decide/tests.rs`; here it is the watch, the
//! indexes and the markers of the real thing that might say something else.

use hostler_testkit::{Consul, Host, signal};
use nix::sys::signal::Signal;

const GROUP: &str = "hostler/groups/hana/orders/o";

/// A host of the group hana.
fn host(name: &str, consul: &Consul) -> Host {
    let mut host = Host::on_consul(name, consul);
    host.counting_task("count", "once:x", "0");
    host.put("hostler/groups/hana/_hostler", "{}");
    host.configure("groups: [hana]");
    host.start();
    host
}

/// Another order, carried out: whatever was seen before it has been decided.
fn settled(host: &Host, round: &str) {
    let name = format!("settled-{round}");
    host.order(&name, "task: count");
    host.wait_for(&name, &["succeeded"]);
}

#[test]
fn p2_a_restart_and_a_reload_start_nothing() {
    let consul = Consul::dev();
    let mut host = host("again", &consul);
    host.order("o", "task: count");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    host.start();
    settled(&host, "restart");
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    settled(&host, "reload");
    host.kill();
    host.start();
    settled(&host, "kill");
    assert_eq!(host.effects("o").len(), 1);
}

#[test]
fn p2_a_key_that_was_deleted_and_made_again_starts_only_what_is_new() {
    let consul = Consul::dev();
    let host = host("deleted", &consul);
    let key = "hostler/hosts/deleted/orders/o";
    host.put(key, "task: count\nrevision: '1'\non_preexisting: run\n");
    host.wait_for("o", &["succeeded"]);
    for round in 0..3 {
        host.delete(key);
        settled(&host, &format!("gone-{round}"));
        // The same instruction, under a new key with a higher index.
        host.put(key, "task: count\nrevision: '1'\n");
        settled(&host, &format!("back-{round}"));
        assert_eq!(host.effects("o").len(), 1, "round {round}");
    }
    host.put(key, "task: count\nrevision: '2'\n");
    host.wait_completed("o", 2);
    // One from before, though not the last one.
    host.put(key, "task: count\nrevision: '1'\n");
    host.wait_for("o", &["held repeated"]);
    assert_eq!(host.effects("o").len(), 2);
}

#[test]
fn p2_a_group_that_is_left_and_joined_again_starts_nothing() {
    let consul = Consul::dev();
    let mut host = host("member", &consul);
    host.put(GROUP, "task: count\nspread: 0s\non_preexisting: run\n");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    host.configure("groups: []");
    host.start();
    settled(&host, "left");
    host.stop();
    host.configure("groups: [hana]");
    host.start();
    settled(&host, "joined");
    assert_eq!(host.effects("o").len(), 1);
    // What was written meanwhile for the group is an order like any other, once the host is in it.
    host.put(GROUP, "task: count\nspread: 0s\nrevision: '2'\n");
    host.wait_completed("o", 2);
}

#[test]
fn p2_an_override_that_is_removed_holds_what_it_uncovers() {
    let consul = Consul::dev();
    let host = host("near", &consul);
    let own = "hostler/hosts/near/orders/o";
    host.put(own, "task: count\nrevision: host\non_preexisting: run\n");
    host.wait_for("o", &["succeeded"]);
    host.put(GROUP, "task: count\nspread: 0s\nrevision: group\n");
    settled(&host, "covered");
    assert_eq!(host.effects("o").len(), 1);
    host.delete(own);
    let report = host.wait_for("o", &["held fallback"]);
    assert_eq!(report["source"], "groups/hana");
    assert!(
        report["error"].as_str().unwrap_or_default().contains("hostler release o --host near"),
        "{report}"
    );
    assert_eq!(host.effects("o").len(), 1);
    // The override comes back, as it was: it counts, and was carried out.
    host.put(own, "task: count\nrevision: host\n");
    host.wait_until("o", "its own again", |report| {
        report["source"] == "hosts/near" && report["phase"] == "succeeded"
    });
    settled(&host, "covered-again");
    assert_eq!(host.effects("o").len(), 1);
}
