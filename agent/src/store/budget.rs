//! How much all watched prefixes may hold together, so that what operators write can fill no host's memory.
//!
//! Each prefix has a share of its own; what it needs beyond that comes out of one pool. So a prefix that is flooded takes
//! nothing from another's share, and only it is refused: its own orders wait, those of other prefixes do not.
//!
//! What a listing weighs is estimated before anything is made of it. A text costs many times its size once it is read:
//! each comma of `[0,0,0]` is a number of 32 bytes, and a list has up to as much room again.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Entry, Listing};

/// What all prefixes have as shares of their own, in bytes.
const SHARES: usize = 4 << 20;

/// What they have beyond their shares, in bytes.
const POOL: usize = 14 << 20;

/// What a key costs beside its value: its places in memory, ledger and reports.
const KEY: usize = 1 << 10;

/// What one more value inside a document costs.
const NODE: usize = 64;

/// What is held of all prefixes.
#[derive(Debug)]
pub struct Budget {
    share: usize,
    /// What each prefix takes out of the pool.
    taken: Mutex<BTreeMap<String, usize>>,
}

impl Budget {
    /// For so many prefixes.
    pub fn new(prefixes: usize) -> Self {
        Self { share: SHARES.checked_div(prefixes).unwrap_or(SHARES), taken: Mutex::default() }
    }

    /// Makes room for what a prefix holds from now on, in place of what it held; an error says how much it is, and what
    /// was made of the former listing keeps its room.
    pub fn admit(&self, prefix: &str, listing: &Listing) -> Result<(), String> {
        let weight = weight(listing);
        let wanted = weight.saturating_sub(self.share);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = taken.iter().filter(|(other, _)| *other != prefix).map(|(_, taken)| taken).sum();
        if wanted > POOL.saturating_sub(others) {
            let (keys, kib) = (listing.entries.len(), weight >> 10);
            return Err(format!("{keys} keys would take {kib} KiB of memory, which is not left for them"));
        }
        taken.insert(prefix.to_owned(), wanted);
        Ok(())
    }
}

/// What a listing may take in memory, in bytes; never less than it does.
fn weight(listing: &Listing) -> usize {
    let of =
        |entry: &Entry| [KEY, entry.key.len(), entry.value.len(), NODE.saturating_mul(nodes(&entry.value))];
    listing.entries.iter().flat_map(of).fold(0, usize::saturating_add)
}

/// How many values a document has at the most: before each but the first is one of these.
fn nodes(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b',' | b':' | b'\n' | b'[' | b'{' | b'-')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(keys: usize, value: &str) -> Listing {
        let entry = |n: usize| Entry {
            key: format!("p/{n}"),
            value: value.as_bytes().to_vec(),
            too_large: false,
            modify_index: 1,
        };
        Listing { index: 1, entries: (0..keys).map(entry).collect(), sent: 0 }
    }

    #[test]
    fn a_flooded_prefix_is_refused_alone_and_admitted_when_it_is_small_again() {
        let budget = Budget::new(4);
        let order = "task: count\nparams:\n  cluster: main\n  keep: 7\nnot_before: 2026-11-21T22:00:00Z\n";
        let (fleet, flood) = (listing(1_000, order), listing(30_000, order));
        assert_eq!(budget.admit("host/", &fleet), Ok(()));
        assert!(budget.admit("group/", &flood).unwrap_err().contains("30000 keys"));
        // Also beside one that has all of the pool there is place for a share.
        let keys = (POOL + SHARES / 4) / (KEY + 16);
        assert_eq!(budget.admit("host/", &listing(100, order)), Ok(()));
        assert_eq!(budget.admit("group/", &listing(keys, "")), Ok(()));
        assert_eq!(budget.admit("other/", &listing(500, order)), Ok(()));
        assert!(budget.admit("host/", &listing(9_000, "")).is_err());
        assert_eq!(budget.admit("group/", &listing(10, order)), Ok(()));
        assert_eq!(budget.admit("host/", &listing(9_000, "")), Ok(()));
    }

    #[test]
    fn a_text_weighs_what_it_becomes() {
        let bomb = format!("task: x\nparams: {{a: [{}]}}\n", "0,".repeat(30_000));
        assert!(weight(&listing(1, &bomb)) > 30_000 * 64);
        // A few such orders are admitted, and not as many as would fit by their size.
        assert_eq!(Budget::new(4).admit("p/", &listing(5, &bomb)), Ok(()));
        assert!(Budget::new(4).admit("p/", &listing(20, &bomb)).is_err());
    }
}
