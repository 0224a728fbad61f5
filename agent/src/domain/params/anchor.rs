//! Patterns that look at a part of a text only: `[a-z]+` admits `../../etc a`.

use serde_json::Value;

use super::keywords::children;
use crate::domain::yaml::{PathSegment, path_text, single_line};

/// A line for each pattern that does not say how a text begins and ends.
pub(super) fn warnings(schema: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk(schema, &mut Vec::new(), &mut lines);
    lines
}

fn walk(node: &Value, path: &mut Vec<PathSegment>, lines: &mut Vec<String>) {
    let Some(map) = node.as_object() else { return };
    if let Some(pattern) = map.get("pattern").and_then(Value::as_str).filter(|pattern| !is_whole(pattern)) {
        let (at, shown) = (path_text(path), single_line(pattern));
        lines.push(format!(
            "params.{at}.pattern: `{shown}` admits every text that holds a match: write `^(?:{shown})$` for the whole text"
        ));
    }
    for (below, schema) in children(map) {
        let length = path.len();
        path.extend(below);
        walk(schema, path, lines);
        path.truncate(length);
    }
}

/// Whether a pattern describes a text from its beginning to its end, in each of its alternatives.
fn is_whole(pattern: &str) -> bool {
    // Flags such as `(?m)` give `^` and `$` another meaning.
    let flags = pattern.match_indices("(?").any(|(at, _)| {
        let rest = pattern.get(at + 2..).unwrap_or_default();
        rest.split([':', ')']).next().is_some_and(|flags| {
            flags.contains('m') && flags.chars().all(|c| c.is_ascii_alphabetic() || c == '-')
        })
    });
    !flags && alternatives(pattern).into_iter().all(from_start_to_end)
}

fn from_start_to_end(pattern: &str) -> bool {
    let starts = pattern.starts_with('^') || pattern.starts_with("\\A");
    let escaped = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let ends = pattern.strip_suffix('$').is_some_and(|before| !escaped(before))
        || pattern.strip_suffix('z').is_some_and(escaped);
    if starts && ends {
        return true;
    }
    // One group around all of it.
    let inner = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let inner = inner.strip_prefix("?:").unwrap_or(inner);
        closes_at_end(pattern)
            && !inner.starts_with('?')
            && alternatives(inner).into_iter().all(from_start_to_end)
    })
}

/// Whether the bracket that a pattern begins with is closed by its last one.
fn closes_at_end(pattern: &str) -> bool {
    let mut first = None;
    scan(pattern, |at, _, depth| {
        if depth == 0 && first.is_none() {
            first = Some(at);
        }
    });
    first.is_some_and(|at| at + 1 == pattern.len())
}

/// The parts between `|` outside of all groups.
fn alternatives(pattern: &str) -> Vec<&str> {
    let mut cuts = Vec::new();
    scan(pattern, |at, c, depth| {
        if c == '|' && depth == 0 {
            cuts.push(at);
        }
    });
    let mut parts = Vec::new();
    let mut start = 0;
    for cut in cuts {
        parts.push(pattern.get(start..cut).unwrap_or_default());
        start = cut + 1;
    }
    parts.push(pattern.get(start..).unwrap_or_default());
    parts
}

/// Calls `see` with each character that is neither escaped nor in a class, and the depth of groups after it.
fn scan(pattern: &str, mut see: impl FnMut(usize, char, usize)) {
    let (mut depth, mut class, mut escaped) = (0_usize, false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' if class => class = false,
            _ if class => {}
            '[' => class = true,
            _ => {
                match c {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                see(at, c, depth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_is_whole_only_if_each_alternative_is() {
        for whole in
            ["^a$", "^(a|b)$", "^a$|^b$", "(^a$)", "(?:^a$|^b$)", "\\Aa\\z", "^[$^]$", "^\\^\\\\$", "^$"]
        {
            assert!(is_whole(whole), "{whole}");
        }
        for part in
            ["[a-z]+", "^a", "a$", "^a|b$", "^a\\$", "(^a)|(b$)", "(?m)^a$", "", "^a$|b", "(a)$", "(^a$)b"]
        {
            assert!(!is_whole(part), "{part}");
        }
    }

    #[test]
    fn each_pattern_is_looked_at_wherever_it_is() {
        let schema = json!({"type": "object", "properties": {
            "a": {"pattern": "^a$"}, "b": {"pattern": "b+"}, "pattern": {"type": "string"},
            "l": {"items": {"oneOf": [{"pattern": "^c"}]}}, "e": {"const": {"pattern": "x"}}}});
        let lines = warnings(&schema);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("params.properties.b.pattern: `b+` admits"));
        assert!(lines[1].starts_with("params.properties.l.items.oneOf[0].pattern"));
    }
}
