//! `restore`: a state of the past as a new cluster.

use crate::error::Error;
use crate::restore::in_place::{self, Named, Part};
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
    /// Put what was in the place of a cluster, whose files are kept aside
    #[command(subcommand)]
    InPlace(InPlace),
}

/// The parts of a restore in place.
#[derive(clap::Subcommand)]
pub(super) enum InPlace {
    /// Recover what was beside the cluster, which goes on serving
    Prepare(in_place::Plan),
    /// Stop the cluster, exchange its files, and start it: the point of no return
    Replace(Named),
    /// Say whether a part is done: status 0 yes, 1 no, else it cannot be told
    Done {
        /// The part
        part: Part,
        #[command(flatten)]
        named: Named,
    },
    /// Remove what was prepared, and nothing else
    Undo(Named),
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Run(plan) => restore::run(&plan).await,
            Self::Done(made) => restore::done(&made).await,
            Self::Undo(made) => restore::undo(&made).await,
            Self::InPlace(InPlace::Prepare(plan)) => in_place::prepare(&plan).await,
            Self::InPlace(InPlace::Replace(named)) => in_place::replace(&named).await,
            Self::InPlace(InPlace::Done { part, named }) => in_place::done(&named, part).await,
            Self::InPlace(InPlace::Undo(named)) => in_place::undo(&named).await,
        }
    }
}
