//! The fence around a cluster that clients must not reach: its `pg_hba.conf`, replaced.
//!
//! A file holds across a crash of everything: a server that comes up again comes up fenced. The fence lets in the role
//! `postgres` by the socket, which is this program and the subscriptions between the two clusters. The file that was
//! there is kept beside it, and put back when the cluster is opened.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::server::{APPLICATION, Bounds, Session};

/// The first line of a fence.
const MARK: &str = "# Fenced by hostler-postgres. The file that belongs here is pg_hba.conf.hostler.\n";
/// Who passes.
const FENCE: &str = "local all postgres peer\nlocal all all reject\nhost all all all reject\n\
    local replication all reject\nhost replication all all reject\n";
/// How long clients may take to be gone.
const CLEAR: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Sessions that are not ours.
const CLIENTS: &str = "backend_type = 'client backend' and not (usename = 'postgres' and application_name = ";

/// The text of a fence.
pub fn text() -> String {
    format!("{MARK}{FENCE}")
}

/// Where the file is kept that belongs in the fence's place.
pub fn kept(cluster: &Cluster) -> PathBuf {
    cluster.conf.join("pg_hba.conf.hostler")
}

/// Whether the fence is up.
///
/// # Errors
/// If the file cannot be read.
pub fn is_up(cluster: &Cluster) -> Result<bool, Error> {
    let text = durable::read(&cluster.hba())?;
    Ok(text.is_some_and(|text| text.starts_with(MARK)))
}

/// Puts the fence up and ends every session of a client; none can begin when this returns.
///
/// # Errors
/// If the server does not go by this file, or clients are still there after 5 s: they log in as `postgres`, which the
/// fence lets in.
pub async fn raise(cluster: &Cluster, admin: &Session) -> Result<(), Error> {
    if !governs(cluster, admin).await? {
        return Err(Error::Refused(format!(
            "{} goes by another file than {}: no fence",
            cluster.title(),
            cluster.hba().display()
        )));
    }
    if !is_up(cluster)? {
        let text = durable::read(&cluster.hba())?;
        let text =
            text.ok_or_else(|| Error::Missing(format!("{} does not exist", cluster.hba().display())))?;
        durable::replace(&kept(cluster), &text, cluster.owner)?;
        durable::replace(&cluster.hba(), &self::text(), cluster.owner)?;
    }
    here(CrashPoint::FenceWritten);
    let before = loaded(cluster).await?;
    reload(cluster, admin, &before).await?;
    clear(cluster, admin).await
}

/// Whether the server goes by the file that a fence replaces.
///
/// # Errors
/// If it does not answer.
pub async fn governs(cluster: &Cluster, admin: &Session) -> Result<bool, Error> {
    let file = PathBuf::from(admin.text("select current_setting('hba_file')").await?);
    let real = |path: PathBuf| std::fs::canonicalize(path).ok();
    Ok(real(file).is_some_and(|file| Some(file) == real(cluster.hba())))
}

/// Ends sessions of clients until none is found twice in a row. Who has begun to log in before the fence came up is
/// judged by the old rules however long that takes, and no list of sessions has him: these processes are ended as such.
async fn clear(cluster: &Cluster, admin: &Session) -> Result<(), Error> {
    let begun = Instant::now();
    let earlier = layout::doorkeepers(cluster)?;
    let statement = format!(
        "select pid, case when {CLIENTS}'{APPLICATION}') then usename end, \
         case when {CLIENTS}'{APPLICATION}') then pg_terminate_backend(pid) end from pg_stat_activity"
    );
    let mut none = 0;
    while none < 2 {
        let (mut sessions, mut client) = (Vec::new(), None);
        for row in admin.rows(&statement).await? {
            if let [Some(pid), role, _] = row.as_slice() {
                sessions.extend(pid.parse::<u32>());
                client = client.or_else(|| role.clone());
            }
        }
        let still = layout::doorkeepers(cluster)?;
        let hidden =
            earlier.iter().filter(|keeper| still.contains(keeper) && !sessions.contains(&keeper.pid));
        let hidden: Vec<_> = hidden.collect();
        for keeper in &hidden {
            keeper.end()?;
        }
        none = if client.is_none() && hidden.is_empty() { none + 1 } else { 0 };
        if begun.elapsed() > CLEAR {
            let who =
                client.map_or_else(|| "a login that does not end".to_owned(), |role| format!("role {role}"));
            return Err(Error::Refused(format!("clients come back through the fence: {who}: stop them")));
        }
        if none < 2 {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Takes the fence away; clients can log in when this returns.
///
/// # Errors
/// [`Error::Unclear`] if the file that belongs there was lost.
pub async fn lower(cluster: &Cluster, admin: &Session) -> Result<(), Error> {
    if is_up(cluster)? {
        let text = durable::read(&kept(cluster))?.ok_or_else(|| {
            Error::Unclear(format!(
                "{} is lost: write {} anew",
                kept(cluster).display(),
                cluster.hba().display()
            ))
        })?;
        durable::replace(&cluster.hba(), &text, cluster.owner)?;
    }
    // Who lowers it has logged in a moment ago, so that one more login need not be waited for.
    let before = admin.text(LOADED).await?;
    reload(cluster, admin, &before).await
}

/// When a session, or the server at its begin, has read the configuration.
const LOADED: &str = "select extract(epoch from pg_conf_load_time())";

/// When the server has read its configuration: a new session inherits that.
async fn loaded(cluster: &Cluster) -> Result<String, Error> {
    Session::open(cluster, "postgres", Bounds::LOOK).await?.text(LOADED).await
}

/// Has the server read its files, and waits until whoever logs in from now on is judged by them.
async fn reload(cluster: &Cluster, admin: &Session, before: &str) -> Result<(), Error> {
    let begun = Instant::now();
    admin.run("select pg_reload_conf()").await?;
    while loaded(cluster).await? == before {
        if begun.elapsed() > CLEAR {
            return Err(Error::Server(format!("{} does not read its configuration again", cluster.title())));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
