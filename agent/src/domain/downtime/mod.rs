//! Downtime: how long operations kept services from their users, added up and held against a budget.
//!
//! ```text
//!  service.rs    names of services, and patterns over them
//!  measured.rs   one line of a step's report, and sums of them
//!  totals.rs     what the host remembers: per service and day, and per run
//!  objective.rs  what the configuration promises for a service
//!  budget.rs     what is left of a budget, and when the gate of a task opens
//! ```
//!
//! All amounts are whole milliseconds. Days are days of UTC, and a downtime belongs to the day on which the journal of its
//! run took it in: that instant never changes, whatever becomes of the clock, the agent or the executor afterwards.

pub mod budget;
mod measured;
mod objective;
mod service;
pub mod totals;

pub use measured::{Downtime, Journaled, MAX_SERVICES_AT_ONCE, Millis, added_up, read_line};
pub use objective::{Objective, Target, Window};
pub use service::{Service, ServicePattern};
pub use totals::{Day, DowntimeTotals};
