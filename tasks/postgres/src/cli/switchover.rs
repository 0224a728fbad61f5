//! `switchover`: the primary's part and the standby's, each with its questions.

use crate::error::Error;
use crate::switchover::{Which, hand_over, take_over};

/// What there is to do.
#[derive(clap::Subcommand)]
pub(super) enum Switchover {
    /// On the primary: stop it, prove that a standby has everything, and start it as a standby of that
    HandOver(hand_over::Plan),
    /// On the standby, once the primary was handed over: make it the primary
    TakeOver(take_over::Plan),
    /// On the new primary: wait until the former one follows
    Verify(Which),
    /// Say whether a part is done, by reading the servers: status 0 yes, 1 no, else it cannot be told
    Done(Done),
    /// On the former primary: make it the primary again, unless the other one is by now
    Undo(Which),
}

/// What `done` takes.
#[derive(clap::Args)]
pub(super) struct Done {
    /// The part
    part: Part,
    #[command(flatten)]
    which: Which,
}

/// A part that can be asked for.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// The primary has become a standby
    HandOver,
    /// The cluster is the primary
    TakeOver,
}

impl Switchover {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::HandOver(plan) => hand_over::run(&plan).await,
            Self::TakeOver(plan) => take_over::run(&plan).await,
            Self::Verify(which) => take_over::verify(&which).await,
            Self::Done(Done { part: Part::HandOver, which }) => hand_over::done(&which).await,
            Self::Done(Done { part: Part::TakeOver, which }) => take_over::done(&which).await,
            Self::Undo(which) => hand_over::undo(&which).await,
        }
    }
}
