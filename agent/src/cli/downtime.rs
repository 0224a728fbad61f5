//! `hostler downtime`: what operations cost services, what is left of their error budgets, and the runs that spent it.
//!
//! On the host itself everything that it remembers; from afar what the hosts reported of their newest runs, and the budgets
//! that their agents report.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::connection::{Connection, ConnectionArgs};
use super::exit::{Exit, fault};
use super::fleet::Fleet;
use super::history::{ReportedRun, folders, newest_of, this_host};
use super::table::Table;
use super::{Failure, block, screen, show};
use crate::config::Settings;
use crate::domain::downtime::budget::{Budget, budgets};
use crate::domain::downtime::totals::Cost;
use crate::domain::downtime::{Day, Downtime, DowntimeTotals, Millis, Objective, Service, Target, Window};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::host::clock;
use crate::ledger::downtime;
use crate::report::document::ReportedBudget;

/// From this width on, in characters, there is room for hosts, orders and failed requests.
const WIDE: usize = 100;

/// From this width on there is room for the task and the day of a run.
const MEDIUM: usize = 80;

/// How many runs the table shows.
const RUNS: usize = 20;

#[derive(Args)]
pub(super) struct Arguments {
    /// Of this host only
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// Of the known hosts of this group only
    #[arg(long, value_name = "GROUP", conflicts_with = "host")]
    group: Option<Name>,
    /// Of this service only
    #[arg(long, value_name = "SERVICE")]
    service: Option<Service>,
    /// Days back, as in 7d: today, in UTC, and the days before it
    #[arg(long, value_name = "TIME", default_value = "30d")]
    window: Window,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// What a service lost on a host.
#[derive(Debug, Serialize)]
struct ServiceLine {
    host: String,
    service: Service,
    seconds: Millis,
    failed: u64,
    /// Of the window: 0.01 is one hundredth of it.
    share: f64,
    /// One for each objective that covers it; from afar those that the agent reports.
    budgets: Vec<BudgetLine>,
}

#[derive(Debug, Serialize)]
struct BudgetLine {
    target: Target,
    window: Window,
    allowed: Millis,
    spent: Millis,
    /// In seconds; negative if more was spent than allowed.
    left: f64,
}

/// A run that cost a service something.
#[derive(Debug, Serialize)]
struct RunLine {
    host: String,
    run: RunId,
    task: String,
    order: String,
    at: Option<Timestamp>,
    downtime: Vec<Downtime>,
}

/// All that is shown.
#[derive(Debug, Default)]
struct Found {
    services: Vec<ServiceLine>,
    /// The newest first.
    runs: Vec<RunLine>,
}

impl From<&ReportedBudget> for BudgetLine {
    fn from(budget: &ReportedBudget) -> Self {
        let ReportedBudget { target, window, allowed, spent, .. } = budget;
        let left = allowed.seconds() - spent.seconds();
        Self { target: *target, window: *window, allowed: *allowed, spent: *spent, left }
    }
}

impl From<Budget> for BudgetLine {
    fn from(budget: Budget) -> Self {
        let left = budget.left() as f64 / 1000.0;
        let Objective { target, window, .. } = budget.objective;
        Self { target, window, allowed: budget.allowed, spent: budget.spent, left }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        let here = folders(&settings, arguments.host.as_ref()).await.is_some();
        let is_here = here && arguments.group.is_none() && !arguments.place.is_folder_only();
        let (from, found) = if is_here {
            ("record", of_host(arguments, &settings)?)
        } else {
            ("reports", of_reports(arguments, &settings).await?)
        };
        if arguments.json {
            let Found { services, runs } = &found;
            show::json(
                &json!({"from": from, "window": arguments.window, "services": services, "runs": runs}),
            )?;
        } else if found.services.is_empty() {
            show::note(format!("no downtime was reported in {}", arguments.window));
        } else {
            show::page(&tables(&found, arguments.window))?;
        }
        if !is_here {
            show::note(
                "from the reports of the newest 20 runs of each host; on the host itself all that it remembers",
            );
        }
        Ok(Exit::Success.into())
    })
}

fn share(seconds: Millis, window: Window) -> f64 {
    seconds.seconds() / window.millis().seconds()
}

/// What this host remembers.
fn of_host(arguments: &Arguments, settings: &Settings) -> Result<Found, Failure> {
    let totals =
        downtime::read(&settings.state_dir).map_err(|error| fault(Exit::ConfigError, error.to_string()))?;
    let host = this_host(settings).map(|host| host.to_string()).unwrap_or_default();
    Ok(of_totals(&totals, &host, arguments, &settings.objectives, clock::now()))
}

