//! Any text in the place of a task.yml: a task, or a line on each fault.
#![no_main]

use hostler::domain::task::Task;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(faults) = Task::read(text) {
        assert!(!faults.is_empty());
        for fault in faults {
            let line = fault.to_string();
            assert!(!line.is_empty() && !line.contains('\n') && line.len() < 8192, "{line:?}");
        }
    }
});
