//! What a task says: `task.yml`, as it is written, and whether it makes sense as a whole.
//!
//! [`Task::read`] is the one way to a [`Task`]: whoever holds one knows that its templates name only what
//! there is, that what is undoable has an undo, and that its schema compiles. What lies beside the file, its
//! scripts and playbooks, is the catalogue's business. Every fault carries its line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::name::Name;
use super::params::Schema;
use super::secret::Which;
use super::span::{Bytes, Span, SpanRange};
use super::template::{NAMES, Template};
use super::yaml::{self, Seg, YamlError, nearest};

/// The longest `task.yml`, in bytes.
pub const MAX_FILE: usize = 256 * 1024;

/// The most steps of a task.
pub const MAX_STEPS: usize = 100;

/// The most reboots of one run: more is a loop.
const MAX_REBOOTS: u32 = 10;

/// What a step does to the host when it is carried out, and so what may be done after it was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Never repeated on a guess, nothing to undo.
    #[default]
    Once,
    /// May be carried out again at any time.
    Repeatable,
    /// Never repeated; has an `undo`.
    Undoable,
    /// The point of no return: nothing is undone once it has started.
    Final,
}

/// What a cancel does to a step under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCancel {
    /// The step goes on to its end, then the run is cancelled.
    Wait,
    /// The step is ended: TERM, grace, KILL.
    #[default]
    Kill,
}

/// What the deadline does to a `final` step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// It is only reported as overdue.
    #[default]
    Report,
    /// It is ended as any other step.
    Kill,
}

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
    /// How many times at most.
    pub max: u32,
    /// The first and the longest delay.
    pub every: SpanRange,
}

/// A task, read and checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
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
    pub reboots: u32,
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
    pub allow_short: bool,
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
    pub version: Which,
    /// Whether it may be shorter than what can be kept out of outputs.
    #[serde(default)]
    pub allow_short: bool,
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

/// What must hold before a run starts; exactly one key in the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "GateFile")]
pub enum Gate {
    /// Room on the file system that holds a path.
    DiskFree {
        /// Any path on it.
        path: PathBuf,
        /// How much.
        free: Free,
    },
}

/// An amount of room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// A share of the whole, 1 to 100.
    Percent(u8),
    /// An amount.
    Bytes(Bytes),
}

/// A gate as it is written. A new kind is a field here, a variant of [`Gate`] and an arm below.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GateFile {
    #[serde(default)]
    disk_free: Option<DiskFreeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskFreeFile {
    path: PathBuf,
    #[serde(default)]
    percent: Option<u8>,
    #[serde(default)]
    bytes: Option<Bytes>,
}

impl TryFrom<GateFile> for Gate {
    type Error = &'static str;

    fn try_from(file: GateFile) -> Result<Self, Self::Error> {
        let GateFile { disk_free: Some(disk) } = file else {
            return Err("a gate has exactly one key: disk_free");
        };
        let free = match (disk.percent, disk.bytes) {
            (Some(percent @ 1..=100), None) => Free::Percent(percent),
            (Some(_), None) => return Err("`percent` is 1 to 100"),
            (None, Some(bytes)) => Free::Bytes(bytes),
            _ => return Err("`disk_free` needs either `percent` or `bytes`"),
        };
        if !disk.path.is_absolute() {
            return Err("`path` is absolute: it begins with `/`");
        }
        Ok(Self::DiskFree { path: disk.path, free })
    }
}

/// A command beside the steps: probe, verify, done, undo. In the file a list of arguments, or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub run: Vec<Template>,
    /// How long it may take.
    pub timeout: Option<Span>,
    /// Who runs it, when not the step's user.
    pub user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandFile {
    run: Vec<Template>,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    user: Option<String>,
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of arguments, or a map with `run`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Command, A::Error> {
                let run = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
                Ok(Command { run, timeout: None, user: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Command, A::Error> {
                let file = CommandFile::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Command { run: file.run, timeout: file.timeout, user: file.user })
            }
        }

        reader.deserialize_any(Either)
    }
}

/// What a step carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A program and its arguments.
    Run(Vec<Template>),
    /// A playbook, by its path in the task's folder.
    Ansible(String),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StepFile")]
