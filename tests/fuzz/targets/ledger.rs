//! Ledgers: lines whose checksums are good and whose contents need not be.
#![no_main]

use std::path::Path;

use hostler::ledger::orders::parse;
use hostler_fuzz::readable;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Err(error) = parse(Path::new("/var/lib/hostler/ledger"), &lines) {
        readable(&error);
    }
});
