//! What a task says: `task.yml`, as it is written, and whether it makes sense as a whole.
//!
//! [`Task::read`] is the one way to a [`Task`]: whoever holds one knows that its templates name only what
//! there is, that what is undoable has an undo, and that its schema compiles. What lies beside the file, its
//! scripts and playbooks, is the catalogue's business. Every fault carries its line and column.
//!
//! ```text
//!  step.rs    what is carried out: steps, and the commands beside them
//!  gate.rs    what must hold before a run starts
//!  check.rs   whether all of it makes sense together
//!  program.rs which arguments a program reads as code
//! ```

mod check;
mod gate;
mod program;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::Name;
use super::params::Schema;
use super::secret::VersionSelector;
use super::span::{Bytes, Span};
use super::template::Template;
use super::yaml::{self, PathSegment, YamlError};

pub use gate::{Free, Gate};
pub use step::{Command, Effect, Guard, OnCancel, OnTimeout, Step, Work};

use check::Check;

/// The longest `task.yml`, in bytes.
pub const MAX_FILE: usize = 256 * 1024;

/// The most steps of a task.
pub const MAX_STEPS: usize = 100;

/// How a lock on a resource is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// With others that hold it shared.
    Shared,
    /// Alone.
    #[default]
    Exclusive,
}

/// What a run may use of the host; enforced under systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `MemoryMax=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// `CPUWeight=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u16>,
    /// `IOWeight=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
    /// `TasksMax=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// What exit status 75 of a step means: try again later, so often, with growing delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Maximum number of retries.
    pub max: u32,
    /// The delay before the first retry; each further one doubles it.
    pub initial: Span,
    /// The longest delay. `None`: the delay does not grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Span>,
}

impl Retry {
    /// The delay before retry `n`, counted from 1.
    pub fn delay(&self, n: u32) -> Duration {
        let longest = self.max_delay.unwrap_or(self.initial).0;
        let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.0.checked_mul(factor).map_or(longest, |delay| delay.min(longest))
    }
}

/// A task, read and checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a task, a map of fields such as `name: hello`")]
pub struct Task {
    /// Its name, also its folder's.
    pub name: Name,
    /// Counted up by its author.
    pub version: u32,
    /// For people.
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    params: Option<Value>,
    /// What parameters it admits.
    #[serde(skip)]
    pub schema: Schema,
    /// What it needs from Vault, by the name of the file that a step sees.
    #[serde(default)]
    pub secrets: BTreeMap<Name, Secret>,
    /// What it locks on the host.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// What must hold before it starts.
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// How long its steps may execute in all.
    #[serde(default = "hour")]
    pub timeout: Span,
    /// How often a step may ask for a reboot.
    #[serde(default)]
    pub max_reboots: u32,
    /// What exit status 75 means.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Tells whether the wanted state already holds.
    #[serde(default)]
    pub probe: Option<Command>,
    /// Tells after the last step whether it holds now.
    #[serde(default)]
    pub verify: Option<Command>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// May use the reserve of a full disk.
    #[serde(default)]
    pub emergency: bool,
    /// May fire its schedule while the store cannot be reached.
    #[serde(default)]
    pub offline: bool,
    /// Accepts shorter intervals than the agent would.
    #[serde(default)]
    pub allow_short_interval: bool,
}

/// A secret in Vault.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The path, with the engine's own parts such as `kv/data/…`.
    pub path: Template,
    /// Which field of it.
    pub field: String,
    /// Which version of it.
    #[serde(default)]
    pub version: VersionSelector,
    /// Whether it may be shorter than what can be kept out of outputs.
    #[serde(default)]
    pub allow_short_secret: bool,
}

/// A lock on the host that is held while a run executes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// What is locked.
    pub name: Template,
    /// Alone or with others.
    #[serde(default)]
    pub mode: LockMode,
}

fn hour() -> Span {
    Span::secs(3600)
}

impl Task {
    /// Reads and checks a `task.yml`; all faults that can be told at once, in the order of the file.
    pub fn read(text: &str) -> Result<Self, Vec<YamlError>> {
        let mut task: Self = yaml::parse(text, MAX_FILE).map_err(|error| vec![error])?;
        let mut check = Check { text, faults: Vec::new() };
        match Schema::compile(task.params.as_ref()) {
            Ok(schema) => task.schema = schema,
            Err(bad) => {
                let mut path = vec![PathSegment::from("params")];
                path.extend(bad.path);
                // Without a schema every template would fault as well, and hide the one cause.
                return Err(vec![yaml::error_at(text, &path, bad.message)]);
            }
        }
        check.task(&task);
        let mut faults = check.faults;
        faults.sort_by_key(|fault| (fault.line, fault.column));
        if faults.is_empty() { Ok(task) } else { Err(faults) }
    }

    /// Whether each step may be carried out again at any time.
    pub fn is_repeatable(&self) -> bool {
        self.steps.iter().all(|step| step.effect == Effect::Repeatable)
    }

    /// Whether it may be started again and again to hold a state.
    pub fn may_reconcile(&self) -> bool {
        let gentle = |step: &Step| matches!(step.effect, Effect::Repeatable | Effect::Undoable);
        self.probe.is_some() && self.steps.iter().all(gentle)
    }

    /// All commands, with their way in the file: what the catalogue looks for on disk.
    pub fn commands(&self) -> Vec<(Vec<PathSegment>, &[Template])> {
        let mut all = Vec::new();
        for (name, command) in [("probe", &self.probe), ("verify", &self.verify)] {
            all.extend(command.as_ref().map(|command| (vec![name.into()], command.run.as_slice())));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let at = |name: &str| vec!["steps".into(), index.into(), name.into()];
            if let Work::Run(run) = &step.work {
                all.push((at("run"), run));
            }
            all.extend(step.check.as_ref().map(|command| (at("check"), command.run.as_slice())));
            all.extend(step.undo.as_ref().map(|command| (at("undo"), command.run.as_slice())));
            all.extend(step.guard.as_ref().map(|guard| (at("guard"), guard.run.as_slice())));
        }
        all
    }

    /// The users that its commands run as, where it names them.
    pub fn users(&self) -> BTreeSet<&str> {
        let beside = [&self.probe, &self.verify].into_iter().flatten();
        let of_steps = self.steps.iter().flat_map(|step| step.check.iter().chain(&step.undo));
        let of_commands = beside.chain(of_steps).filter_map(|command| command.user.as_deref());
        let of_guards =
            self.steps.iter().filter_map(|step| step.guard.as_ref().and_then(|guard| guard.user.as_deref()));
        let of_steps = self.steps.iter().filter_map(|step| step.user.as_deref());
        of_commands.chain(of_guards).chain(of_steps).collect()
    }

    /// All playbooks, with their way in the file.
    pub fn playbooks(&self) -> Vec<(Vec<PathSegment>, &str)> {
        let steps = self.steps.iter().enumerate();
        steps
            .filter_map(|(index, step)| match &step.work {
                Work::Ansible(playbook) => {
                    Some((vec!["steps".into(), index.into(), "ansible".into()], playbook.as_str()))
                }
                Work::Run(_) => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
