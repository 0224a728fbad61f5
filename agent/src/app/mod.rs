//! What joins the parts: the agent's loop, the executor's, and the store that both kinds of commands open.

pub mod agent;
pub mod executor;
mod firing;
pub mod open;
mod place;
pub mod watcher;
mod watcher_link;
