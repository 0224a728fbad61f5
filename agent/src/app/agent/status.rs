//! The one line that `systemctl status` shows: which phase the agent is in.
//!
//! The first thing that keeps it from its work is what it says; without any, what it does.

use super::Agent;
use crate::host::clock;

/// What systemd shows is one line; a longer one is of no use there.
const LONGEST: usize = 200;

impl Agent {
    /// The line, and whether the agent is ready: its ledger is read, and the store has answered or was found away.
    pub(super) fn tell_systemd(&mut self) {
        let ready = self.sights.iter().all(super::sights::Sight::has_answer);
        let status = crate::domain::text::head(&self.status(ready), LONGEST);
        self.notify.say(ready, &status);
    }

    fn status(&self, ready: bool) -> String {
        let store = self.settings.store_word();
        if let Err(error) = &self.ledger {
            return format!("safe mode, nothing is started: {error}");
        }
        if let Some(error) = &self.ledger_full {
            return format!("the ledger cannot be written, nothing is started: {error}");
        }
        let runs = match self.runs.count() {
            0 => String::new(),
            1 => "; 1 run goes on".to_owned(),
            count => format!("; {count} runs go on"),
        };
        if self.rebooting {
            return format!("rebooting the host for a run{runs}");
        }
        if let Some(why) = self.barred(clock::now()) {
            return format!("nothing new starts: {why}{runs}");
        }
        if !ready {
            return format!("waiting for the first answer of {store}{runs}");
        }
        match self.sights.iter().find_map(super::sights::Sight::condition) {
            Some(_) if self.sighted.away => format!("{store} cannot be reached, nothing new starts{runs}"),
            Some(condition) => format!("nothing new starts: {condition}{runs}"),
            None => format!("watching {store} for orders of {}{runs}", self.host),
        }
    }
}
