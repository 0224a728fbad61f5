//! What is kept: backups by a rule, and of WAL everything from the start of the oldest that is left.
//!
//! WAL goes by its number and never by its age, so that neither a clock nor a timeline can take what a backup needs; and
//! it goes only when it is known of every base that is stored where it begins. A death leaves more than is needed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::record::{self, Backup};
use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Stored};
use crate::error::Error;
use crate::report;
use crate::wal::{Lsn, Name, Size};

/// How long files without a record may be a backup that is being made.
const HALF: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is kept.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// At least so many backups.
    pub keep: Option<usize>,
    /// Every instant of this time before now can be restored.
    pub window: Option<SignedDuration>,
}

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stamps of backups.
    pub backups: Vec<String>,
    /// Stamps of files that never became a backup.
    pub halves: Vec<String>,
}

impl Rule {
    /// The stamps of the backups that the rule does not keep: never the newest, never one that is damaged, and never one
    /// that something builds on which stays.
    pub fn surplus(&self, backups: &[Backup], now: Timestamp) -> Vec<String> {
        let good: Vec<&Backup> = backups.iter().filter(|backup| backup.damage.is_none()).collect();
        // The oldest that is kept stands at the lowest of these places.
        let by_count = self.keep.map(|keep| good.len().saturating_sub(keep.max(1)));
        let by_time = self.window.and_then(|window| {
            let from = now.checked_sub(window).ok()?;
            // Any instant of the window is reached from the last backup that had ended before the window.
            Some(good.iter().rposition(|backup| backup.record.stopped <= from).unwrap_or(0))
        });
        let lowest = match (by_count, by_time) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other).unwrap_or(0),
        };
        let lowest = lowest.min(good.len().saturating_sub(1));
        let mut surplus: Vec<&str> =
            good.iter().take(lowest).map(|backup| backup.record.stamp.as_str()).collect();
        // From the newest to the oldest: whoever is built on is older than who builds.
        for backup in backups
            .iter()
            .rev()
            .filter_map(|backup| Some((&backup.record.stamp, backup.record.parent.as_ref()?)))
        {
            let (stamp, parent) = backup;
            if !surplus.contains(&stamp.as_str()) {
                surplus.retain(|stamp| stamp != parent);
            }
        }
        surplus.into_iter().map(str::to_owned).collect()
    }
}

/// The number of the segment below which no base of a system needs WAL; systems without a base are not in it. A record
/// says where its base begins, and a base without one where it can begin at the earliest.
///
/// # Errors
/// If it is not known of a base where it begins.
fn floors(bases: &[Stored], backups: &[Backup]) -> Result<BTreeMap<u64, (Size, u64)>, Error> {
    let mut floors: BTreeMap<u64, (Size, u64)> = BTreeMap::new();
    let start = |name: &str| {
        let stamp = name.rsplit('/').next()?;
        let backup = backups.iter().find(|backup| backup.record.stamp == stamp)?;
        Some((backup.system, backup.size, backup.size.number(backup.start)))
    };
    for base in bases {
        let read = || {
            let system = base.label.get("system")?.as_str()?.parse::<u64>().ok()?;
            let size = Size::new(base.label.get("segment")?.as_u64()?)?;
            let floor = base.label.get("floor")?.as_str()?.parse::<Lsn>().ok()?;
            Some((system, size, size.number(floor)))
        };
        let (system, size, floor) = start(&base.name).or_else(read).ok_or_else(|| {
            Error::Unclear(format!(
                "{} does not say where it begins, so no WAL is deleted: look at it",
                base.name
            ))
        })?;
        let entry = floors.entry(system).or_insert((size, floor));
        if entry.0 != size {
            return Err(Error::Unclear(format!(
                "{} has segments of another size than older ones",
                base.name
            )));
        }
        entry.1 = entry.1.min(floor);
    }
    Ok(floors)
}

/// What a base that is stored under this name was stamped with, and when.
fn stamped(name: &str) -> Option<(String, Timestamp)> {
    let stamp = name.rsplit('/').next()?;
    let time = stamp.get(..18)?;
    let time = jiff::civil::DateTime::strptime("%Y-%m-%dT%H%M%SZ", time).ok()?;
    Some((stamp.to_owned(), time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))
}

