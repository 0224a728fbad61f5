//! Logical replication between the two clusters, in either direction, one subscription for each database.
//!
//! Names are fixed, so that what exists can be read from the servers: the publication is `hostler_up` on the way to the
//! new cluster and `hostler_back` on the way back; subscription and slot are that name with the object identifier that
//! the database has on the old cluster. **No slot is ever left behind**: it would keep WAL until the disk is full.

use std::time::{Duration, Instant};

use super::Base;
use crate::error::Error;
use crate::layout::Cluster;
use crate::server::{Session, literal};

/// How long a proof may take that all has arrived, while clients are held.
pub const DRAIN: Duration = Duration::from_secs(8);
/// How long the end of a worker is waited for.
const END: Duration = Duration::from_secs(30);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the old cluster to the new one.
    Up,
    /// From the new cluster to the old one.
    Back,
}

impl Way {
    /// Name of the publication.
    pub fn publication(self) -> &'static str {
        match self {
            Self::Up => "hostler_up",
            Self::Back => "hostler_back",
        }
    }

    /// Name of the subscription and slot of a database.
    pub fn slot(self, base: &Base) -> String {
        format!("{}_{}", self.publication(), base.oid)
    }
}

/// What a database has of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The subscription exists.
    pub subscription: bool,
    /// The slot exists.
    pub slot: bool,
}

/// What exists of a way, asked of both ends.
///
/// # Errors
/// If one does not answer.
pub async fn parts(way: Way, base: &Base, publisher: &Session, subscriber: &Session) -> Result<Parts, Error> {
    let name = literal(&way.slot(base));
    let subscription = format!("select exists (select from pg_subscription where subname = {name})");
    let slot = format!("select exists (select from pg_replication_slots where slot_name = {name})");
    Ok(Parts { subscription: subscriber.holds(&subscription).await?, slot: publisher.holds(&slot).await? })
}

/// Publishes all tables of a database, if it does not yet.
///
/// # Errors
/// If the server refuses it.
pub async fn publish(way: Way, publisher: &Session) -> Result<(), Error> {
    let name = way.publication();
    let exists = format!("select exists (select from pg_publication where pubname = '{name}')");
    if !publisher.holds(&exists).await? {
        publisher.run(&format!("create publication {name} for all tables")).await?;
    }
    Ok(())
}

/// Subscribes a database, copying all rows where the slot is made by it (`copy`), none where the slot exists.
///
/// # Errors
/// If a server refuses it.
pub async fn subscribe(
    way: Way,
    base: &Base,
    publisher: &Cluster,
    subscriber: &Session,
    copy: bool,
) -> Result<(), Error> {
    let name = way.slot(base);
    // A connection string in which each value is quoted by its own rules.
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let connection = format!(
        "host={} port={} user=postgres dbname={} application_name={name}",
        quoted(&publisher.socket.display().to_string()),
        publisher.port,
        quoted(&base.name)
    );
    // What is applied has to be on the disk before it is confirmed without a delay; so the copy of a running system
    // is only confirmed at once after `hasten`.
    let how =
        if copy { "copy_data = true, create_slot = true" } else { "copy_data = false, create_slot = false" };
    let hasty = if copy { "off" } else { "on" };
    subscriber
        .run(&format!(
            "create subscription {name} connection {} publication {} \
             with ({how}, slot_name = {}, synchronous_commit = '{hasty}')",
            literal(&connection),
            way.publication(),
            literal(&name)
        ))
        .await
}

/// Switches a subscription on or off, if it exists; what it has applied it remembers either way.
///
/// # Errors
/// If the server refuses it.
pub async fn enable(way: Way, base: &Base, subscriber: &Session, on: bool) -> Result<(), Error> {
    let name = way.slot(base);
    let is =
        subscriber.value(&format!("select subenabled from pg_subscription where subname = '{name}'")).await?;
    let wanted = if on { "t" } else { "f" };
    if is.is_some_and(|is| is != wanted) {
        let verb = if on { "enable" } else { "disable" };
        subscriber.run(&format!("alter subscription {name} {verb}")).await?;
    }
    Ok(())
}

/// Has what is applied confirmed at once: without it the proof that all has arrived takes a second instead of a
/// hundredth. It starts the worker again.
///
/// # Errors
/// If the server refuses it.
pub async fn hasten(way: Way, base: &Base, subscriber: &Session) -> Result<(), Error> {
    let name = way.slot(base);
    let is = format!("select subsynccommit from pg_subscription where subname = '{name}'");
    if subscriber.text(&is).await? != "on" {
        subscriber.run(&format!("alter subscription {name} set (synchronous_commit = 'on')")).await?;
    }
    Ok(())
}

/// Ends a subscription, its slots and those of its copies, whatever exists of them.
///
/// # Errors
/// If a server refuses it.
pub async fn end(way: Way, base: &Base, publisher: &Session, subscriber: &Session) -> Result<(), Error> {
    let name = way.slot(base);
    let id = unsubscribe(way, base, subscriber).await?;
    // Slots of single tables bear the subscription's number; of a subscription that is lost, the database tells.
    let copies = match &id {
        Some(id) => format!("slot_name like 'pg\\_{id}\\_sync\\_%'"),
        None => {
            "slot_name ~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$' and database = current_database() and not active"
                .to_owned()
        }
    };
    drop_slots(publisher, &format!("slot_name = '{name}' or {copies}")).await
}

