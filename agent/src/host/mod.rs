//! The ground: durable files, the record log, clock, the machine, crash points.

pub mod allocator;
pub mod built_in;
#[expect(clippy::disallowed_methods, reason = "the one clock")]
pub mod clock;
pub mod crash;
pub mod disk;
pub mod http;
pub mod journald;
pub mod log;
pub mod logging;
pub mod machine;
pub mod notify;
pub mod plain;
pub mod process;
pub mod program;
pub mod tls;
