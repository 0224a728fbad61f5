//! Streams of bytes: where they come from, where they go, and how they are cut into parts.

pub mod buffer_pool;
pub mod cut;
pub mod pipe;

pub mod schedule;
pub mod stages;
pub mod target;
