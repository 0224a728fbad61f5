//! What a database leaves beside its data: free log segments, traces, dumps, and its audit trail.
//!
//! Instants are given as the host's clock has them in UTC; HANA compares them with local time, so an age is right to a
//! day.

use jiff::Timestamp;

use super::catalog::Database;
use super::hdbsql::{self, Key, Row, literal, statement};
use crate::call::Call;
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

const SOURCE: &str = "SAP HANA SQL and System Views Reference; hanacleaner (SAP Note 2399996)";

/// The columns of each question.
pub const LEFT: [&str; 2] = ["ENTRY_COUNT", "BYTES"];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Matter {
    /// Log segments whose log is backed up, or not needed for a restart: they are kept to be written again.
    Segments,
    /// Traces of services.
    Traces,
    /// What a crash, an emergency or `hdbcons` wrote.
    Dumps,
    /// The audit trail in the database.
    Audit,
}

impl Matter {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Segments, Self::Traces, Self::Dumps, Self::Audit];

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Segments => "free log segments",
            Self::Traces => "traces",
            Self::Dumps => "dumps",
            Self::Audit => "audit entries",
        }
    }
}

fn time(until: Timestamp) -> String {
    literal(&until.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn of(call: Call, database: &Database) -> Call {
    // The key leads to SYSTEMDB.
    if database.is_system() { call } else { hdbsql::in_database(call, database.as_str()) }
}

/// How much of it there is: all free segments, and what is older than the instant of all else.
pub fn left(system: &System, key: &Key, database: &Database, matter: Matter, until: Timestamp) -> Call {
    let sql = match matter {
        Matter::Segments => {
            "SELECT COUNT(*) AS ENTRY_COUNT, SUM(TOTAL_SIZE) AS BYTES FROM SYS.M_LOG_SEGMENTS WHERE STATE = 'Free'"
                .to_owned()
        }
        Matter::Traces | Matter::Dumps => {
            let not = if matter == Matter::Dumps { "" } else { "NOT " };
            format!(
                "SELECT COUNT(*) AS ENTRY_COUNT, SUM(FILE_SIZE) AS BYTES FROM SYS.M_TRACEFILES WHERE FILE_MTIME < {} AND \
                 FILE_NAME {not}LIKE '%dump%.trc' AND FILE_NAME LIKE '%.trc'",
                time(until)
            )
        }
        Matter::Audit => format!(
            "SELECT COUNT(*) AS ENTRY_COUNT, NULL AS BYTES FROM SYS.AUDIT_LOG WHERE TIMESTAMP < {}",
            time(until)
        ),
    };
    let purpose = match matter {
        Matter::Segments => "count the free log segments",
        Matter::Traces => "count the traces that are older",
        Matter::Dumps => "count the dumps that are older",
        Matter::Audit => "count the audit entries that are older",
    };
    of(statement(system, key, purpose, SOURCE, sql), database)
}

/// Reads the row of [`left`]: how many, and how many bytes, as far as they are known.
pub fn read_left(rows: &[Row]) -> Reading<(u64, u64)> {
    let [row] = rows else { return unclear(format!("a count has {} rows", rows.len())) };
    let number = |cell: &Option<String>| match cell {
        None => Ok(0),
        Some(text) => text.parse().or_else(|_| unclear(format!("the count {}", quoted(text)))),
    };
    match row.as_slice() {
        [count @ Some(_), bytes] => Ok((number(count)?, number(bytes)?)),
        _ => unclear("a count is NULL"),
    }
}

/// Clears it.
pub fn clear(system: &System, key: &Key, database: &Database, matter: Matter, until: Timestamp) -> Call {
    let sql = match matter {
        Matter::Segments => "ALTER SYSTEM RECLAIM LOG".to_owned(),
        Matter::Traces => format!(
            "ALTER SYSTEM CLEAR TRACES ('ALERT','CLIENT','UNLOAD','ROWSTOREREORG','SQLTRACE','*') UNTIL {}",
            time(until)
        ),
        Matter::Dumps => {
            format!("ALTER SYSTEM CLEAR TRACES ('CRASHDUMP','EMERGENCYDUMP','RTEDUMP') UNTIL {}", time(until))
        }
        Matter::Audit => format!("ALTER SYSTEM CLEAR AUDIT LOG UNTIL {}", time(until)),
    };
    let purpose = match matter {
        Matter::Segments => "free the log segments that nothing needs",
        Matter::Traces => "clear old traces",
        Matter::Dumps => "clear old dumps",
        Matter::Audit => "clear old audit entries",
    };
    let call = statement(system, key, purpose, SOURCE, sql).within(std::time::Duration::from_secs(3600));
    of(call, database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let row =
            |cells: &[Option<&str>]| vec![cells.iter().map(|cell| cell.map(str::to_owned)).collect::<Row>()];
        assert_eq!(read_left(&row(&[Some("3"), Some("4096")])), Ok((3, 4096)));
        assert_eq!(read_left(&row(&[Some("0"), None])), Ok((0, 0)));
        for odd in [&[][..], &[Some("3")], &[None, None], &[Some("x"), None], &[Some("1"), Some("-1")]] {
            assert!(read_left(&row(odd)).is_err(), "{odd:?}");
        }
        assert!(read_left(&[]).is_err());
    }
}
