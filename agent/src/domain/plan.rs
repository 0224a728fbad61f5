//! What one run will do, decided before it starts and never changed afterwards.
//!
//! The agent writes the plan into the run's folder; the executor needs nothing else. Everything that could
//! change meanwhile (parameters, templates, scripts) is already rendered or copied.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::ControlId;
use super::ids::{InstructionHash, RunId};
use super::name::{BadName, Name};
use super::secret::VersionSelector;
use super::source::Source;
use super::span::Span;
use super::task::{Effect, Limits, LockMode, OnCancel, OnTimeout, Retry};
use super::template::Template;

/// Why an order is carried out; with the order's key and identity it names an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trigger {
    /// The order was written.
    Placed,
    /// An operator's control of this id wants it.
    Retry(ControlId),
    /// Its schedule came to this instant.
    Firing(Timestamp),
    /// The state that is to hold did not, for the so manieth time.
    Drift(u32),
    /// A secret that it watches has a new version.
    Secret {
        /// Which version.
        version: u64,
        /// Where the secret is.
        path: String,
    },
}

impl From<Trigger> for String {
    fn from(trigger: Trigger) -> Self {
        match trigger {
            Trigger::Placed => "placed".to_owned(),
            Trigger::Retry(control) => format!("retry {control}"),
            Trigger::Firing(instant) => format!("firing {instant}"),
            Trigger::Drift(n) => format!("drift {n}"),
            Trigger::Secret { version, path } => format!("secret {version} of {path}"),
        }
    }
}

impl TryFrom<String> for Trigger {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = match text.split_once(' ') {
            None if text == "placed" => Some(Self::Placed),
            Some(("retry", control)) => control.parse().ok().map(Self::Retry),
            Some(("firing", instant)) => instant.parse().ok().map(Self::Firing),
            Some(("drift", n)) => n.parse().ok().map(Self::Drift),
            Some(("secret", which)) => which.split_once(" of ").and_then(|(version, path)| {
                Some(Self::Secret { version: version.parse().ok()?, path: path.to_owned() })
            }),
            _ => None,
        };
        known.ok_or_else(|| format!("{text:?} is not a trigger that this version knows"))
    }
}

/// A read-only or undoing command, rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How long it may take; `None`: whatever is left of the run's time.
    pub timeout: Option<Span>,
    /// Who runs it; `None`: root.
    pub user: Option<String>,
}

/// What ends the state of a step when nobody else does, rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Who runs it; `None`: root.
    pub user: Option<String>,
    /// How long one attempt may take.
    pub timeout: Span,
    /// How long the state may last.
    pub within: Span,
    /// The step whose success ends the state, counted from 0: the guarded step itself, or a later one.
    pub until: usize,
}

impl Guard {
    /// Its name for people: that of its program.
    pub fn name(&self) -> &str {
        let program = self.argv.first().map_or("?", String::as_str);
        program.rsplit('/').next().unwrap_or(program)
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A program and its arguments.
    Run(Vec<String>),
    /// A playbook of the task's copy.
    Ansible(String),
}

/// One step, rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, for people.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Who runs it; `None`: root.
    pub user: Option<String>,
    /// What may be done after it was interrupted.
    pub effect: Effect,
    /// Tells whether it is done.
    pub check: Option<Command>,
    /// Takes it back.
    pub undo: Option<Command>,
    /// Ends the state that it puts the host into, when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Whether it goes on from where it was interrupted, although it is final.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumable: bool,
    /// What a cancel does to it.
    pub on_cancel: OnCancel,
    /// What the deadline does to it, if it is final.
    pub on_timeout: OnTimeout,
    /// Whether what it leaves running may stay.
    pub keep_processes: bool,
    /// How long it may take; `None`: whatever is left of the run's time.
    pub timeout: Option<Span>,
    /// Between TERM and KILL.
    pub grace: Span,
    /// Whether none of its commands can gain rights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
    /// What it reads on its standard input; the one template that sees secrets, so it is rendered by the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Template>,
}

/// Where a secret is: never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretAt {
    /// The path in Vault.
    pub path: String,
    /// Which field of it.
    pub field: String,
    /// Which version of it.
    #[serde(default, skip_serializing_if = "VersionSelector::is_newest")]
    pub version: VersionSelector,
    /// Whether it may be shorter than what can be kept out of outputs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_short_secret: bool,
}

/// A lock on something of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What is locked, such as `postgres:main`.
    pub name: String,
    /// Shared or exclusive.
    pub mode: LockMode,
}

/// Where on this host the run takes place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPaths {
    /// The task's copy.
    pub task_dir: PathBuf,
    /// Folders of running steps are made below it: `/run/hostler`.
    pub runtime_dir: PathBuf,
    /// Whether the executor is a systemd unit, so that its cgroup holds all its processes.
    pub systemd: bool,
}

/// The whole plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The lowest version that can say this plan ([`super::format::plan_of`]).
    pub version: u32,
    /// Whose plan this is.
    pub run: RunId,
    /// The order's name.
    pub order: Name,
    /// Where the order stands.
    pub source: Source,
    /// The order's identity.
    pub identity: InstructionHash,
    /// Why it is carried out.
    pub trigger: Trigger,
    /// This host.
    pub host: Name,
    /// `name@version`
    pub task: String,
    /// `sha256:…` of the task's copy.
    pub task_digest: String,
    /// Checked parameters, defaults filled in.
    pub params: Value,
    /// Probe only.
    pub dry_run: bool,
    /// How long the run may execute in all; undoing has its own time.
    pub timeout: Span,
    /// Tells whether the wanted state holds.
    pub probe: Option<Command>,
    /// What to do.
    pub steps: Vec<Step>,
    /// Tells whether it worked.
    pub verify: Option<Command>,
    /// What the run may use.
    pub limits: Limits,
    /// What exit status 75 means.
    pub retry: Option<Retry>,
    /// How many times a step may answer 194.
    pub max_reboots: u32,
    /// What it needs from Vault.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, SecretAt>,
    /// What is locked meanwhile.
    pub resources: Vec<Lock>,
    /// Where it takes place.
    pub place: RunPaths,
    /// Takes a place of its own beside the runs at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
}

impl Plan {
    /// The name of the task, without its version.
    pub fn task_name(&self) -> Result<Name, BadName> {
        self.task.split('@').next().unwrap_or_default().parse()
    }
}
