//! The primary's part: it stops in order, proves that the standby has everything, and comes back as its standby.
//!
//! Nothing is decided before `standby.signal` is on the disk. Whoever comes later reads from that file and from the servers
//! what is so, and takes it back only while the other server answers that it is a standby.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::peer::Peer;
use super::{Intent, LOOK, Which, file, holds, signal};
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::made;
use crate::report;
use crate::restart;
use crate::server::{Bounds, Session, literal};
use crate::upgrade::intent::Intent as Upgrade;
use crate::upgrade::lock;
use crate::upgrade::switch::Hold;
use crate::wal::Lsn;

/// How far the standby may be behind before clients are held: a segment of the usual size.
const NEAR: u64 = 16 << 20;
/// How long the former primary may take to come back as a standby.
const FOLLOW: Duration = Duration::from_secs(60);
/// Settings in which a standby must not be below its primary.
const LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Values of libpq's `sslmode`.
const SSLMODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// What is handed over, and to whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    which: Which,
    /// Host of the standby that becomes the primary: a name, an address, or a folder of a socket
    #[arg(long, value_name = "HOST", value_parser = host)]
    peer: String,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 5432, value_parser = clap::value_parser!(u16).range(1..))]
    peer_port: u16,
    /// Role with which this server follows it, with the right REPLICATION; its password, if it needs one, is in
    /// ~postgres/.pgpass
    #[arg(long, value_name = "ROLE", default_value = "postgres", value_parser = role)]
    peer_user: String,
    /// How far TLS is demanded on the way there, as `sslmode` of libpq, which finds the certificate of the authority in
    /// ~postgres/.postgresql/root.crt
    #[arg(long, value_name = "MODE", default_value = "prefer", value_parser = SSLMODES)]
    peer_sslmode: String,
    /// The longest time for which clients may be held before this server is the primary again
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=300))]
    max_hold: u16,
    /// Only say whether it could be done, and change nothing
    #[arg(long)]
    check: bool,
}

fn host(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err("a name, an address, or a folder".to_owned());
    }
    Ok(text.to_owned())
}

fn role(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("a name of letters, digits, _ and -".to_owned());
    }
    Ok(text.to_owned())
}

impl Plan {
    fn conninfo(&self, cluster: &Cluster) -> String {
        format!(
            "host={} port={} user={} sslmode={} application_name={}",
            self.peer, self.peer_port, self.peer_user, self.peer_sslmode, cluster.name
        )
    }
}

/// What was found before anything is changed.
struct Ready {
    timeline: u32,
    before: [String; 2],
    /// The standby keeps its place by a slot, so that this server gets one, too.
    slot: bool,
}

/// Makes the primary a standby of the other server, which becomes the primary by `take-over`.
///
/// # Errors
/// If something forbids it, or it comes to nothing: then it is the primary as before.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let cluster = layout::cluster(&plan.which.cluster, plan.which.version).await?;
    let _lock = lock::take(&cluster.name)?;
    if handed(&cluster).await? {
        return said(&cluster, &plan.peer).await;
    }
    let conninfo = plan.conninfo(&cluster);
    let peer = Peer::new(&cluster, &conninfo)?;
    let ready = ready(&cluster, &peer).await?;
    if plan.check {
        report::progress(100, &format!("{} can be handed over to {}", cluster.title(), peer.place()));
        return Ok(());
    }
    let mut intent = Intent {
        version: 1,
        run: made::run(),
        begun: Timestamp::now(),
        timeline: ready.timeline,
        peer: conninfo.clone(),
        before: ready.before,
        slot: None,
    };
    if ready.slot {
        intent.slot = Some(format!("hostler_{}", cluster.name));
    }
    intent.write(&cluster)?;
    here(CrashPoint::HandOverIntended);
    let begun = match prepare(&cluster, &intent, &peer).await {
        Ok(()) => hand_over(&cluster, &intent, Duration::from_secs(u64::from(plan.max_hold))).await,
        Err(error) => Err(error),
    };
    if let Err(error) = begun {
        let cluster = layout::cluster(&cluster.name, Some(cluster.version)).await?;
        return Err(match take_back(&cluster, &intent).await {
            Ok(()) => error,
            Err(held) => Error::Unclear(format!("{error}; and it is not the primary again: {held}")),
        });
    }
    said(&cluster, &plan.peer).await
}

/// Says where the other server has to go on, which it is asked to only with this.
async fn said(cluster: &Cluster, peer: &str) -> Result<(), Error> {
    let cluster = layout::cluster(&cluster.name, Some(cluster.version)).await?;
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    let place = session.text("select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())").await?;
    report::output("place", place.as_str());
    report::progress(
        100,
        &format!(
            "{} is a standby of {peer}, and nobody writes: `take-over --place {place}` there makes it the primary",
            cluster.title()
        ),
    );
    Ok(())
}

