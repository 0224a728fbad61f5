//! The crate's modules depend on each other in one direction, and its guide names what the program names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All source files, each with the top-level module that it belongs to.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut all = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let module = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = module.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            if !["lib", "main"].contains(&module.as_str()) {
                all.push((module, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    all
}

/// The modules that a text names as `crate::module`, outside of comments.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>());
    let word = |rest: String| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    after.map(word).collect()
}

/// A way from a module back to itself, if there is one.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>) -> bool {
    let last = way.last().unwrap().clone();
    for next in edges.get(&last).into_iter().flatten() {
        if *next == way[0] {
            return true;
        }
        if !way.contains(next) {
            way.push(next.clone());
            if circle(edges, way) {
                return true;
            }
            way.pop();
        }
    }
    false
}

#[test]
fn modules_depend_on_each_other_in_one_direction() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in sources() {
        let mut uses = used(&text);
        uses.remove(&module);
        edges.entry(module).or_default().extend(uses);
    }
    assert!(edges.len() > 20 && edges["upload"].contains("store"), "{edges:?}");
    for module in edges.keys() {
        let mut way = vec![module.clone()];
        assert!(!circle(&edges, &mut way), "a circle: {}", way.join(" -> "));
    }
}

/// The names of S3's and KMS's permissions in a text.
fn permissions(text: &str) -> BTreeSet<String> {
    let named = |scheme: &'static str| text.split(scheme).skip(1).map(move |rest| (scheme, rest));
    let name = |(scheme, rest): (&str, &str)| {
        let name: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
        name.starts_with(|c: char| c.is_ascii_uppercase()).then(|| format!("{scheme}{name}"))
    };
    named("s3:").chain(named("kms:")).filter_map(name).collect()
}

#[test]
fn the_guides_policy_is_whole_and_admits_what_the_program_calls_missing() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backups.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, section) = guide.split_once("### Permissions").unwrap();
    let (_, policy) = section.split_once("```json\n").unwrap();
    let (policy, more) = policy.split_once("```").unwrap();
    let read: serde_json::Value = serde_json::from_str(policy).unwrap();
    let statements = read["Statement"].as_array().unwrap();
    let allowed = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    let mut allowed: BTreeSet<String> = allowed.map(|action| action.as_str().unwrap().to_owned()).collect();
    assert!(allowed.contains("s3:ListBucket") && allowed.contains("s3:PutObject"), "{allowed:?}");
    allowed.extend(permissions(more.split("\n## ").next().unwrap()));
    let named: BTreeSet<String> = sources().iter().flat_map(|(_, text)| permissions(text)).collect();
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<&String> = named.difference(&allowed).collect();
    assert!(missing.is_empty(), "the guide does not name {missing:?}");
}
