//! The standby's part: it becomes the primary, once it has everything and the former primary says that it is a standby.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::peer::Peer;
use super::{LOOK, Which, file, holds};
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session, literal};
use crate::upgrade::lock;
use crate::wal::Lsn;

/// How long the last of the WAL may take to be replayed.
const REPLAY: Duration = Duration::from_secs(60);
/// How long the promotion may take.
const PROMOTE: Duration = Duration::from_secs(60);
/// How long the former primary may take to follow.
const FOLLOW: Duration = Duration::from_secs(60);

/// What becomes the primary.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    which: Which,
    /// Where the former primary has stopped: the output `place` of its hand-over
    #[arg(long, value_name = "LSN")]
    place: Lsn,
    /// Only say whether it could be done, and change nothing
    #[arg(long)]
    check: bool,
}

/// Makes the standby the primary.
///
/// # Errors
/// If it has not everything, or the other server does not say that it is a standby.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let cluster = layout::cluster(&plan.which.cluster, plan.which.version).await?;
    let _lock = lock::take(&cluster.name)?;
    let session = Session::open(&cluster, "postgres", Bounds::WORK).await?;
    if !session.holds("select pg_is_in_recovery()").await? {
        report::message(&format!("{} is the primary", cluster.title()));
        return Ok(());
    }
    let conninfo = session.text("select current_setting('primary_conninfo')").await?;
    let peer = Peer::new(&cluster, &conninfo)?;
    ready(plan, &cluster, &session, &peer).await?;
    if plan.check {
        report::progress(100, &format!("{} can become the primary", cluster.title()));
        return Ok(());
    }
    // What is written now is not written by the promotion; and it shows when the former primary has stopped.
    session.run("checkpoint").await?;
    let place = literal(&plan.place.to_string());
    let stopped = session
        .value(&format!(
            "select extract(epoch from checkpoint_time)::bigint from pg_control_checkpoint() \
             where checkpoint_lsn = redo_lsn and pg_wal_lsn_diff({place}, checkpoint_lsn) between 0 and 1024",
        ))
        .await?;
    let stopped = stopped.and_then(|second| Timestamp::from_second(second.parse().ok()?).ok());
    let from = stopped.unwrap_or_else(Timestamp::now);
    here(CrashPoint::TakeOverReady);
    if !session.holds(&format!("select pg_promote(true, {})", PROMOTE.as_secs())).await? {
        return Err(Error::Unclear(format!(
            "{} was told to become the primary and has not within {} s: the same order again",
            cluster.title(),
            PROMOTE.as_secs()
        )));
    }
    here(CrashPoint::Promoted);
    holds(&cluster, "select not pg_is_in_recovery()", PROMOTE, "it is still a standby").await?;
    let held = Timestamp::now().duration_since(from).unsigned_abs();
    report::downtime(&format!("postgres:{}", cluster.name), from, held);
    report::output("held_seconds", (held.as_secs_f64() * 1000.0).round() / 1000.0);
    // Of a hand-over of its own, in the other direction.
    durable::remove(&file(&cluster))?;
    report::progress(
        100,
        &format!("{} is the primary; nobody could write for {:.1} s", cluster.title(), held.as_secs_f64()),
    );
    Ok(())
}

/// Whether everything has arrived, and the other server cannot write any more.
async fn ready(plan: &Plan, cluster: &Cluster, session: &Session, peer: &Peer<'_>) -> Result<(), Error> {
    let (title, other) = (cluster.title(), peer.place());
    let refused = |why: String| Err(Error::Refused(why));
    let begun = Instant::now();
    loop {
        let seen = peer.look().await?;
        let rows = session
            .rows("select system_identifier, pg_last_wal_replay_lsn() from pg_control_system()")
            .await?;
        let Some([Some(system), Some(replayed)]) = rows.first().map(Vec::as_slice) else {
            return Err(Error::Server(format!("{title} does not say how far it is")));
        };
        if *system != seen.system.to_string() {
            return refused(format!(
                "{other} is no longer what {title} follows: it has another system identifier"
            ));
        }
        if !seen.standby {
            return refused(format!("{other} accepts writes: `hand-over` there comes first"));
        }
        let replayed: Lsn = replayed.parse().map_err(Error::Server)?;
        if seen.place > plan.place {
            return refused(format!("{other} has gone on since, to {}: hand it over again", seen.place));
        }
        if replayed >= plan.place && replayed >= seen.place {
            return Ok(());
        }
        if begun.elapsed() > REPLAY {
            return refused(format!(
                "{title} has replayed {replayed}, and the former primary stopped at {}",
                plan.place
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the former primary follows, and drops the slot that it kept for this server.
///
/// # Errors
/// If it does not follow.
pub async fn verify(which: &Which) -> Result<(), Error> {
    let cluster = layout::cluster(&which.cluster, which.version).await?;
    done(which).await?;
    let follows = "select exists (select from pg_stat_replication where state = 'streaming')";
    let otherwise = "the former primary does not follow: its log says why";
    holds(&cluster, follows, FOLLOW, otherwise).await?;
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    let rows = session
        .rows("select current_setting('primary_conninfo'), current_setting('primary_slot_name')")
        .await?;
    if let Some([Some(conninfo), Some(slot)]) = rows.first().map(Vec::as_slice)
        && !slot.is_empty()
    {
        // It would keep WAL there until the disk is full.
        match Peer::new(&cluster, conninfo)?.drop_slot(slot).await {
            Ok(()) => {
                session.run("alter system set primary_slot_name = ''").await?;
                session.run("select pg_reload_conf()").await?;
            }
            Err(error) => {
                report::message(&format!("the slot {slot} of the former primary may still be there: {error}"))
            }
        }
    }
    report::progress(100, &format!("{} is the primary, and the former one follows it", cluster.title()));
    Ok(())
}

/// Whether it is the primary.
///
/// # Errors
/// [`Error::No`] if it is not; others if that cannot be told.
pub async fn done(which: &Which) -> Result<(), Error> {
    let cluster = layout::cluster(&which.cluster, which.version).await?;
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    if session.holds("select pg_is_in_recovery()").await? {
        return Err(Error::No(format!("{} is a standby", cluster.title())));
    }
    Ok(())
}
