//! The rpms of the PGDG: `/usr/pgsql-VERSION`, `postgresql-VERSION.service`, and configuration inside the folder of data.
//!
//! The rpm brings one unit a version, whose `PGDATA` is `/var/lib/pgsql/VERSION/data` where no drop-in says otherwise: that
//! cluster has the name `main` here. Any other name is a unit of its own, `postgresql-VERSION-NAME.service` in
//! `/etc/systemd/system`, with `/var/lib/pgsql/VERSION/NAME`; such units are written by [`Host::make`], or by hand.
//! No tool lists clusters: they are what units name, and each server's own program says what its files of settings say.
//!
//! `HOSTLER_POSTGRES_PGDG` names a folder that stands for the root of such a host, without a systemd: for tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::{Cluster, List, OLDEST, QUICK, SLOW, Shape, Site, Unclear, process, remove_folder, without};
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};

/// The name of the cluster that the rpm's own unit starts.
const MAIN: &str = "main";
/// What the files of settings are called.
pub(super) const FILES: [&str; 4] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d"];
/// The first line of a unit that was written here.
const MARK: &str = "# By hostler-postgres.\n";

/// A host with these rpms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    root: PathBuf,
    /// Whether systemd starts its servers.
    systemd: bool,
}

impl Host {
    /// This host, if it is one: Debian's tools are not there, and a server of the PGDG is.
    pub(super) fn this() -> Option<Self> {
        if let Some(root) = std::env::var_os("HOSTLER_POSTGRES_PGDG") {
            return Some(Self { root: root.into(), systemd: false });
        }
        if Path::new("/usr/bin/pg_lsclusters").exists() {
            return None;
        }
        let systemd = Path::new("/run/systemd/system").exists();
        Some(Self { root: "/".into(), systemd }).filter(|host| !host.versions().is_empty())
    }

    /// The versions whose servers are installed.
    fn versions(&self) -> Vec<u16> {
        let entries = fs::read_dir(self.root.join("usr")).into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix("pgsql-")?.parse().ok();
        let mut versions: Vec<u16> =
            entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
        versions.retain(|version| *version >= OLDEST && self.program(*version, "postgres").exists());
        versions.sort_unstable();
        versions
    }

    fn installation(&self, version: u16) -> PathBuf {
        self.root.join(format!("usr/pgsql-{version}"))
    }

    /// A program of one version of PostgreSQL.
    pub(super) fn program(&self, version: u16, name: &str) -> PathBuf {
        self.installation(version).join("bin").join(name)
    }

    /// The files of its extensions.
    pub(super) fn extensions(&self, version: u16) -> PathBuf {
        self.installation(version).join("share/extension")
    }

    /// Its libraries.
    pub(super) fn libraries(&self, version: u16) -> PathBuf {
        self.installation(version).join("lib")
    }

    /// The folder around the data of all clusters.
    pub(super) fn home(&self) -> PathBuf {
        self.root.join("var/lib/pgsql")
    }

    /// Where the data of a cluster is or goes, and its configuration with it.
    pub(super) fn data(&self, version: u16, name: &str) -> PathBuf {
        let folder = if name == MAIN { "data" } else { name };
        let usual = self.home().join(version.to_string()).join(folder);
        self.pgdata(&unit(version, name)).unwrap_or(usual)
    }

    fn own_units(&self) -> PathBuf {
        self.root.join("etc/systemd/system")
    }

    /// What a unit and its drop-ins say of `PGDATA`; `None` if nothing is said.
    fn pgdata(&self, unit: &str) -> Option<PathBuf> {
        let (own, packaged) = (self.own_units(), self.root.join("usr/lib/systemd/system"));
        let file = Some(own.join(unit)).filter(|file| file.exists()).unwrap_or(packaged.join(unit));
        let mut files = vec![file];
        let entries = fs::read_dir(own.join(format!("{unit}.d"))).into_iter().flatten().flatten();
        let mut more: Vec<_> = entries.map(|entry| entry.path()).collect();
        more.retain(|path| path.extension().is_some_and(|end| end == "conf"));
        more.sort();
        files.extend(more);
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.filter_map(|text| pgdata(&text)).next_back()
    }

