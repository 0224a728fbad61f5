//! Time and chance: what `domain` is given as arguments.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::domain::ids::RunId;

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Time since the boot, with the time that the host slept; steps of the wall clock do not change it.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A new run's id.
pub fn new_run() -> RunId {
    let millis = u64::try_from(now().as_millisecond()).unwrap_or_default();
    RunId::new(millis, u128::from(random()) << 64 | u128::from(random()))
}

/// 64 random bits, good enough for jitter and ids.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds each of these from the system's source of randomness and counts on.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A random share of a span: from none of it to all.
pub fn jitter(span: Duration) -> Duration {
    span.mul_f64(random() as f64 / u64::MAX as f64)
}
