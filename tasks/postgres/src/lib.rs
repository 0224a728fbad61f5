//! PostgreSQL clusters on a host: their health, and their upgrade to a new major version with a way back.
//!
//! ```text
//!  cli                                           what is asked for
//!   |
//!  health   fact   check   upgrade               what hurts; what the fleet shows; what an upgrade meets and does
//!  install   restart   minor   switchover       a new cluster; a new start; a newer minor version; another primary
//!  archive   backup   restore   drill            WAL and files in the depot, and back
//!   |         |        |         |
//!  server   layout   depot   wal                 a connection; where clusters are; the store; names and places
//!   |         |        |
//!  exec     durable   packages   report          processes and identities; files; apt; what a step says
//! ```
//! Nothing is remembered about how far a command has come: what is done is read from the servers and their files.
//! `tokio-postgres` is the client, without its own sockets and without TLS: servers are reached by the local socket.

pub mod archive;
pub mod backup;
pub mod check;
pub mod cli;
pub mod crash;
pub mod depot;
pub mod drill;
pub mod durable;
pub mod error;
pub mod exec;
pub mod fact;
pub mod health;
pub mod install;
pub mod layout;
pub mod made;
pub mod minor;
pub mod packages;
pub mod report;
pub mod restart;
pub mod restore;
pub mod server;
pub mod switchover;
pub mod upgrade;
pub mod wal;
