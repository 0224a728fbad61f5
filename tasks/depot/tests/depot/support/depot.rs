//! The program, with a configuration, a state folder and credentials of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::servers::{BUCKET, KEY, KEY_ID};

/// A place to run the program in.
pub(crate) struct Depot {
    pub(crate) folder: tempfile::TempDir,
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert!(self.err.contains(text), "{text:?} is not in: {}", self.err);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {:?}", self.err))
    }
}

impl Depot {
    /// With small limits, so that failures are seen within a test's time. `more` are lines of the configuration.
    pub(crate) fn new(server: SocketAddr, more: &str) -> Self {
        let depot = Self { folder: tempfile::tempdir().unwrap() };
        depot.configure(server, more);
        depot
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, server: SocketAddr, more: &str) {
        let state = self.state().display().to_string();
        let text = format!(
            "endpoint: http://{server}\nregion: us-east-1\nbucket: {BUCKET}\nprefix: prod\nstate_dir: {state}\npart_mib: 5\n{more}\n"
        );
        std::fs::write(self.path("depot.yml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The program, ready to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_hostler-depot")), arguments)
    }

    pub(crate) fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HOSTLER_DEPOT_CONFIG", self.path("depot.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).spawn().unwrap())
    }

    /// Runs it with this on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Ended {
        feed(self.command(arguments), input)
    }

    /// Stores this.
    pub(crate) fn put(&self, name: &str, input: &[u8]) {
        self.feed(&["put", name], input).ok();
    }

    /// Names that `list` shows.
    pub(crate) fn names(&self) -> Vec<String> {
        let all = self.run(&["list", "--json"]).ok().json();
        all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Entries in the journal.
    pub(crate) fn begun(&self) -> usize {
        let Ok(files) = std::fs::read_dir(self.state()) else { return 0 };
        files.flatten().filter(|file| file.path().extension().is_some_and(|end| end == "json")).count()
    }
}

pub(crate) fn feed(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may end before it has read all.
            let _ = stdin.write_all(input);
        });
        ended(child)
    })
}

pub(crate) fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!err.contains(KEY) && !err.contains("panicked"), "{err}");
    Ended { code: output.status.code(), out: output.stdout, err }
}
