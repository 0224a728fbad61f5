//! Where a cluster's files are and how its server is started and stopped: Debian's `postgresql-common`.
//!
//! Nothing else in the program knows a path of the distribution or calls one of its tools, so that another layout is
//! another file like this one. Clusters are found by `pg_lsclusters`, never by their ports.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};
use crate::server::Session;
use crate::wal::Lsn;

/// For a tool that only reads.
const QUICK: Duration = Duration::from_secs(60);
/// For a tool that makes, starts or stops a cluster.
const SLOW: Duration = Duration::from_secs(600);
/// How long a server may take to end in order.
const ORDER: Duration = Duration::from_secs(2);
/// And how long at all.
const END: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// Between two attempts to remove the data of a server that is about to end.
const AGAIN: Duration = Duration::from_millis(100);
/// The oldest version that is dealt with.
const OLDEST: u16 = 13;

/// Settings that follow from a cluster's name, port and folders: never taken from a user, nor from another cluster.
pub const PLACES: [&str; 7] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "port",
    "unix_socket_directories",
];

/// A cluster of this host.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Major version.
    pub version: u16,
    /// Name.
    pub name: String,
    /// Port at which it answers, or would if it were started.
    pub port: u16,
    /// Port of its configuration: another one than that of a server that was started before it was changed.
    pub configured: u16,
    /// Folder of its sockets.
    pub socket: PathBuf,
    /// Folder of its data.
    pub data: PathBuf,
    /// Folder of its configuration.
    pub conf: PathBuf,
    /// Whether its server runs.
    pub running: bool,
    /// Whom its files belong to.
    pub owner: Owner,
}

impl Cluster {
    /// Version and name, as the tools of Debian write them: `15/main`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.version, self.name)
    }

    /// Its file of client authentication.
    pub fn hba(&self) -> PathBuf {
        self.conf.join("pg_hba.conf")
    }
}

/// Every cluster of this host from version 13 on.
///
/// # Errors
/// If the tool fails or what it prints cannot be read.
pub async fn clusters() -> Result<Vec<Cluster>, Error> {
    let tool = Path::new("/usr/bin/pg_lsclusters");
    if !tool.exists() {
        return Err(Error::Missing("pg_lsclusters is not installed: install postgresql-common".to_owned()));
    }
    let text = exec::succeed(None, tool, &["--json"], QUICK).await?;
    let mut clusters =
        read(&text).ok_or_else(|| Error::Program("pg_lsclusters: its output cannot be read".to_owned()))?;
    // The tool looks for a server at the port of the configuration, where it may not be yet.
    for cluster in &mut clusters {
        // Of somebody else's cluster the tool has the only word.
        let Ok(serving) = serving(&cluster.data) else { continue };
        cluster.running = serving.is_some();
        cluster.port = serving.and_then(|serving| serving.port).unwrap_or(cluster.configured);
    }
    Ok(clusters)
}

fn read(text: &str) -> Option<Vec<Cluster>> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    let mut clusters = Vec::new();
    for entry in value.as_array()? {
        // Numbers come as numbers or as texts, by the version of the tool.
        let number = |key: &str| match entry.get(key)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        // `9.6` and the like is no whole number: such clusters are none of ours.
        let Some(version) = number("version").and_then(|version| u16::try_from(version).ok()) else {
            continue;
        };
        if version < OLDEST {
            continue;
        }
        let part = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let configured = u16::try_from(number("port")?).ok()?;
        clusters.push(Cluster {
            version,
            name: text("cluster")?,
            port: configured,
            configured,
            socket: PathBuf::from(text("socketdir")?),
            data: PathBuf::from(text("pgdata")?),
            conf: PathBuf::from(text("configdir")?),
            running: number("running").unwrap_or_default() == 1,
            owner: Owner { uid: part(number("owneruid"))?, gid: part(number("ownergid"))? },
        });
    }
    Some(clusters)
}

