//! Any lines in the place of a ledger: a memory whose facts add up to itself, or an error of one line.
#![no_main]

use std::path::Path;

use hostler::domain::memory::Memory;
use hostler::ledger::orders::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match parse(Path::new("ledger"), &lines) {
        Ok(memory) => {
            let mut again = Memory::default();
            memory.facts().into_iter().for_each(|fact| again.take(fact));
            assert_eq!(again, memory);
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
