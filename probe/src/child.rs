//! The command that is carried out: its start, the signals that are handed on to it, its status.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

/// The signal that came last and was not handed on yet; 0: none.
static PENDING: AtomicI32 = AtomicI32::new(0);

extern "C" fn remember(signal: i32) {
    PENDING.store(signal, Ordering::Relaxed);
}

/// From now on signals that would end this process are kept for the command.
#[expect(
    unsafe_code,
    reason = "the standard library has no handlers; this one stores a number, which is safe in a handler"
)]
fn keep_signals() -> Result<(), String> {
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // A handler does not pass an exec: the command has the defaults again.
        unsafe { sigaction(signal, &action) }
            .map_err(|error| format!("{signal} cannot be handled: {error}"))?;
    }
    Ok(())
}

/// Starts the command; an error is one line.
pub(crate) fn start(words: &[OsString]) -> Result<Child, String> {
    keep_signals()?;
    let (name, arguments) = words.split_first().ok_or("there is no command")?;
    Command::new(name)
        .args(arguments)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", name.to_string_lossy()))
}

/// Hands a signal on that has come since the last call.
pub(crate) fn hand_on(child: &Child) {
    let signal = Signal::try_from(PENDING.swap(0, Ordering::Relaxed));
    if let (Ok(signal), Ok(pid)) = (signal, i32::try_from(child.id())) {
        // It was not waited for yet, so the number is its own.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The status as shells say it: its own, or 128 and the number of its signal.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let by_signal = || 128 + status.signal().unwrap_or_default();
    u8::try_from(status.code().unwrap_or_else(by_signal)).unwrap_or(u8::MAX)
}
