//! Who could have changed a file: the rule that keeps Consul from adding code to the host, and anybody but
//! root from adding a task.
//!
//! A task's folder counts only when each component of its path and each file in it belongs to root (or to the
//! user that the process runs as, in development) and nobody else can write to it.
//! Links in the path are refused instead of followed, because each would need the same care again; links
//! inside the folder may stay, as long as they lead to something inside it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The most files and folders of one task.
pub const MAX_FILES: usize = 4096;

/// The most bytes of one task.
pub const MAX_BYTES: u64 = 64 << 20;

/// The deepest folder in a task.
const MAX_DEPTH: usize = 16;

/// Whose files are trusted: root's, and those of one more user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRule {
    uid: u32,
}

/// What stands at a path in a task's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file that is not executable.
    File,
    /// An executable file.
    Program,
    /// A link to something inside the same folder, with its text.
    Link(PathBuf),
}

/// One thing in a task's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the folder.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

impl OwnerRule {
    /// Root, or the user of this process.
    pub fn of_process() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw() }
    }

    /// Checks a folder and all that lead to it, up to `/`.
    ///
    /// A folder above with the sticky bit, such as `/tmp`, may be open to all: nobody can rename or remove
    /// there what belongs to another.
    pub fn check_path(self, folder: &Path) -> Result<(), String> {
        if !folder.is_absolute() || folder.components().any(|part| part == Component::ParentDir) {
            return Err(format!("{}: name the full path, without `..`", folder.display()));
        }
        for (up, path) in folder.ancestors().enumerate() {
            let meta = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
            if meta.is_symlink() {
                return Err(format!("{}: a link: name the real path", path.display()));
            }
            if !meta.is_dir() {
                return Err(format!("{}: not a folder", path.display()));
            }
            // The task's folder and the one that holds the tasks are nobody's meeting place.
            let shared = up > 1 && meta.mode() & 0o1000 != 0;
            self.check(path, &meta, shared)?;
        }
        Ok(())
    }

    fn check(self, path: &Path, meta: &Metadata, shared: bool) -> Result<(), String> {
        let uid = meta.uid();
        if uid != 0 && uid != self.uid {
            let cure = "chown it to root";
            return Err(format!("{}: owned by user {uid}, not by root: {cure}", path.display()));
        }
        // The mode of a link means nothing.
        if !meta.is_symlink() && !shared && meta.mode() & 0o022 != 0 {
            let cure = "chmod go-w it";
            return Err(format!("{}: writable by its group or by others: {cure}", path.display()));
        }
        Ok(())
    }
}

/// Lists all that is in a folder, sorted by path; every reason not to trust it is told, up to a bound.
pub fn walk(folder: &Path, rule: OwnerRule) -> Result<Vec<Entry>, Vec<String>> {
    let mut walk = Walk { root: folder, rule, entries: Vec::new(), faults: Vec::new(), bytes: 0 };
    walk.folder(Path::new(""), 0);
    if walk.bytes > MAX_BYTES {
        walk.faults.push(format!("{}: more than {} MiB", folder.display(), MAX_BYTES >> 20));
    }
    walk.entries.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    if walk.faults.is_empty() { Ok(walk.entries) } else { Err(walk.faults) }
}

/// Checks a regular file below a folder that was checked, with the folders between them. Links are refused.
pub fn check_file(folder: &Path, below: &Path, rule: OwnerRule) -> Result<(), String> {
    let mut path = folder.to_owned();
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(format!("{}: name a file below {}", below.display(), folder.display()));
        };
        path.push(name);
        let meta = fs::symlink_metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if meta.is_symlink() {
            return Err(format!("{}: a link: name the real path", path.display()));
        }
        if parts.peek().is_some() != meta.is_dir() || !(meta.is_dir() || meta.is_file()) {
            return Err(format!("{}: not a regular file in a folder", path.display()));
        }
        rule.check(&path, &meta, false)?;
    }
    Ok(())
}

/// Whether somebody may execute a file.
pub fn is_executable(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}

struct Walk<'a> {
    root: &'a Path,
    rule: OwnerRule,
    entries: Vec<Entry>,
    faults: Vec<String>,
    bytes: u64,
}

impl Walk<'_> {
    fn folder(&mut self, below: &Path, depth: usize) {
        let here = self.root.join(below);
        if depth > MAX_DEPTH {
            self.faults.push(format!("{}: folders nested deeper than {MAX_DEPTH}", here.display()));
            return;
        }
        let entries = match fs::read_dir(&here) {
            Ok(entries) => entries,
            Err(error) => return self.faults.push(format!("{}: {error}", here.display())),
        };
        for entry in entries {
            if self.entries.len() >= MAX_FILES {
                return self.faults.push(format!("{}: more than {MAX_FILES} files", self.root.display()));
            }
            if self.faults.len() >= 20 {
                return;
            }
            let seen = entry.and_then(|entry| Ok((entry.file_name(), fs::symlink_metadata(entry.path())?)));
            match seen {
                Ok((name, meta)) => self.entry(&below.join(name), &meta, depth),
                Err(error) => return self.faults.push(format!("{}: {error}", here.display())),
            }
        }
    }

    fn entry(&mut self, path: &Path, meta: &Metadata, depth: usize) {
        let full = self.root.join(path);
        if let Err(fault) = self.rule.check(&full, meta, false) {
            return self.faults.push(fault);
        }
        let kind = if meta.is_dir() {
            Kind::Folder
        } else if meta.is_file() {
            self.bytes = self.bytes.saturating_add(meta.len());
            if meta.mode() & 0o111 == 0 { Kind::File } else { Kind::Program }
        } else if meta.is_symlink() {
            match self.link(path, &full) {
                Ok(target) => Kind::Link(target),
                Err(why) => return self.faults.push(format!("{}: {why}", full.display())),
            }
        } else {
            return self.faults.push(format!("{}: neither file, folder nor link", full.display()));
        };
        let is_folder = kind == Kind::Folder;
        self.entries.push(Entry { path: path.to_owned(), kind });
        if is_folder {
            self.folder(path, depth + 1);
        }
    }

    /// A link stays inside by its text, so that it does in a copy too, and by where it really leads.
    fn link(&self, path: &Path, full: &Path) -> Result<PathBuf, String> {
        const OUT: &str = "a link that leads out of the task's folder: copy what it points at";
        let target = fs::read_link(full).map_err(|error| error.to_string())?;
        let mut depth = path.components().count().saturating_sub(1);
        for part in target.components() {
            match part {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir => depth = depth.checked_sub(1).ok_or(OUT)?,
                Component::RootDir | Component::Prefix(_) => return Err(OUT.to_owned()),
            }
        }
        let real = full.canonicalize().map_err(|error| format!("a link that leads nowhere: {error}"))?;
        let root = self.root.canonicalize().map_err(|error| error.to_string())?;
        if real.starts_with(root) { Ok(target) } else { Err(OUT.to_owned()) }
    }
}
