//! Any bytes in the place of a configuration file: a fragment, or one line on what is wrong with it.
#![no_main]

use hostler::config::Fragment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Fragment::read(bytes) {
        let line = error.to_string();
        assert!(!line.is_empty() && !line.contains('\n') && line.len() < 8192, "{line:?}");
    }
});
