//! `hostler-probe`: runs a command, repeats a check until it has ended, and reports for how long there was no success.
//!
//! ```text
//!  main thread:   CMD ......................... its status -> report -> the same status
//!                  | signals are handed on        |
//!  check thread:  CHECK  CHECK  CHECK  CHECK ...   ends with it
//!                     \______ tally ______/
//! ```
//!
//! The tally is pure: from the start, end and success of each check to the interruptions. Each check has a time-out.

mod arguments;
mod checks;
mod child;
mod measure;
mod tally;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub use arguments::command;
use arguments::{Arguments, Parsed};
use tally::Tally;

/// The program's name in its messages.
const NAME: &str = "hostler-probe";
/// A command that cannot be found or started, as shells say it.
const NOT_STARTED: u8 = 127;
/// A wrong command line.
const USAGE: u8 = 2;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match arguments::parse(std::env::args_os()) {
        Parsed::Run(arguments) => run(&arguments),
        Parsed::Said(error) => {
            // Help and versions are no errors, and go to standard output.
            let _ = error.print();
            if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS }
        }
        Parsed::Wrong(why) => {
            say(&format!("{why}; see {NAME} --help"));
            USAGE.into()
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let (status, tally) = match measure::measure(arguments) {
        Ok(measured) => measured,
        Err(why) => {
            say(&why);
            return NOT_STARTED.into();
        }
    };
    if let Err(error) = report(&arguments.service, &tally) {
        // The command has done what it has done.
        say(&format!("the downtime of {} is not reported: {error}", arguments.service));
    }
    status.into()
}

fn report(service: &str, tally: &Tally) -> std::io::Result<()> {
    let line = format!("{}\n", tally.line(service));
    match std::env::var_os("HOSTLER_REPORT").filter(|path| !path.is_empty()) {
        Some(path) => OpenOptions::new().append(true).open(Path::new(&path))?.write_all(line.as_bytes()),
        None => std::io::stdout().write_all(line.as_bytes()),
    }
}

fn say(text: &str) {
    // Nobody may read it.
    let _ = writeln!(std::io::stderr(), "{NAME}: {text}");
}
