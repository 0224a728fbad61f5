//! What the fleet sees of this host: documents in the store that are always a function of what the host keeps.
//!
//! ```text
//!  memory, runs, decision --compose--> what the store should hold --writer--> the store
//!                                                    (the difference to what it holds)
//! ```
//!
//! Reports are not messages: after an outage of any length the writer compares and writes what differs.

pub mod agent_key;
pub mod audit;
pub mod bounds;
pub mod compose;
pub mod desired;
pub mod document;
pub mod facts;
pub mod writer;
