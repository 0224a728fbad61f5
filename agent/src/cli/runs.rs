//! `hostler runs`: the newest runs.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::fleet::Fleet;
use super::history::{folders, newest_here, reported};
use super::place::{Place, PlaceArgs};
use super::table::Table;
use super::{Failure, block, show};
use crate::domain::name::Name;
use crate::host::clock;

#[derive(Args)]
pub(super) struct Arguments {
    /// Of this host only
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// So many at most
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    count: usize,
    /// Print a document for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        let host = arguments.host.as_ref();
        let here = folders(&settings, host).filter(|_| !arguments.place.is_folder_only());
        let (from, mut runs) = match &here {
            Some(dir) => ("folders", newest_here(dir, arguments.count)?),
            None => {
                let place = Place::existing(&settings)?;
                let runs = reported(&place, host).await?;
                if runs.is_empty()
                    && let Some(host) = host
                {
                    Fleet::read(&place).await?.check_host(host)?;
                }
                ("reports", runs)
            }
        };
        runs.truncate(arguments.count);
        if arguments.json {
            show::json(&json!({"from": from, "runs": runs}))?;
            return Ok(Exit::Good.into());
        }
        if runs.is_empty() {
            show::note("there are no runs, or the token may not see their reports");
            return Ok(Exit::Good.into());
        }
        let now = clock::now();
        let mut table = Table::new(&["RUN", "HOST", "ORDER", "TASK", "PHASE", "STARTED", "TOOK", "ERROR"]);
        for known in runs {
            let report = known.report;
            let took = report.started.map(|started| report.ended.unwrap_or(now).duration_since(started));
            table.row([
                known.run.to_string(),
                known.host,
                report.order,
                report.task,
                report.phase,
                show::time(report.started),
                took.map(show::length).unwrap_or_default(),
                report.error.unwrap_or_default(),
            ]);
        }
        show::page(&table.shown())?;
        if here.is_none() {
            show::note(
                "from the hosts' reports, the newest 20 of each; on the host itself all that are kept",
            );
        }
        Ok(Exit::Good.into())
    })
}
