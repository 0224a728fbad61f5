//! `link`: the upgrade in place.

use crate::error::Error;
use crate::upgrade::link::{self, Plan, Step};

/// The steps.
#[derive(clap::Subcommand)]
pub(super) enum Link {
    /// Make the new cluster, and have pg_upgrade look at both while clients work
    Prepare(Plan),
    /// Stop the old cluster, link its files into the new one and start that at its port. There is no way back
    Run(Plan),
    /// Make statistics, which pg_upgrade does not bring along before 18
    Statistics(Plan),
    /// Have the side serve to which clients belong, after a death
    Release(Plan),
    /// Drop the old cluster, of which only links are left
    Finish(Plan),
    /// Say whether a step is done: status 0 yes, 1 no, else it cannot be told
    Done(Done),
    /// Take it back, as long as the new cluster was never started for clients
    Undo(Plan),
}

/// What `done` takes.
#[derive(clap::Args)]
pub(super) struct Done {
    /// The step
    step: Step,
    #[command(flatten)]
    plan: Plan,
}

impl Link {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Prepare(plan) => link::prepare(&plan).await,
            Self::Run(plan) => link::run(&plan).await,
            Self::Statistics(plan) => link::statistics(&plan).await,
            Self::Release(plan) => link::release(&plan).await,
            Self::Finish(plan) => link::finish(&plan).await,
            Self::Done(Done { step, plan }) => link::done(&plan, step).await,
            Self::Undo(plan) => link::undo(&plan).await,
        }
    }
}
