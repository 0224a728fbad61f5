//! Holds the code against the picture in ARCHITECTURE.md: layers, headers, and the size of files.

#![allow(clippy::disallowed_methods, reason = "tests start programs")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up; a room may use those of a lower rank only.
const RANKS: [(&str, u32); 13] = [
    ("domain", 0),
    ("host", 1),
    ("store", 2),
    ("vault", 2),
    ("catalog", 2),
    ("ledger", 2),
    ("exec", 2),
    ("admission", 2),
    ("report", 2),
    ("telemetry", 2),
    ("config", 2),
    ("app", 3),
    ("cli", 4),
];

/// Neighbours of one rank that know one another, each with its reason.
const NEIGHBOURS: [(&str, &str, &str); 4] = [
    ("report", "store", "the writer writes through the port"),
    ("config", "store", "settings of Consul are read where they are used"),
    ("config", "vault", "settings of Vault are read where they are used"),
    ("config", "ledger", "what is kept of runs is said in the configuration"),
];

/// A file with more lines than this before its tests is more than one room.
const MAX_LINES: usize = 700;

fn files() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the sources are found");
    files
}

fn room(path: &Path) -> Option<&str> {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).ok()?;
    below.parent()?.iter().next()?.to_str()
}

fn rank(room: &str) -> u32 {
    RANKS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("{room} has no rank")).1
}

#[test]
fn arrows_go_down_only() {
    let mut wrong = Vec::new();
    for path in files() {
        let Some(here) = room(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (other, _) in RANKS {
            let uses = code.contains(&format!("crate::{other}::"));
            let allowed = other == here
                || rank(other) < rank(here)
                || NEIGHBOURS.iter().any(|(from, to, _)| (*from, *to) == (here, other));
            if uses && !allowed {
                wrong.push(format!("{} uses {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let headed = text.starts_with("//! ") && !text.starts_with("//! To come");
        assert!(headed, "{} has no header", path.display());
    }
}

#[test]
fn no_file_is_more_than_one_room() {
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_domain_touches_nothing() {
    for path in files().iter().filter(|path| room(path) == Some("domain")) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for banned in ["std::fs", "std::net", "std::process", "tokio::", "Instant::now", "std::env"] {
            assert!(!code.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

/// Each `file.rs::function` that ARCHITECTURE.md names is there, so that a reader who follows it arrives.
#[test]
fn the_way_that_the_architecture_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../ARCHITECTURE.md")).unwrap();
    let hops: Vec<(&str, &str)> = text.split('`').filter_map(|part| part.split_once(".rs::")).collect();
    assert!(hops.len() >= 12, "{hops:?}");
    for (file, function) in hops {
        let source = fs::read_to_string(root.join("src").join(format!("{file}.rs"))).unwrap_or_default();
        let found = ["(", "<"].iter().any(|end| source.contains(&format!("fn {function}{end}")));
        assert!(found, "{file}.rs has no function {function}");
    }
}

/// Any local user can write Hostler's fields into the journal, so each search that a guide shows names root's messages.
#[test]
fn a_documented_search_of_the_journal_trusts_root_alone() {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")).unwrap();
    let pages = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text: String = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    let searches: Vec<&str> =
        text.lines().filter(|line| line.contains("journalctl") && line.contains("HOSTLER_")).collect();
    assert!(searches.len() >= 4, "{searches:?}");
    for search in searches {
        assert!(search.contains("journalctl _UID=0 "), "{search}");
    }
}

/// Where numbers come in that somebody else wrote, in an answer or a document, no sum of them can end the program: the
/// compiler's lint refuses each operator that could overflow.
#[test]
fn numbers_from_outside_are_added_with_care() {
    let checked = [
        "store/consul/mod.rs",
        "store/watch.rs",
        "store/budget.rs",
        "vault/wire.rs",
        "vault/keeper/mod.rs",
        "vault/keeper/children.rs",
        "vault/renewal.rs",
        "vault/secrets.rs",
        "vault/versions.rs",
        "vault/client.rs",
        "domain/instant.rs",
        "domain/span.rs",
        "domain/window.rs",
        "domain/schedule.rs",
        "domain/reconcile.rs",
        "domain/zone.rs",
        "domain/freeze.rs",
        "domain/control.rs",
        "domain/downtime/budget.rs",
        "domain/downtime/measured.rs",
        "domain/downtime/objective.rs",
        "domain/downtime/totals.rs",
        "domain/secret_watch.rs",
        "domain/decide/mod.rs",
        "domain/decide/controls.rs",
        "domain/decide/first.rs",
        "domain/decide/orders.rs",
        "domain/decide/runs.rs",
        "domain/decide/recurring.rs",
        "domain/decide/starts.rs",
        "domain/decide/unready.rs",
        "domain/run/transition.rs",
        "report/compose.rs",
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in checked {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let code = text.lines().find(|line| !line.starts_with("//!") && !line.is_empty());
        let lint = "#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]";
        assert_eq!(code, Some(lint), "{file}");
        assert!(
            !text.contains("allow(clippy::arithmetic") && !text.contains("expect(clippy::arithmetic"),
            "{file}"
        );
    }
}
