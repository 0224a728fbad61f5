//! Writes the man pages and the shells' completions into a folder, from the definitions of the commands and from the
//! schemas of the documents.
//!
//! An example and no subcommand: the program does not carry the generators about, which nobody needs on a host.

mod documents;

use std::fs;
use std::io;
use std::path::PathBuf;

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
    clap_mangen::generate_to(hostler::cli::command(), &man1)
}
