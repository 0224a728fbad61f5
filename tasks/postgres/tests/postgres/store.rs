//! A store of a test's own: the depot's test server over a folder, the program of the depot, and clusters that archive
//! there. They are copies of one template with segments of 1 MiB.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hostler_testkit::eventually;

use crate::kit::{Lab, SOON, as_postgres, output, own};

/// The bucket.
const BUCKET: &str = "vault";
/// What the cluster is called in the depot.
pub(crate) const ID: &str = "shop";

/// A lab with a store.
pub(crate) struct Store {
    pub(crate) lab: Lab,
    server: Option<Child>,
}

/// A program that cargo has made beside ours.
fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hostler-postgres")).with_file_name(name);
    assert!(path.exists(), "{}: cargo build -p hostler-depot --bins --examples", path.display());
    path
}

impl Store {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let lab = Lab::new();
        fs::create_dir_all(lab.path("store").join(BUCKET)).expect("a bucket");
        for (folder, files) in [
            ("bin", [("hostler-postgres", "hostler-postgres"), ("hostler-depot", "hostler-depot")]),
            ("keys", [("s3_access_key_id", "id"), ("s3_secret_access_key", "key")]),
        ] {
            fs::create_dir(lab.path(folder)).expect("a folder");
            own(&lab.path(folder));
            for (file, text) in files {
                let path = lab.path(folder).join(file);
                if folder == "bin" {
                    if fs::hard_link(beside(text), &path).is_err() {
                        fs::copy(beside(text), &path).expect("the program");
                    }
                } else {
                    fs::write(&path, text).expect("a key");
                    own(&path);
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the mode");
                }
            }
        }
        fs::create_dir(lab.path("depot-state")).expect("a folder");
        own(&lab.path("depot-state"));
        let mut store = Self { lab, server: None };
        store.open();
        store
    }

    /// Starts the server, on a new port.
    pub(crate) fn open(&mut self) {
        let mut command = Command::new(beside("examples/server"));
        command.arg(self.lab.path("store")).args(["id", "key"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its address");
        let text = format!(
            "endpoint: http://{}\nregion: us-east-1\nbucket: {BUCKET}\nprefix: prod\nstate_dir: {}\n\
             credentials_dir: {}\npart_mib: 5\ncompress: 1\ntimeout: 5\ntries: 2\n",
            line.trim(),
            self.lab.path("depot-state").display(),
            self.lab.path("keys").display()
        );
        fs::write(self.lab.path("depot.yml"), text).expect("the configuration");
        own(&self.lab.path("depot.yml"));
        self.server = Some(child);
    }

    /// Ends the server.
    pub(crate) fn close(&mut self) {
        if let Some(mut child) = self.server.take() {
            drop(child.stdin.take());
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Our program as whoever runs the tests, with what a step of a task has.
    pub(crate) fn program(&self, words: &[&str]) -> Command {
        let mut command = self.lab.tool(self.lab.path("bin/hostler-postgres").to_str().expect("a path"));
        command.args(words).env("HOSTLER_POSTGRES_STATE", self.lab.path("state"));
        command.env("HOSTLER_DEPOT", self.lab.path("bin/hostler-depot"));
        command
    }

    /// The same with the words that name the place, which come first.
    pub(crate) fn at(&self, command: &[&str], words: &[&str]) -> Command {
        let config = self.lab.path("depot.yml").display().to_string();
        let place = ["--id", ID, "--depot-config", &config];
        self.program(&command.iter().chain(&place).chain(words).copied().collect::<Vec<_>>())
    }

    /// The command of a server, as it stands in its configuration.
    pub(crate) fn hook(&self, command: &str, words: &str) -> String {
        let (bin, config) = (self.lab.path("bin"), self.lab.path("depot.yml"));
        format!(
            "HOSTLER_DEPOT={0}/hostler-depot {0}/hostler-postgres {command} --id {ID} --depot-config {1} {words}",
            bin.display(),
            config.display()
        )
    }

    /// As the user postgres in a folder of data, as a server calls it.
    pub(crate) fn hooked(&self, data: &Path, command: &str, words: &str) -> (i32, String) {
        let mut shell = as_postgres("/bin/sh");
        shell.arg("-c").arg(format!("cd {} && {}", data.display(), self.hook(command, words)));
        let (status, _, said) = output(&mut shell);
        (status, said)
    }

    /// A running cluster that archives into the store; its port.
    #[track_caller]
    pub(crate) fn cluster(&self, version: u16, more: &str) -> u16 {
        self.lab.copy_template(version, "archiving", &["--data-checksums", "--wal-segsize=1"]);
        let hook = self.hook("archive", "%p");
        let archiving =
            format!("shared_buffers = 8MB\narchive_mode = on\narchive_command = '{hook}'\n{more}");
        self.lab.start_cluster(version, &archiving)
    }

    /// Where a cluster's data is.
    pub(crate) fn data(&self, version: u16) -> PathBuf {
        self.lab.data(&version.to_string())
    }

    /// The folder of an object of the depot.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.lab.path("store").join(BUCKET).join("prod").join(name)
    }

    /// The names in the depot that begin so.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let mut command = Command::new(self.lab.path("bin/hostler-depot"));
        command.arg("--config").arg(self.lab.path("depot.yml")).args(["list", "--names", below]);
        let (status, names, said) = output(&mut command);
        assert_eq!(status, 0, "{said}");
        names.lines().map(str::to_owned).collect()
    }

    /// The system identifier of a cluster.
    pub(crate) fn system(&self, port: u16) -> String {
        self.lab.sql(port, "postgres", "select system_identifier from pg_control_system()")
    }

    /// Ends the segment that is written, and waits until it is in the store; its name.
    #[track_caller]
    pub(crate) fn switch(&self, port: u16) -> String {
        let name = self.lab.sql(
            port,
            "postgres",
            "select pg_create_restore_point('a switch') is null; select pg_walfile_name(pg_switch_wal())",
        );
        let name = name.lines().last().expect("a name").to_owned();
        eventually(SOON, || {
            let stored = self.names(&format!("{ID}.wal/")).iter().any(|key| key.ends_with(&name));
            stored.then_some(()).ok_or_else(|| {
                let log = fs::read_to_string(self.lab.path("log-15")).unwrap_or_default();
                format!(
                    "{name} is not archived: {}",
                    log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
                )
            })
        });
        name
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
