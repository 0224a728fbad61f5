//! The commands: one file each.

mod agent;
mod dev;
mod executor;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Carries out orders from Consul on this host, each once, and reports the result.
#[derive(Parser)]
#[command(name = "hostler", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this host (systemd does this).
    Agent(agent::Arguments),
    /// Try Hostler here and now: an agent on a folder, with an order for the task hello.
    Dev(dev::Arguments),
    /// Carry out one epoch of a run; started by the agent only.
    #[command(hide = true)]
    Executor(executor::Arguments),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Executor(arguments) => executor::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hostler: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a command that failed says: one line.
type Failure = Box<dyn std::error::Error>;

/// A runtime of one thread; blocking work goes to others.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}

/// The environment, as the configuration reads it.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Logs to standard error, without the time that the journal adds itself.
fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(std::env::var("HOSTLER_LOG").unwrap_or_else(|_| format!("warn,hostler={level}")))
        .unwrap_or_default();
    let plain = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_target(false);
    // A second call, in a test, changes nothing.
    let _ = plain.with_ansi(false).with_writer(std::io::stderr).try_init();
}
