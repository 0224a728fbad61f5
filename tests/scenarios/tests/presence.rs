//! The host as a service of a real Consul: what its check says, and that nothing hangs on it.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use hostler::cli::policy;
use hostler::domain::keys::Keys;
use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, Options, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The services of some hosts with their checks, as Consul's own screen shows them.
fn services(consul: &Consul, hosts: &[&str]) -> Vec<Value> {
    let of_host = |host: &&str| {
        let answer = consul.api("GET", &format!("/v1/health/service/hostler-{host}"), b"").body;
        serde_json::from_slice::<Vec<Value>>(&answer).expect("a list")
    };
    hosts.iter().flat_map(of_host).collect()
}

fn check(service: &Value) -> Value {
    let checks = service["Checks"].as_array().cloned().unwrap_or_default();
    let name = &service["Service"]["Service"];
    checks.into_iter().find(|check| check["ServiceName"] == *name).unwrap_or_default()
}

fn until(consul: &Consul, host: &Host, wanted: &str, output: &str) -> Value {
    eventually(DEFAULT_TIMEOUT, || {
        let all = services(consul, &[host.name()]);
        let own = all.first();
        let check = own.map(check).unwrap_or_default();
        match own {
            Some(own) if check["Status"] == wanted && check["Output"].to_string().contains(output) => {
                Ok(own.clone())
            }
            _ => Err(format!("not {wanted} {output:?}: {all:?}; {}", host.log_tail())),
        }
    })
}

fn reload(host: &Host) {
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
}

#[test]
fn a_host_shows_how_it_is_and_what_is_wrong() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("shown", &consul);
    host.counting_task("count", "once:x", "0");
    host.configure("groups: [hana]");
    consul.put("hostler/groups/hana/_hostler", "{}");
    // Two hosts at one Consul agent, as in a test bench, and two tenants.
    let mut other = Host::on_consul("other", &consul);
    host.start();
    other.start();
    let own = until(&consul, &host, "passing", "");
    let version = format!("v{}", env!("CARGO_PKG_VERSION").replace('.', "-"));
    assert_eq!(own["Service"]["Tags"], serde_json::json!(["hostler", version, "hana", "all"]));
    until(&consul, &other, "passing", "");

    host.task("broken", "name: broken", &[]);
    reload(&host);
    until(&consul, &host, "warning", "broken");
    host.order("good", "task: count");
    host.wait_for("good", &["succeeded"]);
    consul.delete("hostler/groups/all/_hostler");
    until(&consul, &host, "critical", "not visible");
    consul.put("hostler/groups/all/_hostler", "{}");
    until(&consul, &host, "warning", "broken");

    // A Consul agent that forgot the service hears of it again with the next change.
    let id = own["Service"]["ID"].as_str().expect("an id");
    assert_eq!(id, "hostler-shown");
    consul.api("PUT", &format!("/v1/agent/service/deregister/{id}"), b"");
    std::fs::remove_dir_all(host.path("tasks/broken")).expect("the broken task");
    reload(&host);
    until(&consul, &host, "passing", "");

    // Stopped in order, it is listed and takes no orders; started again, it does.
    host.stop();
    until(&consul, &host, "critical", "the agent was stopped");
    host.start();
    until(&consul, &host, "passing", "");
    // Told not to, it goes.
    let text = std::fs::read_to_string(host.path("hostler.yml")).expect("the configuration");
    let silent = text.replace("consul: {", "consul: {register: false, ");
    assert_ne!(silent, text);
    std::fs::write(host.path("hostler.yml"), silent).expect("the configuration");
    reload(&host);
    eventually(DEFAULT_TIMEOUT, || match services(&consul, &["shown", "other"]) {
        all if all.len() == 1 && all[0]["Service"]["Meta"]["host"] == "other" => Ok(()),
        all => Err(format!("{all:?}")),
    });
}

#[test]
fn a_token_that_may_not_show_the_host_hinders_nothing() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let keys = Keys::new("hostler/");
    let all = ["all".parse().expect("a name")];
    let printed = policy(&keys, &"quiet".parse().expect("a name"), &all);
    for prefix in ["hosts/quiet", "groups/all"] {
        consul.put(&format!("hostler/{prefix}/_hostler"), "{}");
    }
    // As a policy was printed before there was a service.
    let former = printed.split("service ").next().expect("the rules for keys");
    let token = consul.token("quiet", former);
    let mut host = Host::on_port("quiet", consul.port(), Some(&token));
    host.counting_task("count", "once:x", "0");
    host.start();
    let place = |order: &str| {
        consul.put(&format!("hostler/hosts/quiet/orders/{order}"), "task: count\non_preexisting: run")
    };
    let done = |order: &str| {
        eventually(DEFAULT_TIMEOUT, || match consul.get(&format!("hostler/reports/orders/quiet/{order}")) {
            Some(report) if report.contains("succeeded") => Ok(()),
            report => Err(format!("{report:?}; {}", host.log_tail())),
        });
    };
    place("a");
    done("a");
    let log = std::fs::read_to_string(host.path("log")).expect("the log");
    assert_eq!(log.matches("cannot register the service in Consul").count(), 1, "{log}");
    let report = consul.get("hostler/reports/agents/quiet").expect("the agent's report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["conditions"], serde_json::json!([]));
    assert_eq!(services(&consul, &["quiet"]), Vec::<Value>::new());
    // With the right, and a word to look again, it is there.
    consul.set_rules("quiet", &printed);
    eventually(DEFAULT_TIMEOUT, || {
        // A Consul server may hold the former rules in its cache for a while.
        reload(&host);
        match services(&consul, &["quiet"]).first() {
            Some(service) if check(service)["Status"] == "passing" => Ok(()),
            other => Err(format!("{other:?}; {}", host.log_tail())),
        }
    });
    place("b");
    done("b");
}
