//! The command line: what can be asked for, and how an answer ends.

mod backup;
mod care;
mod change;
mod check;
mod media;
mod replicate;
mod restore;
mod setup;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use jiff::Timestamp;

use crate::backup::Run;
use crate::discover;
use crate::error::Error;
use crate::explain;
use crate::fact;
use crate::neighbours::hdbsql::Key;
use crate::power;
use crate::report;
use crate::runner::{Runner, StopSignals};
use crate::secret::Secrets;
use crate::system::{Number, Sid, System, numbers};

/// Looks at, installs, updates and backs up SAP HANA systems with SAP's own tools
#[derive(Parser)]
#[command(name = "hostler-hana", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Options {
    /// Name of the system, such as HDB
    #[arg(long, global = true)]
    sid: Option<Sid>,
    /// Instance number [default: that of the only folder HDBNN of the system]
    #[arg(long, global = true, value_name = "NN")]
    number: Option<Number>,
    /// Key in the user store of <sid>adm that logs on to SYSTEMDB
    #[arg(long, global = true, default_value = "HOSTLER")]
    key: Key,
    /// Shared folder of all systems
    #[arg(long, global = true, value_name = "FOLDER", default_value = "/hana/shared")]
    sapmnt: PathBuf,
    /// Name of this host, as HANA knows it [default: the host's name up to the first dot]
    #[arg(long, global = true, value_name = "NAME", value_parser = change::word)]
    hostname: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// A folder in the place of /, below which programs run as this one does
    #[arg(long, global = true, value_name = "FOLDER", hide = true, default_value = "/")]
    root: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Look at host, media and system, and say what forbids a change; changes nothing
    Check(check::Check),
    /// Make data backups of SYSTEMDB and tenants, each once for a run, and find them in HANA's catalog
    Backup(backup::Backup),
    /// Back up data, logs and catalogs through hostler-depot from now on, proved by a backup of SYSTEMDB
    BackupSetup(setup::BackupSetup),
    /// Extract SAP's archive into the folder of the media, or look at such a folder; a repetition changes nothing
    Media(media::MediaArguments),
    /// Set parameters, make tenants and their keys, each only where it is not as wanted
    Configure(care::Configure),
    /// Install the system with hdblcm of the media, if nothing of it is here; a repetition changes nothing
    Install(change::Install),
    /// Update the system in place with hdblcm of the new media; goes on where one was interrupted
    Update(change::Update),
    /// Restore databases to an instant, from Backint or files; a repetition of the same run goes on
    Restore(restore::Restore),
    /// Restore the newest backup of a tenant into a scratch tenant, count, and remove it again
    Drill(restore::DrillArguments),
    /// Start the instance and wait until all processes run
    Start {
        /// Change nothing: ask whether all processes run
        #[arg(long)]
        probe: bool,
    },
    /// Stop the instance and wait until nothing of it runs
    Stop {
        /// Change nothing: ask whether all processes are stopped
        #[arg(long)]
        probe: bool,
    },
    /// Delete backups that are too old, with their logs; never what a kept backup needs
    Housekeeping(care::HousekeepingArguments),
    /// Make the running system the primary of a replication
    Enable(replicate::Enable),
    /// Make this secondary the primary, after its primary was asked and suspended
    Takeover(replicate::Takeover),
    /// Make this system a secondary of a primary that rules, and start it
    Register(replicate::Register),
    /// Put a key into the user store of <sid>adm, and log on with it
    Key(care::KeyArguments),
    /// Set the password of a database user and its key to a new secret
    Rotate(care::Rotate),
    /// Print each command line that a task would use here, with secrets as names
    Explain {
        /// The task
        task: explain::Task,
    },
    /// Print what the fleet shows of the system, as JSON; without --sid of all systems of this host
    Fact,
}

/// The definitions of the commands, for man pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Says one line to the operator.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "hostler-hana: {line}");
}