/// What a rule lets go of.
///
/// # Errors
/// If the store does not answer, or a backup cannot be understood.
pub async fn plan(depot: &Depot, rule: &Rule, now: Timestamp) -> Result<Plan, Error> {
    let backups = record::all(depot).await?;
    let known: BTreeSet<&str> = backups.iter().map(|backup| backup.record.stamp.as_str()).collect();
    let mut halves = Vec::new();
    // What is being made may build on a backup, too.
    let mut needed = BTreeSet::new();
    for stored in depot.list(&record::name(&depot.place, "base", "")).await? {
        let name = stored.name;
        if let Some((stamp, time)) = stamped(&name)
            && !known.contains(stamp.as_str())
            && now.duration_since(time) <= HALF
        {
            let mut parent = stored.label.get("parent").and_then(Value::as_str);
            while let Some(stamp) = parent.filter(|stamp| needed.insert((*stamp).to_owned())) {
                let built_on = backups.iter().find(|backup| backup.record.stamp == stamp);
                parent = built_on.and_then(|backup| backup.record.parent.as_deref());
            }
        }
        if let Some((stamp, time)) = stamped(&name)
            && !known.contains(stamp.as_str())
            && now.duration_since(time) > HALF
        {
            halves.push(stamp);
        }
    }
    let mut surplus = rule.surplus(&backups, now);
    surplus.retain(|stamp| !needed.contains(stamp));
    Ok(Plan { backups: surplus, halves })
}

/// Deletes what a rule does not keep, and the WAL that nothing needs any more.
///
/// # Errors
/// If something cannot be deleted or understood; nothing that is needed is gone then.
pub async fn run(depot: &Depot, rule: &Rule, now: Timestamp) -> Result<(), Error> {
    let place = &depot.place;
    let plan = plan(depot, rule, now).await?;
    let gone: Vec<&String> = plan.backups.iter().chain(&plan.halves).collect();
    // A record first: from then on it is no backup. Then what builds on the files, then they.
    for what in ["backup", "conf", "manifest", "base"] {
        let names = depot.names(&record::name(place, what, "")).await?;
        let doomed: Vec<String> = gone
            .iter()
            .map(|stamp| record::name(place, what, stamp))
            .filter(|name| names.contains(name))
            .collect();
        depot.delete(&doomed).await?;
        if what == "backup" {
            here(CrashPoint::Unrecorded);
        }
    }
    here(CrashPoint::BasesGone);
    report::message(&format!(
        "{} backups and {} halves of one were deleted",
        plan.backups.len(),
        plan.halves.len()
    ));
    report::output("deleted", plan.backups.len());
    let backups = record::all(depot).await?;
    let floors = floors(&depot.list(&record::name(place, "base", "")).await?, &backups)?;
    let mut count = 0;
    for (system, (size, floor)) in floors {
        // Files that never became a backup keep WAL, and let none of it go.
        if !backups.iter().any(|backup| backup.system == system && backup.damage.is_none()) {
            continue;
        }
        let names = depot.names(&format!("{}/{system}/", place.wal())).await?;
        let doomed: Vec<String> = names.into_iter().filter(|key| needless(size, floor, key)).collect();
        depot.delete(&doomed).await?;
        count += doomed.len();
    }
    report::output("segments", count);
    report::message(&format!("{count} files of WAL were deleted"));
    Ok(())
}

