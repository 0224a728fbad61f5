//! Asking for a fact: a folder on memory, an executor, and its answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::app::agent::recurring;
use crate::app::executor::question::{Answer, answer_in};
use crate::domain::facts::{self, FactCommand, FactName, Object};
use crate::domain::name::Name;
use crate::exec::launcher::Launcher;
use crate::exec::question::Question;
use crate::host::{clock, disk};
use crate::ledger::{ClaimState, Folder, trim};

/// An executor that was launched has its claim within this, and answers within the command's time and this.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// The pauses between two looks for the answer: few, since each wakes the agent.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Everything that asking for a fact needs.
pub(super) struct Asking {
    pub(super) name: FactName,
    pub(super) host: Name,
    pub(super) command: FactCommand,
    /// The folder that the command is started in.
    pub(super) folder: PathBuf,
    pub(super) runtime_dir: PathBuf,
    pub(super) program: PathBuf,
    pub(super) launcher: Launcher,
}

impl Asking {
    /// The value, or why there is none: one line.
    pub(super) async fn ask(&self) -> Result<Object, String> {
        let id = clock::new_run();
        let question = Question {
            id,
            fact: self.name.to_string(),
            host: self.host.to_string(),
            argv: self.command.run.clone(),
            user: self.command.user.clone(),
            folder: self.folder.clone(),
            timeout: self.command.timeout.0,
            systemd: self.launcher == Launcher::Systemd,
        };
        let folder = Folder::new(&questions(&self.runtime_dir), id);
        make(&self.runtime_dir, folder.path(), &question)?;
        let launched = self.launcher.question(&self.program, folder.path(), &question).await;
        let answer = match launched {
            Err(why) => Err(format!("its executor could not be started: {why}")),
            Ok(()) => self.wait(&folder).await,
        };
        if let Ok(Answer::Printed(_) | Answer::Failed(_)) = answer {
            // Nothing that it started was left when it was given.
            let _ = std::fs::remove_dir_all(folder.path());
        } else {
            recurring::end(&self.launcher, &folder, &self.runtime_dir).await;
        }
        match answer? {
            Answer::Printed(printed) => {
                facts::read(printed.as_bytes()).map_err(|why| format!("what it printed is no value: {why}"))
            }
            Answer::Failed(why) => Err(why),
        }
    }

    async fn wait(&self, folder: &Folder) -> Result<Answer, String> {
        let started_by = Instant::now() + STARTS_WITHIN;
        let until = started_by + self.command.timeout.0;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            // First who lives, then what is written: an answer that came between is not taken for a loss.
            let claim = folder.newest_claim().map_err(|error| error.to_string())?;
            if let Some(answer) = answer_in(folder.path())? {
                return Ok(answer);
            }
            match claim {
                (_, ClaimState::Dead) => return Err("its executor was lost".to_owned()),
                (_, ClaimState::None) if Instant::now() > started_by => {
                    return Err("its executor did not start in time".to_owned());
                }
                (_, ClaimState::None | ClaimState::Held) => {}
            }
            if Instant::now() > until {
                return Err("its executor gave no answer in time".to_owned());
            }
            pause = (pause * 3).min(LONGEST_PAUSE);
        }
    }
}

/// Where the folders of questions are: on memory, since nothing rests on them.
fn questions(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("questions")
}

fn make(runtime_dir: &Path, folder: &Path, question: &Question) -> Result<(), String> {
    let said = |error: disk::DiskError| error.to_string();
    disk::make_dirs(runtime_dir).map_err(said)?;
    disk::make_dir(&questions(runtime_dir)).map_err(said)?;
    disk::make_dir(folder).map_err(said)?;
    let json = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    disk::create(&Question::path(folder), &json, 0o600).map(drop).map_err(said)
}

/// Ends and removes what an earlier agent asked.
pub(super) fn end_earlier(runtime_dir: &Path, launcher: &Launcher) {
    let questions = questions(runtime_dir);
    for id in trim::folders(&questions).unwrap_or_default() {
        let (launcher, folder) = (launcher.clone(), Folder::new(&questions, id));
        let runtime = runtime_dir.to_owned();
        tokio::spawn(async move { recurring::end(&launcher, &folder, &runtime).await });
    }
}