/// The cluster of this name: of this version, or of the only version that has one.
///
/// # Errors
/// If no cluster fits, or more than one.
pub async fn cluster(name: &str, version: Option<u16>) -> Result<Cluster, Error> {
    let mut fitting: Vec<_> = clusters()
        .await?
        .into_iter()
        .filter(|cluster| cluster.name == name && version.is_none_or(|version| version == cluster.version))
        .collect();
    if fitting.len() > 1 {
        let titles: Vec<_> = fitting.iter().map(Cluster::title).collect();
        return Err(Error::Refused(format!("there are {}: say which version", titles.join(", "))));
    }
    fitting.pop().ok_or_else(|| {
        let version = version.map(|version| format!("{version}/")).unwrap_or_default();
        Error::Missing(format!("there is no cluster {version}{name} from version 13 on: see pg_lsclusters"))
    })
}

/// The user of the system to whom clusters belong, where there is none yet to ask.
///
/// # Errors
/// If there is no such user.
pub fn administrator() -> Result<Option<Owner>, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user =
        nix::unistd::User::from_name("postgres").map_err(|error| Error::Local(format!("users: {error}")))?;
    let user = user
        .ok_or_else(|| Error::Missing("there is no user postgres: install postgresql-common".to_owned()))?;
    Ok(Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// A program of one version of PostgreSQL.
pub fn program(version: u16, name: &str) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{name}"))
}

/// Where the data of a new cluster goes.
pub fn data(version: u16, name: &str) -> PathBuf {
    roots().1.join(version.to_string()).join(name)
}

/// Where the configuration of a new cluster goes.
pub fn conf(version: u16, name: &str) -> PathBuf {
    roots().0.join(version.to_string()).join(name)
}

/// The folders of configuration and data: Debian's, or with `PG_CLUSTER_CONF_ROOT`, which its tools know as well, that
/// one and a folder `data` beside it.
fn roots() -> (PathBuf, PathBuf) {
    match std::env::var_os("PG_CLUSTER_CONF_ROOT").map(PathBuf::from) {
        Some(conf) => {
            let data = conf.with_file_name("data");
            (conf, data)
        }
        None => (PathBuf::from("/etc/postgresql"), PathBuf::from("/var/lib/postgresql")),
    }
}

/// Whether the server of this version is installed.
pub fn installed(version: u16) -> bool {
    program(version, "postgres").exists() && program(version, "pg_dumpall").exists()
}

/// Makes a cluster of another version with the name, owner, encoding, locale and checksums of an existing one. It is not
/// started, and not started at boot.
///
/// # Errors
/// If the tool fails; what it has left is then cleared away by [`clear_away`].
pub async fn create(like: &Cluster, admin: &Session, version: u16, port: u16) -> Result<(), Error> {
    let rows = admin
        .rows(
            "select pg_encoding_to_char(encoding), datcollate, datctype, current_setting('data_checksums'), \
             current_setting('wal_segment_size') from pg_database where datname = 'template1'",
        )
        .await?;
    let Some([Some(encoding), Some(collate), Some(ctype), Some(checksums), Some(segment)]) =
        rows.first().map(Vec::as_slice)
    else {
        return Err(Error::Server(format!("{}: no template1", like.title())));
    };
    let bytes: u64 = segment
        .strip_suffix("MB")
        .and_then(|number| number.parse().ok())
        .or_else(|| {
            segment.strip_suffix("GB").and_then(|number| number.parse::<u64>().ok()).map(|size| size * 1024)
        })
        .ok_or_else(|| Error::Server(format!("{}: segments of {segment}", like.title())))?;
    let shape = Shape {
        encoding: encoding.clone(),
        collate: collate.clone(),
        ctype: ctype.clone(),
        checksums: checksums == "on",
        segment: bytes << 20,
    };
    let site = Site { version, name: &like.name, port, socket: &like.socket, owner: like.owner };
    make(&site, &shape).await
}

