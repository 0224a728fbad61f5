//! What the host itself reported before: read once, before this agent decides anything or writes over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Agent, Event};
use crate::domain::audit::Entry;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::state::LedgerState;
use crate::host::{clock, machine};
use crate::ledger::audit::{AuditError, contradicts};
use crate::report::agent_key::AgentKey;
use crate::report::document::{self, Author, OrderReport};
use crate::report::writer::{self, Signals, Writing};
use crate::store::{Read, StoreError, portions};

/// The run that each order's report names; none where the report cannot be read, as after a downgrade.
pub(super) type PriorReports = BTreeMap<Name, Option<RunId>>;

/// The first pause after trouble with the store; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

impl Agent {
    /// Asks the store until it answers; the answer comes as an event.
    pub(super) fn read_prior_reports(&self) {
        let (store, prefix) =
            (Arc::clone(&self.sync.store), self.config.settings.keys.order_reports(&self.identity.host));
        let own_key = self.config.settings.keys.agent_report(&self.identity.host);
        self.work.send(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let own = async { store.look(&[Read::Key(own_key.clone())]).await };
                let mut named = PriorReports::new();
                let reports = portions::read(store.as_ref(), &prefix, |entry| {
                    let order = entry.key.strip_prefix(&prefix).and_then(|order| order.parse::<Name>().ok());
                    let Some(order) = order else { return };
                    match document::read::<OrderReport>(&entry.value) {
                        Ok(report) if report.run.is_none() => {}
                        Ok(report) => drop(named.insert(order, report.run)),
                        Err(error) => {
                            tracing::warn!(order = %order, "cannot read its previous report: {error}");
                            named.insert(order, None);
                        }
                    }
                });
                match async { Ok::<_, StoreError>((reports.await?, own.await?)) }.await {
                    Ok((unread, _)) if !unread.is_empty() => {
                        let why = unread.first().map(|(_, why)| why.as_str()).unwrap_or_default();
                        tracing::error!(
                            "waiting to read the host's own reports before anything starts: {why}"
                        );
                    }
                    Ok((_, own)) => {
                        let author = own.iter().flat_map(|listing| &listing.entries).find_map(|entry| {
                            serde_json::from_slice(&entry.value)
                                .inspect_err(|error| {
                                    tracing::warn!("cannot parse the agent's previous report: {error}")
                                })
                                .ok()
                        });
                        return Event::PriorReports(named, author.unwrap_or_default());
                    }
                    Err(error) => tracing::debug!("cannot read the host's own reports yet: {error}"),
                }
                // Hosts that were started together in an outage must not come back as one.
                sleep(pause / 2 + clock::jitter(pause / 2)).await;
                pause = (pause * 2).min(MAX_BACKOFF);
            }
        });
    }

    /// From now on decisions are made, and reports are written.
    pub(super) fn start_reporting(&mut self, prior_reports: PriorReports, author: &Author) {
        self.compare_audit(&prior_reports, author);
        let (name_conflicts, told) = watch::channel(None);
        self.sync.name_conflicts = told;
        let (refused, told) = watch::channel(None);
        self.sync.refused_reports = told;
        let own = AgentKey {
            id: self.identity.who.id.clone(),
            boot: self.identity.boot.clone(),
            untrusted: self.identity.who.differs.is_some(),
            name_conflicts,
            wrote: false,
        };
        let (store, keys) = (Arc::clone(&self.sync.store), self.config.settings.keys.clone());
        tokio::spawn(writer::write(Writing {
            store,
            keys,
            host: self.identity.host.clone(),
            own,
            texts: self.output.texts.clone(),
            wanted: self.output.wanted.subscribe(),
            signals: Signals { written: self.output.reported.clone(), refused },
        }));
        self.sync.prior_reports = Some(prior_reports);
    }

    /// Holds the audit against the line that this host reported last, before a report is written over it. From a record
    /// with less nothing goes on; a host whose whole memory was put back or lost goes on, and its record names the gap.
    fn compare_audit(&mut self, prior_reports: &PriorReports, author: &Author) {
        let (same_id, same_machine) =
            (author.id == self.identity.who.id, author.machine == machine::machine_id());
        if !same_id && !same_machine {
            return;
        }
        if same_id && same_machine {
            self.output.told_before = author.updated;
        }
        let reported = &author.audit;
        self.durable.reported_audit.clone_from(reported);
        let Ok(audit) = &mut self.durable.audit else { return };
        let compared = match contradicts(&self.config.settings.state_dir, reported) {
            Ok(None) => return,
            Ok(Some(why)) => {
                let forgot =
                    self.durable.ledger.as_ref().is_ok_and(|ledger| forgets(ledger.state(), prior_reports));
                if !(same_id && same_machine) || forgot {
                    tracing::warn!(
                        "{why}; this host's state was restored or lost, so the audit continues with a gap"
                    );
                    let gap = Entry::gap(reported, "the host's state was restored, lost or adopted");
                    audit.append(vec![gap])
                } else {
                    Err(AuditError::Contradicted(why))
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = compared {
            tracing::error!("the agent starts nothing, because the audit cannot be trusted: {error}");
            self.durable.audit = Err(error);
        }
    }
}

/// Whether this host reported a newer run than any that the ledger knows: ids sort by the time of their making.
fn forgets(memory: &LedgerState, prior_reports: &PriorReports) -> bool {
    let activations =
        memory.orders.values().flat_map(|order| order.current.iter().chain(order.previous.as_deref()));
    let newest = activations.map(|activation| activation.run).max();
    prior_reports
        .values()
        .flatten()
        .max()
        .is_some_and(|reported| newest.is_none_or(|newest| newest < *reported))
}
