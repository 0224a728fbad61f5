//! Starts a program as the kernel does, and says why one did not start.
//!
//! The standard library starts programs by `execvp`, and there the C library hands a file that the kernel does not
//! know (ENOEXEC) to `/bin/sh`: an empty file succeeds, and a binary of another machine is read as commands. A step
//! is root's, so [`Exec`] looks through the PATH itself and calls `execve` alone.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::host::program::{Head, is_noexec};

/// A program that is ready to take this process's place: everything that allocates was done.
#[derive(Debug)]
pub struct Exec {
    /// What may be meant, in the order of the PATH.
    candidates: Vec<CString>,
    argv: Texts,
    env: Texts,
}

impl Exec {
    /// A program with its arguments and its whole environment; a name without a slash is looked for in its `PATH`.
    ///
    /// # Errors
    /// A text with a zero in it, or no program at all.
    pub fn new(argv: &[String], env: &[(String, String)]) -> io::Result<Self> {
        let program = argv.first().ok_or(io::ErrorKind::InvalidInput)?;
        let candidates = candidates(program, env).into_iter();
        let candidates = candidates.map(|path| Ok(CString::new(path.into_os_string().into_encoded_bytes())?));
        // Of two values the last counts, as for the standard library.
        let env: BTreeMap<&str, &str> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let env = env.into_iter().map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            candidates: candidates.collect::<io::Result<_>>()?,
            argv: Texts::new(argv.iter().cloned())?,
            env: Texts::new(env)?,
        })
    }

    /// Takes this process's place. Comes back with the reason if that cannot be; makes system calls only.
    pub fn exec(&self) -> io::Error {
        let mut reason = Errno::ENOENT;
        for candidate in &self.candidates {
            match self.execve(candidate) {
                // As everybody who looks through a PATH: one that may not be started hides none behind it.
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => reason = Errno::EACCES,
                other => return other.into(),
            }
        }
        reason.into()
    }

    #[expect(unsafe_code, reason = "nix's execve allocates, which is not for a child between fork and exec")]
    fn execve(&self, program: &CStr) -> Errno {
        // SAFETY: both lists end with a null pointer and point to texts that `self` owns and that end with a zero.
        unsafe { libc::execve(program.as_ptr(), self.argv.pointers(), self.env.pointers()) };
        Errno::last()
    }
}

/// Texts as C has them: a list of pointers with a null at its end.
#[derive(Debug)]
struct Texts {
    /// What is pointed to: never changed, because a pointer would not follow.
    _owned: Vec<CString>,
    /// Addresses, and 0 at the end.
    pointers: Vec<usize>,
}

impl Texts {
    fn new(texts: impl Iterator<Item = String>) -> io::Result<Self> {
        let owned = texts.map(|text| Ok(CString::new(text)?)).collect::<io::Result<Vec<_>>>()?;
        let pointers = owned.iter().map(|text| text.as_ptr() as usize).chain([0]).collect();
        Ok(Self { _owned: owned, pointers })
    }

    fn pointers(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr().cast()
    }
}

/// The PATH of steps.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What keeps a program from starting on this host, as far as its files tell without starting it; `None`: nothing that
/// they tell.
pub fn obstacle(program: &str, cwd: &Path) -> Option<String> {
    let env = [("PATH".to_owned(), PATH.to_owned())];
    let found: Vec<PathBuf> = candidates(program, &env)
        .into_iter()
        .map(|path| cwd.join(path))
        .filter(|path| path.exists())
        .collect();
    let Some(path) = found.iter().find(|path| is_executable(path)) else {
        return Some(match found.first() {
            None if program.contains('/') => format!("{program} does not exist on this host"),
            None => format!("there is no program {program} on this host"),
            Some(path) if path.is_dir() => format!("{program} is a folder"),
            Some(_) => format!("{program} is not executable"),
        });
    };
    // What this user may not read, root may: nothing is said of it.
    let head = Head::read(path).ok()?;
    if let Some(fault) = head.fault() {
        return Some(format!("{program} {fault}"));
    }
    let Head::Script { interpreter, line } = head else { return None };
    let shown = interpreter.display();
    if !interpreter.exists() {
        return Some(format!("{program} has the interpreter {shown}, which does not exist on this host"));
    }
    if !is_executable(&interpreter) {
        return Some(format!("{program} has the interpreter {shown}, which is not executable"));
    }
    if let Some(fault) = Head::read(&interpreter).ok().and_then(|head| head.fault()) {
        return Some(format!("{program} has the interpreter {shown}, which {fault}"));
    }
    let named = named_by_env(&line)?;
    let exists = candidates(named, &env).into_iter().any(|path| is_executable(&cwd.join(path)));
    (!exists).then(|| format!("{program} has the interpreter {named}, which does not exist on this host"))
}

