//! The copy by a standby, for databases whose rows would take too long one by one: a base backup of the old cluster that
//! recovers to one place in its WAL, becomes a server of its own there, and is brought to the new version by `pg_upgrade`.
//!
//! ```text
//!  publication  →  base backup  →  slots, the last at L  →  recovery to L  →  pg_upgrade --link  →  the new cluster
//! ```
//! What was committed before L is in the copy, and the slots send what commits at L or later: so the subscriptions copy no
//! row. The slots are made when the backup has ended, so that the copy cannot have replayed beyond L. It lives in a folder of
//! its own beside the new cluster's data, listens nowhere but there, and is thrown away with everything else if something
//! dies: nothing of it is gone on with.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::replica::{self, Way};
use super::{Base, Pair};
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};
use crate::layout::{self, Cluster, spaces};
use crate::report;
use crate::restore::recover::Scratch;
use crate::server::{Bounds, Session, literal};
use crate::wal::Lsn;

/// For what reads or writes every byte.
const LONG: Duration = Duration::from_secs(60 * 3600);
/// How many lines of what a program said are shown when it has failed.
const SAID: usize = 8;
/// The files of configuration that a server needs.
const FILES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
/// Between two looks whether the recovery has ended.
const LOOK: Duration = Duration::from_millis(200);

/// The slot that keeps WAL for the copy; the name of a database that none has.
fn keeper() -> Base {
    Base { oid: "0".to_owned(), name: "postgres".to_owned(), bytes: 0 }
}

/// Its folder: on the file system of the new cluster's data, which will link to its files.
fn folder(to: u16, name: &str) -> PathBuf {
    layout::data(to, name).with_extension("copy")
}

/// The copy, in its folder.
fn scratch(pair: &Pair) -> Scratch {
    let folder = folder(pair.to, &pair.old.name);
    Scratch {
        data: folder.join("data"),
        work: folder.join("work"),
        owner: pair.old.owner,
        version: pair.old.version,
    }
}

/// Fills the new cluster, which was made and has not run, with the old one's contents, as of the place where the slots
/// begin.
///
/// # Errors
/// If a part fails: then [`clear_away`] and what clears the new cluster away leave nothing.
pub async fn fill(pair: &Pair, new: &Cluster) -> Result<(), Error> {
    let admin = Session::open(&pair.old, "postgres", Bounds::WORK).await?;
    let mut bases = Vec::new();
    for (oid, name, bytes) in check::databases(&admin).await? {
        bases.push(Base { oid, name, bytes });
    }
    let copy = scratch(pair);
    for base in &bases {
        replica::publish(Way::Up, &Session::open(&pair.old, &base.name, Bounds::WORK).await?).await?;
    }
    report::progress(10, "copying the files of the old cluster");
    base_backup(pair, &copy).await?;
    here(CrashPoint::FilesCopied);
    let place = slots(pair, &bases).await?;
    here(CrashPoint::SlotsMade);
    report::progress(60, &format!("recovering the copy to {place}"));
    recover(pair, &copy, &admin, place).await?;
    replica::drop_slot(Way::Up, &keeper(), &admin).await?;
    here(CrashPoint::CopyRecovered);
    report::progress(75, &format!("bringing the copy to version {}", pair.to));
    bring(pair, &copy, new).await?;
    here(CrashPoint::CopyBrought);
    // What is left of the copy there; the new cluster has links of its own to the files.
    spaces::clear(&copied(pair)?, pair.old.version)?;
    layout::remove_folder(&folder(pair.to, &pair.old.name))
}

fn socket(cluster: &Cluster) -> [OsString; 4] {
    ["-h".into(), cluster.socket.clone().into(), "-p".into(), cluster.port.to_string().into()]
}

/// A program that must not go on when this one has died: it writes into folders that are removed then.
pub(super) async fn bound(
    owner: Owner,
    folder: &Path,
    program: PathBuf,
    words: Vec<OsString>,
    within: Duration,
) -> Result<(), Error> {
    let mut all: Vec<OsString> = vec!["-C".into(), folder.into(), "setpriv".into()];
    if nix::unistd::geteuid().is_root() {
        // With all groups of the user: the key for TLS may be readable by one of them only.
        all.extend([format!("--reuid={}", owner.uid), format!("--regid={}", owner.gid)].map(OsString::from));
        all.push("--init-groups".into());
    }
    all.extend(["--pdeathsig".into(), "KILL".into()]);
    all.push(program.clone().into());
    all.extend(words);
    let ended = exec::run(None, Path::new("/usr/bin/env"), &all, within).await?;
    if ended.status == Some(0) {
        return Ok(());
    }
    // pg_upgrade says on its standard output what it does not like.
    let lines: Vec<_> = ended.output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.len().saturating_sub(SAID);
    let mut said = lines.get(last..).unwrap_or_default().join("; ");
    // The lists that it names would go with the new cluster.
    for list in lines.iter().map(Path::new).filter(|path| path.extension().is_some_and(|end| end == "txt")) {
        let text = durable::read(list)?.unwrap_or_default();
        let some: Vec<_> = text.lines().take(SAID).map(str::trim).collect();
        said = format!("{said}: {}", some.join("; "));
    }
    Err(Error::Program(format!("{} failed: {} {said}", program.display(), ended.complaint)))
}

