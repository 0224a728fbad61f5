//! Hostler: an operator changes a key in Consul, the agent on the host carries the order out once,
//! and the result stands in Consul.
//!
//! ```text
//! cli -> app -> { store, vault, catalog, ledger, exec, admission, report, telemetry, config } -> host -> domain
//! ```
//!
//! Arrows go down only; the folders in braces do not know one another, `app` joins them.
//! `domain` decides and touches nothing; `host` is the ground that the others stand on: durable files,
//! clock, machine, signals. `tests/tidy.rs` holds the code against this picture.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start programs and read clocks"))]

pub mod admission;
pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod domain;
#[expect(clippy::disallowed_methods, reason = "the one module that starts processes")]
pub mod exec;
pub mod host;
pub mod ledger;
pub mod report;
pub mod store;
pub mod telemetry;
pub mod vault;
