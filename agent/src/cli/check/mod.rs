//! `hostler check`: everything that is wrong, one named check a line, each with its cure.
//!
//! It changes nothing: rights to write are tried with a condition that cannot hold. What could not be looked at is
//! named as well, as skipped and with why: a check that is silently absent would look like one that passed. The whole
//! is made to be pasted into a ticket, so it begins with who asked, where and when.

mod host;
mod objectives;
mod ready;
mod store;
mod vault;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::connection::{Connection, ConnectionArgs};
use super::exit::Exit;
use super::history::{this_host, this_host_or_node};
use super::screen::{self, Severity};
use super::{Failure, block, show};
use crate::config::{StoreSettings, passed_over};
use crate::domain::span::Span;
use crate::host::clock;
use crate::store::consul::PartialConsul;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
    /// Could not be looked at.
    Skip,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    fn tone(self) -> Severity {
        match self {
            Self::Ok => Severity::Good,
            Self::Warn => Severity::Wait,
            Self::Fail => Severity::Bad,
            Self::Skip => Severity::Dim,
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

fn skip(name: &'static str, why: impl Into<String>) -> Check {
    Check { name, level: Level::Skip, finding: why.into(), cure: None }
}

/// Where findings begin in their lines.
const INDENT: usize = 22;

/// All checks, and whose they are.
#[derive(Serialize)]
struct Findings {
    /// Of this program.
    version: &'static str,
    host: Option<String>,
    at: Timestamp,
    checks: Vec<Check>,
}

impl Findings {
    fn count(&self, level: Level) -> usize {
        self.checks.iter().filter(|check| check.level == level).count()
    }

    /// `only_bad`: without what is as it should be.
    fn shown(&self, only_bad: bool) -> String {
        let mut text = String::new();
        if !only_bad {
            let host = self.host.as_deref().map(|host| format!(" on {host}")).unwrap_or_default();
            text.push_str(&format!("hostler {}{host}, {}\n", self.version, show::time(Some(self.at))));
        }
        let bad = |check: &&Check| !only_bad || matches!(check.level, Level::Warn | Level::Fail);
        for check in self.checks.iter().filter(bad) {
            let level = screen::paint(&format!("{:<4}", check.level.as_str()), check.level.tone());
            let finding = show::indented(&check.finding, INDENT);
            text.push_str(&format!("{level}  {:<14}  {finding}\n", check.name));
            if let Some(cure) = &check.cure {
                text.push_str(&format!("{:INDENT$}{}\n", "", show::indented(&format!("-> {cure}"), INDENT)));
            }
        }
        if !only_bad {
            let counts = [Level::Ok, Level::Warn, Level::Fail, Level::Skip].map(|level| self.count(level));
            let [ok, warn, fail, skip] = counts;
            text.push_str(&format!("{ok} ok, {warn} warnings, {fail} failed, {skip} skipped\n"));
        }
        text
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    /// Only what an operator's own machine needs: configuration and store
    #[arg(long)]
    store_only: bool,
    /// With --store-only: for whom the token is; a reader writes nothing
    #[arg(long = "as", value_name = "ROLE", requires = "store_only", default_value = "operator")]
    role: store::Role,
    /// Ask the running agent alone whether it takes orders; ends with 0 only if it does
    #[arg(long, conflicts_with = "store_only")]
    ready: bool,
    /// With --ready: wait until it does, at most this long
    #[arg(long, value_name = "SPAN", requires = "ready")]
    wait: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        if arguments.ready {
            let most = arguments.wait.map_or(Duration::ZERO, |span| span.0);
            return ready::run(&arguments.place.host_settings()?, most, arguments.json).await;
        }
        let findings = all(arguments).await;
        if arguments.json {
            show::json(&findings)?;
        } else {
            show::page(&findings.shown(screen::quiet()))?;
        }
        Ok(if findings.count(Level::Fail) > 0 { Exit::Negative } else { Exit::Success }.into())
    })
}

async fn all(arguments: &Arguments) -> Findings {
    let mut findings =
        Findings { version: env!("CARGO_PKG_VERSION"), host: None, at: clock::now(), checks: Vec::new() };
    let local = !arguments.store_only && !arguments.place.is_folder_only();
    // On the host the question is what its agent may do, whoever asks.
    let settings = if local { arguments.place.host_settings() } else { arguments.place.settings() };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            let why = "not checked without a configuration";
            findings.checks = vec![
                fail("configuration", error.to_string(), "correct it, then check again"),
                skip("everything", why),
            ];
            return findings;
        }
    };
    findings.host = this_host(&settings).filter(|_| local).map(|host| host.to_string());
    let mut checks = vec![ok("configuration", "no faults")];
    if arguments.place.store_dir.is_none() {
        checks.extend(passed_over(arguments.place.config_file().as_deref()).into_iter().map(|path| {
            let finding = format!("{} is ignored: only files that end in .yml are read", path.display());
            warn("configuration", finding, "rename it, or remove it")
        }));
    }
    if matches!(settings.store, StoreSettings::Consul(_)) {
        let unread = PartialConsul::unread(&super::env).into_iter();
        checks.extend(
            unread.map(|(name, fix)| warn("configuration", format!("{name} is set and not read"), fix)),
        );
    }
    if local {
        checks.extend(host::checks(&settings));
        checks.extend(objectives::checks(&settings));
        checks.extend(vault::checks(&settings).await);
    }
    match Connection::existing(&settings) {
        Ok(place) => {
            if local && findings.host.is_none() {
                let host = this_host_or_node(&settings, &place).await;
                findings.host = host.map(|host| host.to_string());
            }
            checks.extend(store::checks(&place, &settings, (!local).then_some(arguments.role)).await);
        }
        Err(error) => {
            checks.push(fail("store", error.to_string(), "see the configuration of the store"));
            checks.extend(store::skipped("there is no store"));
        }
    }
    findings.checks = checks;
    findings
}
