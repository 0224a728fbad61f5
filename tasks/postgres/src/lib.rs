//! PostgreSQL clusters on a host: their health, and their upgrade to a new major version with a way back.
//!
//! ```text
//!  cli                               what is asked for
//!   |
//!  health   check   upgrade   archive   what hurts; what an upgrade meets; what it does; WAL in the depot
//!   |        |       |         |
//!   |        |       |        wal  depot  names and places; object storage
//!  server   layout   durable report  a connection; where clusters are; files; what a step says
//!   |        |
//!  exec                              processes and identities
//! ```
//! Nothing is remembered about how far a command has come: what is done is read from the servers and their files.
//! `tokio-postgres` is the client, without its own sockets and without TLS: servers are reached by the local socket.

pub mod archive;
pub mod backup;
pub mod check;
pub mod cli;
pub mod crash;
pub mod depot;
pub mod durable;
pub mod error;
pub mod exec;
pub mod health;
pub mod layout;
pub mod report;
pub mod server;
pub mod upgrade;
pub mod wal;