async fn base_backup(pair: &Pair, copy: &Scratch) -> Result<(), Error> {
    let own = [folder(pair.to, &pair.old.name), copy.work.clone(), copy.work.join("run")];
    // The folders around tablespaces may be root's.
    for path in own.iter().chain(&copied(pair)?) {
        fs::create_dir_all(path).map_err(Error::local(path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(Error::local(path.display()))?;
        copy.owner.give(path)?;
    }
    let mut words: Vec<OsString> = vec!["-D".into(), copy.data.clone().into()];
    words.extend(
        ["-X", "stream", "-c", "fast", "-w", "-U", "postgres", "--create-slot", "--slot"].map(OsString::from),
    );
    words.push(Way::Up.slot(&keeper()).into());
    words.extend(socket(&pair.old));
    for place in spaces::of(&pair.old)? {
        words.push(spaces::mapping(&place, &spaces::beside(&place, pair.to, &pair.old.name)));
    }
    bound(copy.owner, &copy.work, layout::program(pair.old.version, "pg_basebackup"), words, LONG).await
}

/// Makes the slots of all databases, and gives the place at which all of them begin: that of the last one.
async fn slots(pair: &Pair, bases: &[Base]) -> Result<Lsn, Error> {
    let mut made = Vec::new();
    for base in bases {
        let session = Session::open(&pair.old, &base.name, Bounds::WORK).await?;
        let name = literal(&Way::Up.slot(base));
        let place = session
            .text(&format!("select lsn from pg_create_logical_replication_slot({name}, 'pgoutput')"))
            .await?;
        made.push((session, name, place.parse::<Lsn>().map_err(Error::Server)?));
    }
    let last = made.iter().map(|(_, _, place)| *place).max();
    let last = last.ok_or_else(|| Error::Refused("there is no database to be upgraded".to_owned()))?;
    for (session, name, _) in made.iter().filter(|(_, _, place)| *place < last) {
        let place = session
            .text(&format!("select end_lsn from pg_replication_slot_advance({name}, '{last}')"))
            .await?;
        if place.parse::<Lsn>().map_err(Error::Server)? != last {
            return Err(Error::Unclear(format!("the slot {name} stands at {place}, and not at {last}")));
        }
    }
    // On an idle server nothing would reach the place.
    if let Some((session, _, _)) = made.first() {
        replica::mark(session).await?;
    }
    Ok(last)
}

/// Has the copy recover up to the place, not beyond it, and become a server of its own; then stops it.
async fn recover(pair: &Pair, copy: &Scratch, admin: &Session, place: Lsn) -> Result<(), Error> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let source = format!(
        "host='{}' port={} user=postgres",
        quoted(&pair.old.socket.display().to_string()),
        pair.old.port
    );
    let mut settings = copy.private().collect::<Vec<_>>();
    settings.extend(copy.control().await?);
    settings.extend([
        ("primary_conninfo".to_owned(), source),
        ("primary_slot_name".to_owned(), Way::Up.slot(&keeper())),
        ("recovery_target_lsn".to_owned(), place.to_string()),
        ("recovery_target_inclusive".to_owned(), "off".to_owned()),
        ("recovery_target_action".to_owned(), "promote".to_owned()),
    ]);
    // What ALTER SYSTEM has set in the old cluster came along, and would win.
    durable::replace(&copy.data.join("postgresql.auto.conf"), "", copy.owner)?;
    configure(&copy.data, &settings, copy.owner)?;
    durable::replace(&copy.data.join("standby.signal"), "", copy.owner)?;
    let program = layout::program(copy.version, "postgres");
    let words: Vec<OsString> = vec!["-D".into(), copy.data.clone().into()];
    let mut served = exec::serve(copy.owner, &program, &words, &copy.work.join("log"))?;
    let cluster = copy.cluster();
    loop {
        if let Some(status) = served.ended()? {
            let why = copy.complaints()?;
            return Err(Error::Program(format!("the copy does not recover, {status}: {why}")));
        }
        if let Ok(session) = Session::open(&cluster, "postgres", Bounds::LOOK).await
            && !session.holds("select pg_is_in_recovery()").await?
        {
            break;
        }
        // Something has to be there that lies behind the place, whenever the recovery looks.
        replica::mark(admin).await?;
        tokio::time::sleep(LOOK).await;
    }
    let stopped = copy.evidence()?.stopping.unwrap_or_default();
    if !stopped.contains(&format!("(LSN) \"{place}\"")) {
        return Err(Error::Unclear(format!(
            "the copy did not stop at {place}, so that rows would be missing: {stopped}"
        )));
    }
    // It came along in each database, and the new cluster publishes by itself.
    let admin = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    for (_, name, _) in check::databases(&admin).await? {
        let session = Session::open(&cluster, &name, Bounds::WORK).await?;
        session.run(&format!("drop publication if exists {}", Way::Up.publication())).await?;
    }
    drop(admin);
    copy.stop(&mut served, "fast").await
}

/// The three files that a server needs, in a folder of data.
fn configure(data: &Path, settings: &[(String, String)], owner: Owner) -> Result<(), Error> {
    let text: String = settings.iter().map(|(name, value)| check::line(name, value)).collect();
    for (name, text) in [
        ("postgresql.conf", text.as_str()),
        ("pg_hba.conf", "local all postgres peer\n"),
        ("pg_ident.conf", ""),
    ] {
        durable::replace(&data.join(name), text, owner)?;
    }
    Ok(())
}

/// `pg_upgrade`, which links the files of the copy into the new cluster.
async fn bring(pair: &Pair, copy: &Scratch, new: &Cluster) -> Result<(), Error> {
    let libraries = Session::open(&pair.old, "postgres", Bounds::LOOK).await?;
    let libraries = libraries.text("select current_setting('shared_preload_libraries')").await?;
    configure(&copy.data, &[("archive_mode".to_owned(), "off".to_owned())], copy.owner)?;
    // pg_upgrade reads these in the folder of data: where the new cluster has its own there, they come back.
    let mut kept = Vec::new();
    for name in FILES {
        let own = if new.conf == new.data { durable::read(&new.conf.join(name))? } else { None };
        kept.push((name, own));
    }
    configure(&new.data, &[("shared_preload_libraries".to_owned(), libraries)], copy.owner)?;
    let folder = |version| layout::program(version, "postgres").parent().unwrap_or(Path::new("/")).to_owned();
    let mut words: Vec<OsString> = ["--link", "--jobs=2", "--username=postgres"].map(OsString::from).into();
    for (option, value) in [
        ("--old-bindir", folder(copy.version)),
        ("--new-bindir", folder(pair.to)),
        ("--old-datadir", copy.data.clone()),
        ("--new-datadir", new.data.clone()),
        ("--socketdir", copy.work.join("run")),
    ] {
        words.extend([option.into(), value.into()]);
    }
    bound(copy.owner, &copy.work, layout::program(pair.to, "pg_upgrade"), words, LONG).await?;
    for (name, own) in kept {
        match own {
            Some(text) => durable::replace(&new.data.join(name), &text, new.owner)?,
            None => durable::remove(&new.data.join(name))?,
        }
    }
    Ok(())
}

/// The places of the copy's tablespaces, which become those of the new cluster.
fn copied(pair: &Pair) -> Result<Vec<PathBuf>, Error> {
    let places = spaces::of(&pair.old)?;
    Ok(places.iter().map(|place| spaces::beside(place, pair.to, &pair.old.name)).collect())
}

/// Removes the copy, whatever there is of it.
///
/// # Errors
/// If a server still runs in it, or its folder cannot be removed.
pub async fn clear_away(pair: &Pair) -> Result<(), Error> {
    let copy = scratch(pair);
    layout::clear_folder(&copy.data, copy.version, copy.owner).await?;
    layout::remove_folder(&folder(pair.to, &pair.old.name))
}

/// Removes the places of the copy's tablespaces, when neither the copy nor the new cluster is there any more.
///
/// # Errors
/// If something of them is still there.
pub fn clear_spaces(pair: &Pair) -> Result<(), Error> {
    copied(pair)?.iter().try_for_each(|place| layout::remove_folder(place))
}

/// Drops the slot that keeps WAL for the copy.
///
/// # Errors
/// If the server does not answer.
pub async fn drop_keeper(admin: &Session) -> Result<(), Error> {
    replica::drop_slot(Way::Up, &keeper(), admin).await
}
