//! A recording file layer: what the real processes wrote, in order, and what of it a power cut would have left.
//!
//! The record is strace's: nothing in the program knows that it is recorded, so nothing can be forgotten.
//! [`Disk`] is the model: an entry of a folder is durable when the folder was synced after it, the contents
//! of a file when the file was; everything else is lost in the crash image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The system calls that are recorded.
pub const CALLS: &str = "openat,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,\
                         unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,chmod,fchmod,fchmodat,execve";

/// One system call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file was opened for writing.
    Open {
        /// Which.
        path: PathBuf,
        /// The mode of a file that may have been made.
        create: Option<u32>,
        /// Whether it was emptied.
        truncate: bool,
    },
    /// Bytes were added to a file.
    Write(PathBuf, Vec<u8>),
    /// A file or folder was synced.
    Sync(PathBuf),
    /// A name became another.
    Rename(PathBuf, PathBuf),
    /// A file got a second name.
    Link(PathBuf, PathBuf),
    /// A name went.
    Remove(PathBuf),
    /// A folder was made.
    MakeDir(PathBuf),
    /// A file was cut or stretched.
    Truncate(PathBuf, usize),
    /// A file got a mode.
    Mode(PathBuf, u32),
    /// A program was started.
    Exec(PathBuf),
}

/// The calls of a record, in the order in which they ended.
pub fn parse(text: &str) -> Vec<Op> {
    let mut unfinished: BTreeMap<&str, String> = BTreeMap::new();
    let mut ops = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begin.to_owned());
            continue;
        }
        let whole = match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => unfinished.remove(pid).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        ops.extend(call(&whole));
    }
    ops
}

fn call(text: &str) -> Option<Op> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    // A call that was interrupted is padded.
    let arguments = arguments.trim_end();
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let strings = strings(arguments);
    let first = || strings.first().map(|bytes| to_path(bytes));
    let second = || strings.get(1).map(|bytes| to_path(bytes));
    let of_fd = || descriptor(arguments);
    Some(match name {
        "openat" if arguments.contains("O_WRONLY") || arguments.contains("O_RDWR") => Op::Open {
            path: descriptor(result)?,
            create: arguments.contains("O_CREAT").then(|| mode(arguments)).flatten(),
            truncate: arguments.contains("O_TRUNC"),
        },
        "write" | "pwrite64" => Op::Write(of_fd()?, strings.into_iter().next()?),
        "writev" => Op::Write(of_fd()?, strings.concat()),
        "fsync" | "fdatasync" => Op::Sync(of_fd()?),
        "rename" | "renameat" | "renameat2" => Op::Rename(first()?, second()?),
        "link" | "linkat" => Op::Link(first()?, second()?),
        "unlink" | "unlinkat" | "rmdir" => Op::Remove(removed(arguments, first()?)),
        "mkdir" | "mkdirat" => Op::MakeDir(first()?),
        "ftruncate" => {
            Op::Truncate(of_fd()?, arguments.rsplit(", ").next()?.trim_end_matches(')').parse().ok()?)
        }
        "chmod" | "fchmodat" => Op::Mode(first()?, mode(arguments)?),
        "fchmod" => Op::Mode(of_fd()?, mode(arguments)?),
        "execve" => Op::Exec(first()?),
        _ => return None,
    })
}

/// The last octal argument of a call.
fn mode(arguments: &str) -> Option<u32> {
    let words = arguments.trim_end_matches(')').rsplit(", ");
    words.filter(|word| word.starts_with('0')).find_map(|word| u32::from_str_radix(word, 8).ok())
}

/// `unlinkat` of a name below a folder that is given by its descriptor.
fn removed(arguments: &str, name: PathBuf) -> PathBuf {
    match descriptor(arguments) {
        Some(folder) if name.is_relative() => folder.join(name),
        _ => name,
    }
}

/// The path behind a descriptor, as strace tells it: `7</path>`, hexadecimal.
fn descriptor(text: &str) -> Option<PathBuf> {
    let (number, rest) = text.split_once('<')?;
    let is_number = number.chars().all(|c| c.is_ascii_digit()) || number == "AT_FDCWD";
    let (path, _) = rest.split_once('>')?;
    is_number.then(|| to_path(&unescape(path)))
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).trim_end_matches(" (deleted)"))
}

/// The quoted strings of a call, decoded.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescape).collect()
}

/// `\x2f…`, and plain characters beside.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.strip_prefix("\\x").and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                bytes.extend(c.to_string().as_bytes());
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    bytes
}

#[derive(Clone, Default)]
struct File {
    mode: u32,
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// What stands below one folder, now and after a power cut.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    /// Name to file; `None`: a folder.
    now: BTreeMap<PathBuf, Option<usize>>,
    durable: BTreeMap<PathBuf, Option<usize>>,
    /// Folders that have another name, which is not durable yet.
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Disk {
    /// An empty folder.
    pub fn new(root: &Path) -> Self {
        let (now, durable) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_owned(), files: Vec::new(), now, durable, moved: Vec::new() }
    }

