//! From which backup a state is restored, and along which timelines; all of it known before anything is begun.

use jiff::{SignedDuration, Timestamp};

use crate::archive::shelf::{Shelf, Way};
use crate::archive::{self};
use crate::backup::record::{self, Backup};
use crate::depot::Depot;
use crate::error::Error;
use crate::wal::{Lsn, Segment};

/// How far the clocks of store and server may be apart.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// The state that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everything that is archived.
    Latest,
    /// The end of the backup.
    Immediate,
    /// What was committed by then.
    Time(Timestamp),
    /// A point that was named by `pg_create_restore_point`.
    Name(String),
    /// A place in the WAL.
    Lsn(Lsn),
}

/// What an operator asks for.
#[derive(Clone, Debug, clap::Args)]
pub struct Wish {
    #[command(flatten)]
    goal: Goal,
    /// Begin with this backup [default: the newest that reaches the target]
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,
    /// Follow this timeline [default: the newest of the archive]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    timeline: Option<u32>,
    /// Only of the cluster with this system identifier [default: that of the newest backup]
    #[arg(long, value_name = "IDENTIFIER")]
    system: Option<u64>,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Goal {
    /// Restore everything that is archived
    #[arg(long)]
    latest: bool,
    /// Restore the state at the end of the backup
    #[arg(long)]
    immediate: bool,
    /// Restore what was committed by this instant, such as 2026-11-28T17:04:05+01:00
    #[arg(long, value_name = "INSTANT")]
    time: Option<Timestamp>,
    /// Restore the state at a point that pg_create_restore_point has named
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Restore the state at a place in the WAL, such as 0/3000060
    #[arg(long, value_name = "LSN")]
    lsn: Option<Lsn>,
}

impl Wish {
    /// Everything that is archived, from the newest backup.
    pub fn latest(backup: Option<String>) -> Self {
        let goal = Goal { latest: true, immediate: false, time: None, name: None, lsn: None };
        Self { goal, backup, timeline: None, system: None }
    }

    fn target(&self) -> Target {
        let goal = &self.goal;
        match (goal.time, &goal.name, goal.lsn) {
            (Some(time), _, _) => Target::Time(time),
            (_, Some(name), _) => Target::Name(name.clone()),
            (_, _, Some(lsn)) => Target::Lsn(lsn),
            _ if goal.immediate => Target::Immediate,
            _ => Target::Latest,
        }
    }
}

/// What is restored.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The state.
    pub target: Target,
    /// The backup that it begins with.
    pub backup: Backup,
    /// That, and before it everything that it builds on.
    pub chain: Vec<Backup>,
    /// The timelines that are followed.
    pub way: Way,
    /// The newest segment of the way, when it was looked at.
    pub last: Segment,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Chooses, and looks whether everything that is needed is there.
///
/// # Errors
/// If the state cannot be restored, or it cannot be told.
pub async fn choose(depot: &Depot, wish: &Wish, now: Timestamp) -> Result<Chosen, Error> {
    let target = wish.target();
    if let Target::Time(time) = target
        && time > now
    {
        return Err(Error::Refused(format!("{time} has not come yet: say --latest, or an instant that has")));
    }
    let backups = record::all(depot).await?;
    let id = &depot.place.id;
    let newest =
        backups.last().ok_or_else(|| Error::Missing(format!("there is no backup of {id}: make one")))?;
    let named = wish.backup.as_ref().map(|stamp| {
        let found = backups.iter().find(|backup| backup.record.stamp == *stamp);
        found.ok_or_else(|| Error::Missing(format!("there is no backup {stamp} of {id}: see `backup list`")))
    });
    let named = named.transpose()?;
    let system = wish.system.unwrap_or(named.unwrap_or(newest).system);
    let of_system = || backups.iter().filter(|backup| backup.system == system);
    let size = of_system().next_back().map(|backup| backup.size);
    let size = size.ok_or_else(|| Error::Missing(format!("there is no backup of the system {system}")))?;
    let shelf = Shelf::read(depot, system, size).await?;
    let timeline = wish.timeline.or_else(|| shelf.newest_timeline());
    let timeline =
        timeline.ok_or_else(|| Error::Damaged(format!("there is no WAL of the system {system}")))?;
    let way = shelf.way(depot, system, timeline).await?;
    let candidates: Vec<&Backup> = of_system()
        .filter(|backup| named.is_none_or(|named| named.record.stamp == backup.record.stamp))
        .filter(|backup| way.holds(backup.record.timeline, backup.stop))
        .collect();
    let backup = pick(&candidates, &target, timeline)?.clone();
    if let Some(damage) = &backup.damage {
        return Err(Error::Damaged(format!(
            "{damage}: say an older backup with --backup, or make a new one (`backup list`)"
        )));
    }
    let chain = record::chain(&backups, &backup)?;
    let (start, stop) = (size.number(backup.start), size.number_before(backup.stop));
    let last = shelf.last(&way, start).map(|(number, timeline)| Segment { timeline, number });
    let last =
        last.ok_or_else(|| Error::Damaged(format!("none of the WAL of {} is there", backup.record.stamp)))?;
    let needed = match &target {
        Target::Immediate | Target::Time(_) | Target::Name(_) => stop,
        Target::Lsn(lsn) => size.number_before(*lsn).max(stop),
        Target::Latest => last.number.max(stop),
    };
    if let Some(missing) = shelf.missing(&way, start, Some(needed)).first() {
        return Err(Error::Damaged(format!(
            "{missing} is missing in the archive, and everything after it cannot be restored from {}: say an instant \
             before it, or a later backup",
            backup.record.stamp
        )));
    }
    let mut notes = Vec::new();
    if let Some(missing) = shelf.missing(&way, start, None).first() {
        notes.push(format!("{missing} is missing in the archive: only what is before it can be restored"));
    }
    if let Target::Time(time) = target {
        ends_after(depot, system, size.name(last), last, time).await?;
    }
    Ok(Chosen { target, backup, chain, way, last, notes })
}

/// The newest backup that reaches the target.
fn pick<'a>(candidates: &[&'a Backup], target: &Target, timeline: u32) -> Result<&'a Backup, Error> {
    let first = candidates.first().ok_or_else(|| {
        Error::Refused(format!("no backup is on the way to timeline {timeline}: see `backup list`"))
    })?;
    let newest = |reaches: &dyn Fn(&Backup) -> bool| {
        let mut all = candidates.iter().rev();
        all.find(|backup| reaches(backup)).copied()
    };
    let found = match target {
        Target::Time(time) => newest(&|backup| backup.record.stopped <= *time),
        Target::Lsn(lsn) => newest(&|backup| backup.stop <= *lsn),
        Target::Latest | Target::Immediate => newest(&|_| true),
        // Nothing says where a name is, and a backup after it never comes to it.
        Target::Name(name) if candidates.len() > 1 => {
            let stamps: Vec<_> = candidates.iter().map(|backup| backup.record.stamp.as_str()).collect();
            return Err(Error::Refused(format!(
                "say with --backup which backup is the last before the point `{name}`: {}",
                stamps.join(", ")
            )));
        }
        Target::Name(_) => newest(&|_| true),
    };
    found.ok_or_else(|| {
        Error::Refused(format!(
            "the oldest backup is consistent from {} ({}) on: nothing before can be restored",
            first.record.stopped, first.record.stop
        ))
    })
}

