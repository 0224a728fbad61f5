//! The depot: object storage by way of the program `hostler-depot`, whose exit status says what happened.
//!
//! Everything that this program stores is owned by it: the depot's rules of retention neither count nor delete it.
//! What is called what stands here and nowhere else:
//!
//! | name | what |
//! | --- | --- |
//! | `ID.wal/SYSTEM/TIMELINE/NAME` | a segment, a partial one, a label of a base backup |
//! | `ID.wal/SYSTEM/TIMELINE.history` | the history of a timeline |
//! | `ID/base/STAMP` | the files of a base backup, as a tar |
//! | `ID/manifest/STAMP` `ID/conf/STAMP` | its manifest, its configuration |
//! | `ID/backup/STAMP` | the record of a backup, written last: a backup is what has one |

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::exec::{self, Ended, Owner};

/// The configuration of hostler-depot, where nothing else is said.
pub const CONFIG: &str = "/etc/hostler/depot-postgres.yml";
/// Who owns what is stored.
const OWNER: &str = "hostler-postgres";
/// For something small.
const QUICK: Duration = Duration::from_secs(900);
/// For something large.
const LONG: Duration = Duration::from_secs(72 * 3600);
/// Names that are deleted in one call: a command line has a limit.
const AT_ONCE: usize = 500;

/// Where a cluster's backups and WAL are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Name of the cluster in the depot, whatever its host, version and port
    #[arg(long, value_name = "ID", value_parser = id)]
    pub id: String,
    /// Configuration of hostler-depot, which the cluster's owner can read
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub depot_config: PathBuf,
}

/// The name of a cluster in the depot.
///
/// # Errors
/// If it is none.
pub fn id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let begins = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(begins) || text.len() > 48 || !text.chars().all(fits) {
        return Err("1 to 48 of a-z, 0-9, _ and -".to_owned());
    }
    Ok(text.to_owned())
}

impl Place {
    /// The database, as the depot calls it, of the WAL.
    pub fn wal(&self) -> String {
        format!("{}.wal", self.id)
    }

    /// The words that lead a command of ours to the same place.
    pub fn words(&self) -> Vec<String> {
        let config = self.depot_config.display().to_string();
        ["--id".to_owned(), self.id.clone(), "--depot-config".to_owned(), config].into()
    }
}

/// The depot, as a user of this host.
#[derive(Clone, Debug)]
pub struct Depot {
    /// Where.
    pub place: Place,
    owner: Option<Owner>,
}

/// Something that is stored, as a list has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Stored {
    /// Name.
    pub name: String,
    /// When its storing was begun; `None` if its manifest cannot be read.
    pub time: Option<String>,
    /// Bytes that were stored.
    #[serde(default)]
    pub size: u64,
    /// `good` if it can be read back.
    pub state: String,
    /// What was said of it.
    #[serde(default)]
    pub label: Value,
}

impl Stored {
    /// Whether it can be read back.
    pub fn good(&self) -> bool {
        self.state == "good"
    }
}

/// What is stored: the contents of a file, or what a command prints.
pub enum Source<'a> {
    /// A file, from its beginning.
    File(File),
    /// A program with its arguments; nothing is stored if it fails.
    Command(&'a [OsString]),
}

/// What a put says besides the source.
#[derive(Default)]
pub struct Put {
    /// The depot's name for the set.
    pub database: String,
    /// What it builds on, which is then not deleted before it.
    pub parent: Option<String>,
    /// What is to be known of it.
    pub label: Option<Value>,
    /// The size, about.
    pub expect: Option<u64>,
    /// The same contents under this name are success.
    pub same: bool,
    /// Its progress is that of the step.
    pub large: bool,
}

impl Depot {
    /// The depot, as `owner`, or as whoever calls.
    pub fn new(place: &Place, owner: Option<Owner>) -> Self {
        Self { place: place.clone(), owner }
    }