    /// Takes a call in; true if it concerned this folder.
    pub fn take(&mut self, op: &Op) -> bool {
        let inside = |path: &PathBuf| path.starts_with(&self.root);
        match op {
            Op::Open { path, create, truncate } if inside(path) => {
                if let Some(mode) = create
                    && !self.now.contains_key(path)
                {
                    self.files.push(File { mode: *mode, ..File::default() });
                    self.now.insert(path.clone(), Some(self.files.len() - 1));
                }
                if *truncate && let Some(file) = self.file(path) {
                    file.now.clear();
                }
            }
            // Every file of this program is written from its beginning or at its end.
            Op::Write(path, bytes) if inside(path) => {
                if let Some(file) = self.file(path) {
                    file.now.extend(bytes);
                }
            }
            Op::Truncate(path, length) if inside(path) => {
                if let Some(file) = self.file(path) {
                    file.now.resize(*length, 0);
                }
            }
            Op::Sync(path) if inside(path) => self.sync(path),
            // A mode goes to the disk with the entry that needs it: no promise rests on one alone.
            Op::Mode(path, mode) if inside(path) => {
                if let Some(file) = self.file(path) {
                    file.mode = *mode;
                }
            }
            Op::Rename(from, to) if inside(to) => {
                if self.now.get(from) == Some(&None) {
                    self.moved.push((from.clone(), to.clone()));
                }
                let moved: Vec<PathBuf> =
                    self.now.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let below = path.strip_prefix(from).unwrap_or(Path::new("")).to_owned();
                    let file = self.now.remove(&path).flatten();
                    let name = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    self.now.insert(name, file);
                }
            }
            Op::Link(from, to) if inside(to) => {
                let file = self.now.get(from).copied().flatten();
                self.now.insert(to.clone(), file);
            }
            Op::Remove(path) if inside(path) => {
                self.now.remove(path);
            }
            Op::MakeDir(path) if inside(path) => {
                self.now.insert(path.clone(), None);
            }
            _ => return false,
        }
        true
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        let file = self.now.get(path).copied().flatten()?;
        self.files.get_mut(file)
    }

    fn sync(&mut self, path: &Path) {
        if path == self.root || self.now.get(path) == Some(&None) {
            let child = |name: &PathBuf| name.parent() == Some(path);
            self.durable.retain(|name, _| !child(name));
            let entries = self.now.iter().filter(|(name, _)| child(name));
            self.durable.extend(entries.map(|(name, file)| (name.clone(), *file)));
            // What is in a renamed folder belongs to the folder, not to its name.
            let (now, later) = self.moved.drain(..).partition(|(_, to)| to.parent() == Some(path));
            self.moved = later;
            let now: Vec<(PathBuf, PathBuf)> = now;
            for (from, to) in now {
                let below = |name: &PathBuf| name.strip_prefix(&from).ok().map(|below| to.join(below));
                let renamed =
                    self.durable.iter().map(|(name, file)| (below(name).unwrap_or(name.clone()), *file));
                self.durable = renamed.collect();
            }
        } else if let Some(file) = self.file(path) {
            file.durable = file.now.clone();
        }
    }

    /// Writes what a power cut would have left into an empty folder.
    pub fn crash_image(&self, into: &Path) -> std::io::Result<()> {
        fs::create_dir_all(into)?;
        for (path, file) in &self.durable {
            let Ok(below) = path.strip_prefix(&self.root) else { continue };
            let target = into.join(below);
            // A folder whose own entry was not synced is lost with all that is in it.
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match file.and_then(|file| self.files.get(file)) {
                None => fs::create_dir_all(&target)?,
                Some(file) => {
                    fs::write(&target, &file.durable)?;
                    fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_also_when_they_overlap() {
        let text = "7 write(3<\\x2f\\x61>, \"\\x78\\x0a\", 2 <unfinished ...>\n\
                    8 fsync(4<\\x2f\\x62>) = 0\n\
                    7 <... write resumed>) = 2\n\
                    7 rename(\"\\x61\", \"\\x62\") = -1 ENOENT (No such file or directory)\n";
        let ops = [Op::Sync("/b".into()), Op::Write("/a".into(), b"x\n".to_vec())];
        assert_eq!(parse(text), ops);
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        let mut disk = Disk::new(Path::new("/s"));
        let open = |path: &str| Op::Open { path: path.into(), create: Some(0o600), truncate: false };
        for op in [
            open("/s/kept"),
            Op::Write("/s/kept".into(), b"one".to_vec()),
            Op::Sync("/s/kept".into()),
            Op::Sync("/s".into()),
            Op::Write("/s/kept".into(), b"two".to_vec()),
            open("/s/nameless"),
            Op::Write("/s/nameless".into(), b"x".to_vec()),
            Op::Sync("/s/nameless".into()),
        ] {
            assert!(disk.take(&op));
        }
        let dir = tempfile::tempdir().expect("a folder");
        disk.crash_image(dir.path()).expect("an image");
        assert_eq!(fs::read(dir.path().join("kept")).expect("the file"), b"one");
        assert!(!dir.path().join("nameless").exists());
    }
}
