//! `hostler status`: hosts and the state of their orders.
//!
//! Without arguments an overview. With an order, a host or a group: one line for each host on which an order counts.
//! The exit status says whether all are done. What counts is the order as it stands now: a success of an older
//! instruction is no success.

pub(super) mod next;
pub(super) mod rows;
mod summary;
mod view;
pub(super) mod watch;

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::connection::{Connection, ConnectionArgs, said};
use super::exit::Exit;
use super::fleet::{Fleet, OrderStatus, is_late};
use super::history::usual;
use super::watch::WatchArgs;
use super::{Failure, block, screen, show};
use crate::domain::freeze::Freeze;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use rows::{Question, Rows};
use watch::Watch;

#[derive(Args)]
pub(super) struct Arguments {
    /// The order; a watch ends when it is over on each host
    #[arg(value_name = "ORDER")]
    order: Option<Name>,
    /// These hosts only, separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<Name>,
    /// The known hosts of this group only
    #[arg(long, value_name = "GROUP")]
    group: Option<Name>,
    /// Only orders that wait, with what they wait for; exits with 1 if there are any
    #[arg(long, conflicts_with = "watch")]
    waiting: bool,
    #[command(flatten)]
    watch: WatchArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let Arguments { order, host, group, .. } = arguments;
        let hosts = host.iter().cloned().collect();
        let question = Question { order: order.clone(), hosts, group: group.clone() };
        if arguments.watch.watch {
            let (exit, _) = Watch::new(&place, &question).watch(arguments.watch.most()).await?;
            return Ok(exit.into());
        }
        let fleet = Fleet::read(&place).await?;
        let mut rows = Rows::read(&place, fleet, &question, clock::now()).await?;
        if arguments.waiting {
            rows.rows.retain(|row| row.standing == OrderStatus::Waiting && row.key.is_some());
            return Ok(waiting(&rows, arguments.json)?.into());
        }
        if question.is_all() {
            return Ok(overview(&place, &rows, arguments.json)?.into());
        }
        if arguments.json {
            show::json(&rows.document())?;
        } else {
            let mut text = view::freezes(&rows);
            text.push_str(&of_rows(&place, &rows, order.is_some()).await?);
            if rows.rows.len() > 1 && !screen::quiet() {
                text.push_str(&next::of_rows(&rows, &question));
            }
            show::page(&text)?;
            if let (Some(order), true, false) = (order, rows.rows.len() > 1, rows.all_done()) {
                show::note(format!("all details of one host: hostler status {order} --host HOST{}", said()));
            }
        }
        Ok(rows.exit().into())
    })
}

/// Shows what waits, and why.
fn waiting(rows: &Rows, json: bool) -> Result<Exit, Failure> {
    if json {
        show::json(&rows.document())?;
    } else if rows.rows.is_empty() {
        show::note("nothing waits");
    } else {
        show::page(&format!("{}{}", view::freezes(rows), view::table(rows, false, false)))?;
    }
    Ok(rows.exit())
}

async fn of_rows(place: &Connection, rows: &Rows, one_order: bool) -> Result<String, Failure> {
    let [row] = &*rows.rows else { return Ok(view::table(rows, screen::quiet(), false)) };
    if !one_order {
        return Ok(view::table(rows, screen::quiet(), false));
    }
    if screen::quiet() && row.is_good() {
        return Ok(String::new());
    }
    let running = row.report.as_ref().filter(|report| report.ended.is_none());
    let usual = match running.and_then(|report| report.task.as_deref()) {
        Some(task) => usual(place, &row.host, task).await?,
        None => None,
    };
    Ok(view::whole(row, &rows.fleet, rows.now, usual))
}

/// Shows all hosts and all orders. Only a fleet of which every host reports and every order is done is as it should be;
/// one of which nothing is seen may be one that the token may not see.
fn overview(place: &Connection, rows: &Rows, json: bool) -> Result<Exit, Failure> {
    let Rows { fleet, now, .. } = rows;
    let hosts = fleet.hosts();
    let reports =
        |host: &Name| fleet.agents.get(host).is_some_and(|agent| !is_late(agent.next_report_by, *now));
    let good = !hosts.is_empty() && hosts.iter().all(|host| reports(host)) && rows.all_done();
    let exit = if good { Exit::Success } else { Exit::Negative };
    if json {
        let host = |host: &&Name| match fleet.agents.get(*host) {
            None => json!({"host": host, "state": "never reported"}),
            Some(agent) => {
                let state = if reports(host) { "reports" } else { "stale" };
                json!({"host": host, "state": state, "agent": agent})
            }
        };
        let hosts: Vec<Value> = hosts.iter().map(host).collect();
        let orders: Vec<&OrderKey> = fleet.orders.keys().collect();
        let frozen = |(source, freeze): (&Source, &Result<Freeze, String>)| json!({"source": source, "freeze": freeze.as_ref().ok()});
        let freezes: Vec<Value> = rows.freezes().into_iter().map(frozen).collect();
        show::json(&json!({"all_done": good, "hosts": hosts, "orders": orders, "freezes": freezes}))?;
    } else if hosts.is_empty() {
        show::error(format!(
            "no host is enrolled in {}, or the token may not see it: hostler enroll HOST",
            place.store.place()
        ));
    } else {
        show::page(&format!("{}{}", view::freezes(rows), view::overview(rows, screen::quiet(), false)))?;
        if fleet.agents.is_empty() {
            show::note(
                "no agent has ever reported; on a host: hostler check, systemctl enable --now hostler",
            );
        } else if fleet.orders.is_empty() {
            show::note(format!(
                "there are no orders: hostler run TASK --host HOST{}, or hostler order put",
                said()
            ));
        } else {
            show::note(format!("where an order stands on each host: hostler status ORDER{}", said()));
        }
    }
    Ok(exit)
}
