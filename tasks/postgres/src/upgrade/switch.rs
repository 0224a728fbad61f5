//! The switch: clients are held, everything arrives, and they go on at the other cluster.
//!
//! One function for both directions. In it nothing is decided before the door is turned, which is one rename:
//!
//! | killed | what is true | who ends it |
//! | --- | --- | --- |
//! | before the rename | clients belong to the side that was left, and nothing was written on the other | [`release`] |
//! | after it | clients belong to the other side, where everything has arrived | [`release`] |
//!
//! The whole window is shorter than [`Pair::max_hold`]: what would take longer is given up, and clients go on where they
//! were. That holds also after the rename for as long as the other side's fence is up, since nobody has written there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::door::Door;
use super::ports::Ports;
use super::replica::{self, Way};
use super::{Ends, Pair, fence, follow, lock, prepare};
use crate::crash::{CrashPoint, here};
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session};

/// What letting clients go may take, after a window was given up.
const LEAVE: Duration = Duration::from_secs(1);
/// The same where servers have to be started for it.
const RESTART: Duration = Duration::from_secs(3);
/// How long a server may take to answer when nobody says how long clients have waited already.
const START: Duration = Duration::from_secs(60);
/// Between two looks whether a server answers.
const LOOK: Duration = Duration::from_millis(4);

/// Whether clients are held by this process at this moment.
static HOLDING: AtomicBool = AtomicBool::new(false);

/// Whether clients are held by this process: then it must not end before it has let them go.
pub fn holds_clients() -> bool {
    HOLDING.load(Ordering::Relaxed)
}

/// A window, while this is kept.
pub(crate) struct Hold(Instant);

impl Hold {
    /// From now on clients are held.
    pub(crate) fn begin() -> Self {
        HOLDING.store(true, Ordering::Relaxed);
        Self(Instant::now())
    }

    /// For how long they are by now.
    pub(crate) fn lasts(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDING.store(false, Ordering::Relaxed);
    }
}

/// Brings the clients to the new cluster.
///
/// # Errors
/// If something is not ready, or a part of the window fails: then clients go on where they were.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    let new = pair.made()?;
    let _lock = lock::take(&pair.old.name)?;
    if pair.switched()? {
        settle(pair).await?;
        report::message(&format!("clients are at {}", new.title()));
        return Ok(());
    }
    // What a dead window has left would be in the way of this one.
    settle(pair).await?;
    let pair = &pair.again().await?;
    let ends = pair.ends().await?;
    again(&ends).await?;
    ready(pair, &ends).await?;
    let held = window(pair, ends, Way::Up).await?;
    let now = pair.again().await?;
    settle(&now).await?;
    report::progress(100, &format!("clients are at {}; they were held for {held:.3?}", now.made()?.title()));
    Ok(())
}

/// Takes back what an earlier window, which was not finished, has left: the slot of the way back is too old, because
/// what has arrived since would go back to where it came from.
pub(super) async fn again(ends: &[Ends]) -> Result<(), Error> {
    for ends in ends {
        replica::drop_slot(Way::Back, &ends.base, &ends.new).await?;
        replica::enable(Way::Up, &ends.base, &ends.new, true).await?;
    }
    Ok(())
}

/// Everything that can be known before clients are held.
async fn ready(pair: &Pair, ends: &[Ends]) -> Result<(), Error> {
    for ends in ends {
        let name = &ends.base.name;
        let parts = replica::parts(Way::Up, &ends.base, &ends.old, &ends.new).await?;
        let copying =
            ends.new.text("select count(*) from pg_subscription_rel where srsubstate <> 'r'").await?;
        if !(parts.subscription && parts.slot) || copying != "0" {
            return Err(Error::Refused(format!(
                "database {name} is not copied: `upgrade follow` comes first"
            )));
        }
        if replica::shape(&ends.old).await? != replica::shape(&ends.new).await? {
            return Err(Error::Refused(format!(
                "database {name}: tables were changed since the copy: make the same change on the new cluster"
            )));
        }
        replica::hasten(Way::Up, &ends.base, &ends.new).await?;
    }
    crate::check::verdict(&pair.door.check(&pair.old).await?)?;
    follow::near(ends, Way::Up, Duration::from_secs(60)).await
}

