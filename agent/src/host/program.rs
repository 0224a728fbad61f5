//! What the head of a file says about who can start it: the rules of the kernel, which no shell is asked to bend.
//!
//! The C library hands a file that the kernel does not know to `/bin/sh`: an empty file is then a success, and the
//! bytes of a binary for another machine are commands. So a task with such a file is not loaded, and [`Head`] is also
//! where the reason comes from when the kernel refuses a start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::domain::text::is_utf16;

/// As much of a first line as every kernel reads, in bytes.
const HEAD: u64 = 256;
/// The machines of ELF whose programs this one starts: its own first.
const MACHINES: &[u16] = if cfg!(target_arch = "x86_64") {
    &[62, 3]
} else if cfg!(target_arch = "aarch64") {
    &[183, 40]
} else if cfg!(target_arch = "powerpc64") {
    &[21, 20]
} else if cfg!(target_arch = "s390x") {
    &[22]
} else if cfg!(target_arch = "riscv64") {
    &[243]
} else {
    &[]
};

/// What a program's file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A binary of this machine.
    Binary,
    /// A script, with the interpreter that its first line names.
    Script {
        /// As it is written there; a carriage return at its end is part of it.
        interpreter: PathBuf,
        /// The whole line, without its end.
        line: String,
    },
    /// Nothing that the kernel starts: why.
    Neither(String),
}

impl Head {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// Where it cannot be opened or read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut head = Vec::new();
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        file.take(HEAD).read_to_end(&mut head)?;
        Ok(Self::of(&head, size))
    }

    /// What the first bytes of a file of that size say.
    fn of(head: &[u8], size: u64) -> Self {
        let neither = |why: &str| Self::Neither(why.to_owned());
        if head.is_empty() {
            return neither("is empty");
        }
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let blank = |c: char| c == ' ' || c == '\t';
            let named = line.trim_matches(blank).split(|c: char| blank(c) || c == '\0').next();
            return match named.filter(|named| !named.trim().is_empty()) {
                Some(named) => Self::Script { interpreter: named.into(), line: format!("#!{line}") },
                None => neither("names no interpreter behind `#!`"),
            };
        }
        if head.starts_with(b"\x7fELF") {
            return elf(head, size).map_or(Self::Binary, Self::Neither);
        }
        if head.starts_with(b"\xef\xbb\xbf#!") {
            return neither("begins with a byte order mark: save it without one, so that `#!` comes first");
        }
        if head.iter().all(|byte| *byte == 0) {
            return neither(
                "begins with zeroes, as a file that was not written to its end: install it again",
            );
        }
        if is_utf16(head) {
            return neither("is UTF-16: save it as UTF-8, without a byte order mark");
        }
        neither("has neither `#!` in its first line nor the head of a binary")
    }

    /// Why nobody can start the program on any host of this kind; `None` where nothing is wrong with its head.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Binary => None,
            Self::Neither(why) => Some(why.clone()),
            // The kernel takes the carriage return for a part of the interpreter's name, or of its argument.
            Self::Script { line, .. } => line.ends_with('\r').then(|| {
                let line = line.escape_default();
                format!("has lines that end in \\r\\n, and begins with \"{line}\": save it with \\n alone")
            }),
        }
    }
}

/// What is wrong with a binary.
fn elf(head: &[u8], size: u64) -> Option<String> {
    let short = || Some("is the beginning of a binary only: install it again".to_owned());
    let (Some(&[class, data]), Some(kind), Some(machine)) =
        (head.get(4..6), head.get(16..18), head.get(18..20))
    else {
        return short();
    };
    let number = |bytes: &[u8]| {
        let bytes = <[u8; 2]>::try_from(bytes).unwrap_or_default();
        if data == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let (kind, machine) = (number(kind), number(machine));
    let order = if cfg!(target_endian = "big") { 2 } else { 1 };
    if data != order || (!MACHINES.is_empty() && !MACHINES.contains(&machine)) {
        return Some(format!("is built for another processor ({}), not for this one", machine_name(machine)));
    }
    if size < if class == 2 { 64 } else { 52 } {
        return short();
    }
    // A program, at a fixed place or at any.
    (!matches!(kind, 2 | 3)).then(|| "is a binary, and not a program: link it".to_owned())
}

fn machine_name(machine: u16) -> String {
    let name = match machine {
        3 => "i386",
        8 => "mips",
        20 => "powerpc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        other => return format!("machine {other} of ELF"),
    };
    name.to_owned()
}

/// Whether a file is on a file system from which nothing may be started.
///
/// # Errors
/// Where the system does not say.
pub fn is_noexec(path: &Path) -> io::Result<bool> {
    Ok(statvfs(path)?.flags().contains(FsFlags::ST_NOEXEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(head: &[u8]) -> String {
        Head::of(head, head.len() as u64).fault().unwrap_or_else(|| "none".to_owned())
    }

    #[test]
    fn what_the_kernel_does_not_start_is_told_from_what_it_does() {
        let mut own = std::fs::read("/proc/self/exe").unwrap();
        own.truncate(256);
        assert_eq!(fault(&own), "none");
        for good in ["#!/bin/sh", "#! /bin/sh -e\n", "#!\t/usr/bin/env python3\nx", "#!interpreter\n"] {
            assert_eq!(fault(good.as_bytes()), "none", "{good}");
        }
        let mut foreign = own.clone();
        foreign[18..20].copy_from_slice(&8_u16.to_le_bytes());
        let mut swapped = own.clone();
        swapped[5] = if own[5] == 1 { 2 } else { 1 };
        let mut object = own.clone();
        object[16..18].copy_from_slice(&1_u16.to_ne_bytes());
        let cases: [(&[u8], &str); 14] = [
            (b"", "is empty"),
            (b"\n", "neither"),
            (b"echo x\n", "neither"),
            (b" #!/bin/sh\n", "neither"),
            (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
            (b"\xff\xfe#\0!\0/\0b\0i\0n\0/\0s\0h\0\n\0", "UTF-16"),
            (b"\0#\0!\0/\0b\0i\0n\0/\0s\0h\0\n", "UTF-16"),
            (b"#!\n/bin/sh\n", "names no interpreter"),
            (b"#! \t\n", "names no interpreter"),
            (&[0; 100], "zeroes"),
            (b"\x7fELF\x02\x01", "the beginning of a binary"),
            (&foreign, "another processor (mips)"),
            (&swapped, "another processor"),
            (&object, "is a binary, and not a program"),
        ];
        for (head, wanted) in cases {
            assert!(fault(head).contains(wanted), "{wanted}: {}", fault(head));
        }
        assert!(fault(own.get(..40).unwrap()).contains("the beginning of a binary"));
        assert!(fault(b"#!/bin/sh\r\necho\r\n").contains("\"#!/bin/sh\\r\""));
        assert!(fault(b"#!/usr/bin/env bash\r\n").contains("bash\\r\""), "env is given the \\r");
    }

    #[test]
    fn a_file_system_says_whether_it_starts_anything() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        // Of several file systems on one folder the last is the one that is seen.
        let mut options = std::collections::BTreeMap::new();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            options.insert(fields[1], fields[3].split(',').any(|option| option == "noexec"));
        }
        let mut seen = 0;
        for (place, wanted) in options {
            let Ok(is) = is_noexec(Path::new(place)) else { continue };
            assert_eq!(is, wanted, "{place}");
            seen += 1;
        }
        assert!(seen > 0 && !is_noexec(Path::new("/bin/sh")).unwrap());
    }
}