/// Whether the archive can hold a commit after this instant: what was stored before it cannot.
async fn ends_after(
    depot: &Depot,
    system: u64,
    name: String,
    last: Segment,
    time: Timestamp,
) -> Result<(), Error> {
    let key = archive::key(&depot.place, system, &name);
    let key =
        key.ok_or_else(|| Error::Unclear(format!("no name of a segment: {name} of {}", last.timeline)))?;
    let stored = depot.list(&key).await?;
    let stored = stored.iter().find(|stored| stored.name == key).and_then(|stored| stored.time.as_deref());
    let at: Timestamp = stored
        .and_then(|time| time.parse().ok())
        .ok_or_else(|| Error::Unclear(format!("{key} does not say when it was stored")))?;
    if at.checked_add(CLOCKS).is_ok_and(|at| at < time) {
        return Err(Error::Refused(format!(
            "the archive ends with {name}, stored at {at}: that nothing was written until {time} cannot be proved; say \
             --latest for everything that is there"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Target, pick};
    use crate::backup::record::Backup;
    use crate::wal::Lsn;

    fn backup(at: i64) -> Backup {
        let place = u64::try_from(at).unwrap();
        Backup::of_tests(&format!("b{at}"), at, place - 1, place)
    }

    #[test]
    fn the_newest_backup_that_reaches_the_target_is_taken() {
        let all = [backup(100), backup(200), backup(300)];
        let all: Vec<_> = all.iter().collect();
        let chosen = |target: &Target| pick(&all, target, 1).map(|backup| backup.record.stamp.clone());
        let time = |at| Target::Time(Timestamp::from_second(at).unwrap());
        for (target, stamp) in [
            (time(100), "b100"),
            (time(299), "b200"),
            (time(999), "b300"),
            (Target::Lsn(Lsn(250)), "b200"),
            (Target::Latest, "b300"),
            (Target::Immediate, "b300"),
        ] {
            assert_eq!(chosen(&target).unwrap(), stamp, "{target:?}");
        }
        for (target, why) in [
            (time(99), "oldest"),
            (Target::Lsn(Lsn(99)), "oldest"),
            (Target::Name("n".to_owned()), "--backup"),
        ] {
            let said = chosen(&target).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        assert!(pick(&[], &Target::Latest, 1).is_err());
        assert!(pick(&all[..1], &Target::Name("n".to_owned()), 1).is_ok());
    }
}
