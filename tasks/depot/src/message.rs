//! What is said to people: one line on standard error, answers on standard output.

use std::io::Write;

use crate::error::Error;

/// Says one line to the operator.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "hostler-depot: {line}");
}

/// Prints an answer; that nobody reads it any more is no failure.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints an answer for programs.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Local(error.to_string()))?;
    print(&text);
    Ok(())
}