/// The moment in which clients are held; how long it was. A failure before the decision lets them go where they were.
pub(super) async fn window(pair: &Pair, ends: Vec<Ends>, way: Way) -> Result<Duration, Error> {
    let (from, to) = sides(pair, way)?;
    // The first login of a session is slow: both are there before anybody waits.
    let leaving = Session::open(from, "postgres", Bounds::LOOK).await?;
    let entering = Session::open(to, "postgres", Bounds::LOOK).await?;
    if !pair.door.is_bouncer() {
        // Both are stopped in the window, and what is written now is not written then.
        tokio::try_join!(leaving.run("checkpoint"), entering.run("checkpoint"))?;
        follow::near(&ends, way, Duration::from_secs(60)).await?;
    }
    let (hold, since) = (Hold::begin(), Timestamp::now());
    let reserve = if pair.door.is_bouncer() { LEAVE } else { RESTART };
    let brought = async {
        match (&pair.door, way) {
            (Door::Bouncer { bouncer, .. }, _) => {
                bouncer.pause(from.port).await?;
                here(CrashPoint::Paused);
            }
            (Door::Ports(ports), Way::Back) => {
                layout::set_port(&pair.old, ports.clients)?;
                here(CrashPoint::PortMeant);
            }
            (Door::Ports(_), Way::Up) => {}
        }
        bring(from, &ends, way, &leaving).await
    };
    let brought = tokio::time::timeout(pair.max_hold.saturating_sub(reserve), brought).await;
    let brought = brought.unwrap_or_else(|_| {
        Err(Error::Refused(format!(
            "the window did not end within {} s (--max-hold), so clients go on where they were",
            pair.max_hold.as_secs()
        )))
    });
    if let Err(error) = brought.and_then(|()| turn(pair, way)) {
        return Err(left(pair, error, since, &hold).await);
    }
    here(CrashPoint::Turned);
    drop((ends, leaving));
    match &pair.door {
        Door::Bouncer { bouncer, .. } => {
            fence::lower(to, &entering).await?;
            here(CrashPoint::Opened);
            bouncer.resume(to.port).await?;
            let held = hold.0.elapsed();
            pair.report_held(since, held);
            Ok(held)
        }
        Door::Ports(ports) => {
            drop(entering);
            let deadline = hold.0 + pair.max_hold.saturating_sub(LEAVE);
            match exchange(pair, *ports, way, deadline).await {
                Ok(starting) => {
                    let held = hold.0.elapsed();
                    drop(hold);
                    pair.report_held(since, held);
                    let from = Cluster { port: ports.spare, configured: ports.spare, ..from.clone() };
                    let (_, other) = start(&from, START).await?;
                    starting.ended().await?;
                    other.ended().await?;
                    Ok(held)
                }
                Err(error) if fence::is_up(to)? => {
                    // Nobody has written there.
                    layout::stop(to).await?;
                    turn_back(pair, *ports, way)?;
                    Err(left(pair, error, since, &hold).await)
                }
                Err(error) => Err(error),
            }
        }
    }
}

/// Lets clients go where they were, after a window that came to nothing: why it did.
async fn left(pair: &Pair, error: Error, since: Timestamp, hold: &Hold) -> Error {
    let settled = async { let_go(&pair.again().await?).await };
    match settled.await {
        Ok(()) => {
            pair.report_held(since, hold.0.elapsed());
            error
        }
        Err(held) => {
            Error::Unclear(format!("{error}; and clients are still held: {held}: `upgrade release`"))
        }
    }
}

fn sides(pair: &Pair, way: Way) -> Result<(&Cluster, &Cluster), Error> {
    let new = pair.made()?;
    Ok(match way {
        Way::Up => (&pair.old, new),
        Way::Back => (new, &pair.old),
    })
}

