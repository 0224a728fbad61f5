//! How long an answer may take: a time in which it begins, and more time for what it brings.
//!
//! One time for the whole would refuse an answer that is only large (a prefix full of large values over a slow line),
//! although it arrives; a time for each piece would let a server hold a request with a byte now and then. So each piece
//! buys time by its length, and the time that the client itself needs is not counted against the server.

use std::time::{Duration, Instant};

use tokio::time::timeout;

/// The slowest line over which an answer of any length is read, in bytes a second.
const SLOWEST: u32 = 1 << 20;

/// The time that is left for one answer.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    allowed: Duration,
}

impl Patience {
    /// The answer begins within `first`, counted from now.
    pub(super) fn new(first: Duration) -> Self {
        Self { begun: Instant::now(), allowed: first }
    }

    /// What the server does next; `None`: it did not do so in time.
    pub(super) async fn with<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        timeout(self.allowed.saturating_sub(self.begun.elapsed()), next).await.ok()
    }

    /// How long ago the request began.
    pub(super) fn begun(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The answer brought so many bytes more.
    pub(super) fn brought(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let bought = Duration::from_secs(bytes).checked_div(SLOWEST).unwrap_or_default();
        self.allowed = self.allowed.saturating_add(bought);
    }

    /// The client was busy for this long and read nothing.
    pub(super) fn own_time(&mut self, spent: Duration) {
        self.allowed = self.allowed.saturating_add(spent);
    }
}
