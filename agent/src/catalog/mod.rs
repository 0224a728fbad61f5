//! The tasks that are installed on this host, and the copies that runs work on.
//!
//! Root decides what can run here by putting folders below the task folders; whatever somebody else could have
//! changed is not loaded, and a task that is not loaded is listed with what is wrong, never silently absent.
//! The first folder of the list that has a task of a name wins, also when that one is broken: falling back to
//! another version in silence would run what nobody asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::domain::name::Name;
use crate::domain::task::{MAX_FILE, Task};
use crate::domain::template::Template;
use crate::domain::yaml::{self, PathSegment, nearest};
use crate::host::disk;
use crate::host::program::Head;

pub mod copy;
pub mod facts;
pub mod trust;

use trust::{Entry, Kind, OwnerRule};

/// The file that makes a folder a task.
pub const TASK_FILE: &str = "task.yml";

/// A task that may be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What its file says.
    pub task: Task,
    /// Where it is installed; runs work on a copy of it, see [`copy`].
    pub folder: PathBuf,
}

/// A task that is there and may not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {name} is broken: {}", faults.join("; "))]
pub struct Broken {
    /// The name of its folder.
    pub name: String,
    /// Where it is installed.
    pub folder: PathBuf,
    /// What is wrong, each one line that begins with the file and, where there is one, line and column.
    pub faults: Vec<String>,
}

/// Why there is no task of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTask {
    /// It is installed and broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It is not installed.
    #[error("no task {name} is installed on this host{}", meant.as_ref().map(|meant| format!(": did you mean {meant}?")).unwrap_or_default())]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// One that is installed and spelled almost so.
        meant: Option<String>,
    },
}

/// All tasks of this host.
#[derive(Debug)]
pub struct Catalog {
    dirs: Vec<PathBuf>,
    rule: OwnerRule,
    tasks: BTreeMap<String, Result<Loaded, Broken>>,
    unreadable: Vec<String>,
}

impl Catalog {
    /// Loads all tasks below `dirs`, the first of a name; a folder that is not there holds none.
    pub fn load(dirs: &[PathBuf], rule: OwnerRule) -> Self {
        let mut catalog = Self { dirs: dirs.to_vec(), rule, tasks: BTreeMap::new(), unreadable: Vec::new() };
        catalog.reload();
        catalog
    }

    /// Loads everything anew.
    pub fn reload(&mut self) {
        self.tasks.clear();
        self.unreadable.clear();
        for dir in &self.dirs {
            let entries = match fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound && dir.symlink_metadata().is_err() => {
                    continue;
                }
                Err(error) => {
                    self.unreadable.push(format!("cannot list {}: {error}", dir.display()));
                    continue;
                }
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        self.unreadable.push(format!("cannot list {}: {error}", dir.display()));
                        break;
                    }
                };
                let name = entry.file_name().to_string_lossy().into_owned();
                // Files beside the tasks, and what editors and package managers hide there, are no tasks.
                if name.starts_with('.') || entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    continue;
                }
                self.tasks.entry(name.clone()).or_insert_with(|| load(&name, &entry.path(), self.rule));
            }
        }
    }

    /// Loads one task anew, just before it is used: root may have changed it since.
    pub fn refresh(&mut self, name: &Name) -> Result<&Loaded, NoTask> {
        let key = name.as_str();
        let found = self.dirs.iter().map(|dir| dir.join(key)).find(|path| path.symlink_metadata().is_ok());
        match found {
            Some(folder) => self.tasks.insert(key.to_owned(), load(key, &folder, self.rule)),
            None => self.tasks.remove(key),
        };
        self.get(key)
    }

    /// The task of a name.
    pub fn get(&self, name: &str) -> Result<&Loaded, NoTask> {
        match self.tasks.get(name) {
            Some(Ok(loaded)) => Ok(loaded),
            Some(Err(broken)) => Err(broken.clone().into()),
            None => {
                let meant = nearest(name, self.tasks.keys().map(String::as_str)).map(str::to_owned);
                Err(NoTask::Unknown { name: yaml::single_line(name), meant })
            }
        }
    }

    /// All tasks by name, the broken ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Result<&Loaded, &Broken>)> {
        self.tasks.iter().map(|(name, task)| (name.as_str(), task.as_ref()))
    }

    /// What kept a whole folder of tasks from being listed.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }
}

/// Loads one task from its folder, wherever it is: for the one who writes it.
pub fn load_one(folder: &Path, rule: OwnerRule) -> Result<Loaded, Broken> {
    load(&folder.file_name().unwrap_or_default().to_string_lossy(), folder, rule)
}