/// Where a new cluster is, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Major version.
    pub version: u16,
    /// Name.
    pub name: &'a str,
    /// Port.
    pub port: u16,
    /// Folder of its sockets.
    pub socket: &'a Path,
    /// Whom its files belong to.
    pub owner: Owner,
}

/// What of a cluster is decided when it is made.
pub struct Shape {
    /// Encoding of its databases.
    pub encoding: String,
    /// Their order.
    pub collate: String,
    /// Their kinds of characters.
    pub ctype: String,
    /// Whether pages have checksums.
    pub checksums: bool,
    /// Bytes of a segment of WAL.
    pub segment: u64,
}

/// Makes a cluster. It is not started, and not started at boot.
///
/// # Errors
/// If the tool fails; what it has left is then cleared away by [`clear_away`].
pub async fn make(site: &Site<'_>, shape: &Shape) -> Result<(), Error> {
    let Site { version, name, port, socket, owner } = *site;
    let folder = data(version, name);
    let mut words = vec![
        format!("--datadir={}", folder.display()),
        format!("--socketdir={}", socket.display()),
        format!("--user={}", owner.uid),
        format!("--port={port}"),
        format!("--encoding={}", shape.encoding),
        format!("--locale={}", shape.collate),
        format!("--lc-collate={}", shape.collate),
        format!("--lc-ctype={}", shape.ctype),
        "--start-conf=manual".to_owned(),
    ];
    if std::env::var_os("PG_CLUSTER_CONF_ROOT").is_some() {
        words.push(format!("--logfile={}", folder.with_extension("log").display()));
    }
    words.extend([version.to_string(), name.to_owned(), "--".to_owned()]);
    words.extend([format!("--wal-segsize={}", shape.segment >> 20), "--auth-local=peer".to_owned()]);
    words.push("--auth-host=scram-sha-256".to_owned());
    if shape.checksums {
        words.push("--data-checksums".to_owned());
    } else if version >= 18 {
        words.push("--no-data-checksums".to_owned());
    }
    exec::succeed(None, Path::new("/usr/bin/pg_createcluster"), &words, SLOW).await.map(|_| ())
}

/// Starts a cluster; where systemd runs the host, in a unit of its own.
///
/// # Errors
/// If it does not start.
pub async fn start(cluster: &Cluster) -> Result<(), Error> {
    let words = [cluster.version.to_string(), cluster.name.clone(), "start".to_owned()];
    let tool = Path::new("/usr/bin/pg_ctlcluster");
    let ended = exec::run(None, tool, &words, SLOW).await?;
    match ended.status {
        // 2: it runs already.
        Some(0 | 2) => Ok(()),
        _ => Err(Error::Program(format!("{} does not start: {}", cluster.title(), ended.complaint))),
    }
}

/// Stops a cluster, ending its sessions, and starts it again.
///
/// # Errors
/// If it does not start.
pub async fn restart(cluster: &Cluster) -> Result<(), Error> {
    let words = [cluster.version.to_string(), cluster.name.clone(), "restart".to_owned()];
    exec::succeed(None, Path::new("/usr/bin/pg_ctlcluster"), &words, SLOW).await.map(|_| ())
}

/// The minor version that is installed, such as `15.18`.
///
/// # Errors
/// If its server does not say.
pub async fn minor(version: u16) -> Result<String, Error> {
    let server = program(version, "postgres");
    let text = exec::succeed(None, &server, &["--version"], QUICK).await?;
    let words = text.split_once("(PostgreSQL)").and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    words
        .map(str::to_owned)
        .ok_or_else(|| Error::Program(format!("{} does not say its version", server.display())))
}

/// Asks the installed server whether it takes the settings of a cluster, without starting it.
///
/// # Errors
/// If it does not.
pub async fn settings_hold(cluster: &Cluster) -> Result<(), Error> {
    let conf = cluster.conf.display().to_string();
    let words = ["-D", &conf, "-C", "data_directory"];
    let ended = exec::run(Some(cluster.owner), &program(cluster.version, "postgres"), &words, QUICK).await?;
    if ended.status == Some(0) && Path::new(ended.output.trim()) == cluster.data {
        return Ok(());
    }
    Err(Error::Refused(format!("{} would not start again: {}", cluster.title(), ended.complaint)))
}

