//! The command line: what can be asked for, and how an answer ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::backup::{self, Backups, Made, Run, To, What};
use crate::check::{self, Before, Wish};
use crate::error::Error;
use crate::explain;
use crate::fact;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdbsql::Key;
use crate::runner::{Runner, StopSignals};
use crate::secret::Secrets;
use crate::system::{Number, Sid, System, numbers};

/// Reads, explains and backs up SAP HANA systems with SAP's own tools
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
    #[arg(long, global = true, default_value = "HDB")]
    sid: Sid,
    /// Instance number [default: that of the only folder HDBNN of the system]
    #[arg(long, global = true, value_name = "NN")]
    number: Option<Number>,
    /// Key in the user store of <sid>adm that logs on to SYSTEMDB
    #[arg(long, global = true, default_value = "HOSTLER")]
    key: Key,
    /// Shared folder of all systems
    #[arg(long, global = true, value_name = "FOLDER", default_value = "/hana/shared")]
    sapmnt: PathBuf,
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
    Check(Check),
    /// Make data backups of SYSTEMDB and tenants, each once for a run, and find them in HANA's catalog
    Backup(Backup),
    /// Print each command line that a task would use here, with secrets as names
    Explain {
        /// The task
        task: explain::Task,
    },
    /// Print what the fleet shows of the system, as JSON
    Fact,
}

#[derive(clap::Args)]
struct Check {
    /// The change that comes next: the exit code is 1 when something forbids it
    #[arg(long)]
    before: Option<Before>,
    /// Folder into which the media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: Option<PathBuf>,
    /// How old the newest complete backup of a database may be before an update or a takeover
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    require_backup: Duration,
    /// Pacemaker's resources are in maintenance
    #[arg(long)]
    cluster_in_maintenance: bool,
}

#[derive(clap::Args)]
struct Backup {
    /// A database; may be given several times [default: SYSTEMDB and every active tenant]
    #[arg(long, value_name = "NAME")]
    database: Vec<Database>,
    /// What is saved
    #[arg(long, default_value = "complete")]
    what: What,
    /// Where it goes
    #[arg(long, default_value = "backint")]
    to: To,
    /// Id of the run that makes it: its backups have it in their comment
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
    /// How long the backup of one database may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "20h")]
    timeout: Duration,
    /// Make nothing: ask whether the catalog has the backups of this run
    #[arg(long)]
    done: bool,
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
    let arguments = match Arguments::try_parse() {
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
            ExitCode::from(error.code())
        }
    }
}

impl Options {
    /// The system. `assumed`: the number where neither an option nor a folder says it.
    fn system(&self, assumed: Option<Number>) -> Result<System, Error> {
        if !self.root.is_absolute() || !self.sapmnt.is_absolute() {
            return Err(Error::Config("write --sapmnt as an absolute path".to_owned()));
        }
        let number = match (self.number, numbers(&self.root, &self.sid)?.as_slice()) {
            (Some(number), _) => number,
            (None, [number]) => *number,
            (None, []) => assumed.ok_or_else(|| {
                Error::Config(format!("/usr/sap/{} has no folder HDBNN: say --number NN", self.sid))
            })?,
            (None, several) => {
                let several: Vec<_> = several.iter().map(Number::to_string).collect();
                return Err(Error::Config(format!(
                    "{} has the instances {}: say --number NN",
                    self.sid,
                    several.join(", ")
                )));
            }
        };
        Ok(System { sid: self.sid.clone(), number, root: self.root.clone(), sapmnt: self.sapmnt.clone() })
    }

    fn runner(&self, assumed: Option<Number>) -> Result<Runner, Error> {
        let secrets = Secrets::new(std::env::var_os("HOSTLER_SECRETS").map(PathBuf::from));
        Ok(Runner::new(self.system(assumed)?, secrets, Some(StopSignals::catch()?)))
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let options = &arguments.options;
    match arguments.command {
        Command::Check(check) => check.run(options),
        Command::Backup(backup) => backup.run(options),
        Command::Explain { task } => {
            let first = "00".parse().map_err(Error::Config)?;
            let system = options.system(Some(first))?;
            let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            let name = name.unwrap_or_else(|| "localhost".to_owned());
            let calls = explain::calls(task, &system, &options.key, &name, Timestamp::now());
            print(&explain::text(&system, &calls));
            Ok(())
        }
        Command::Fact => {
            let runner = options.runner(None)?;
            let wish = Wish { media: None, key: options.key.clone(), age: Duration::ZERO };
            print_json(&fact::fact(&check::gather(&runner, &wish)?))
        }
    }
}

impl Check {
    fn run(self, options: &Options) -> Result<(), Error> {
        // Before an installation nothing says the number.
        let runner = options.runner(None)?;
        let wish = Wish { media: self.media, key: options.key.clone(), age: self.require_backup };
        let seen = check::gather(&runner, &wish)?;
        let findings = check::judge(&seen, self.before, self.require_backup, self.cluster_in_maintenance);
        let forbidden = check::forbidden(&findings);
        if options.json {
            let system = runner.system();
            print_json(&json!({
                "sid": system.sid, "number": system.number, "before": self.before, "forbidden": forbidden,
                "findings": findings,
            }))?;
        } else {
            print(&check::table(&findings));
        }
        let first = findings.first().filter(|_| forbidden);
        match first {
            None => Ok(()),
            Some(first) => Err(Error::No(format!("{}: {}", first.subject, first.understood))),
        }
    }
}

impl Backup {
    fn run(self, options: &Options) -> Result<(), Error> {
        let run = self.run.ok_or_else(|| {
            Error::Config("say --run ID, the same one again when you repeat the command".to_owned())
        })?;
        let runner = options.runner(None)?;
        let wish = backup::Wish {
            key: options.key.clone(),
            databases: self.database,
            what: self.what,
            to: self.to,
            run,
            timeout: self.timeout,
        };
        let backups = Backups::new(&runner, &wish);
        let begun = Instant::now();
        let made = if self.done { backups.done()? } else { backups.make()? };
        if !self.done {
            report(&made, begun.elapsed())?;
        }
        if options.json {
            return print_json(&json!({"backups": made}));
        }
        for Made { database, id, parts, bytes } in &made {
            print(&format!("{:<20} {id} {parts} parts {bytes} bytes", database.as_str()));
        }
        Ok(())
    }
}

/// Appends the outputs of a step for the fleet, where an agent asks for them.
fn report(made: &[Made], took: Duration) -> Result<(), Error> {
    let Some(path) = std::env::var_os("HOSTLER_REPORT") else { return Ok(()) };
    let ids: Vec<_> = made.iter().map(|made| format!("{}:{}", made.database.as_str(), made.id)).collect();
    let bytes = made.iter().map(|made| made.bytes).fold(0, u64::saturating_add);
    let output = json!({"backup_ids": ids.join(" "), "bytes": bytes, "seconds": took.as_secs()});
    let line = format!("{}\n", json!({"output": output}));
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(Error::local(path.to_string_lossy()))
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
