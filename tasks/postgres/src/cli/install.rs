//! `install`: a new cluster.

use crate::error::Error;
use crate::install::{self, Made, Plan};

/// What there is to do.
#[derive(clap::Subcommand)]
pub(super) enum Install {
    /// Make a cluster, with checksums
    Run(Plan),
    /// Say whether it is made: status 0 yes, 1 no, else it cannot be told
    Done(Made),
    /// Remove what was begun and not ended
    Undo(Made),
}

impl Install {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Run(plan) => install::run(&plan).await,
            Self::Done(made) => install::done(&made).await,
            Self::Undo(made) => install::undo(&made).await,
        }
    }
}
