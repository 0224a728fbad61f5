//! What a task carries out: its steps, and the commands beside them.
//!
//! The file is shorter than what it means: a command may be a bare list of arguments, a step names its work by
//! `run` or by `ansible`, and most fields have a default. It is read by types of its own, and from there on
//! nobody asks how it was written. What only the whole task can tell is left to `check.rs`.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::name::Name;
use crate::domain::span::Span;
use crate::domain::template::Template;

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

impl Effect {
    /// The word for it, as in a task's file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Repeatable => "repeatable",
            Self::Undoable => "undoable",
            Self::Final => "final",
        }
    }
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
pub(super) struct CommandFile {
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

/// What ends the state that a step puts the host into, when nobody else does any more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The program and its arguments; repeatable.
    pub run: Vec<Template>,
    /// The longest time that the state may last.
    pub within: Span,
    /// The later step whose success ends the state; `None`: the step itself.
    #[serde(default)]
    pub until: Option<Name>,
    /// How long one attempt may take.
    #[serde(default = "minute")]
    pub timeout: Span,
    /// Who runs it, when not the step's user.
    #[serde(default)]
    pub user: Option<String>,
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
    pub check: Option<Command>,
    /// Takes it back.
    pub undo: Option<Command>,
    /// Ends the state that it puts the host into, when it cannot.
    pub guard: Option<Guard>,
    /// A `final` step that goes on from where it was interrupted.
    pub resumable: bool,
    /// What a cancel does to it.
    pub on_cancel: OnCancel,
    /// What the deadline does to it; only a `final` step may say.
    pub on_timeout: Option<OnTimeout>,
    /// Its processes may live on after exit 0.
    pub keep_processes: bool,
    /// None of its commands can gain rights by a program with setuid or with capabilities of its file.
    pub no_new_privileges: bool,
    /// How long it may take; at most the task's own.
    pub timeout: Option<Span>,
    /// What it gets between TERM and KILL.
    pub grace: Span,
    /// What it reads on its standard input; may name secrets.
    pub stdin: Option<Template>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepFile {
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
    check: Option<Command>,
    #[serde(default)]
    undo: Option<Command>,
    #[serde(default)]
    guard: Option<Guard>,
    #[serde(default)]
    resumable: bool,
    #[serde(default)]
    on_cancel: OnCancel,
    #[serde(default)]
    on_timeout: Option<OnTimeout>,
    #[serde(default)]
    keep_processes: bool,
    #[serde(default)]
    no_new_privileges: bool,
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
            check: file.check,
            undo: file.undo,
            guard: file.guard,
            resumable: file.resumable,
            on_cancel: file.on_cancel,
            on_timeout: file.on_timeout,
            keep_processes: file.keep_processes,
            no_new_privileges: file.no_new_privileges,
            timeout: file.timeout,
            grace: file.grace,
            stdin: file.stdin,
        })
    }
}

fn minute() -> Span {
    Span::secs(60)
}

fn half_minute() -> Span {
    Span::secs(30)
}
