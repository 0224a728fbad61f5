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
use crate::layout::Cluster;
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

/// Puts the fence up and ends every session of a client.
///
/// # Errors
/// If clients are still there after 5 s: they log in as `postgres`, which the fence lets in.
pub async fn raise(cluster: &Cluster, admin: &Session) -> Result<(), Error> {
    if !is_up(cluster)? {
        let text = durable::read(&cluster.hba())?;
        let text =
            text.ok_or_else(|| Error::Missing(format!("{} does not exist", cluster.hba().display())))?;
        durable::replace(&kept(cluster), &text, cluster.owner)?;
        durable::replace(&cluster.hba(), &self::text(), cluster.owner)?;
    }
    here(CrashPoint::FenceWritten);
    reload(cluster, admin).await?;
    clear(admin).await
}

/// Ends sessions of clients until none is found twice in a row.
///
/// # Errors
/// As [`raise`].
pub async fn clear(admin: &Session) -> Result<(), Error> {
    let begun = Instant::now();
    let statement = format!(
        "select count(pg_terminate_backend(pid)), coalesce(min(usename), '') from pg_stat_activity \
         where {CLIENTS}'{APPLICATION}')"
    );
    let mut none = 0;
    while none < 2 {
        let rows = admin.rows(&statement).await?;
        let row = rows.first().map(Vec::as_slice);
        let Some([Some(count), Some(role)]) = row else {
            return Err(Error::Server("the sessions cannot be counted".to_owned()));
        };
        none = if count == "0" { none + 1 } else { 0 };
        if begun.elapsed() > CLEAR {
            return Err(Error::Refused(format!("clients come back through the fence as {role}: stop them")));
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
    reload(cluster, admin).await
}

/// Has the server read its files, and waits until whoever logs in from now on is judged by them: a new session inherits
/// what the postmaster has read.
async fn reload(cluster: &Cluster, admin: &Session) -> Result<(), Error> {
    let begun = Instant::now();
    let time = "select extract(epoch from pg_conf_load_time())";
    let fresh = async || Session::open(cluster, "postgres", Bounds::LOOK).await?.text(time).await;
    let before = fresh().await?;
    admin.run("select pg_reload_conf()").await?;
    while fresh().await? == before {
        if begun.elapsed() > CLEAR {
            return Err(Error::Server(format!("{} does not read its configuration again", cluster.title())));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