/// Turns the door: this is the moment that decides.
fn turn(pair: &Pair, way: Way) -> Result<(), Error> {
    let (from, to) = sides(pair, way)?;
    match (&pair.door, way) {
        (Door::Bouncer { bouncer, .. }, _) => bouncer.turn(from.configured, to.configured, to.owner),
        (Door::Ports(ports), Way::Up) => layout::set_port(to, ports.clients),
        (Door::Ports(ports), Way::Back) => layout::set_port(from, ports.spare),
    }
}

/// Turns it back, before anybody was let in.
fn turn_back(pair: &Pair, ports: Ports, way: Way) -> Result<(), Error> {
    let new = pair.made()?;
    match way {
        Way::Up => {
            layout::set_port(&pair.old, ports.clients)?;
            layout::set_port(new, ports.spare)
        }
        Way::Back => layout::set_port(new, ports.clients),
    }
}

/// Starts the side to which the door leads at the clients' port, and lets them in.
async fn exchange(pair: &Pair, ports: Ports, way: Way, deadline: Instant) -> Result<Starting, Error> {
    let (from, to) = sides(pair, way)?;
    tokio::try_join!(layout::stop(from), layout::stop(to))?;
    here(CrashPoint::Stopped);
    if way == Way::Up {
        layout::set_port(from, ports.spare)?;
    }
    let to = &Cluster { port: ports.clients, configured: ports.clients, ..to.clone() };
    let (admin, starting) = start(to, deadline.saturating_duration_since(Instant::now())).await?;
    here(CrashPoint::Restarted);
    fence::lower(to, &admin).await?;
    here(CrashPoint::Opened);
    Ok(starting)
}

/// The tool that starts a server: it looks for some seconds whether the server stays, which answers much earlier.
pub(super) struct Starting(Option<tokio::task::JoinHandle<Result<(), Error>>>);

impl Starting {
    /// That of a server that runs already.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Waits for its end.
    pub(super) async fn ended(self) -> Result<(), Error> {
        match self.0 {
            Some(task) => task.await.map_err(|error| Error::Local(error.to_string()))?,
            None => Ok(()),
        }
    }
}

