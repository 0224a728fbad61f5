//! What a watch does not notice is noticed all the same, and nothing starts on it before.
//!
//! A recursive delete without a final slash leaves its mark in Consul outside of the prefix that it empties: where a key
//! below was deleted a moment before, blocking queries on that prefix are not answered.

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually};

/// The agent's conditions that name a prefix which is not visible.
fn not_visible(host: &Host) -> Vec<String> {
    let report = host.agent_report().unwrap_or_default();
    let all = report["conditions"].as_array().cloned().unwrap_or_default();
    let texts = all.iter().filter_map(|condition| condition["message"].as_str().map(str::to_owned));
    texts.filter(|text| text.starts_with("not visible")).collect()
}

/// A host that has carried out an order below `prefix`, which was deleted since; then all below the prefix is deleted.
fn emptied(name: &str, consul: &Consul, prefix: &str) -> Host {
    let mut host = Host::on_consul(name, consul);
    host.counting_task("count", "repeatable:x", "0");
    host.start();
    host.order("first", "task: count");
    host.wait_completed("first", 1);
    consul.put(&format!("{prefix}/orders/gone"), "task: count\nspread: 0s");
    host.wait_completed("gone", 1);
    consul.delete(&format!("{prefix}/orders/gone"));
    eventually(DEFAULT_TIMEOUT, || {
        let ledger = std::fs::read_to_string(host.path("state/ledger")).unwrap_or_default();
        if ledger.contains("\"gone\"") {
            Ok(())
        } else {
            Err("the agent has not seen the deletion".to_owned())
        }
    });
    consul.api("DELETE", &format!("/v1/kv/{prefix}?recurse"), b"");
    host
}

#[test]
fn p5_nothing_starts_when_the_place_of_the_hosts_orders_went_away_unnoticed() {
    let consul = Consul::dev();
    let host = emptied("unseen", &consul, "hostler/hosts/unseen");
    // An order of the host could hide this one: nobody can tell.
    consul.put("hostler/groups/all/orders/second", "task: count\nspread: 0s");
    eventually(DEFAULT_TIMEOUT, || match not_visible(&host) {
        texts if texts.iter().any(|text| text.contains("hosts/unseen/")) => Ok(()),
        texts => Err(format!("{texts:?}; {}", host.log_tail())),
    });
    assert_eq!(host.effects("second"), Vec::<String>::new());
    // With its marker there is nothing that could hide it.
    host.enroll();
    host.wait_completed("second", 1);
    eventually(DEFAULT_TIMEOUT, || {
        if not_visible(&host).is_empty() { Ok(()) } else { Err(not_visible(&host).join("; ")) }
    });
}

#[test]
fn p5_nothing_starts_when_the_place_of_a_group_went_away_unnoticed() {
    let consul = Consul::dev();
    let host = emptied("ungrouped", &consul, "hostler/groups/all");
    host.order("second", "task: count");
    eventually(DEFAULT_TIMEOUT, || match not_visible(&host) {
        texts if texts.iter().any(|text| text.contains("groups/all/")) => Ok(()),
        texts => Err(format!("{texts:?}; {}", host.log_tail())),
    });
    assert_eq!(host.effects("second"), Vec::<String>::new());
    host.enroll();
    host.wait_completed("second", 1);
}

#[test]
fn a_freeze_that_went_away_unnoticed_is_over_within_a_minute() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("thawed", &consul);
    host.counting_task("count", "repeatable:x", "0");
    host.start();
    host.order("first", "task: count");
    host.wait_completed("first", 1);
    consul.put("hostler/groups/all/freeze", "{\"reason\": \"year end\"}");
    host.order("second", "task: count");
    host.wait_for("second", &["waiting freeze"]);
    // The freeze, and the marker with it.
    consul.api("DELETE", "/v1/kv/hostler/groups/all?recurse", b"");
    eventually(DEFAULT_TIMEOUT * 2, || match not_visible(&host) {
        texts if texts.iter().any(|text| text.contains("groups/all/")) => Ok(()),
        texts => Err(format!("{texts:?}; {}", host.log_tail())),
    });
    assert_eq!(host.effects("second"), Vec::<String>::new());
    host.enroll();
    host.wait_completed("second", 1);
}
