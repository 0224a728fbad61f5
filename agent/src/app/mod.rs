//! What joins the parts: the agent's loop and the executor's.

pub mod executor;
