//! What the host says to an upgrade: programs, room, port, libraries, and the settings that the new version takes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Severity, Wish};
use crate::error::Error;
use crate::exec::{self, Owner};
use crate::layout;
use crate::server::Session;
use crate::upgrade::fence;

/// Over how long the rate of WAL is measured.
const RATE: Duration = Duration::from_secs(1);
/// Bytes a second that a copy makes at least, on a slow disk.
const COPY: u64 = 20 << 20;
/// Settings that belong to one cluster, or to its archive, and are not carried over, beside those of its places.
const OWN: [&str; 7] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "primary_conninfo",
    "primary_slot_name",
];

/// The settings of a cluster's files that a new cluster is given, each with its value as it is written there.
///
/// # Errors
/// If the server does not answer.
pub async fn carried(admin: &Session) -> Result<Vec<(String, String)>, Error> {
    let rows = admin
        .rows("select distinct on (name) name, setting from pg_file_settings where error is null order by name, seqno desc")
        .await?;
    let mut settings = Vec::new();
    for row in rows {
        if let [Some(name), Some(value)] = row.as_slice() {
            let own = OWN.contains(&name.as_str())
                || layout::PLACES.contains(&name.as_str())
                || name.starts_with("recovery_target")
                || name == "stats_temp_directory";
            if !own {
                settings.push((name.clone(), value.clone()));
            }
        }
    }
    Ok(settings)
}

/// A setting as a line of a configuration file.
pub(crate) fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Those settings that a version does not take, by asking its server, which is not started for it.
///
/// # Errors
/// If it cannot be asked.
pub async fn refused_settings(
    owner: Owner,
    to: u16,
    settings: &[(String, String)],
) -> Result<Vec<String>, Error> {
    let folder = tempfile::tempdir().map_err(Error::local("a temporary folder"))?;
    owner.give(folder.path())?;
    let file = folder.path().join("postgresql.conf");
    let server = layout::program(to, "postgres");
    let within = Duration::from_secs(30);
    let (mut refused, mut to_ask) = (Vec::new(), vec![settings]);
    // All at once, and where that is not taken each half by itself.
    while let Some(some) = to_ask.pop() {
        let Some((name, _)) = some.first() else { continue };
        let text: String = some.iter().map(|(name, value)| line(name, value)).collect();
        std::fs::write(&file, text).map_err(Error::local(file.display()))?;
        owner.give(&file)?;
        let words: [&std::ffi::OsStr; 4] =
            ["-D".as_ref(), folder.path().as_ref(), "-C".as_ref(), name.as_ref()];
        let ended = exec::run(Some(owner), &server, &words, within).await?;
        if ended.status == Some(0) {
            continue;
        }
        if some.len() == 1 {
            refused.push(name.clone());
        } else {
            let (first, second) = some.split_at(some.len() / 2);
            to_ask.extend([second, first]);
        }
    }
    Ok(refused)
}

/// All findings of the host.
pub(super) async fn all(
    wish: &Wish<'_>,
    admin: &Session,
    databases: &[(String, String, u64)],
    extensions: &[String],
) -> Result<Vec<Finding>, Error> {
    let (old, to) = (wish.old, wish.to);
    let mut found = Vec::new();
    if !fence::governs(old, admin).await? {
        let what = "the server goes by another file than its own pg_hba.conf, so clients cannot be shut out";
        let file = admin.text("select current_setting('hba_file')").await?;
        found.push(Finding::new(Severity::Block, what, file));
    }
    let mut block = |what: String, example: String| found.push(Finding::new(Severity::Block, what, example));
    let usable = layout::installed(to);
    if !usable {
        block(format!("version {to} is not installed: install postgresql-{to}"), String::new());
    }
    if !wish.prepared {
        let list = layout::list().await?;
        if list.clusters.iter().any(|cluster| cluster.version == to && cluster.name == old.name) {
            block(
                "the new cluster exists already and was not made by this upgrade: rename or drop it"
                    .to_owned(),
                format!("{to}/{}", old.name),
            );
        }
        let taken = list.at_port(wish.port);
        let taken = taken.or_else(|| match TcpListener::bind(("127.0.0.1", wish.port)) {
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        });
        if let Some(taken) = taken {
            block(format!("port {} is taken: choose another", wish.port), taken);
        }
        let bytes: u64 = databases.iter().map(|(_, _, size)| *size).sum();
        room(wish, bytes, &mut block)?;
        let waiting = wal_room(wish, admin, bytes).await?;
        if let Some(example) = waiting {
            block(
                "too little room for the WAL that the old cluster keeps during the copy".to_owned(),
                example,
            );
        }
    }
    if usable {
        for name in extensions.iter().filter(|name| !layout::has_extension(to, name)) {
            block(
                format!("extension that is not installed for version {to}: install its package"),
                name.clone(),
            );
        }
        let libraries = admin.text("select current_setting('shared_preload_libraries')").await?;
        for name in libraries.split(',').map(|name| name.trim().trim_matches('"')) {
            if !name.is_empty() && !layout::has_library(to, name) {
                block(
                    format!("preloaded library that is not installed for version {to}: install its package"),
                    name.to_owned(),
                );
            }
        }
        let settings = carried(admin).await?;
        for name in refused_settings(old.owner, to, &settings).await? {
            let what = format!("setting that version {to} does not take: it is left out");
            found.push(Finding::new(Severity::Do, what, name));
        }
    }
    Ok(found)
}

/// The nearest folder above that exists.
fn existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        match path.parent() {
            Some(parent) => path = parent,
            None => break,
        }
    }
    path.to_owned()
}

/// Bytes that are free where a path is, or will be.
pub(crate) fn free(path: &Path) -> Result<u64, Error> {
    let path = existing(path);
    let status = nix::sys::statvfs::statvfs(&path)
        .map_err(|error| Error::Local(format!("{}: {error}", path.display())))?;
    Ok(status.blocks_available().saturating_mul(status.fragment_size()))
}

fn room(wish: &Wish<'_>, bytes: u64, block: &mut impl FnMut(String, String)) -> Result<(), Error> {
    let data = layout::data(wish.to, &wish.old.name);
    let (needed, free) = (bytes / 5 * 6 + (1 << 28), free(&data)?);
    if free < needed {
        let example = format!("{} MiB free at {}, {} MiB needed", free >> 20, data.display(), needed >> 20);
        block("too little room for the new cluster".to_owned(), example);
    }
    Ok(())
}

/// `None` if there is room for twice the WAL of the copy's time, at the present rate.
async fn wal_room(wish: &Wish<'_>, admin: &Session, bytes: u64) -> Result<Option<String>, Error> {
    if admin.holds("select pg_is_in_recovery()").await? {
        // Refused as a standby.
        return Ok(None);
    }
    let place = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    let at =
        |text: String| text.parse::<u64>().map_err(|_| Error::Server(format!("no place in the WAL: {text}")));
    let before = at(admin.text(place).await?)?;
    tokio::time::sleep(RATE).await;
    let rate = at(admin.text(place).await?)?.saturating_sub(before) / RATE.as_secs().max(1);
    let seconds = bytes / COPY + 60;
    let needed = rate.saturating_mul(seconds).saturating_mul(2);
    let free = free(&wish.old.data.join("pg_wal"))?;
    Ok((free < needed).then(|| {
        format!("{} MiB free, {} KiB of WAL a second for {seconds} s, twice", free >> 20, rate >> 10)
    }))
}
