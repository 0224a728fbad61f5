//! A PostgreSQL of a test's own, Debian's, in a temporary folder, as the user `postgres`: its administrator comes in by
//! the socket, everybody else by the loopback address and with a password. It logs each statement.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::User;
use tempfile::TempDir;

use crate::free_ports;

/// A running server; it ends with this value.
pub struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// A new server. Needs root, to become `postgres`.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("hostler-pg-").tempdir().expect("a temporary folder");
        let user =
            User::from_name("postgres").expect("the users").expect("the user postgres: run tests/install");
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .expect("root, to become postgres");
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL: run tests/install")
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("initdb").exists())
            .collect();
        versions.sort();
        let programs = versions.pop().expect("PostgreSQL: run tests/install");
        let [port] = free_ports();
        let server = Self { dir, programs, port };
        let data = server.data();
        let data = data.to_str().expect("a path");
        server.run(
            "initdb",
            &["--pgdata", data, "--auth-local=peer", "--auth-host=scram-sha-256", "--no-sync"],
        );
        let more = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             log_statement = 'all'\nlog_connections = on\n",
            server.socket()
        );
        let conf = server.data().join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("the configuration") + &more;
        fs::write(&conf, text).expect("the configuration");
        let log = server.path("log").display().to_string();
        server.run("pg_ctl", &["--pgdata", data, "--log", &log, "--wait", "start"]);
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The folder of its socket.
    pub fn socket(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn command(&self, program: &Path, words: &[&str]) -> Output {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).args(words).current_dir("/");
        // Whoever runs the tests may have settings for servers of his own.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        // pg_ctl hands its output on to the server, which would keep a pipe open.
        let to = |name: &str| fs::File::create(self.path(name)).expect("a file");
        let status = command.stdin(Stdio::null()).stdout(to("out")).stderr(to("err")).status();
        let read = |name: &str| fs::read(self.path(name)).expect("what it said");
        Output { status: status.expect("runuser"), stdout: read("out"), stderr: read("err") }
    }

    #[track_caller]
    fn run(&self, program: &str, words: &[&str]) {
        let output = self.command(&self.programs.join(program), words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
    }

    /// What a statement of the administrator gives, a row a line.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let port = self.port.to_string();
        let words = [
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            &self.socket(),
            "-p",
            &port,
            "-c",
            statement,
        ];
        let output = self.command(&self.programs.join("psql"), &words);
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether a role logs in over the network with this password.
    pub fn enters(&self, role: &str, password: &str) -> bool {
        let port = self.port.to_string();
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", role, "-d", "postgres", "-c", "select 1"]);
        // No environment: other tests may look whether any process shows a password.
        let file = tempfile::NamedTempFile::new().expect("a passfile");
        let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
        fs::write(file.path(), format!("*:*:*:*:{escaped}\n")).expect("the passfile");
        command
            .env("PGPASSFILE", file.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().expect("psql").success()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.data().display().to_string();
        drop(self.command(
            &self.programs.join("pg_ctl"),
            &["--pgdata", &data, "--mode=immediate", "--wait", "stop"],
        ));
    }
}