/// Whether the host starts a cluster when it boots.
///
/// # Errors
/// If that cannot be written.
pub fn start_at_boot(cluster: &Cluster, on: bool) -> Result<(), Error> {
    durable::replace(&cluster.conf.join("start.conf"), if on { "auto\n" } else { "manual\n" }, cluster.owner)
}

/// Stops and removes a cluster that is whole.
///
/// # Errors
/// If the tool fails.
pub async fn drop_cluster(cluster: &Cluster) -> Result<(), Error> {
    let words = ["--stop".to_owned(), cluster.version.to_string(), cluster.name.clone()];
    exec::succeed(None, Path::new("/usr/bin/pg_dropcluster"), &words, SLOW).await.map(|_| ())
}

/// Removes whatever exists of a cluster that [`create`] has made or half-made. Only for what the caller knows to be its
/// own work.
///
/// # Errors
/// If a server still runs in it, or a folder cannot be removed.
pub async fn clear_away(version: u16, name: &str, owner: Owner) -> Result<(), Error> {
    let (conf, data) = (conf(version, name), data(version, name));
    // The tool removes whatever folder the configuration names: of a copied one that could be another cluster's.
    let ours = |cluster: &Cluster| cluster.version == version && cluster.name == name && cluster.data == data;
    if conf.join("postgresql.conf").exists() && clusters().await?.iter().any(ours) {
        let words = ["--stop".to_owned(), version.to_string(), name.to_owned()];
        // Of a half-made one it removes what it can.
        exec::run(None, Path::new("/usr/bin/pg_dropcluster"), &words, SLOW).await?;
    }
    remove_folder(&conf)?;
    clear_folder(&data, version, owner).await
}

/// Ends what serves a folder of data and removes it. Only for what the caller knows to be its own work.
///
/// # Errors
/// If a server still runs in it, or it cannot be removed.
pub async fn clear_folder(data: &Path, version: u16, owner: Owner) -> Result<(), Error> {
    // A server that a dead run had just started has no pid file for a moment, and makes files that are in the way.
    let begun = Instant::now();
    loop {
        let halted = halt(data, version, owner).await;
        match halted.and_then(|()| remove_folder(data)) {
            Err(_) if begun.elapsed() < END => tokio::time::sleep(AGAIN).await,
            cleared => return cleared,
        }
    }
}

/// The process that serves a folder of data: the one of its pid file, if it works there. After a power cut that number
/// may be somebody else's.
///
/// # Errors
/// If the pid file cannot be read.
pub fn living(data: &Path) -> Result<Option<u32>, Error> {
    Ok(serving(data)?.map(|serving| serving.pid))
}

/// The process that serves a folder of data, and the port at which it answers, once it has one.
struct Serving {
    pid: u32,
    port: Option<u16>,
}

fn serving(data: &Path) -> Result<Option<Serving>, Error> {
    let text = durable::read(&data.join("postmaster.pid"))?.unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let pid = lines.next().and_then(|line| line.parse::<u32>().ok());
    let works = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let here = std::fs::canonicalize(data).ok();
    let pid = pid.filter(|pid| works(*pid).is_some_and(|folder| Some(folder) == here));
    // Number, folder, time of the start, port.
    let port = lines.nth(2).and_then(|line| line.parse().ok());
    Ok(pid.map(|pid| Serving { pid, port }))
}

/// A process of a server that has a client, or may get one: by the rules that the server had when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorkeeper {
    /// Its number.
    pub pid: u32,
    /// When it was started, which tells it from a later one with the same number.
    start: u64,
}

impl Doorkeeper {
    /// Ends it in order.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn end(&self) -> Result<(), Error> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or_default());
        match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(Error::Local(format!("process {pid}: {error}"))),
        }
    }
}

