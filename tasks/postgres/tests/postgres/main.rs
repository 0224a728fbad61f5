//! `hostler-postgres` on real servers, Debian's 13 and 15, and 17 and 18 of the checkout, each in folders of its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

mod agent;
mod archive;
mod backup;
mod check;
mod drill;
mod fact;
mod health;
mod in_place;
mod incremental;
mod install;
mod kit;
mod link;
mod load;
mod memory;
mod pgdg;
mod ports;
mod restart;
mod restore;
mod setup;
mod store;
mod switchover;
mod upgrade;
mod week;