pub struct Step {
    /// Its name, once in the task.
    pub name: Name,
    /// What it carries out.
    pub work: Work,
    /// Who runs it; root when not said.
    pub user: Option<String>,
    /// What it does to the host.
    pub effect: Effect,
    /// Tells whether it is done: 0 done, 1 not done, else cannot tell.
    pub done: Option<Command>,
    /// Takes it back.
    pub undo: Option<Command>,
    /// What a cancel does to it.
    pub on_cancel: OnCancel,
    /// What the deadline does to it; only a `final` step may say.
    pub on_timeout: Option<OnTimeout>,
    /// Its processes may live on after exit 0.
    pub leaves: bool,
    /// How long it may take; at most the task's own.
    pub timeout: Option<Span>,
    /// What it gets between TERM and KILL.
    pub grace: Span,
    /// What it reads on its standard input; may name secrets.
    pub stdin: Option<Template>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    name: Name,
    #[serde(default)]
    run: Option<Vec<Template>>,
    #[serde(default)]
    ansible: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    effect: Effect,
    #[serde(default)]
    done: Option<Command>,
    #[serde(default)]
    undo: Option<Command>,
    #[serde(default)]
    on_cancel: OnCancel,
    #[serde(default)]
    on_timeout: Option<OnTimeout>,
    #[serde(default)]
    leaves: bool,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default = "half_minute")]
    grace: Span,
    #[serde(default)]
    stdin: Option<Template>,
}

impl TryFrom<StepFile> for Step {
    type Error = &'static str;

    fn try_from(file: StepFile) -> Result<Self, Self::Error> {
        let work = match (file.run, file.ansible) {
            (Some(run), None) => Work::Run(run),
            (None, Some(playbook)) => Work::Ansible(playbook),
            _ => return Err("a step has exactly one of `run` and `ansible`"),
        };
        Ok(Self {
            name: file.name,
            work,
            user: file.user,
            effect: file.effect,
            done: file.done,
            undo: file.undo,
            on_cancel: file.on_cancel,
            on_timeout: file.on_timeout,
            leaves: file.leaves,
            timeout: file.timeout,
            grace: file.grace,
            stdin: file.stdin,
        })
    }
}

fn hour() -> Span {
    Span::secs(3600)
}

fn half_minute() -> Span {
    Span::secs(30)
}

