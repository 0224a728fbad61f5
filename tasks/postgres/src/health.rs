//! What hurts in a cluster or soon will, the worst first, each with its numbers and the statement that shows it.
//!
//! One table of probes, each one cheap read: a statement whose rows are `level, subject, text`. A probe that fails is a
//! finding of its own: what cannot be read is never healthy.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::check;
use crate::error::Error;
use crate::layout::Cluster;
use crate::server::{Bounds, Row, Session};
use crate::upgrade::intent::Intent;

/// How long the way back of an upgrade is no matter.
const KEEP_BACK: SignedDuration = SignedDuration::from_hours(3 * 24);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Act now.
    Bad,
    /// Could not be looked at.
    Unknown,
    /// Act soon.
    Warn,
}

impl Level {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
        }
    }
}

/// Something that hurts.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The probe.
    pub probe: &'static str,
    /// Where: a database; `None` for the cluster.
    pub database: Option<String>,
    /// Of what: a table, a slot, a process.
    pub subject: String,
    /// The numbers.
    pub text: String,
    /// The statement that shows it.
    pub statement: &'static str,
}

struct Probe {
    name: &'static str,
    statement: &'static str,
}

/// Asked once, in the database `postgres`.
const CLUSTER: [Probe; 12] = [
    Probe {
        name: "wraparound",
        // The server stops to write 3 million before 2,147 million.
        statement: "select case when greatest(age(datfrozenxid), mxid_age(datminmxid)) > 1000000000 then 'bad' else 'warn' end, \
            datname, format('%s transactions, %s multixacts old', age(datfrozenxid), mxid_age(datminmxid)) \
            from pg_database where age(datfrozenxid) > 1.1 * current_setting('autovacuum_freeze_max_age')::bigint \
            or mxid_age(datminmxid) > 1.1 * current_setting('autovacuum_multixact_freeze_max_age')::bigint \
            order by age(datfrozenxid) desc limit 5",
    },
    Probe {
        name: "transactions",
        statement: "select case when now() - xact_start > interval '1 hour' then 'bad' else 'warn' end, \
            format('process %s', pid), format('%s, %s, for %s s, holds back %s transactions', usename, state, \
            extract(epoch from now() - xact_start)::bigint, coalesce(age(backend_xmin), 0)) \
            from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and \
            (xact_start < now() - interval '5 minutes' or state like 'idle in transaction%' \
            and state_change < now() - interval '1 minute') order by xact_start limit 5",
    },
    Probe {
        name: "prepared",
        statement: "select case when now() - prepared > interval '1 hour' then 'bad' else 'warn' end, gid, \
            format('prepared by %s %s s ago, holds back %s transactions', owner, \
            extract(epoch from now() - prepared)::bigint, age(transaction)) \
            from pg_prepared_xacts where prepared < now() - interval '5 minutes' order by prepared limit 5",
    },
    Probe {
        name: "connections",
        statement: "select case when used > 0.95 * most then 'bad' else 'warn' end, 'connections', \
            format('%s of %s are used', used, most) from (select count(*) as used, \
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as most \
            from pg_stat_activity where backend_type = 'client backend') as c where used > 0.8 * most",
    },
    Probe {
        name: "locks",
        statement: "select case when now() - query_start > interval '5 minutes' then 'bad' else 'warn' end, \
            format('process %s', pid), format('waits for %s, for %s s', pg_blocking_pids(pid)::text, \
            extract(epoch from now() - query_start)::bigint) from pg_stat_activity \
            where wait_event_type = 'Lock' and query_start < now() - interval '30 seconds' order by query_start limit 5",
    },
    Probe {
        name: "slots",
        statement: "select case when wal_status in ('unreserved', 'lost') then 'bad' else 'warn' end, slot_name, \
            format('%s, %s, holds %s MiB of WAL', case when active then 'active' else 'inactive' end, wal_status, \
            (pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
            else pg_current_wal_lsn() end, restart_lsn) / 1048576)::bigint) from pg_replication_slots \
            where not active or wal_status in ('unreserved', 'lost') order by restart_lsn limit 5",
    },
    Probe {
        name: "standbys",
        statement: "select case when lag > 1073741824 then 'bad' else 'warn' end, name, \
            format('%s, %s MiB behind', state, (lag / 1048576)::bigint) from (select \
            format('%s %s', application_name, coalesce(client_addr::text, 'local')) as name, state, \
            pg_wal_lsn_diff(sent_lsn, replay_lsn) as lag from pg_stat_replication) as s \
            where lag > 67108864 or state <> 'streaming' order by lag desc nulls first limit 5",
    },
    Probe {
        name: "archiving",
        statement: "select case when last_failed_time < now() - interval '5 minutes' or failed_count > 5 then 'bad' \
            else 'warn' end, coalesce(last_failed_wal, ''), format('archiving fails since %s, %s times in all', \
            last_failed_time::timestamp(0), failed_count) from pg_stat_archiver \
            where last_failed_time > coalesce(last_archived_time, '-infinity')",
    },
    Probe {
        name: "archive backlog",
        statement: "select case when waiting > 200 then 'bad' else 'warn' end, 'archive', \
            format('%s segments wait', waiting) from (select count(*) as waiting from pg_ls_archive_statusdir() \
            where name like '%.ready') as w where waiting > 20",
    },
    Probe {
        name: "checksums",
        statement: "select 'bad', coalesce(datname, 'shared objects'), format('%s pages failed, last %s', \
            checksum_failures, checksum_last_failure::timestamp(0)) from pg_stat_database \
            where checksum_failures > 0 order by checksum_failures desc limit 5",
    },
    Probe {
        name: "configuration",
        statement: "select 'bad', coalesce(f.name, ''), format('%s:%s %s', sourcefile, sourceline, error) \
            from pg_file_settings f where error is not null and sourcefile is not null and not exists (select from pg_settings s \
            where s.name = f.name and s.context = 'postmaster') limit 5",
    },
    Probe {
        name: "restart",
        statement: "select 'warn', name, format('is %s and changes at the next restart', setting) \
            from pg_settings where pending_restart order by name limit 5",
    },
];

