//! The question before something is written for many hosts: their number, typed by whoever wants it.

use std::io::{IsTerminal, Write as _};

use super::Failure;
use super::exit::{Exit, fault};

/// Asks for the number of `hosts`, unless it was said already; `what` is written for `place`.
pub(super) fn confirm_number(
    what: &str,
    place: &str,
    hosts: usize,
    confirm_hosts: Option<usize>,
) -> Result<(), Failure> {
    let not = |why: String| Err(fault(Exit::NotConfirmed, format!("{why}; nothing was written")));
    if let Some(said) = confirm_hosts {
        return if said == hosts {
            Ok(())
        } else {
            not(format!("{place} has {hosts} known hosts, not {said}"))
        };
    }
    if !std::io::stdin().is_terminal() {
        return not(format!("{place} has {hosts} known hosts: say --confirm-hosts {hosts}"));
    }
    let mut screen = std::io::stderr();
    write!(screen, "{what}: {hosts} known hosts. To confirm, type the number of hosts: ")?;
    screen.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == hosts.to_string() { Ok(()) } else { not("not confirmed".to_owned()) }
}
