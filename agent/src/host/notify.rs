//! What systemd is told (`sd_notify(3)`): ready, what the agent is doing, that it is alive, that it stops.
//!
//! Without `NOTIFY_SOCKET` nobody is told, and nothing else changes.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The words to systemd; each line of status is said once.
#[derive(Debug)]
pub struct Notify {
    socket: Option<OsString>,
    ready: bool,
    status: String,
}

impl Notify {
    /// Tells whoever started this process.
    pub fn from_env() -> Self {
        Self { socket: std::env::var_os("NOTIFY_SOCKET"), ready: false, status: String::new() }
    }

    /// A line for `systemctl status`; `ready` counts once it was said.
    pub fn say(&mut self, ready: bool, status: &str) {
        if ready && !self.ready {
            self.ready = true;
            self.send("READY=1");
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            self.send(&format!("STATUS={}", status.replace('\n', " ")));
        }
    }

    /// The agent is alive: said from its loop, so that a loop that hangs is ended and started again.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The agent stops.
    pub fn stopping(&mut self) {
        self.send("STOPPING=1");
        self.say(false, "stopping; runs go on");
    }

    fn send(&self, message: &str) {
        let Some(path) = &self.socket else { return };
        let told = match path.to_str().and_then(|path| path.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                std::os::unix::net::SocketAddr::from_abstract_name(name)
                    .and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address))
            }
            None => UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path)),
        };
        if let Err(error) = told {
            tracing::warn!("systemd cannot be told: {error}");
        }
    }
}

/// How often systemd wants to hear that the agent is alive: a third of the time after which it would end it.
pub fn watchdog_interval() -> Option<Duration> {
    let var = |name| std::env::var(name).ok();
    interval(var("WATCHDOG_USEC").as_deref(), var("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    meant.then(|| Duration::from_micros(usec) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_each_status_are_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut notify = Notify { socket: Some(path.into()), ready: false, status: String::new() };
        notify.say(false, "reading");
        notify.say(false, "reading");
        notify.say(true, "watching");
        notify.say(true, "watching\n2 runs");
        notify.alive();
        notify.stopping();
        let mut heard = Vec::new();
        let mut buffer = [0; 200];
        while let Ok(length) = socket.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        assert_eq!(
            heard,
            [
                "STATUS=reading",
                "READY=1",
                "STATUS=watching",
                "STATUS=watching 2 runs",
                "WATCHDOG=1",
                "STOPPING=1",
                "STATUS=stopping; runs go on",
            ]
        );
    }

    #[test]
    fn the_watchdog_is_meant_for_this_process_or_for_nobody() {
        assert_eq!(interval(Some("180000000"), None, 7), Some(Duration::from_secs(60)));
        assert_eq!(interval(Some("3000000"), Some("7"), 7), Some(Duration::from_secs(1)));
        for (usec, pid) in [(None, None), (Some("0"), None), (Some("x"), None), (Some("3000000"), Some("8"))]
        {
            assert_eq!(interval(usec, pid, 7), None);
        }
    }
}