/// Starts a server that does not run, and logs in as soon as it answers.
pub(super) async fn start(cluster: &Cluster, within: Duration) -> Result<(Session, Starting), Error> {
    let begun = Instant::now();
    let asked = cluster.clone();
    let mut starting = Starting(Some(tokio::spawn(async move { layout::start(&asked).await })));
    loop {
        let ended = starting.0.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
        match Session::open(cluster, "postgres", Bounds::LOOK).await {
            Ok(session) => return Ok((session, starting)),
            Err(error) if begun.elapsed() > within => return Err(error),
            Err(_) if ended => std::mem::replace(&mut starting, Starting(None)).ended().await?,
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A session with a cluster that may have to be started for it, or started again at this port.
async fn bring_up(cluster: &Cluster, port: u16) -> Result<(Session, Starting), Error> {
    let wanted = Cluster { port, configured: port, ..cluster.clone() };
    if cluster.running && cluster.port == port {
        return Ok((Session::open(&wanted, "postgres", Bounds::LOOK).await?, Starting(None)));
    }
    if cluster.running {
        layout::stop(cluster).await?;
    }
    start(&wanted, START).await
}

/// Everything that was committed on the side that is left arrives on the other, and nothing more is committed there.
async fn bring(from: &Cluster, ends: &[Ends], way: Way, leaving: &Session) -> Result<(), Error> {
    fence::raise(from, leaving).await?;
    here(CrashPoint::Fenced);
    drain(ends, way).await?;
    here(CrashPoint::Drained);
    for ends in ends {
        let (publisher, subscriber) = ends.of(way);
        replica::copy_sequences(publisher, subscriber).await?;
    }
    here(CrashPoint::SequencesSet);
    if way == Way::Up {
        for ends in ends {
            replica::make_slot(Way::Back, &ends.base, &ends.new).await?;
        }
        here(CrashPoint::WayBackKept);
    }
    for ends in ends {
        // Off and not dropped: if nothing comes of this, it goes on from where it is.
        replica::enable(way, &ends.base, ends.of(way).1, false).await?;
    }
    here(CrashPoint::SubscriptionOff);
    Ok(())
}

async fn drain(ends: &[Ends], way: Way) -> Result<(), Error> {
    let mut places = Vec::new();
    for ends in ends {
        places.push(replica::mark(ends.of(way).0).await?);
    }
    for (ends, place) in ends.iter().zip(&places) {
        replica::arrived(way, &ends.base, ends.of(way).0, place, replica::DRAIN).await?;
    }
    Ok(())
}

/// Lets clients go to the side to which they belong, whatever has died. May be called at any time, and again; where
/// nobody is held it changes nothing, and while they are, it ends the process that holds them.
///
/// # Errors
/// [`Error::Unclear`] if the door does not say which side that is, and if a server does not answer.
pub async fn release(pair: &Pair) -> Result<(), Error> {
    if flows(pair).await.unwrap_or(false) {
        report::message("nobody is held");
        return Ok(());
    }
    let _lock = lock::seize(&pair.old.name).await?;
    let_go(&pair.again().await?).await?;
    report::message("clients go on");
    Ok(())
}

/// Whether clients go where they belong.
async fn flows(pair: &Pair) -> Result<bool, Error> {
    let (side, _) = pair.sides()?;
    if pair.mine() {
        Ok(!fence::is_up(side)? && pair.door.flows(side).await?)
    } else {
        // Nothing was begun, or all of it was taken back.
        Ok(!fence::is_up(side)?)
    }
}

/// As [`release`], for who has the lock. That the other side runs as well is tried, and not needed.
pub(super) async fn let_go(pair: &Pair) -> Result<(), Error> {
    let starting = let_in(pair).await?;
    if let Err(error) = follower(pair).await {
        report::message(&format!("clients go on; the other cluster does not: {error}"));
    }
    starting.ended().await
}

/// As [`release`], for who has the lock; and the other side runs then, behind its fence, for the replication.
pub(super) async fn settle(pair: &Pair) -> Result<(), Error> {
    let starting = let_in(pair).await?;
    follower(pair).await?;
    starting.ended().await
}

/// The other side of [`Pair::sides`], if it is whole: a half-made one is taken back, and never started.
fn whole_other(pair: &Pair) -> Result<Option<&Cluster>, Error> {
    let (side, other) = pair.sides()?;
    Ok(other.filter(|other| other.version < side.version || prepare::is_whole(other)))
}

/// Lets clients go to the side to which they belong, which may have to be started for it.
async fn let_in(pair: &Pair) -> Result<Starting, Error> {
    let (side, _) = pair.sides()?;
    let at = match &pair.door {
        Door::Bouncer { .. } => side.configured,
        Door::Ports(ports) => {
            if let Some(other) = whole_other(pair)? {
                clear_port(*ports, side, other).await?;
            }
            ports.clients
        }
    };
    let (admin, starting) = bring_up(side, at).await?;
    let side = &Cluster { port: at, ..side.clone() };
    if fence::is_up(side)? {
        fence::lower(side, &admin).await?;
    }
    if let Door::Bouncer { bouncer, .. } = &pair.door {
        bouncer.resume(at).await?;
    }
    Ok(starting)
}

/// Has the other side run; [`let_in`] has made room for it.
async fn follower(pair: &Pair) -> Result<(), Error> {
    let Some(other) = whole_other(pair)? else { return Ok(()) };
    let port = match &pair.door {
        Door::Bouncer { .. } => other.configured,
        Door::Ports(ports) => ports.spare,
    };
    let other = &Cluster { running: other.running && other.port == port, ..other.clone() };
    let (_, starting) = bring_up(other, port).await?;
    starting.ended().await
}

/// Has the side to which clients do not belong leave their port.
async fn clear_port(ports: Ports, side: &Cluster, other: &Cluster) -> Result<(), Error> {
    if other.configured != ports.spare {
        if !fence::is_up(other)? {
            let (side, title) = (side.title(), other.title());
            return Err(Error::Unclear(format!(
                "{side} and {title} both have port {}, and {title} lets clients in: stop it and give it port {}",
                ports.clients, ports.spare
            )));
        }
        layout::set_port(other, ports.spare)?;
    }
    if other.running && other.port != ports.spare {
        layout::stop(other).await?;
    }
    Ok(())
}
