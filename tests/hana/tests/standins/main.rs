//! The stand-ins as a test meets them: started under the tools' names, below a root of their own.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails must fail its test at once")]

mod backups;
mod host;
mod lifecycle;
mod replication;
mod server;
mod statements;