/// Everything that can be known before clients are held.
async fn ready(cluster: &Cluster, peer: &Peer<'_>) -> Result<Ready, Error> {
    let title = cluster.title();
    let refused = |why: String| Err(Error::Refused(why));
    if !Upgrade::unfinished(&cluster.name)?.is_empty() {
        return refused(format!(
            "{title}: an upgrade of it is not finished: finish it or take it back first"
        ));
    }
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    if session.holds("select pg_is_in_recovery()").await? {
        return refused(format!("{title} is a standby: give the order on its primary"));
    }
    for (statement, why) in [
        (
            "select count(*) > 0 from pg_replication_slots where slot_type = 'logical'",
            "has logical replication slots, which do not go along: drop them first",
        ),
        (
            "select current_setting('archive_mode') <> 'off' and coalesce(last_failed_time > last_archived_time, \
             last_failed_time is not null) from pg_stat_archiver",
            "does not archive, and a stop would wait for that: see `hostler-postgres health`",
        ),
        (
            "select current_setting('hot_standby') <> 'on'",
            "has hot_standby off, so that nobody could ask the standby",
        ),
        (
            "select current_setting('recovery_target_timeline') <> 'latest'",
            "has a recovery_target_timeline other than latest, so that it would not follow",
        ),
        (
            "select not exists (select from pg_stat_replication where state = 'streaming')",
            "has no standby that streams: see pg_stat_replication",
        ),
    ] {
        if session.holds(statement).await? {
            return refused(format!("{title} {why}"));
        }
    }
    // It is started again, as a standby or as the primary that it was.
    restart::would_start(cluster, &session, false).await?;
    let own = own(&session).await?;
    let (seen, place) = (peer.look().await?, peer.place());
    if seen.system != own.system {
        return refused(format!("{place} is no copy of {title}: it has another system identifier"));
    }
    if !seen.standby {
        return refused(format!("{place} is no standby: it accepts writes"));
    }
    if seen.timeline != own.timeline {
        return refused(format!("{place} is on timeline {}, and {title} on {}", seen.timeline, own.timeline));
    }
    let behind = own.place.0.saturating_sub(seen.place.0);
    if behind > NEAR {
        return refused(format!(
            "{place} is {} MiB behind {title}: wait until it has caught up",
            behind >> 20
        ));
    }
    for name in LIMITS {
        let (mine, other) = (session.text(&format!("show {name}")).await?, peer.setting(name).await?);
        if number(&other)? < number(&mine)? {
            return refused(format!(
                "{name} is {other} on {place} and {mine} on {title}: raise it there, and restart it"
            ));
        }
    }
    let setting = async |name: &str| session.text(&format!("select current_setting('{name}')")).await;
    let before = [setting("primary_conninfo").await?, setting("primary_slot_name").await?];
    let slot = !peer.setting("primary_slot_name").await?.is_empty();
    Ok(Ready { timeline: own.timeline, before, slot })
}

fn number(text: &str) -> Result<u64, Error> {
    text.trim().parse().map_err(|_| Error::Server(format!("no number: {text}")))
}

/// System, timeline and place of a primary.
struct Own {
    system: u64,
    timeline: u32,
    place: Lsn,
}

async fn own(session: &Session) -> Result<Own, Error> {
    let rows = session
        .rows(
            "select system_identifier, \
             ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint, \
             pg_current_wal_insert_lsn() from pg_control_system()",
        )
        .await?;
    let own = rows.first().and_then(|row| match row.as_slice() {
        [Some(system), Some(timeline), Some(place)] => Some(Own {
            system: system.parse().ok()?,
            timeline: timeline.parse().ok()?,
            place: place.parse().ok()?,
        }),
        _ => None,
    });
    own.ok_or_else(|| Error::Server("the control file cannot be read".to_owned()))
}

/// What is done while clients work: how this server will follow, and a checkpoint, so that the stop has little to write.
async fn prepare(cluster: &Cluster, intent: &Intent, peer: &Peer<'_>) -> Result<(), Error> {
    let session = Session::open(cluster, "postgres", Bounds::WORK).await?;
    if let Some(slot) = &intent.slot {
        peer.make_slot(slot).await?;
    }
    let slot = intent.slot.clone().unwrap_or_default();
    follow_from(&session, &[intent.peer.clone(), slot]).await?;
    report::progress(20, "a checkpoint, so that the stop is short");
    session.run("checkpoint").await
}