fn load(name: &str, folder: &Path, rule: OwnerRule) -> Result<Loaded, Broken> {
    read(name, folder, rule).map_err(|faults| Broken {
        name: yaml::single_line(name),
        folder: folder.into(),
        faults,
    })
}

fn read(name: &str, folder: &Path, rule: OwnerRule) -> Result<Loaded, Vec<String>> {
    let file = folder.join(TASK_FILE);
    let one = |fault: String| vec![fault];
    // Nothing in a folder that others can change is worth reading.
    rule.check_path(folder).map_err(one)?;
    let entries = trust::walk(folder, rule)?;
    let text = match disk::read(&file, MAX_FILE as u64) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(vec![format!("{}: there is no {TASK_FILE}", folder.display())]),
        Err(error) => return Err(vec![error.to_string()]),
    };
    let located = |fault: yaml::YamlError| format!("{}:{fault}", file.display());
    let text = match String::from_utf8(text) {
        Ok(text) => text,
        // The one place that names the byte is the reader.
        Err(bad) => {
            let fault = yaml::parse::<serde_json::Value>(bad.as_bytes(), MAX_FILE).err();
            return Err(fault.map(located).into_iter().collect());
        }
    };
    let task = Task::read(&text).map_err(|faults| faults.into_iter().map(located).collect::<Vec<_>>())?;
    let mut faults = Vec::new();
    if task.name.as_str() != name {
        let message = format!("the folder is called {}: give both the same name", yaml::single_line(name));
        faults.push(yaml::error_at(&text, &["name".into()], message));
    }
    for (path, run) in task.commands() {
        if let Some(message) = run.first().and_then(|program| script_fault(folder, &entries, program)) {
            faults.push(yaml::error_at(&text, &path, message));
        }
    }
    for (path, playbook) in task.playbooks() {
        if !is_file(folder, &entries, playbook) {
            faults.push(missing(&text, &path, playbook));
        }
    }
    if faults.is_empty() {
        Ok(Loaded { task, folder: folder.to_owned() })
    } else {
        Err(faults.into_iter().map(located).collect())
    }
}

fn missing(text: &str, path: &[PathSegment], name: &str) -> yaml::YamlError {
    yaml::error_at(text, path, format!("there is no file {name} in the task's folder"))
}

fn script_fault(folder: &Path, entries: &[Entry], program: &Template) -> Option<String> {
    let name = program.source().strip_prefix("./")?;
    if !is_file(folder, entries, name) {
        return Some(format!("there is no file {name} in the task's folder"));
    }
    let path = folder.join(name);
    match trust::is_executable(&path).and_then(|good| Ok((good, Head::read(&path)?))) {
        Ok((true, head)) => head.fault().map(|why| format!("{name} {why}")),
        Ok((false, _)) => Some(format!("{name} is not executable: chmod 0755 it")),
        Err(error) => Some(format!("cannot look at {name}: {error}")),
    }
}

