//! What the tests stand on: real servers, nasty servers and patience.
//!
//! Every server runs on ports that were free a moment ago, in a temporary folder, and ends with its fixture.
//! A failure here is a failure of the test: this crate panics, with a text that says what to do.

#![expect(clippy::expect_used, clippy::panic, reason = "a fixture that fails must fail its test at once")]

mod consul;
mod fake;
pub mod fleet;
mod host;
mod http;
mod hurry;
mod postgres;
mod prometheus;
mod proxy;
mod shipped;
mod tls;
mod vault;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use consul::{Consul, Options, cluster};
pub use fake::{Fake, Reply};
pub use host::{DEFAULT_TIMEOUT, Host, lives, program, signal};
pub use http::{Response, request};
pub use hurry::TimeWarp;
pub use postgres::Postgres;
pub use prometheus::{Prometheus, promtool};
pub use proxy::Proxy;
pub use shipped::{install_shipped, shipped_task};
pub use tls::Certificates;
pub use vault::{Asked, FaultMode, Held, ROLE_ID, SECRET_ID, Vault};

/// Asks `probe` again and again until it answers `Ok`; panics with its last complaint when `deadline` has
/// passed. The only place of the tests that sleeps.
#[track_caller]
pub fn eventually<T>(deadline: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() >= deadline => {
                panic!("not within {deadline:?}; the last thing seen: {last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The first port that servers of tests take; below are those that a machine's own servers like.
const FIRST_PORT: u16 = 15_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports of the loopback address that are free now, all different. Another process may take one before it
/// is used, so whoever starts a server tries again with others.
///
/// This process gets none twice: a cluster of PostgreSQL keeps its port also while it is stopped.
///
/// None of them is one that the kernel gives to connections going out: every server and every client of all tests that
/// run at the same time makes some, and one in fifty clusters of three servers would find a port taken.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let count = u64::from(u16::saturating_sub(outgoing, FIRST_PORT));
    assert!(
        count > 1000,
        "ports from {outgoing} on are for connections going out, which leaves too few for servers"
    );
    let held: [_; N] = std::array::from_fn(|_| {
        eventually(Duration::from_secs(10), || {
            let random = RandomState::new().build_hasher().finish() % count;
            let port = FIRST_PORT + u16::try_from(random).expect("less than all ports");
            let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
            if given.contains(&port) {
                return Err(format!("{port} is given away"));
            }
            let tcp = TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string())?;
            // Consul gossips on the same number by datagrams.
            let udp = UdpSocket::bind(("127.0.0.1", port)).map_err(|error| error.to_string())?;
            given.insert(port);
            Ok((port, tcp, udp))
        })
    });
    held.map(|(port, ..)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eventually_asks_until_it_holds() {
        let mut asked = 0;
        let answer = eventually(Duration::from_secs(5), || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err(format!("{asked}")) }
        });
        assert_eq!(answer, 3);
    }

    #[test]
    #[should_panic(expected = "the last thing seen: still 1")]
    fn eventually_says_what_it_saw_last() {
        eventually(Duration::ZERO, || Err::<(), _>("still 1".to_owned()));
    }
}
