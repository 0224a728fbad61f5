//! Takes a run's secrets out of everything that leaves its steps: a streaming filter.
//!
//! It knows each value as it is, and as programs write it ([`forms`]); a long one by its pieces ([`pieces`]). Every byte
//! that belongs to such an occurrence is covered, and each stretch of covered bytes becomes one mark, however the bytes
//! were cut into chunks and however occurrences overlap. What could still become an occurrence is held back, and nothing
//! else, so that output shows at once.

mod forms;
mod pieces;

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use aho_corasick::packed::Searcher;
use zeroize::Zeroize;

use self::forms::{forms_of, texts_of};
use self::pieces::{Pieces, SHORT};

/// What stands in the place of a secret.
pub const MARK: &str = "[redacted]";
/// The quick question asks for so many bytes of each form: enough to be rare, few enough to be shared by many forms.
const QUICK: usize = 8;

/// Knows what must not leave.
pub struct Redactor {
    /// Sorted, so that a beginning of any of them is found by bisection.
    patterns: Vec<Vec<u8>>,
    begins: [bool; 256],
    finder: Option<AhoCorasick>,
    /// Finds beginnings of patterns, many bytes at once; none where the processor or the patterns do not allow it.
    quick: Option<Searcher>,
    pieces: Option<Pieces>,
    longest: usize,
}

impl Redactor {
    /// For these values.
    ///
    /// # Errors
    /// Where they are too many or too long to be looked for: then nothing may be started.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let values: Vec<&str> = values.into_iter().collect();
        let mut forms = BTreeSet::new();
        let short = values.iter().filter(|value| value.len() <= SHORT);
        short.flat_map(|value| texts_of(value)).for_each(|text| forms_of(text, &mut forms));
        Self::of_patterns(forms.into_iter().collect(), Pieces::of(&values))
    }

    fn of_patterns(patterns: Vec<Vec<u8>>, pieces: Option<Pieces>) -> Result<Self, String> {
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.first()) {
            if let Some(begin) = begins.get_mut(usize::from(*first)) {
                *begin = true;
            }
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let longest = longest.max(pieces.as_ref().map_or(0, Pieces::longest));
        let quick: BTreeSet<&[u8]> =
            patterns.iter().map(|pattern| pattern.get(..QUICK).unwrap_or(pattern)).collect();
        let quick = aho_corasick::packed::Config::new()
            .heuristic_pattern_limits(false)
            .builder()
            .extend(quick)
            .build();
        let finder = match patterns.is_empty() {
            true => None,
            // What the builder says could quote a pattern.
            false => Some(
                AhoCorasick::new(&patterns)
                    .map_err(|_| "the secrets are too long to be kept out of outputs")?,
            ),
        };
        Ok(Self { patterns, begins, finder, quick, pieces, longest })
    }

    /// The length of the longest form of a secret, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// A whole text without the secrets.
    pub fn text(self: &Arc<Self>, text: &str) -> String {
        let mut filter = Filter::new(Arc::clone(self));
        let mut out = Vec::with_capacity(text.len());
        filter.add(text.as_bytes(), &mut out);
        filter.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The stretches of `bytes` that belong to an occurrence, in order, none touching the next.
    fn covered(&self, bytes: &[u8], already: usize) -> Vec<(usize, usize)> {
        let of_pieces = self.pieces.as_ref().map(|pieces| pieces.find(bytes)).unwrap_or_default();
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        if already > 0 {
            stretches.push((0, already));
        }
        // The quick question first: nearly always there is nothing.
        let nothing = already == 0 && self.quick.as_ref().is_some_and(|quick| quick.find(bytes).is_none());
        if let Some(finder) = self.finder.as_ref().filter(|_| !nothing) {
            // They come in the order of their ends.
            for found in finder.find_overlapping_iter(bytes) {
                join_last(&mut stretches, (found.start(), found.end()));
            }
        }
        if of_pieces.is_empty() {
            return stretches;
        }
        let mut all = [stretches, of_pieces].concat();
        all.sort_unstable();
        let mut joined = Vec::new();
        all.into_iter().for_each(|stretch| join_last(&mut joined, stretch));
        joined
    }

    /// From where on `bytes` could still become an occurrence.
    fn undecided(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let open = |at: &usize| {
            let Some(rest) = bytes.get(*at..) else { return false };
            let begins = rest.first().and_then(|first| self.begins.get(usize::from(*first)));
            (begins == Some(&true) && self.is_beginning(rest))
                || self.pieces.as_ref().is_some_and(|pieces| pieces.is_beginning(rest))
        };
        (from..bytes.len()).find(open).unwrap_or(bytes.len())
    }

    fn is_beginning(&self, bytes: &[u8]) -> bool {
        // A longer text with this beginning sorts right behind it.
        let at = self.patterns.partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns.get(at).is_some_and(|pattern| pattern.starts_with(bytes))
    }
}

