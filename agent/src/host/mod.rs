//! The ground: durable files, the record log, clock, facts about this host, crash points.

pub mod allocator;
pub mod clock;
pub mod crash;
pub mod disk;
pub mod facts;
pub mod http;
pub mod journald;
pub mod log;
pub mod logging;
pub mod notify;
pub mod plain;
pub mod process;
pub mod program;
pub mod tls;