/// Writes `primary_conninfo` and `primary_slot_name`, which a primary does not look at.
async fn follow_from(session: &Session, values: &[String; 2]) -> Result<(), Error> {
    for (name, value) in ["primary_conninfo", "primary_slot_name"].into_iter().zip(values) {
        session.run(&format!("alter system set {name} = {}", literal(value))).await?;
    }
    session.run("select pg_reload_conf()").await
}

/// The moment in which clients are held, and the start as a standby. A failure is taken back by the caller.
async fn hand_over(cluster: &Cluster, intent: &Intent, max_hold: Duration) -> Result<(), Error> {
    let peer = Peer::new(cluster, &intent.peer)?;
    let hold = Hold::begin();
    if !layout::stop_in_order(cluster, max_hold).await? {
        return Err(Error::Refused(format!(
            "{} did not stop in order within {} s (--max-hold)",
            cluster.title(),
            max_hold.as_secs()
        )));
    }
    here(CrashPoint::HandOverStopped);
    let control = layout::control(cluster).await?;
    if control.state != "shut down" {
        return Err(Error::Refused(format!(
            "{} did not shut down in order: it is {}",
            cluster.title(),
            control.state
        )));
    }
    // The checkpoint of the shutdown is the last record: who has more than its begin has all of it.
    loop {
        let seen = peer.look().await?;
        if seen.standby && seen.place > control.checkpoint {
            break;
        }
        if hold.lasts() > max_hold {
            let (place, last) = (peer.place(), control.checkpoint);
            return Err(Error::Refused(format!(
                "{place} has the WAL up to {}, and not all up to {last}",
                seen.place
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    here(CrashPoint::HandOverProved);
    durable::replace(&signal(cluster), "", cluster.owner)?;
    here(CrashPoint::HandOverSignalled);
    drop(hold);
    layout::start(cluster).await?;
    here(CrashPoint::HandOverStarted);
    // Before the other one becomes the primary it is known that this one can follow it.
    let streams =
        "select pg_is_in_recovery() and exists (select from pg_stat_wal_receiver where status = 'streaming')";
    holds(cluster, streams, FOLLOW, "it does not stream from the other server: its log says why").await
}

/// Whether it is a standby by a hand-over, and runs.
async fn handed(cluster: &Cluster) -> Result<bool, Error> {
    if Intent::read(cluster)?.is_none() || !signal(cluster).exists() || !cluster.running {
        return Ok(false);
    }
    Session::open(cluster, "postgres", Bounds::LOOK).await?.holds("select pg_is_in_recovery()").await
}

/// Whether the primary has become a standby.
///
/// # Errors
/// [`Error::No`] if it has not; others if that cannot be told.
pub async fn done(which: &Which) -> Result<(), Error> {
    let cluster = layout::cluster(&which.cluster, which.version).await?;
    if handed(&cluster).await? { Ok(()) } else { Err(Error::No("not done".to_owned())) }
}

/// Makes it the primary again, whatever died. May be called at any time, and again; what another run has begun stays.
///
/// # Errors
/// If the other server is the primary by now, or does not say.
pub async fn undo(which: &Which) -> Result<(), Error> {
    let _lock = lock::seize(&which.cluster).await?;
    let cluster = layout::cluster(&which.cluster, which.version).await?;
    match Intent::read(&cluster)?.filter(Intent::ours) {
        Some(intent) => take_back(&cluster, &intent).await,
        None => Ok(()),
    }
}

/// As [`undo`], for who has the lock.
async fn take_back(cluster: &Cluster, intent: &Intent) -> Result<(), Error> {
    let title = cluster.title();
    let peer = Peer::new(cluster, &intent.peer)?;
    let begun = Instant::now();
    if signal(cluster).exists() {
        let place = peer.place();
        let seen = peer.look().await.map_err(|error| {
            Error::Unclear(format!(
                "{title} stays a standby, since it is not known whether {place} is the primary: {error}. If it is not \
                 (`select pg_is_in_recovery()` there says t): have it answer, then `switchover undo`"
            ))
        })?;
        if !seen.standby || seen.timeline != intent.timeline {
            return Err(Error::Unclear(format!("{place} is the primary by now: {title} stays its standby")));
        }
        layout::stop(cluster).await?;
        durable::remove(&signal(cluster))?;
    }
    layout::start(&Cluster { running: false, ..cluster.clone() }).await?;
    holds(cluster, "select not pg_is_in_recovery()", FOLLOW, "it is still a standby").await?;
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    follow_from(&session, &intent.before).await?;
    if let Some(slot) = &intent.slot
        && let Err(error) = peer.drop_slot(slot).await
    {
        report::message(&format!("the slot {slot} stays on the other server, if it is there: {error}"));
    }
    durable::remove(&file(cluster))?;
    report::message(&format!("{title} is the primary again, after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}
