//! Backups in object storage: hot on S3, cold on Glacier, and Backint for SAP HANA.
//!
//! ```text
//!  cli, backint                      what is asked for
//!     |
//!  upload download cold delete prune what is done, each so that a crash leaves nothing half
//!     |       |       |      |
//!  stream   catalog retention clean  bytes in and out; what is there; what goes; what is waste
//!     |     chain            |
//!  transmit   |           publish     bytes on their way; the last write, which can only go forward
//!     |       |              |
//!  store  manifest  name  journal    the bucket; what a backup is; where it is; what was begun
//! ```
//! A backup exists if and only if its manifest does, and the manifest is the last write. What is begun is written
//! to the host's journal first; one rule (`clean`) clears up after any crash.
//!
//! `aws-sdk-s3` is the client: its chain of credentials, its signatures and its parsers are kept by those who run
//! S3. With rustls and ring, and without its defaults, there is one TLS in the workspace. Its retries are off (see
//! `store`). `age` encrypts: a format with other tools to read it. `zstd` compresses, on all cores.

pub mod backint;
pub mod catalog;
pub mod chain;
pub mod clean;
pub mod cli;
pub mod cold;
pub mod command;
pub mod config;
pub mod delete;
pub mod download;
pub mod error;
pub mod journal;
pub mod lookup;
pub mod manifest;
pub mod message;
pub mod name;
pub mod progress;
pub mod prune;
pub mod publish;
pub mod remove;
pub mod retention;
pub mod secret;
pub mod store;
pub mod stream;
pub mod transmit;
pub mod upload;
