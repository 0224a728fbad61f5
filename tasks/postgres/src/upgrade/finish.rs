//! The end of the way back: the old cluster is dropped, and nothing of the upgrade is left.
//!
//! Once it is written down which cluster goes, it goes: whatever dies from then on, the next call goes on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::intent::Intent;
use super::replica::{self, Way};
use super::{Pair, Plan, fence, lock, prepare, switch};
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::{self, Cluster};
use crate::report;

/// The cluster that goes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Going {
    /// Format of this file.
    version: u8,
    /// The cluster's major version.
    major: u16,
    data: PathBuf,
    conf: PathBuf,
    uid: u32,
    gid: u32,
}

fn file(plan: &Plan) -> PathBuf {
    durable::state().join(format!("finish-{}-{}", plan.to, plan.cluster))
}

fn going(plan: &Plan) -> Result<Option<Going>, Error> {
    let path = file(plan);
    let Some(text) = durable::read(&path)? else { return Ok(None) };
    let going = serde_json::from_str(&text).ok().filter(|going: &Going| going.version == 1);
    going.map(Some).ok_or_else(|| Error::Unclear(format!("{} cannot be understood", path.display())))
}

/// Drops the old cluster.
///
/// # Errors
/// If clients do not belong to the new one, or the old one is not behind its fence.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::take(&plan.cluster)?;
    if going(plan)?.is_none() {
        if done(plan).await.is_ok() {
            report::message("nothing is left to be finished");
            return Ok(());
        }
        decide(&plan.resolve().await?, &file(plan)).await?;
    }
    if let Some(going) = going(plan)? {
        remove(plan, &going).await?;
    }
    report::progress(
        100,
        &format!("the old cluster is dropped; {}/{} has its clients", plan.to, plan.cluster),
    );
    Ok(())
}

/// Whether it may begin, or go on.
///
/// # Errors
/// As [`run`].
pub async fn may(plan: &Plan) -> Result<(), Error> {
    if going(plan)?.is_some() || done(plan).await.is_ok() {
        return Ok(());
    }
    may_begin(&plan.resolve().await?)
}

fn may_begin(pair: &Pair) -> Result<(), Error> {
    let new = pair.made()?;
    if !pair.switched()? {
        return Err(Error::Refused("clients belong to the old cluster: it stays".to_owned()));
    }
    if fence::is_up(new)? {
        return Err(Error::Refused(format!("{} lets nobody in: `upgrade switch` first", new.title())));
    }
    if !fence::is_up(&pair.old)? {
        return Err(Error::Unclear(format!(
            "{} lets clients in, so it may have rows of its own",
            pair.old.title()
        )));
    }
    Ok(())
}

/// Whether an upgrade to this version was finished: only the new cluster is there, and nothing of the upgrade.
///
/// # Errors
/// [`Error::No`] if it was not.
pub async fn done(plan: &Plan) -> Result<(), Error> {
    let no = |why: &str| Err(Error::No(why.to_owned()));
    if going(plan)?.is_some() || Intent::read(plan.to, &plan.cluster)?.is_some() {
        return no("the old cluster, or a part of it, is still there");
    }
    let named = layout::list().await?.named(&plan.cluster)?;
    let versions: Vec<_> = named.iter().map(|cluster| cluster.version).collect();
    if versions.iter().any(|version| *version < plan.to) || !versions.contains(&plan.to) {
        return no("nothing was upgraded");
    }
    Ok(())
}

/// Everything before the decision, and the decision.
async fn decide(pair: &Pair, file: &Path) -> Result<(), Error> {
    may_begin(pair)?;
    switch::settle(pair).await?;
    let pair = &pair.again().await?;
    for ends in &pair.ends().await? {
        replica::end(Way::Up, &ends.base, &ends.old, &ends.new).await?;
        replica::end(Way::Back, &ends.base, &ends.new, &ends.old).await?;
        ends.new.run(&format!("drop publication if exists {}", Way::Back.publication())).await?;
    }
    here(CrashPoint::WayBackEnded);
    let Cluster { version, data, conf, owner, .. } = pair.old.clone();
    let going = Going { version: 1, major: version, data, conf, uid: owner.uid, gid: owner.gid };
    let text = serde_json::to_string(&going).map_err(|error| Error::Local(error.to_string()))?;
    durable::replace(file, &text, Owner { uid: 0, gid: 0 })?;
    here(CrashPoint::Finishing);
    Ok(())
}

async fn remove(plan: &Plan, going: &Going) -> Result<(), Error> {
    let owner = Owner { uid: going.uid, gid: going.gid };
    let all = layout::clusters().await?;
    let mut named = all.iter().filter(|cluster| cluster.name == plan.cluster);
    let old = named.clone().find(|old| old.version == going.major && old.data == going.data);
    if let Some(old) = old {
        layout::start_at_boot(old, false).await?;
        // A file that Debian's tool does not know would keep the folder.
        durable::remove(&fence::kept(old))?;
        match layout::drop_cluster(old).await {
            // Of one that was half dropped the tool may not know what to do.
            Err(error) if old.data.join("PG_VERSION").exists() => return Err(error),
            _ => {}
        }
    }
    here(CrashPoint::OldDropped);
    // What the tool has left when it was killed.
    layout::halt(&going.data, going.major, owner).await?;
    for folder in [&going.data, &going.conf] {
        layout::remove_folder(folder)?;
    }
    if let Some(new) = named.find(|new| new.version == plan.to) {
        durable::remove(&fence::kept(new))?;
        durable::remove(&prepare::marker(new))?;
    }
    Intent::forget(plan.to, &plan.cluster)?;
    durable::remove(&file(plan))
}
