//! The walk through a whole document before it becomes a type: what two readers would read differently is refused.
//!
//! The types cannot do that: free-form parameters are no type of ours, and of two equal keys a reader keeps one without
//! a word. The walk keeps nothing but the keys of the maps that it stands in, and has a budget, so that a few
//! aliases cannot stand for a gigabyte.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::single_line;

/// The largest whole number that every reader holds exactly.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// Walks a whole document and refuses what [`parse`](super::parse) says; keeps nothing.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a>(pub(super) &'a Cell<usize>);

impl Walk<'_> {
    fn spend<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes.saturating_add(1));
        self.0.set(left.ok_or_else(|| E::custom("aliases expand too far: replace them by their values"))?);
        Ok(())
    }

    fn number<E: de::Error>(self, number: f64, text: impl fmt::Display) -> Result<(), E> {
        self.spend(8)?;
        if !number.is_finite() {
            return Err(E::custom(format!("`{text}` is not a finite number: write it as text, in quotes")));
        }
        if number.abs() > LARGEST {
            let message = format!("the number {text} is beyond 2^53: write it as text, in quotes");
            return Err(E::custom(message));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.number(number, number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        // 2^53 + 1 would become 2^53 as a double and pass.
        let double = if number > 1 << 53 { f64::MAX } else { number as f64 };
        self.number(double, number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        let double = if number.unsigned_abs() > 1 << 53 { f64::MAX } else { number as f64 };
        self.number(double, number)
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<(), E> {
        self.number(f64::MAX, number)
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<(), E> {
        self.number(f64::MAX, number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.spend(1)?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.spend(1)?;
        let mut seen = HashSet::new();
        while map.next_key_seed(Key(self, &mut seen))?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("tags are not allowed: write the plain value, without `!…`"))
    }
}

/// One key of a map: text, and not seen before.
struct Key<'a, 'b>(Walk<'a>, &'b mut HashSet<String>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text: put it in quotes")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        self.0.spend(key.len())?;
        if self.1.insert(key.to_owned()) {
            return Ok(());
        }
        Err(E::custom(format!("the key `{}` appears twice: remove one", single_line(key))))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("tags are not allowed: write the plain key, without `!…`"))
    }
}
