//! The proof that both clusters hold the same rows: counts and digests of every table, at one moment.
//!
//! The moment is made: writers wait, for some hundredths of a second, until the follower has everything and both sides
//! have a snapshot. The digests are computed by the servers from these snapshots while clients go on.

use std::time::{Duration, Instant};

use super::replica::{self, Way};
use super::{Base, Ends, Pair};
use crate::error::Error;
use crate::report;
use crate::server::{Bounds, Session};

/// How long the locks may take, in milliseconds; then writers go on, and it is tried again. A writer that holds one table
/// and waits for another looks for a deadlock after a second (`deadlock_timeout`), and would be the one to fail: twice
/// this time has to be less.
const HOLD: u32 = 400;
/// How long the follower may take to have everything, while writers wait.
const ARRIVE: Duration = Duration::from_secs(1);
/// How often.
const TRIES: u32 = 30;

/// Tables whose rows are replicated.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' and c.relpersistence = 'p' \
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1";

/// Proves that the old cluster, which follows, holds what the new one does.
///
/// # Errors
/// [`Error::No`] if it does not; others if that cannot be found out.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    if !pair.switched()? {
        return Err(Error::Refused(
            "clients belong to the old cluster: `upgrade switch` comes first".to_owned(),
        ));
    }
    let (mut tables, mut rows, mut longest) = (0, 0_u64, Duration::ZERO);
    for ends in pair.ends().await? {
        let name = &ends.base.name;
        let held = moment(pair, &ends).await?;
        longest = longest.max(held);
        // One name at a time: the catalog of tables may be large.
        let list = ends.new.rows(TABLES).await?;
        for table in list.into_iter().flatten().flatten() {
            let digest = format!(
                "select count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) from only {table} t"
            );
            let (new, old) = tokio::try_join!(ends.new.rows(&digest), ends.old.rows(&digest))?;
            if new != old {
                let count = |rows: &[Vec<Option<String>>]| {
                    rows.first().and_then(|row| row.first().cloned().flatten())
                };
                return Err(Error::No(format!(
                    "database {name}, table {table}: the new cluster has {} rows, the old one {}, and they differ",
                    count(&new).unwrap_or_default(),
                    count(&old).unwrap_or_default()
                )));
            }
            tables += 1;
            rows +=
                new.first().and_then(|row| row.first()?.as_ref()?.parse::<u64>().ok()).unwrap_or_default();
            report::message(&format!("database {name}: {table} is the same on both"));
        }
        ends.new.run("commit").await?;
        ends.old.run("commit").await?;
        sequences(&ends).await?;
    }
    report::output("tables", tables);
    report::output("rows", rows);
    report::output("held_seconds", longest.as_secs_f64());
    report::progress(
        100,
        &format!("{tables} tables with {rows} rows are the same on both; writers waited {longest:.3?}"),
    );
    Ok(())
}

/// Begins a transaction with a snapshot on both ends, of the same moment; how long writers waited for it.
async fn moment(pair: &Pair, ends: &Ends) -> Result<Duration, Error> {
    let new = pair.made()?;
    let name = &ends.base.name;
    let hold = Session::open(new, name, Bounds { statement: HOLD, lock: HOLD }).await?;
    let marking = Session::open(new, name, Bounds::LOOK).await?;
    let mut last = None;
    for _ in 0..TRIES {
        let begun = Instant::now();
        let tried = held(&ends.base, ends, &hold, &marking).await;
        let over = hold.run("rollback").await;
        let held = begun.elapsed();
        match tried {
            Ok(()) => {
                over?;
                return Ok(held);
            }
            Err(error @ Error::Lost(_)) => return Err(error),
            Err(error) => last = Some(error),
        }
        for end in [&ends.new, &ends.old] {
            end.run("rollback").await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(last.unwrap_or_else(|| Error::Server(format!("database {name}: no moment for a comparison"))))
}

async fn held(base: &Base, ends: &Ends, hold: &Session, marking: &Session) -> Result<(), Error> {
    let tables: Vec<_> = hold.rows(TABLES).await?.into_iter().flatten().flatten().collect();
    hold.run("begin").await?;
    let begun = Instant::now();
    // Lets everybody read, and nobody write.
    for some in tables.chunks(200) {
        if begun.elapsed() > Duration::from_millis(u64::from(HOLD)) {
            return Err(Error::Server(format!("database {}: writers could not be held", base.name)));
        }
        hold.run(&format!("lock table only {} in share mode", some.join(", only "))).await?;
    }
    let place = replica::mark(marking).await?;
    replica::arrived(Way::Back, base, marking, &place, ARRIVE).await?;
    for end in [&ends.new, &ends.old] {
        end.run("begin isolation level repeatable read read only").await?;
        end.run("set local timezone = 'UTC'").await?;
        end.run("set local datestyle = 'ISO'").await?;
        end.run("set local intervalstyle = 'postgres'").await?;
        end.run("set local bytea_output = 'hex'").await?;
        end.run("set local extra_float_digits = 1").await?;
        // The first statement that reads takes the snapshot.
        end.run("select count(*) from pg_class where false").await?;
    }
    Ok(())
}

/// No sequence of the new cluster is behind the old one's, where they were copied from.
async fn sequences(ends: &Ends) -> Result<(), Error> {
    let list = "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences \
         where last_value is not null and increment_by > 0 and not cycle and schemaname !~ '^pg_' order by 1";
    for row in ends.old.rows(list).await? {
        if let [Some(name), Some(value)] = row.as_slice() {
            let ahead = format!("select coalesce(last_value, 0) >= {value} from {name}");
            if !ends.new.holds(&ahead).await? {
                let base = &ends.base.name;
                return Err(Error::No(format!(
                    "database {base}: sequence {name} is behind on the new cluster"
                )));
            }
        }
    }
    Ok(())
}
