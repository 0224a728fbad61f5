//! What HANA's tools print: the first byte chooses the reader, the rest is the text.
#![no_main]

use hostler_fuzz::readable;
use hostler_hana::neighbours::every_reader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    if let Err(error) = every_reader(usize::from(*choice), &String::from_utf8_lossy(text)) {
        readable(&error);
    }
});
