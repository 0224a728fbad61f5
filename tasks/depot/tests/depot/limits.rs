//! The limit of 10,000 parts, reached with small parts against a sink that checks and discards.

use std::sync::{Arc, Mutex};

use crate::support::depot::Depot;
use crate::support::handle;
use crate::support::sink::{Seen, bind, serve};

/// What all 10,000 parts hold together, in first parts.
const UNITS: usize = 1_067_000;
const UNIT: usize = 128;

#[test]
fn ten_thousand_parts_are_filled_to_the_last_byte_and_one_more_is_refused() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (listener, address) = handle().block_on(bind()).unwrap();
    let task = handle().spawn(serve(listener, Arc::clone(&seen)));
    let depot = Depot::new(address, "");
    let bytes = vec![7u8; UNITS * UNIT];
    let unit = UNIT.to_string();
    let put = depot.feed(&["put", "db/full", "--part", &unit, "--json"], &bytes).ok().json();
    assert_eq!(put["backup"]["size"], bytes.len());
    {
        let mut seen = seen.lock().unwrap();
        assert_eq!(seen.parts.len(), 10_000);
        assert_eq!(seen.parts.values().sum::<u64>(), bytes.len() as u64);
        assert_eq!(seen.parts[&10_000], 560 * UNIT as u64);
        assert_eq!(seen.small.len(), 1, "the manifest");
        seen.parts.clear();
    }
    let mut more = bytes;
    more.push(7);
    depot.feed(&["put", "db/more", "--part", &unit], &more).fails(9, "use --expect");
    assert_eq!(seen.lock().unwrap().small.len(), 1, "no manifest of what did not fit");
    task.abort();
}
