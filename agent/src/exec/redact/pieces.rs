//! A long secret is looked for by its pieces.
//!
//! A pattern in memory costs many times its length, and a value of a megabyte has fifty forms. So a value of more than
//! [`SHORT`] bytes is cut into pieces of about as many, each of which is looked for in all forms. Neighbours overlap, so
//! that an occurrence of the whole is covered without a gap, and one that is cut is covered but for less than a piece.
//! The lines of the value are cut by themselves.
//!
//! Of each form of a piece 48 bits are kept, and the length: nothing that could be read back. A text is taken for a piece
//! where those of its bytes are the same; the key is another one in each process, so no text is made to fit. A filter of
//! one bit a beginning keeps that question rare.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;

use super::forms::{forms_of, texts_of};

/// Up to this length, in bytes, a value is looked for as a whole, and a piece is so long.
pub(super) const SHORT: usize = 64;
/// How many bytes neighbours share. Base64 writes what is of two pieces in at most two of its characters.
const OVERLAP: usize = 4;
/// A character may belong to a piece with up to so many bytes more.
const MORE: usize = 3;
/// The shortest form of a piece, and the shortest piece, in bytes.
const SHORTEST: usize = 16;
/// The filter has at least so many bits for each form.
const FILTER_BITS: u64 = 12;
/// While it has no more than this, it has so many: then hardly anything is held back that is no beginning.
const SMALL_FILTER: u64 = 16 << 20;
/// See [`SMALL_FILTER`].
const SMALL_FILTER_BITS: u64 = 64;
/// The forms lie in so many heaps, by the first bits of their mark.
const HEAPS: usize = 1 << 16;

/// What of a beginning has a bit in the filter: where that part begins, its length, and a salt. A short one has several
/// bits: of a line only the end is asked for, and one bit in twenty is set.
const PARTS: [(usize, usize, u64); 14] = [
    (0, 8, 8),
    (8, 8, 16),
    (0, 4, 4),
    (0, 4, 104),
    (0, 4, 204),
    (0, 3, 3),
    (0, 3, 103),
    (0, 3, 203),
    (0, 2, 2),
    (0, 2, 102),
    (0, 2, 202),
    (0, 1, 1),
    (0, 1, 101),
    (0, 1, 201),
];

/// The forms of all pieces.
pub(super) struct Pieces {
    key: [u64; 2],
    /// Where each heap begins among the marks, and the end of the last one.
    heaps: Vec<u32>,
    /// What follows behind the first 16 bits of each mark, by heaps, in order.
    marks: Vec<u32>,
    filter: Vec<u64>,
    /// Which lengths the forms have.
    lengths: Vec<bool>,
}

impl Pieces {
    /// Those of the long ones among these values; `None`: there are no long ones.
    pub(super) fn of(values: &[&str]) -> Option<Self> {
        let random = RandomState::new();
        let key = [random.hash_one(1) | 1, random.hash_one(2)];
        let mut pieces = Self {
            key,
            heaps: vec![0; HEAPS + 1],
            marks: Vec::new(),
            filter: Vec::new(),
            lengths: Vec::new(),
        };
        // First how many there are, so that all of them take no more room than they need.
        let mut count = 0_u64;
        let each = |each: &mut dyn FnMut(&[u8])| values.iter().for_each(|value| each_form(value, each));
        each(&mut |form| {
            count += 1;
            let (heap, _) = pieces.mark(form);
            if let Some(next) = pieces.heaps.get_mut(heap + 1) {
                *next = next.saturating_add(1);
            }
            if pieces.lengths.len() <= form.len() {
                pieces.lengths.resize(form.len() + 1, false);
            }
            if let Some(length) = pieces.lengths.get_mut(form.len()) {
                *length = true;
            }
        });
        if count == 0 {
            return None;
        }
        let mut sum = 0;
        for heap in &mut pieces.heaps {
            sum += *heap;
            *heap = sum;
        }
        pieces.marks = vec![0; usize::try_from(count).ok()?];
        let bits = (count * FILTER_BITS).max(SMALL_FILTER.min(count * SMALL_FILTER_BITS));
        pieces.filter = vec![0; usize::try_from(bits.div_ceil(64).max(1024)).ok()?];
        let mut next: Vec<u32> = pieces.heaps.clone();
        each(&mut |form| {
            let (heap, rest) = pieces.mark(form);
            if let Some(at) = next.get_mut(heap) {
                if let Some(place) = pieces.marks.get_mut(*at as usize) {
                    *place = rest;
                }
                *at += 1;
            }
            for bit in pieces.beginnings(form).collect::<Vec<_>>() {
                if let Some(word) = pieces.filter.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
            }
        });
        for heap in 0..HEAPS {
            let range = pieces.heap(heap);
            pieces.marks.get_mut(range).into_iter().for_each(<[u32]>::sort_unstable);
        }
        Some(pieces)
    }

