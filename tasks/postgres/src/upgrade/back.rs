//! The way back: the old cluster follows the new one, until one of them is given up.

use std::time::Duration;

use super::replica::{self, Way};
use super::{Pair, fence, follow, lock, prepare, switch};
use crate::crash::{CrashPoint, here};
use crate::error::Error;
use crate::report;

/// Has the old cluster follow the new one, from the moment of the switch on.
///
/// # Errors
/// If clients have not moved, the way back was given up, or a server refuses something.
pub async fn follow(pair: &Pair) -> Result<(), Error> {
    pair.made()?;
    if !pair.switched()? {
        return Err(Error::Refused(
            "clients belong to the old cluster: `upgrade switch` comes first".to_owned(),
        ));
    }
    let _lock = lock::take(&pair.old.name)?;
    switch::settle(pair).await?;
    begin(&pair.again().await?).await?;
    report::progress(100, "the old cluster follows the new one");
    Ok(())
}

/// As [`follow`], for who has the lock, and where clients are.
async fn begin(pair: &Pair) -> Result<(), Error> {
    let new = pair.made()?;
    let ends = pair.ends().await?;
    for ends in &ends {
        // What would send rows of the way back up again goes first.
        replica::end(Way::Up, &ends.base, &ends.old, &ends.new).await?;
        here(CrashPoint::Unsubscribed);
        let parts = replica::parts(Way::Back, &ends.base, &ends.new, &ends.old).await?;
        if !parts.slot {
            return Err(Error::Refused(format!(
                "database {}: the slot of the way back does not exist, so nothing can be brought back",
                ends.base.name
            )));
        }
        if parts.subscription {
            replica::enable(Way::Back, &ends.base, &ends.old, true).await?;
        } else {
            replica::subscribe(Way::Back, &ends.base, new, &ends.old, false).await?;
        }
        here(CrashPoint::SubscribedBack);
        ends.old.run(&format!("drop publication if exists {}", Way::Up.publication())).await?;
    }
    follow::near(&ends, Way::Back, Duration::from_secs(600)).await
}

/// Brings the clients back to the old cluster, with every row that was written since; or, where they have not moved yet,
/// takes back what a switch has begun. Nothing of the switch is left then.
///
/// # Errors
/// If a part fails: clients go on where they were.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    let _lock = lock::take(&pair.old.name)?;
    switch::let_go(pair).await?;
    let pair = &pair.again().await?;
    let switched = pair.switched()?;
    if switched {
        begin(pair).await?;
        let ends = pair.ends().await?;
        for ends in &ends {
            if replica::shape(&ends.new).await? != replica::shape(&ends.old).await? {
                return Err(Error::Refused(format!(
                    "database {}: tables were changed on the new cluster: make the same change on the old one",
                    ends.base.name
                )));
            }
        }
        let held = switch::window(pair, ends, Way::Back).await?;
        report::message(&format!("clients are at {}; they were held for {held:.3?}", pair.old.title()));
    }
    let pair = &pair.again().await?;
    switch::let_go(pair).await?;
    let Some(new) = pair.new.as_ref().filter(|_| pair.mine()) else { return Ok(()) };
    if !prepare::is_whole(new) {
        return Ok(());
    }
    // What was written on the old cluster from here on is not followed: the new one is of no more use, and stays shut.
    if !fence::is_up(new)? {
        return Err(Error::Unclear(format!(
            "{} lets clients in, though they belong to the old cluster",
            new.title()
        )));
    }
    let ends = match pair.again().await?.ends().await {
        Err(error) if !switched => {
            // Whatever it has of the switch goes with it, or is taken back before the next one.
            report::message(&format!(
                "clients are at {}; the new cluster does not answer: {error}",
                pair.old.title()
            ));
            return Ok(());
        }
        ends => ends?,
    };
    for ends in &ends {
        replica::end(Way::Back, &ends.base, &ends.new, &ends.old).await?;
    }
    // Where nothing was switched, the new cluster goes on to follow.
    switch::again(&ends).await?;
    report::progress(100, &format!("clients are at {}", pair.old.title()));
    Ok(())
}
