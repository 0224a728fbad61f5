//! `hostler enroll`: the markers of hosts, and the rights that their agents need.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::connection::{Connection, ConnectionArgs};
use super::exit::{Exit, fault};
use super::fleet::Marker;
use super::{Failure, block, show};
use crate::app::open;
use crate::config::Settings;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::store::When;
use crate::store::consul::acl::Policies;
use crate::store::consul::{Consul, service};

#[derive(Args)]
pub(super) struct Arguments {
    /// The hosts
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<Name>,
    /// A group that the hosts are in, may be repeated; each host is in `all`
    #[arg(long, value_name = "GROUP")]
    group: Vec<Name>,
    /// Print the policies only, write nothing
    #[arg(long)]
    policy_only: bool,
    /// Write each policy into Consul, make a token with it, and write that into the file DIR/HOST
    #[arg(long, value_name = "DIR", conflicts_with_all = ["policy_only", "store_dir"])]
    token_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// What became of one host.
#[derive(Serialize)]
pub(super) struct Enrolled {
    host: Name,
    groups: Vec<Name>,
    /// Markers that were written, and those that were there.
    written: Vec<String>,
    there: Vec<String>,
    policy: String,
    /// The file with its token; `None`: no token was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let mut hosts = arguments.hosts.clone();
        hosts.sort_unstable();
        hosts.dedup();
        let tokens = match &arguments.token_dir {
            Some(dir) => Some(Tokens::open(&arguments.place.settings()?, dir).await?),
            None => None,
        };
        let place = if arguments.policy_only { None } else { Some(arguments.place.make()?) };
        let keys = match &place {
            Some(place) => place.keys.clone(),
            None => arguments.place.settings()?.keys,
        };
        let mut all = Vec::new();
        for host in hosts {
            let mut enrolled = match &place {
                Some(place) => write(place, host, &arguments.group).await?,
                None => Enrolled::of(&keys, host, &arguments.group),
            };
            if let Some(tokens) = &tokens {
                let file = tokens.make(&enrolled.host, &enrolled.policy).await?;
                enrolled.token_file = Some(file);
            }
            if !arguments.json {
                enrolled.show()?;
            }
            all.push(enrolled);
        }
        if arguments.json {
            show::json(&json!({"hosts": all}))?;
        } else {
            let next = match tokens {
                Some(_) => {
                    "next, for each host: bring its file to it as /etc/hostler/consul.token and delete it here"
                }
                None => "next, where Consul has ACLs: a token with this policy for each host",
            };
            show::note(format!("{next}; then, there: hostler check, systemctl enable --now hostler"));
        }
        Ok(Exit::Success.into())
    })
}

/// Enrolls one host: writes its markers.
pub(super) async fn write(place: &Connection, host: Name, groups: &[Name]) -> Result<Enrolled, Failure> {
    let mut enrolled = Enrolled::of(&place.keys, host, groups);
    enrolled.mark(place, groups).await?;
    Ok(enrolled)
}

impl Enrolled {
    fn of(keys: &Keys, host: Name, groups: &[Name]) -> Self {
        let mut groups = groups.to_vec();
        groups.push(Name::all());
        groups.sort_unstable();
        groups.dedup();
        let policy = policy(keys, &host, &groups);
        Self { host, groups, written: Vec::new(), there: Vec::new(), policy, token_file: None }
    }

    /// Writes the markers that are missing, and the host's groups into its own.
    async fn mark(&mut self, place: &Connection, groups: &[Name]) -> Result<(), Failure> {
        for source in sources(&self.host, &self.groups) {
            let marker = place.keys.marker(&source);
            let new = place.store.put(&marker, b"{}".to_vec(), When::Unchanged(0)).await?;
            if new { self.written.push(marker) } else { self.there.push(marker) }
        }
        // A group's members are those that were enrolled into it. Agents do not read it.
        enroll_into(place, &self.host, groups).await
    }

    /// Says what was written, and prints the policy or the file of the token.
    pub(super) fn show(&self) -> Result<(), Failure> {
        self.written.iter().for_each(|marker| show::note(format!("wrote {marker}")));
        self.there.iter().for_each(|marker| show::note(format!("{marker} is there")));
        match &self.token_file {
            // The policy stands in Consul.
            Some(file) => show::line(file.display().to_string())?,
            None => show::raw(self.policy.as_bytes())?,
        }
        Ok(())
    }
}

/// Where tokens for hosts come from and go to.
struct Tokens<'a> {
    consul: Arc<Consul>,
    /// The policies that Consul had before.
    policies: Policies,
    dir: &'a Path,
}

impl<'a> Tokens<'a> {
    /// Asks Consul first: without the right to write ACLs nothing is written anywhere.
    async fn open(settings: &Settings, dir: &'a Path) -> Result<Self, Failure> {
        let Some(consul) = open::opened(settings)?.consul else {
            return Err(fault(Exit::Usage, "a folder as the store has no tokens: leave --token-dir out"));
        };
        let policies = consul.policies().await?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| fault(Exit::ConfigError, format!("cannot make {}: {error}", dir.display())))?;
        Ok(Self { consul, policies, dir })
    }

    /// Writes the host's policy and a token with it. A token that is there is kept: its policy may be newer now.
    async fn make(&self, host: &Name, rules: &str) -> Result<PathBuf, Failure> {
        let (policy, file) = (format!("hostler-{host}"), self.dir.join(host.as_str()));
        self.consul.put_policy(&self.policies, &policy, rules).await?;
        let failed =
            |error: io::Error| fault(Exit::ConfigError, format!("cannot write {}: {error}", file.display()));
        // An empty one is what an interruption left.
        if fs::metadata(&file).is_ok_and(|there| there.len() > 0) {
            show::note(format!("{} is there, so no other token was made", file.display()));
            return Ok(file);
        }
        let mut new = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .map_err(failed)?;
        let written = match self.consul.make_token(&policy, &format!("Hostler on {host}")).await {
            Ok(token) => new
                .write_all(token.reveal().as_bytes())
                .and_then(|()| new.write_all(b"\n"))
                .and_then(|()| new.sync_all())
                .map_err(failed),
            Err(error) => Err(error.into()),
        };
        // Half of a token would look like one the next time.
        written.inspect_err(|_| drop(fs::remove_file(&file)))?;
        Ok(file)
    }
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
    for key in [keys.agent_report(host), keys.facts_report(host), keys.audit_report(host)] {
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
                "key \"t/reports/audit/db1\" {",
                "key_prefix \"t/reports/orders/db1/\" {",
                "key_prefix \"t/reports/runs/db1/\" {",
                "service \"hostler-db1\" {",
            ]
        );
        assert_eq!(policy.matches("\"write\"").count(), 6);
    }
}
