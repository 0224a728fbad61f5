//! What commands print, made the same on each host and at each hour: what changes from run to run becomes a fixed word.
//!
//! Times and runs become words of their own length, so that tables keep their columns.

use serde_json::Value;

use crate::bench::{Bench, Done};

/// Any time but those that fixtures name.
const TIME: &str = "YYYY-MM-DDTHH:MM:SSZ";
/// Any run but the one that fixtures name.
const RUN: &str = "RUN-RUN-RUN-RUN-RUN-RUN-RU";
/// The years and the run of fixtures.
const FIXED: [&str; 4] = ["2020-", "2030-", "2999-", "01JD8000000000000000000000"];

/// What a command printed and how it ended.
pub(crate) fn screen(bench: &Bench, arguments: &[&str]) -> String {
    shown(bench, &bench.run(arguments))
}

/// What was printed and how it ended.
pub(crate) fn shown(bench: &Bench, done: &Done) -> String {
    steady(bench, &format!("{}{}exit status {}\n", done.out, done.err, done.code))
}

/// A text without what changes.
pub(crate) fn steady(bench: &Bench, text: &str) -> String {
    let text = short_forms(bench, text);
    let text = text.replace(&bench.dir.path().display().to_string(), "/DIR");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    // An end that is no part of any word brings the last one out.
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.') {
            word.push(c);
        } else {
            out.push_str(&of_word(&std::mem::take(&mut word)));
            out.push(c);
        }
    }
    out.pop();
    out
}

/// The short forms of the runs of this host, which are chance, as one word of their length.
fn short_forms(bench: &Bench, text: &str) -> String {
    let runs = std::fs::read_dir(bench.path("state/runs")).into_iter().flatten().flatten();
    let names = runs.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.len() == 26).fold(text.to_owned(), |text, name| {
        // What stands alone, and not as the end of the whole id.
        let short = &name[20..];
        text.replace(&format!("\n{short} "), "\nRUN-RU ").replace(&format!("run {short}"), "run RUN-RU")
    })
}

fn of_word(word: &str) -> String {
    if FIXED.iter().any(|fixed| word.starts_with(fixed)) {
        return word.to_owned();
    }
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
    let (before, last) = word.rsplit_once(':').map_or(("", word), |(before, last)| (before, last));
    if word.len() == 26
        && word.starts_with("01")
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    {
        RUN.to_owned()
    } else if word.trim_end_matches([':', '.']).parse::<jiff::Timestamp>().is_ok() {
        let end = word.trim_end_matches([':', '.']).len();
        format!("{TIME}{}", &word[end..])
    } else if last.len() == 64 && hex(last) {
        format!("{before}{}HASH", if before.is_empty() { "" } else { ":" })
    } else if word.len() == 36 && word.split('-').count() == 5 && word.split('-').all(hex) {
        "BOOT".to_owned()
    } else if word.strip_suffix('s').is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit())) {
        // A machine with a lot to do takes a second where another takes none.
        "0s".to_owned()
    } else {
        word.to_owned()
    }
}

/// A document without what changes.
pub(crate) fn steady_json(bench: &Bench, mut document: Value) -> String {
    walk(bench, "", &mut document);
    serde_json::to_string_pretty(&document).unwrap()
}

fn walk(bench: &Bench, key: &str, value: &mut Value) {
    match value {
        // Who a host is.
        Value::String(text) if ["id", "machine", "boot"].contains(&key) => *text = key.to_uppercase(),
        Value::String(text) => *text = steady(bench, text),
        Value::Array(all) => all.iter_mut().for_each(|one| walk(bench, key, one)),
        Value::Object(all) => {
            // The store's own index of an order; a step has one too, which counts steps.
            if all.contains_key("identity")
                && let Some(index) = all.get_mut("index")
            {
                *index = "INDEX".into();
            }
            // Of the agent's start in the audit, the identity of its host.
            let started = all.get("what").is_some_and(|what| what == "started");
            all.iter_mut().for_each(|(key, one)| match key.as_str() {
                "identity" if started => walk(bench, "id", one),
                _ => walk(bench, key, one),
            });
        }
        _ => {}
    }
}
