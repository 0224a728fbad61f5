//! The scripts in `python_support`, called through `HDBSettings.sh`.
//!
//! Their exit code is the answer, so no code is a failure by being other than 0.

use std::time::Duration;

use super::nsutil::{frame, one};
use crate::call::{As, Call, Input};
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

fn script(system: &System, purpose: &'static str, source: &'static str, name: &str) -> Call {
    Call {
        purpose,
        source,
        user: As::Adm,
        // It sets HANA's environment and starts the script with HANA's own Python.
        program: system.instance().join("HDBSettings.sh"),
        // --sapcontrol=1: lines for scripts
        arguments: vec![name.to_owned(), "--sapcontrol=1".to_owned()],
        input: Input::Nothing,
        timeout: Duration::from_secs(60),
    }
}

/// `systemReplicationStatus.py`, of use on a primary only.
pub fn replication_status(system: &System) -> Call {
    script(
        system,
        "read how far the secondaries are",
        "SUSE/shaptools shaptools/hana.py (SR_STATUS); trento-project/agent",
        "systemReplicationStatus.py",
    )
}

/// `landscapeHostConfiguration.py`
pub fn landscape(system: &System) -> Call {
    script(
        system,
        "read the state of the system's hosts",
        "SAPHanaSR man/SAPHanaSR-showAttr.8; trento-project/agent",
        "landscapeHostConfiguration.py",
    )
}

/// `recoverSys.py`: recovers SYSTEMDB of a system that is down, and starts it.
pub fn recover_system(system: &System, sql: &str, timeout: Duration) -> Call {
    Call {
        purpose: "recover SYSTEMDB of the stopped system",
        source: "NetApp backup/hana-dr-anf-database-recovery; SAP HANA Administration Guide, recoverSys.py",
        user: As::Adm,
        program: system.instance().join("HDBSettings.sh"),
        arguments: vec![
            "recoverSys.py".to_owned(),
            "--wait".to_owned(), // it ends when the recovery has ended
            format!("--timeout={}", timeout.as_secs()), // seconds
            format!("--command={sql}"),
        ],
        input: Input::Nothing,
        // The script ends by itself before.
        timeout: timeout.saturating_add(Duration::from_secs(300)),
    }
}

/// What a recovery reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The instant, as the log of the recovery prints it.
    pub time: String,
    /// The position in the log.
    pub position: u64,
}

/// Reads the output of a `recoverSys.py` that ended with 0: its line `…reached timestamp …, reached log position N`.
pub fn reached(text: &str) -> Option<Reached> {
    let (_, rest) = text.rsplit_once("reached timestamp ")?;
    let (time, rest) = rest.split_once(',')?;
    let position = rest.trim_start().strip_prefix("reached log position ")?;
    let digits = position.split(|letter: char| !letter.is_ascii_digit()).next()?;
    let fits = time.len() <= 40 && !time.contains(char::is_control);
    fits.then_some(Reached { time: time.to_owned(), position: digits.parse().ok()? })
}

/// Why a recovery failed, in its own words: the line with `finished with error`, else the last one.
pub fn recovery_failure(text: &str) -> &str {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error =
        lines().rev().find_map(|line| line.split_once("finished with error:").map(|(_, why)| why.trim()));
    error.or_else(|| lines().next_back()).unwrap_or("it printed nothing")
}

/// The exit codes of `systemReplicationStatus.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Replication {
    /// 10: no replication. A running secondary was seen to answer this too, so it is certain only on a primary.
    None,
    /// 11
    Error,
    /// 12: also when the system is not running or not primary.
    Unknown,
    /// 13
    Initializing,
    /// 14
    Syncing,
    /// 15: each service follows.
    Active,
}

impl Replication {
    /// The word that `overall_replication_status` has for it.
    fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Error => "ERROR",
            Self::Unknown => "UNKNOWN",
            Self::Initializing => "INITIALIZING",
            Self::Syncing => "SYNCING",
            Self::Active => "ACTIVE",
        }
    }
}

/// Reads the answer. Where the printed status contradicts the exit code, nothing is certain.
pub fn replication(exit: i32, text: &str) -> Reading<Replication> {
    let status = match exit {
        10 => Replication::None,
        11 => Replication::Error,
        12 => Replication::Unknown,
        13 => Replication::Initializing,
        14 => Replication::Syncing,
        15 => Replication::Active,
        code => {
            return unclear(format!(
                "systemReplicationStatus.py ended with {code} and printed {}",
                quoted(text.trim())
            ));
        }
    };
    let pairs = frame(text)?;
    let overall = one(&pairs, "overall_replication_status").or_else(|_| unclear("two overall states"))?;
    let missing = pairs.iter().any(|(key, value)| {
        key.starts_with("service/") && key.ends_with("/REPLICATION_STATUS") && *value != "ACTIVE"
    });
    match (status, overall) {
        (Replication::Active, Some("ACTIVE")) if !missing => Ok(status),
        (Replication::Active, other) => unclear(format!(
            "systemReplicationStatus.py ended with 15 (active), and its lines do not agree (overall {})",
            quoted(other.unwrap_or_default())
        )),
        (_, Some(word)) if word != status.word() => unclear(format!(
            "systemReplicationStatus.py ended with {exit} and printed the overall state {}",
            quoted(word)
        )),
        _ => Ok(status),
    }
}

