//! The door that is the port itself: both clusters are stopped and started with each other's port.
//!
//! ```text
//!            old      new
//! before     clients  spare      clients belong to the old cluster
//! between    clients  clients    to the new one: its own port decides, in both directions
//! after      spare    clients    to the new one
//! ```
//! Each change is one line in one file, on the disk before the next. There is never a moment in which no file names the
//! clients' port, and a host that boots in between finds both servers fenced, or one of them refused its port.

use crate::check::{Finding, Severity};
use crate::error::Error;
use crate::layout::Cluster;
use crate::server::{Bounds, Session};

/// The two ports.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// That of the clients.
    pub clients: u16,
    /// The other one.
    pub spare: u16,
}

impl Ports {
    /// Whether the new cluster's configuration names the clients' port.
    ///
    /// # Errors
    /// [`Error::Unclear`] if a port was changed by somebody else.
    pub fn lead_to(self, new: &Cluster, old: &Cluster) -> Result<bool, Error> {
        let ours = |port| port == self.clients || port == self.spare;
        let neither = new.configured == self.spare && old.configured == self.spare;
        if !ours(new.configured) || !ours(old.configured) || neither {
            return Err(Error::Unclear(format!(
                "{} has port {} and {} port {}, which the upgrade did not write: give {} to the one where clients have \
                 written last, and {} to the other, in their postgresql.conf",
                old.title(),
                old.configured,
                new.title(),
                new.configured,
                self.clients,
                self.spare
            )));
        }
        Ok(new.configured == self.clients)
    }

    /// What hinders an exchange of ports.
    pub(super) async fn check(old: &Cluster) -> Result<Vec<Finding>, Error> {
        let admin = Session::open(old, "postgres", Bounds::LOOK).await?;
        let mut found = Vec::new();
        let file = old.conf.join("postgresql.conf").display().to_string();
        let places = admin
            .rows(
                "select sourcefile from pg_file_settings where name = 'port' union all \
                 select source from pg_settings where name = 'port' and source <> 'configuration file'",
            )
            .await?;
        let places: Vec<_> = places.into_iter().flatten().flatten().collect();
        if places.iter().any(|place| *place != file) || places.is_empty() {
            let what = "the port is not set in postgresql.conf alone, so the new cluster cannot take it over";
            found.push(Finding::new(Severity::Block, what, format!("it is set in: {}", places.join(", "))));
        }
        let sockets = admin.text("select current_setting('unix_socket_directories')").await?;
        if sockets.contains(',') {
            let what = "the server has sockets in several folders, and the new one would have only the first";
            found.push(Finding::new(Severity::Block, what, sockets));
        }
        let sessions = admin
            .text("select count(*) from pg_stat_activity where backend_type = 'client backend' and usename <> 'postgres'")
            .await?;
        let what = "no pgbouncer is named: every session is ended once, and its client has to come back";
        found.push(Finding::new(Severity::Know, what, format!("{sessions} sessions now")));
        Ok(found)
    }
}
