//! The end of the way back: the old cluster is dropped, and nothing of the upgrade is left.

use super::replica::{self, Way};
use super::{Pair, fence, switch};
use crate::durable;
use crate::error::Error;
use crate::layout;
use crate::report;

/// Drops the old cluster.
///
/// # Errors
/// If clients do not belong to the new one, or the old one is not behind its fence.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    let new = pair.made()?;
    if !pair.switched()? {
        return Err(Error::Refused("clients belong to the old cluster: it stays".to_owned()));
    }
    switch::release(pair).await?;
    if !fence::is_up(&pair.old)? {
        return Err(Error::Unclear(format!(
            "{} lets clients in, so it may have rows of its own",
            pair.old.title()
        )));
    }
    for ends in &pair.ends().await? {
        replica::end(Way::Up, &ends.base, &ends.old, &ends.new).await?;
        replica::end(Way::Back, &ends.base, &ends.new, &ends.old).await?;
        ends.new.run(&format!("drop publication if exists {}", Way::Back.publication())).await?;
    }
    layout::start_at_boot(&pair.old, false)?;
    // A file that Debian's tool does not know would keep the folder.
    durable::remove(&fence::kept(&pair.old))?;
    layout::drop_cluster(&pair.old).await?;
    durable::remove(&fence::kept(new))?;
    durable::remove(&super::prepare::marker(new))?;
    durable::remove(&pair.intent())?;
    report::progress(100, &format!("{} is dropped; {} has its clients", pair.old.title(), new.title()));
    Ok(())
}
