//! Scenarios with the real binary, and with other programs on the machine; they stand in `tests/`.

pub mod trace;