/// Whether nothing needs this file of WAL: never so for a history.
fn needless(size: Size, floor: u64, key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    let known =
        matches!(Name::parse(name), Some(Name::Segment { .. } | Name::Partial { .. } | Name::Label { .. }));
    let segment = name.get(..24).and_then(|name| size.segment(name));
    known && segment.is_some_and(|segment| segment.number < floor)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use serde_json::{Value, json};

    use super::{Rule, floors, needless};
    use crate::backup::record::Backup;
    use crate::depot::Stored;
    use crate::wal::{Lsn, Size};

    fn backup(day: i64, damaged: bool) -> Backup {
        let damage = damaged.then(String::new);
        Backup { damage, ..Backup::of_tests(&day.to_string(), day * 86_400, 1, 2) }
    }

    #[test]
    fn whatever_the_rule_every_instant_that_it_promises_can_be_reached() {
        // Every set of ten days with a backup, a damaged one, or none; every rule.
        for code in 0..3_u32.pow(6) {
            let days: Vec<Backup> = (0..6_u32)
                .filter_map(|day| match code / 3_u32.pow(day) % 3 {
                    0 => None,
                    one => Some(backup(i64::from(day), one == 2)),
                })
                .collect();
            let good: Vec<i64> = days
                .iter()
                .filter(|day| day.damage.is_none())
                .map(|day| day.record.stopped.as_second() / 86_400)
                .collect();
            for keep in [None, Some(0), Some(1), Some(3)] {
                for window in [None, Some(0), Some(2), Some(9)] {
                    let rule =
                        Rule { keep, window: window.map(|days| SignedDuration::from_hours(24 * days)) };
                    let now = Timestamp::from_second(6 * 86_400).unwrap();
                    let gone: Vec<i64> =
                        rule.surplus(&days, now).iter().map(|day| day.parse().unwrap()).collect();
                    let left: Vec<i64> = good.iter().filter(|day| !gone.contains(day)).copied().collect();
                    assert!(gone.iter().all(|day| good.contains(day)), "a damaged one is not touched");
                    assert_eq!(left.last(), good.last(), "the newest stays");
                    assert!(left.len() >= good.len().min(keep.unwrap_or(0)));
                    if keep.is_none() && window.is_none() {
                        assert!(gone.is_empty(), "no rule keeps everything");
                    }
                    if let Some(window) = window {
                        for instant in 6 - window..=6 {
                            let reached = |days: &[i64]| days.iter().any(|day| *day <= instant);
                            assert_eq!(reached(&left), reached(&good), "{code} {keep:?} {window} {instant}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_an_incremental_backup_that_stays_builds_on_stays() {
        // Full, incremental, incremental; full, incremental: by the day.
        let on = |day: i64, parent: Option<i64>| {
            let mut backup = backup(day, false);
            backup.record.parent = parent.map(|day| day.to_string());
            backup
        };
        let all = [on(0, None), on(1, Some(0)), on(2, Some(1)), on(3, None), on(4, Some(3))];
        let gone = |keep| Rule { keep: Some(keep), window: None }.surplus(&all, Timestamp::UNIX_EPOCH);
        assert_eq!(gone(1), ["0", "1", "2"], "the newest needs 3");
        assert_eq!(gone(2), ["0", "1", "2"]);
        assert_eq!(gone(3), Vec::<String>::new(), "2 needs 1 and 0");
        let mut damaged = all.clone();
        damaged[2].damage = Some(String::new());
        let rule = Rule { keep: Some(1), window: None };
        assert_eq!(
            rule.surplus(&damaged, Timestamp::UNIX_EPOCH),
            Vec::<String>::new(),
            "2 stays, and builds on them"
        );
    }

    fn base(label: Value) -> Stored {
        Stored { name: "b".to_owned(), time: None, size: 1, state: "good".to_owned(), label }
    }

    #[test]
    fn wal_goes_below_the_lowest_start_only_and_not_at_all_where_one_is_unknown() {
        let of =
            |system: &str, floor: &str| base(json!({"system": system, "floor": floor, "segment": 1 << 20}));
        let known = floors(&[of("7", "0/500000"), of("7", "0/3FFFFF"), of("8", "1/0")], &[]).unwrap();
        assert_eq!(known.get(&7).unwrap().1, 3);
        assert_eq!(known.get(&8).unwrap().1, 4096);
        let recorded = Stored { name: "x/base/5".to_owned(), ..of("7", "0/0") };
        let backup = Backup { start: Lsn(0x50_0028), ..backup(5, true) };
        assert_eq!(floors(&[recorded], &[backup]).unwrap().get(&7).unwrap().1, 5);
        for wrong in [
            Value::Null,
            json!({}),
            json!({"system": "7", "floor": "x", "segment": 1 << 20}),
            json!({"system": "7", "floor": "0/0", "segment": 2 << 20}),
        ] {
            assert!(floors(&[of("7", "0/500000"), base(wrong)], &[]).is_err());
        }
        let size = Size::new(1 << 20).unwrap();
        for (name, gone) in [
            ("000000010000000000000002", true),
            ("000000090000000000000002", true),
            ("000000010000000000000003", false),
            ("000000010000000100000000", false),
            ("000000010000000000000002.partial", true),
            ("000000010000000000000002.00000028.backup", true),
            ("000000010000000000000003.00000028.backup", false),
            ("00000001.history", false),
            ("something", false),
            ("000000010000000000000002.mine", false),
        ] {
            assert_eq!(needless(size, 3, &format!("x.wal/7/00000001/{name}")), gone, "{name}");
        }
    }
}