    /// The names that may have a cluster of this version.
    fn names(&self, version: u16) -> Vec<String> {
        let entries = fs::read_dir(self.own_units()).into_iter().flatten().flatten();
        let prefix = format!("postgresql-{version}-");
        let name = |file: &str| {
            let name = file.strip_prefix(&prefix)?.strip_suffix(".service")?;
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
        };
        let mut names: Vec<_> = entries.filter_map(|entry| name(entry.file_name().to_str()?)).collect();
        names.push(MAIN.to_owned());
        names.sort();
        names.dedup();
        names
    }

    /// Every cluster that a unit names and whose data is there, or should be.
    pub(super) async fn list(&self) -> List {
        let mut list = List::default();
        for version in self.versions() {
            for name in self.names(version) {
                let data = self.data(version, &name);
                let usual = name == MAIN
                    && self
                        .pgdata(&unit(version, &name))
                        .is_none_or(|said| said == self.home().join(format!("{version}/data")));
                if usual && !data.join("PG_VERSION").exists() {
                    // The rpm is installed, and nobody has made a cluster.
                    continue;
                }
                match self.read(version, &name, &data).await {
                    Ok(cluster) => list.clusters.push(cluster),
                    Err(error) => {
                        list.unclear.push(Unclear { version, name, port: None, why: error.to_string() });
                    }
                }
            }
        }
        list
    }

    async fn read(&self, version: u16, name: &str, data: &Path) -> Result<Cluster, Error> {
        let is = fs::metadata(data.join("PG_VERSION")).map_err(Error::local(data.display()))?;
        let owner = Owner { uid: is.uid(), gid: is.gid() };
        let asked = async |setting: &str| {
            let words = ["-D".as_ref(), data.as_os_str(), "-C".as_ref(), setting.as_ref()];
            let ended = exec::run(Some(owner), &self.program(version, "postgres"), &words, QUICK).await?;
            match ended.status {
                Some(0) => Ok(ended.output.trim().to_owned()),
                _ => Err(Error::Program(format!("its server does not say {setting}: {}", ended.complaint))),
            }
        };
        let port = asked("port").await?;
        let configured = port.parse().map_err(|_| Error::Program(format!("its port is {port}")))?;
        let sockets = asked("unix_socket_directories").await?;
        let socket = sockets.split(',').map(str::trim).find(|folder| !folder.is_empty());
        let socket = socket.ok_or_else(|| Error::Refused("it has no folder of sockets".to_owned()))?;
        Ok(Cluster {
            version,
            name: name.to_owned(),
            port: configured,
            configured,
            socket: socket.into(),
            data: data.to_owned(),
            conf: data.to_owned(),
            running: false,
            owner,
        })
    }

    /// Makes a cluster, and its unit if the rpm has none for it.
    pub(super) async fn make(&self, site: &Site<'_>, shape: &Shape) -> Result<(), Error> {
        let data = self.data(site.version, site.name);
        self.room_for(&data, site.owner)?;
        self.write_unit(site, &data)?;
        let mut words = vec![
            format!("--pgdata={}", data.display()),
            format!("--encoding={}", shape.encoding),
            format!("--locale={}", shape.collate),
            format!("--lc-collate={}", shape.collate),
            format!("--lc-ctype={}", shape.ctype),
            format!("--wal-segsize={}", shape.segment >> 20),
            "--auth-local=peer".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
        ];
        words.extend(super::checksums(site.version, shape.checksums));
        exec::succeed(Some(site.owner), &self.program(site.version, "initdb"), &words, SLOW).await?;
        let file = data.join("postgresql.conf");
        let text = durable::read(&file)?.unwrap_or_default();
        let more = data.join("conf.d");
        fs::create_dir(&more).map_err(Error::local(more.display()))?;
        site.owner.give(&more)?;
        durable::replace(&file, &format!("{text}{}", places(site)), site.owner)?;
        self.reload().await
    }

