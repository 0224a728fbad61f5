//! Writes the man pages and the shells' completions into a folder, from the definitions of the commands and from the
//! schemas of the documents.
//!
//! An example and no subcommand: the program does not carry the generators about, which nobody needs on a host.

mod documents;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::{Shell, generate};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: pages FOLDER"))?;
    let (man1, man5) = (folder.join("man1"), folder.join("man5"));
    fs::create_dir_all(&man1)?;
    fs::create_dir_all(&man5)?;
    hostler::cli::registrations(&folder)?;
    for (name, page) in documents::pages()? {
        fs::write(man5.join(name), page)?;
    }
    probe(&folder, &man1)?;
    clap_mangen::generate_to(hostler::cli::command(), &man1)
}

/// What belongs to the other program of the package: it is small, so its completions are written out.
fn probe(folder: &Path, man1: &Path) -> io::Result<()> {
    clap_mangen::generate_to(hostler_probe::command(), man1)?;
    let shells = [
        (Shell::Bash, "hostler-probe.bash"),
        (Shell::Zsh, "_hostler-probe"),
        (Shell::Fish, "hostler-probe.fish"),
    ];
    for (shell, name) in shells {
        let mut script = Vec::new();
        generate(shell, &mut hostler_probe::command(), "hostler-probe", &mut script);
        fs::write(folder.join(name), script)?;
    }
    Ok(())
}
