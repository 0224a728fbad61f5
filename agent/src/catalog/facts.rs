//! The facts that are installed on this host.
//!
//! Root decides what is asked here by putting files into the folders of facts, by the same rule as for tasks: what
//! somebody else could have changed is not loaded, and is listed with what is wrong. The first folder that has a fact of
//! a name wins, also when that one is broken.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::trust::{self, OwnerRule};
use crate::domain::facts::{self, FactCommand, FactName, MAX_FACTS, MAX_FILE, Object};
use crate::domain::yaml::{nearest, single_line};
use crate::host::disk;
use crate::host::program::Head;

/// What a fact is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum FactSource {
    /// A command, with the folder that it is started in.
    Command(FactCommand, PathBuf),
    /// A constant.
    Constant(Object),
}

/// All facts of this host but the built-in one.
#[derive(Clone, Debug, Default)]
pub struct FactCatalog {
    /// By name; or what is wrong with it, in one line.
    pub facts: BTreeMap<FactName, Result<FactSource, String>>,
    /// What kept a folder from being listed, or is in it and no fact; a line each.
    pub odd: Vec<String>,
}

impl FactCatalog {
    /// Loads all facts of `dirs`, the first of a name; a folder that is not there holds none.
    pub fn load(dirs: &[PathBuf], rule: OwnerRule) -> Self {
        let mut catalog = Self::default();
        for dir in dirs {
            if let Err(why) = catalog.add(dir, rule) {
                catalog.odd.push(format!("cannot list {}: {why}", dir.display()));
            }
        }
        catalog
    }

    fn add(&mut self, dir: &Path, rule: OwnerRule) -> std::io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound && dir.symlink_metadata().is_err() => {
                return Ok(());
            }
            entries => entries?,
        };
        let mut here: BTreeMap<FactName, Vec<PathBuf>> = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            match name_of(&path) {
                Ok(None) => {}
                Ok(Some(name)) => here.entry(name).or_default().push(path),
                Err(why) => self.odd.push(format!("{}: {why}", path.display())),
            }
        }
        for (name, paths) in here {
            if self.facts.contains_key(&name) {
                continue;
            }
            if self.facts.len() >= MAX_FACTS {
                self.odd.push(format!(
                    "a host has at most {MAX_FACTS} facts: {name} and what follows is left out"
                ));
                break;
            }
            let loaded = match &paths[..] {
                [path] => load_one(path, rule),
                _ => Err(format!("{}: {name}.yml and {name}.json are one fact: remove one", dir.display())),
            };
            self.facts.insert(name, loaded);
        }
        Ok(())
    }

    /// Loads one fact anew, just before it is asked: root may have changed it since. `None`: it is not there any more.
    pub fn refresh(
        &mut self,
        name: &FactName,
        dirs: &[PathBuf],
        rule: OwnerRule,
    ) -> Option<&Result<FactSource, String>> {
        let found = dirs.iter().find_map(|dir| {
            let path = dir.join(format!("{name}.yml"));
            let there = |path: &Path| path.symlink_metadata().is_ok();
            if there(&path) {
                Some(path)
            } else {
                Some(dir.join(format!("{name}.json"))).filter(|path| there(path))
            }
        });
        match found {
            Some(path) => self.facts.insert(name.clone(), load_one(&path, rule)),
            None => self.facts.remove(name),
        };
        self.facts.get(name)
    }
}

/// The fact that a file is; `None`: it is none, and nobody will think so.
fn name_of(path: &Path) -> Result<Option<FactName>, String> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((stem, extension)) =
        file.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !stem.starts_with('.'))
    else {
        return Ok(None);
    };
    match extension {
        "yml" | "json" if stem == facts::HOST => {
            Err("the fact host is built in: give this one another name".to_owned())
        }
        "yml" | "json" => stem.parse().map(Some).map_err(|error: facts::BadFactName| error.to_string()),
        _ if nearest(extension, ["yaml", "yml", "json"])
            .is_some_and(|meant| meant == "yaml" || meant == extension) =>
        {
            Err("it is passed over: the file of a fact ends in .yml or .json".to_owned())
        }
        _ => Ok(None),
    }
}

