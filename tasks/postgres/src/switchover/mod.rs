//! The planned exchange of a primary and its standby, as two commands on two hosts.
//!
//! ```text
//!  hand-over, on the primary             take-over, on the standby
//!        \                              /
//!         peer                             the other server, asked by a replication connection
//! ```
//! | killed or failed in | what is true | who ends it |
//! | --- | --- | --- |
//! | `hand-over` before `standby.signal` is on the disk | it is the primary, and the next start makes it serve | [`hand_over::undo`] |
//! | `hand-over` after it | both are standbys, nobody writes | the same, once the other server has said that it is a standby |
//! | `take-over` before its promotion | both are standbys | `take-over` again, or a take-over of the former primary |
//! | `take-over` after it | the standby is the primary, and the other one follows it | `take-over` again |
//!
//! **There are never two primaries that accept writes**: a server becomes a standby before the other one is asked to become
//! the primary, and a server becomes the primary only while the other one answers that it is a standby. The place in the WAL
//! at which the former primary has stopped goes from the first command to the second one by the operator: without the success
//! of the first nobody has it.

pub mod hand_over;
pub mod peer;
pub mod take_over;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::Error;
use crate::layout::Cluster;
use crate::made;
use crate::server::{Bounds, Session};

/// Between two looks at a server.
const LOOK: Duration = Duration::from_millis(50);

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
}

/// That a primary is being handed over; on the disk before the first change, and gone when it is a primary again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intent {
    /// Format of this file.
    version: u8,
    /// The run that began it.
    run: String,
    begun: Timestamp,
    /// The timeline on which it was the primary.
    timeline: u32,
    /// How the other server is reached.
    peer: String,
    /// What `primary_conninfo` and `primary_slot_name` were before.
    before: [String; 2],
    /// The slot that was made on the other server.
    slot: Option<String>,
}

fn file(cluster: &Cluster) -> PathBuf {
    durable::state().join(format!("switchover-{}-{}", cluster.version, cluster.name))
}

impl Intent {
    fn read(cluster: &Cluster) -> Result<Option<Self>, Error> {
        durable::kept(&file(cluster), |intent: &Self| intent.version == 1)
    }

    fn write(&self, cluster: &Cluster) -> Result<(), Error> {
        durable::keep(&file(cluster), self)
    }

    /// Whether this process may take it back.
    fn ours(&self) -> bool {
        made::may_take_back(&self.run)
    }
}

/// The file that makes a server start as a standby, and as nothing else.
fn signal(cluster: &Cluster) -> PathBuf {
    cluster.data.join("standby.signal")
}

/// Waits until a statement holds.
async fn holds(cluster: &Cluster, statement: &str, within: Duration, otherwise: &str) -> Result<(), Error> {
    let begun = std::time::Instant::now();
    loop {
        // A server that comes up, or goes over to another timeline, may answer a moment later.
        let answer = match Session::open(cluster, "postgres", Bounds::LOOK).await {
            Ok(session) => session.holds(statement).await,
            Err(error) => Err(error),
        };
        let why = match answer {
            Ok(true) => return Ok(()),
            Ok(false) => otherwise.to_owned(),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > within {
            return Err(Error::Server(format!("{}: {why}, after {} s", cluster.title(), within.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}
