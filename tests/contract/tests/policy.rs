//! The policy that `hostler enroll` prints: with it a host can do all that its agent does, and nothing to others.

use hostler::cli::policy;
use hostler::domain::ids::RunId;
use hostler::domain::keys::Keys;
use hostler::domain::name::Name;
use hostler::domain::source::Source;
use hostler::store::consul::service::{self, Health, Service};
use hostler::store::{MAX_WAIT, Read, Store, StoreError, When};
use hostler_contract::{LONG, block, client_with};
use hostler_testkit::{Consul, Options, eventually, request};

#[test]
fn a_host_can_do_its_work_and_touch_no_other() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let keys = Keys::new("hostler/");
    let name = |text: &str| text.parse::<Name>().unwrap();
    // One name is the beginning of the other: a prefix without its slash would take in both.
    let (host, other, order) = (name("db1"), name("db10"), name("backup"));
    let groups = [name("all"), name("hana")];
    let mut sources = vec![Source::Host(host.clone())];
    sources.extend(groups.iter().cloned().map(Source::Group));
    let foreign = [Source::Host(other.clone()), Source::Group(name("hana2"))];
    for source in sources.iter().chain(&foreign) {
        consul.put(&keys.marker(source), "{}");
    }
    let reads: Vec<String> = sources.iter().map(|source| keys.source(source)).collect();
    let foreign = foreign.map(|source| keys.source(&source));
    let run = RunId::new(1, 1);
    let reports = |host: &Name| {
        let (agent, facts) = (keys.agent_report(host), keys.facts_report(host));
        [agent, facts, keys.order_report(host, &order), keys.run_report(host, run)]
    };
    let (own, others) = (reports(&host), reports(&other));
    others.iter().for_each(|key| consul.put(key, "theirs"));

    let token = consul.token("db1", &policy(&keys, &host, &groups));
    let store = client_with(&consul.address(), &token);

    // What the agent reads: each prefix with its marker, listed, watched and in one transaction.
    for prefix in &reads {
        assert!(block(store.list(prefix)).unwrap().without_marker(prefix).is_some(), "{prefix}");
        assert!(
            block(store.changed(prefix, None, MAX_WAIT)).unwrap().without_marker(prefix).is_some(),
            "{prefix}"
        );
    }
    let look: Vec<Read> = reads.iter().cloned().map(Read::Prefix).collect();
    for (prefix, listing) in reads.iter().zip(block(store.look(&look)).unwrap()) {
        assert!(listing.without_marker(prefix).is_some(), "{prefix} in a transaction");
    }
    // What it writes, and reads again after a restart: its own reports.
    for key in &own {
        assert!(block(store.put(key, b"mine".to_vec(), When::Unchanged(0))).unwrap(), "{key}");
        let listing = block(store.list(key)).unwrap();
        assert!(listing.entries.iter().any(|entry| entry.key == *key && entry.value == b"mine"), "{key}");
        assert!(block(store.put(key, b"new".to_vec(), When::Always)).unwrap(), "{key}");
        block(store.delete(key)).unwrap();
        assert_eq!(consul.get(key), None);
    }

    // It shows itself as a service, and as no other; what it registers reaches the catalog.
    let service = Service {
        id: "hostler-db1".into(),
        name: service::name(&host),
        ttl: "1m",
        forget: "72h",
        ..Service::default()
    };
    block(store.register(&service, Health::Passing)).unwrap();
    assert!(block(store.tell(&service, Health::Warning, "a condition")).unwrap());
    eventually(LONG, || match consul.api("GET", "/v1/health/service/hostler-db1", b"").text() {
        text if text.contains("a condition") => Ok(()),
        text => Err(text),
    });
    block(store.deregister(&service)).unwrap();
    let other_service = consul.try_api("PUT", "/v1/agent/service/register", br#"{"ID": "x", "Name": "x"}"#);
    assert_eq!(other_service.unwrap().status, 200, "the management token may");
    // The services of other hosts, one on another node; at the catalog the right for a name is the right on all nodes.
    let theirs = br#"{"Node": "db2", "Address": "10.0.0.2", "Service": {"ID": "hostler-db2", "Service": "hostler-db2",
        "Address": "10.0.0.2", "Port": 9732}, "Check": {"CheckID": "c", "ServiceID": "hostler-db2", "Status": "passing"}}"#;
    consul.api("PUT", "/v1/catalog/register", theirs);
    let longer = br#"{"ID": "hostler-db10", "Name": "hostler-db10", "Port": 1}"#;
    consul.api("PUT", "/v1/agent/service/register", longer);
    let known = || {
        ["hostler-db2", "hostler-db10"].map(|name| {
            let text = consul.api("GET", &format!("/v1/catalog/service/{name}"), b"").text();
            assert!(text.contains(name), "{text}");
            text
        })
    };
    eventually(LONG, || match consul.api("GET", "/v1/catalog/service/hostler-db10", b"").text() {
        text if text.contains("hostler-db10") => Ok(()),
        text => Err(text),
    });
    let before = known();
    for (target, body) in [
        ("/v1/agent/service/register", br#"{"ID": "y", "Name": "y"}"#.as_slice()),
        ("/v1/agent/service/register", br#"{"ID": "x", "Name": "hostler-db1"}"#),
        ("/v1/agent/service/register", br#"{"ID": "hostler-db10", "Name": "hostler-db10", "Port": 666}"#),
        ("/v1/agent/service/register", br#"{"ID": "hostler-db10", "Name": "hostler-db1", "Port": 666}"#),
        ("/v1/agent/service/deregister/x", b""),
        ("/v1/agent/service/deregister/hostler-db10", b""),
        (
            "/v1/catalog/register",
            br#"{"Node": "db2", "Address": "10.0.0.2", "SkipNodeUpdate": true, "Service": {"ID": "hostler-db2",
                "Service": "hostler-db2", "Address": "6.6.6.6", "Port": 666}}"#,
        ),
        (
            "/v1/catalog/register",
            br#"{"Node": "db2", "Address": "10.0.0.2", "SkipNodeUpdate": true, "Service": {"ID": "hostler-db2",
                "Service": "hostler-db1", "Address": "6.6.6.6", "Port": 666}}"#,
        ),
        (
            "/v1/catalog/register",
            br#"{"Node": "db2", "Address": "10.0.0.2", "SkipNodeUpdate": true,
                "Check": {"CheckID": "c", "ServiceID": "hostler-db2", "Status": "critical"}}"#,
        ),
        ("/v1/catalog/deregister", br#"{"Node": "db2", "ServiceID": "hostler-db2"}"#),
        ("/v1/catalog/deregister", br#"{"Node": "db2", "CheckID": "c"}"#),
        ("/v1/catalog/deregister", br#"{"Node": "db2"}"#),
    ] {
        let answer = request(consul.port(), "PUT", target, Some(&token), body).unwrap();
        assert_eq!(answer.status, 403, "{target} {}: {}", String::from_utf8_lossy(body), answer.text());
    }
    assert_eq!(known(), before);

    // Nothing else is seen, and nothing else can be written.
    for prefix in &foreign {
        assert!(block(store.list(prefix)).unwrap().entries.is_empty(), "{prefix} is seen");
    }
    for key in &others {
        assert!(block(store.list(key)).unwrap().entries.is_empty(), "{key} is seen");
    }
    let below = ["_hostler", "freeze", "orders/backup", "control/backup/x", "anything"];
    let prefixes = reads.iter().chain(&foreign);
    let orders = prefixes.flat_map(|prefix| below.map(|rest| format!("{prefix}{rest}")));
    let beside = [format!("{}x", keys.agent_report(&host)), "elsewhere".to_owned()];
    for key in orders.chain(others).chain(beside) {
        let before = consul.get(&key);
        let answers = [
            block(store.put(&key, b"bad".to_vec(), When::Always)).map(drop),
            // The condition that `hostler check` tries rights with: rights are asked first.
            block(store.put(&key, b"bad".to_vec(), When::Unchanged(i64::MAX as u64))).map(drop),
            block(store.delete(&key)),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(StoreError::Denied { .. })), "{key}: {answer:?}");
        }
        assert_eq!(consul.get(&key), before, "{key}");
    }
    // With the rights, the same condition says no and leaves nothing.
    assert!(!block(store.put(&own[0], b"x".to_vec(), When::Unchanged(i64::MAX as u64))).unwrap());
    assert_eq!(consul.get(&own[0]), None);
}

