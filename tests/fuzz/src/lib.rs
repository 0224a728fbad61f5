//! What every target asks of an error: that an operator can read it.

use std::fmt::Display;

/// An error is one line, says something, and is not longer than anybody reads.
pub fn readable(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an empty error");
    assert!(!text.contains('\n'), "an error of several lines: {text:?}");
    assert!(text.len() < 8 << 10, "an error of {} bytes", text.len());
}
