//! Backint.
use std::ffi::OsString;
use std::process::ExitCode;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {}

/// Spelling.
pub fn spelled(arguments: Vec<OsString>) -> Vec<OsString> {
    arguments
}

/// Main.
pub async fn main(_options: &crate::config::Options, _arguments: &Arguments) -> ExitCode {
    ExitCode::from(2)
}
