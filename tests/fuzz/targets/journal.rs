//! Any bytes in the place of a journal: a state, or an error; never a panic, whatever the records say.
#![no_main]

use hostler::domain::plan::Plan;
use hostler::domain::run::{Record, replay};
use hostler::host::log;
use libfuzzer_sys::fuzz_target;

/// Three steps of different kinds, a probe and a verification.
const PLAN: &str = include_str!("../plan.json");

fuzz_target!(|bytes: &[u8]| {
    let plan: Plan = serde_json::from_str(PLAN).unwrap();
    let _ = log::records(bytes);
    // Beside the checksums, which no fuzzer guesses: the records themselves, a list a line.
    let mut records: Vec<Record> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(mut more) = serde_json::from_slice(line) {
            records.append(&mut more);
        }
    }
    if let Err(error) = replay(&plan, &records) {
        assert!(!error.to_string().is_empty());
    }
});
