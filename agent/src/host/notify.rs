//! What systemd is told: ready, and what the agent is doing (`sd_notify(3)`).

use std::os::unix::net::UnixDatagram;

/// Says once that the agent is ready.
#[derive(Debug, Default)]
pub struct Ready {
    said: bool,
}

impl Ready {
    /// Ready, with a line for `systemctl status`. Without systemd nobody is told.
    pub fn say(&mut self, status: &str) {
        if !std::mem::replace(&mut self.said, true) {
            send(&format!("READY=1\nSTATUS={status}"));
        }
    }
}

fn send(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
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
