//! Time and chance: what `domain` is given as arguments.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::domain::ids::RunId;

/// The wall clock.
#[cfg(not(feature = "crash-points"))]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The wall clock, set as a test wishes: the file named by `HOSTLER_CLOCK_FILE` says by how many seconds.
#[cfg(feature = "crash-points")]
pub fn now() -> Timestamp {
    let ahead = wish().and_then(|(ahead, _)| ahead.parse().ok()).unwrap_or_default();
    Timestamp::now().saturating_add(jiff::SignedDuration::from_secs(ahead)).unwrap_or_default()
}

/// Whether something keeps the clock right, as far as the kernel knows. Where it may not be asked, as in some containers,
/// nothing speaks against it.
pub fn synchronised() -> bool {
    #[cfg(feature = "crash-points")]
    if let Some((_, word)) = wish() {
        return word != "unsynchronised";
    }
    kernel_says_synchronised()
}

#[cfg(feature = "crash-points")]
fn wish() -> Option<(String, String)> {
    // A test that wishes nothing has the right time, whatever the machine thinks of its clock.
    let path = std::env::var_os("HOSTLER_CLOCK_FILE")?;
    let wish = std::fs::read_to_string(path).unwrap_or_else(|_| "0 synchronised".to_owned());
    let mut words = wish.split_whitespace().map(str::to_owned);
    Some((words.next()?, words.next().unwrap_or_default()))
}

#[expect(unsafe_code, reason = "adjtimex(2), for which nix has no function")]
fn kernel_says_synchronised() -> bool {
    // SAFETY: all fields of a timex are numbers, for which zeros are valid; modes 0 only reads, into a value of ours.
    let (asked, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    asked < 0 || status & libc::STA_UNSYNC == 0
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

/// 64 random bits for ids. What is no secret and need not be unlike all others takes `fastrand`, which has 64 in all.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds each of these from the system's source of randomness and counts on.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A random share of a span: from none of it to all.
pub fn jitter(span: Duration) -> Duration {
    span.mul_f64(fastrand::f64())
}