impl Task {
    /// Reads and checks a `task.yml`; all faults that can be told at once, in the order of the file.
    pub fn read(text: &str) -> Result<Self, Vec<YamlError>> {
        let mut task: Self = yaml::parse(text, MAX_FILE).map_err(|error| vec![error])?;
        let mut check = Check { text, faults: Vec::new() };
        match Schema::compile(task.params.as_ref()) {
            Ok(schema) => task.schema = schema,
            Err(bad) => {
                let mut path = vec![Seg::from("params")];
                path.extend(bad.path);
                // Without a schema every template would fault as well, and hide the one cause.
                return Err(vec![yaml::fault(text, &path, bad.message)]);
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
    pub fn commands(&self) -> Vec<(Vec<Seg>, &[Template])> {
        let mut all = Vec::new();
        for (name, command) in [("probe", &self.probe), ("verify", &self.verify)] {
            all.extend(command.as_ref().map(|command| (vec![name.into()], command.run.as_slice())));
        }
        for (index, step) in self.steps.iter().enumerate() {
            let at = |name: &str| vec!["steps".into(), index.into(), name.into()];
            if let Work::Run(run) = &step.work {
                all.push((at("run"), run));
            }
            all.extend(step.done.as_ref().map(|command| (at("done"), command.run.as_slice())));
            all.extend(step.undo.as_ref().map(|command| (at("undo"), command.run.as_slice())));
        }
        all
    }

    /// All playbooks, with their way in the file.
    pub fn playbooks(&self) -> Vec<(Vec<Seg>, &str)> {
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

/// Collects what is wrong with a task that could be read.
struct Check<'a> {
    text: &'a str,
    faults: Vec<YamlError>,
}

impl Check<'_> {
    fn fault(&mut self, path: &[Seg], message: impl Into<String>) {
        self.faults.push(yaml::fault(self.text, path, message));
    }

    fn task(&mut self, task: &Task) {
        let top = |name: &str| [Seg::from(name)];
        if task.version == 0 {
            self.fault(&top("version"), "versions are counted from 1");
        }
        if task.timeout.0.is_zero() {
            self.fault(&top("timeout"), "no step can be done in no time");
        }
        if task.reboots > MAX_REBOOTS {
            self.fault(&top("reboots"), format!("at most {MAX_REBOOTS} reboots"));
        }
        if task.retry.is_some_and(|retry| retry.max == 0) {
            self.fault(&["retry".into(), "max".into()], "at least 1: or leave `retry` out");
        }
        for (name, weight) in [("cpu_weight", task.limits.cpu_weight), ("io_weight", task.limits.io_weight)] {
            if weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
                self.fault(&["limits".into(), name.into()], "a weight is 1 to 10000; 100 is usual");
            }
        }
        for (index, resource) in task.resources.iter().enumerate() {
            let path = ["resources".into(), index.into(), "name".into()];
            self.template(task, &resource.name, &path);
            if resource.name.source().starts_with("host:") {
                self.fault(&path, "names that begin with `host:` are the agent's own: use another");
            }
        }
        for (name, secret) in &task.secrets {
            let path = ["secrets".into(), name.as_str().into(), "path".into()];
            self.template(task, &secret.path, &path);
            if secret.field.is_empty() {
                self.fault(&["secrets".into(), name.as_str().into(), "field".into()], "name a field");
            }
        }
        for (path, run) in task.commands() {
            self.arguments(task, &path, run);
        }
        for (name, command) in [("probe", &task.probe), ("verify", &task.verify)] {
            if let Some(command) = command {
                self.command(&top(name), command);
            }
        }
        self.steps(task);
    }

    fn steps(&mut self, task: &Task) {
        let top = [Seg::from("steps")];
        if task.steps.is_empty() {
            self.fault(&top, "a task has at least one step");
        }
        if task.steps.len() > MAX_STEPS {
            self.fault(&top, format!("{} steps are too many: at most {MAX_STEPS}", task.steps.len()));
            return;
        }
        let mut names = BTreeSet::new();
        let mut final_step: Option<&Step> = None;
        for (index, step) in task.steps.iter().enumerate() {
            let own = [Seg::from("steps"), Seg::from(index)];
            let at = |name: &str| [Seg::from("steps"), Seg::from(index), Seg::from(name)];
            if !names.insert(&step.name) {
                self.fault(&at("name"), format!("a second step `{}`: give it another name", step.name));
            }
            match (step.effect, &step.undo) {
                (Effect::Undoable, None) => self.fault(&own, "an undoable step needs `undo`"),
                (Effect::Undoable, Some(_)) => {
                    if let Some(point) = final_step {
                        let message = format!(
                            "nothing is undone after the final step `{}`: move this step before it",
                            point.name
                        );
                        self.fault(&at("effect"), message);
                    }
                }
                (_, Some(_)) => self.fault(&at("undo"), "only an `effect: undoable` step has an `undo`"),
                (_, None) => {}
            }
            if step.effect == Effect::Final {
                final_step = final_step.or(Some(step));
            } else if step.on_timeout.is_some() {
                self.fault(&at("on_timeout"), "only an `effect: final` step says `on_timeout`");
            }
            if let Work::Ansible(playbook) = &step.work {
                self.playbook(&at("ansible"), playbook);
                if step.leaves {
                    self.fault(&at("leaves"), "a playbook leaves nothing running: start a unit from it");
                }
            }
            if step.timeout.is_some_and(|timeout| timeout > task.timeout || timeout.0.is_zero()) {
                self.fault(&at("timeout"), format!("more than nothing, at most the task's {}", task.timeout));
            }
            if let Some(stdin) = &step.stdin {
                self.stdin(task, stdin, &at("stdin"));
            }
            if step.grace > hour() {
                self.fault(&at("grace"), "at most 1h");
            }
            self.user(&at("user"), step.user.as_deref());
            for (name, command) in [("done", &step.done), ("undo", &step.undo)] {
                if let Some(command) = command {
                    self.command(&at(name), command);
                }
            }
        }
    }

    fn playbook(&mut self, path: &[Seg], playbook: &str) {
        let inside = !playbook.is_empty()
            && !playbook.starts_with(['/', '-'])
            && !playbook.split('/').any(|part| part == "..")
            && !playbook.contains(|c: char| c.is_control());
        if !inside {
            self.fault(path, "a playbook is named by its path inside the task's folder");
        }
    }

    fn command(&mut self, path: &[Seg], command: &Command) {
        let below = |name: &str| [path, &[Seg::from(name)]].concat();
        self.user(&below("user"), command.user.as_deref());
        if command.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.fault(&below("timeout"), "nothing can be done in no time");
        }
    }

    fn user(&mut self, path: &[Seg], user: Option<&str>) {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-') || user.contains(odd)) {
            self.fault(path, "not the name of a user");
        }
    }

