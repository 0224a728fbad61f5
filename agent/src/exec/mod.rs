//! To come.

pub mod ansible;
