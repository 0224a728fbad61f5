//! The nouns and the decisions: no input, no output, no clock, no runtime.

pub mod control;
pub mod cron;
pub mod decide;
pub mod draft;
pub mod freeze;
pub mod ids;
pub mod keys;
pub mod memory;
pub mod name;
pub mod order;
pub mod params;
pub mod plan;
pub mod reconcile;
pub mod run;
pub mod schedule;
pub mod secret;
pub mod source;
pub mod span;
pub mod standing;
pub mod summary;
pub mod task;
pub mod template;
pub mod text;
pub mod window;
pub mod yaml;
pub mod zone;
