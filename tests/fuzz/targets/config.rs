//! Fragments of the configuration.
#![no_main]

use hostler::config::Fragment;
use hostler_fuzz::readable;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Fragment::read(bytes) {
        readable(&error);
    }
});
