//! The executor of a question: asks once, writes the answer, and leaves nothing running.
//!
//! ```text
//! claim -> command -> its processes are gone -> answer
//! ```
//!
//! Nothing rests on a question, so its folder is on memory, below the runtime folder: a question that is lost is asked
//! again.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{ExecutorError, holder};
use crate::exec::processes::{self, ProcessSelector};
use crate::exec::question::Question;
use crate::host::{disk, process};
use crate::ledger::{Claim, Folder};

/// The file with the answer.
const ANSWER: &str = "answer";
/// The largest answer, in bytes: what was printed, as JSON.
const MAX_ANSWER: u64 = 64 << 10;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command printed this and ended with 0.
    Printed(String),
    /// There is no answer: one line.
    Failed(String),
}

/// The answer in a question's folder; `None`: not yet.
///
/// # Errors
/// Where it cannot be read: one line.
pub fn answer_in(folder: &Path) -> Result<Option<Answer>, String> {
    let json = disk::read(&folder.join(ANSWER), MAX_ANSWER).map_err(|error| error.to_string())?;
    json.map(|json| serde_json::from_slice(&json).map_err(|error| error.to_string())).transpose()
}

/// Asks the question in `folder` and writes the answer there.
pub async fn answer(folder: &Path) -> Result<(), ExecutorError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(std::io::Error::from)?;
    process::usual_umask();
    let folder = Folder::at(folder)?;
    let question = Question::read(folder.path())?;
    if !question.systemd {
        process::usual_files()?;
    }
    let mut term = signal(SignalKind::terminate())?;
    let Some(_claim) = Claim::take(folder.path(), 1, &holder())? else { return Ok(()) };
    // Orphans of the command become this process's children, so that they are found by descent.
    nix::sys::prctl::set_child_subreaper(true).map_err(std::io::Error::from)?;
    if !question.systemd {
        processes::list(&folder.path().join("sessions"), processes::myself())?;
    }
    let mut mark = ProcessSelector {
        executor: true,
        ..ProcessSelector::of(folder.path(), question.id, question.systemd)?
    };
    let answer = match question.ask(folder.path(), &mut mark, &mut term).await {
        Ok(printed) => match String::from_utf8(printed) {
            Ok(printed) => Answer::Printed(printed),
            Err(_) => Answer::Failed("it printed what is not UTF-8".to_owned()),
        },
        Err(why) => Answer::Failed(why),
    };
    let json = serde_json::to_vec(&answer).map_err(std::io::Error::other)?;
    let temp = folder.path().join(".answer");
    disk::create(&temp, &json, 0o600)?;
    fs::rename(&temp, folder.path().join(ANSWER))?;
    Ok(())
}
