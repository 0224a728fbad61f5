//! Bounds of the fact: the agent takes one of at most 4 KiB.
//!
//! What does not fit is left out whole and named: half a cluster would be read as one that has no more to say.

use std::collections::BTreeMap;

use super::{Entry, Fact};

/// Bytes of a fact, with the newline at its end. Source: the agent's bound for what a command of a fact prints.
pub const MOST: usize = 4096;

/// The fact as text of at most [`MOST`] bytes, with the newline.
///
/// Running clusters come first, then those of the newest version. What has no room is in `left_out` by name, as many as
/// fit, and the others are counted in `left_out_more`.
pub fn text(fact: Fact) -> String {
    let whole = line(&fact);
    let (Some(clusters), true) = (fact.clusters, whole.len() > MOST) else { return whole };
    let mut order: Vec<(String, Entry)> = clusters.into_iter().collect();
    order.sort_by_key(|(title, entry)| {
        let running = entry.values.get("running").and_then(serde_json::Value::as_bool).unwrap_or_default();
        let version = entry.values.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
        (std::cmp::Reverse((running, version)), title.clone())
    });
    // The most clusters whose entries fit beside the names of all others.
    for kept in (0..order.len()).rev() {
        let (shown, rest) = order.split_at(kept);
        let shown: BTreeMap<_, _> = shown.iter().cloned().collect();
        let names: Vec<_> = rest.iter().map(|(title, _)| title.clone()).collect();
        let named = Fact { clusters: Some(shown.clone()), left_out: names.clone(), ..Fact::default() };
        let text = line(&named);
        if text.len() <= MOST {
            return text;
        }
        if kept == 0 {
            return few(&names);
        }
    }
    whole
}

/// No cluster, and as many names as fit.
fn few(names: &[String]) -> String {
    for kept in (0..names.len()).rev() {
        let (named, more) = names.split_at(kept);
        let text = line(&Fact {
            clusters: Some(BTreeMap::new()),
            left_out: named.to_vec(),
            left_out_more: Some(more.len()),
            unclear: None,
        });
        if text.len() <= MOST {
            return text;
        }
    }
    line(&Fact { unclear: Some("there is no room for a single name".to_owned()), ..Fact::default() })
}

fn line(fact: &Fact) -> String {
    // What consists of texts and numbers can be written.
    let text = serde_json::to_string(fact).unwrap_or_else(|error| format!("{{\"unclear\":\"{error}\"}}"));
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::{Entry, Fact, MOST, text};
    use serde_json::{Value, json};

    fn many(count: usize, name: &str, reason: usize) -> Fact {
        let entry = |number: usize| {
            let mut entry = Entry::default();
            entry.values.insert("running", json!(number.is_multiple_of(2)));
            entry.values.insert("version", json!(15));
            entry.unclear.insert("server", "x".repeat(reason));
            (format!("15/{name}{number:04}"), entry)
        };
        Fact { clusters: Some((0..count).map(entry).collect()), ..Fact::default() }
    }

    fn read(fact: Fact) -> Value {
        let text = text(fact);
        assert!(text.len() <= MOST && text.ends_with("}\n"), "{} bytes", text.len());
        serde_json::from_str(&text).unwrap_or_default()
    }

    #[test]
    fn what_fits_is_whole() {
        let fact = read(many(10, "a", 100));
        assert_eq!(fact["clusters"].as_object().map(|all| all.len()), Some(10));
        assert!(fact.get("left_out").is_none());
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_name_and_what_runs_last() {
        let fact = read(many(60, "a", 100));
        let shown = fact["clusters"].as_object().cloned().unwrap_or_default();
        let named = fact["left_out"].as_array().cloned().unwrap_or_default();
        assert_eq!(shown.len() + named.len(), 60);
        assert!(shown.len() > 10 && shown.values().all(|entry| entry["running"] == true), "{fact}");
    }

    #[test]
    fn names_without_room_are_counted() {
        let fact = read(many(900, &"n".repeat(50), 0));
        let named = fact["left_out"].as_array().map_or(0, Vec::len);
        assert!(named > 30);
        assert_eq!(fact["left_out_more"], json!(900 - named));
    }
}
