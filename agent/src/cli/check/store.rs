//! What is to be checked of the store: that it answers, what is seen of it, and what may be written.

use super::{Check, fail, ok, skip, warn};
use crate::cli::connection::Connection;
use crate::cli::fleet::{Fleet, conditions_line, is_late};
use crate::cli::history::this_host_or_node;
use crate::cli::show;
use crate::config::{Settings, StoreSettings};
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::source::Source;
use crate::host::clock;
use crate::report::document::{self, AgentReport};
use crate::store::{Listing, StoreError, When};

/// No key ever has this index, so a write under it is refused by the condition, if it is not by the rights.
const NEVER: When = When::Unchanged(i64::MAX as u64);

/// The rights of an agent.
const AGENT: &str = "the policy that hostler enroll prints";

/// For whom a token is that is no agent's.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Role {
    /// Places orders anywhere, and reads reports
    Operator,
    /// Looks only
    Reader,
}

impl Role {
    /// The policy with its rights.
    fn policy(self) -> &'static str {
        match self {
            Self::Operator => "the policy /usr/share/hostler/policies/consul-operator.hcl",
            Self::Reader => "the policy /usr/share/hostler/policies/consul-reader.hcl",
        }
    }
}

/// A last part that no order, run or host can have.
const PROBE: &str = "_check";

/// `role`: whose token it is; `None`: that of this host's agent.
pub(super) async fn checks(place: &Connection, settings: &Settings, role: Option<Role>) -> Vec<Check> {
    let shown = place.store.place();
    let mut checks = Vec::new();
    let marker = place.keys.marker(&Source::Group(Name::all()));
    match place.store.list(&marker).await {
        Err(error @ StoreError::Unreachable { .. }) => {
            checks.push(fail("store", error.to_string(), "is it running, and is the address right?"));
            checks.extend(skipped("the store does not answer"));
            return checks;
        }
        Err(error @ StoreError::NoLeader { .. }) => {
            checks.push(ok("store", format!("{shown} answers")));
            checks.push(fail("leader", error.to_string(), "see consul operator raft list-peers"));
            checks.extend(skipped("the store has no leader"));
            return checks;
        }
        Err(error) => {
            checks.push(fail("store", error.to_string(), "see the token and the store's own log"));
            checks.extend(skipped("the token may not read the group all"));
            return checks;
        }
        Ok(_) => {
            checks.push(ok("store", format!("{shown} answers")));
            if matches!(settings.store, StoreSettings::Consul(_)) {
                checks.push(ok("leader", "known"));
            }
        }
    }
    match role {
        Some(role) => checks.extend(of_person(place, settings, role).await),
        None => match this_host_or_node(settings, place).await {
            Some(host) => checks.extend(of_host(place, settings, &host).await),
            None => checks.push(fail(
                "host",
                "the name of this host is not known: neither the configuration nor the state folder has it, and \
                 Consul does not tell its node's",
                "set `host:`, or give the token `agent \"NODE\" { policy = \"read\" }`; run this as root",
            )),
        },
    }
    checks
}

/// So many of them.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What is not looked at without an answer of the store.
pub(super) fn skipped(why: &str) -> [Check; 3] {
    ["leader", "markers", "rights"].map(|name| skip(name, why))
}

/// What a person's token is for, and what it is not.
async fn of_person(place: &Connection, settings: &Settings, role: Role) -> Vec<Check> {
    let (keys, policy) = (&place.keys, role.policy());
    let mut checks = orders(place).await;
    let consul = matches!(settings.store, StoreSettings::Consul(_));
    // A folder knows no rights: whoever reads it may write.
    if consul || role == Role::Operator {
        for (what, prefix) in [("to hosts", keys.hosts()), ("to groups", keys.groups())] {
            let (what, key) = (format!("write {what}"), format!("{prefix}{PROBE}"));
            checks.push(may(place, &what, &key, role == Role::Operator, policy).await);
        }
    }
    checks.push(match place.store.names(&keys.agent_reports()).await {
        Err(error) => fail("rights", error.to_string(), format!("give the token {policy}")),
        // Consul shows what the token may not read as if it were not there.
        Ok(names) if names.is_empty() => warn(
            "rights",
            "sees no reports of agents",
            "no agent has reported yet, or the token may not read reports",
        ),
        Ok(names) => ok("rights", format!("may read reports: {} seen", counted(names.len(), "agent"))),
    });
    if consul {
        let report = format!("{}{PROBE}", keys.agent_reports());
        checks.push(may(place, "write reports of hosts", &report, false, policy).await);
    }
    checks
}