/// Ends a subscription, if it exists, and leaves its slot; its number.
///
/// # Errors
/// If the server refuses it.
pub async fn unsubscribe(way: Way, base: &Base, subscriber: &Session) -> Result<Option<String>, Error> {
    let name = way.slot(base);
    let id = subscriber.value(&format!("select oid from pg_subscription where subname = '{name}'")).await?;
    if id.is_some() {
        subscriber.run(&format!("alter subscription {name} disable")).await?;
        subscriber.run(&format!("alter subscription {name} set (slot_name = none)")).await?;
        subscriber.run(&format!("drop subscription {name}")).await?;
    }
    Ok(id)
}

/// Drops the slots for which `which` holds; who uses one is ended first.
async fn drop_slots(publisher: &Session, which: &str) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        publisher
            .run(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where active and ({which})"
            ))
            .await?;
        let idle = format!("select slot_name from pg_replication_slots where not active and ({which})");
        for slot in publisher.rows(&idle).await?.into_iter().flatten().flatten() {
            // It may have been taken in between; the next look sees it.
            let dropped =
                publisher.run(&format!("select pg_drop_replication_slot({})", literal(&slot))).await;
            if let Err(error @ Error::Lost(_)) = dropped {
                return Err(error);
            }
        }
        if !publisher
            .holds(&format!("select exists (select from pg_replication_slots where {which})"))
            .await?
        {
            return Ok(());
        }
        if begun.elapsed() > END {
            return Err(Error::Server(format!("a replication slot cannot be dropped: {which}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes the slot for a way, from now on.
///
/// # Errors
/// If the server refuses it.
pub async fn make_slot(way: Way, base: &Base, publisher: &Session) -> Result<(), Error> {
    let name = literal(&way.slot(base));
    publisher.run(&format!("select pg_create_logical_replication_slot({name}, 'pgoutput')")).await
}

/// Drops the slot of a way, if it exists.
///
/// # Errors
/// If the server refuses it.
pub async fn drop_slot(way: Way, base: &Base, publisher: &Session) -> Result<(), Error> {
    drop_slots(publisher, &format!("slot_name = '{}'", way.slot(base))).await
}

/// Bytes that the subscriber has not confirmed; `None` while nobody listens at the slot.
///
/// # Errors
/// If the server does not answer.
pub async fn behind(way: Way, base: &Base, publisher: &Session) -> Result<Option<u64>, Error> {
    let bytes = publisher
        .value(&format!(
            "select greatest(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn), 0)::bigint \
             from pg_replication_slots where slot_name = '{}' and active",
            way.slot(base)
        ))
        .await?;
    Ok(bytes.and_then(|bytes| bytes.parse().ok()))
}

/// A place in the WAL behind everything that was committed before this call, also asynchronously.
///
/// # Errors
/// If the server does not answer.
pub async fn mark(publisher: &Session) -> Result<String, Error> {
    publisher.run("select pg_logical_emit_message(true, 'hostler', 'end')").await?;
    publisher.text("select pg_current_wal_insert_lsn()").await
}

/// Waits until everything before a place is applied and on the disk of the subscriber. What the subscriber says of
/// itself is what it has received; only what the slot has confirmed is applied.
///
/// # Errors
/// If that takes longer than `within`.
pub async fn arrived(
    way: Way,
    base: &Base,
    publisher: &Session,
    place: &str,
    within: Duration,
) -> Result<(), Error> {
    let begun = Instant::now();
    let slot = way.slot(base);
    let question = format!(
        "select confirmed_flush_lsn >= '{place}'::pg_lsn from pg_replication_slots where slot_name = '{slot}'"
    );
    while !publisher.holds(&question).await? {
        if begun.elapsed() > within {
            return Err(Error::Server(format!(
                "{slot} has not confirmed {place} within {} s: look into the subscriber's log",
                within.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Brings the sequences of a database to where they are on the side that is left.
///
/// # Errors
/// If a server refuses it.
pub async fn copy_sequences(from: &Session, to: &Session) -> Result<u64, Error> {
    let (mut statements, mut count) = (vec![String::new()], 0_u64);
    // A sequence that was never used has no last value, and stays as it is.
    from.each(
        "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences \
         where last_value is not null and schemaname !~ '^pg_'",
        |row| {
            if let [Some(name), Some(value)] = row.as_slice() {
                if count % 500 == 0 && count > 0 {
                    statements.push(String::new());
                }
                count += 1;
                if let Some(statement) = statements.last_mut() {
                    statement.push_str(if statement.is_empty() { "select " } else { ", " });
                    statement.push_str(&format!("setval({}, {value}, true)", literal(name)));
                }
            }
            Ok(())
        },
    )
    .await?;
    for statement in statements.iter().filter(|statement| !statement.is_empty()) {
        to.run(statement).await?;
    }
    Ok(count)
}

/// A number that differs where the tables of two databases differ in what replication needs: names, columns and types.
///
/// # Errors
/// If the server does not answer.
pub async fn shape(session: &Session) -> Result<String, Error> {
    session
        .text(
            "select count(*) || ':' || coalesce(sum(('x' || left(md5(format('%s.%s.%s %s %s %s', n.nspname, c.relname, \
             a.attname, c.relkind, format_type(a.atttypid, a.atttypmod), a.attnotnull)), 15))::bit(60)::bigint), 0) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't' \
             and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'",
        )
        .await
}
