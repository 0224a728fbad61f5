//! The upgrade of a cluster to a new major version beside it, by logical replication, with a way back.
//!
//! ```text
//!  prepare  follow  switch  follow back  verify  finish
//!     \       \        \        |          /       /
//!      intent  fence  replica  door
//!                              /  \
//!                        bouncer   ports                 the door: where clients come in
//! ```
//! [`Plan`] is what an operator says; [`Pair`] is what is found on the host. How far an upgrade has come is never
//! written down: clients belong to the cluster to which the door leads, which is one line of one file (pgbouncer's, or
//! the new cluster's own port), and everything else is read from the servers. Until that line is changed a step can be
//! taken back; from then on it only goes forward, or back by the same switch with the roles changed.

pub mod back;
pub mod bouncer;
pub mod copy;
pub mod done;
pub mod door;
pub mod fence;
pub mod finish;
pub mod follow;
pub mod forecast;
pub mod intent;
pub mod link;
pub mod lock;
pub mod ports;
pub mod prepare;
pub mod replica;
pub mod switch;
pub mod verify;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::reach::Required;
use crate::check::{self, Finding, Wish};
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session};
use bouncer::Bouncer;
use door::Door;
use intent::Intent;
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
    /// Port of the new cluster; where there is no pgbouncer, until the switch, and of the old one from then on
    /// [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The longest time for which a switch may hold clients before it lets them go where they were
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(4..=300))]
    max_hold: u16,
    /// How the rows come to the new cluster: `auto` is `standby` from 200 GB on
    #[arg(long, value_enum, default_value = "auto")]
    method: Wanted,
    #[command(flatten)]
    bouncer: Bouncer,
    #[command(flatten)]
    backup: Required,
}

/// How the rows come to the new cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Table by table, by the subscriptions.
    #[default]
    Logical,
    /// By a standby that is upgraded.
    Standby,
}

/// How they are wanted to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// By the size of the databases
    Auto,
    /// Table by table, which makes all files and indexes anew
    Logical,
    /// As a copy of all files, which pg_upgrade brings to the new version
    Standby,
}

/// From this size on `auto` copies files, in bytes.
const LARGE: u64 = 200_000_000_000;

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
    /// What was written down before the new one was begun.
    pub intent: Option<Intent>,
    /// The new one's version.
    pub to: u16,
    /// Where clients come in.
    pub door: Door,
    /// How long clients may be held.
    pub max_hold: Duration,
    plan: Plan,
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
    /// If there is no older cluster of this name, or several, or an upgrade was begun by other words.
    pub async fn resolve(&self) -> Result<Pair, Error> {
        let all = layout::list().await?;
        let named = all.named(&self.cluster)?.into_iter();
        let (mut older, newer): (Vec<_>, Vec<_>) = named.partition(|cluster| cluster.version < self.to);
        if older.len() > 1 {
            let titles: Vec<_> = older.iter().map(Cluster::title).collect();
            return Err(Error::Refused(format!(
                "there are {}: rename or drop the older ones",
                titles.join(", ")
            )));
        }
        let old = older.pop().ok_or_else(|| {
            Error::Missing(format!(
                "there is no cluster {} of a version from 13 to before {}: see {}",
                self.cluster,
                self.to,
                layout::lister()
            ))
        })?;
        let new = newer.into_iter().find(|cluster| cluster.version == self.to);
        let intent = Intent::read(self.to, &self.cluster)?;
        let spare = match (&intent, self.port) {
            (Some(intent), Some(port)) if intent.spare != port => {
                return Err(Error::Refused(format!(
                    "the upgrade was begun with --port {}: say that, or nothing",
                    intent.spare
                )));
            }
            (Some(intent), _) => intent.spare,
            (None, Some(port)) => port,
            (None, None) => door::free_port(&all)?,
        };
        let clients = intent.as_ref().map_or(old.configured, |intent| intent.clients);
        let door = Door::new(&self.bouncer, clients, spare);
        if let Some(intent) = intent.as_ref().filter(|intent| intent.bouncer != door.is_bouncer()) {
            return Err(Error::Refused(format!(
                "the upgrade was begun {} --bouncer-file: go on so",
                if intent.bouncer { "with" } else { "without" }
            )));
        }
        let max_hold = Duration::from_secs(u64::from(self.max_hold));
        Ok(Pair { old, new, intent, to: self.to, door, max_hold, plan: self.clone() })
    }
}

impl Pair {
    /// The same clusters as they are now.
    ///
    /// # Errors
    /// As [`Plan::resolve`].
    pub async fn again(&self) -> Result<Self, Error> {
        self.plan.resolve().await
    }

    /// What was asked for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Says for how long clients were held, from this instant on: it is downtime of the cluster, whichever version serves.
    pub(super) fn report_held(&self, from: jiff::Timestamp, held: Duration) {
        report::output("held_seconds", (held.as_secs_f64() * 1000.0).round() / 1000.0);
        report::downtime(&format!("postgres:{}", self.plan.cluster), from, held);
    }

    /// How the rows come, or have come, to the new cluster.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn method(&self, admin: &Session) -> Result<Method, Error> {
        if let Some(intent) = &self.intent {
            return Ok(intent.method);
        }
        Ok(match self.plan.method {
            Wanted::Logical => Method::Logical,
            Wanted::Standby => Method::Standby,
            Wanted::Auto => {
                let bytes: u64 = check::databases(admin).await?.iter().map(|(_, _, bytes)| *bytes).sum();
                if bytes < LARGE { Method::Logical } else { Method::Standby }
            }
        })
    }

    /// Everything that the upgrade would meet.
    ///
    /// # Errors
    /// If a question cannot be answered.
    pub async fn check(&self) -> Result<Vec<Finding>, Error> {
        let wish = Wish {
            old: &self.old,
            to: self.to,
            port: self.door.spare(),
            prepared: self.mine(),
            door: &self.door,
            method: self.method(&Session::open(&self.old, "postgres", Bounds::LOOK).await?).await?,
        };
        let mut findings = check::all(&wish).await?;
        if !self.mine() {
            findings.extend(self.plan.backup.check(&self.old).await?);
            findings.sort_unstable();
        }
        Ok(findings)
    }

    /// Whether the new cluster, whole or half, is this program's work.
    pub fn mine(&self) -> bool {
        self.intent.is_some()
    }

    /// The new cluster.
    ///
    /// # Errors
    /// If it does not exist, or was made by somebody else.
    pub fn made(&self) -> Result<&Cluster, Error> {
        if !self.mine() {
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
    /// [`Error::Unclear`] if the door does not say.
    pub fn switched(&self) -> Result<bool, Error> {
        match &self.new {
            Some(new) if self.mine() => self.door.leads_to(new, &self.old),
            _ => Ok(false),
        }
    }

    /// The cluster to which clients belong, and the other one.
    ///
    /// # Errors
    /// As [`Pair::switched`].
    pub fn sides(&self) -> Result<(&Cluster, Option<&Cluster>), Error> {
        Ok(match &self.new {
            Some(new) if self.switched()? => (new, Some(&self.old)),
            new => (&self.old, new.as_ref().filter(|_| self.mine())),
        })
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
