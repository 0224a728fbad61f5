//! A service with a check that is kept alive: what Consul makes of it, of silence, and of a token that may not.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use hostler::store::StoreError;
use hostler::store::consul::service::{Health, Service};
use hostler_contract::{LONG, block, client, client_with};
use hostler_testkit::{Consul, Options, eventually};

fn service(ttl: &'static str) -> Service {
    Service {
        name: "hostler-db1".to_owned(),
        id: "hostler-db1:0a1b2c3d".to_owned(),
        tags: vec!["v1-2-3".to_owned(), "hana".to_owned()],
        meta: vec![("host", "db1".to_owned())],
        port: 9732,
        ttl,
        forget: "72h",
    }
}

/// Status and output of the check, as the catalog has them.
fn until(consul: &Consul, wanted: &str, output: &str) -> serde_json::Value {
    eventually(LONG, || {
        let answer = consul.api("GET", "/v1/health/service/hostler-db1", b"").body;
        let all: serde_json::Value = serde_json::from_slice(&answer).expect("a list");
        let checks = all[0]["Checks"].as_array().cloned().unwrap_or_default();
        let check =
            checks.iter().find(|check| check["ServiceName"] == "hostler-db1").cloned().unwrap_or_default();
        let good = check["Status"] == wanted && check["Output"].to_string().contains(output);
        if good { Ok(all[0].clone()) } else { Err(all.to_string()) }
    })
}

#[test]
fn a_service_is_found_tells_how_it_is_and_is_critical_when_it_is_silent() {
    let consul = Consul::dev();
    let store = client(&consul.address());
    // Consul knows no check yet: that is no error, and says what to do.
    assert!(!block(store.tell(&service("1m"), Health::Passing, "")).unwrap());
    block(store.register(&service("1h"), Health::Passing)).unwrap();
    let found = until(&consul, "passing", "");
    assert_eq!(found["Service"]["Tags"], serde_json::json!(["v1-2-3", "hana"]));
    assert_eq!(found["Service"]["Meta"]["host"], "db1");
    assert_eq!(found["Service"]["Port"], 9732);
    assert!(block(store.tell(&service("1h"), Health::Warning, "store: slow\ndisk: full")).unwrap());
    until(&consul, "warning", "disk: full");
    // Nobody says anything any more. It stays listed, and is not answered to whoever asks for those that work.
    block(store.register(&service("1s"), Health::Passing)).unwrap();
    until(&consul, "critical", "TTL expired");
    assert_eq!(consul.api("GET", "/v1/health/service/hostler-db1?passing", b"").text().trim(), "[]");
    block(store.register(&service("1h"), Health::Passing)).unwrap();
    assert!(block(store.tell(&service("1h"), Health::Warning, "back")).unwrap());
    until(&consul, "warning", "back");
    // By a tag, as DNS would.
    let tagged = consul.api("GET", "/v1/catalog/service/hostler-db1?tag=hana", b"").text();
    assert!(tagged.contains("hostler-db1:0a1b2c3d"), "{tagged}");
    block(store.deregister(&service("1h"))).unwrap();
    eventually(LONG, || match consul.api("GET", "/v1/health/service/hostler-db1", b"").text() {
        text if text.trim() == "[]" => Ok(()),
        text => Err(text),
    });
    assert!(!block(store.tell(&service("1h"), Health::Passing, "")).unwrap());
    block(store.deregister(&service("1h"))).unwrap();
}

#[test]
fn a_token_without_the_right_is_denied() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let store =
        client_with(&consul.address(), &consul.token("other", r#"key_prefix "p/" { policy = "read" }"#));
    let answer = block(store.register(&service("1m"), Health::Passing));
    assert!(matches!(answer, Err(StoreError::Denied { .. })), "{answer:?}");
    let may =
        client_with(&consul.address(), &consul.token("may", r#"service "hostler-db1" { policy = "write" }"#));
    block(may.register(&service("1m"), Health::Passing)).unwrap();
    let answer = block(store.tell(&service("1m"), Health::Passing, ""));
    assert!(matches!(answer, Err(StoreError::Denied { .. })), "{answer:?}");
    let answer = block(store.deregister(&service("1m")));
    assert!(matches!(answer, Err(StoreError::Denied { .. })), "{answer:?}");
}