    fn arguments(&mut self, task: &Task, path: &[Seg], run: &[Template]) {
        match run.first() {
            Some(program) => self.argument(path, 0, program_faults(program)),
            None => self.fault(path, "name a program"),
        }
        for (index, template) in run.iter().enumerate() {
            self.argument(path, index, template_faults(task, template));
        }
    }

    fn argument(&mut self, path: &[Seg], index: usize, faults: Vec<String>) {
        for message in faults {
            // A list stands at the path itself, a map has it below `run`.
            let mapped = [path, &[Seg::from("run"), Seg::from(index)]].concat();
            let listed = [path, &[Seg::from(index)]].concat();
            let place = if yaml::has(self.text, &mapped) { mapped } else { listed };
            self.fault(&place, message);
        }
    }

    /// The one template that sees secrets: those that the task names.
    fn stdin(&mut self, task: &Task, template: &Template, path: &[Seg]) {
        for name in template.names() {
            let fault = match name.strip_prefix("secrets.") {
                Some(secret) if task.secrets.keys().any(|known| known.as_str() == secret) => None,
                Some(secret) => Some(format!(
                    "unknown secret `{secret}`: name it below `secrets:`, without - and . in its name"
                )),
                None => name_fault(task, &name),
            };
            if let Some(message) = fault {
                self.fault(path, message);
            }
        }
    }

    fn template(&mut self, task: &Task, template: &Template, path: &[Seg]) {
        for message in template_faults(task, template) {
            self.fault(path, message);
        }
    }
}

/// What is wrong with the first argument of a command.
fn program_faults(program: &Template) -> Vec<String> {
    let text = program.source();
    let leaves = text.split('/').any(|part| part == "..");
    let message = if !program.is_plain() {
        "the program itself is not a template: only its arguments are"
    } else if text.is_empty() || text.contains(|c: char| c.is_control()) {
        "name a program"
    } else if leaves || (text.contains('/') && !text.starts_with("./") && !text.starts_with('/')) {
        "write ./name for a program of the task's folder, without `..`, or a full path"
    } else {
        return Vec::new();
    };
    vec![message.to_owned()]
}

/// Which names of a template nobody will fill.
fn template_faults(task: &Task, template: &Template) -> Vec<String> {
    template.names().iter().filter_map(|name| name_fault(task, name)).collect()
}