/// Prints an answer; that nobody reads it any more is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::Local(error.to_string()))?;
    print(&text);
    Ok(())
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(said(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            // Whether the fleet hears of it too changes nothing of how it ends.
            let _ = report::message(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

/// The arguments without those such as `--number=`: a task passes on what its order says, and nothing is as not said.
fn said(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.filter(|argument| {
        let bytes = argument.as_encoded_bytes();
        !(bytes.starts_with(b"--") && bytes.iter().position(|byte| *byte == b'=') == Some(bytes.len() - 1))
    })
}

impl Options {
    /// The system. `assumed`: the number where neither an option nor a folder says it.
    fn system(&self, assumed: Option<Number>) -> Result<System, Error> {
        let sid = self.sid.clone().ok_or_else(|| Error::Config("say --sid, such as --sid HDB".to_owned()))?;
        if !self.root.is_absolute() || !self.sapmnt.is_absolute() {
            return Err(Error::Config("write --sapmnt as an absolute path".to_owned()));
        }
        let number = match (self.number, numbers(&self.root, &sid)?.as_slice()) {
            (Some(number), _) => number,
            (None, [number]) => *number,
            (None, []) => assumed.ok_or_else(|| {
                Error::Config(format!("/usr/sap/{} has no folder HDBNN: say --number NN", sid))
            })?,
            (None, several) => {
                let several: Vec<_> = several.iter().map(Number::to_string).collect();
                return Err(Error::Config(format!(
                    "{} has the instances {}: say --number NN",
                    sid,
                    several.join(", ")
                )));
            }
        };
        Ok(System { sid, number, root: self.root.clone(), sapmnt: self.sapmnt.clone() })
    }

    fn runner(&self, assumed: Option<Number>) -> Result<Runner, Error> {
        Ok(Runner::new(self.system(assumed)?, self.secrets(), Some(StopSignals::catch()?)))
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(std::env::var_os("HOSTLER_SECRETS").map(PathBuf::from))
    }

    fn hostname(&self) -> Result<String, Error> {
        if let Some(name) = &self.hostname {
            return Ok(name.clone());
        }
        let name =
            nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        match name.split('.').next() {
            Some(short) if !short.is_empty() => Ok(short.to_owned()),
            _ => Err(Error::Config("this host has no name: say --hostname".to_owned())),
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let options = &arguments.options;
    match arguments.command {
        Command::Check(check) => check.run(options),
        Command::Backup(backup) => backup.run(options),
        Command::BackupSetup(setup) => setup.run(options),
        Command::Media(media) => media.run(options),
        Command::Configure(configure) => configure.run(options),
        Command::Install(install) => install.run(options),
        Command::Update(update) => update.run(options),
        Command::Start { probe } => switch(&options.runner(None)?, true, probe),
        Command::Stop { probe } => switch(&options.runner(None)?, false, probe),
        Command::Restore(restore) => restore.run(options),
        Command::Drill(drill) => drill.run(options),
        Command::Housekeeping(housekeeping) => housekeeping.run(options),
        Command::Enable(enable) => enable.run(options),
        Command::Takeover(takeover) => takeover.run(options),
        Command::Register(register) => register.run(options),
        Command::Key(key) => key.run(options),
        Command::Rotate(rotate) => rotate.run(options),
        Command::Explain { task } => {
            let first = "00".parse().map_err(Error::Config)?;
            let system = options.system(Some(first))?;
            let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            let name = name.unwrap_or_else(|| "localhost".to_owned());
            let calls = explain::calls(task, &system, &options.key, &name, Timestamp::now());
            print(&explain::text(&system, &calls));
            Ok(())
        }
        Command::Fact => show_fact(options),
    }
}

fn show_fact(options: &Options) -> Result<(), Error> {
    if options.sid.is_some() {
        return print_json(&fact::of_system(options.runner(None)?, &options.key));
    }
    let signals = StopSignals::catch()?;
    let runner = |sid, number| {
        let system = System { sid, number, root: options.root.clone(), sapmnt: options.sapmnt.clone() };
        Runner::new(system, options.secrets(), Some(signals.clone()))
    };
    print(&fact::of_host(discover::systems(&options.root), &options.key, runner));
    Ok(())
}

fn switch(runner: &Runner, on: bool, probe: bool) -> Result<(), Error> {
    match (probe, on) {
        (true, _) if power::is(runner, on)? => Ok(()),
        (true, true) => Err(Error::No("not all processes run".to_owned())),
        (true, false) => Err(Error::No("not all processes are stopped".to_owned())),
        (false, true) => power::start(runner),
        (false, false) => power::stop(runner),
    }
}

/// A flag that a task gives a value, `--flag=true`, and a person gives none.
const BOOL: std::ops::RangeInclusive<usize> = 0..=1;

/// The id of the run that a command belongs to.
fn run_id(run: Option<Run>) -> Result<Run, Error> {
    run.ok_or_else(|| {
        Error::Config("say --run ID, the same one again when you repeat the command".to_owned())
    })
}

/// Reads times such as `90s`, `15m`, `36h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 90s, 15m, 36h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_without_its_value_is_not_said() {
        let words = ["x", "--number=", "--sid=HDB", "--json", "--", "=", "--to=a=", "", "--=", "check"];
        let left: Vec<_> = said(words.into_iter().map(OsString::from)).collect();
        assert_eq!(left, ["x", "--sid=HDB", "--json", "--", "=", "--to=a=", "", "check"].map(OsString::from));
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("36h", 129_600), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in ["", "s", "5", "-5s", "1.5h", "5w", "5 s", "ä"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
