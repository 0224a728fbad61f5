//! What systemd is told (`sd_notify(3)`): ready, what the agent is doing, that it is alive, that it stops.
//!
//! Without `NOTIFY_SOCKET` nobody is told, and nothing else changes.

use std::time::Duration;

use sd_notify::NotifyState;

/// The words to systemd; each line of status is said once.
#[derive(Debug, Default)]
pub struct Notify {
    ready: bool,
    status: String,
}

impl Notify {
    /// Tells whoever started this process.
    pub fn from_env() -> Self {
        Self::default()
    }

    /// A line for `systemctl status`; `ready` counts once it was said.
    pub fn say(&mut self, ready: bool, status: &str) {
        if ready && !self.ready {
            self.ready = true;
            send(&NotifyState::Ready);
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            send(&NotifyState::Status(&status.replace('\n', " ")));
        }
    }

    /// The agent is alive: said from its loop, so that a loop that hangs is ended and started again.
    pub fn alive(&self) {
        send(&NotifyState::Watchdog);
    }

    /// The agent stops.
    pub fn stopping(&mut self) {
        send(&NotifyState::Stopping);
        self.say(false, "stopping; runs go on");
    }
}

fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

/// How often systemd wants to hear that the agent is alive: a third of the time after which it would end it.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 3).filter(|every| !every.is_zero())
}
