//! What is to be checked of Vault: who the agent is there, until when, what its tasks may read, and whether secrets can
//! be swapped. Nothing is read but rights. A login by AppRole makes one token, which is given up; a wrapped secret id
//! is not spent.

use super::{Check, fail, ok, skip, warn};
use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::cli::connection::Connection;
use crate::cli::fleet::is_late;
use crate::cli::history::this_host_or_node;
use crate::cli::show;
use crate::config::Settings;
use crate::domain::condition::Kind;
use crate::exec::secret_mount;
use crate::host::clock;
use crate::report::document::{self, AgentReport};
use crate::vault::{Myself, Vault};

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let catalog = Catalog::load(&settings.task_dirs, OwnerRule::of_process());
    let wanting = catalog.iter().filter_map(|(name, task)| Some((name, task.ok()?)));
    let wanting: Vec<_> = wanting.filter(|(_, loaded)| !loaded.task.secrets.is_empty()).collect();
    let vault = match settings.vault.clone().build() {
        Err(error) => return vec![fail("vault", error.to_string(), "correct it, then check again")],
        Ok(None) if wanting.is_empty() => return vec![ok("vault", "none, and no task needs one")],
        Ok(None) => {
            let names: Vec<String> = wanting.iter().map(|(name, _)| name.to_string()).collect();
            let finding = format!("none, but these tasks need one: {}", names.join(", "));
            return vec![warn("vault", finding, "set `vault:` in the configuration")];
        }
        Ok(Some(vault)) => vault,
    };
    let mut checks = swap(settings).into_iter().collect::<Vec<_>>();
    let address = vault.server.address.clone();
    let myself = match Vault::new(vault) {
        Ok(vault) if vault.logs_in_once() => {
            checks.push(by_the_agent(settings).await);
            return checks;
        }
        Ok(vault) => Myself::of(&vault).await,
        Err(error) => Err(error),
    };
    let myself = match myself {
        Ok(myself) => myself,
        Err(error) => {
            checks.push(fail(
                "vault",
                error.to_string(),
                "see `vault:` in the configuration, and `vault status`",
            ));
            return checks;
        }
    };
    let until =
        myself.ttl.map_or_else(|| "without end".to_owned(), |ttl| format!("for {} s more", ttl.as_secs()));
    let policies = myself.policies.join(", ");
    checks.push(ok("vault", format!("{} at {address}, with the policies {policies}, {until}", myself.name)));
    if !myself.lacking.is_empty() {
        let finding = format!(
            "`vault.run_policies` names {}, which the agent has not got itself",
            myself.lacking.join(", ")
        );
        checks.push(fail("vault rights", finding, "give the agent's role these policies as well"));
    }
    if let Some(why) = myself.barren {
        checks.push(fail(
            "vault rights",
            format!("may not make tokens for runs: {why}"),
            "change the agent's role",
        ));
    }
    let create = [("make tokens for runs".to_owned(), "auth/token/create".to_owned())];
    let create = create.into_iter().filter(|_| myself.barren.is_none());
    let paths = wanting.iter().flat_map(|(name, loaded)| {
        // A path with a parameter in it is known only with its order.
        let fixed = loaded.task.secrets.iter().filter_map(|(secret, at)| {
            let path = at
                .path
                .source()
                .replace("{{ host }}", settings.host.as_ref().map_or("", |host| host.as_str()));
            (!path.contains("{{")).then(|| (format!("read secret {secret} of task {name}"), path))
        });
        fixed.collect::<Vec<_>>()
    });
    for (what, path) in create.chain(paths) {
        match myself.may(&path).await {
            Ok(words)
                if words.iter().any(|word| ["read", "update", "create", "root"].contains(&word.as_str())) =>
            {
                checks.push(ok("vault rights", format!("may {what}: {path}")));
            }
            Ok(_) => checks.push(fail(
                "vault rights",
                format!("may not {what}: {path}"),
                "give its policy that right",
            )),
            Err(error) => checks.push(warn("vault rights", error.to_string(), "see `vault status`")),
        }
    }
    myself.go().await;
    checks
}

/// What the agent reports, where a login from here would spend what it logs in with.
async fn by_the_agent(settings: &Settings) -> Check {
    let why = "its secret id is wrapped, and a login from here would spend it";
    match report(settings).await {
        None => skip("vault", format!("{why}; the agent has no report that can be read")),
        Some(agent) if is_late(agent.next_report_by, clock::now()) => {
            skip("vault", format!("{why}; the agent is stale since {}", show::time(agent.next_report_by)))
        }
        Some(agent) => match agent.conditions.iter().find(|condition| condition.kind == Kind::Vault.as_str())
        {
            Some(condition) => fail(
                "vault",
                format!("{why}; the agent reports {}", condition.message),
                "see `vault:` in the configuration",
            ),
            None => {
                ok("vault", format!("{why}; the agent reports no problem at {}", show::time(agent.updated)))
            }
        },
    }
}

/// The agent's report of itself.
async fn report(settings: &Settings) -> Option<AgentReport> {
    let place = Connection::existing(settings).ok()?;
    let host = this_host_or_node(settings, &place).await?;
    let key = place.keys.agent_report(&host);
    let listing = place.store.list(&key).await.ok()?;
    let entry = listing.entries.iter().find(|entry| entry.key == key)?;
    document::read(&entry.value).ok()
}

/// Secrets lie on memory that is never swapped; where nothing may be mounted they lie in the runtime folder.
fn swap(settings: &Settings) -> Option<Check> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let plain: Vec<&str> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        // Compressed memory is no disk, and what device mapper has is taken for encrypted.
        .filter(|name| {
            !name.contains("zram") && !name.starts_with("/dev/dm-") && !name.starts_with("/dev/mapper/")
        })
        .collect();
    if plain.is_empty() || secret_mount::kind(&settings.runtime_dir) == secret_mount::Kind::NeverSwapped {
        return None;
    }
    let finding =
        format!("unencrypted swap on {}: what programs keep in memory may reach the disk", plain.join(", "));
    Some(warn("swap", finding, "encrypt the swap, or turn it off"))
}