/// The program that `#!/usr/bin/env NAME` looks for.
fn named_by_env(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("#!")?.split_whitespace();
    let env = words.next()?;
    if Path::new(env).file_name()? != "env" {
        return None;
    }
    // Options and variables come before it; `-S` may be written together with what follows.
    words
        .map(|word| word.strip_prefix("-S").unwrap_or(word))
        .find(|word| !word.is_empty() && !word.starts_with('-') && !word.contains('='))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The files that a program may be.
fn candidates(program: &str, env: &[(String, String)]) -> Vec<PathBuf> {
    if program.contains('/') || program.is_empty() {
        return vec![program.into()];
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(program))
        .collect()
}

/// Why a program did not start, for the operator: the kernel's number alone names the wrong file half of the time.
pub fn explain(error: &io::Error, argv: &[String], env: &[(String, String)], cwd: &Path) -> String {
    let Some(name) = argv.first() else { return "no program is named".to_owned() };
    let errno = error.raw_os_error().map(Errno::from_raw);
    let found = candidates(name, env).into_iter().map(|path| cwd.join(path)).find(|path| path.exists());
    let Some(path) = found else {
        return match errno {
            Some(Errno::ENOENT) if !name.contains('/') => format!("there is no program {name} on this host"),
            Some(Errno::ENOENT) => format!("{name} does not exist"),
            _ => format!("{name}: {error}"),
        };
    };
    let head = Head::read(&path);
    let said = match (errno, head) {
        (Some(Errno::ENOENT | Errno::ENOEXEC | Errno::EACCES), Ok(head)) if head.fault().is_some() => {
            head.fault()
        }
        (Some(Errno::ENOENT), Ok(Head::Script { interpreter, .. })) => {
            Some(format!("has the interpreter {}, which does not exist on this host", interpreter.display()))
        }
        (Some(Errno::ENOENT), Ok(Head::Binary)) => {
            Some("needs a loader of shared libraries that does not exist on this host".to_owned())
        }
        (Some(Errno::ENOEXEC), Ok(Head::Script { interpreter, .. })) => {
            let inner = Head::read(&interpreter).ok().and_then(|head| head.fault());
            let why = inner.unwrap_or_else(|| "is none".to_owned());
            Some(format!("has the interpreter {}, which {why}", interpreter.display()))
        }
        (Some(Errno::EACCES), _) if is_noexec(&path).unwrap_or(false) => Some(
            "is on a file system that is mounted with noexec: nothing can be started from there".to_owned(),
        ),
        (Some(Errno::EACCES), Ok(Head::Script { interpreter, .. }))
            if is_noexec(&interpreter).unwrap_or(false) =>
        {
            Some(format!(
                "has the interpreter {}, on a file system that is mounted with noexec",
                interpreter.display()
            ))
        }
        _ => None,
    };
    match said {
        Some(said) => format!("{name} {said}"),
        None => format!("{name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Output};

    use super::*;

    #[expect(unsafe_code, reason = "as steps are started")]
    fn start(argv: &[&str], env: &[(&str, &str)], cwd: &Path) -> Result<Output, String> {
        let argv: Vec<String> = argv.iter().map(|text| (*text).to_owned()).collect();
        let env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let exec = Exec::new(&argv, &env).unwrap();
        let mut command = Command::new("not this one");
        command.current_dir(cwd);
        // SAFETY: the closure makes system calls only.
        unsafe { command.pre_exec(move || Err(exec.exec())) };
        command.output().map_err(|error| explain(&error, &argv, &env, cwd))
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_path_is_the_childs_and_a_folder_that_has_none_hides_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::create_dir(dir.path().join("sh")).unwrap();
        let path = format!("{0}/empty:{0}:{0}/absent:/usr/bin:/bin", dir.path().display());
        let env = [("PATH", "/nowhere"), ("X", "first"), ("PATH", path.as_str()), ("X", "last")];
        let output = start(&["sh", "-c", "echo $X $1", "sh", "a b"], &env, dir.path()).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "last a b\n");
        let none = start(&["no-such-program"], &env, dir.path()).unwrap_err();
        assert_eq!(none, "there is no program no-such-program on this host");
    }

    #[test]
    fn what_its_files_tell_is_said_without_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let inner = format!("#!{}/empty\n", dir.path().display());
        let cases: [(&str, &[u8], Option<&str>); 12] = [
            ("good", b"#!/bin/sh\n", None),
            ("env", b"#!/usr/bin/env sh\n", None),
            ("env-s", b"#!/usr/bin/env -S X=1 sh -e\n", None),
            ("env-s2", b"#!/usr/bin/env -Ssh -e\n", None),
            ("argument", b"#!/bin/sh -e\n", None),
            (
                "lost",
                b"#!/no/such/python3 -u\n",
                Some("has the interpreter /no/such/python3, which does not exist"),
            ),
            (
                "env-lost",
                b"#!/usr/bin/env no-such-python\n",
                Some("has the interpreter no-such-python, which does"),
            ),
            (
                "env-lost-s",
                b"#!/usr/bin/env -S no-such-python -u\n",
                Some("has the interpreter no-such-python,"),
            ),
            ("crlf", b"#!/bin/sh\r\n", Some("has lines that end in \\r\\n")),
            ("empty", b"", Some("is empty")),
            ("inner", inner.as_bytes(), Some("/empty, which is empty")),
            ("folder-as-interpreter", b"#!/usr\n", Some("has the interpreter /usr, which is not executable")),
        ];
        for (name, bytes, wanted) in cases {
            put(dir.path(), name, bytes);
            for program in [format!("./{name}"), dir.path().join(name).display().to_string()] {
                let said = obstacle(&program, dir.path());
                match wanted {
                    None => assert_eq!(said, None),
                    Some(wanted) => {
                        let said = said.unwrap_or_default();
                        assert!(said.starts_with(&program) && said.contains(wanted), "{said}");
                    }
                }
            }
        }
        fs::write(dir.path().join("plain"), "#!/bin/sh\n").unwrap();
        for (program, wanted) in [
            ("sh", None),
            ("/bin/sh", None),
            ("no-such-program", Some("there is no program no-such-program on this host")),
            ("/opt/no/such", Some("/opt/no/such does not exist on this host")),
            ("./none", Some("./none does not exist on this host")),
            ("./plain", Some("./plain is not executable")),
            ("/usr", Some("/usr is a folder")),
        ] {
            assert_eq!(obstacle(program, dir.path()).as_deref(), wanted);
        }
    }

    #[test]
    fn nothing_is_handed_to_a_shell_and_the_reason_names_the_file_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut foreign = vec![0; 64];
        foreign[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        foreign[16..20].copy_from_slice(&[2, 0, 8, 0]);
        foreign.extend(format!("\ntouch {}/made\n", dir.path().display()).bytes());
        let inner = format!("#!{}/empty\n", dir.path().display());
        let cases: [(&str, &[u8], &str); 8] = [
            ("empty", b"", "./empty is empty"),
            ("foreign", &foreign, "is built for another processor (mips)"),
            ("plain", b"touch made\n", "./plain has neither `#!`"),
            ("crlf", b"#!/bin/sh\r\ntouch made\r\n", "./crlf has lines that end in \\r\\n"),
            (
                "lost",
                b"#!/no/such/python\n",
                "./lost has the interpreter /no/such/python, which does not exist",
            ),
            ("inner", inner.as_bytes(), "/empty, which is empty"),
            ("bom", b"\xef\xbb\xbf#!/bin/sh\n", "./bom begins with a byte order mark"),
            ("zeroes", &[0; 40], "./zeroes begins with zeroes"),
        ];
        for (name, bytes, wanted) in cases {
            put(dir.path(), name, bytes);
            for program in [format!("./{name}"), dir.path().join(name).display().to_string()] {
                let why = start(&[&program], &[], dir.path()).unwrap_err();
                let wanted = wanted.replace("./", program.trim_end_matches(name));
                assert!(why.contains(&wanted), "{wanted}: {why}");
            }
            let env = [("PATH", dir.path().to_str().unwrap())];
            assert!(start(&[name], &env, dir.path()).is_err(), "{name} by its PATH");
        }
        assert!(!dir.path().join("made").exists(), "nothing was read by a shell");
        assert_eq!(start(&["./none"], &[], dir.path()).unwrap_err(), "./none does not exist");
    }
}
