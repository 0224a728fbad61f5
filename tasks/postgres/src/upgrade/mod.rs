//! The upgrade of a cluster to a new major version beside it, by logical replication, with a way back.
//!
//! ```text
//!  prepare  follow  switch  follow back  verify  finish
//!     \       \        \        |          /       /
//!      fence   replica  bouncer                        the fence, the replication, the door
//! ```
//! [`Plan`] is what an operator says; [`Pair`] is what is found on the host. How far an upgrade has come is never
//! written down: clients belong to the cluster whose port stands in pgbouncer's file, and everything else is read from
//! the servers. Until that file is turned a step can be taken back; from then on it only goes forward, or back by the
//! same switch with the roles changed.

pub mod back;
pub mod bouncer;
pub mod done;
pub mod fence;
pub mod finish;
pub mod follow;
pub mod prepare;
pub mod replica;
pub mod switch;
pub mod verify;

use std::path::PathBuf;

use crate::check::{self, Finding, Wish};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::server::{Bounds, Session};
use bouncer::Bouncer;
use replica::Way;

/// What is upgraded, and how clients come in.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = name)]
    cluster: String,
    /// The new major version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(14..100))]
    pub to: u16,
    /// Port of the new cluster
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    #[command(flatten)]
    bouncer: Bouncer,
}

/// Names that systemd's units and the names of files can carry.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("a name of a-z, 0-9 and _".to_owned());
    }
    Ok(text.to_owned())
}

/// A database that is replicated.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its object identifier on the old cluster.
    pub oid: String,
    /// Its name.
    pub name: String,
    /// Its size on the old cluster, in bytes.
    pub bytes: u64,
}

/// The clusters of an upgrade.
pub struct Pair {
    /// The one that is left.
    pub old: Cluster,
    /// The one that is made, once it is there.
    pub new: Option<Cluster>,
    /// The port of the new one.
    pub port: u16,
    /// The new one's version.
    pub to: u16,
    /// Where clients come in.
    pub bouncer: Bouncer,
}

/// One database on both clusters.
pub struct Ends {
    /// The database.
    pub base: Base,
    /// On the old cluster.
    pub old: Session,
    /// On the new cluster.
    pub new: Session,
}

impl Ends {
    /// Publisher and subscriber of a way.
    pub fn of(&self, way: Way) -> (&Session, &Session) {
        match way {
            Way::Up => (&self.old, &self.new),
            Way::Back => (&self.new, &self.old),
        }
    }
}

impl Plan {
    /// Finds the clusters on this host.
    ///
    /// # Errors
    /// If there is no older cluster of this name, or several.
    pub async fn resolve(&self) -> Result<Pair, Error> {
        let named: Vec<_> =
            layout::clusters().await?.into_iter().filter(|cluster| cluster.name == self.cluster).collect();
        let (mut older, newer): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|cluster| cluster.version < self.to);
        if older.len() > 1 {
            let titles: Vec<_> = older.iter().map(Cluster::title).collect();
            return Err(Error::Refused(format!(
                "there are {}: rename or drop the older ones",
                titles.join(", ")
            )));
        }
        let old = older.pop().ok_or_else(|| {
            Error::Missing(format!(
                "there is no cluster {} of a version from 13 to before {}: see pg_lsclusters",
                self.cluster, self.to
            ))
        })?;
        let new = newer.into_iter().find(|cluster| cluster.version == self.to);
        Ok(Pair { old, new, port: self.port, to: self.to, bouncer: self.bouncer.clone() })
    }
}

impl Pair {
    /// Everything that the upgrade would meet.
    ///
    /// # Errors
    /// If a question cannot be answered.
    pub async fn check(&self) -> Result<Vec<Finding>, Error> {
        let wish = Wish {
            old: &self.old,
            to: self.to,
            port: self.port,
            prepared: self.mine()?,
            bouncer: &self.bouncer,
        };
        check::all(&wish).await
    }

    /// The file that says that the new cluster is this program's work: it is on the disk before the cluster is begun,
    /// and goes with it.
    fn intent(&self) -> PathBuf {
        durable::state().join(format!("{}-{}", self.to, self.old.name))
    }

    /// Whether the new cluster, whole or half, is this program's work.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn mine(&self) -> Result<bool, Error> {
        Ok(durable::read(&self.intent())?.is_some())
    }

    /// The new cluster.
    ///
    /// # Errors
    /// If it does not exist, or was made by somebody else.
    pub fn made(&self) -> Result<&Cluster, Error> {
        if !self.mine()? {
            return Err(Error::Refused(format!(
                "{}/{} was not made by this upgrade: begin with `upgrade prepare`",
                self.to, self.old.name
            )));
        }
        self.new.as_ref().ok_or_else(|| {
            Error::Missing(format!(
                "there is no cluster {}/{}: begin with `upgrade prepare`",
                self.to, self.old.name
            ))
        })
    }

    /// Whether clients belong to the new cluster.
    ///
    /// # Errors
    /// [`Error::Unclear`] if pgbouncer's file does not say.
    pub fn switched(&self) -> Result<bool, Error> {
        let port = self.new.as_ref().map_or(self.port, |new| new.port);
        self.bouncer.leads_to(port, self.old.port)
    }

    /// Both ends of each database that is replicated, the connections open.
    ///
    /// # Errors
    /// If a server does not answer.
    pub async fn ends(&self) -> Result<Vec<Ends>, Error> {
        let new = self.made()?;
        let admin = Session::open(&self.old, "postgres", Bounds::LOOK).await?;
        let mut ends = Vec::new();
        for (oid, name, bytes) in check::databases(&admin).await? {
            let old = Session::open(&self.old, &name, Bounds::WORK).await?;
            let on_new = Session::open(new, &name, Bounds::WORK).await?;
            ends.push(Ends { base: Base { oid, name, bytes }, old, new: on_new });
        }
        Ok(ends)
    }
}
