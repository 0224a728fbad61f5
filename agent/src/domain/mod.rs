//! The nouns and the decisions: no input, no output, no clock, no runtime.

pub mod control;
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
pub mod run;
pub mod secret;
pub mod source;
pub mod span;
pub mod summary;
pub mod task;
pub mod template;
pub mod text;
pub mod yaml;
