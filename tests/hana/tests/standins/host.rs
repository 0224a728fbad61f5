//! A played host for one test.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PASSWORD: &str = "Secret12#";
pub(crate) const XML: &str = "<Passwords><password><![CDATA[Secret12#]]></password><system_user_password><![CDATA[Secret12#]]></system_user_password></Passwords>";

/// What a tool left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Exit code; `None`: killed.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// A host without a system, whose time runs a thousand times as fast.
    pub(crate) fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        host.own(&["install", &host.root(), "--host", "h1", "--factor", "0.001"]);
        host
    }

    /// A host with the system HA1 10 in version 2.00.077.00.
    pub(crate) fn with_system() -> Self {
        let host = Self::new();
        let left = host.install_system("2.00.077.00");
        assert_eq!(left.code, Some(0), "{left:?}");
        host
    }

    pub(crate) fn root(&self) -> String {
        self.folder.path().to_str().unwrap().to_string()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// The program under its own name.
    pub(crate) fn own(&self, arguments: &[&str]) {
        let status = Command::new(env!("CARGO_BIN_EXE_hana-standins")).args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    pub(crate) fn fault(&self, lines: &str) {
        fs::write(self.path("/.hana-standins/faults"), lines).unwrap();
    }

    pub(crate) fn begin(&self, tool: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(self.path(tool));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(crate) fn run_with(&self, tool: &str, arguments: &[&str], input: &str) -> Left {
        let mut child = self.begin(tool, arguments);
        // A tool that does not read its input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some() || output.status.signal() == Some(9), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Left { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn run(&self, tool: &str, arguments: &[&str]) -> Left {
        self.run_with(tool, arguments, "")
    }

    /// The hdblcm of media of a version.
    pub(crate) fn hdblcm(&self, version: &str, arguments: &[&str]) -> Left {
        let media = format!("/media/{version}");
        self.own(&["media", &self.root(), version, &media]);
        let tool = format!("{media}/SAP_HANA_DATABASE/hdblcm");
        let all: Vec<&str> =
            ["-b", "--read_password_from_stdin=xml"].iter().chain(arguments).copied().collect();
        self.run_with(&tool, &all, XML)
    }

    pub(crate) fn install_system(&self, version: &str) -> Left {
        self.hdblcm(version, &["--action=install", "--sid=HA1", "--number=10"])
    }

    pub(crate) fn sapcontrol(&self, call: &str) -> Left {
        let words: Vec<&str> = ["-nr", "10", "-function"].into_iter().chain(call.split(' ')).collect();
        self.run("/usr/sap/hostctrl/exe/sapcontrol", &words)
    }

    pub(crate) fn hdbsql(&self, options: &[&str]) -> Left {
        let all: Vec<&str> =
            ["-i", "10", "-u", "SYSTEM", "-p", PASSWORD].iter().chain(options).copied().collect();
        self.run("/usr/sap/HA1/HDB10/exe/hdbsql", &all)
    }

    /// One statement on a database that must work: what it prints without header and count.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let left = self.hdbsql(&["-d", database, "-x", "-a", "-E", "3", statement]);
        assert_eq!((left.code, left.err.as_str()), (Some(0), ""), "{statement}");
        left.out.trim_end().to_string()
    }

    /// The rows of the tenant's table T, in their order.
    pub(crate) fn rows(&self) -> String {
        self.sql("HA1", "SELECT N FROM T ORDER BY N").replace('\n', " ")
    }

    pub(crate) fn resident(&self, arguments: &[&str]) -> Left {
        let all: Vec<&str> =
            ["-b", "--read_password_from_stdin=xml"].iter().chain(arguments).copied().collect();
        self.run_with("/hana/shared/HA1/hdblcm/hdblcm", &all, XML)
    }
}

/// Waits for a state, with a deadline.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The server ends by itself when its root is gone; killed here, it does not outlive the test.
        let _ = Command::new(self.path("/hana/shared/HA1/HDB10/HDB")).arg("kill").output();
    }
}
