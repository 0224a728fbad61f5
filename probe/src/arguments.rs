//! The command line. CMD is everything between `--for-command` and the first `--`, CHECK everything behind it.

use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::checks::Check;

/// What separates CMD from CHECK.
const SEPARATOR: &str = "--";
/// What begins CMD.
const FOR_COMMAND: &str = "--for-command";
/// The longest interval and the longest time-out.
const MAX: Duration = Duration::from_secs(3600);

const ABOUT: &str = "CMD is everything between --for-command and the first argument that is exactly `--`; CHECK is everything \
after it. So the options of hostler-probe come before --for-command, CHECK may contain further `--`, and a CMD that needs \
a `--` itself goes into a script. CHECK is a program with its arguments, `--tcp HOST:PORT`, or `--http URL` (http only; a \
status of 200 to 399 is a success). Names are resolved once, at the start.

CHECK is repeated until CMD has ended. An interruption begins with the first check that fails and ends with the next one \
that succeeds; a success that takes longer than --every beyond the shortest one counts as an interruption, too. One that \
lasts when CMD ends counts up to there.

The result is one line, {\"downtime\": {\"service\", \"seconds\", \"from\", \"to\", \"failed\"}, \"message\"}, which is \
appended to the file named by HOSTLER_REPORT, or printed if that is not set. The message has the longest interruption, and \
to within what the sum is measured. The exit status is that of CMD, 128 and the number of its signal, or 127 if it cannot \
be started. SIGTERM, SIGINT and SIGHUP are handed on to CMD.";

/// Run a command and report for how long a check fails during it.
#[derive(Parser)]
#[command(
    name = "hostler-probe",
    version,
    after_long_help = ABOUT,
    after_help = "CMD ends at the first `--`, CHECK follows it. More: --help",
    override_usage = "hostler-probe [OPTIONS] --for-command CMD... -- CHECK...\n       \
                      hostler-probe [OPTIONS] --for-command CMD... -- --tcp HOST:PORT\n       \
                      hostler-probe [OPTIONS] --for-command CMD... -- --http URL"
)]
struct Cli {
    /// Name of the service in the report [default: name of the task, else `service`]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Time from the start of a check to that of the next one
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = time)]
    every: Duration,
    /// Longest time of one check; one that takes longer fails
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    timeout: Duration,
    /// Command to run, with its arguments, up to the first `--`
    #[arg(long, value_name = "CMD", num_args = 1.., required = true)]
    for_command: Vec<OsString>,
    /// Program with its arguments, or --tcp HOST:PORT, or --http URL
    #[arg(last = true, value_name = "CHECK", required = true)]
    check: Vec<OsString>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) service: String,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) command: Vec<OsString>,
    pub(crate) check: Check,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A measurement.
    Run(Arguments),
    /// Help, the version, or a wrong option.
    Said(clap::Error),
    /// Something else that is wrong with it, in one line.
    Wrong(String),
}

/// The definition of the command line: man page and completions are made from it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// `250ms`, `2s`, `1m`: more than nothing, at most an hour.
fn time(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => Duration::ZERO,
    };
    let time = number.parse().ok().and_then(|number: u32| unit.checked_mul(number));
    let time = time.filter(|time| (Duration::from_millis(1)..=MAX).contains(time));
    time.ok_or_else(|| "write a time such as 20ms, 2s or 1m, at most 60m".to_owned())
}

/// `[a-z0-9:._-]{1,63}`
fn is_service(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '.' | '_' | '-');
    (1..=63).contains(&name.len()) && name.chars().all(good)
}

fn default_service() -> String {
    let task = std::env::var("HOSTLER_TASK").unwrap_or_default();
    let task = task.split('@').next().unwrap_or_default();
    if is_service(task) { task.to_owned() } else { "service".to_owned() }
}

pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let words: Vec<OsString> = words.into_iter().collect();
    let begins = words.iter().position(|word| word == FOR_COMMAND);
    let ends = begins.and_then(|begins| {
        let rest = words.iter().skip(begins).position(|word| word == SEPARATOR);
        rest.map(|rest| begins + rest)
    });
    // Neither is for clap: both may hold what looks like options.
    let (options, command, check): (Vec<OsString>, &[OsString], &[OsString]) = match (begins, ends) {
        (Some(begins), Some(ends)) => {
            let mut options = words.get(..begins).unwrap_or_default().to_vec();
            options.extend([FOR_COMMAND, "CMD", SEPARATOR, "CHECK"].map(OsString::from));
            let command = words.get(begins + 1..ends).unwrap_or_default();
            (options, command, words.get(ends + 1..).unwrap_or_default())
        }
        _ => (words.clone(), &[], &[]),
    };
    let cli =
        match Cli::command().try_get_matches_from(options).and_then(|found| Cli::from_arg_matches(&found)) {
            Ok(cli) => cli,
            Err(error) => return Parsed::Said(error),
        };
    if command.is_empty() || check.is_empty() {
        return Parsed::Wrong("write --for-command CMD... -- CHECK...: one of them is missing".to_owned());
    }
    let service = cli.service.unwrap_or_else(default_service);
    if !is_service(&service) {
        return Parsed::Wrong(format!(
            "{service:?} is not the name of a service: use a-z, 0-9, ':', '.', '_' and '-', at most 63 characters"
        ));
    }
    match Check::read(check) {
        Ok(check) => Parsed::Run(Arguments {
            service,
            every: cli.every,
            timeout: cli.timeout,
            command: command.to_vec(),
            check,
        }),
        Err(why) => Parsed::Wrong(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Parsed {
        parse(std::iter::once("hostler-probe").chain(line.split_whitespace()).map(OsString::from))
    }

    fn words(words: &[OsString]) -> String {
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_separator_ends_the_command_and_everything_behind_it_is_the_check() {
        let Parsed::Run(run) =
            parsed("--service web --every 50ms --for-command sh -c x --every 1h -- psql -c y -- z")
        else {
            panic!("refused")
        };
        assert_eq!(words(&run.command), "sh -c x --every 1h");
        let Check::Program(check) = &run.check else { panic!("no program") };
        assert_eq!(words(check), "psql -c y -- z");
        assert_eq!(
            (run.service.as_str(), run.every, run.timeout.as_secs()),
            ("web", Duration::from_millis(50), 1)
        );
        for good in
            ["--for-command x -- --tcp 127.0.0.1:1", "--for-command x -- --http http://127.0.0.1:1/a?b"]
        {
            assert!(matches!(parsed(good), Parsed::Run(_)), "{good}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_before_anything_starts() {
        for bad in [
            "",
            "--for-command x",
            "--for-command -- y",
            "--for-command x --",
            "-- y",
            "--every 0ms --for-command x -- y",
            "--every 2h --for-command x -- y",
            "--service Web --for-command x -- y",
            "--no-such-option --for-command x -- y",
            "--for-command x -- --tcp",
            "--for-command x -- --tcp nowhere",
            "--for-command x -- --tcp 127.0.0.1:1 more",
            "--for-command x -- --http https://127.0.0.1/",
            "--for-command x -- --udp 127.0.0.1:1",
        ] {
            assert!(!matches!(parsed(bad), Parsed::Run(_)), "{bad}");
        }
    }
}