fn name_fault(task: &Task, name: &str) -> Option<String> {
    let (root, rest) = name.split_once('.').unwrap_or((name, ""));
    match root {
        "secrets" => {
            Some("templates cannot see secrets: the step reads the file in HOSTLER_SECRETS".to_owned())
        }
        "params" if rest.is_empty() || task.schema.admits(rest) => None,
        "params" => {
            let first = rest.split('.').next().unwrap_or(rest);
            let cure = match nearest(first, task.schema.names()) {
                Some(meant) if meant != first => format!("did you mean `params.{meant}`?"),
                _ => "name it below `params: properties:`".to_owned(),
            };
            Some(format!("unknown parameter `{name}`: {cure}"))
        }
        _ if NAMES.contains(&root) && rest.is_empty() => None,
        _ => {
            let known = task.schema.names().find(|known| *known == root);
            let cure = known.map_or_else(
                || "there are params, host, order and run".to_owned(),
                |known| format!("did you mean `params.{known}`?"),
            );
            Some(format!("unknown name `{name}`: {cure}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
name: postgres-upgrade
version: 3
description: Upgrade a PostgreSQL cluster to a newer major version
params:
  type: object
  required: [cluster, to]
  properties:
    cluster: {type: string, pattern: "^[a-z][a-z0-9_-]{0,30}$"}
    to: {type: integer, minimum: 13}
secrets:
  dba: {path: "kv/data/postgres/{{ host }}", field: password}
resources:
  - {name: "postgres:{{ params.cluster }}", mode: exclusive}
gates: [{disk_free: {path: /var/lib/postgresql, percent: 20}}]
limits: {memory: 2G, cpu_weight: 50, io_weight: 50, tasks: 500}
timeout: 4h
reboots: 1
retry: {max: 10, every: 1m..30m}
probe:  {run: [./probe, "{{ params.cluster }}", "{{ params.to }}"], timeout: 60s}
steps:
  - name: copy
    run: [./copy, "{{ params.cluster }}", "{{ params.to }}"]
    user: postgres
    effect: repeatable
  - name: switch
    run: [./switch, "{{ params.cluster }}", "{{ params.to }}"]
    done: [./is-switched, "{{ params.cluster }}", "{{ params.to }}"]
    undo: [./switch-back, "{{ params.cluster }}"]
    effect: undoable
    on_cancel: wait
  - name: drop-old
    ansible: drop-old.yml
    effect: final
verify: {run: [./verify, "{{ params.cluster }}", "{{ params.to }}"]}
"#;

    const SMALL: &str = "name: t
version: 1
steps:
- name: a
  run: [./a]
";

    fn faults(text: &str) -> Vec<String> {
        Task::read(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_standard_input_sees_secrets_and_only_those_that_are_named() {
        let with = |line: &str| format!("{SMALL}  {line}\nsecrets: {{dba: {{path: kv/x, field: y}}}}\n");
        let task = Task::read(&with("stdin: '<p>{{ secrets.dba | e }}</p>{{ host }}'")).unwrap();
        assert!(task.steps[0].stdin.is_some() && !task.secrets.values().next().unwrap().allow_short);
        for (line, word) in [
            ("stdin: '{{ secrets.bda }}'", "unknown secret `bda`"),
            ("stdin: '{{ secrets }}'", "templates cannot see secrets"),
            ("stdin: '{{ params.x }}'", "unknown parameter"),
            ("done: [./a, '{{ secrets.dba }}']", "templates cannot see secrets"),
        ] {
            let said = faults(&with(line));
            assert!(said.iter().any(|fault| fault.contains(word)), "{line}: {said:?}");
        }
    }

    #[test]
    fn the_example_of_the_design_is_read_as_it_stands() {
        let task = Task::read(FULL).unwrap();
        assert_eq!(task.steps.len(), 3);
        assert_eq!(task.steps[1].effect, Effect::Undoable);
        assert_eq!(task.steps[1].grace, Span::secs(30));
        assert!(matches!(task.gates[0], Gate::DiskFree { free: Free::Percent(20), .. }));
        assert_eq!(task.probe.as_ref().unwrap().timeout, Some(Span::secs(60)));
        assert_eq!(task.commands().len(), 6);
        assert_eq!(task.playbooks()[0].1, "drop-old.yml");
        assert!(!task.is_repeatable() && !task.may_reconcile());
        assert!(task.schema.check(&serde_json::json!({"cluster": "main", "to": 12})).is_err());
        let small = Task::read(SMALL).unwrap();
        assert_eq!(small.timeout, Span::secs(3600));
        assert_eq!(small.steps[0].effect, Effect::Once);
        assert!(small.schema.check(&serde_json::json!({"x": 1})).is_err());
    }

    #[test]
    fn each_fault_has_its_place_and_cure() {
        let full = |from: &str, to: &str| FULL.replace(from, to);
        let mut wrong: Vec<String> = Vec::new();
        for (text, wanted) in [
            (
                full("on_cancel: wait", "on_cancle: wait"),
                "31:5: steps[1].on_cancle: unknown field `on_cancle`: did you mean `on_cancel`?",
            ),
            (full("on_cancel: wait", "on_cancel: wiat"), "did you mean `wait`?"),
            (
                full("params.to }}\"], timeout", "params.tp }}\"], timeout"),
                "20:49: probe.run[2]: unknown parameter `params.tp`: did you mean `params.to`?",
            ),
            (full("{{ host }}", "{{ secrets.x }}"), "12:15: secrets.dba.path: templates cannot see secrets"),
            (
                full("[./switch-back, \"{{ params.cluster }}\"]", "[./switch-back, \"{{ cluster }}\"]"),
                "29:27: steps[1].undo[1]: unknown name `cluster`: did you mean `params.cluster`?",
            ),
            (
                full("    undo: [./switch-back, \"{{ params.cluster }}\"]\n", ""),
                "26:5: steps[1]: an undoable step needs `undo`",
            ),
            (
                full("effect: undoable", "effect: repeatable"),
                "29:11: steps[1].undo: only an `effect: undoable`",
            ),
            (full("name: switch", "name: copy"), "26:11: steps[1].name: a second step `copy`"),
            (
                full("ansible: drop-old.yml", "ansible: ../x.yml"),
                "33:14: steps[2].ansible: a playbook is named",
            ),
            (full("effect: final", "leaves: true"), "leaves: a playbook leaves nothing"),
            (full("on_cancel: wait", "on_timeout: kill"), "steps[1].on_timeout: only an `effect: final`"),
            (full("version: 3", "version: 0"), "3:10: version: versions are counted from 1"),
            (full("version: 3", "version: -1"), "3:10: version: "),
            (full("[./copy,", "[\"{{ params.cluster\","), "23:11: steps[0].run[0]: not a template"),
            (full("[./copy,", "[\"./{{ params.cluster }}\","), "the program itself is not a template"),
            (full("[./copy,", "[../copy,"), "write ./name"),
            (full("minimum: 13", "minimum: thirteen"), "params.properties.to.minimum: not a JSON Schema"),
            (full("type: integer", "$ref: \"x.json\""), "params.properties.to.$ref: `$ref` leaves"),
            (full("percent: 20", "percent: 20, bytes: 5G"), "15:9: gates[0]: `disk_free` needs either"),
            (full("disk_free", "disk_fre"), "did you mean `disk_free`?"),
            (full("timeout: 4h", "timeout: 4 hours"), "17:10: timeout: \"4 hours\" is not a length of time"),
            (full("name: \"postgres:", "name: \"host:"), "resources[0].name: names that begin with `host:`"),
            (full("max: 10", "max: 0"), "retry.max: at least 1"),
            (
                full("ansible: drop-old.yml", "ansible: x.yml\n    run: [./a]"),
                "steps[2]: a step has exactly one of",
            ),
            (full("cpu_weight: 50", "cpu_weight: 0"), "limits.cpu_weight: a weight is"),
            (
                full("effect: repeatable", "effect: final"),
                "30:13: steps[1].effect: nothing is undone after the final step `copy`",
            ),
            ("name: t\nversion: 1\nsteps: []\n".to_owned(), "3:8: steps: a task has at least one step"),
            ("name: T\nversion: 1\nsteps: []\n".to_owned(), "1:7: name: \"T\" is not a name"),
            ("version: 1\nsteps: []\n".to_owned(), "1:1: missing field `name`"),
        ] {
            let got = faults(&text);
            if !got.iter().any(|got| got.contains(wanted)) {
                wrong.push(format!("\n wanted {wanted}\n got    {got:#?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.concat());
        let many: String = (0..101)
            .map(|i| {
                format!(
                    "- {{name: s{i}, run: [x]}}
"
                )
            })
            .collect();
        assert!(
            faults(&format!(
                "name: t
version: 1
steps:
{many}"
            ))[0]
                .contains("101 steps are too many")
        );
    }

    #[test]
    fn all_faults_are_told_at_once_in_the_order_of_the_file() {
        let text = FULL.replace("params.to", "params.tp").replace("version: 3", "version: 0");
        let got = faults(&text);
        assert_eq!(got.len(), 6, "{got:#?}");
        assert!(got[0].starts_with("3:"));
    }

    #[test]
    fn the_schema_describes_what_is_read() {
        use yaml::described::same_fields;
        let schema = include_str!("../../schemas/task.json");
        same_fields::<Task>(schema, "");
        same_fields::<StepFile>(schema, "/$defs/step");
        same_fields::<CommandFile>(schema, "/$defs/command/oneOf/1");
        same_fields::<Secret>(schema, "/$defs/secret");
        same_fields::<Resource>(schema, "/$defs/resource");
        same_fields::<GateFile>(schema, "/$defs/gate");
        same_fields::<DiskFreeFile>(schema, "/$defs/gate/properties/disk_free");
        same_fields::<Limits>(schema, "/$defs/limits");
        same_fields::<Retry>(schema, "/$defs/retry");
    }
}
