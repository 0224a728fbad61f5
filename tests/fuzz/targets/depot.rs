//! Manifests and journal entries of the depot: bytes as they come from a bucket or a disk, and, because no mutation hits a
//! checksum, the same manifest with a good one.
#![no_main]

use hostler_depot::journal::Entry;
use hostler_depot::manifest::Manifest;
use hostler_fuzz::readable;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    manifest(bytes);
    if let Ok(inner) = serde_json::from_slice::<Manifest>(bytes)
        && let Ok(sealed) = inner.seal()
    {
        manifest(&sealed);
    }
    match Entry::read(bytes) {
        Ok(entry) => {
            let again = serde_json::to_vec(&entry).expect("an entry can be written");
            assert_eq!(Entry::read(&again), Ok(entry));
        }
        Err(error) => readable(&error),
    }
});

fn manifest(text: &[u8]) {
    match Manifest::open(text) {
        Ok(manifest) => {
            assert!(manifest.sums().is_some(), "what was opened has its sums");
            assert!(manifest.stored.key.starts_with(&manifest.name), "and names bytes of its own");
            let again = manifest.seal().expect("a manifest can be sealed");
            assert!(Manifest::open(&again).is_ok(), "what was opened can be opened again");
        }
        Err(error) => readable(&error),
    }
}
