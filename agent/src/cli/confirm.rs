//! The question before something is written for many hosts: their number, typed by whoever wants it.

use std::io::{IsTerminal, Write as _};

use super::Failure;
use super::exit::{Exit, fault};

/// Asks for the number of `hosts`, unless it was said already; `what` is written, and `counted` says whose number it is.
pub(super) fn confirm_number(
    what: &str,
    counted: &str,
    hosts: usize,
    confirm_hosts: Option<usize>,
) -> Result<(), Failure> {
    let not = |why: String| Err(fault(Exit::NotConfirmed, format!("{why}; nothing was written")));
    if let Some(said) = confirm_hosts {
        return if said == hosts { Ok(()) } else { not(format!("{counted} {}, not {said}", known(hosts))) };
    }
    if !std::io::stdin().is_terminal() {
        return not(format!("{counted} {}: say --confirm-hosts {hosts}", known(hosts)));
    }
    let mut screen = std::io::stderr();
    write!(screen, "{what}: {}. To confirm, type the number of hosts: ", known(hosts))?;
    screen.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == hosts.to_string() { Ok(()) } else { not("not confirmed".to_owned()) }
}

/// Asks whether what is there is to be written over; `instead`: what to do where nobody can be asked.
pub(super) fn confirm_yes(there: &str, instead: &str) -> Result<(), Failure> {
    let not = |why: &str| Err(fault(Exit::NotConfirmed, format!("{there}; nothing was written{why}")));
    if !std::io::stdin().is_terminal() {
        return not(&format!(": {instead}"));
    }
    let mut screen = std::io::stderr();
    write!(screen, "{there}. To write over it, type yes: ")?;
    screen.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { not("") }
}

fn known(hosts: usize) -> String {
    if hosts == 1 { "1 known host".to_owned() } else { format!("{hosts} known hosts") }
}