    /// The folder around the data, which belongs to whom the rpm gives it.
    fn room_for(&self, data: &Path, owner: Owner) -> Result<(), Error> {
        let Some(parent) = data.parent().filter(|parent| !parent.exists()) else { return Ok(()) };
        fs::create_dir_all(parent).map_err(Error::local(parent.display()))?;
        owner.give(parent)
    }

    fn write_unit(&self, site: &Site<'_>, data: &Path) -> Result<(), Error> {
        let name = unit(site.version, site.name);
        let own = self.own_units().join(&name);
        if site.name == MAIN || own.exists() {
            return Ok(());
        }
        fs::create_dir_all(self.own_units()).map_err(Error::local(self.own_units().display()))?;
        let server = self.program(site.version, "postgres");
        let text = unit_text(site.version, site.name, data, &server);
        durable::replace(&own, &text, Owner { uid: 0, gid: 0 })
    }

    /// Makes a folder of data that is whole a cluster, with a saved configuration.
    pub(super) async fn adopt(
        &self,
        site: &Site<'_>,
        saved: &Path,
        own: &[&str],
        block: &str,
    ) -> Result<(), Error> {
        let data = self.data(site.version, site.name);
        self.write_unit(site, &data)?;
        // What the base backup had: the saved files are the same, and this one may name what is not here.
        remove_folder(&data.join("conf.d"))?;
        super::take_over(saved, &data, &["pg_hba.conf", "pg_ident.conf"], own, site.owner)?;
        let text = durable::read(&saved.join("postgresql.conf"))?.unwrap_or_default();
        let text = format!("{}{block}", without(&text, own));
        durable::replace(&data.join("postgresql.conf"), &text, site.owner)?;
        self.reload().await
    }

