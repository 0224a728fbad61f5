//! Backint: how SAP HANA has its backups stored and gets them back.
//!
//! HANA starts this program with a list of pipes or files, and reads the answer when it has ended: one line for each
//! entry, whatever happens to it. A pipe that fails is an error of its entry alone.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | every entry has its line, also those that failed by themselves |
//! | 1 | nothing could be done for any entry: the store or the configuration is wrong; each has its `#ERROR` |
//! | 2 | the call is wrong: an option, or a line of the input that cannot be understood; nothing was read or written |

pub mod grammar;
mod inquire;
pub mod place;
mod transfer;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Options, Settings};
use crate::error::Error;
use crate::journal::Journal;
use crate::message::complain;
use crate::store::Store;
use grammar::{Line, Version, quoted};

/// The newest version that is spoken here.
const NEWEST: &str = "1.50";
/// What a caller speaks that does not say.
const OLDEST: &str = "1.00";
/// More entries than HANA ever has in one call.
const MAX_ENTRIES: usize = 4096;
/// Entries without a pipe that are dealt with at once.
const IN_TURN: usize = 16;
/// More than this is no list of entries.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Function {
    /// Store
    Backup,
    /// Get back
    Restore,
    /// List backups
    Inquire,
    /// Remove
    Delete,
}

/// The options that SAP HANA gives; each may also be spelled -function, -paramfile, -input, -output, -user,
/// -backupid, -count, -level
#[derive(Clone, Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    /// Function to perform
    #[arg(short, long, value_enum, ignore_case = true, required_unless_present_any = ["short_version", "full_version"])]
    function: Option<Function>,
    /// Configuration file, as for all other commands
    #[arg(short, long, value_name = "FILE")]
    paramfile: Option<PathBuf>,
    /// List of entries [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// File for the answer [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// SID, or DB@SID
    #[arg(short, long)]
    user: Option<String>,
    /// Backup id of HANA; ignored
    #[arg(short = 's', long, value_name = "ID")]
    backupid: Option<String>,
    /// Number of objects; ignored
    #[arg(short, long)]
    count: Option<String>,
    /// COMPLETE, INCREMENTAL, DIFFERENTIAL or LOG; ignored
    #[arg(short, long)]
    level: Option<String>,
    /// Print the versions of the interface and of this program
    #[arg(short = 'v')]
    short_version: bool,
    /// The same, in full
    #[arg(short = 'V')]
    full_version: bool,
}

/// Turns `-function` into `--function`, after the word `backint` only.
pub fn spelled(arguments: Vec<OsString>) -> Vec<OsString> {
    const LONG: [&str; 8] =
        ["-function", "-paramfile", "-input", "-output", "-user", "-backupid", "-count", "-level"];
    let backint = arguments.iter().position(|one| one == "backint").unwrap_or(usize::MAX);
    let long = |one: &OsString| {
        one.to_str().is_some_and(|text| {
            LONG.iter().any(|long| text == *long || text.starts_with(&format!("{long}=")))
        })
    };
    arguments
        .into_iter()
        .enumerate()
        .map(|(at, one)| {
            if at > backint && long(&one) {
                let mut spelled = OsString::from("-");
                spelled.push(&one);
                spelled
            } else {
                one
            }
        })
        .collect()
}

/// What every entry works with.
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) user: String,
    pub(crate) version: Version,
    /// Entries in this call: they share the memory.
    pub(crate) entries: usize,
    /// Whoever started this; if it is gone, so is the backup.
    pub(crate) parent: i32,
    /// Entries that failed because of the store or the configuration.
    pub(crate) store_failed: AtomicUsize,
}

/// What the entries of one call share when nobody says how much.
const SHARED: u64 = 192 * 1024 * 1024;

impl Session {
    /// The memory of one entry, if that is bounded: they share what was said, and what is usual if they are many.
    fn fair(&self) -> Option<u64> {
        let all = self.settings.memory.or((self.entries > 1).then_some(SHARED))?;
        Some(all / self.entries.max(1) as u64)
    }
}

/// Lines of the answer to one entry.
pub(crate) type Answer = Vec<String>;

/// A line with an error, and why, for whoever reads the log.
pub(crate) fn failed(words: &[&str], error: &dyn std::fmt::Display) -> Answer {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    vec![std::iter::once("#ERROR".to_owned()).chain(words).collect::<Vec<_>>().join(" "), comment(error)]
}

impl Session {
    /// Whose backups are found and restored: those of another system, for a copy of it.
    pub(crate) fn source(&self) -> &str {
        self.settings.backint_user.as_deref().unwrap_or(&self.user)
    }

    /// The answer to an entry that failed.
    pub(crate) fn failed(&self, words: &[&str], error: &Error) -> Answer {
        if matches!(error, Error::Store(_) | Error::Config(_)) {
            self.store_failed.fetch_add(1, Ordering::Relaxed);
        }
        failed(words, error)
    }
}

