//! `hostler host`: a host that gets another name, or goes for good, as the store sees it.

mod rename;
mod retire;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Failure;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Remove a host that is gone: its orders, controls, reports and its enrolment.
    Retire(retire::Arguments),
    /// Enroll a host under its new name, with the groups, orders and the freeze of the former one.
    Rename(rename::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.verb {
        Verb::Retire(arguments) => retire::run(arguments),
        Verb::Rename(arguments) => rename::run(arguments),
    }
}