/// Whether a name leads to a regular file of the folder, perhaps through a link inside it.
fn is_file(folder: &Path, entries: &[Entry], name: &str) -> bool {
    let listed = entries.iter().any(|entry| entry.path == Path::new(name) && entry.kind != Kind::Folder);
    listed && folder.join(name).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const TASK: &str = "name: t\nversion: 1\nsteps:\n- name: a\n  run: [./a]\n- name: b\n  ansible: b.yml\n";

    fn put(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn installed(root: &Path) -> PathBuf {
        let dir = root.join("tasks");
        put(&dir, "t/task.yml", TASK, 0o644);
        put(&dir, "t/a", "#!/bin/sh\n", 0o755);
        put(&dir, "t/b.yml", "[]\n", 0o644);
        for made in [&dir, &dir.join("t")] {
            fs::set_permissions(made, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    fn faults(dir: &Path) -> String {
        match Catalog::load(&[dir.to_owned()], OwnerRule::of_process()).get("t") {
            Ok(_) => "loaded".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_sound_task_is_loaded_and_the_first_of_a_name_wins() {
        let root = tempfile::tempdir().unwrap();
        let dir = installed(root.path());
        let second = root.path().join("second");
        put(&second, "t/task.yml", "broken: [", 0o644);
        put(&second, "u/task.yml", "name: u\nversion: x\n", 0o644);
        put(&second, "README", "no task", 0o644);
        let dirs = [root.path().join("absent"), dir.clone(), second];
        let mut catalog = Catalog::load(&dirs, OwnerRule::of_process());
        assert_eq!(catalog.get("t").unwrap().folder, dir.join("t"));
        let names: Vec<_> = catalog.iter().map(|(name, task)| (name, task.is_ok())).collect();
        assert_eq!(names, [("t", true), ("u", false)]);
        let broken = catalog.get("u").unwrap_err().to_string();
        assert!(broken.contains("u/task.yml:2:10: version:"), "{broken}");
        put(&dir, "t/task.yml", &TASK.replace("version: 1", "version: 2"), 0o644);
        assert_eq!(catalog.refresh(&"t".parse().unwrap()).unwrap().task.version, 2);
        fs::remove_dir_all(dir.join("t")).unwrap();
        assert!(matches!(catalog.refresh(&"t".parse().unwrap()), Err(NoTask::Broken(_))));
    }

    #[test]
    fn an_unknown_task_names_the_nearest() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().to_owned();
        put(&dir, "postgres-backup/task.yml", "", 0o644);
        let catalog = Catalog::load(&[dir], OwnerRule::of_process());
        let error = catalog.get("postgres-bakup").unwrap_err().to_string();
        assert_eq!(error, "no task postgres-bakup is installed on this host: did you mean postgres-backup?");
        assert!(catalog.get("zzz").unwrap_err().to_string().ends_with("on this host"));
    }

    #[test]
    fn what_others_could_have_changed_is_not_loaded() {
        type Change = fn(&Path);
        let cases: &[(Change, &str)] = &[
            (|dir| put(dir, "t/a", "x", 0o775), "t/a: writable by its group or by others"),
            (|dir| put(dir, "t/unused", "x", 0o666), "t/unused: writable by"),
            (
                |dir| fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap(),
                "tasks: writable by",
            ),
            (
                |dir| fs::set_permissions(dir.join("t"), fs::Permissions::from_mode(0o1777)).unwrap(),
                "t: writable by",
            ),
            (|dir| symlink("/etc/passwd", dir.join("t/l")).unwrap(), "t/l: a link that leads out"),
            (|dir| symlink("../../x", dir.join("t/l")).unwrap(), "t/l: a link that leads out"),
            (|dir| symlink("nowhere", dir.join("t/l")).unwrap(), "t/l: a link that leads nowhere"),
            (
                |dir| nix::unistd::mkfifo(&dir.join("t/p"), nix::sys::stat::Mode::S_IRUSR).unwrap(),
                "t/p: neither file",
            ),
            (|dir| put(dir, "t/a", "x", 0o644), "task.yml:5:8: steps[0].run: a is not executable"),
            (
                |dir| fs::remove_file(dir.join("t/a")).unwrap(),
                "task.yml:5:8: steps[0].run: there is no file a",
            ),
            (
                |dir| fs::remove_file(dir.join("t/b.yml")).unwrap(),
                "task.yml:7:12: steps[1].ansible: there is no file b.yml",
            ),
            (|dir| put(dir, "t/a", "", 0o755), "task.yml:5:8: steps[0].run: a is empty"),
            (|dir| put(dir, "t/a", "echo x\n", 0o755), "task.yml:5:8: steps[0].run: a has neither `#!`"),
            (
                |dir| put(dir, "t/a", "\u{7f}ELF\u{1}\u{1}", 0o755),
                "steps[0].run: a is the beginning of a binary",
            ),
            (|dir| put(dir, "t/a", "#!/bin/sh\r\n", 0o755), "steps[0].run: a has lines that end in \\r\\n"),
            (|dir| fs::remove_file(dir.join("t/task.yml")).unwrap(), "there is no task.yml"),
            (
                |dir| put(dir, "t/task.yml", &TASK.replace("name: t\n", "name: u\n"), 0o644),
                "task.yml:1:7: name: the folder is called t",
            ),
            (
                |dir| fs::write(dir.join("t/task.yml"), b"name: \xff").unwrap(),
                "task.yml:1:7: this is not UTF-8",
            ),
            (|dir| put(dir, "t/big", &"x".repeat(65 << 20), 0o644), "more than 64 MiB"),
            (
                |dir| {
                    fs::rename(dir.join("t"), dir.join("x")).unwrap();
                    symlink("x", dir.join("t")).unwrap()
                },
                "tasks/t: a link: name the real path",
            ),
        ];
        for (change, wanted) in cases {
            let root = tempfile::tempdir().unwrap();
            let dir = installed(root.path());
            assert_eq!(faults(&dir), "loaded");
            change(&dir);
            let got = faults(&dir);
            assert!(got.contains(wanted), "\n wanted {wanted}\n got    {got}");
        }
        let root = tempfile::tempdir().unwrap();
        let dir = installed(root.path());
        symlink("a", dir.join("t/inside")).unwrap();
        put(&dir, "t/task.yml", &TASK.replace("./a", "./inside"), 0o644);
        assert_eq!(faults(&dir), "loaded");
    }
}
