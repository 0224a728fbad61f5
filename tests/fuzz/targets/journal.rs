//! Journals: bytes as they stand on a damaged disk, and, because no mutation hits a checksum, the same lines
//! with good ones; each is replayed on a small plan.
#![no_main]

use std::sync::LazyLock;

use hostler::domain::plan::Plan;
use hostler::domain::run::{Record, replay};
use hostler::host::log;
use hostler::ledger::journal::JournalError;
use hostler_fuzz::readable;

static PLAN: LazyLock<Plan> =
    LazyLock::new(|| serde_json::from_str(include_str!("plan.json")).expect("the plan of the target"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((records, good)) = log::records(bytes) {
        assert!(good <= bytes.len());
        let again: String = records.iter().map(|json| log::line(json)).collect();
        assert!(again.len() <= bytes.len());
        go(&records);
    }
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains('\r')).collect();
    let whole: String = lines.iter().map(|json| log::line(json)).collect();
    let (records, good) = log::records(whole.as_bytes()).expect("good checksums");
    assert_eq!((good, &records), (whole.len(), &lines));
    go(&records);
});

fn go(lines: &[&str]) {
    let mut all: Vec<Record> = Vec::new();
    for line in lines {
        match serde_json::from_str::<Vec<Record>>(line) {
            Ok(mut records) => all.append(&mut records),
            Err(error) => return readable(&JournalError::from(error)),
        }
    }
    if let Err(error) = replay(&PLAN, &all) {
        readable(&JournalError::from(error));
    }
}