/// A line that is no entry: it never begins with a keyword, and is one line.
pub(crate) fn comment(text: &dyn std::fmt::Display) -> String {
    let text = text.to_string();
    format!("hostler-depot: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Runs one call.
pub async fn main(options: &Options, arguments: &Arguments) -> ExitCode {
    if arguments.short_version || arguments.full_version {
        let name = concat!("hostler-depot ", env!("CARGO_PKG_VERSION"));
        let _ = writeln!(std::io::stdout(), "\"backint {NEWEST}\" \"{name}\"");
        return ExitCode::SUCCESS;
    }
    match call(options, arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

fn read(arguments: &Arguments) -> Result<Vec<Line>, Error> {
    let mut text = Vec::new();
    match &arguments.input {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(Error::local(path.display().to_string()))?;
            file.take(MAX_BYTES).read_to_end(&mut text).map_err(Error::local(path.display().to_string()))?;
        }
        None => {
            let input = std::io::stdin().lock();
            input.take(MAX_BYTES).read_to_end(&mut text).map_err(Error::local("standard input"))?;
        }
    }
    if text.len() as u64 >= MAX_BYTES {
        return Err(Error::Config(format!("the input has more than {MAX_BYTES} bytes")));
    }
    let function = arguments.function.unwrap_or(Function::Inquire);
    let lines = grammar::lines(function, &text).map_err(|why| Error::Config(format!("the input: {why}")))?;
    let entries: Vec<Line> = lines.into_iter().filter(|line| *line != Line::Comment).collect();
    if entries.len() > MAX_ENTRIES {
        return Err(Error::Config(format!(
            "{} entries are more than the {MAX_ENTRIES} of a call",
            entries.len()
        )));
    }
    Ok(entries)
}

/// Where the answer goes, line by line.
struct Out(Box<dyn Write + Send>, Option<std::fs::File>);

impl Out {
    fn open(arguments: &Arguments) -> Result<Self, Error> {
        let Some(path) = &arguments.output else { return Ok(Self(Box::new(std::io::stdout()), None)) };
        let place = Error::local(path.display().to_string());
        let work = || {
            let file = std::fs::File::create(path)?;
            Ok((file.try_clone()?, file))
        };
        let (file, other) = work().map_err(place)?;
        Ok(Self(Box::new(file), Some(other)))
    }

    fn say(&mut self, lines: &[String]) -> Result<(), Error> {
        let mut text = lines.join("\n");
        text.push('\n');
        let written = self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush());
        written.map_err(Error::local("the answer"))
    }

    fn end(self) -> Result<(), Error> {
        // The answer may be a pipe or /dev/null, which cannot be synced.
        if let Some(file) = self.1.filter(|file| file.metadata().is_ok_and(|found| found.is_file())) {
            file.sync_all().map_err(Error::local("the answer"))?;
        }
        Ok(())
    }
}

/// Answers all entries; `false` if nothing could be done for any of them.
async fn call(options: &Options, arguments: &Arguments) -> Result<bool, Error> {
    let parent = nix::unistd::getppid().as_raw();
    let user = arguments.user.clone().filter(|user| !user.is_empty() && user.len() <= 64);
    let user = user.ok_or_else(|| Error::Config("-u is missing: SID, or DB@SID".to_owned()))?;
    let lines = read(arguments)?;
    let mut out = Out::open(arguments)?;
    let asked = lines.iter().rev().find_map(|line| match line {
        Line::Software(version) => Some(version.clone()),
        _ => None,
    });
    let known = |text| Version::parse(text).ok_or_else(|| Error::Config("no version".to_owned()));
    let version = asked.map_or_else(|| known(OLDEST), |asked| Ok(asked.min(known(NEWEST)?)))?;
    let entries: Vec<Line> = lines.into_iter().filter(|line| !matches!(line, Line::Software(_))).collect();
    let name = concat!("hostler-depot ", env!("CARGO_PKG_VERSION"));
    out.say(&[format!("#SOFTWAREID \"backint {version}\" \"{name}\"")])?;
    let session = match connect(options, arguments).await {
        Ok((settings, store, journal)) => Arc::new(Session {
            settings,
            store,
            journal,
            user,
            version,
            entries: entries.len().max(1),
            parent,
            store_failed: AtomicUsize::new(0),
        }),
        Err(error) => {
            complain(&error.to_string());
            for entry in &entries {
                out.say(&failed(&named(entry), &error))?;
            }
            out.end()?;
            return Ok(false);
        }
    };
    let function = arguments.function.unwrap_or(Function::Inquire);
    if function == Function::Backup {
        for why in crate::clean::abandoned(&session.store, &session.journal).await.1 {
            complain(&format!("an interrupted operation could not be cleaned up: {why}"));
        }
        // The first answer tells the server's time, by which ids are made.
        let _ = session.store.head("clock").await;
    }
    let again = repeated(function, &entries);
    // All at once: HANA fills all pipes of a call together, and stalls if one is not read.
    let turns = Arc::new(Semaphore::new(IN_TURN));
    let mut work: JoinSet<(usize, Answer)> = JoinSet::new();
    for (at, entry) in entries.iter().cloned().enumerate() {
        let session = Arc::clone(&session);
        let turns = Arc::clone(&turns);
        let again = again.contains(&at);
        work.spawn(async move {
            if again {
                let why =
                    "the same pipe or file is named twice in this call; only the first entry is processed";
                return (at, failed(&named(&entry), &why));
            }
            let _turn = if in_turn(function, &entry) { turns.acquire().await.ok() } else { None };
            (at, entry_of(&session, function, &entry).await)
        });
    }
    let mut answers: Vec<Option<Answer>> = entries.iter().map(|_| None).collect();
    let mut next = 0;
    while let Some(done) = work.join_next().await {
        if let Ok((at, answer)) = done
            && let Some(place) = answers.get_mut(at)
        {
            *place = Some(answer);
        }
        // In the order of the input, each as early as that allows.
        while let Some(answer) = answers.get_mut(next).and_then(Option::take) {
            out.say(&answer)?;
            next += 1;
        }
    }
    for (entry, answer) in entries.iter().zip(answers).skip(next) {
        out.say(&answer.unwrap_or_else(|| failed(&named(entry), &"it was not processed")))?;
    }
    out.end()?;
    let hopeless = session.store_failed.load(Ordering::Relaxed);
    Ok(entries.is_empty() || hopeless < entries.len())
}

/// The entries that would read or write what an earlier one of the call does already.
fn repeated(function: Function, entries: &[Line]) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let place = |entry: &Line| match (function, entry) {
        (Function::Backup, Line::Pipe(name) | Line::File(name, _)) => Some(name.clone()),
        (Function::Restore, Line::Ebid(_, Some(name), to) | Line::Null(Some(name), to)) => {
            Some(to.clone().filter(|to| !to.is_empty()).unwrap_or_else(|| name.clone()))
        }
        _ => None,
    };
    let real = |name: String| std::fs::canonicalize(&name).unwrap_or_else(|_| PathBuf::from(name));
    let places = entries.iter().map(|entry| place(entry).map(real)).enumerate();
    places.filter_map(|(at, place)| place.filter(|place| !seen.insert(place.clone())).map(|_| at)).collect()
}

/// Whether an entry may wait for others: nobody holds a pipe open for it.
fn in_turn(function: Function, entry: &Line) -> bool {
    let pipe = match entry {
        Line::Pipe(_) => true,
        Line::Ebid(_, Some(name), to) | Line::Null(Some(name), to) if function == Function::Restore => {
            crate::stream::pipe::is_pipe(to.as_ref().unwrap_or(name).as_ref())
        }
        _ => false,
    };
    !pipe
}

/// The words by which an entry is named in an answer.
fn named(entry: &Line) -> Vec<&str> {
    match entry {
        Line::Pipe(name) | Line::File(name, _) => vec![name],
        Line::Ebid(ebid, name, _) => std::iter::once(ebid.as_str()).chain(name.as_deref()).collect(),
        Line::Null(name, _) => name.as_deref().into_iter().collect(),
        Line::Software(_) | Line::Comment => Vec::new(),
    }
}

/// Reads the configuration that the caller names, and connects to its store.
async fn connect(options: &Options, arguments: &Arguments) -> Result<(Settings, Store, Journal), Error> {
    let config = arguments.paramfile.clone().or_else(|| options.config.clone());
    let settings = Settings::load(&Options { config, ..options.clone() })?;
    let store = Store::new(settings.place.clone()).await?;
    let journal = Journal::new(&settings.state_dir, store.id());
    Ok((settings, store, journal))
}

async fn entry_of(session: &Session, function: Function, entry: &Line) -> Answer {
    match (function, entry) {
        (Function::Backup, Line::Pipe(name)) => transfer::backup(session, name, None).await,
        (Function::Backup, Line::File(name, size)) => transfer::backup(session, name, Some(*size)).await,
        (Function::Restore, Line::Ebid(ebid, Some(name), to)) => {
            transfer::restore(session, Some(ebid), name, to.as_deref()).await
        }
        (Function::Restore, Line::Null(Some(name), to)) => {
            transfer::restore(session, None, name, to.as_deref()).await
        }
        (Function::Inquire, Line::Null(name, _)) => inquire::null(session, name.as_deref()).await,
        (Function::Inquire, Line::Ebid(ebid, name, _)) => inquire::ebid(session, ebid, name.as_deref()).await,
        (Function::Delete, Line::Ebid(ebid, Some(name), _)) => inquire::delete(session, ebid, name).await,
        (_, entry) => failed(&named(entry), &"this entry does not belong to this function"),
    }
}
