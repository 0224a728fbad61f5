//! `upgrade`: one command for each step.

use serde_json::json;

use super::table::table;
use super::{print, print_json};
use crate::check::{self, Finding, Severity};
use crate::error::Error;
use crate::report;
use crate::upgrade::forecast::{self, Forecast};
use crate::upgrade::{Pair, Plan, back, done, finish, follow, prepare, switch, verify};

/// The steps.
#[derive(clap::Subcommand)]
pub(super) enum Upgrade {
    /// Say everything that the upgrade meets, and change nothing; status 1 if something blocks it
    Check(Check),
    /// Make the new cluster, configured as the old one, behind a fence, with the schema
    Prepare(Plan),
    /// Copy the rows while clients work, and follow the old cluster
    Follow(Plan),
    /// Hold the clients for a moment and bring them to the new cluster; again after a death in it
    Switch(Plan),
    /// Have the old cluster follow the new one, for the way back
    FollowBack(Plan),
    /// Prove that both clusters have the same rows; status 1 if not
    Verify(Plan),
    /// Bring the clients back to the old cluster, with every row that was written since
    SwitchBack(Plan),
    /// Let clients go to the side to which they belong, after a death in a switch
    Release(Plan),
    /// Drop the old cluster, and with it the way back
    Finish(Finish),
    /// Say whether a step is done, by reading the servers: status 0 yes, 1 no, else it cannot be told
    Done(Done),
    /// Take a step back, done or half done
    Undo(Undo),
}

/// What `finish` takes.
#[derive(clap::Args)]
pub(super) struct Finish {
    /// Only say whether it may begin, or go on, and change nothing
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    plan: Plan,
}

/// What `done` takes.
#[derive(clap::Args)]
pub(super) struct Done {
    /// The step
    step: done::Step,
    /// If it is not done, say what the upgrade would do, and for how long it would hold clients
    #[arg(long)]
    forecast: bool,
    #[command(flatten)]
    plan: Plan,
}

/// What `undo` takes.
#[derive(clap::Args)]
pub(super) struct Undo {
    /// The step
    step: Undoable,
    #[command(flatten)]
    plan: Plan,
}

/// A step that can be taken back.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Undoable {
    /// Removes the new cluster
    Prepare,
    /// Ends the replication to the new cluster
    Follow,
    /// Brings the clients back, as `switch-back`
    Switch,
}

/// What `check` takes.
#[derive(clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    plan: Plan,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Upgrade {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Check(check) => check.run().await,
            Self::Prepare(plan) => prepare::run(&plan.resolve().await?).await,
            Self::Follow(plan) => follow::run(&plan.resolve().await?).await,
            Self::Switch(plan) => switch::run(&plan.resolve().await?).await,
            Self::FollowBack(plan) => back::follow(&plan.resolve().await?).await,
            Self::Verify(plan) => verify::run(&plan.resolve().await?).await,
            Self::SwitchBack(plan) => back::run(&plan.resolve().await?).await,
            Self::Release(plan) => switch::release(&plan.resolve().await?).await,
            Self::Finish(Finish { check: true, plan }) => finish::may(&plan).await,
            Self::Finish(Finish { plan, .. }) => finish::run(&plan).await,
            Self::Done(Done { forecast: true, step, plan }) => {
                let asked =
                    Box::pin(Self::Done(Done { forecast: false, step, plan: plan.clone() }).run()).await;
                if let Err(Error::No(_)) = asked {
                    // The answer is no, whatever can be said of the rest.
                    match plan.resolve().await {
                        Ok(pair) => look(&pair).await.unwrap_or_else(|error| print(&error.to_string())),
                        Err(error) => print(&error.to_string()),
                    }
                }
                asked
            }
            Self::Done(Done { step: done::Step::Finish, plan, .. }) => finish::done(&plan).await,
            Self::Done(Done { step: done::Step::Upgraded, plan, .. })
                if finish::done(&plan).await.is_ok() =>
            {
                Ok(())
            }
            Self::Done(Done { step, plan, .. }) => done::ask(&plan.resolve().await?, step).await,
            Self::Undo(Undo { step, plan }) => {
                let pair = plan.resolve().await?;
                match step {
                    Undoable::Prepare => prepare::undo(&pair).await,
                    Undoable::Follow => follow::undo(&pair).await,
                    Undoable::Switch => back::run(&pair).await,
                }
            }
        }
    }
}

impl Check {
    async fn run(self) -> Result<(), Error> {
        let pair = self.plan.resolve().await?;
        let findings = pair.check().await?;
        let forecast = forecast::ask(&pair).await?;
        if self.json {
            print_json(&json!({
                "from": pair.old.title(), "to": self.plan.to, "findings": findings, "forecast": forecast
            }))?;
        } else {
            show(&findings, &forecast);
        }
        report::output("gap_seconds", forecast.gap_seconds);
        for severity in [Severity::Block, Severity::Do, Severity::Know] {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            report::output(severity.name(), count);
        }
        check::verdict(&findings)
    }
}

/// Shows what an upgrade would meet and do.
async fn look(pair: &Pair) -> Result<(), Error> {
    let findings = pair.check().await?;
    show(&findings, &forecast::ask(pair).await?);
    Ok(())
}

fn show(findings: &[Finding], forecast: &Forecast) {
    if findings.is_empty() {
        print("nothing to deal with");
    } else {
        let rows: Vec<_> = findings.iter().map(row).collect();
        print(&table(["SEVERITY", "DATABASE", "COUNT", "WHAT", "EXAMPLES"], &rows));
    }
    let rows: Vec<_> = forecast.steps.iter().map(|(step, does)| [(*step).to_owned(), does.clone()]).collect();
    print("");
    print(&table(["STEP", "WOULD DO"], &rows));
}

fn row(finding: &Finding) -> [String; 5] {
    [
        finding.severity.name().to_owned(),
        finding.database.clone().unwrap_or_else(|| "-".to_owned()),
        finding.count.to_string(),
        finding.what.clone(),
        finding.examples.clone(),
    ]
}
