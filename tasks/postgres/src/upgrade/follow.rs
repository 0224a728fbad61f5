//! The rows: copied while the old cluster works, and followed from then on.
//!
//! Once subscribed it goes on by itself, across the death of either server; this only waits for it, and makes what a
//! copy has not: statistics and the contents of materialized views.

use std::time::Duration;

use super::replica::{self, Way};
use super::{Ends, Method, Pair, copy, lock};
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::error::Error;
use crate::report;
use crate::server::{Bounds, Session};

/// Between the first two looks at the copy; each pause is twice the one before.
const LOOK: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes that may be on their way when the copy counts as caught up.
pub const NEAR: u64 = 1 << 20;
/// WAL of which it does not matter how much of the disk it takes.
const MUCH: u64 = 256 << 20;
/// How often in a row the servers may not answer.
const SILENCE: u32 = 60;

/// Copies the rows and waits until the new cluster has caught up.
///
/// # Errors
/// If clients have moved already, a server refuses something, or none answers for a minute.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    if pair.switched()? {
        return Err(Error::Refused("clients belong to the new cluster already".to_owned()));
    }
    let _lock = lock::take(&pair.old.name)?;
    let (ends, mut to_do) = (pair.ends().await?, Vec::new());
    for ends in &ends {
        to_do.push(is_new(pair, ends).await?);
    }
    for (ends, _) in ends.iter().zip(to_do).filter(|(_, to_do)| *to_do) {
        // The publication of the way back has to exist before the slot of the way back is made.
        replica::publish(Way::Back, &ends.new).await?;
        replica::publish(Way::Up, &ends.old).await?;
        here(CrashPoint::Published);
        replica::subscribe(Way::Up, &ends.base, &pair.old, &ends.new, !has_rows(pair)).await?;
        here(CrashPoint::Subscribed);
    }
    copied(pair).await?;
    let ends = pair.ends().await?;
    for ends in &ends {
        report::progress(90, &format!("database {}: statistics", ends.base.name));
        ends.new.run("analyze").await?;
        refresh(ends).await?;
        replica::hasten(Way::Up, &ends.base, &ends.new).await?;
    }
    near(&ends, Way::Up, Duration::from_secs(600)).await?;
    report::progress(100, "the new cluster follows the old one");
    Ok(())
}

/// Whether the new cluster was made with the rows up to the place of the slots.
fn has_rows(pair: &Pair) -> bool {
    pair.intent.as_ref().is_some_and(|intent| intent.method == Method::Standby)
}

/// Whether a database is still to be subscribed.
async fn is_new(pair: &Pair, ends: &Ends) -> Result<bool, Error> {
    let name = &ends.base.name;
    let parts = replica::parts(Way::Up, &ends.base, &ends.old, &ends.new).await?;
    if parts.subscription && parts.slot {
        return Ok(false);
    }
    if has_rows(pair) && parts.slot {
        return Ok(true);
    }
    if has_rows(pair) {
        return Err(Error::Refused(format!(
            "database {name}: the slot of the copy is gone, so rows are missing: take the upgrade back with \
             `upgrade undo prepare`"
        )));
    }
    if parts.subscription || parts.slot {
        return Err(Error::Refused(format!(
            "database {name}: one end of the replication is lost, so rows may be missing: take the upgrade back with \
             `upgrade undo prepare`"
        )));
    }
    // Rows that are there already would be copied a second time, and stop the copy.
    let rows = "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
         and c.relpersistence = 'p' and pg_relation_size(c.oid) > 0)";
    if ends.new.holds(rows).await? {
        return Err(Error::Refused(format!(
            "database {name}: the new cluster has rows of an earlier copy: take it back with `upgrade undo prepare`, \
             and begin again"
        )));
    }
    Ok(true)
}

/// Refuses to go on while the old cluster keeps so much WAL for the copy that its disk will be full.
async fn room(pair: &Pair) -> Result<(), Error> {
    let admin = Session::open(&pair.old, "postgres", Bounds::LOOK).await?;
    let kept = admin
        .value(
            "select max(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn))::bigint from pg_replication_slots \
             where slot_name ~ '^hostler_up_'",
        )
        .await?;
    let kept = kept.and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or_default();
    let free = check::free(&pair.old.data.join("pg_wal"))?;
    if is_tight(kept, free) {
        return Err(Error::Refused(format!(
            "{} keeps {} MiB of WAL for the copy, and has {} MiB left: given up before its disk is full",
            pair.old.title(),
            kept >> 20,
            free >> 20
        )));
    }
    Ok(())
}

/// Whether half as much again as is kept would no longer fit.
fn is_tight(kept: u64, free: u64) -> bool {
    kept > MUCH && free < kept / 2
}

