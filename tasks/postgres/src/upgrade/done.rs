//! Whether a step is done, read from the servers and their files, without a change.
//!
//! Yes is success, no is [`Error::No`], and everything else says that it cannot be told.

use super::replica::{self, Way};
use super::{Pair, fence, prepare};
use crate::durable;
use crate::error::Error;
use crate::server::{Bounds, Session};

/// A step that is asked for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Step {
    /// The new cluster with the schema
    Prepare,
    /// The copy of the rows, which follows
    Follow,
    /// Clients at the new cluster
    Switch,
    /// The old cluster follows the new one
    FollowBack,
    /// Clients at the new version, whether or not the old cluster is still there
    Upgraded,
    /// Only the new cluster is left
    Finish,
}

/// Answers the question.
///
/// # Errors
/// [`Error::No`] if it is not done; others if that cannot be told.
pub async fn ask(pair: &Pair, step: Step) -> Result<(), Error> {
    let done = match step {
        Step::Prepare => prepared(pair).await?,
        Step::Follow => replicated(pair, Way::Up).await?,
        Step::Switch => switched(pair).await?,
        Step::Upgraded => switched(pair).await?,
        Step::Finish => return super::finish::done(pair.plan()).await,
        Step::FollowBack => pair.switched()? && replicated(pair, Way::Back).await?,
    };
    if done { Ok(()) } else { Err(Error::No("not done".to_owned())) }
}

async fn prepared(pair: &Pair) -> Result<bool, Error> {
    let Some(intent) = &pair.intent else {
        return match &pair.new {
            None => Ok(false),
            Some(new) => Err(Error::Unclear(format!("{} was not made by this upgrade", new.title()))),
        };
    };
    let Some(new) = &pair.new else { return Ok(false) };
    if durable::read(&prepare::marker(new))? != Some(intent.text()) {
        return Ok(false);
    }
    Session::open(new, "postgres", Bounds::LOOK).await.map(|_| true)
}

/// Both ends exist, for each database, and every table is copied.
async fn replicated(pair: &Pair, way: Way) -> Result<bool, Error> {
    for ends in pair.ends().await? {
        let (publisher, subscriber) = ends.of(way);
        let parts = replica::parts(way, &ends.base, publisher, subscriber).await?;
        let copying = "select exists (select from pg_subscription_rel where srsubstate <> 'r')";
        if !(parts.subscription && parts.slot) || subscriber.holds(copying).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn switched(pair: &Pair) -> Result<bool, Error> {
    if !pair.switched()? {
        return Ok(false);
    }
    let new = pair.made()?;
    Ok(!fence::is_up(new)? && fence::is_up(&pair.old)? && pair.door.flows(new).await?)
}
