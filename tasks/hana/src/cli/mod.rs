//! The command line: what can be asked for, and how an answer ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::backup::{self, Backups, Made, Run, To, What};
use crate::change::{self, Step, Terms};
use crate::check::{self, Before, Observed, Wish};
use crate::error::Error;
use crate::explain;
use crate::fact;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdblcm::{Choices, Part};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media::Media;
use crate::runner::{Runner, StopSignals};
use crate::secret::Secrets;
use crate::system::{Number, Sid, System, Version, numbers};

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
    /// Install the system with hdblcm of the media, if nothing of it is here; a repetition changes nothing
    Install(Install),
    /// Update the system in place with hdblcm of the new media; goes on where one was interrupted
    Update(Update),
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

#[derive(clap::Args)]
struct Install {
    /// Folder into which the media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: PathBuf,
    /// Components, separated by commas [default: server,client]
    #[arg(long, value_name = "LIST", value_parser = word)]
    components: Option<String>,
    /// Folder of the data volumes [default: hdblcm's]
    #[arg(long, value_name = "FOLDER", value_parser = word)]
    data: Option<String>,
    /// Folder of the log volumes [default: hdblcm's]
    #[arg(long, value_name = "FOLDER", value_parser = word)]
    log: Option<String>,
    /// Name of the host for HANA [default: hdblcm's]
    #[arg(long, value_name = "NAME", value_parser = word)]
    hostname: Option<String>,
    /// What the system is for [default: hdblcm's]
    #[arg(long, value_parser = ["production", "test", "development", "custom"])]
    usage: Option<String>,
    /// Number of the user <sid>adm [default: hdblcm's]
    #[arg(long)]
    uid: Option<u32>,
    /// Number of the group sapsys [default: hdblcm's]
    #[arg(long)]
    gid: Option<u32>,
    /// Change nothing: ask whether the version of the media is installed, whole and running
    #[arg(long)]
    probe: bool,
}

#[derive(clap::Args)]
struct Update {
    /// Folder into which the new media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: PathBuf,
    /// Only do what needs no downtime
    #[arg(long, conflicts_with = "no_start")]
    prepare: bool,
    /// Leave the system stopped: for a former primary that will be registered as a secondary
    #[arg(long)]
    no_start: bool,
    /// How old the newest complete backup of a database may be
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    require_backup: Duration,
    /// Pacemaker's resources are in maintenance
    #[arg(long)]
    cluster_in_maintenance: bool,
    /// Change nothing: ask whether the version of the media is installed, whole and running
    #[arg(long)]
    probe: bool,
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
        let secrets = Secrets::new(std::env::var_os("HOSTLER_SECRETS").map(PathBuf::from));
        Ok(Runner::new(self.system(assumed)?, secrets, Some(StopSignals::catch()?)))
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let options = &arguments.options;
    match arguments.command {
        Command::Check(check) => check.run(options),
        Command::Backup(backup) => backup.run(options),
        Command::Install(install) => install.run(options),
        Command::Update(update) => update.run(options),
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

impl Install {
    fn run(self, options: &Options) -> Result<(), Error> {
        let (runner, media, seen) = look(options, &self.media, Duration::ZERO)?;
        if !settle(change::install(&seen), self.probe)? {
            return Ok(());
        }
        let choices = Choices {
            components: self.components,
            data: self.data,
            log: self.log,
            hostname: self.hostname,
            usage: self.usage,
            uid: self.uid,
            gid: self.gid,
        };
        change::carry_out_install(&runner, &media, version(&seen)?, &choices)
    }
}

impl Update {
    fn run(self, options: &Options) -> Result<(), Error> {
        let (runner, media, seen) = look(options, &self.media, self.require_backup)?;
        let part = if self.prepare { Part::Prepare } else { Part::Finish { start: !self.no_start } };
        let terms = Terms { age: self.require_backup, maintained: self.cluster_in_maintenance, part };
        if !settle(change::update(&seen, terms), self.probe)? {
            return Ok(());
        }
        change::carry_out_update(&runner, &media, version(&seen)?, part)
    }
}

/// Looks at the media and at everything that a change depends on.
fn look(options: &Options, folder: &Path, age: Duration) -> Result<(Runner, Media, Observed), Error> {
    let runner = options.runner(None)?;
    let media = Media::find(&options.root, folder)?;
    let wish = Wish { media: Some(folder.to_owned()), key: options.key.clone(), age };
    let seen = check::gather(&runner, &wish)?;
    Ok((runner, media, seen))
}

/// Whether hdblcm is to begin. A probe never begins: what is not there yet is its answer no.
fn settle(step: Step, probe: bool) -> Result<bool, Error> {
    match (step, probe) {
        (Step::Already, _) => Ok(false),
        (Step::Go, false) => Ok(true),
        (Step::Go, true) => Err(Error::No("not installed in the version of the media".to_owned())),
        (Step::Refuse(why), true) => Err(Error::No(why)),
        (Step::Refuse(why), false) => Err(Error::Refused(why)),
        (Step::Unclear(why), _) => Err(Error::Unclear(why)),
    }
}

/// The version of the media, once it was understood.
fn version(seen: &Observed) -> Result<Version, Error> {
    let media = seen.media.as_ref().and_then(|media| media.value.as_ref().ok());
    media.copied().ok_or_else(|| Error::Unclear("the version of the media".to_owned()))
}

/// A value for hdblcm: letters, digits and `. _ , / : = -`, and no option.
fn word(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._,/:=-".contains(&byte);
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || !text.bytes().all(plain) {
        return Err("write letters, digits and . _ , / : = -".to_owned());
    }
    Ok(text.to_owned())
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
