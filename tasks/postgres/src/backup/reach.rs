//! How far a backup can be restored: its files are whole, and its WAL is in the archive.

use jiff::{SignedDuration, Timestamp};

use super::record::{self, Backup};
use crate::archive::shelf::Shelf;
use crate::check::{Finding, Severity};
use crate::depot::{self, Depot, Place};
use crate::error::Error;
use crate::layout::Cluster;
use crate::server::{Bounds, Session};
use crate::wal::Segment;

/// How far a backup can be restored, or what is wrong.
///
/// # Errors
/// If the store does not answer.
pub async fn ask(depot: &Depot, backup: &Backup) -> Result<Result<String, String>, Error> {
    if let Some(why) = &backup.damage {
        return Ok(Err(why.clone()));
    }
    let shelf = Shelf::read(depot, backup.system, backup.size).await?;
    let newest = shelf.newest_timeline().unwrap_or(backup.record.timeline);
    let way = shelf.way(depot, backup.system, newest).await?;
    if !way.holds(backup.record.timeline, backup.stop) {
        return Ok(Ok(format!("on timeline {}, which was left", backup.record.timeline)));
    }
    let start = backup.size.number(backup.start);
    if let Some(missing) = shelf.missing(&way, start, None).first() {
        return Ok(Err(format!("its WAL ends before {missing}, which is missing")));
    }
    let last =
        shelf.last(&way, start).map(|(number, timeline)| backup.size.name(Segment { timeline, number }));
    Ok(last.map_or_else(|| Err("none of its WAL is there".to_owned()), |last| Ok(format!("good to {last}"))))
}

/// The backup without which nothing is begun.
#[derive(Clone, Debug, clap::Args)]
pub struct Required {
    /// Refuse to begin unless the depot has a good backup of the cluster under this name
    #[arg(long, value_name = "ID", value_parser = depot::id)]
    backup_id: Option<String>,
    /// How old that backup may be
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=8760))]
    backup_age: u16,
    /// Configuration of hostler-depot, which the cluster's owner can read
    #[arg(long, value_name = "FILE", default_value = depot::CONFIG)]
    depot_config: std::path::PathBuf,
}

impl Required {
    /// What is to be said of the backups of a cluster.
    ///
    /// # Errors
    /// If the server does not answer; that the depot does not is a finding.
    pub async fn check(&self, cluster: &Cluster) -> Result<Vec<Finding>, Error> {
        let Some(id) = &self.backup_id else {
            let what = "no backup is named (--backup-id): whether there is one is not looked at";
            return Ok(vec![Finding::new(Severity::Know, what, cluster.title())]);
        };
        let admin = Session::open(cluster, "postgres", Bounds::LOOK).await?;
        let system = admin.text("select system_identifier from pg_control_system()").await?;
        let place = Place { id: id.clone(), depot_config: self.depot_config.clone() };
        let depot = Depot::new(&place, Some(cluster.owner));
        let block = |what: &str, example: String| Ok(vec![Finding::new(Severity::Block, what, example)]);
        match newest(&depot, &system).await {
            Err(error) => block("it is not known whether there is a good backup", error.to_string()),
            Ok(Err(why)) => block("there is no good backup: make one first", why),
            Ok(Ok(backup)) => {
                let age = Timestamp::now().duration_since(backup.record.stopped);
                if age <= SignedDuration::from_hours(i64::from(self.backup_age)) {
                    return Ok(Vec::new());
                }
                let example = format!(
                    "{} is {} h old, at most {} h",
                    backup.record.stamp,
                    age.as_hours(),
                    self.backup_age
                );
                block("the newest good backup is too old: make one first", example)
            }
        }
    }
}

/// The newest backup of a system that can be restored, or why there is none.
async fn newest(depot: &Depot, system: &str) -> Result<Result<Backup, String>, Error> {
    let mut why = format!("{} has none of this cluster", depot.place.id);
    let backups = record::all(depot).await?;
    for backup in backups.into_iter().rev().filter(|backup| backup.record.system == system) {
        match ask(depot, &backup).await? {
            Ok(_) => return Ok(Ok(backup)),
            Err(wrong) => why = format!("{}: {wrong}", backup.record.stamp),
        }
    }
    Ok(Err(why))
}
