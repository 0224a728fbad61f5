//! Reads the body of an answer within bounds, while it arrives.
//!
//! Consul bounds neither the number nor the sum of the values below a prefix. So a body is never held as it comes: a
//! text of JSON that is longer than the largest value is replaced by a mark as soon as it is, and what remains has a
//! bound. A body that has more of anything is refused at that moment, with the reason.
//!
//! ```text
//!  {"Key":"p/a","Value":"QUFB… (700 KB)","ModifyIndex":7}   as Consul sends it
//!  {"Key":"p/a","Value":"!","ModifyIndex":7}                as it is kept
//! ```

use crate::store::MAX_READ_VALUE;

/// In place of a text that is too long. A value is base64, in which there is no such character.
pub(super) const TOO_LONG: &str = "!";

/// The longest text of JSON that is kept, in bytes: the largest value in base64.
pub(super) const MAX_TEXT: usize = MAX_READ_VALUE.div_ceil(3) * 4;

/// The most that is kept of one body, in bytes. A thousand orders of 2 KiB need less.
pub(super) const MAX_KEPT: usize = 4 << 20;

/// The most that is read of one body, in bytes, whatever is kept of it.
const MAX_READ: usize = 256 << 20;

/// A body within this many pieces is read however small they are; beyond it, a piece has [`SMALL_PIECE`] bytes on average.
const FREE_PIECES: usize = 4096;

/// Each piece costs the processor as much as hundreds of bytes; no server sends such small ones without end.
const SMALL_PIECE: usize = 64;

/// A body that is being read.
#[derive(Debug, Default)]
pub(super) struct Body {
    kept: Vec<u8>,
    read: usize,
    pieces: usize,
    place: Position,
}

/// Where in the JSON the next byte is.
#[derive(Clone, Copy, Debug, Default)]
enum Position {
    /// Outside of texts.
    #[default]
    Between,
    /// In a text that begins, in what is kept, at `start`; `escaped`: behind a backslash.
    Text { start: usize, escaped: bool },
    /// In the rest of a text that is too long.
    Rest { escaped: bool },
}