/// The processes of a cluster's server that have clients, also those whose clients are still logging in, which the
/// server itself lists nowhere.
///
/// # Errors
/// If the processes of the host cannot be read.
pub fn doorkeepers(cluster: &Cluster) -> Result<Vec<Doorkeeper>, Error> {
    let Some(server) = living(&cluster.data)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(Error::local("/proc"))? {
        let path = entry.map_err(Error::local("/proc"))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(pid) = number else { continue };
        // It may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
        let Some(start) = child_of(&stat, server) else { continue };
        let title = std::fs::read(path.join("cmdline")).unwrap_or_default();
        if has_client(&String::from_utf8_lossy(&title)) {
            found.push(Doorkeeper { pid, start });
        }
    }
    Ok(found)
}

/// When a process was started, if it is a living child of this one.
fn child_of(stat: &str, parent: u32) -> Option<u64> {
    // The name, in brackets, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let living = *fields.first()? != "Z" && fields.get(1)?.parse() == Ok(parent);
    living.then(|| fields.get(19)?.parse().ok())?
}

/// Whether a process of a server, by its title, has a client, or is too young to have a title.
fn has_client(title: &str) -> bool {
    let Some(title) = title.strip_prefix("postgres: ") else { return true };
    // `[local]`, or the port in brackets behind the address.
    let port = |word: &str| {
        let (_, port) = word.split_once('(')?;
        port.split_once(')')?.0.parse::<u16>().ok()
    };
    title.contains("[local]") || title.split(' ').any(|word| port(word).is_some())
}

