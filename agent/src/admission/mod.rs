//! What the shipped tasks may touch on this host: root's word in `/etc/hostler/tasks.yml`, and the acts that keep to it.
//!
//! An order names folders, packages and ports; these tasks run as root. So what an order may name is written by root in
//! one file, and nothing is checked by its name and then used by its name: a folder is opened once, component by
//! component without following a link, checked as it is open, and then worked in through that descriptor. Whoever
//! renames and links in a folder of his own while a task is in it gains nothing.
//!
//! Hostler's own folders (state, runtime, configuration, the folder of a store) are never read, written, backed up or
//! removed by a shipped task, whatever the file says.
//!
//! ```text
//!  policy.rs    the file: what it may say, its defaults
//!  folder.rs    a folder that was opened and checked, and Hostler's own ones
//!  clean.rs     removes old files below a folder
//!  archive.rs   the words with which tar reads folders that are open
//!  restore.rs   a new folder beside its later name, renamed when it is whole
//!  listener.rs  whether PostgreSQL itself listens at a port
//!  scram.rs     logs in to PostgreSQL without sending the password
//! ```

pub mod archive;
pub mod clean;
pub mod folder;
pub mod listener;
pub mod policy;
pub mod restore;
pub mod scram;

/// Where root writes what they may touch.
pub const PATH: &str = "/etc/hostler/tasks.yml";

/// Why a shipped task may not do what an order asks for.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not admitted by root, or not what it has to be: the message says which and what to do.
    #[error("{0}")]
    Refused(String),
    /// The host could not be looked at.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

impl Refusal {
    /// Something could not be read or done.
    pub fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Io(what, error)
    }
}
