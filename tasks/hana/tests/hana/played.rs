//! A host on which the stand-ins of SAP's tools (`tests/hana`) play a real system, with rows.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{Answer, Host};

/// Every password of the system: what must be found nowhere.
pub(crate) const PASSWORD: &str = "Canary9d1f#";

/// A program that is built beside this crate's: `tests/run` does.
pub(crate) fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hostler-hana")).with_file_name(name);
    assert!(path.is_file(), "{} is missing: `tests/run hana` builds it", path.display());
    path
}

/// What a tool left: exit code, standard output and standard error.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The host; its system is HDB 00.
pub(crate) struct Played {
    host: Host,
}

impl Played {
    /// A host without a system, whose time runs a thousand times as fast, with media of 2.00.077.00 and 2.00.079.00.
    pub(crate) fn new(name: &str) -> Self {
        let played = Self { host: Host::empty() };
        played.own(&["install", &played.root(), "--host", name, "--factor", "0.001"]);
        for version in ["2.00.077.00", "2.00.079.00"] {
            played.own(&["media", &played.root(), version, &format!("/media/{version}")]);
            // As an operator moves it after SAPCAR.
            played.host.file(&format!("media/{version}/SAP_HANA_DATABASE/SIGNATURE.SMF"), "signature\n");
        }
        for secret in ["sidadm_password", "system_password", "sapadm_password"] {
            played.host.file(&format!("secrets/{secret}"), PASSWORD);
        }
        played
    }

    /// A host with the system in 2.00.077.00, and the key `HOSTLER` of SYSTEM.
    pub(crate) fn with_system(name: &str) -> Self {
        let played = Self::new(name);
        let answer = played.run(&["--number", "00", "install", "--media", "/media/2.00.077.00"]);
        assert_eq!(answer.code(), 0, "{}", answer.err());
        played.key("HOSTLER", "localhost:30013");
        played
    }

    pub(crate) fn root(&self) -> String {
        self.host.path().display().to_string()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.host.path().join(path.trim_start_matches('/'))
    }

    /// The stand-ins' own commands.
    pub(crate) fn own(&self, arguments: &[&str]) {
        let status = Command::new(beside("hana-standins")).args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    /// Sets a parameter of the whole system.
    pub(crate) fn set(&self, section: &str, key: &str, value: &str) {
        let set = format!("SET ('{section}','{key}') = '{value}' WITH RECONFIGURE");
        self.sql("SYSTEMDB", &format!("ALTER SYSTEM ALTER CONFIGURATION ('global.ini','SYSTEM') {set}"));
    }

    /// A table with the row 1 in a backup of all databases, the row 2 in the logs, and the row 3 in the log backup after
    /// the instant that is returned.
    pub(crate) fn with_history(&self, to: &str) -> String {
        self.set("persistence", "log_backup_timeout_s", "50");
        self.sql("HDB", "CREATE TABLE T (N INTEGER)");
        self.sql("HDB", "INSERT INTO T VALUES (1)");
        let answer = self.run(&["backup", "--run", "B1", "--to", to]);
        assert_eq!(answer.code(), 0, "{}", answer.err());
        self.sql("HDB", "INSERT INTO T VALUES (2)");
        let instant = self.instant();
        self.sql("HDB", "INSERT INTO T VALUES (3)");
        self.logs_sent();
        instant
    }

    /// An instant of whole seconds between what was written before and what is written behind.
    pub(crate) fn instant(&self) -> String {
        let second = || jiff::Timestamp::now().as_second();
        let begun = second();
        until("the next second", || second() > begun);
        let instant = second();
        until("the second after it", || second() > instant);
        jiff::Timestamp::from_second(instant).unwrap().to_string()
    }

    /// Waits until no commit is in the log alone, and the catalog that says so is sent.
    pub(crate) fn logs_sent(&self) {
        let log = self.path("/hana/log/HDB/mnt00001/hdb00002/logsegment_000_00000000.dat");
        until("the logs are sent", || fs::read(&log).unwrap().is_empty());
        let newest = "SELECT SOURCE_TYPE_NAME FROM M_BACKUP_CATALOG_FILES ORDER BY ENTRY_ID DESC LIMIT 1";
        until("the catalog is sent", || self.sql("HDB", newest) == "\"catalog\"");
    }

    /// Asks for faults, or for none.
    pub(crate) fn fault(&self, lines: &str) {
        fs::write(self.path("/.hana-standins/faults"), lines).unwrap();
    }

    /// Runs one of SAP's tools.
    pub(crate) fn tool(&self, path: &str, arguments: &[&str], input: &str) -> Left {
        let mut command = Command::new(self.path(path));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A tool that does not read its input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Left { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Puts a key of the user SYSTEM into the user store.
    pub(crate) fn key(&self, key: &str, place: &str) {
        let left = self.tool(
            "/usr/sap/HDB/HDB00/exe/hdbuserstore",
            &["-i", "SET", key, place, "SYSTEM"],
            &format!("{PASSWORD}\n"),
        );
        assert_eq!(left.code, Some(0), "{left:?}");
    }

    /// One statement on a database that must work: what it prints without header and count.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let options = ["-i", "00", "-u", "SYSTEM", "-p", PASSWORD, "-d", database, "-x", "-a", "-E", "3"];
        let left = self.tool("/usr/sap/HDB/HDB00/exe/hdbsql", &[&options[..], &[statement]].concat(), "");
        assert_eq!((left.code, left.err.as_str()), (Some(0), ""), "{statement}");
        left.out.trim_end().to_owned()
    }

    /// One statement on a database: what it prints without header and count, or its error.
    pub(crate) fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let options = ["-i", "00", "-u", "SYSTEM", "-p", PASSWORD, "-d", database, "-x", "-a", "-E", "3"];
        let left = self.tool("/usr/sap/HDB/HDB00/exe/hdbsql", &[&options[..], &[statement]].concat(), "");
        if left.code == Some(0) && left.err.is_empty() { Ok(left.out) } else { Err(left.err) }
    }

    /// A call of sapcontrol.
    pub(crate) fn sapcontrol(&self, call: &str) -> Option<i32> {
        let words: Vec<&str> = ["-nr", "00", "-function"].into_iter().chain(call.split(' ')).collect();
        self.tool("/usr/sap/hostctrl/exe/sapcontrol", &words, "").code
    }

    /// The rows of the tenant's table T, in their order.
    pub(crate) fn rows(&self) -> String {
        self.sql("HDB", "SELECT N FROM T ORDER BY N").replace('\n', " ")
    }

    /// The arguments of every call of SAP's tools.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.path("/.hana-standins/calls")).unwrap_or_default()
    }

    /// The program, to be started on this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(arguments);
        command.env("HOSTLER_SECRETS", self.path("secrets"));
        command
    }

    /// Runs the program for no certain system.
    pub(crate) fn run_of_host(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.host.command_of_host(arguments).output().unwrap())
    }

    /// Runs the program.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // The server ends by itself when its root is gone; killed here, it does not outlive the test.
        let _ = Command::new(self.path("/usr/sap/HDB/HDB00/HDB")).arg("kill").output();
    }
}

/// Waits for a state, with a deadline.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
