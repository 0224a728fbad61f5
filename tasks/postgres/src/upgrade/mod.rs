//! The upgrade of a cluster to a new major version beside it: what an operator says of it, and what it would meet.
//!
//! [`Plan`] is what an operator says; [`Pair`] is what is found on the host.

pub mod bouncer;

use crate::check::{self, Finding, Wish};
use crate::error::Error;
use crate::layout::{self, Cluster};
use bouncer::Bouncer;

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
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("a name of a-z, 0-9 and _".to_owned());
    }
    Ok(text.to_owned())
}

/// The clusters of an upgrade.
pub struct Pair {
    /// The one that is left.
    pub old: Cluster,
    /// The port of the new one.
    pub port: u16,
    /// The new one's version.
    pub to: u16,
    /// Where clients come in.
    pub bouncer: Bouncer,
}

impl Plan {
    /// Finds the clusters on this host.
    ///
    /// # Errors
    /// If there is no older cluster of this name, or several.
    pub async fn resolve(&self) -> Result<Pair, Error> {
        let mut older: Vec<_> = layout::clusters()
            .await?
            .into_iter()
            .filter(|cluster| cluster.name == self.cluster && cluster.version < self.to)
            .collect();
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
        Ok(Pair { old, port: self.port, to: self.to, bouncer: self.bouncer.clone() })
    }
}

impl Pair {
    /// Everything that the upgrade would meet.
    ///
    /// # Errors
    /// If a question cannot be answered.
    pub async fn check(&self) -> Result<Vec<Finding>, Error> {
        let wish = Wish { old: &self.old, to: self.to, port: self.port, bouncer: &self.bouncer };
        check::all(&wish).await
    }
}