impl Body {
    /// Takes the next piece in; an error says which bound it breaks.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), String> {
        self.read = self.read.saturating_add(piece.len());
        self.pieces = self.pieces.saturating_add(1);
        if self.read > MAX_READ {
            return Err(format!("the answer has more than {MAX_READ} bytes"));
        }
        if self.pieces > FREE_PIECES.saturating_add(self.read / SMALL_PIECE) {
            return Err(format!("the answer comes in {} pieces of a few bytes each", self.pieces));
        }
        while !piece.is_empty() {
            let length = match self.place {
                Position::Between => {
                    memchr::memchr(b'"', piece).map_or(piece.len(), |at| at.saturating_add(1))
                }
                Position::Text { escaped: true, .. } | Position::Rest { escaped: true } => 1,
                Position::Text { .. } | Position::Rest { .. } => {
                    memchr::memchr2(b'"', b'\\', piece).map_or(piece.len(), |at| at.saturating_add(1))
                }
            };
            let (part, rest) = piece.split_at(length.min(piece.len()));
            piece = rest;
            self.take(part)?;
        }
        Ok(())
    }

    /// Takes a part in that holds at most one quotation mark or backslash, as its last byte.
    fn take(&mut self, part: &[u8]) -> Result<(), String> {
        let last = part.last().copied();
        if !matches!(self.place, Position::Rest { .. }) {
            self.kept.extend_from_slice(part);
        }
        if let Position::Text { start, escaped } = self.place {
            let ends = !escaped && last == Some(b'"');
            let length = self.kept.len().saturating_sub(start).saturating_sub(usize::from(ends));
            if length > MAX_TEXT {
                self.kept.truncate(start);
                self.kept.extend_from_slice(TOO_LONG.as_bytes());
                self.kept.extend(ends.then_some(b'"'));
                self.place = Position::Rest { escaped };
            }
        } else if matches!(self.place, Position::Rest { escaped: false }) && last == Some(b'"') {
            self.kept.push(b'"');
        }
        self.place = match self.place {
            Position::Between if last == Some(b'"') => {
                Position::Text { start: self.kept.len(), escaped: false }
            }
            Position::Between => Position::Between,
            Position::Text { escaped: false, .. } | Position::Rest { escaped: false }
                if last == Some(b'"') =>
            {
                Position::Between
            }
            Position::Text { start, escaped } => {
                Position::Text { start, escaped: !escaped && last == Some(b'\\') }
            }
            Position::Rest { escaped } => Position::Rest { escaped: !escaped && last == Some(b'\\') },
        };
        if self.kept.len() > MAX_KEPT {
            return Err(format!(
                "the answer has more than {MAX_KEPT} bytes beside the values that are too large"
            ));
        }
        Ok(())
    }

    /// How many bytes have come so far.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// What is kept.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(json: &str, piece: usize) -> String {
        let mut body = Body::default();
        json.as_bytes().chunks(piece).for_each(|piece| body.push(piece).unwrap());
        String::from_utf8(body.kept().to_vec()).unwrap()
    }

    #[test]
    fn only_a_text_that_is_too_long_is_replaced_however_it_arrives() {
        let long = "x".repeat(MAX_TEXT + 1);
        let fits = "y".repeat(MAX_TEXT);
        // (as it is sent, as it is kept)
        let rows = [
            ("[]".to_owned(), "[]".to_owned()),
            (format!("[{{\"k\":\"{fits}\",\"n\":7}}]"), format!("[{{\"k\":\"{fits}\",\"n\":7}}]")),
            (format!("[\"{long}\",\"b\"]"), "[\"!\",\"b\"]".to_owned()),
            // Neither an escaped quotation mark nor an escaped backslash before one is taken for another end.
            (format!("[\"{long}\\\",\",\"b\"]"), "[\"!\",\"b\"]".to_owned()),
            (format!("[\"{long}\\\\\",\"b\\\"\",1]"), "[\"!\",\"b\\\"\",1]".to_owned()),
            (format!("[\"\\\\\",\"{long}\"]"), "[\"\\\\\",\"!\"]".to_owned()),
            (format!("[\"\\\"{long}\\u0041\",\"{long}\"]"), "[\"!\",\"!\"]".to_owned()),
        ];
        for (sent, expected) in rows {
            for piece in [97, 4096, sent.len()] {
                assert_eq!(kept(&sent, piece), expected, "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_hundred_megabytes_of_large_values_take_a_few_kilobytes() {
        let mut body = Body::default();
        let value = format!("{{\"Value\":\"{}\"}},", "A".repeat(700_000));
        for _ in 0..150 {
            value.as_bytes().chunks(16_384).for_each(|piece| body.push(piece).unwrap());
        }
        assert!(body.read() > 100 << 20);
        // Never more than one value at once.
        assert!(body.kept.capacity() <= 2 * (MAX_TEXT + 16_384), "{}", body.kept.capacity());
    }

    #[test]
    fn a_body_has_an_end() {
        let until_refused = |piece: &[u8]| {
            let mut body = Body::default();
            for _ in 0..100_000_000_u64 {
                if let Err(why) = body.push(piece) {
                    return (body.read(), why);
                }
            }
            panic!("{} bytes were taken", body.read());
        };
        let (read, why) = until_refused(&[b' '; 65_536]);
        assert!(read <= MAX_KEPT + 65_536 && why.contains("more than"), "{read}: {why}");
        // The rest of one text costs no memory, but it ends all the same.
        let mut endless = Body::default();
        endless.push(b"[\"").unwrap();
        let why = loop {
            if let Err(why) = endless.push(&[b'x'; 1 << 20]) {
                break why;
            }
        };
        assert!(endless.kept.len() < 16 && why.contains("more than"), "{why}");
        for piece in [&b" "[..], b"", b"\"\"", b"[{},"] {
            let (read, why) = until_refused(piece);
            assert!(read < 64 << 10 && why.contains("pieces"), "{read}: {why}");
        }
    }
}
