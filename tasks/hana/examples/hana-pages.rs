//! Writes the man pages and the shells' completions into a folder, from the definitions of the commands.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: pages FOLDER"))?;
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    let mut command = hostler_hana::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "hostler-hana", &folder)?;
    }
    // A page for the help of each command would say what its own page says. (Completions have added it to theirs.)
    clap_mangen::generate_to(hostler_hana::cli::command().disable_help_subcommand(true), &man)
}
