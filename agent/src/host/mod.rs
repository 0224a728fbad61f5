//! The ground: durable files, the record log, clock, facts about this host, signals.

pub mod disk;