    /// Gives a folder to whoever the depot works as.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        self.owner.map_or(Ok(()), |owner| owner.give(path))
    }

    async fn call(&self, words: Vec<OsString>, input: Stdio, within: Duration) -> Result<Ended, Error> {
        let program = std::env::var_os("HOSTLER_DEPOT").unwrap_or_else(|| "hostler-depot".into());
        let file = &self.place.depot_config;
        let file = std::path::absolute(file).map_err(Error::local(file.display()))?;
        let mut all: Vec<OsString> = vec!["--config".into(), file.into()];
        all.extend(words);
        // Whatever takes long is the step's own work, and says how far it is.
        let call = exec::Call { input, reports: within == LONG, within };
        exec::call(self.owner, Path::new(&program), &all, call).await
    }

    /// Stores something; what it says of itself as JSON.
    ///
    /// # Errors
    /// [`Error::Refused`] if the name is taken, by other contents where the same would do.
    pub async fn put(&self, name: &str, source: Source<'_>, put: Put) -> Result<Value, Error> {
        let mut words: Vec<OsString> =
            ["--json", "put", name, "--database", &put.database, "--owned", OWNER].map(OsString::from).into();
        if put.same {
            words.push("--if-same".into());
        }
        for (option, value) in [
            ("--parent", put.parent),
            ("--label", put.label.map(|label| label.to_string())),
            ("--expect", put.expect.map(|bytes| bytes.to_string())),
        ] {
            if let Some(value) = value {
                words.extend([option.into(), value.into()]);
            }
        }
        let input = match source {
            Source::File(file) => file.into(),
            Source::Command(command) => {
                words.push("--".into());
                words.extend(command.iter().cloned());
                Stdio::null()
            }
        };
        let ended = self.call(words, input, if put.large { LONG } else { QUICK }).await?;
        let text = success(ended, name)?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Program(format!("hostler-depot: its answer about {name}: {error}")))
    }

    /// Reads something into a file, which appears when its last byte was right.
    ///
    /// # Errors
    /// [`Error::Missing`] if the store says that there is nothing of that name, and in no other case.
    pub async fn get(&self, name: &str, to: &Path) -> Result<(), Error> {
        // The program is started in another folder.
        let to = std::path::absolute(to).map_err(Error::local(to.display()))?;
        let words = ["get".into(), name.into(), "--output".into(), to.into()];
        success(self.call(words.into(), Stdio::null(), QUICK).await?, name).map(|_| ())
    }

    /// Reads something small.
    ///
    /// # Errors
    /// As [`Depot::get`], and if it is no text.
    pub async fn text(&self, name: &str) -> Result<String, Error> {
        let words = ["get".into(), name.into(), "--output".into(), "-".into()];
        success(self.call(words.into(), Stdio::null(), QUICK).await?, name)
    }

    /// Reads something into a program, which must succeed.
    ///
    /// # Errors
    /// As [`Depot::get`], and if the program fails.
    pub async fn feed(&self, name: &str, command: &[OsString]) -> Result<(), Error> {
        let mut words: Vec<OsString> = ["get", name, "--"].map(OsString::from).into();
        words.extend(command.iter().cloned());
        success(self.call(words, Stdio::null(), LONG).await?, name).map(|_| ())
    }

    /// The names that begin so, without a look at what is behind them.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn names(&self, below: &str) -> Result<Vec<String>, Error> {
        let words = ["list".into(), "--names".into(), below.into()];
        let text = success(self.call(words.into(), Stdio::null(), QUICK).await?, below)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Everything whose name begins so, the damaged too, the oldest first.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn list(&self, below: &str) -> Result<Vec<Stored>, Error> {
        let words = ["--json".into(), "list".into(), below.into()];
        let mut ended = self.call(words.into(), Stdio::null(), QUICK).await?;
        if ended.status == Some(7) {
            // Something is damaged: each entry says which.
            ended.status = Some(0);
        }
        let text = success(ended, below)?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Program(format!("hostler-depot: its list of {below}: {error}")))
    }

    /// Deletes; what is gone already is no failure.
    ///
    /// # Errors
    /// If something is still there.
    pub async fn delete(&self, names: &[String]) -> Result<(), Error> {
        for some in names.chunks(AT_ONCE) {
            let mut words: Vec<OsString> = vec!["delete".into()];
            words.extend(some.iter().map(OsString::from));
            match success(self.call(words, Stdio::null(), LONG).await?, "what is not needed any more") {
                Ok(_) | Err(Error::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a depot printed, or which error its exit status is.
fn success(ended: Ended, name: &str) -> Result<String, Error> {
    let said = format!("{name}: {}", ended.complaint);
    Err(match ended.status {
        Some(0) => return Ok(ended.output),
        Some(4) => Error::Server(said),
        Some(5) => Error::Missing(said),
        Some(6) => Error::Refused(said),
        Some(7) => Error::Damaged(said),
        Some(9) => Error::Local(said),
        Some(75) => Error::Cold(said),
        Some(status) => Error::Program(format!("hostler-depot ended with status {status}: {said}")),
        None => Error::Program(format!("hostler-depot was ended by a signal: {said}")),
    })
}
