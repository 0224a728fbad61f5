//! The real program against real servers: `s3s-fs` in this process for strict sums and part rules, `moto` for storage
//! classes, Glacier and object lock, with a proxy of our own between that breaks what can break.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails at once")]

mod agent;
mod asks;
mod backint;
mod cold;
mod credentials;
mod faults;
mod hosts;
mod kills;
mod limits;
mod once;
mod outputs;
mod progress;
mod support;
mod tasks;
mod tidy;
mod tls;
mod transfer;
mod truth;
mod ways;
