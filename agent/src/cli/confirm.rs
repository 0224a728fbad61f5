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
    ask_yes(there, "To write over it", "written", instead)
}

/// Asks whether what is there is to be removed.
pub(super) fn confirm_removal(there: &str) -> Result<(), Failure> {
    ask_yes(there, "To remove them", "removed", "say --yes")
}

fn ask_yes(there: &str, act: &str, done: &str, instead: &str) -> Result<(), Failure> {
    let not = |why: &str| Err(fault(Exit::NotConfirmed, format!("{there}; nothing was {done}{why}")));
    if !std::io::stdin().is_terminal() {
        return not(&format!(": {instead}"));
    }
    let mut screen = std::io::stderr();
    write!(screen, "{there}. {act}, type yes: ")?;
    screen.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { not("") }
}

fn known(hosts: usize) -> String {
    if hosts == 1 { "1 known host".to_owned() } else { format!("{hosts} known hosts") }
}