const READER: &str = include_str!("../../../packaging/policies/consul-reader.hcl");
const TEAM: &str = include_str!("../../../packaging/policies/consul-team.hcl");

#[test]
fn a_reader_changes_nothing_and_a_team_only_what_is_its_own() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let (own, others) = (
        [
            "groups/hana/orders/o",
            "groups/hana/freeze",
            "hosts/db1/orders/o",
            "hosts/db1/control/o/c",
            "history/groups/hana/o/1",
            "history/hosts/db1/o/1",
        ],
        [
            "groups/all/orders/o",
            "groups/hana2/orders/o",
            "hosts/db10/orders/o",
            "hosts/db1/_hostler",
            "groups/hana/_hostler",
            "history/groups/hana2/o/1",
            "reports/orders/db1/o",
            "reports/agents/db1",
        ],
    );
    let all = || own.iter().chain(&others).map(|key| format!("hostler/{key}"));
    all().for_each(|key| consul.put(&key, "before"));
    let reader = client_with(&consul.address(), &consul.token("reader", READER));
    let team = client_with(&consul.address(), &consul.token("team", TEAM));
    for key in all() {
        for store in [&reader, &team] {
            let listing = block(store.list(&key)).unwrap();
            assert!(listing.entries.iter().any(|entry| entry.key == key), "{key} is not read");
        }
        assert!(block(reader.put(&key, b"x".to_vec(), When::Always)).is_err(), "a reader writes {key}");
        assert!(block(reader.delete(&key)).is_err(), "a reader deletes {key}");
    }
    for key in others.map(|key| format!("hostler/{key}")) {
        assert!(block(team.put(&key, b"x".to_vec(), When::Always)).is_err(), "the team writes {key}");
        assert!(block(team.delete(&key)).is_err(), "the team deletes {key}");
    }
    assert!(all().all(|key| consul.get(&key).as_deref() == Some("before")));
    for key in own.map(|key| format!("hostler/{key}")) {
        assert!(block(team.put(&key, b"new".to_vec(), When::Always)).unwrap(), "{key}");
        block(team.delete(&key)).unwrap();
    }
}