    /// Starts a cluster, with systemd in its unit.
    pub(super) async fn start(&self, cluster: &Cluster) -> Result<(), Error> {
        if process::living(&cluster.data)?.is_some() {
            return Ok(());
        }
        let failed = |complaint: String| {
            Err(Error::Program(format!("{} does not start: {complaint}", cluster.title())))
        };
        if self.systemd {
            // A unit that has failed before is none that may not start.
            self.systemctl(&["reset-failed", &unit(cluster.version, &cluster.name)]).await.ok();
            let unit = unit(cluster.version, &cluster.name);
            return match self.systemctl(&["start", &unit]).await {
                Ok(_) => Ok(()),
                Err(error) => failed(error.to_string()),
            };
        }
        let log = cluster.data.with_extension("log");
        let words: [&std::ffi::OsStr; 8] = [
            "-D".as_ref(),
            cluster.data.as_os_str(),
            "-l".as_ref(),
            log.as_os_str(),
            "-w".as_ref(),
            "-t".as_ref(),
            "300".as_ref(),
            "start".as_ref(),
        ];
        let ended =
            exec::run(Some(cluster.owner), &self.program(cluster.version, "pg_ctl"), &words, SLOW).await?;
        if ended.status == Some(0) {
            return Ok(());
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        failed(lines.into_iter().rev().collect::<Vec<_>>().join("; "))
    }

    /// Stops a cluster and starts it again.
    pub(super) async fn restart(&self, cluster: &Cluster) -> Result<(), Error> {
        if self.systemd {
            return self.systemctl(&["restart", &unit(cluster.version, &cluster.name)]).await;
        }
        process::stop(cluster).await?;
        self.start(cluster).await
    }

    /// Whether the host starts a cluster when it boots: what `systemctl enable` writes.
    pub(super) async fn start_at_boot(&self, cluster: &Cluster, on: bool) -> Result<(), Error> {
        self.wanted(cluster.version, &cluster.name, on)?;
        self.reload().await
    }

    fn wanted(&self, version: u16, name: &str, on: bool) -> Result<(), Error> {
        let unit = unit(version, name);
        let folder = self.own_units().join("multi-user.target.wants");
        let link = folder.join(&unit);
        if !on {
            return durable::remove(&link);
        }
        if fs::symlink_metadata(&link).is_ok() {
            return Ok(());
        }
        fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
        let own = Path::new("/etc/systemd/system").join(&unit);
        let packaged = Path::new("/usr/lib/systemd/system").join(&unit);
        let to = if self.own_units().join(&unit).exists() { own } else { packaged };
        symlink(to, &link).map_err(Error::local(link.display()))
    }

    /// Stops and removes a cluster that is whole, but for its folder of data.
    pub(super) async fn drop_cluster(&self, cluster: &Cluster) -> Result<(), Error> {
        process::stop(cluster).await?;
        self.forget(cluster.version, &cluster.name).await
    }

    /// Removes what the host knows of a cluster: its unit, if it was written here. The folder of data stays.
    pub(super) async fn forget(&self, version: u16, name: &str) -> Result<(), Error> {
        self.wanted(version, name, false)?;
        let own = self.own_units().join(unit(version, name));
        if durable::read(&own)?.is_some_and(|text| text.starts_with(MARK)) {
            durable::remove(&own)?;
        }
        self.reload().await
    }

    async fn reload(&self) -> Result<(), Error> {
        if self.systemd { self.systemctl(&["daemon-reload"]).await } else { Ok(()) }
    }

    async fn systemctl(&self, words: &[&str]) -> Result<(), Error> {
        exec::succeed(None, Path::new("/usr/bin/systemctl"), words, SLOW).await.map(|_| ())
    }
}

/// The unit of a cluster.
pub(super) fn unit(version: u16, name: &str) -> String {
    if name == MAIN {
        return format!("postgresql-{version}.service");
    }
    format!("postgresql-{version}-{name}.service")
}

/// What follows from a cluster's name, port and folder of sockets.
fn places(site: &Site<'_>) -> String {
    let Site { version, name, port, socket, .. } = site;
    format!(
        "\n# By hostler-postgres.\ninclude_dir = 'conf.d'\nport = {port}\nunix_socket_directories = '{}'\n\
         cluster_name = '{version}/{name}'\n",
        socket.display()
    )
}

/// The last `PGDATA` that the text of a unit sets.
fn pgdata(text: &str) -> Option<PathBuf> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("Environment="));
    let words = words.flat_map(str::split_ascii_whitespace).map(|word| word.trim_matches(['"', '\'']));
    let value = words.filter_map(|word| word.strip_prefix("PGDATA=")).next_back()?;
    // `/var/lib/pgsql/15/data/` and the same without the slash are one folder.
    Some(Path::new(value.trim_matches(['"', '\''])).components().collect())
}

