//! `hostler order edit` and `hostler order revert`: an order changed in the reader's editor, or put back as it was.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::former::{self, Former};
use super::{New, Writing, identity, replace};
use crate::cli::connection::{Connection, SourceArgs};
use crate::cli::document::user;
use crate::cli::exit::{Exit, fault};
use crate::cli::fleet::{Fleet, Placed};
use crate::cli::table::Table;
use crate::cli::{Failure, env, show};
use crate::domain::name::Name;
use crate::domain::order::{Document, MAX_ORDER};
use crate::domain::source::OrderKey;
use crate::domain::yaml;
use crate::exec::editor;
use crate::host::{clock, disk};

/// The order, and how its new document is written.
#[derive(Args)]
struct Target {
    /// The order's name
    #[arg(value_name = "ORDER")]
    name: Name,
    #[command(flatten)]
    source: SourceArgs,
    /// Who changes it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    writing: Writing,
}

impl Target {
    fn key(&self) -> Result<OrderKey, Failure> {
        Ok(OrderKey { source: self.source.source()?, order: self.name.clone() })
    }

    /// Writes a text in place of what is there.
    async fn write(&self, place: &Connection, fleet: &Fleet, text: Vec<u8>) -> Result<Exit, Failure> {
        let document = Document::read(&text).map_err(|error| fault(Exit::ConfigError, error.to_string()))?;
        let (by, reason) = (self.by.clone().or_else(user), self.reason.clone());
        replace(&self.writing, place, fleet, New { key: self.key()?, text, document, by, reason }).await
    }
}