fn of_totals(
    totals: &DowntimeTotals,
    host: &str,
    arguments: &Arguments,
    objectives: &[Objective],
    now: Timestamp,
) -> Found {
    let window = arguments.window;
    let first = Day::of(now).plus(1 - window.length());
    let named = objectives.iter().filter_map(|objective| objective.service.literal());
    let known = totals.days.keys().map(|(_, service)| service.clone()).chain(named);
    let wanted = |service: &Service| arguments.service.as_ref().is_none_or(|wanted| wanted == service);
    let services: BTreeSet<Service> = known.filter(wanted).collect();
    let line = |service: Service| {
        let mut sum = Cost::default();
        for (_, cost) in totals.days_of(&service).filter(|(day, _)| *day >= first) {
            sum.seconds = sum.seconds.plus(cost.seconds);
            sum.failed = sum.failed.saturating_add(cost.failed);
        }
        let budgets = budgets(totals, objectives, &service, now).into_iter().map(Into::into).collect();
        let share = share(sum.seconds, window);
        ServiceLine {
            host: host.to_owned(),
            service,
            seconds: sum.seconds,
            failed: sum.failed,
            share,
            budgets,
        }
    };
    let services =
        services.into_iter().map(line).filter(|line| line.seconds > Millis(0) || !line.budgets.is_empty());
    let spent = totals.runs.iter().rev().filter(|(_, spender)| Day::of(spender.at) >= first);
    let runs = spent.filter_map(|(run, spender)| {
        let downtime = spender.services.iter().filter(|(service, _)| wanted(service));
        let downtime: Vec<Downtime> = downtime
            .map(|(service, cost)| Downtime {
                service: service.clone(),
                seconds: cost.seconds,
                from: None,
                to: None,
                failed: cost.failed,
            })
            .collect();
        let (task, order) = (spender.task.to_string(), spender.order.to_string());
        (!downtime.is_empty()).then(|| RunLine {
            host: host.to_owned(),
            run: *run,
            task,
            order,
            at: Some(spender.at),
            downtime,
        })
    });
    Found { services: services.collect(), runs: runs.collect() }
}

/// What the hosts reported of their newest runs.
async fn of_reports(arguments: &Arguments, settings: &Settings) -> Result<Found, Failure> {
    let place = Connection::existing(settings)?;
    let first = Day::of(clock::now()).plus(1 - arguments.window.length());
    let fleet = Fleet::read(&place).await?;
    if let Some(host) = &arguments.host {
        fleet.check_host(host)?;
    }
    let members: Option<BTreeSet<&str>> =
        arguments.group.as_ref().map(|group| fleet.members(group).into_iter().map(Name::as_str).collect());
    let outside = |host: &str| members.as_ref().is_some_and(|members| !members.contains(host));
    let wanted = |service: &Service| arguments.service.as_ref().is_none_or(|wanted| wanted == service);
    let mut sums: BTreeMap<(String, Service), Cost> = BTreeMap::new();
    let mut runs = Vec::new();
    let mut all = ReportedRun::all(&place, arguments.host.as_ref()).await?;
    all.retain(|one| !outside(one.host.as_str()));
    // Most of them had none, and are not kept in memory.
    for known in newest_of(&place, &all, usize::MAX, |known| !known.report.downtime.is_empty()).await? {
        let report = known.report;
        let at = report.ended.or(report.started);
        if at.is_none_or(|at| Day::of(at) < first) {
            continue;
        }
        let mut downtime = report.downtime;
        downtime.retain(|one| wanted(&one.service));
        for one in &downtime {
            let sum = sums.entry((known.host.clone(), one.service.clone())).or_default();
            sum.seconds = sum.seconds.plus(one.seconds);
            sum.failed = sum.failed.saturating_add(one.failed);
        }
        if !downtime.is_empty() {
            let task = report.task.split('@').next().unwrap_or_default().to_owned();
            runs.push(RunLine { host: known.host, run: known.run, task, order: report.order, at, downtime });
        }
    }
    let mut budgets: BTreeMap<(String, Service), Vec<BudgetLine>> = BTreeMap::new();
    for (host, agent) in &fleet.agents {
        let of_host = arguments.host.as_ref().is_none_or(|wanted| wanted == host) && !outside(host.as_str());
        for budget in agent.budgets.iter().filter(|budget| of_host && wanted(&budget.service)) {
            let key = (host.to_string(), budget.service.clone());
            sums.entry(key.clone()).or_default();
            budgets.entry(key).or_default().push(budget.into());
        }
    }
    let line = |(key, sum): ((String, Service), Cost)| {
        let budgets = budgets.remove(&key).unwrap_or_default();
        let (host, service) = key;
        let share = share(sum.seconds, arguments.window);
        ServiceLine { host, service, seconds: sum.seconds, failed: sum.failed, share, budgets }
    };
    Ok(Found { services: sums.into_iter().map(line).collect(), runs })
}