    /// The length of the longest form, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.lengths.len().saturating_sub(1)
    }

    /// Each stretch that is a form of a piece; of those with the same beginning the longest. In order.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for at in 0..=bytes.len().saturating_sub(SHORTEST) {
            let Some(rest) = bytes.get(at..).filter(|rest| self.may_begin(rest)) else { continue };
            found.extend(self.longest_at(rest).map(|length| (at, at + length)));
        }
        found
    }

    /// Whether these bytes, with others behind them, could become a form.
    pub(super) fn is_beginning(&self, bytes: &[u8]) -> bool {
        bytes.len() < self.longest() && self.may_begin(bytes)
    }

    fn longest_at(&self, bytes: &[u8]) -> Option<usize> {
        let mut hash = self.key[1];
        let mut longest = None;
        for (at, byte) in bytes.iter().take(self.longest()).enumerate() {
            hash = self.step(hash, *byte);
            if self.lengths.get(at + 1) == Some(&true) && self.is_known(hash) {
                longest = Some(at + 1);
            }
        }
        longest
    }

    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash ^ u64::from(byte)).wrapping_mul(self.key[0]).rotate_left(29)
    }

    fn mark(&self, form: &[u8]) -> (usize, u32) {
        split(form.iter().fold(self.key[1], |hash, byte| self.step(hash, *byte)))
    }

    fn heap(&self, heap: usize) -> Range<usize> {
        let edge = |at: usize| self.heaps.get(at).map_or(0, |edge| *edge as usize);
        edge(heap)..edge(heap + 1)
    }

    fn is_known(&self, hash: u64) -> bool {
        let (heap, rest) = split(hash);
        self.marks.get(self.heap(heap)).is_some_and(|marks| marks.binary_search(&rest).is_ok())
    }

    /// The bits of the filter that all texts have which begin as this one does.
    fn beginnings(&self, bytes: &[u8]) -> impl Iterator<Item = usize> {
        let bits = self.filter.len() as u128 * 64;
        PARTS.iter().filter_map(move |(from, length, salt)| {
            let part = bytes.get(*from..from + length)?;
            let word = part.iter().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
            let hash = mixed((word ^ self.key[1]).wrapping_mul(self.key[0]).wrapping_add(*salt));
            usize::try_from((u128::from(hash) * bits) >> 64).ok()
        })
    }

    fn may_begin(&self, bytes: &[u8]) -> bool {
        let is_set = |bit: usize| self.filter.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1);
        self.beginnings(bytes).all(is_set)
    }
}

fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// The heap of a mark, and the rest of it.
fn split(hash: u64) -> (usize, u32) {
    let hash = mixed(hash);
    ((hash >> 48) as usize, (hash >> 16) as u32)
}

/// Each form of each piece of a value, if it is a long one. One that several pieces have may come more than once.
pub(super) fn each_form(value: &str, each: &mut dyn FnMut(&[u8])) {
    if value.len() <= SHORT {
        return;
    }
    let mut pieces: Vec<&str> = texts_of(value).flat_map(|text| Cuts { text, at: Some(0) }).collect();
    pieces.sort_unstable();
    pieces.dedup();
    let mut forms = BTreeSet::new();
    for piece in pieces.into_iter().filter(|piece| piece.len() >= SHORTEST) {
        forms_of(piece, &mut forms);
        forms.iter().for_each(|form| each(form));
        forms.clear();
    }
}

/// Cuts a text into pieces, the last of which ends with it.
struct Cuts<'a> {
    text: &'a str,
    at: Option<usize>,
}

impl<'a> Iterator for Cuts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (start, length) = (self.at?, self.text.len());
        if start + SHORT + MORE >= length {
            self.at = None;
            return self.text.get(start..);
        }
        let floor = |at: usize| (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let end = floor(start + SHORT);
        let next = floor((end - OVERLAP).min(length - SHORT));
        // The end of every line would look like the beginning of a piece that begins with one.
        let is_good =
            |at: &usize| self.text.get(*at..).is_some_and(|rest| !rest.starts_with(char::is_whitespace));
        self.at = Some((start + 1..=next).rev().find(is_good).unwrap_or(next));
        self.text.get(start..end)
    }
}
