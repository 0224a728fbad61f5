//! A drill: the newest backup restored into a scratch place that nobody reaches, looked at, and removed.
//!
//! What it proves is that the backup can be restored now, with everything that the archive holds, and that the rows can
//! be read. It touches nothing of the living cluster; whatever dies, the next drill removes what this one has left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Place};
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};
use crate::layout;
use crate::report;
use crate::restore::choose::{Chosen, Wish, choose};
use crate::restore::recover::{Evidence, Scratch};
use crate::restore::{no_shared_tablespaces, room};
use crate::server::{Bounds, Session};

/// For a program that reads every row.
const LONG: Duration = Duration::from_secs(72 * 3600);
/// The file that says that a folder is a drill's.
const MARKER: &str = "hostler.drill";

/// What is drilled.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    place: Place,
    /// Folder in which the scratch place is made and removed [default: /var/lib/postgresql, with the rpms of the PGDG
    /// /var/lib/pgsql]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Drill this backup [default: the newest]
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,
    /// File with lines `DATABASE: QUERY`, each of which has to answer true
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
}

/// How long each part took.
struct Times {
    fetch: Duration,
    replay: Duration,
    check: Duration,
}

/// Drills.
///
/// # Errors
/// If the backup cannot be restored, or does not hold what it should; nothing is left of the drill in either case.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let owner = layout::administrator()?;
    let depot = Depot::new(&plan.place, owner);
    let owner = owner.unwrap_or_else(Owner::own);
    let queries = plan.queries.as_deref().map(queries).transpose()?.unwrap_or_default();
    let folder = plan.folder.clone().unwrap_or_else(layout::home);
    let place = folder.join(format!("hostler-drill-{}", plan.place.id));
    let _one = claim(&place, owner)?;
    clear(&place, owner).await?;
    let chosen = choose(&depot, &Wish::latest(plan.backup.clone()), Timestamp::now()).await?;
    let version = chosen.backup.version();
    if !layout::installed(version) {
        return Err(Error::Refused(format!(
            "the backup is of version {version}: install postgresql-{version}"
        )));
    }
    no_shared_tablespaces(chosen.backup.system).await?;
    room(&folder, &chosen)?;
    let scratch = Scratch { data: place.join("data"), work: place.join("work"), owner, version };
    fs::create_dir(&place).map_err(Error::local(place.display()))?;
    owner.give(&place)?;
    let run = std::env::var("HOSTLER_RUN").unwrap_or_else(|_| "by hand".to_owned());
    durable::replace(&place.join(MARKER), &format!("{run}\n"), owner)?;
    let begun = Timestamp::now();
    let drilled = drill(&depot, &chosen, &scratch, &queries).await;
    clear(&place, owner).await?;
    let (evidence, times) = drilled?;
    tell(&chosen, &evidence, &times, begun);
    Ok(())
}

/// Holds the place for this drill alone, for as long as the file is kept open.
fn claim(place: &Path, owner: Owner) -> Result<Flock<File>, Error> {
    let path = place.with_extension("lock");
    let file = File::options().create(true).append(true).open(&path).map_err(Error::local(path.display()))?;
    owner.give(&path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => {
            Error::Refused(format!("a drill works in {} already", place.display()))
        }
        error => Error::Local(format!("{}: {error}", path.display())),
    })
}

/// Removes what a drill has left: only what its marker vouches for, and no server but the one that works there.
async fn clear(place: &Path, owner: Owner) -> Result<(), Error> {
    if !place.exists() {
        return Ok(());
    }
    let empty = fs::read_dir(place).map_err(Error::local(place.display()))?.next().is_none();
    if !empty && !place.join(MARKER).exists() {
        return Err(Error::Refused(format!("{} is nothing of a drill: move it away", place.display())));
    }
    let data = place.join("data");
    if layout::living(&data)?.is_some() {
        let version = durable::read(&data.join("PG_VERSION"))?.unwrap_or_default();
        let version = version
            .trim()
            .parse()
            .map_err(|_| Error::Unclear(format!("{} has no version", data.display())))?;
        layout::halt(&data, version, owner).await?;
    }
    // The marker goes last, so that a death in between leaves what the next one removes.
    for name in ["data", "work"] {
        layout::remove_folder(&place.join(name))?;
    }
    layout::remove_folder(place)
}

