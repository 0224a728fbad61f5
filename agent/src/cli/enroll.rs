//! `hostler enroll`: the markers of a host, and the rights that its agent needs.

use clap::Args;
use std::process::ExitCode;

use serde_json::json;

use super::connection::{Connection, ConnectionArgs};
use super::exit::Exit;
use super::fleet::Marker;
use super::{Failure, block, show};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::store::When;
use crate::store::consul::service;

#[derive(Args)]
pub(super) struct Arguments {
    /// The host
    host: Name,
    /// A group that the host is in; each host is in `all`
    #[arg(long, value_name = "GROUP")]
    group: Vec<Name>,
    /// Print the policy only, write nothing
    #[arg(long)]
    policy_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let (host, mut groups) = (&arguments.host, arguments.group.clone());
        groups.push(Name::all());
        groups.sort_unstable();
        groups.dedup();
        let mut written = Vec::new();
        let mut there = Vec::new();
        let keys = if arguments.policy_only {
            arguments.place.settings()?.keys
        } else {
            let place = arguments.place.make()?;
            for source in sources(host, &groups) {
                let marker = place.keys.marker(&source);
                let new = place.store.put(&marker, b"{}".to_vec(), When::Unchanged(0)).await?;
                if new { written.push(marker) } else { there.push(marker) }
            }
            // A group's members are those that were enrolled into it. Agents do not read it.
            enroll_into(&place, host, &arguments.group).await?;
            place.keys
        };
        let policy = policy(&keys, host, &groups);
        if arguments.json {
            show::json(&json!({"host": host, "groups": groups, "written": written, "there": there,
                "policy": policy}))?;
        } else {
            written.iter().for_each(|marker| show::note(format!("wrote {marker}")));
            there.iter().for_each(|marker| show::note(format!("{marker} is there")));
            show::raw(policy.as_bytes())?;
            show::note(format!(
                "next, where Consul has ACLs: a token with this policy for {host}; then, on {host}: hostler check, \
                 systemctl enable --now hostler"
            ));
        }
        Ok(Exit::Success.into())
    })
}

/// Writes the groups of a host into its marker. Without groups an earlier enrolment keeps its own.
async fn enroll_into(place: &Connection, host: &Name, groups: &[Name]) -> Result<(), Failure> {
    let own = place.keys.marker(&Source::Host(host.clone()));
    let entries = place.store.list(&own).await?.entries;
    let before = entries.iter().find(|entry| entry.key == own);
    let before = before.and_then(|entry| serde_json::from_slice::<Marker>(&entry.value).ok());
    let before = before.and_then(|marker| marker.groups);
    if groups.is_empty() && before.is_some() {
        return Ok(());
    }
    // An enrolment that names other groups than the one before is said, not merged: it may be meant.
    let before = before.unwrap_or_default();
    let gone: Vec<&str> = before.iter().filter(|group| !groups.contains(*group)).map(Name::as_str).collect();
    if !gone.is_empty() {
        show::note(format!("{host} was enrolled into {} too, and is no longer", gone.join(", ")));
    }
    let marker = serde_json::to_vec(&Marker { groups: Some(groups.to_vec()) })?;
    place.store.put(&own, marker, When::Always).await?;
    Ok(())
}

/// The host and its groups: a host's agent reads what is meant for each of them, and each has a marker.
fn sources(host: &Name, groups: &[Name]) -> Vec<Source> {
    let groups = groups.iter().cloned().map(Source::Group);
    std::iter::once(Source::Host(host.clone())).chain(groups).collect()
}

/// The policy for a host's token: the rights that its agent needs, and no others. Consul reads it as HCL.
pub fn policy(keys: &Keys, host: &Name, groups: &[Name]) -> String {
    let rule = |kind: &str, key: &str, right: &str| {
        format!("{kind} {} {{\n  policy = \"{right}\"\n}}\n", serde_json::Value::from(key))
    };
    let mut policy =
        format!("# Hostler's agent on {host}: consul acl policy create -name hostler-{host} -rules @FILE\n");
    for source in sources(host, groups) {
        policy.push_str(&rule("key_prefix", &keys.source(&source), "read"));
    }
    // One key and no prefix: that of db1 would be that of db10 too.
    for key in [keys.agent_report(host), keys.facts_report(host)] {
        policy.push_str(&rule("key", &key, "write"));
    }
    for prefix in [keys.order_reports(host), keys.run_reports(host)] {
        policy.push_str(&rule("key_prefix", &prefix, "write"));
    }
    // Consul 1.8 asks for no more: the host's own Consul agent knows which node that is.
    policy.push_str("# Shows the host as a service; `consul.register: false` does without.\n");
    policy.push_str(&rule("service", &service::name(host), "write"));
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policy_is_what_is_printed() {
        let groups = ["all".parse().unwrap(), "hana".parse().unwrap()];
        let printed = policy(&Keys::new("hostler/"), &"db1".parse().unwrap(), &groups);
        assert_eq!(include_str!("../../../packaging/policies/consul-agent.hcl"), printed);
    }

    #[test]
    fn a_policy_names_this_host_alone() {
        let groups = ["all".parse().unwrap(), "hana".parse().unwrap()];
        let policy = policy(&Keys::new("t/"), &"db1".parse().unwrap(), &groups);
        let rules: Vec<&str> = policy.lines().filter(|line| line.ends_with('{')).collect();
        assert_eq!(
            rules,
            [
                "key_prefix \"t/hosts/db1/\" {",
                "key_prefix \"t/groups/all/\" {",
                "key_prefix \"t/groups/hana/\" {",
                "key \"t/reports/agents/db1\" {",
                "key \"t/reports/facts/db1\" {",
                "key_prefix \"t/reports/orders/db1/\" {",
                "key_prefix \"t/reports/runs/db1/\" {",
                "service \"hostler-db1\" {",
            ]
        );
        assert_eq!(policy.matches("\"write\"").count(), 5);
    }
}
