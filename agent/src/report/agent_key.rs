//! The agent's own report: the one key in the store by which two agents under one name find one another.
//!
//! It is written over what was looked at just before, never over what somebody else wrote meanwhile. What stands there
//! and is not this agent's is another one's, and lives until the time by which it promised to say more. Each of the
//! two finds the other's report in turn, so that both say so, and neither starts anything.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::document::Author;
use crate::host::clock;
use crate::store::{Read, Store, StoreError, When};

/// Another agent under this host's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConflict {
    /// Its machine, for the operator.
    pub who: String,
    /// By then it says more, or is silent.
    pub until: Timestamp,
}

/// How often somebody else may be faster before the report has to wait for the next round.
const ATTEMPTS: u32 = 3;

/// What became of one attempt to write.
enum Attempt {
    Written,
    /// A living agent's report stands there, and this host may not be who it seems to be.
    MayNot,
    /// Somebody else wrote it between the look and the write.
    Lost,
}

/// What tells this agent's report from another's.
#[derive(Debug)]
pub struct AgentKey {
    /// The random id of the host's identity.
    pub id: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Whether this host may not be the one whose name it has: then it writes over no living agent's report.
    pub untrusted: bool,
    /// Where a rival is told of.
    pub name_conflicts: watch::Sender<Option<NameConflict>>,
    /// Whether this agent has written; before, a report of its identity under another boot is its own of that boot.
    pub wrote: bool,
}

impl AgentKey {
    /// Writes the report, if it may; whoever else writes there is told of. False: it is not written, since somebody else
    /// wrote there at every attempt, or because it may not be.
    pub(super) async fn put(
        &mut self,
        store: &Arc<dyn Store>,
        key: &str,
        json: &[u8],
    ) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(store, key, json).await? {
                Attempt::Written => return Ok(true),
                Attempt::MayNot => return Ok(false),
                // Who that was is to be known before this agent goes on.
                Attempt::Lost => {}
            }
        }
        Ok(false)
    }

    async fn attempt(
        &mut self,
        store: &Arc<dyn Store>,
        key: &str,
        json: &[u8],
    ) -> Result<Attempt, StoreError> {
        let reads = [Read::Key(key.to_owned())];
        let found = store
            .look(&reads)
            .await?
            .into_iter()
            .next()
            .and_then(|listing| listing.entries.into_iter().next());
        let index = found.as_ref().map_or(0, |entry| entry.modify_index);
        let report = found.and_then(|entry| serde_json::from_slice::<Author>(&entry.value).ok());
        let rival = report.and_then(|report| self.rival(&report, clock::now()));
        let living = rival.is_some();
        if living {
            self.name_conflicts.send_if_modified(|known| {
                let news = *known != rival;
                known.clone_from(&rival);
                news
            });
        }
        if living && self.untrusted {
            return Ok(Attempt::MayNot);
        }
        if !store.put(key, json.to_vec(), When::Unchanged(index)).await? {
            return Ok(Attempt::Lost);
        }
        self.wrote = true;
        Ok(Attempt::Written)
    }

    /// The other agent whose report this is, if it is another's and that one lives.
    fn rival(&self, report: &Author, now: Timestamp) -> Option<NameConflict> {
        let until = report.next_report_by.filter(|until| *until > now)?;
        // One machine has one boot at a time: the same boot is this host, whatever became of its identity.
        let same_boot = report.boot == self.boot;
        let own_former = report.id == self.id && !self.wrote;
        if same_boot || own_former || report.boot.is_empty() {
            return None;
        }
        Some(NameConflict { who: format!("machine {} (boot {})", report.machine, report.boot), until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_living_agent_is_a_rival_and_nothing_else_is() {
        let own = |wrote| AgentKey {
            id: "i1".into(),
            boot: "b1".into(),
            untrusted: false,
            name_conflicts: watch::channel(None).0,
            wrote,
        };
        let now = Timestamp::from_second(1000).unwrap();
        let later = Timestamp::from_second(1100).ok();
        let report = |id: &str, boot: &str, next_report_by| Author {
            id: id.into(),
            boot: boot.into(),
            next_report_by,
            ..Author::default()
        };
        // (id, boot, next_report_by, this agent has written, a rival)
        let rows = [
            ("i1", "b1", later, true, false),
            ("i1", "b0", later, false, false), // before the reboot
            ("i1", "b2", later, true, true),   // a cloned disk
            ("i2", "b2", later, false, true),  // another host of this name
            ("i2", "b2", later, true, true),
            ("i2", "b2", Some(now), true, false), // silent
            ("i2", "b2", None, true, false),
            ("i2", "b1", later, false, false), // the state folder was lost
            ("", "", later, false, false),     // nobody's
        ];
        for (id, boot, next_report_by, wrote, rival) in rows {
            let found = own(wrote).rival(&report(id, boot, next_report_by), now);
            assert_eq!(found.is_some(), rival, "{id} {boot} {next_report_by:?} {wrote}");
        }
    }
}
