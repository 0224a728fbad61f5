//! `archive` and `fetch`: what a server calls.

use std::path::PathBuf;

use crate::archive;
use crate::archive::fetch;
use crate::depot::{Depot, Place};
use crate::error::Error;

/// What `archive` takes.
#[derive(clap::Args)]
pub(super) struct Archive {
    #[command(flatten)]
    place: Place,
    /// The file, in pg_wal: %p
    path: PathBuf,
}

/// What `fetch` takes.
#[derive(clap::Args)]
pub(super) struct Fetch {
    #[command(flatten)]
    place: Place,
    /// Its name: %f
    name: String,
    /// Where the server wants it: %p
    path: PathBuf,
}

impl Archive {
    pub(super) async fn run(self) -> Result<(), Error> {
        archive::hand_over(&Depot::new(&self.place, None), &self.path).await
    }
}

impl Fetch {
    pub(super) async fn run(self) -> Result<(), Error> {
        fetch::run(&Depot::new(&self.place, None), &self.name, &self.path).await
    }
}
