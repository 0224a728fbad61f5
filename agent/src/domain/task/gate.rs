//! What must hold on the host before a run starts.
//!
//! In the file a gate is a map with one key, its kind, so that a new kind changes nothing about the others. It is
//! read by a type of its own, since whoever asks a gate wants one of the kinds and not a map of absent ones.

use std::path::PathBuf;

use serde::Deserialize;

use crate::domain::facts::Expression;
use crate::domain::span::{Bytes, Span};
use crate::domain::template::Template;

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
    /// An expression over the facts of the host and the parameters of the order.
    Fact(Expression),
    /// Error budget of a service.
    ErrorBudget {
        /// The name of the service.
        service: Template,
        /// How much has to be left. `None`: as much as the task has cost the service before.
        needs: Option<Span>,
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
pub(super) struct GateFile {
    #[serde(default)]
    disk_free: Option<DiskFreeFile>,
    #[serde(default)]
    fact: Option<Expression>,
    #[serde(default)]
    error_budget: Option<ErrorBudgetFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorBudgetFile {
    service: Template,
    #[serde(default)]
    needs: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskFreeFile {
    path: PathBuf,
    #[serde(default)]
    percent: Option<u8>,
    #[serde(default)]
    bytes: Option<Bytes>,
}

impl TryFrom<GateFile> for Gate {
    type Error = &'static str;

    fn try_from(file: GateFile) -> Result<Self, Self::Error> {
        let disk = match file {
            GateFile { disk_free: Some(disk), fact: None, error_budget: None } => disk,
            GateFile { disk_free: None, fact: Some(expression), error_budget: None } => {
                return Ok(Self::Fact(expression));
            }
            GateFile { disk_free: None, fact: None, error_budget: Some(budget) } => {
                return Ok(Self::ErrorBudget { service: budget.service, needs: budget.needs });
            }
            _ => return Err("a gate has exactly one key: disk_free, fact or error_budget"),
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