/// Waits until every table is copied. A server that goes away meanwhile is waited for.
async fn copied(pair: &Pair) -> Result<(), Error> {
    let (mut silent, mut pause) = (0, LOOK);
    loop {
        match waiting(pair).await {
            Ok((0, _)) => return Ok(()),
            Ok((tables, percent)) => {
                silent = 0;
                room(pair).await?;
                report::progress(percent, &format!("copying: {tables} tables to go"));
            }
            Err(error) => {
                silent += 1;
                if silent > SILENCE {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// Tables that are not copied yet, and the percentage of bytes that is there.
async fn waiting(pair: &Pair) -> Result<(u64, u8), Error> {
    let (mut tables, mut there, mut all) = (0, 0, 1_u64);
    for ends in pair.ends().await? {
        let wrong = |text: &str| Error::Server(format!("no number: {text}"));
        let count = ends.new.text("select count(*) from pg_subscription_rel where srsubstate <> 'r'").await?;
        tables += count.parse::<u64>().map_err(|_| wrong(&count))?;
        let size = ends.new.text("select pg_database_size(current_database())").await?;
        there += size.parse::<u64>().map_err(|_| wrong(&size))?;
        all += ends.base.bytes;
    }
    let percent = there.saturating_mul(85).checked_div(all).unwrap_or_default().min(85);
    Ok((tables, u8::try_from(percent).unwrap_or(85)))
}

/// Fills the materialized views that are filled on the old cluster, in the order in which they were made.
async fn refresh(ends: &Ends) -> Result<(), Error> {
    let list = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n \
         on n.oid = c.relnamespace where c.relkind = 'm' and c.relispopulated order by c.oid";
    // A view may call functions that find their tables by a path.
    ends.new.run("set search_path to \"$user\", public").await?;
    let views = ends.old.rows(list).await?.into_iter().flatten().flatten();
    for view in views {
        report::message(&format!("database {}: refreshing {view}", ends.base.name));
        ends.new.run(&format!("refresh materialized view {view}")).await?;
    }
    ends.new.run("reset search_path").await
}

/// Waits until every subscriber listens and has at most 1 MiB to go.
///
/// # Errors
/// If that takes longer than `within`.
pub async fn near(ends: &[Ends], way: Way, within: Duration) -> Result<(), Error> {
    let begun = std::time::Instant::now();
    for ends in ends {
        let publisher = ends.of(way).0;
        loop {
            let behind = replica::behind(way, &ends.base, publisher).await?;
            if behind.is_some_and(|bytes| bytes < NEAR) {
                break;
            }
            if begun.elapsed() > within {
                let how =
                    behind.map_or("nobody listens".to_owned(), |bytes| format!("{} MiB to go", bytes >> 20));
                let slot = way.slot(&ends.base);
                return Err(Error::Server(format!(
                    "{slot}: {how} after {} s: try again later",
                    within.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Ends the replication to the new cluster; no slot stays on the old one.
///
/// # Errors
/// If clients belong to the new cluster, or a server does not answer.
pub async fn undo(pair: &Pair) -> Result<(), Error> {
    let _lock = lock::take(&pair.old.name)?;
    end(pair).await
}

/// As [`undo`], for who has the lock.
pub(super) async fn end(pair: &Pair) -> Result<(), Error> {
    if pair.switched()? {
        return Err(Error::Refused(
            "clients belong to the new cluster: `upgrade switch-back` comes first".to_owned(),
        ));
    }
    let admin = Session::open(&pair.old, "postgres", Bounds::LOOK).await?;
    // A creation that still waits belongs to a dead run: its slot could not be dropped otherwise.
    admin
        .run(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() \
             and usename = 'postgres' and application_name ~ '^hostler_up_'",
        )
        .await?;
    copy::drop_keeper(&admin).await?;
    let reachable = match &pair.new {
        Some(new) if pair.mine() => Session::open(new, "postgres", Bounds::LOOK).await.is_ok(),
        _ => false,
    };
    for (oid, name, bytes) in check::databases(&admin).await? {
        let base = super::Base { oid, name, bytes };
        let old = Session::open(&pair.old, &base.name, Bounds::WORK).await?;
        // A cluster that does not run, or a database that did not arrive, has nothing to be ended.
        let new = match (&pair.new, reachable) {
            (Some(new), true) => Session::open(new, &base.name, Bounds::WORK).await.ok(),
            _ => None,
        };
        match &new {
            Some(new) => replica::end(Way::Up, &base, &old, new).await?,
            None => replica::drop_slot(Way::Up, &base, &old).await?,
        }
        old.run(&format!("drop publication if exists {}", Way::Up.publication())).await?;
        // A way back that came to its end, but for the last of it.
        replica::unsubscribe(Way::Back, &base, &old).await?;
        if let Some(new) = &new {
            replica::drop_slot(Way::Back, &base, new).await?;
        }
    }
    report::message("the replication is ended");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_tight;

    #[test]
    fn a_copy_ends_before_the_disk_of_the_old_cluster_is_full() {
        let gib = 1 << 30;
        assert!(!is_tight(gib / 8, 0), "that little is not the copy's fault");
        assert!(!is_tight(4 * gib, 2 * gib));
        assert!(is_tight(4 * gib, 2 * gib - 1));
    }
}
