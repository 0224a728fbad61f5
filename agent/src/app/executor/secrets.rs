//! What an executor knows of its run's secrets: fetched before the claim, handed to each command, taken out of what
//! the commands say, and given back at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ExecutorError;
use crate::domain::name::Name;
use crate::domain::plan::Plan;
use crate::domain::secret::{SHORTEST, Secret, VersionSelector};
use crate::domain::template::{Context, Template, render_stdin};
use crate::exec::redact::Redactor;
use crate::exec::secret_mount::Files;
use crate::exec::user::User;
use crate::exec::{ansible, handoff};
use crate::host::disk;
use crate::ledger::{Folder, NotReady};
use crate::vault::{Client, Got, Times, VaultError, VaultGrant, give_up, keep, read_all};

/// The one attempt at all of them; an agent takes an executor without a claim for lost only after longer.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// Giving the token up must not keep a run from ending; it ends by itself.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(5);

/// The variables file for Ansible, beside the secrets; no secret has such a name.
pub(super) const VARS: &str = ".ansible.yml";

/// Where a run's secrets come from.
pub enum SecretSource<'a> {
    /// From nowhere: a run that wants some starts no command.
    Nothing,
    /// From Vault, with what the agent left there.
    ByAgent(&'a str),
    /// From whoever tries the task by hand, by their names.
    Given(BTreeMap<Name, Secret>),
}

/// How it reaches Vault.
struct Access {
    client: Client,
    token: Secret,
    /// How long the token lasts, unless it is renewed.
    lasts: Option<Duration>,
    /// Where the agent has recorded it.
    record: Option<PathBuf>,
}

impl Access {
    /// Gives the token up, and with it the leases that it made. What cannot be given up is left to the agent, which
    /// has a record of it.
    async fn give_up(&self) {
        match timeout(GIVE_UP_WITHIN, give_up(&self.client, &self.token)).await {
            Ok(Ok(())) => {
                if let Some(record) = &self.record
                    && let Err(error) = disk::remove(record)
                {
                    tracing::warn!("{error}");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!("cannot revoke the run's token, leaving it to the agent: {error}")
            }
            Err(_) => tracing::warn!("Vault does not answer, leaving the run's token to the agent"),
        }
    }
}

/// What came of asking for them.
pub(super) enum Fetched {
    /// The run can begin, if only to say what is missing for good.
    Ready(Box<Secrets>),
    /// Not now: nothing has happened, and nothing is kept.
    NotNow(NotReady),
}

/// A run's secrets.
pub(super) struct Secrets {
    got: Got,
    redactor: Option<Arc<Redactor>>,
    access: Option<Arc<Access>>,
    /// Why there are none, although the run wants some: no command is started.
    missing: Option<String>,
}

impl Secrets {
    /// Makes one attempt to fetch them.
    pub(super) async fn fetch(
        plan: &Plan,
        folder: &Folder,
        handed: SecretSource<'_>,
    ) -> Result<Fetched, ExecutorError> {
        let mut secrets = Self { got: Got::default(), redactor: None, access: None, missing: None };
        if plan.secrets.is_empty() {
            return Ok(Fetched::Ready(Box::new(secrets)));
        }
        let word = match handed {
            SecretSource::ByAgent(word) => word,
            SecretSource::Nothing => {
                secrets.missing =
                    Some("the run needs secrets, and there is no Vault to read them from".to_owned());
                return Ok(Fetched::Ready(Box::new(secrets)));
            }
            SecretSource::Given(values) => {
                secrets.missing = lacking(plan, &values);
                secrets.got.values = values;
                return Ok(Fetched::Ready(Box::new(secrets)));
            }
        };
        let bytes = handoff::take(word)?;
        let grant = VaultGrant::from_bytes(&bytes).map_err(std::io::Error::other)?;
        let client = match Client::new(grant.server) {
            Ok(client) => client,
            Err(error) => {
                secrets.missing = Some(error.to_string());
                return Ok(Fetched::Ready(Box::new(secrets)));
            }
        };
        let access = Access { client, token: grant.token, lasts: grant.lasts, record: grant.record };
        let pinned = match folder.secret_versions() {
            Ok(pinned) => pinned,
            Err(error) => {
                access.give_up().await;
                return Err(error.into());
            }
        };
        match read(&access, plan, &pinned, grant.parent).await {
            Ok(got) => {
                secrets.got = got;
            }
            Err(error) => {
                // A dead token is no word on the secrets: the agent gets another.
                if error.may_pass() {
                    let after = error.after().map(|after| after.as_secs());
                    access.give_up().await;
                    return Ok(Fetched::NotNow(NotReady { why: error.to_string(), after }));
                }
                secrets.missing = Some(error.to_string());
            }
        }
        secrets.access = Some(Arc::new(access));
        Ok(Fetched::Ready(Box::new(secrets)))
    }

