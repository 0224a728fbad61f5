//! Where clusters are and how their servers are started: one host, one layout.
//!
//! ```text
//!  debian   pgdg      who makes, lists, starts and drops clusters
//!      \    /
//!     process         the server in a folder of data, the same everywhere
//! ```
//! Nothing else in the program knows a path of a distribution or calls one of its tools. Both layouts promise the same: a
//! cluster has a version and a name, is found by them and never by its port, is made without being started, and started at
//! boot only when that is said. What cannot be read of one cluster hides no other one.

mod debian;
mod pgdg;
mod process;
pub mod spaces;
mod starting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::pgdg::Host;
pub use self::process::{Doorkeeper, clear_folder, doorkeepers, halt, living, stop, stop_in_order};
pub use self::starting::settled;
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};
use crate::server::Session;
use crate::wal::Lsn;

/// For a tool that only reads.
const QUICK: Duration = Duration::from_secs(60);
/// For a tool that makes, starts or stops a cluster.
const SLOW: Duration = Duration::from_secs(600);
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

/// A cluster of which too little can be read to work at it.
#[derive(Clone, Debug)]
pub struct Unclear {
    /// Major version.
    pub version: u16,
    /// Name.
    pub name: String,
    /// Port of its configuration, if that is known.
    pub port: Option<u16>,
    /// What cannot be read.
    pub why: String,
}

impl Unclear {
    /// Version and name, as [`Cluster::title`].
    pub fn title(&self) -> String {
        format!("{}/{}", self.version, self.name)
    }

    fn error(&self) -> Error {
        Error::Unclear(format!("{}: {}", self.title(), self.why))
    }
}

/// The clusters of a host from version 13 on.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Those that can be read.
    pub clusters: Vec<Cluster>,
    /// And those that cannot.
    pub unclear: Vec<Unclear>,
}

impl List {
    /// Those of this name.
    ///
    /// # Errors
    /// [`Error::Unclear`] if one of them cannot be read.
    pub fn named(&self, name: &str) -> Result<Vec<Cluster>, Error> {
        if let Some(unclear) = self.unclear.iter().find(|unclear| unclear.name == name) {
            return Err(unclear.error());
        }
        Ok(self.clusters.iter().filter(|cluster| cluster.name == name).cloned().collect())
    }

    /// The cluster that has this port in its configuration, by its title.
    pub fn at_port(&self, port: u16) -> Option<String> {
        let readable = self.clusters.iter().find(|cluster| cluster.port == port).map(Cluster::title);
        let unclear = || self.unclear.iter().find(|unclear| unclear.port == Some(port)).map(Unclear::title);
        readable.or_else(unclear)
    }
}

/// What lists the clusters of this host, for messages.
pub fn lister() -> &'static str {
    if Host::this().is_some() { "the units postgresql-VERSION" } else { "pg_lsclusters" }
}

/// Every cluster of this host from version 13 on.
///
/// # Errors
/// If nothing can be said of any.
pub async fn list() -> Result<List, Error> {
    let mut list = match Host::this() {
        Some(host) => host.list().await,
        None => debian::list().await?,
    };
    // A server may not be at the port of the configuration yet.
    for cluster in &mut list.clusters {
        // Of somebody else's cluster the tool has the only word.
        let Ok(serving) = process::serving(&cluster.data) else { continue };
        cluster.running = serving.is_some();
        cluster.port = serving.and_then(|serving| serving.port).unwrap_or(cluster.configured);
    }
    Ok(list)
}

/// The clusters of this host that can be read.
///
/// # Errors
/// If nothing can be said of any.
pub async fn clusters() -> Result<Vec<Cluster>, Error> {
    Ok(list().await?.clusters)
}

