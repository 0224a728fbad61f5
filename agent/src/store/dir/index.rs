//! The counter of a folder store: which content each key had last, and at which count.
//!
//! A folder has no indexes of its own, so they are given out when it is read: each key whose content differs
//! from what is remembered gets the next count, which is above every earlier one, also after a restart. A
//! removed key leaves a mark, so that the index of its prefix grows; only the newest marks are kept, and
//! [`Index::floor`] stands for the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The format that this version writes and the only one that it reads.
const VERSION: u32 = 1;

/// How many removed keys are remembered one by one.
const MAX_GONE: usize = 1000;

/// What is remembered of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexEntry {
    /// SHA-256 of the content, hexadecimal; `None`: the key is gone.
    digest: Option<String>,
    /// The count of its last change.
    index: u64,
}

/// The counter with what it was given out for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    version: u32,
    /// The highest count given out.
    counter: u64,
    /// The highest count of a removed key that is not remembered any more; at least 1.
    floor: u64,
    keys: BTreeMap<String, IndexEntry>,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: VERSION, counter: 1, floor: 1, keys: BTreeMap::new() }
    }
}

impl Index {
    /// Reads what [`Index::write`] wrote. A text that is not of this format is an error: to start over
    /// would give old content a new count.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let index: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let highest = index.keys.values().map(|mark| mark.index).max().unwrap_or(0).max(index.floor);
        if index.version != VERSION {
            Err(format!("version {} is not {VERSION}", index.version))
        } else if index.floor == 0 || highest > index.counter || index.counter == u64::MAX {
            Err("its counts contradict one another".to_owned())
        } else {
            Ok(index)
        }
    }

    /// The text for the disk.
    pub(super) fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// Compares with the keys below the prefixes of a scope now (key and digest); true: something was counted.
    pub(super) fn update(&mut self, scope: &[String], now: &BTreeMap<String, String>) -> bool {
        let before = self.counter;
        // Of what changed between two looks, what came is counted before what went: an order that was there
        // when a nearer one went away must not seem to have come after it.
        let gone: Vec<String> = self.gone(scope, now).cloned().collect();
        for (key, digest) in now {
            self.count(key, Some(digest));
        }
        for key in gone {
            self.count(&key, None);
        }
        self.forget();
        self.counter != before
    }

    /// Whether a key that was there is missing now.
    pub(super) fn misses(&self, scope: &[String], now: &BTreeMap<String, String>) -> bool {
        self.gone(scope, now).next().is_some()
    }

    /// Whether a key has this content, as far as is known.
    pub(super) fn holds(&self, key: &str, digest: &str) -> bool {
        self.keys.get(key).is_some_and(|mark| mark.digest.as_deref() == Some(digest))
    }

    /// The count of a key that is there; `None`: it is not.
    pub(super) fn of_key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).filter(|mark| mark.digest.is_some()).map(|mark| mark.index)
    }

    /// The highest count below `prefix`, removals included; at least 1.
    pub(super) fn of_prefix(&self, prefix: &str) -> u64 {
        self.below(prefix).map(|(_, mark)| mark.index).max().unwrap_or(1).max(self.floor)
    }

    fn gone<'a>(
        &'a self,
        scope: &'a [String],
        now: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a String> {
        let below = scope.iter().flat_map(|prefix| self.below(prefix));
        below.filter(|(key, mark)| mark.digest.is_some() && !now.contains_key(*key)).map(|(key, _)| key)
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a IndexEntry)> {
        self.keys.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Counts the content of one key; `None`: it is gone.
    pub(super) fn count(&mut self, key: &str, digest: Option<&String>) {
        if self.keys.get(key).is_some_and(|mark| mark.digest.as_ref() == digest) {
            return;
        }
        self.counter += 1;
        self.keys.insert(key.to_owned(), IndexEntry { digest: digest.cloned(), index: self.counter });
    }

    fn forget(&mut self) {
        let mut gone: Vec<(u64, String)> = self
            .keys
            .iter()
            .filter(|(_, mark)| mark.digest.is_none())
            .map(|(key, mark)| (mark.index, key.clone()))
            .collect();
        let extra = gone.len().saturating_sub(MAX_GONE);
        gone.sort();
        for (index, key) in gone.into_iter().take(extra) {
            self.keys.remove(&key);
            self.floor = self.floor.max(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, digest)| ((*key).to_owned(), (*digest).to_owned())).collect()
    }

    #[test]
    fn each_change_of_content_is_counted_once_and_above_all_others() {
        let mut index = Index::default();
        assert_eq!(index.of_prefix("p/"), 1, "an index is at least 1");
        assert!(index.update(&["p/".to_owned()], &now(&[("p/a", "1"), ("p/b", "1")])));
        assert_eq!((index.of_key("p/a"), index.of_key("p/b")), (Some(2), Some(3)));
        assert!(!index.update(&["p/".to_owned()], &now(&[("p/a", "1"), ("p/b", "1")])), "the same content");
        assert!(index.update(&["p/".to_owned()], &now(&[("p/a", "2"), ("p/b", "1")])));
        assert_eq!((index.of_key("p/a"), index.of_key("p/b")), (Some(4), Some(3)));
        let mut again = Index::read(&index.write().unwrap()).unwrap();
        assert_eq!(again, index);
        again.update(&["p/".to_owned()], &now(&[("p/a", "1"), ("p/b", "1")]));
        assert_eq!(again.of_key("p/a"), Some(5), "the old content again is a change");
    }

    #[test]
    fn a_removal_raises_the_prefix_and_no_neighbour() {
        let mut index = Index::default();
        index.update(&["".to_owned()], &now(&[("p/a", "1"), ("q/a", "1")]));
        let neighbour = index.of_prefix("q/");
        let before = index.of_prefix("p/");
        assert!(index.update(&["p/".to_owned()], &now(&[])));
        assert!(index.of_prefix("p/") > before);
        assert_eq!((index.of_key("p/a"), index.of_prefix("q/")), (None, neighbour));
        index.update(&["p/".to_owned()], &now(&[("p/a", "1")]));
        assert!(index.of_key("p/a").unwrap() > before);
    }

    #[test]
    fn what_is_remembered_of_removed_keys_has_a_bound() {
        let mut index = Index::default();
        let mut last = 0;
        for round in 0..1500 {
            index.update(&["p/".to_owned()], &now(&[(&format!("p/{round}"), "1")]));
            assert!(index.of_prefix("p/") > last);
            last = index.of_prefix("p/");
        }
        assert_eq!(index.keys.len(), MAX_GONE + 1);
        assert!(Index::read(&index.write().unwrap()).is_ok());
    }

    #[test]
    fn a_text_of_another_format_is_no_index() {
        for text in [
            "",
            "{}",
            r#"{"version":2,"counter":1,"floor":1,"keys":{}}"#,
            r#"{"version":1,"counter":1,"floor":0,"keys":{}}"#,
            r#"{"version":1,"counter":1,"floor":1,"keys":{"a":{"digest":null,"index":2}}}"#,
            r#"{"version":1,"counter":18446744073709551615,"floor":1,"keys":{}}"#,
        ] {
            assert!(Index::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Index::read(br#"{"version":1,"counter":7,"floor":1,"keys":{}}"#).is_ok());
    }
}