/// What a person sees: hosts and groups, and freezes that no agent obeys.
async fn orders(place: &Connection) -> Vec<Check> {
    let cure = "hostler enroll HOST, or a token that may read orders";
    let fleet = match Fleet::read(place).await {
        Err(error) => return vec![fail("markers", error.to_string(), cure)],
        Ok(fleet) => fleet,
    };
    let markers = match fleet.enrolled() {
        0 => fail("markers", "no enrolled host or group is seen", cure),
        markers => ok("markers", format!("{markers} enrolled hosts and groups are seen")),
    };
    let wrong = |(source, why): (Source, String)| {
        let key = odd::shown(&place.keys.freeze(&source));
        warn("ignored", format!("{key}: {why}"), "rename it, or remove it")
    };
    std::iter::once(markers).chain(fleet.freezes_of_nobody().into_iter().map(wrong)).collect()
}

async fn of_host(place: &Connection, settings: &Settings, host: &Name) -> Vec<Check> {
    let keys = &place.keys;
    let mut checks = vec![ok("host", host.as_str())];
    let own = Source::Host(host.clone());
    let sources = std::iter::once(own.clone()).chain(settings.groups.iter().cloned().map(Source::Group));
    let groups: Vec<String> = settings.groups.iter().map(|group| format!(" --group {group}")).collect();
    let cure = format!("hostler enroll {host}{}, and its policy for the agent's token", groups.concat());
    for source in sources {
        let prefix = keys.source(&source);
        let mut odd = Vec::new();
        checks.push(match place.store.list(&prefix).await {
            Err(error) => fail("markers", error.to_string(), &*cure),
            Ok(listing) => match listing.without_marker(&prefix) {
                Some(listing) => {
                    odd = ignored(place, &source, &listing);
                    ok("markers", format!("{prefix} with {}", counted(listing.entries.len(), "key")))
                }
                None => fail("markers", format!("{prefix} has no marker, or may not be read"), &*cure),
            },
        });
        checks.append(&mut odd);
    }
    let reports = [
        keys.agent_report(host),
        keys.facts_report(host),
        keys.audit_report(host),
        format!("{}{PROBE}", keys.order_reports(host)),
        format!("{}{PROBE}", keys.run_reports(host)),
    ];
    for key in reports {
        checks.push(may(place, "report", &key, true, AGENT).await);
    }
    if matches!(settings.store, StoreSettings::Consul(_)) {
        let order = format!("{}{PROBE}", keys.orders(&own));
        checks.push(may(place, "write its own orders", &order, false, AGENT).await);
        let other = format!("{}{PROBE}", keys.agent_reports());
        checks.push(may(place, "write other hosts' reports", &other, false, AGENT).await);
    }
    checks.push(agent(place, host).await);
    checks
}

/// Keys below the prefix of a host or group that have no effect.
fn ignored(place: &Connection, source: &Source, listing: &Listing) -> Vec<Check> {
    let prefix = place.keys.source(source);
    let wrong = |key: &str| odd::key(source, key.strip_prefix(&prefix)?);
    let entries = listing.entries.iter().filter_map(|entry| Some((entry.key.clone(), wrong(&entry.key)?)));
    let files = place.store.passed_over(&prefix);
    let all = entries.chain(files);
    all.map(|(key, why)| warn("ignored", format!("{}: {why}", odd::shown(&key)), "rename it, or remove it"))
        .collect()
}

/// Whether the token may do something: tried with a write that cannot happen.
async fn may(place: &Connection, what: &str, key: &str, wanted: bool, policy: &str) -> Check {
    let answer = place.store.put(key, Vec::new(), NEVER).await;
    let cure = format!("give the token {policy}, and no more");
    match (answer, wanted) {
        (Ok(_), true) => ok("rights", format!("may {what} ({key})")),
        (Ok(_), false) => warn("rights", format!("may {what}, which it does not need"), cure),
        (Err(StoreError::Denied { .. }), false) => ok("rights", format!("may not {what}")),
        (Err(error @ StoreError::Denied { .. }), true) => {
            fail("rights", format!("may not {what}: {error}"), cure)
        }
        (Err(error), _) => fail("rights", error.to_string(), "check again"),
    }
}

async fn agent(place: &Connection, host: &Name) -> Check {
    let key = place.keys.agent_report(host);
    let cure = "see systemctl status hostler";
    let listing = match place.store.list(&key).await {
        Ok(listing) => listing,
        Err(error) => return fail("agent", error.to_string(), cure),
    };
    let Some(entry) = listing.entries.iter().find(|entry| entry.key == key) else {
        return warn("agent", "it has never reported", cure);
    };
    let agent = match document::read::<AgentReport>(&entry.value) {
        Ok(agent) => agent,
        Err(error) => {
            return warn("agent", error.to_string(), "is a newer version of hostler installed elsewhere?");
        }
    };
    if is_late(agent.next_report_by, clock::now()) {
        warn("agent", format!("stale since {}", show::time(agent.next_report_by)), cure)
    } else if agent.conditions.is_empty() {
        ok("agent", format!("reported at {}", show::time(agent.updated)))
    } else {
        warn("agent", conditions_line(&agent), "see the other checks and its journal")
    }
}
