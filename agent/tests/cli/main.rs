//! The operators' commands as an operator types them: the built binary, a store in a folder, and a real agent.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

mod acts;
mod bench;
mod downtime;
mod exits;
mod others;
mod pages;
mod screens;
mod steady;
mod watches;
mod words;