impl Drop for Redactor {
    fn drop(&mut self) {
        self.patterns.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// One stream on its way through.
pub struct Filter {
    redactor: Arc<Redactor>,
    held: Vec<u8>,
    /// So many of the held bytes, and of those to come, are covered by what was found before.
    covered: usize,
    /// Whether the last byte that went out was covered.
    in_mark: bool,
}

impl Filter {
    /// A filter at the beginning of a stream.
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new(), covered: 0, in_mark: false }
    }

    /// Takes a chunk, and gives `leave` what may leave, in one or two pieces. `seam` is room for the first of them.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        seam: &mut Vec<u8>,
        mut leave: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Where a stream is cut changes nothing: what was held back is settled with the next few bytes alone.
        seam.clear();
        while (!self.held.is_empty() || self.covered > 0) && !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.redactor.longest));
            self.take(now, seam);
            bytes = later;
        }
        if !seam.is_empty() {
            leave(seam)?;
        }
        // Nearly always nothing is found: then nothing is copied, and nothing has to be wiped.
        if self.redactor.covered(bytes, 0).is_empty() {
            let (now, later) = bytes.split_at(self.redactor.undecided(bytes));
            self.in_mark &= now.is_empty();
            self.held.extend_from_slice(later);
            return if now.is_empty() { Ok(()) } else { leave(now) };
        }
        seam.clear();
        self.take(bytes, seam);
        leave(seam)
    }

    /// Some bytes of the stream were left out here. What comes next may be the end of an occurrence that began in them,
    /// so of what follows as many bytes as that could be stay behind, and so does the beginning that was held back.
    pub fn gap(&mut self) {
        self.held.zeroize();
        self.covered = self.redactor.longest.saturating_sub(1);
        self.in_mark = self.covered > 0;
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let until = self.redactor.undecided(&self.held);
        self.emit(until, out);
    }

    /// The same into one text.
    fn add(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Ok(()) = self.push(bytes, &mut Vec::new(), |piece| {
            out.extend_from_slice(piece);
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// The stream is over: what was held back leaves as well.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.emit(self.held.len(), out);
        self.in_mark = false;
    }

    fn emit(&mut self, until: usize, out: &mut Vec<u8>) {
        if until == 0 {
            return; // What is covered of the held bytes stays so.
        }
        let stretches = self.redactor.covered(&self.held, self.covered);
        self.covered = 0;
        let mut at = 0;
        for (start, end) in stretches {
            if start >= until {
                break;
            }
            self.plain(at, start, out);
            if !std::mem::replace(&mut self.in_mark, true) {
                out.extend_from_slice(MARK.as_bytes());
            }
            at = end.min(until);
            self.covered = end.saturating_sub(until);
        }
        self.plain(at, until, out);
        // What has left is wiped, not only forgotten.
        let rest = self.held.split_off(until);
        self.held.zeroize();
        self.held = rest;
    }

    fn plain(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        if let Some(bytes) = self.held.get(from..to).filter(|bytes| !bytes.is_empty()) {
            out.extend_from_slice(bytes);
            self.in_mark = false;
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// Adds a stretch, and joins it with the ones before that it touches.
fn join_last(stretches: &mut Vec<(usize, usize)>, (mut start, mut end): (usize, usize)) {
    while let Some((from, to)) = stretches.pop_if(|(_, to)| *to >= start) {
        (start, end) = (start.min(from), end.max(to));
    }
    stretches.push((start, end));
}

#[cfg(test)]
mod tests;