/// Asked in each database.
const DATABASE: [Probe; 4] = [
    Probe {
        name: "invalid indexes",
        statement: "select 'warn', indexrelid::regclass::text, format('of %s, is not used and has to be built again', \
            indrelid::regclass) from pg_index i where not (indisvalid and indisready) and not exists \
            (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid) order by 2 limit 5",
    },
    Probe {
        name: "dead rows",
        statement: "select 'warn', relid::regclass::text, format('%s dead and %s living rows, vacuumed %s', n_dead_tup, \
            n_live_tup, coalesce(greatest(last_vacuum, last_autovacuum)::timestamp(0)::text, 'never')) \
            from pg_stat_user_tables where n_dead_tup > 10000 and n_dead_tup > 0.2 * n_live_tup and \
            coalesce(greatest(last_vacuum, last_autovacuum), '-infinity') < now() - interval '1 day' \
            order by n_dead_tup desc limit 5",
    },
    Probe {
        name: "sequences",
        statement: "select case when used > 0.95 then 'bad' else 'warn' end, name, format('%s of %s are used', value, most) \
            from (select format('%I.%I', s.schemaname, s.sequencename) as name, s.last_value as value, \
            least(s.max_value, case c.typid when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 \
            else s.max_value end) as most, s.last_value::numeric / nullif(least(s.max_value, case c.typid \
            when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 else s.max_value end), 0) as used \
            from pg_sequences s left join lateral (select min(a.atttypid::int)::oid as typid from pg_depend d \
            join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
            where d.classid = 'pg_class'::regclass and d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass \
            and d.deptype in ('a', 'i')) c on true \
            where s.increment_by > 0 and not s.cycle and s.last_value > 0) as q where used > 0.8 order by used desc limit 5",
    },
    Probe {
        name: "subscriptions",
        statement: "select 'bad', subname, 'is enabled and has no worker: see the log of the server' \
            from pg_subscription s where subenabled and subdbid = (select oid from pg_database \
            where datname = current_database()) and not exists (select from pg_stat_subscription w \
            where w.subid = s.oid and w.pid is not null) limit 5",
    },
];

/// Everything that hurts in a cluster, the worst first.
///
/// # Errors
/// If the server cannot be asked at all.
pub async fn all(cluster: &Cluster) -> Result<Vec<Finding>, Error> {
    let admin = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    let mut findings = Vec::new();
    for probe in &CLUSTER {
        findings.extend(ask(&admin, probe, None).await?);
    }
    for (_, database, _) in check::databases(&admin).await? {
        let session = Session::open(cluster, &database, Bounds::LOOK).await?;
        for probe in &DATABASE {
            findings.extend(ask(&session, probe, Some(&database)).await?);
        }
    }
    findings.extend(upgrades(cluster));
    findings.sort_by_key(|finding| finding.level);
    Ok(findings)
}

/// Upgrades whose way back is kept for longer than anybody needs to decide: it holds WAL, and room.
fn upgrades(cluster: &Cluster) -> Vec<Finding> {
    let finding = |level, subject, text| Finding {
        level,
        probe: "upgrade",
        database: None,
        subject,
        text,
        statement: "select slot_name, active, restart_lsn from pg_replication_slots where slot_name ~ '^hostler_'",
    };
    let open = match Intent::unfinished(&cluster.name) {
        Ok(open) => open,
        Err(error) => return vec![finding(Level::Unknown, String::new(), error.to_string())],
    };
    let old = open.into_iter().filter_map(|(to, intent)| {
        let age = Timestamp::now().duration_since(intent.begun);
        (age > KEEP_BACK).then(|| {
            let text = format!("was begun {} days ago: finish it, or take it back", age.as_hours() / 24);
            finding(Level::Warn, format!("{to}/{}", cluster.name), text)
        })
    });
    old.collect()
}

/// What one probe finds. A connection that ends is no finding: nothing more could be asked.
async fn ask(session: &Session, probe: &Probe, database: Option<&str>) -> Result<Vec<Finding>, Error> {
    let finding = |level, subject, text| Finding {
        level,
        probe: probe.name,
        database: database.map(str::to_owned),
        subject,
        text,
        statement: probe.statement,
    };
    let rows = match session.rows(probe.statement).await {
        Ok(rows) => rows,
        Err(error @ Error::Lost(_)) => return Err(error),
        Err(error) => return Ok(vec![finding(Level::Unknown, String::new(), error.to_string())]),
    };
    let read = |row: Row| {
        let mut columns = row.into_iter().map(Option::unwrap_or_default);
        let level = match columns.next().as_deref() {
            Some("bad") => Level::Bad,
            Some("warn") => Level::Warn,
            _ => Level::Unknown,
        };
        finding(level, columns.next().unwrap_or_default(), columns.next().unwrap_or_default())
    };
    Ok(rows.into_iter().map(read).collect())
}
