//! What the host itself reported before: read once, before this agent decides anything or writes over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Agent, Event};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::host::clock;
use crate::report::document::{self, OrderReport};
use crate::report::own::Own;
use crate::report::writer;

/// The run that each order's report names; none where the report cannot be read, as after a downgrade.
pub(super) type Past = BTreeMap<Name, Option<RunId>>;

/// The first pause after trouble with the store; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Agent {
    /// Asks the store until it answers; the answer comes as an event.
    pub(super) fn read_past(&self) {
        let (store, prefix) = (Arc::clone(&self.store), self.settings.keys.order_reports(&self.host));
        self.send(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                match store.list(&prefix).await {
                    Ok(listing) => {
                        let named = listing.entries.iter().filter_map(|entry| {
                            let order: Name = entry.key.strip_prefix(&prefix)?.parse().ok()?;
                            match document::read::<OrderReport>(&entry.value) {
                                Ok(report) => Some((order, Some(report.run?))),
                                Err(error) => {
                                    tracing::warn!(order = %order, "its report says nothing: {error}");
                                    Some((order, None))
                                }
                            }
                        });
                        return Event::Past(named.collect());
                    }
                    Err(error) => tracing::debug!("the host's own reports are not read yet: {error}"),
                }
                // Hosts that were started together in an outage must not come back as one.
                sleep(pause / 2 + clock::jitter(pause / 2)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// From now on decisions are made, and reports are written.
    pub(super) fn begin_reports(&mut self, past: Past) {
        let (rivals, told) = watch::channel(None);
        self.rivals = told;
        let own = Own {
            id: self.who.id.clone(),
            boot: self.boot.clone(),
            doubtful: self.who.differs.is_some(),
            rivals,
            wrote: false,
        };
        let (store, keys) = (Arc::clone(&self.store), self.settings.keys.clone());
        tokio::spawn(writer::write(
            store,
            keys,
            self.host.clone(),
            own,
            self.texts.clone(),
            self.wanted.subscribe(),
            self.reported.clone(),
        ));
        self.past = Some(past);
    }
}
