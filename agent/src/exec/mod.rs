//! Processes: the only place that starts, finds and ends them.
//!
//! ```text
//!  agent --launcher--> executor (a unit or a session of its own)
//!                        \--step--> command (a session of its own)  --pipe--> output
//! ```

pub mod ansible;
pub mod builder;
pub mod editor;
pub mod feedback;
pub mod handoff;
pub mod inherit;
pub mod init;
pub mod launcher;
pub mod oom;
pub mod output;
pub mod pager;
pub mod processes;
pub mod program;
pub mod question;
pub mod redact;
pub mod secret_mount;
pub mod step;
pub mod user;
