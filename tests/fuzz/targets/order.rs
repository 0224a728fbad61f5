//! Orders: any operator's bytes.
#![no_main]

use hostler::domain::order::Document;
use hostler_fuzz::readable;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Document::read(bytes) {
        readable(&error);
    }
});