/// The services that objectives, this host's record and the agents' reports name: for completion.
pub(super) async fn names(settings: &Settings, place: Option<&Connection>) -> BTreeSet<String> {
    let named = settings.objectives.iter().filter_map(|objective| objective.service.literal());
    let mut services: BTreeSet<Service> = named.collect();
    if let Ok(totals) = downtime::read(&settings.state_dir) {
        services.extend(totals.lifetimes.into_keys());
    }
    if let Some(place) = place
        && let Ok(fleet) = Fleet::read(place).await
    {
        let budgets = fleet.agents.into_values().flat_map(|agent| agent.budgets);
        services.extend(budgets.map(|budget| budget.service));
    }
    services.iter().map(ToString::to_string).collect()
}

fn tables(found: &Found, window: Window) -> String {
    let [wide, medium] = [WIDE, MEDIUM].map(|least| screen::width().is_none_or(|width| width >= least));
    let hosts = found.services.iter().map(|line| &line.host).collect::<BTreeSet<_>>().len() > 1;
    let budgeted = found.services.iter().any(|line| !line.budgets.is_empty());
    let mut headings = vec!["SERVICE"];
    headings.extend(hosts.then_some("HOST"));
    headings.extend(["DOWNTIME", "SHARE"]);
    headings.extend(wide.then_some("FAILED"));
    headings.extend(budgeted.then_some("BUDGET LEFT"));
    let mut services = Table::new(&headings);
    for line in &found.services {
        let mut cells = vec![line.service.to_string()];
        cells.extend(hosts.then(|| line.host.clone()));
        cells.extend([line.seconds.to_string(), format!("{:.4} %", line.share * 100.0)]);
        cells.extend(wide.then(|| line.failed.to_string()));
        cells.extend(budgeted.then(|| left(&line.budgets, wide)));
        services.cells(&cells);
    }
    let mut headings = vec!["RUN"];
    headings.extend(hosts.then_some("HOST"));
    headings.extend(wide.then_some("ORDER"));
    headings.extend(medium.then_some(["TASK", "AT"]).into_iter().flatten());
    headings.push("DOWNTIME");
    let mut runs = Table::new(&headings);
    for line in found.runs.iter().take(RUNS) {
        let mut cells = vec![line.run.to_string()];
        cells.extend(hosts.then(|| line.host.clone()));
        cells.extend(wide.then(|| line.order.clone()));
        let all = line.downtime.iter().map(|one| format!("{} {}", one.service, one.seconds));
        let at = line.at.map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
        cells.extend(medium.then(|| [line.task.clone(), at]).into_iter().flatten());
        cells.push(all.collect::<Vec<_>>().join(", "));
        runs.cells(&cells);
    }
    let more = found.runs.len().saturating_sub(RUNS);
    let more = if more > 0 { format!("and {more} more runs: --json\n") } else { String::new() };
    let runs = if runs.is_empty() { String::new() } else { format!("\n{}{more}", runs.shown()) };
    format!("In {window}:\n{}{runs}", services.shown())
}

/// What is left of the budget that has the least.
fn left(budgets: &[BudgetLine], wide: bool) -> String {
    let share = |budget: &BudgetLine| budget.left / budget.allowed.seconds().max(0.001);
    let Some(least) = budgets.iter().min_by(|a, b| share(a).total_cmp(&share(b))) else {
        return String::new();
    };
    let amount = Millis::of_seconds(least.left.abs()).unwrap_or_default();
    let amount = if least.left < 0.0 { format!("-{amount}") } else { amount.to_string() };
    let of = if wide {
        format!(" of {} ({} over {})", least.allowed, least.target, least.window)
    } else {
        String::new()
    };
    format!("{amount}{of}")
}
