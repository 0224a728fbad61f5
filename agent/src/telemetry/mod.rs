//! What a monitoring system is told: measurements, whether the agent lives, and whether it takes orders.
//!
//! ```text
//!  GET /metrics  ──┐                               ┌─> app: a Snapshot ──metrics::page──> text
//!  GET /health   ──┼──> http: a Query ──> loop ─┤
//!  GET /ready    ──┘    (4 at once, 4 KiB, 10 s)   └─> a line of why
//! ```
//!
//! Nothing here happens by itself: without a question nothing is measured, and no timer runs.

pub mod counters;
pub mod http;
pub mod metrics;
