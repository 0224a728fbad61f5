//! The switch: clients are held, everything arrives, and they go on at the other cluster.
//!
//! One function for both directions. In it nothing is decided before pgbouncer's file is turned, which is one rename:
//!
//! | killed | what is true | who ends it |
//! | --- | --- | --- |
//! | before the rename | clients belong to the side that was left, and nothing was written on the other | [`release`] |
//! | after it | clients belong to the other side, where everything has arrived | [`release`] |

use std::time::{Duration, Instant};

use super::replica::{self, Way};
use super::{Ends, Pair, fence, follow};
use crate::crash::{CrashPoint, here};
use crate::error::Error;
use crate::layout::Cluster;
use crate::report;
use crate::server::{Bounds, Session};

/// Brings the clients to the new cluster.
///
/// # Errors
/// If something is not ready, or a part of the window fails: then clients go on where they were.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    let new = pair.made()?;
    if pair.switched()? {
        release(pair).await?;
        report::message(&format!("clients are at {}", new.title()));
        return Ok(());
    }
    let ends = pair.ends().await?;
    again(&ends).await?;
    ready(pair, &ends).await?;
    let held = window(pair, &ends, Way::Up).await?;
    report::output("held_seconds", held.as_secs_f64());
    report::progress(100, &format!("clients are at {}; they were held for {held:.3?}", new.title()));
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
    let blocks = pair.bouncer.check(&pair.old).await?;
    crate::check::verdict(&blocks)?;
    follow::near(ends, Way::Up, Duration::from_secs(60)).await
}

/// The moment in which clients are held; how long it was. A failure before the decision lets them go where they were.
pub(super) async fn window(pair: &Pair, ends: &[Ends], way: Way) -> Result<Duration, Error> {
    let (from, to) = sides(pair, way)?;
    // The first login of a session is slow: both are there before anybody waits.
    let leaving = Session::open(from, "postgres", Bounds::LOOK).await?;
    let entering = Session::open(to, "postgres", Bounds::LOOK).await?;
    let begun = Instant::now();
    let brought = async {
        pair.bouncer.pause(from.port).await?;
        here(CrashPoint::Paused);
        bring(from, ends, way, &leaving).await?;
        pair.bouncer.turn(from.port, to.port, to.owner)
    };
    if let Err(error) = brought.await {
        return match release(pair).await {
            Ok(()) => Err(error),
            Err(held) => {
                Err(Error::Unclear(format!("{error}; and clients are still held: {held}: `upgrade release`")))
            }
        };
    }
    here(CrashPoint::Turned);
    fence::lower(to, &entering).await?;
    here(CrashPoint::Opened);
    pair.bouncer.resume(to.port).await?;
    Ok(begun.elapsed())
}

fn sides(pair: &Pair, way: Way) -> Result<(&Cluster, &Cluster), Error> {
    let new = pair.made()?;
    Ok(match way {
        Way::Up => (&pair.old, new),
        Way::Back => (new, &pair.old),
    })
}

/// Everything that was committed on the side that is left arrives on the other, and nothing more is committed there.
async fn bring(from: &Cluster, ends: &[Ends], way: Way, leaving: &Session) -> Result<(), Error> {
    fence::raise(from, leaving).await?;
    here(CrashPoint::Fenced);
    drain(ends, way).await?;
    // Who was logging in when the fence came up has been let in since, if at all.
    fence::clear(leaving).await?;
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

/// Lets clients go to the side to which they belong. May be called at any time, and again.
///
/// # Errors
/// [`Error::Unclear`] if pgbouncer's file does not say which side that is, and if a server does not answer.
pub async fn release(pair: &Pair) -> Result<(), Error> {
    let side = if pair.switched()? { pair.made()? } else { &pair.old };
    let admin = Session::open(side, "postgres", Bounds::LOOK).await?;
    if fence::is_up(side)? {
        fence::lower(side, &admin).await?;
    }
    pair.bouncer.resume(side.port).await
}