/// The exit codes of `landscapeHostConfiguration.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Landscape {
    /// 0: fatal, or not known.
    Fatal,
    /// 1: too few hosts are active.
    Down,
    /// 2: an action is going on, such as a failover.
    Warning,
    /// 3: it works, with other roles than configured.
    Info,
    /// 4
    Ok,
}

/// Reads the answer.
pub fn hosts(exit: i32, text: &str) -> Reading<Landscape> {
    let state = match exit {
        0 => Landscape::Fatal,
        1 => Landscape::Down,
        2 => Landscape::Warning,
        3 => Landscape::Info,
        4 => Landscape::Ok,
        code => return unclear(format!("landscapeHostConfiguration.py ended with {code}")),
    };
    // 1 is also how Python ends when the script itself breaks, so the frame must be there.
    frame(text)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(lines: &str) -> String {
        format!("SAPCONTROL-OK: <begin>\n{lines}\nSAPCONTROL-OK: <end>\n")
    }

    #[test]
    fn every_documented_code_of_the_replication() {
        for (code, word, status) in [
            (11, "ERROR", Replication::Error),
            (12, "UNKNOWN", Replication::Unknown),
            (13, "INITIALIZING", Replication::Initializing),
            (14, "SYNCING", Replication::Syncing),
            (15, "ACTIVE", Replication::Active),
        ] {
            let text = framed(&format!(
                "service/h/30001/REPLICATION_STATUS={word}\nsite/2/REPLICATION_STATUS={word}\noverall_replication_status={word}\nlocal_site_id=1"
            ));
            assert_eq!(replication(code, &text), Ok(status));
            assert!(replication(if code == 15 { 14 } else { 15 }, &text).is_err(), "{word}");
        }
        assert_eq!(replication(10, &framed("local_site_id=0")), Ok(Replication::None));
        assert_eq!(replication(12, &framed("site/2/REPLICATION_MODE=SYNC")), Ok(Replication::Unknown));
    }

    #[test]
    fn active_needs_every_service() {
        let text = framed(
            "service/h/30001/REPLICATION_STATUS=ACTIVE\nservice/h/30003/REPLICATION_STATUS=SYNCING\noverall_replication_status=ACTIVE",
        );
        assert!(replication(15, &text).is_err());
        assert!(replication(15, &framed("local_site_id=1")).is_err());
        assert!(replication(15, "").is_err());
        for code in [0, 1, 2, 16, 124, 137] {
            assert!(replication(code, &framed("overall_replication_status=ACTIVE")).is_err());
        }
    }

    #[test]
    fn what_a_recovery_reached() {
        let text = "recoverSys started: ====\n2026-11-21T01:02:03+00:00  P77  abc INFO  RECOVERY RECOVER DATA finished \
                    successfully, reached timestamp 2026-11-21T01:00:00+00:00, reached log position 4711\nrecoverSys finished";
        let found = reached(text).unwrap();
        assert_eq!((found.time.as_str(), found.position), ("2026-11-21T01:00:00+00:00", 4711));
        for odd in
            ["", "reached timestamp", "reached timestamp x, reached log position y", "reached timestamp x"]
        {
            assert_eq!(reached(odd), None);
        }
        let failed = "restart database\nP1 ERROR RECOVERY RECOVER DATA finished with error: [448] no data backup\n<< rc = 1\n";
        assert_eq!(recovery_failure(failed), "[448] no data backup");
        assert_eq!(recovery_failure("a\nb\n\n"), "b");
        assert_eq!(recovery_failure(""), "it printed nothing");
    }

    #[test]
    fn every_documented_code_of_the_landscape() {
        let text = framed("host/h/hostStatus=ok");
        for (code, state) in [
            (0, Landscape::Fatal),
            (1, Landscape::Down),
            (2, Landscape::Warning),
            (3, Landscape::Info),
            (4, Landscape::Ok),
        ] {
            assert_eq!(hosts(code, &text), Ok(state));
            assert!(hosts(code, "Traceback (most recent call last):").is_err());
        }
        assert!(hosts(124, &text).is_err());
    }
}
