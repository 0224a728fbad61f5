//! What an upgrade would do, step by step, and for how long it would hold clients: for people, before anything is begun.
//!
//! The gap is an estimate: what a switch took on small databases, what each session and sequence adds, and, behind a pgbouncer,
//! the transaction that is open for longest, which is waited for.

use serde::Serialize;

use super::{Method, Pair};
use crate::check;
use crate::error::Error;
use crate::server::{Bounds, Session};

/// Seconds that a switch took, with a pgbouncer.
const BOUNCER: f64 = 0.1;
/// The same where both servers are stopped and started.
const PORTS: f64 = 0.5;
/// Seconds for each session that is ended.
const SESSION: f64 = 0.000_2;
/// Seconds for each sequence that is copied.
const SEQUENCE: f64 = 0.000_02;
/// Bytes a second that a copy makes at least.
const COPY: u64 = 20 << 20;

/// What would be done.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// How the rows come.
    method: Method,
    /// The databases together, in bytes.
    bytes: u64,
    /// How long the copy takes at most, in seconds.
    copy_seconds: u64,
    /// For how long clients are held, in seconds.
    pub gap_seconds: f64,
    /// The steps: name, and what each does here.
    pub steps: Vec<(&'static str, String)>,
}

/// What the gap follows.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    sessions: u64,
    sequences: u64,
    /// Seconds for which a transaction is open.
    open: f64,
}

fn gap(bouncer: bool, load: Load) -> f64 {
    let whole = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let sequences = whole(load.sequences) * SEQUENCE;
    let seconds = if bouncer { BOUNCER + load.open } else { PORTS + whole(load.sessions) * SESSION };
    ((seconds + sequences) * 100.0).ceil() / 100.0
}

/// Asks the old cluster.
///
/// # Errors
/// If it does not answer.
pub async fn ask(pair: &Pair) -> Result<Forecast, Error> {
    let admin = Session::open(&pair.old, "postgres", Bounds::LOOK).await?;
    let databases = check::databases(&admin).await?;
    let rows = admin
        .rows(
            "select count(*), coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::numeric(12, 2) \
             from pg_stat_activity where backend_type = 'client backend' and usename <> 'postgres'",
        )
        .await?;
    let mut load = match rows.first().map(Vec::as_slice) {
        Some([Some(sessions), Some(open)]) => Load {
            sessions: sessions.parse().unwrap_or_default(),
            sequences: 0,
            open: open.parse().unwrap_or_default(),
        },
        _ => Load::default(),
    };
    for (_, name, _) in &databases {
        let session = Session::open(&pair.old, name, Bounds::LOOK).await?;
        let count = session.text("select count(*) from pg_sequences").await?;
        load.sequences += count.parse::<u64>().unwrap_or_default();
    }
    let bytes: u64 = databases.iter().map(|(_, _, bytes)| *bytes).sum();
    let (method, bouncer) = (pair.method(&admin).await?, pair.door.is_bouncer());
    let (gap_seconds, copy_seconds) = (gap(bouncer, load), bytes / COPY + 1);
    let title = format!("{}/{}", pair.to, pair.old.name);
    let size = format!("{} databases with {} MiB", databases.len(), bytes >> 20);
    let (made, followed) = match method {
        Method::Logical => ("with settings, roles and schema of the old one", format!("copies {size}")),
        Method::Standby => {
            ("as a copy of all files, brought by pg_upgrade", "copies nothing more".to_owned())
        }
    };
    let held = if bouncer {
        format!("no session ends; the longest transaction has been open for {:.1} s", load.open)
    } else {
        format!("{} sessions end once", load.sessions)
    };
    let steps = vec![
        ("prepare", format!("makes {title} at port {}, {made}", pair.door.spare())),
        (
            "follow",
            format!("{followed}, and follows the old one; at most about {copy_seconds} s for the copy"),
        ),
        (
            "switch",
            format!(
                "holds clients for about {gap_seconds:.2} s, {} s at most; {held}; {} sequences",
                pair.max_hold.as_secs(),
                load.sequences
            ),
        ),
        ("follow-back", "the old cluster follows the new one, for the way back".to_owned()),
        ("verify", "compares all rows; writers wait for at most 0.4 s at a time".to_owned()),
    ];
    Ok(Forecast { method, bytes, copy_seconds, gap_seconds, steps })
}

#[cfg(test)]
mod tests {
    use super::{Load, gap};

    #[test]
    fn the_gap_follows_what_it_waits_for() {
        let load = |sessions, sequences, open| Load { sessions, sequences, open };
        for (bouncer, load, expected) in [
            (true, load(0, 0, 0.0), 0.1),
            (true, load(500, 1000, 2.5), 2.62),
            (false, load(0, 0, 30.0), 0.5),
            (false, load(500, 1000, 0.0), 0.62),
        ] {
            assert!(
                (gap(bouncer, load) - expected).abs() < 0.001,
                "{bouncer} {load:?}: {}",
                gap(bouncer, load)
            );
        }
    }
}
