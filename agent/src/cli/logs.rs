//! `hostler logs`: what a run printed. On the host the whole of what is kept, from afar the end; it says which.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use super::connection::{Connection, ConnectionArgs};
use super::exit::{Exit, fault};
use super::follow::Follower;
use super::history::{folders, of_folder, reported};
use super::{Failure, block, show};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::ledger::Folder;
use crate::report::document::{self, OrderReport};

/// How often a growing output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Args)]
pub(super) struct Arguments {
    /// The run
    run: RunId,
    /// Go on until the run is over; on its host only
    #[arg(long, short)]
    follow: bool,
    /// The host, where it is known: a shorter question to the store
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// Print JSON
    #[arg(long, conflicts_with = "follow")]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        let here =
            folders(&settings, arguments.host.as_ref()).await.filter(|_| !arguments.place.is_folder_only());
        let folder = here.map(|dir| Folder::new(&dir, arguments.run)).filter(|folder| folder.path().is_dir());
        match folder {
            Some(folder) => whole(arguments, &folder).await?,
            None => afar(arguments, &Connection::existing(&settings)?).await?,
        }
        Ok(Exit::Success.into())
    })
}

async fn whole(arguments: &Arguments, folder: &Folder) -> Result<(), Failure> {
    if arguments.json {
        let known = of_folder(folder)?;
        let output = text(folder.path())?;
        show::json(&json!({"run": known, "from": "folder", "output": output}))?;
        return Ok(());
    }
    show::note(format!("the complete stored output, from {}", folder.path().display()));
    let mut follower = Follower::new(folder.path());
    let plan = folder.plan()?;
    // Whether it is over is asked before what is new is printed: then nothing comes after it.
    while arguments.follow && folder.state(&plan)?.outcome().is_none() {
        follower.print()?;
        sleep(LOOK_EVERY).await;
    }
    follower.end()?;
    Ok(())
}

fn text(dir: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    for part in crate::exec::output::parts(dir) {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(part)?));
    }
    Ok(text)
}

async fn afar(arguments: &Arguments, place: &Connection) -> Result<(), Failure> {
    let run = arguments.run;
    if arguments.follow {
        let message = format!("run {run} is not on this host: -f follows it on its own host only");
        return Err(fault(Exit::NotFound, message));
    }
    let known = reported(place, arguments.host.as_ref()).await?.into_iter().find(|known| known.run == run);
    let Some(known) = known else {
        let message = format!(
            "run {run} is neither on this host nor among the newest that hosts reported: hostler runs"
        );
        return Err(fault(Exit::NotFound, message));
    };
    // The report of the order has more of it, as long as this is its run.
    let keys = &place.keys;
    let order = known.host.parse::<Name>().ok().zip(known.report.order.parse::<Name>().ok());
    let mut tail = known.report.tail.clone();
    if let Some((host, order)) = order {
        let listing = place.store.list(&keys.order_report(&host, &order)).await?;
        let entry = listing.entries.iter().find(|entry| entry.key == keys.order_report(&host, &order));
        let report = entry.and_then(|entry| document::read::<OrderReport>(&entry.value).ok());
        tail = report.filter(|report| report.run == Some(run)).and_then(|report| report.tail).or(tail);
    }
    if arguments.json {
        show::json(&json!({"run": known, "from": "report", "output": tail}))?;
        return Ok(());
    }
    let host = show::inline(&known.host);
    let Some(tail) = tail else {
        show::note(format!(
            "run {run} is {} and its report has no output; on {host}: hostler logs {run}",
            show::inline(&known.report.phase)
        ));
        return Ok(());
    };
    show::note(format!(
        "the end of the output only, from the report; the whole, on {host}: hostler logs {run}"
    ));
    show::line(show::lines(tail.trim_end()))?;
    Ok(())
}