    /// Sees to it that the values, and the token, are taken out of what the commands say. Of long values this takes a
    /// while, so it is done behind the claim: the agent would take an executor without one for lost.
    pub(super) fn redact(&mut self) {
        if self.missing.is_some() || self.got.values.is_empty() {
            return;
        }
        let token = self.access.as_ref().map(|access| access.token.reveal());
        match Redactor::new(self.got.values.values().map(Secret::reveal).chain(token)) {
            Ok(redactor) => self.redactor = Some(Arc::new(redactor)),
            Err(why) => self.missing = Some(why),
        }
    }

    /// The versions that were read, if any were.
    pub(super) fn versions(&self) -> Option<&BTreeMap<Name, u64>> {
        (!self.got.versions.is_empty()).then_some(&self.got.versions)
    }

    /// What takes them out of a stream.
    pub(super) fn redactor(&self) -> Option<Arc<Redactor>> {
        self.redactor.clone()
    }

    /// A text without them.
    pub(super) fn clean(&self, text: &str) -> String {
        self.redactor.as_ref().map_or_else(|| text.to_owned(), |redactor| redactor.text(text))
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.got.values.iter().map(|(name, value)| (name.as_str(), value.reveal()))
    }

    /// Their files for one command; `None`: the run wants none.
    pub(super) fn files(&self, plan: &Plan, user: &User) -> Result<Option<Files>, String> {
        if plan.secrets.is_empty() {
            return Ok(None);
        }
        if let Some(why) = &self.missing {
            return Err(why.clone());
        }
        let vars = ansible::secret_vars(self.all());
        let files = self.all().chain([(VARS, vars.as_str())]);
        let written = Files::write(&plan.place.runtime_dir, plan.run, user, files);
        written.map(Some).map_err(|error| format!("the secrets cannot be handed to the step: {error}"))
    }

    /// The standard input of a step.
    pub(super) fn render(&self, template: &Template, plan: &Plan) -> Result<Zeroizing<String>, String> {
        let run = plan.run.to_string();
        let context =
            Context { params: &plan.params, host: plan.host.as_str(), order: plan.order.as_str(), run: &run };
        let secrets = self.all().collect();
        render_stdin(template, &context, &secrets).map_err(|_| "its `stdin` cannot be rendered".to_owned())
    }

    /// Keeps token and leases alive beside the commands, until it is aborted.
    pub(super) fn keep(&self, plan: &Plan) -> Option<AbortHandle> {
        let (access, leases, life) =
            (Arc::clone(self.access.as_ref()?), self.got.leases.clone(), plan.timeout.0);
        let kept = async move { keep(&access.client, &access.token, access.lasts, &leases, life).await };
        Some(tokio::spawn(kept).abort_handle())
    }

    /// Gives back what was read, and the token.
    pub(super) async fn give_up(&self) {
        if let Some(access) = &self.access {
            access.give_up().await;
        }
    }
}

/// Why values that were given are not those that the run wants.
fn lacking(plan: &Plan, values: &BTreeMap<Name, Secret>) -> Option<String> {
    for (name, wanted) in &plan.secrets {
        match values.get(name) {
            // As in Vault, there need not be a version before.
            None if wanted.version == VersionSelector::Previous => {}
            None => return Some(format!("the task needs the secret {name}, which was not provided")),
            Some(value) if value.reveal().len() < SHORTEST && !wanted.allow_short_secret => {
                return Some(format!(
                    "secret {name} has fewer than {SHORTEST} bytes, which cannot be kept out of outputs: take a \
                     longer one, or say `allow_short_secret: true` in the task"
                ));
            }
            Some(_) => {}
        }
    }
    let unknown = values.keys().find(|name| !plan.secrets.contains_key(*name))?;
    Some(format!("the task wants no secret {unknown}, which was given"))
}

async fn read(
    Access { client, token, .. }: &Access,
    plan: &Plan,
    pinned: &BTreeMap<Name, u64>,
    parent: Option<Duration>,
) -> Result<Got, VaultError> {
    let times = Times { life: plan.timeout.0, parent };
    let read = read_all(client, token, &plan.secrets, pinned, times);
    timeout(READ_WITHIN, read).await.unwrap_or_else(|_| {
        let place = client.server().address.clone();
        Err(VaultError::Away { place, why: "no answer in time".to_owned() })
    })
}
