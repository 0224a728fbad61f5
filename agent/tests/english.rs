//! Words that say nothing to an operator are kept out of documents, schemas and help texts: CONTRIBUTING.md, "Writing".

#![expect(clippy::unwrap_used, reason = "a test that fails must fail at once")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each with the words to use in its place.
const BANNED: [(&str, &str); 17] = [
    ("stand", "is stored, is, applies"),
    ("stands", "is stored, is, applies"),
    ("tells", "reports, shows, checks"),
    ("told", "reported, shown, checked"),
    ("lies below", "overrides"),
    ("anew", "again"),
    ("meanwhile", "during"),
    ("beforehand", "before"),
    ("so many", "a number"),
    ("so much", "an amount"),
    ("so long", "for the time of"),
    ("by turns", "polling, alternately"),
    ("to be had", "available"),
    ("whoever", "anyone, the one who"),
    ("the one before", "previous"),
    ("makers", "maintainers"),
    ("cure", "fix"),
];

/// Whether a line has one of the words, each a word of its own: `stand-in` and `understand` are others.
fn has(line: &str, banned: &str) -> bool {
    let lower = line.to_lowercase();
    let words = lower.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_')));
    let spaced = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    format!(" {spaced} ").contains(&format!(" {banned} "))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every text that an operator reads and that is not a program: its name, and its text.
fn texts() -> Vec<(String, String)> {
    let mut files = vec![root().join("README.md"), root().join("packaging/hostler.yml")];
    for folder in ["docs", "agent/schemas"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.is_file()));
    }
    let mut texts: Vec<(String, String)> =
        files.iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect();
    assert!(texts.len() > 10, "{} texts", texts.len());
    help(&hostler::cli::command(), &mut texts);
    texts
}

fn help(command: &clap::Command, texts: &mut Vec<(String, String)>) {
    let mut command = command.clone();
    texts.push((format!("{} --help", command.get_name()), command.render_long_help().to_string()));
    for below in command.get_subcommands() {
        help(below, texts);
    }
}

#[test]
fn no_text_for_operators_has_a_banned_word() {
    let mut found = Vec::new();
    for (name, text) in texts() {
        // The name of a field of what `hostler check --json` prints.
        let text = text.replace("\"cure\": {", "");
        for (number, line) in text.lines().enumerate() {
            for (word, better) in BANNED.iter().filter(|(word, _)| has(line, word)) {
                found.push(format!("{name}:{}: {word} (write: {better}): {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_banned_word_is_found_as_a_word() {
    for (line, word, expected) in [
        ("It Stands there.", "stands", true),
        ("at most so  many.", "so many", true),
        ("a stand-in", "stand", false),
        ("understand", "stand", false),
    ] {
        assert_eq!(has(line, word), expected, "{line}");
    }
}
