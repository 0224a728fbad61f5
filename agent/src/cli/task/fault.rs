//! What goes wrong on purpose when a task is tried: a step that fails, or is interrupted, behind its own work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::Failure;
use crate::cli::exit::{Exit, fault};
use crate::domain::ids::RunId;
use crate::domain::plan::{Action, Plan, Step};
use crate::exec::processes::ProcessSelector;
use crate::host::disk;
use crate::ledger::Folder;

/// What a step that is to fail runs: its own command, then its failure.
const FAILS: &str = "\"$@\"; echo 'the step fails as asked: --fail-at' >&2; exit 1";

/// Has a step fail behind its own command.
pub(super) fn fail_at(plan: &mut Plan, name: &str) -> Result<(), Failure> {
    let step = wrap(plan, name, FAILS, name)?;
    // Its check would say that it is done after all.
    step.check = None;
    Ok(())
}

/// What a step that is to be interrupted runs: its own command; where that succeeded, a mark and nothing more. Another
/// executor that carries it out finds the mark, and the command is its own alone.
const HANGS: &str = "[ -e \"$0\" ] && exec \"$@\"; \"$@\" || exit; : >\"$0\"; exec sleep 86400";

/// A step that is to be interrupted.
pub(super) struct Interruption {
    mark: PathBuf,
}

impl Interruption {
    /// Has a step wait behind its own command, to be killed there; `dir` is the folder of the try.
    pub(super) fn of(plan: &mut Plan, name: &str, dir: &Path) -> Result<Self, Failure> {
        let marks = dir.join("marks");
        disk::make_dir(&marks)?;
        // The step writes there as whichever user it has.
        disk::set_mode(&marks, 0o733)?;
        let mark = marks.join("done");
        wrap(plan, name, HANGS, &mark.display().to_string())?;
        Ok(Self { mark })
    }

    /// Whether the step's work is done, and the step waits to be killed.
    pub(super) fn is_due(&self) -> bool {
        self.mark.exists()
    }
}

/// Puts a shell script before a step's command: `$0` is `zero`, and `$@` is the command.
fn wrap<'a>(plan: &'a mut Plan, name: &str, script: &str, zero: &str) -> Result<&'a mut Step, Failure> {
    let names: Vec<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
    let Some(step) = plan.steps.iter_mut().find(|step| step.name == name) else {
        let message = format!("the task has no step {name}: it has {}", names.join(", "));
        return Err(fault(Exit::NotFound, message));
    };
    let Action::Run(argv) = &mut step.action else {
        let message = format!("the step {name} is a playbook, which cannot be made to fail or hang");
        return Err(fault(Exit::Usage, message));
    };
    argv.splice(0..0, ["/bin/sh", "-c", script, zero].map(str::to_owned));
    Ok(step)
}

/// Kills what the run has started, as the host's end does.
pub(super) async fn kill_all(folder: &Folder, run: RunId) -> Result<(), Failure> {
    let selector = ProcessSelector { executor: true, ..ProcessSelector::of(folder.path(), run, false)? };
    selector.end_all(Duration::ZERO).await?;
    Ok(())
}
