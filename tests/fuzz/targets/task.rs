//! Tasks: what an author installs.
#![no_main]

use hostler::domain::task::Task;
use hostler_fuzz::readable;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(errors) = Task::read(text) {
        assert!(!errors.is_empty(), "refused without a reason");
        errors.iter().for_each(readable);
    }
});
