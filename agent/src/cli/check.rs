//! `hostler check`: everything that is wrong, one named check a line, each with its cure.
//!
//! It changes nothing: rights to write are tried with a condition that cannot hold.

mod host;
mod store;
mod vault;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::place::{Place, PlaceArgs};
use super::{Failure, block, show};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    level: Level,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

fn ok(name: &'static str, finding: impl Into<String>) -> Check {
    Check { name, level: Level::Ok, finding: finding.into(), cure: None }
}

fn warn(name: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Check {
    Check { name, level: Level::Warn, finding: finding.into(), cure: Some(cure.into()) }
}

fn fail(name: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Check {
    Check { name, level: Level::Fail, finding: finding.into(), cure: Some(cure.into()) }
}

#[derive(Args)]
pub(super) struct Arguments {
    /// Only what an operator's own machine needs: configuration and store
    #[arg(long)]
    store_only: bool,
    /// Print a document for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let checks = all(arguments).await;
        if arguments.json {
            show::json(&checks)?;
        } else {
            for check in &checks {
                let cure = check.cure.as_ref().map(|cure| format!(" — {cure}")).unwrap_or_default();
                let finding = show::inline(&format!("{}{cure}", check.finding));
                show::line(format!("{:<4}  {:<14}  {finding}", check.level.as_str(), check.name))?;
            }
        }
        let bad = checks.iter().any(|check| check.level == Level::Fail);
        Ok(if bad { Exit::No } else { Exit::Good }.into())
    })
}

async fn all(arguments: &Arguments) -> Vec<Check> {
    let local = !arguments.store_only && !arguments.place.is_folder_only();
    // On the host the question is what its agent may do, whoever asks.
    let settings = if local { arguments.place.host_settings() } else { arguments.place.settings() };
    let settings = match settings {
        Ok(settings) => settings,
        // Without settings there is nothing else to look at.
        Err(error) => return vec![fail("configuration", error.to_string(), "correct it, then check again")],
    };
    let mut checks = vec![ok("configuration", "no faults")];
    if local {
        checks.extend(host::checks(&settings));
        checks.extend(vault::checks(&settings).await);
    }
    match Place::existing(&settings) {
        Ok(place) => checks.extend(store::checks(&place, &settings, local).await),
        Err(error) => checks.push(fail("store", error.to_string(), "see the configuration of the store")),
    }
    checks
}
