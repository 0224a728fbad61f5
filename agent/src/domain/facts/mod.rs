//! Facts: what a host says of itself, for people, gates and rollouts.
//!
//! A fact is a file that root installed: a command that is asked at an interval, or a constant. Its value is one JSON
//! object. This folder holds what can be said of facts without touching anything:
//!
//! ```text
//!  name.rs        what a fact may be called
//!  command.rs     a fact that is asked: its file and its bounds
//!  value.rs       from what a command printed to a value
//!  standing.rs    when a fact is asked, how long a value counts, and when it is stale
//!  expression.rs  expressions over facts, for gates and for searches
//! ```

mod command;
mod expression;
mod name;
mod standing;
mod value;

pub use command::{FactCommand, MAX_FILE};
pub use expression::{Evaluator, Expression, Scope};
pub use name::{BadFactName, FactName, HOST};
pub use standing::{AskedFact, Known};
pub use value::{MAX_VALUE, Object, read};

/// The most facts of one host.
pub const MAX_FACTS: usize = 64;
