//! The program against scripts that play HANA's tools below a folder of their own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

mod agent;
mod ansible;
mod backup;
mod care;
mod change;
mod check;
mod depot;
mod explain;
mod fact;
mod faults;
mod host;
mod kills;
mod life;
mod media;
mod pair;
mod played;
mod proofs;
mod restore;
mod runner;
mod setup;
