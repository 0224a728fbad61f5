//! The one line that `systemctl status` shows: which phase the agent is in.
//!
//! The first thing that keeps it from its work is what it says; without any, what it does.

use super::Agent;
use super::watches::StoreSync;
use crate::host::clock;

/// What systemd shows is one line; a longer one is of no use there.
const MAX_LEN: usize = 200;

impl StoreSync {
    /// Whether the store has answered, or was found not to.
    pub(super) fn knows_store(&self) -> bool {
        self.watches.iter().all(super::watches::PrefixWatch::has_answer)
    }
}

impl Agent {
    /// The line, and whether the agent is ready: its ledger is read, and the store has answered or was found away.
    pub(super) fn tell_systemd(&mut self) {
        let status = crate::domain::text::head(&self.status(), MAX_LEN);
        self.output.notify.say(self.sync.knows_store(), &status);
    }

    /// What the agent does, in a line.
    pub(super) fn status(&self) -> String {
        let runs = match self.run_table.runs.count() {
            0 => String::new(),
            1 => "; 1 run goes on".to_owned(),
            count => format!("; {count} runs go on"),
        };
        match self.obstacle() {
            Some(why) => format!("{why}{runs}"),
            None => {
                let frozen: Vec<String> = self.freezes(clock::now()).map(ToString::to_string).collect();
                let frozen = match &*frozen {
                    [] => String::new(),
                    frozen => format!("; frozen by the freeze of {}", frozen.join(" and ")),
                };
                format!(
                    "watching {} for orders of {}{frozen}{runs}",
                    self.config.settings.store_word(),
                    self.identity.host
                )
            }
        }
    }

    /// What keeps anything new from starting; `None`: this host takes orders.
    pub(super) fn obstacle(&self) -> Option<String> {
        let store = self.config.settings.store_word();
        if let Err(error) = &self.durable.ledger {
            return Some(format!("safe mode, the agent starts nothing: {error}"));
        }
        if let Some(why) = self.run_table.runs.newer() {
            return Some(format!("safe mode, nothing new is started: {why}"));
        }
        if let Err(error) = &self.durable.audit {
            return Some(format!("the audit cannot be kept, nothing is started: {error}"));
        }
        if let Some(error) = &self.durable.ledger_full {
            return Some(format!("the ledger cannot be written, nothing is started: {error}"));
        }
        if self.run_table.rebooting {
            return Some("rebooting the host for a run".to_owned());
        }
        if let Some(why) = self.start_block(clock::now()) {
            return Some(format!("nothing new starts: {why}"));
        }
        match self.sync.watches.iter().find_map(super::watches::PrefixWatch::condition) {
            _ if !self.sync.knows_store() => Some(format!("waiting for the first answer of {store}")),
            Some(_) if self.sync.status.away => {
                Some(format!("{store} cannot be reached, nothing new starts"))
            }
            Some(condition) => Some(format!("nothing new starts: {}", condition.text)),
            None if self.sync.prior_reports.is_none() => {
                Some(format!("waiting for the host's own reports in {store}"))
            }
            None => None,
        }
    }
}