async fn drill(
    depot: &Depot,
    chosen: &Chosen,
    scratch: &Scratch,
    queries: &[(String, String)],
) -> Result<(Evidence, Times), Error> {
    let begun = Instant::now();
    report::progress(5, &format!("reading the backup {}", chosen.backup.record.stamp));
    scratch.unpack(depot, &chosen.chain).await?;
    let fetch = begun.elapsed();
    report::progress(50, "replaying the WAL");
    let begun = Instant::now();
    let mut served = scratch.start(depot, chosen, &[("fsync", "off")]).await?;
    let evidence = scratch.recovered(&mut served, chosen).await?;
    let replay = begun.elapsed();
    here(CrashPoint::DrillRecovered);
    report::progress(70, "reading every row");
    let begun = Instant::now();
    read_all(scratch).await?;
    for (database, query) in queries {
        let session = Session::open(&scratch.cluster(), database, Bounds::WORK).await?;
        if !session.holds(query).await? {
            return Err(Error::No(format!("in {database}, this is not true of the restored rows: {query}")));
        }
    }
    let check = begun.elapsed();
    scratch.stop(&mut served, "immediate").await?;
    Ok((evidence, Times { fetch, replay, check }))
}

/// Has the structure of every table and index looked at, and every row read.
async fn read_all(scratch: &Scratch) -> Result<(), Error> {
    let socket = scratch.work.join("run");
    let door: Vec<OsString> = vec![
        "-h".into(),
        socket.into(),
        "-p".into(),
        "5432".into(),
        "-w".into(),
        "-U".into(),
        "postgres".into(),
    ];
    let amcheck = layout::program(scratch.version, "pg_amcheck");
    if amcheck.exists() {
        let mut words = door.clone();
        words.extend(
            ["--all", "--install-missing", "--heapallindexed", "--no-strict-names"].map(OsString::from),
        );
        damaged(exec::run(Some(scratch.owner), &amcheck, &words, LONG).await?, "pg_amcheck")?;
    } else {
        report::message("version 13 has no pg_amcheck: indexes are not held against their tables");
    }
    let mut words = door;
    words.extend(["--database=postgres", "--file=/dev/null", "--no-sync"].map(OsString::from));
    damaged(
        exec::run(Some(scratch.owner), &layout::program(scratch.version, "pg_dumpall"), &words, LONG).await?,
        "pg_dumpall",
    )
}

fn damaged(ended: exec::Ended, program: &str) -> Result<(), Error> {
    if ended.status == Some(0) {
        return Ok(());
    }
    let said =
        if ended.complaint.is_empty() { ended.output.chars().take(400).collect() } else { ended.complaint };
    Err(Error::Damaged(format!("{program} finds fault with the restored cluster: {said}")))
}

/// The lines of a file of queries.
fn queries(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let text =
        durable::read(path)?.ok_or_else(|| Error::Missing(format!("{} does not exist", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let parts = line
            .split_once(':')
            .map(|(database, query)| (database.trim().to_owned(), query.trim().to_owned()));
        parts.ok_or_else(|| Error::Refused(format!("{}: `{line}` is not DATABASE: QUERY", path.display())))
    };
    lines.map(read).collect()
}

/// The moment that a server's log names.
fn moment(text: &str) -> Option<Timestamp> {
    format!("{}:00", text.replacen(' ', "T", 1)).parse().ok()
}

fn tell(chosen: &Chosen, evidence: &Evidence, times: &Times, begun: Timestamp) {
    let newest = evidence.last_commit.as_deref().and_then(moment);
    let newest = newest.unwrap_or(chosen.backup.record.stopped);
    let age = begun.duration_since(newest).as_secs().max(0);
    let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
    let whole = times.fetch + times.replay + times.check;
    for (name, value) in [
        ("backup", chosen.backup.record.stamp.clone()),
        ("newest_commit", newest.to_string()),
        ("newest_commit_age_seconds", age.to_string()),
        ("segments", evidence.segments.to_string()),
        ("fetch_seconds", seconds(times.fetch)),
        ("replay_seconds", seconds(times.replay)),
        ("check_seconds", seconds(times.check)),
    ] {
        report::output(name, value);
    }
    report::progress(
        100,
        &format!(
            "{} can be restored: {} s to fetch and verify, {} s to replay {} segments, {} s to read, {} s in all; the newest \
             commit in it is {age} s old",
            chosen.backup.record.stamp,
            seconds(times.fetch),
            seconds(times.replay),
            evidence.segments,
            seconds(times.check),
            seconds(whole)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn the_moments_of_a_log_are_read() {
        for text in ["2026-11-29 04:53:31.027165+00", "2026-11-29 04:53:31+00"] {
            assert_eq!(moment(text).unwrap().as_second(), 1_795_928_011, "{text}");
        }
        assert_eq!(moment("yesterday"), None);
    }
}
