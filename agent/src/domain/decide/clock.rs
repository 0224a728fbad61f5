//! Whether what depends on the time of day may rest on this host's clock.

use super::view::{Clock, View};
use super::wait::{Reason, Wait};

/// Why the clock does not count, with the cure. It says the same as long as nothing changes: a report follows from it.
pub(super) fn clock_untrusted(view: &View<'_>) -> Option<Wait> {
    let (until, detail) = match (view.clock, view.memory.newest) {
        (Clock::Unsynchronised, _) => (
            None,
            "the clock is not synchronised, according to the kernel: check the time service, or configure `clock: trusted`"
                .to_owned(),
        ),
        (Clock::Synchronised, Some(newest)) if newest > view.now => (
            Some(newest),
            format!(
                "the clock is behind {newest:.0}, which the ledger knows: set it, or configure `clock: trusted` if it is \
                 right"
            ),
        ),
        (Clock::Synchronised | Clock::Trusted, _) => return None,
    };
    Some(Wait { detail: Some(detail), ..Wait::new(Reason::Clock, until) })
}