/// Loads one fact from its file: for the one who writes it, too.
///
/// # Errors
/// One line: what is wrong with it.
pub fn load_one(path: &Path, rule: OwnerRule) -> Result<FactSource, String> {
    let folder = disk::parent(path);
    rule.check_path(folder)?;
    trust::check_file(folder, Path::new(path.file_name().unwrap_or_default()), rule)?;
    let shown = path.display();
    let text = disk::read(path, MAX_FILE as u64).map_err(|error| error.to_string())?;
    let text = text.ok_or_else(|| format!("{shown}: it is not there"))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return facts::read(&text).map(FactSource::Constant).map_err(|why| format!("{shown}: {why}"));
    }
    let command = FactCommand::read(&text).map_err(|fault| format!("{shown}:{fault}"))?;
    if let Some(own) = command.own_program() {
        trust::check_file(folder, Path::new(own), rule)?;
        let program = folder.join(own);
        let good = trust::is_executable(&program).and_then(|good| Ok((good, Head::read(&program)?)));
        match good {
            Ok((true, head)) => {
                if let Some(why) = head.fault() {
                    return Err(format!("{}: it {why}", program.display()));
                }
            }
            Ok((false, _)) => {
                return Err(format!("{}: it is not executable: chmod 0755 it", program.display()));
            }
            Err(error) => return Err(format!("{}: {}", program.display(), single_line(&error.to_string()))),
        }
    }
    Ok(FactSource::Command(command, folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn put(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn load(dirs: &[PathBuf]) -> FactCatalog {
        FactCatalog::load(dirs, OwnerRule::of_process())
    }

    #[test]
    fn facts_are_loaded_and_the_first_of_a_name_wins() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        put(&first, "role.yml", "run: [./role, HDB]\nevery: 1m\n", 0o644);
        put(&first, "role", "#!/bin/sh\n", 0o755);
        put(&first, "broken.yml", "rnu: [x]", 0o644);
        put(&first, ".hidden.yml", "x", 0o644);
        put(&first, "role.yml~", "x", 0o644);
        put(&second, "role.json", "{\"from\": \"second\"}", 0o644);
        put(&second, "broken.json", "{\"from\": \"second\"}", 0o644);
        put(&second, "site.json", "{\"name\": \"fra\"}", 0o644);
        put(&second, "two.json", "{}", 0o644);
        put(&second, "two.yml", "run: [true]", 0o644);
        put(&second, "Large.json", "{}", 0o644);
        put(&second, "host.yml", "run: [true]", 0o644);
        put(&second, "x.yaml", "run: [true]", 0o644);
        let dirs = [root.path().join("absent"), first.clone(), second];
        let mut catalog = load(&dirs);
        let names: Vec<(&str, bool)> =
            catalog.facts.iter().map(|(name, fact)| (name.as_str(), fact.is_ok())).collect();
        assert_eq!(names, [("broken", false), ("role", true), ("site", true), ("two", false)]);
        let role = catalog.facts[&"role".parse().unwrap()].clone().unwrap();
        assert!(
            matches!(role, FactSource::Command(command, folder) if folder == first && command.run.len() == 2)
        );
        let broken = catalog.facts[&"broken".parse().unwrap()].clone().unwrap_err();
        assert!(broken.contains("broken.yml:1:1: rnu: unknown field `rnu`"), "{broken}");
        let odd = catalog.odd.join("\n");
        assert!(
            catalog.odd.len() == 3
                && ["Large.json", "host is built in", "x.yaml"].iter().all(|o| odd.contains(o)),
            "{odd}"
        );
        // Root changes one, and takes another away.
        let (rule, name) = (OwnerRule::of_process(), "role".parse().unwrap());
        fs::remove_file(first.join("role.yml")).unwrap();
        assert!(matches!(catalog.refresh(&name, &dirs, rule), Some(Ok(FactSource::Constant(_)))));
        let name = "gone".parse().unwrap();
        assert_eq!(catalog.refresh(&name, &dirs, rule), None);
    }

    #[test]
    fn what_others_could_have_changed_is_not_loaded() {
        type Change = fn(&Path);
        let cases: &[(Change, &str)] = &[
            (|dir| put(dir, "f.yml", "run: [./bin/f]", 0o664), "f.yml: writable by its group"),
            (|dir| put(dir, "bin/f", "#!/bin/sh\n", 0o775), "bin/f: writable by its group"),
            (
                |dir| fs::set_permissions(dir.join("bin"), fs::Permissions::from_mode(0o777)).unwrap(),
                "bin: writable by",
            ),
            (
                |dir| fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).unwrap(),
                "facts: writable by",
            ),
            (|dir| put(dir, "bin/f", "#!/bin/sh\n", 0o644), "bin/f: it is not executable"),
            (|dir| put(dir, "bin/f", "", 0o755), "bin/f: it is empty"),
            (|dir| fs::remove_file(dir.join("bin/f")).unwrap(), "bin/f: No such file"),
            (
                |dir| {
                    fs::rename(dir.join("bin/f"), dir.join("bin/g")).unwrap();
                    symlink("g", dir.join("bin/f")).unwrap();
                },
                "bin/f: a link",
            ),
            (
                |dir| {
                    fs::rename(dir.join("f.yml"), dir.join("g")).unwrap();
                    symlink("g", dir.join("f.yml")).unwrap();
                },
                "f.yml: a link",
            ),
            (
                |dir| put(dir, "f.yml", &format!("# {}\nrun: [x]", "x".repeat(17_000)), 0o644),
                "more than 16384 bytes",
            ),
            (
                |dir| {
                    if nix::unistd::Uid::effective().is_root() {
                        std::os::unix::fs::chown(dir.join("f.yml"), Some(12345), None).unwrap();
                    } else {
                        put(dir, "f.yml", "owned by user", 0o644);
                    }
                },
                "owned by user",
            ),
        ];
        for (change, wanted) in cases {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("facts");
            put(&dir, "bin/f", "#!/bin/sh\n", 0o755);
            fs::set_permissions(dir.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
            put(&dir, "f.yml", "run: [./bin/f]", 0o644);
            let name = "f".parse().unwrap();
            assert!(load(std::slice::from_ref(&dir)).facts[&name].is_ok());
            change(&dir);
            let why = load(std::slice::from_ref(&dir)).facts[&name].clone().map(|_| ()).unwrap_err();
            assert!(why.contains(wanted), "\n wanted {wanted}\n got    {why}");
        }
    }
}