/// Ends the server of a cluster as quickly as it can be ended in order, and if need be without order: of what was
/// committed nothing is lost either way. None is no failure.
///
/// # Errors
/// If it does not end.
pub async fn stop(cluster: &Cluster) -> Result<(), Error> {
    use nix::sys::signal::{Signal, kill};
    let begun = Instant::now();
    let mut sent = None;
    while let Some(pid) = living(&cluster.data)? {
        // Ends sessions, writes a checkpoint. What hinders that, such as an archive that hangs, the second one ends.
        let signal = if begun.elapsed() < ORDER { Signal::SIGINT } else { Signal::SIGQUIT };
        if sent != Some(signal) {
            let number = i32::try_from(pid).unwrap_or_default();
            match kill(nix::unistd::Pid::from_raw(number), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => sent = Some(signal),
                Err(error) => {
                    return Err(Error::Local(format!("{}: process {pid}: {error}", cluster.title())));
                }
            }
        }
        if begun.elapsed() > END {
            return Err(Error::Program(format!("{} does not stop: process {pid}", cluster.title())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Ends the server of a cluster in order, with everything sent to its standbys; false if it is still there after `within`.
///
/// # Errors
/// If it cannot be told to end.
pub async fn stop_in_order(cluster: &Cluster, within: Duration) -> Result<bool, Error> {
    use nix::sys::signal::{Signal, kill};
    let begun = Instant::now();
    let mut told = false;
    while let Some(pid) = living(&cluster.data)? {
        if !told {
            let number = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or_default());
            kill(number, Signal::SIGINT)
                .map_err(|error| Error::Local(format!("{}: process {pid}: {error}", cluster.title())))?;
            told = true;
        }
        if begun.elapsed() > within {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

/// What the control file of a cluster says.
pub struct Control {
    /// What became of the server: `shut down`, `in production` and the like.
    pub state: String,
    /// Where its last checkpoint begins.
    pub checkpoint: Lsn,
}

/// Reads the control file of a cluster.
///
/// # Errors
/// If it cannot be read.
pub async fn control(cluster: &Cluster) -> Result<Control, Error> {
    let program = program(cluster.version, "pg_controldata");
    let text = exec::succeed(Some(cluster.owner), &program, &[&cluster.data], QUICK).await?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let read =
        || Some((value("Database cluster state:")?, value("Latest checkpoint location:")?.parse().ok()?));
    let (state, checkpoint) =
        read().ok_or_else(|| Error::Program(format!("{}: its answer cannot be read", program.display())))?;
    Ok(Control { state: state.to_owned(), checkpoint })
}

/// Writes another port into the configuration of a cluster; it takes effect at the next start.
///
/// # Errors
/// If the file names no port, or cannot be written.
pub fn set_port(cluster: &Cluster, port: u16) -> Result<(), Error> {
    let file = cluster.conf.join("postgresql.conf");
    let text = durable::read(&file)?.unwrap_or_default();
    let text = with_port(&text, port)
        .ok_or_else(|| Error::Refused(format!("{} names no port: say `port = …` in it", file.display())))?;
    durable::replace(&file, &text, cluster.owner)
}

/// A file of settings with another port in the line that counts, which is the last that names one.
fn with_port(text: &str, port: u16) -> Option<String> {
    let names = |line: &str| {
        let name = line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default();
        name.eq_ignore_ascii_case("port")
    };
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let at = lines.iter().rposition(|line| names(line))?;
    let comment = lines.get(at)?.split_once('#').map(|(_, comment)| format!(" #{}", comment.trim_end()));
    let line = format!("port = {port}{}\n", comment.unwrap_or_default());
    let (before, after) = (lines.get(..at)?.concat(), lines.get(at + 1..)?.concat());
    Some(format!("{before}{line}{after}"))
}

/// Ends whatever serves a folder of data, at once; none is no failure.
///
/// # Errors
/// If it does not end.
pub async fn halt(data: &Path, version: u16, owner: Owner) -> Result<(), Error> {
    if living(data)?.is_none() {
        return Ok(());
    }
    let words = [format!("--pgdata={}", data.display()), "--mode=immediate".to_owned(), "stop".to_owned()];
    match exec::succeed(Some(owner), &program(version, "pg_ctl"), &words, SLOW).await {
        // It was on its way out, and is gone.
        Err(Error::Program(_)) if living(data)?.is_none() => Ok(()),
        ended => ended.map(|_| ()),
    }
}

/// Removes a folder with everything in it, if it is there.
///
/// # Errors
/// If something of it is still there.
pub fn remove_folder(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::local(folder.display())(error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder of data that is whole a cluster, with the configuration that was saved of another one in `saved`, less
/// the settings of the names in `own`, and with `block` at its end. It is not started, and not started at boot.
///
/// # Errors
/// If the tool fails; what it has left is then cleared away by [`clear_away`].
pub async fn adopt(site: &Site<'_>, saved: &Path, own: &[&str], block: &str) -> Result<(), Error> {
    let Site { version, name, port, socket, owner } = *site;
    let folder = data(version, name);
    // The tool takes these three from the data. A configuration that names another folder than this one must never lie
    // where the tools find it, so that it gets the saved one last and at once.
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        durable::replace(&folder.join(file), "", owner)?;
    }
    let mut words = vec![
        format!("--datadir={}", folder.display()),
        format!("--socketdir={}", socket.display()),
        format!("--user={}", owner.uid),
        format!("--port={port}"),
        "--start-conf=manual".to_owned(),
    ];
    if std::env::var_os("PG_CLUSTER_CONF_ROOT").is_some() {
        words.push(format!("--logfile={}", folder.with_extension("log").display()));
    }
    words.extend([version.to_string(), name.to_owned()]);
    exec::succeed(None, Path::new("/usr/bin/pg_createcluster"), &words, SLOW).await?;
    let conf = conf(version, name);
    for file in ["environment", "pg_ctl.conf", "pg_hba.conf", "pg_ident.conf"] {
        if let Some(text) = durable::read(&saved.join(file))? {
            durable::replace(&conf.join(file), &text, owner)?;
        }
    }
    let more = saved.join("conf.d");
    if let Ok(entries) = std::fs::read_dir(&more) {
        let to = conf.join("conf.d");
        std::fs::create_dir_all(&to).map_err(Error::local(to.display()))?;
        owner.give(&to)?;
        for entry in entries {
            let path = entry.map_err(Error::local(more.display()))?.path();
            if let (Some(text), Some(file)) = (durable::read(&path)?, path.file_name()) {
                durable::replace(&to.join(file), &without(&text, own), owner)?;
            }
        }
    }
    let text = durable::read(&saved.join("postgresql.conf"))?.unwrap_or_default();
    durable::replace(&conf.join("postgresql.conf"), &format!("{}{block}", without(&text, own)), owner)
}

/// The lines of a file of settings that set none of these.
pub fn without(text: &str, names: &[&str]) -> String {
    let sets = |line: &str| {
        line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase()
    };
    text.lines()
        .filter(|line| !names.contains(&sets(line).as_str()))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Whether this version has the files of an extension.
pub fn has_extension(version: u16, name: &str) -> bool {
    Path::new(&format!("/usr/share/postgresql/{version}/extension/{name}.control")).exists()
}

/// Whether this version has a library that servers load at their start.
pub fn has_library(version: u16, name: &str) -> bool {
    let name = name.strip_prefix("$libdir/").unwrap_or(name);
    name.starts_with('/') || Path::new(&format!("/usr/lib/postgresql/{version}/lib/{name}.so")).exists()
}

#[cfg(test)]
mod tests {
    use super::{child_of, has_client, read, with_port, without};

    #[test]
    fn who_has_a_client_is_told_by_its_title() {
        for title in [
            "postgres: 13/main: app shop [local] authentication",
            "postgres: app shop 10.0.0.1(5511) startup",
            "postgres: 13/main: logger archiver ::1(40000) idle in transaction",
            "/usr/lib/postgresql/13/bin/postgres\0-D\0/data",
        ] {
            assert!(has_client(title), "{title}");
        }
        for title in ["postgres: 13/main: stats collector ", "postgres: archiver last was 0000000100000001"] {
            assert!(!has_client(title), "{title}");
        }
        let stat = "77 (a ) (b) S 12 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9911 100 200";
        assert_eq!((child_of(stat, 12), child_of(stat, 13)), (Some(9911), None));
        assert_eq!(child_of(&stat.replace(") S", ") Z"), 12), None);
    }

    #[test]
    fn clusters_are_read_whatever_form_their_numbers_have() {
        let text = r#"[{"version":15,"cluster":"main","port":"5432","socketdir":"/run/postgresql","running":1,
            "pgdata":"/d","configdir":"/c","owneruid":101,"ownergid":"104"},
            {"version":"9.6","cluster":"old"},
            {"version":"12","cluster":"older"}]"#;
        let clusters = read(text).unwrap_or_default();
        assert_eq!(clusters.len(), 1);
        assert_eq!((clusters[0].title(), clusters[0].port), ("15/main".to_owned(), 5432));
        assert!(clusters[0].running && clusters[0].owner.gid == 104);
    }

    #[test]
    fn settings_are_taken_out_by_name() {
        let text = "# port = 1\nport = '5432'\nwork_mem = '8MB'\n  Port=1\nport_x = 1\n";
        assert_eq!(without(text, &["port"]), "# port = 1\nwork_mem = '8MB'\nport_x = 1\n");
    }

    #[test]
    fn only_the_port_that_counts_is_changed() {
        let text = "# port = 1\nport = 5432  # of clients\nport_x = 1\nPort=5433\t# now\nwork_mem = 1";
        let new = "# port = 1\nport = 5432  # of clients\nport_x = 1\nport = 5999 # now\nwork_mem = 1";
        assert_eq!(with_port(text, 5999).as_deref(), Some(new));
        assert_eq!(with_port("port 5", 6).as_deref(), Some("port = 6\n"));
        assert_eq!(with_port("# port = 1\n", 6), None);
    }

    #[test]
    fn what_is_no_list_of_clusters_is_no_empty_list() {
        assert!(read("").is_none());
        assert!(read("{}").is_none());
        assert!(read(r#"[{"version":15,"cluster":"main"}]"#).is_none());
    }
}
