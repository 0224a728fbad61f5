//! The command line: what can be asked for, and how an answer ends.

mod archive;
mod backup;
mod health;
mod install;
mod link;
mod page;
mod restore;
mod switchover;
mod table;
mod upgrade;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::archive::fetch::STOP;
use crate::error::Error;
use crate::layout;
use crate::report;

/// PostgreSQL clusters on this host: their health, and their upgrade to a new major version
#[derive(Parser)]
#[command(name = "hostler-postgres", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what hurts in a cluster or soon will, the worst first; status 1 if something is bad
    Health(health::Health),
    /// Print what the fleet shows of all clusters: one JSON object of at most 4 KiB, within 8 s
    Fact,
    /// Store a file of WAL in the depot: the server's archive_command
    Archive(archive::Archive),
    /// Get a file of WAL from the depot: the server's restore_command; status 1 only where the archive ends, else 126
    Fetch(archive::Fetch),
    /// Back clusters up to the depot, and let go of old backups
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Restore a state of the past as a new cluster
    #[command(subcommand)]
    Restore(restore::Restore),
    /// Restore the newest backup into a scratch place, look at it, and remove it
    Drill(crate::drill::Plan),
    /// Make a new cluster by the distribution's tools
    #[command(subcommand)]
    Install(install::Install),
    /// Restart a cluster onto the installed minor version, or for settings that wait, and measure how long it is away
    Restart(crate::restart::Plan),
    /// Bring a cluster to a newer minor version: packages, and one restart that is measured
    Minor(crate::minor::Plan),
    /// Exchange a primary and its standby, as two commands on two hosts
    #[command(subcommand)]
    Switchover(switchover::Switchover),
    /// Upgrade a cluster to a new major version in place, by pg_upgrade --link: seconds of downtime, and no way back
    #[command(subcommand)]
    Link(link::Link),
    /// Upgrade a cluster to a new major version beside it
    #[command(subcommand)]
    Upgrade(upgrade::Upgrade),
}

/// The definitions of the commands, for man pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Prints an answer; that nobody reads it any more is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Local(error.to_string()))?;
    print(&text);
    Ok(())
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "fetch") {
        return fetching();
    }
    run()
}

/// As [`run`], for a server that recovers: it opens with what it has when it sees any status from 1 to 125, so that
/// nothing but the one answer may have such a status, and no panic either.
fn fetching() -> ExitCode {
    std::panic::set_hook(Box::new(|why| {
        let _ = writeln!(std::io::stderr(), "hostler-postgres: {why}");
        std::process::exit(i32::from(STOP));
    }));
    let ended = run();
    if ended == ExitCode::SUCCESS || ended == ExitCode::from(NONE) { ended } else { ExitCode::from(STOP) }
}

fn run() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| {
        let name = worked_at(&matches);
        Arguments::from_arg_matches(&matches).map(|arguments| (arguments, name))
    });
    let (arguments, name) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(until_signal(arguments, name)),
        Err(error) => Err(Error::Local(format!("no runtime: {error}"))),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let line = error.to_string();
            let _ = writeln!(std::io::stderr(), "hostler-postgres: {line}");
            if std::env::var_os("HOSTLER_REPORT").is_some() {
                report::message(&line);
            }
            ExitCode::from(error.code())
        }
    }
}

/// Between two looks whether clients are still held.
const NEAR: Duration = Duration::from_millis(10);
/// The status of [`Error::No`].
const NONE: u8 = 1;

/// Commands that work at a cluster and ask its server what is done: they wait for one that is just starting.
const WORK: [&str; 6] = ["backup", "link", "minor", "restart", "switchover", "upgrade"];

/// The name of the cluster at which the command is to work; `None`: it only looks, or makes one.
fn worked_at(matches: &ArgMatches) -> Option<String> {
    let (_, mut innermost) = matches.subcommand().filter(|(name, _)| WORK.contains(name))?;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    let given = innermost.try_get_raw("cluster").ok().flatten()?.next()?;
    given.to_str().map(str::to_owned)
}

/// `name`: of [`worked_at`].
async fn until_signal(arguments: Arguments, name: Option<String>) -> Result<ExitCode, Error> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return Err(Error::Local("no signals".to_owned()));
    };
    let run = async {
        if let Some(name) = name {
            layout::settled(&name).await;
        }
        match arguments.command {
            Command::Health(health) => health.run().await,
            Command::Fact => {
                print(crate::fact::fit::text(crate::fact::read().await).trim_end());
                Ok(())
            }
            Command::Archive(archive) => archive.run().await,
            Command::Fetch(fetch) => fetch.run().await,
            Command::Backup(backup) => backup.run().await,
            Command::Restore(restore) => restore.run().await,
            Command::Drill(plan) => crate::drill::run(&plan).await,
            Command::Install(install) => install.run().await,
            Command::Restart(plan) => crate::restart::run(&plan).await,
            Command::Minor(plan) => crate::minor::run(&plan).await,
            Command::Switchover(switchover) => switchover.run().await,
            Command::Link(link) => link.run().await,
            Command::Upgrade(upgrade) => upgrade.run().await,
        }
    };
    tokio::pin!(run);
    let mut stopped = None;
    loop {
        // While clients are held, a signal waits for the end of that, which is near.
        if let Some(status) = stopped.filter(|_| !crate::upgrade::switch::holds_clients()) {
            return Ok(ExitCode::from(status));
        }
        tokio::select! {
            done = &mut run => return done.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => stopped = Some(130),
            _ = terminate.recv() => stopped = Some(143),
            () = tokio::time::sleep(NEAR), if stopped.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_of_the_commands_hold() {
        super::command().debug_assert();
    }

    #[test]
    fn a_command_that_works_at_a_cluster_waits_for_its_server_and_one_that_looks_does_not() {
        let name = |line: &str| {
            let words = std::iter::once("hostler-postgres").chain(line.split(' '));
            super::worked_at(
                &super::command().try_get_matches_from(words).unwrap_or_else(|why| panic!("{why}")),
            )
        };
        for line in [
            "upgrade done follow --cluster main --to 15",
            "upgrade release --cluster main --to 15",
            "link undo --cluster main --to 15",
            "switchover undo --cluster main",
            "restart --cluster main",
        ] {
            assert_eq!(name(line).as_deref(), Some("main"), "{line}");
        }
        assert_eq!(name("health --cluster main"), None);
        assert_eq!(name("fact"), None);
    }
}