/// The cluster of this name: of this version, or of the only version that has one.
///
/// # Errors
/// If no cluster fits, or more than one.
pub async fn cluster(name: &str, version: Option<u16>) -> Result<Cluster, Error> {
    let fits = |of: u16| version.is_none_or(|version| version == of);
    let list = list().await?;
    if let Some(unclear) = list.unclear.iter().find(|unclear| unclear.name == name && fits(unclear.version)) {
        return Err(unclear.error());
    }
    let mut fitting: Vec<_> =
        list.clusters.into_iter().filter(|cluster| cluster.name == name && fits(cluster.version)).collect();
    if fitting.len() > 1 {
        let titles: Vec<_> = fitting.iter().map(Cluster::title).collect();
        return Err(Error::Refused(format!("there are {}: say which version", titles.join(", "))));
    }
    fitting.pop().ok_or_else(|| {
        let version = version.map(|version| format!("{version}/")).unwrap_or_default();
        Error::Missing(format!("there is no cluster {version}{name} from version 13 on: see {}", lister()))
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
    let user = user.ok_or_else(|| {
        Error::Missing("there is no user postgres: install the server's package".to_owned())
    })?;
    Ok(Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// A program of one version of PostgreSQL.
pub fn program(version: u16, name: &str) -> PathBuf {
    Host::this().map_or_else(|| debian::program(version, name), |host| host.program(version, name))
}

/// The folder around the data of all clusters.
pub fn home() -> PathBuf {
    Host::this().map_or_else(debian::home, |host| host.home())
}

/// Where the data of a new cluster goes.
pub fn data(version: u16, name: &str) -> PathBuf {
    Host::this().map_or_else(|| debian::data(version, name), |host| host.data(version, name))
}

/// Where the configuration of a new cluster goes: with some layouts the folder of its data.
pub fn conf(version: u16, name: &str) -> PathBuf {
    Host::this().map_or_else(|| debian::conf(version, name), |host| host.data(version, name))
}

/// Whether something is at the place of a new cluster. The rpms of the PGDG make an empty folder there.
pub fn occupied(path: &Path) -> bool {
    let empty = || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    path.exists() && !(Host::this().is_some() && empty())
}

/// The names in the folder of its configuration that are the configuration of a cluster.
pub fn configuration(cluster: &Cluster) -> Vec<&'static str> {
    if cluster.conf != cluster.data {
        return vec!["."];
    }
    pgdg::FILES.into_iter().filter(|name| cluster.conf.join(name).exists()).collect()
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

/// The option of `initdb` that switches checksums on or off, where it is not what the version does by itself.
fn checksums(version: u16, on: bool) -> Option<String> {
    match (on, version >= 18) {
        (true, _) => Some("--data-checksums".to_owned()),
        (false, true) => Some("--no-data-checksums".to_owned()),
        (false, false) => None,
    }
}

/// Makes a cluster. It is not started, and not started at boot.
///
/// # Errors
/// If a tool fails; what it has left is then cleared away by [`clear_away`].
pub async fn make(site: &Site<'_>, shape: &Shape) -> Result<(), Error> {
    match Host::this() {
        Some(host) => host.make(site, shape).await,
        None => debian::make(site, shape).await,
    }
}

/// Starts a cluster; where systemd runs the host, in a unit of its own. One that runs already is no failure.
///
/// # Errors
/// If it does not start.
pub async fn start(cluster: &Cluster) -> Result<(), Error> {
    match Host::this() {
        Some(host) => host.start(cluster).await,
        None => debian::start(cluster).await,
    }
}

/// Stops a cluster, ending its sessions, and starts it again.
///
/// # Errors
/// If it does not start.
pub async fn restart(cluster: &Cluster) -> Result<(), Error> {
    match Host::this() {
        Some(host) => host.restart(cluster).await,
        None => debian::restart(cluster).await,
    }
}

/// Whether the host starts a cluster when it boots.
///
/// # Errors
/// If that cannot be written.
pub async fn start_at_boot(cluster: &Cluster, on: bool) -> Result<(), Error> {
    match Host::this() {
        Some(host) => host.start_at_boot(cluster, on).await,
        None => debian::start_at_boot(cluster, on),
    }
}

/// Stops and removes a cluster that is whole.
///
/// # Errors
/// If a tool fails, or something of it is still there.
pub async fn drop_cluster(cluster: &Cluster) -> Result<(), Error> {
    match Host::this() {
        Some(host) => {
            host.drop_cluster(cluster).await?;
            spaces::clear_of(&cluster.data, cluster.version)?;
            clear_folder(&cluster.data, cluster.version, cluster.owner).await
        }
        None => debian::drop_cluster(cluster.version, &cluster.name).await,
    }
}

/// Removes whatever exists of a cluster that [`create`] has made or half-made. Only for what the caller knows to be its
/// own work.
///
/// # Errors
/// If a server still runs in it, or a folder cannot be removed.
pub async fn clear_away(version: u16, name: &str, owner: Owner) -> Result<(), Error> {
    let data = data(version, name);
    match Host::this() {
        Some(host) => {
            host.forget(version, name).await?;
            halt(&data, version, owner).await?;
            spaces::clear_of(&data, version)?;
        }
        None => debian::forget(version, name).await?,
    }
    clear_folder(&data, version, owner).await
}

/// Makes a folder of data that is whole a cluster, with the configuration that was saved of another one in `saved`, less
/// the settings of the names in `own`, and with `block` at its end. It is not started, and not started at boot.
///
/// # Errors
/// If a tool fails; what it has left is then cleared away by [`clear_away`].
pub async fn adopt(site: &Site<'_>, saved: &Path, own: &[&str], block: &str) -> Result<(), Error> {
    match Host::this() {
        Some(host) => host.adopt(site, saved, own, block).await,
        None => debian::adopt(site, saved, own, block).await,
    }
}

/// Copies saved files of configuration: those of these names as they are, and what is in `conf.d` less the settings of the
/// names in `own`.
fn take_over(saved: &Path, conf: &Path, names: &[&str], own: &[&str], owner: Owner) -> Result<(), Error> {
    for file in names {
        if let Some(text) = durable::read(&saved.join(file))? {
            durable::replace(&conf.join(file), &text, owner)?;
        }
    }
    let more = saved.join("conf.d");
    let Ok(entries) = std::fs::read_dir(&more) else { return Ok(()) };
    let to = conf.join("conf.d");
    std::fs::create_dir_all(&to).map_err(Error::local(to.display()))?;
    owner.give(&to)?;
    for entry in entries {
        let path = entry.map_err(Error::local(more.display()))?.path();
        if let (Some(text), Some(file)) = (durable::read(&path)?, path.file_name()) {
            durable::replace(&to.join(file), &without(&text, own), owner)?;
        }
    }
    Ok(())
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
    let folder = Host::this().map_or_else(|| debian::extensions(version), |host| host.extensions(version));
    folder.join(format!("{name}.control")).exists()
}

/// Whether this version has a library that servers load at their start.
pub fn has_library(version: u16, name: &str) -> bool {
    let name = name.strip_prefix("$libdir/").unwrap_or(name);
    let folder = Host::this().map_or_else(|| debian::libraries(version), |host| host.libraries(version));
    name.starts_with('/') || folder.join(format!("{name}.so")).exists()
}

#[cfg(test)]
mod tests {
    use super::{with_port, without};

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
}