/// A unit as the rpm has it, for another folder of data.
fn unit_text(version: u16, name: &str, data: &Path, server: &Path) -> String {
    format!(
        "{MARK}[Unit]\nDescription=PostgreSQL {version}, cluster {name}\nAfter=network.target\n\n\
         [Service]\nType=notify\nUser=postgres\nGroup=postgres\nEnvironment=PGDATA={}\n\
         OOMScoreAdjust=-1000\nEnvironment=PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj\n\
         Environment=PG_OOM_ADJUST_VALUE=0\nExecStart={} -D ${{PGDATA}}\nExecReload=/bin/kill -HUP $MAINPID\n\
         KillMode=mixed\nKillSignal=SIGINT\nTimeoutSec=0\n\n[Install]\nWantedBy=multi-user.target\n",
        data.display(),
        server.display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Host, pgdata, unit, unit_text};

    fn host(folder: &Path) -> Host {
        for version in [12, 13, 15] {
            let bin = folder.join(format!("usr/pgsql-{version}/bin"));
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("postgres"), "").unwrap();
        }
        fs::create_dir_all(folder.join("usr/pgsql-16/share")).unwrap();
        for place in ["usr/lib/systemd/system", "etc/systemd/system/postgresql-15.service.d"] {
            fs::create_dir_all(folder.join(place)).unwrap();
        }
        Host { root: folder.to_owned(), systemd: false }
    }

    #[test]
    fn where_a_unit_keeps_its_data_is_read() {
        let text = "[Service]\n# Environment=PGDATA=/no\nEnvironment=PGDATA=/var/lib/pgsql/15/data/\n\
            Environment=PG_OOM_ADJUST_VALUE=0\n";
        assert_eq!(pgdata(text), Some(PathBuf::from("/var/lib/pgsql/15/data")));
        assert_eq!(pgdata("Environment=\"A=1\" \"PGDATA=/d\"\n"), Some(PathBuf::from("/d")));
        assert_eq!(pgdata("[Service]\nExecStart=x\n"), None);
        assert_eq!(
            pgdata(&unit_text(15, "shop", Path::new("/s"), Path::new("/p"))),
            Some(PathBuf::from("/s"))
        );
    }

    #[test]
    fn clusters_are_what_units_name() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path());
        assert_eq!(host.versions(), [13, 15]);
        let usual = folder.path().join("var/lib/pgsql/15/data");
        assert_eq!(host.data(15, "main"), usual);
        assert_eq!(host.data(15, "shop"), folder.path().join("var/lib/pgsql/15/shop"));
        let packaged = folder.path().join("usr/lib/systemd/system/postgresql-15.service");
        fs::write(packaged, "Environment=PGDATA=/var/lib/pgsql/15/data/\n").unwrap();
        assert_eq!(host.data(15, "main"), Path::new("/var/lib/pgsql/15/data"));
        // A drop-in wins, the last of them by name.
        let more = folder.path().join("etc/systemd/system/postgresql-15.service.d");
        fs::write(more.join("b.conf"), "Environment=PGDATA=/big/15\n").unwrap();
        fs::write(more.join("a.conf"), "Environment=PGDATA=/small/15\n").unwrap();
        fs::write(more.join("c.conf.rpmsave"), "Environment=PGDATA=/none\n").unwrap();
        assert_eq!(host.data(15, "main"), Path::new("/big/15"));
        for file in
            ["postgresql-15-shop.service", "postgresql-15-No.service", "postgresql-150-x.service", "other"]
        {
            fs::write(folder.path().join("etc/systemd/system").join(file), "").unwrap();
        }
        assert_eq!(host.names(15), ["main", "shop"]);
        assert_eq!(host.names(13), ["main"]);
    }

    #[tokio::test]
    async fn a_folder_of_data_that_is_away_hides_no_other_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path());
        assert!(host.list().await.unclear.is_empty(), "installed, and nothing made");
        let more = folder.path().join("etc/systemd/system/postgresql-15.service.d/data.conf");
        fs::write(more, "[Service]\nEnvironment=PGDATA=/mnt/away/15\n").unwrap();
        let list = host.list().await;
        assert!(list.clusters.is_empty());
        let titles: Vec<_> =
            list.unclear.iter().map(|it| (it.title(), it.why.contains("/mnt/away/15"))).collect();
        assert_eq!(titles, [("15/main".to_owned(), true)]);
    }

    #[test]
    fn a_unit_is_wanted_at_boot_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path());
        let link = folder.path().join("etc/systemd/system/multi-user.target.wants").join(unit(15, "main"));
        for _ in 0..2 {
            host.wanted(15, "main", true).unwrap();
            assert_eq!(
                fs::read_link(&link).unwrap(),
                Path::new("/usr/lib/systemd/system/postgresql-15.service")
            );
        }
        for _ in 0..2 {
            host.wanted(15, "main", false).unwrap();
            assert!(fs::symlink_metadata(&link).is_err());
        }
    }
}