#[derive(Args)]
pub(super) struct Edit {
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub(super) struct Revert {
    #[command(flatten)]
    target: Target,
    /// Which former document: 1 is the newest
    #[arg(long, value_name = "N", default_value = "1")]
    to: usize,
    /// List the former documents, and write nothing
    #[arg(long)]
    list: bool,
    /// The documents that this host's own runs carried out, in place of those that the store keeps
    #[arg(long)]
    of_runs: bool,
}

pub(super) async fn edit(edit: &Edit) -> Result<ExitCode, Failure> {
    let key = edit.target.key()?;
    let place = edit.target.writing.place.open()?;
    let fleet = Fleet::read(&place).await?;
    fleet.check(&key.source)?;
    let Some(placed) = fleet.orders.get(&key) else {
        return Err(fleet.no_order(&key.order, Some(&key.source)));
    };
    let said = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let command = said("VISUAL").or_else(|| said("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let mut file = tempfile_in(&key)?;
    file.write(&placed.value)?;
    if !editor::edit(&command, file.path())? {
        let message =
            format!("the editor {command} does not start or failed; nothing was written: set EDITOR");
        return Err(fault(Exit::ConfigError, message));
    }
    let text = disk::read(file.path(), MAX_ORDER as u64 + 1)?.unwrap_or_default();
    if text == placed.value {
        show::note("nothing was changed; nothing was written");
        return Ok(Exit::Success.into());
    }
    match edit.target.write(&place, &fleet, text).await {
        Ok(exit) => Ok(exit.into()),
        Err(error) => {
            // What a person has typed is not thrown away over a mistake in it.
            let kept = file.keep();
            show::note(format!("your text is kept in {}", kept.display()));
            Err(error)
        }
    }
}

pub(super) async fn revert(revert: &Revert) -> Result<ExitCode, Failure> {
    let key = revert.target.key()?;
    let place = revert.target.writing.place.open()?;
    let fleet = Fleet::read(&place).await?;
    fleet.check(&key.source)?;
    let all = if revert.of_runs {
        let dir = revert.target.writing.place.settings()?.state_dir.join("runs");
        former::of_runs(&dir, &key)?
    } else {
        former::all(&place, &key).await?
    };
    if revert.list {
        return list(&key, &all, revert.target.writing.json);
    }
    let Some(wanted) = revert.to.checked_sub(1).and_then(|at| all.get(at)) else {
        let message = match all.len() {
            0 => format!("no former document of {key} is kept: hostler order get shows the present one"),
            count => format!("{count} former documents of {key} are kept: say --to 1 to {count}, or --list"),
        };
        return Err(fault(Exit::NotFound, message));
    };
    let text = again(&wanted.text, fleet.orders.get(&key))?;
    Ok(revert.target.write(&place, &fleet, text).await?.into())
}

/// A former document, so that hosts carry it out: one that is another instruction than the present one gets a revision
/// of its own, since hosts hold an instruction that they held before.
fn again(text: &str, present: Option<&Placed>) -> Result<Vec<u8>, Failure> {
    let unreadable =
        |error: String| fault(Exit::ConfigError, format!("the former document is broken: {error}"));
    let document = Document::read(text.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    if document == Document::Skip || present.is_some_and(|placed| placed.identity() == identity(&document)) {
        return Ok(text.as_bytes().to_vec());
    }
    let mut fields =
        yaml::parse::<Value>(text.as_bytes(), MAX_ORDER).map_err(|error| unreadable(error.to_string()))?;
    if let Some(map) = fields.as_object_mut() {
        map.insert("revision".to_owned(), clock::now().to_string().into());
    }
    let lines = fields.as_object().into_iter().flatten();
    let lines: String = lines.map(|(name, value)| format!("{name}: {value}\n")).collect();
    Ok(lines.into_bytes())
}

fn list(key: &OrderKey, all: &[Former], json: bool) -> Result<ExitCode, Failure> {
    if json {
        show::json(&json!({"order": key, "former": all}))?;
    } else if all.is_empty() {
        show::note(format!("no former document of {key} is kept"));
    } else {
        let mut table = Table::new(&["TO", "UNTIL", "WAS", "BY", "TASK", "REASON"]);
        for (at, one) in all.iter().enumerate() {
            let task = match Document::read(one.text.as_bytes()) {
                Ok(Document::Order(order)) => order.task.to_string(),
                Ok(Document::Skip) => "(skip)".to_owned(),
                Err(_) => "(broken)".to_owned(),
            };
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let until = show::time(Some(one.at));
            let number = at.saturating_add(1).to_string();
            table.row([number, until, one.did.as_str().to_owned(), text(&one.by), task, text(&one.reason)]);
        }
        show::page(&table.shown())?;
    }
    Ok(Exit::Success.into())
}

/// A file for the editor, which nobody else reads; removed in the end, unless it is kept.
struct Draft {
    path: std::path::PathBuf,
    kept: bool,
}

fn tempfile_in(key: &OrderKey) -> Result<Draft, Failure> {
    let folder = env("TMPDIR").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/tmp".to_owned());
    let name = format!("hostler-{}-{}.yml", key.order, clock::new_run());
    Ok(Draft { path: std::path::Path::new(&folder).join(name), kept: false })
}

impl Draft {
    fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        // A name that somebody else has made already is not followed.
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(text)?;
        Ok(())
    }

    fn keep(mut self) -> std::path::PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(text: &str) -> Placed {
        Placed { index: 1, value: text.into(), document: Document::read(text.as_bytes()) }
    }

    #[test]
    fn another_instruction_comes_back_with_a_revision_of_its_own() {
        let (former, present) = ("task: a\nspread: 5m", placed("task: a\nspread: 1m"));
        assert_eq!(again(former, Some(&present)).unwrap(), former.as_bytes(), "only terms differ");
        let other = placed("task: b");
        let text = again(former, Some(&other)).unwrap();
        let Document::Order(order) = Document::read(&text).unwrap() else { panic!("an order") };
        assert_eq!(order.task.as_str(), "a");
        assert_ne!(Some(order.identity), placed(former).identity());
        assert_eq!(order.spread, Some("5m".parse().unwrap()));
        assert!(again("tsk: a", None).is_err());
    }
}
