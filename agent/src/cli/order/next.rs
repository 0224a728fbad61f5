//! `hostler order next`: when an order fires next, on the clock of its zone and in UTC.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{One, change, find};
use crate::cli::exit::{Exit, fault};
use crate::cli::table::Table;
use crate::cli::{Failure, show};
use crate::domain::order::{Document, Order};
use crate::domain::window::Window;
use crate::host::clock;

/// The most firings that are looked for.
const MAX_FIRINGS: usize = 1000;

#[derive(Args)]
pub(super) struct Next {
    #[command(flatten)]
    one: One,
    /// How many firings
    #[arg(long, short = 'n', value_name = "N", default_value = "5")]
    count: usize,
}

pub(super) async fn next(next: &Next) -> Result<ExitCode, Failure> {
    let (_, key, _, placed) = find(&next.one).await?;
    let now = clock::now();
    let order: &Order = match &placed.document {
        Ok(Document::Order(order)) => order,
        Ok(Document::Skip) => {
            return Err(fault(Exit::Negative, format!("{key} says skip: it never fires")));
        }
        Err(error) => return Err(fault(Exit::ConfigError, format!("{key} is broken: {error}"))),
    };
    let Some(schedule) = &order.schedule else {
        let why = order.standing_terms().map_or_else(
            || "it is carried out once".to_owned(),
            |terms| format!("it is looked at by {terms}, not by a schedule"),
        );
        return Err(fault(Exit::Negative, format!("{key} has no schedule: {why}")));
    };
    let firings = change::firings(schedule, now, next.count.min(MAX_FIRINGS));
    if next.one.json {
        let one = |at: &Timestamp| json!({"firing": at, "starts": starts(order, *at)});
        let firings: Vec<Value> = firings.iter().map(one).collect();
        show::json(&json!({"order": key, "timezone": schedule.zone().as_str(), "firings": firings}))?;
        return Ok(Exit::Success.into());
    }
    let mut table = Table::new(&["FIRING", "UTC", "IN", "STARTS"]).names(1, &["UTC"]);
    for at in &firings {
        let starts = match starts(order, *at) {
            None => "the window does not open".to_owned(),
            Some(starts) if starts == *at => "at once".to_owned(),
            Some(starts) => format!("when the window opens, {}", change::local(starts, schedule.zone())),
        };
        table.row([
            change::local(*at, schedule.zone()),
            show::time(Some(*at)),
            show::length(at.duration_since(now)),
            starts,
        ]);
    }
    if firings.is_empty() {
        show::note(format!("{key} never fires"));
    } else {
        show::page(&table.shown())?;
    }
    Ok(Exit::Success.into())
}

/// When a firing starts as far as the order's window is concerned; `None`: it does not open.
fn starts(order: &Order, at: Timestamp) -> Option<Timestamp> {
    let Some(window): Option<&Window> = order.window.as_deref() else { return Some(at) };
    window.opening(at).map(|opening| opening.from.max(at))
}
