//! The measurement: the command in the main thread, the checks in another one until the command has ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::arguments::Arguments;
use crate::child;
use crate::tally::{Checked, Tally};

/// How often the command and the signals are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the command and checks until it has ended: its status, and what the checks said. An error, one line, if it cannot be
/// started.
pub(crate) fn measure(arguments: &Arguments) -> Result<(u8, Tally), String> {
    let mut child = child::start(&arguments.command)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let checks = scope.spawn(|| check(arguments, &ended));
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(child::code(status)),
                Ok(None) => {
                    child::hand_on(&child);
                    thread::sleep(LOOK);
                }
                Err(error) => break Err(format!("how the command ended is not known: {error}")),
            }
        };
        ended.store(true, Ordering::Relaxed);
        let tally = checks.join().map_err(|_| "the checks ended in a fault of hostler-probe".to_owned())?;
        Ok((status?, tally))
    })
}

fn check(arguments: &Arguments, ended: &AtomicBool) -> Tally {
    let begun = Instant::now();
    let wall = Timestamp::now();
    let mut tally = Tally::new(wall, arguments.every);
    let mut due = begun;
    loop {
        let start = begun.elapsed();
        let good = arguments.check.succeeds(arguments.timeout);
        tally.take(Checked { start, end: begun.elapsed(), good });
        if ended.load(Ordering::Relaxed) {
            break;
        }
        // Late checks are not made up for: they would all be asked at once.
        due = (due + arguments.every).max(Instant::now());
        while let left = due.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && !ended.load(Ordering::Relaxed)
        {
            thread::sleep(left.min(LOOK));
        }
    }
    tally.finish(begun.elapsed());
    tally
}
