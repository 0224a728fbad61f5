//! `restore`: a state of the past as a new cluster.

use crate::error::Error;
use crate::restore::{self, Made, Plan};

/// What there is to do.
#[derive(clap::Subcommand)]
pub(super) enum Restore {
    /// Make a new cluster of what was
    Run(Plan),
    /// Say whether the cluster is made: status 0 yes, 1 no, else it cannot be told
    Done(Made),
    /// Remove what a restore has made or begun, and nothing else
    Undo(Made),
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Run(plan) => restore::run(&plan).await,
            Self::Done(made) => restore::done(&made).await,
            Self::Undo(made) => restore::undo(&made).await,
        }
    }
}
