//! No two modules of one folder depend on each other, not even by way of a third.
//!
//! A circle between siblings is a module that was cut in the wrong place: neither of them can be read, tested or moved
//! alone. A child may use what its parent re-exports, and a parent its children.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails must fail its test at once")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's way from the crate's root.
type Module = Vec<String>;

/// Every module of the crate with its code, without comments and tests.
fn modules() -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut modules = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut module: Module =
                path.strip_prefix(&root).unwrap().with_extension("").iter().map(word).collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let is_root = module == ["lib"] || module == ["main"];
            if !is_root && !module.last().unwrap().ends_with("tests") {
                let text = fs::read_to_string(path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                modules.insert(module, code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    assert!(modules.len() > 100, "the sources are found");
    modules
}

fn word(part: &std::ffi::OsStr) -> String {
    part.to_str().unwrap().to_owned()
}

/// The paths that begin here, each as far as it names something: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<Module> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut from, mut all) = (0_u32, 0, Vec::new());
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    all.extend(paths(&group[from..at]));
                    from = at + 1;
                }
                _ => {}
            }
            if letter == '}' && depth == 0 && from == at + 1 {
                break;
            }
        }
        return all;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return Vec::new();
    }
    let below = rest.strip_prefix("::").map(paths).unwrap_or_default();
    if below.is_empty() {
        return vec![vec![name.to_owned()]];
    }
    below.into_iter().map(|path| [vec![name.to_owned()], path].concat()).collect()
}

/// What a module names by `crate::` and `super::`, as ways from the crate's root.
fn named(module: &Module, code: &str) -> Vec<Module> {
    let mut all = Vec::new();
    for (start, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        for path in paths(&code[start..]) {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let from = if path[0] == "crate" { 0 } else { module.len().saturating_sub(ups) };
            let skip = if path[0] == "crate" { 1 } else { ups };
            all.push([&module[..from], &path[skip..]].concat());
        }
    }
    all
}

/// Who uses whom, for the modules of each folder.
type Uses = BTreeMap<Module, BTreeMap<String, BTreeSet<String>>>;

fn uses(modules: &BTreeMap<Module, String>) -> Uses {
    let known: BTreeSet<&[String]> =
        modules.keys().flat_map(|module| (1..=module.len()).map(|end| &module[..end])).collect();
    let mut uses = Uses::new();
    for (module, code) in modules {
        for path in named(module, code) {
            // Its longest part that is a module.
            let Some(end) = (1..=path.len()).rev().find(|end| known.contains(&path[..*end])) else {
                continue;
            };
            let shared = module.iter().zip(&path[..end]).take_while(|(a, b)| a == b).count();
            if shared < module.len() && shared < end {
                let folder = uses.entry(module[..shared].to_vec()).or_default();
                folder.entry(module[shared].clone()).or_default().insert(path[shared].clone());
            }
        }
    }
    uses
}

/// A way from the last of these back to the first, if there is one.
fn circle(
    uses: &BTreeMap<String, BTreeSet<String>>,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> bool {
    let last = way.last().unwrap().clone();
    for next in uses.get(&last).into_iter().flatten() {
        if *next == way[0] {
            return true;
        }
        if done.insert(next.clone()) {
            way.push(next.clone());
            if circle(uses, way, done) {
                return true;
            }
            way.pop();
        }
    }
    false
}

#[test]
fn no_modules_of_one_folder_use_each_other() {
    let uses = uses(&modules());
    assert!(uses.values().map(|folder| folder.len()).sum::<usize>() > 60, "the arrows are found");
    let mut circles = Vec::new();
    for (folder, uses) in &uses {
        for module in uses.keys() {
            let mut way = vec![module.clone()];
            if circle(uses, &mut way, &mut BTreeSet::new()) {
                circles.push(format!("{}: {}", folder.join("/"), way.join(" -> ")));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_seen_however_its_arrows_are_written() {
    let modules = |b: &str, c: &str| -> Uses {
        let module = |name: &str, code: &str| (vec!["a".to_owned(), name.to_owned()], code.to_owned());
        uses(&BTreeMap::from([module("b", b), module("c", c), module("d", "")]))
    };
    for (b, c, wanted) in [
        ("use super::c::X;", "use crate::a::b::Y;", true),
        ("use super::{d::Z, c::{X, Y}};", "fn f() { super::b::g() }", true),
        ("use crate::a::{c::X};", "use super::d::Z;", false),
        ("use super::X;", "use super::b::Y;", false),
    ] {
        let uses = modules(b, c);
        let folder = &uses[&vec!["a".to_owned()]];
        let found = circle(folder, &mut vec!["b".to_owned()], &mut BTreeSet::new());
        assert_eq!(found, wanted, "{b} | {c}: {folder:?}");
    }
}
