//! The door through which clients come in, and the line of a file that says to which cluster it leads: **the one truth
//! of an upgrade**. It is changed by one rename; everything before can be taken back, and everything after only goes
//! forward.
//!
//! | door | the line | clients |
//! | --- | --- | --- |
//! | a pgbouncer | `port=` in its file of databases | are held, and see no error |
//! | the port itself | `port` of the new cluster | lose their sessions once, and come back at the same port |

use std::net::TcpListener;

use super::bouncer::Bouncer;
use super::ports::Ports;
use crate::check::Finding;
use crate::error::Error;
use crate::layout::{Cluster, List};

/// A door.
#[derive(Clone, Debug)]
pub enum Door {
    /// A pgbouncer in front of both clusters.
    Bouncer {
        /// Where it is.
        bouncer: Bouncer,
        /// Port of the new cluster.
        spare: u16,
    },
    /// The port of the old cluster, which the new one takes over.
    Ports(Ports),
}

/// A port that no cluster of this host has, and nobody listens at.
///
/// # Errors
/// If there is none.
pub fn free_port(list: &List) -> Result<u16, Error> {
    let named = |port: u16| {
        list.at_port(port).is_some() || list.clusters.iter().any(|cluster| cluster.configured == port)
    };
    let mut ports = 5433..6400;
    let port = ports.find(|port| !named(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok());
    port.ok_or_else(|| Error::Missing("no port from 5433 to 6399 is free: say --port".to_owned()))
}

impl Door {
    /// The door of a plan.
    pub fn new(bouncer: &Bouncer, clients: u16, spare: u16) -> Self {
        if bouncer.is_named() {
            Self::Bouncer { bouncer: bouncer.clone(), spare }
        } else {
            Self::Ports(Ports { clients, spare })
        }
    }

    /// Whether it is a pgbouncer.
    pub fn is_bouncer(&self) -> bool {
        matches!(self, Self::Bouncer { .. })
    }

    /// The port of the new cluster before the switch.
    pub fn spare(&self) -> u16 {
        match self {
            Self::Bouncer { spare, .. } | Self::Ports(Ports { spare, .. }) => *spare,
        }
    }

    /// Whether clients belong to the new cluster rather than to the old one.
    ///
    /// # Errors
    /// [`Error::Unclear`] if that is not said.
    pub fn leads_to(&self, new: &Cluster, old: &Cluster) -> Result<bool, Error> {
        match self {
            Self::Bouncer { bouncer, .. } => bouncer.leads_to(new.configured, old.configured),
            Self::Ports(ports) => ports.lead_to(new, old),
        }
    }

    /// What an upgrade of this cluster has to know of its door.
    ///
    /// # Errors
    /// If a question cannot be answered.
    pub async fn check(&self, old: &Cluster) -> Result<Vec<Finding>, Error> {
        match self {
            Self::Bouncer { bouncer, .. } => bouncer.check(old).await,
            Self::Ports(_) => Ports::check(old).await,
        }
    }

    /// Whether nobody is held in it, and it leads to the server of this cluster.
    ///
    /// # Errors
    /// If that cannot be asked.
    pub async fn flows(&self, side: &Cluster) -> Result<bool, Error> {
        match self {
            Self::Bouncer { bouncer, .. } => bouncer.flows(side.configured).await,
            Self::Ports(ports) => Ok(side.running && side.port == ports.clients),
        }
    }
}
