//! `hostler task new`: a small task that works, with its test, for its author to change.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::exit::{Exit, fault};
use crate::cli::{Failure, show};
use crate::domain::name::Name;

/// The files of the folder with their modes; `NAME` in them is the task's.
const FILES: [(&str, &str, u32); 4] = [
    ("task.yml", include_str!("skeleton/task.yml"), 0o644),
    ("probe", include_str!("skeleton/probe"), 0o755),
    ("write", include_str!("skeleton/write"), 0o755),
    ("test", include_str!("skeleton/test"), 0o755),
];

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The task's name
    #[arg(value_name = "NAME")]
    name: Name,
    /// The folder that the task's own is made in
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = arguments.dir.join(arguments.name.as_str());
    if fs::symlink_metadata(&folder).is_ok() {
        let message = format!("{} is there already; nothing was written", folder.display());
        return Err(fault(Exit::NotConfirmed, message));
    }
    // Tasks that others could write to are not loaded, whatever the umask.
    DirBuilder::new()
        .mode(0o755)
        .create(&folder)
        .map_err(|error| fault(Exit::ConfigError, format!("{} cannot be made: {error}", folder.display())))?;
    for (name, text, mode) in FILES {
        let text = text.replace("NAME", arguments.name.as_str());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    let shown = folder.display();
    show::line(format!("{shown}: a task that keeps a line in a file; make it yours"))?;
    show::say(format!("  {shown}/test                   runs its test, by hand, without store or agent"))?;
    show::say(format!("  hostler task lint {shown}      lists its faults"))?;
    show::say(
        "  then install it, as root, in /etc/hostler/tasks/; see /usr/share/doc/hostler/docs/writing-tasks.md",
    )?;
    Ok(Exit::Success.into())
}
