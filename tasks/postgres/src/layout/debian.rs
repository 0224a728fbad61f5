//! Debian's `postgresql-common`: clusters are found, made, started and dropped by its tools.
//!
//! Configuration is in `/etc/postgresql/VERSION/NAME`, data in `/var/lib/postgresql/VERSION/NAME`; with `PG_CLUSTER_CONF_ROOT`,
//! which the tools know as well, the one below that folder and the other in `data` beside it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Cluster, List, OLDEST, QUICK, SLOW, Shape, Site, Unclear, without};
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};

/// Every cluster that the tools know.
pub(super) async fn list() -> Result<List, Error> {
    let tool = Path::new("/usr/bin/pg_lsclusters");
    if !tool.exists() {
        return Err(Error::Missing(
            "pg_lsclusters is not installed, and /usr/pgsql-VERSION does not exist: install postgresql-common, or the \
             server's package of the PGDG"
                .to_owned(),
        ));
    }
    let text = exec::succeed(None, tool, &["--json"], QUICK).await?;
    read(&text).ok_or_else(|| Error::Program("pg_lsclusters: its output cannot be read".to_owned()))
}

/// What the tool prints; an entry that lacks something is no reason to know nothing of the others.
fn read(text: &str) -> Option<List> {
    let value: Value = serde_json::from_str(text.trim()).ok()?;
    let mut list = List::default();
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
        let name = text("cluster")?;
        let part = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let port = number("port").and_then(|port| u16::try_from(port).ok());
        let folder = text("pgdata");
        let owner = part(number("owneruid")).zip(part(number("ownergid")));
        let found = (port, text("socketdir"), folder.clone(), text("configdir"), owner);
        let (Some(configured), Some(socket), Some(data), Some(conf), Some((uid, gid))) = found else {
            let missing = [
                ("port", port.is_none()),
                ("socketdir", text("socketdir").is_none()),
                ("pgdata", folder.is_none()),
                ("configdir", text("configdir").is_none()),
                ("owneruid", owner.is_none()),
            ];
            let missing: Vec<_> = missing.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
            let place = folder.filter(|_| owner.is_none());
            let place = place.map(|place| format!(": does {place} exist?")).unwrap_or_default();
            let why = format!("pg_lsclusters does not say its {}{place}", missing.join(", "));
            list.unclear.push(Unclear { version, name, port, why });
            continue;
        };
        list.clusters.push(Cluster {
            version,
            name,
            port: configured,
            configured,
            socket: PathBuf::from(socket),
            data: PathBuf::from(data),
            conf: PathBuf::from(conf),
            running: number("running").unwrap_or_default() == 1,
            owner: Owner { uid, gid },
        });
    }
    Some(list)
}

/// A program of one version of PostgreSQL.
pub(super) fn program(version: u16, name: &str) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{name}"))
}

/// The files of its extensions.
pub(super) fn extensions(version: u16) -> PathBuf {
    PathBuf::from(format!("/usr/share/postgresql/{version}/extension"))
}

/// Its libraries.
pub(super) fn libraries(version: u16) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/lib"))
}

/// The folder around the data of all clusters.
pub(super) fn home() -> PathBuf {
    roots().1
}

/// Where the data of a new cluster goes.
pub(super) fn data(version: u16, name: &str) -> PathBuf {
    roots().1.join(version.to_string()).join(name)
}

/// Where the configuration of a new cluster goes.
pub(super) fn conf(version: u16, name: &str) -> PathBuf {
    roots().0.join(version.to_string()).join(name)
}

/// The folders of configuration and data.
fn roots() -> (PathBuf, PathBuf) {
    match std::env::var_os("PG_CLUSTER_CONF_ROOT").map(PathBuf::from) {
        Some(conf) => {
            let data = conf.with_file_name("data");
            (conf, data)
        }
        None => (PathBuf::from("/etc/postgresql"), PathBuf::from("/var/lib/postgresql")),
    }
}

/// The words of `pg_createcluster` that say where a cluster is.
fn place(site: &Site<'_>) -> Vec<String> {
    let folder = data(site.version, site.name);
    let mut words = vec![
        format!("--datadir={}", folder.display()),
        format!("--socketdir={}", site.socket.display()),
        format!("--user={}", site.owner.uid),
        format!("--port={}", site.port),
        "--start-conf=manual".to_owned(),
    ];
    if std::env::var_os("PG_CLUSTER_CONF_ROOT").is_some() {
        words.push(format!("--logfile={}", folder.with_extension("log").display()));
    }
    words
}

async fn create(words: &[String]) -> Result<(), Error> {
    exec::succeed(None, Path::new("/usr/bin/pg_createcluster"), words, SLOW).await.map(|_| ())
}

/// Makes a cluster.
pub(super) async fn make(site: &Site<'_>, shape: &Shape) -> Result<(), Error> {
    let mut words = place(site);
    words.extend([
        format!("--encoding={}", shape.encoding),
        format!("--locale={}", shape.collate),
        format!("--lc-collate={}", shape.collate),
        format!("--lc-ctype={}", shape.ctype),
    ]);
    words.extend([site.version.to_string(), site.name.to_owned(), "--".to_owned()]);
    words.extend([format!("--wal-segsize={}", shape.segment >> 20), "--auth-local=peer".to_owned()]);
    words.push("--auth-host=scram-sha-256".to_owned());
    words.extend(super::checksums(site.version, shape.checksums));
    create(&words).await
}

/// Makes a folder of data that is whole a cluster, with a saved configuration.
pub(super) async fn adopt(site: &Site<'_>, saved: &Path, own: &[&str], block: &str) -> Result<(), Error> {
    let Site { version, name, owner, .. } = *site;
    let folder = data(version, name);
    // The tool takes these three from the data. A configuration that names another folder than this one must never lie
    // where the tools find it, so that it gets the saved one last and at once.
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        durable::replace(&folder.join(file), "", owner)?;
    }
    let mut words = place(site);
    words.extend([version.to_string(), name.to_owned()]);
    create(&words).await?;
    let conf = conf(version, name);
    super::take_over(
        saved,
        &conf,
        &["environment", "pg_ctl.conf", "pg_hba.conf", "pg_ident.conf"],
        own,
        owner,
    )?;
    let text = durable::read(&saved.join("postgresql.conf"))?.unwrap_or_default();
    durable::replace(&conf.join("postgresql.conf"), &format!("{}{block}", without(&text, own)), owner)
}

/// Starts a cluster; where systemd runs the host, in a unit of its own.
pub(super) async fn start(cluster: &Cluster) -> Result<(), Error> {
    let words = [cluster.version.to_string(), cluster.name.clone(), "start".to_owned()];
    let tool = Path::new("/usr/bin/pg_ctlcluster");
    let ended = exec::run(None, tool, &words, SLOW).await?;
    match ended.status {
        // 2: it runs already.
        Some(0 | 2) => Ok(()),
        _ => Err(Error::Program(format!("{} does not start: {}", cluster.title(), ended.complaint))),
    }
}

/// Stops a cluster and starts it again.
pub(super) async fn restart(cluster: &Cluster) -> Result<(), Error> {
    let words = [cluster.version.to_string(), cluster.name.clone(), "restart".to_owned()];
    exec::succeed(None, Path::new("/usr/bin/pg_ctlcluster"), &words, SLOW).await.map(|_| ())
}

/// Whether the host starts a cluster when it boots.
pub(super) fn start_at_boot(cluster: &Cluster, on: bool) -> Result<(), Error> {
    durable::replace(&cluster.conf.join("start.conf"), if on { "auto\n" } else { "manual\n" }, cluster.owner)
}

/// Stops and removes a cluster that is whole.
pub(super) async fn drop_cluster(version: u16, name: &str) -> Result<(), Error> {
    let words = ["--stop".to_owned(), version.to_string(), name.to_owned()];
    exec::succeed(None, Path::new("/usr/bin/pg_dropcluster"), &words, SLOW).await.map(|_| ())
}

/// Removes what the tools know of a cluster that was made or half-made; its folder of data may be left.
pub(super) async fn forget(version: u16, name: &str) -> Result<(), Error> {
    let (conf, data) = (conf(version, name), data(version, name));
    // The tool removes whatever folder the configuration names: of a copied one that could be another cluster's.
    let ours = |cluster: &Cluster| cluster.version == version && cluster.name == name && cluster.data == data;
    if conf.join("postgresql.conf").exists() && super::clusters().await?.iter().any(ours) {
        let words = ["--stop".to_owned(), version.to_string(), name.to_owned()];
        // Of a half-made one it removes what it can.
        exec::run(None, Path::new("/usr/bin/pg_dropcluster"), &words, SLOW).await?;
    }
    super::remove_folder(&conf)
}

/// The unit of a cluster.
pub(super) fn unit(version: u16, name: &str) -> String {
    format!("postgresql@{version}-{name}.service")
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn clusters_are_read_whatever_form_their_numbers_have() {
        let text = r#"[{"version":15,"cluster":"main","port":"5432","socketdir":"/run/postgresql","running":1,
            "pgdata":"/d","configdir":"/c","owneruid":101,"ownergid":"104"},
            {"version":"9.6","cluster":"old"},
            {"version":"12","cluster":"older"}]"#;
        let clusters = read(text).unwrap_or_default().clusters;
        assert_eq!(clusters.len(), 1);
        assert_eq!((clusters[0].title(), clusters[0].port), ("15/main".to_owned(), 5432));
        assert!(clusters[0].running && clusters[0].owner.gid == 104);
    }

    #[test]
    fn a_cluster_whose_owner_nobody_knows_hides_no_other() {
        let text = r#"[{"version":15,"cluster":"away","port":"5433","socketdir":"/run/postgresql","running":0,
            "pgdata":"/mnt/away","configdir":"/c","owneruid":null,"ownergid":null},
            {"version":15,"cluster":"main","port":"5432","socketdir":"/run/postgresql","running":1,
            "pgdata":"/d","configdir":"/c","owneruid":101,"ownergid":104},
            {"version":15,"cluster":"bare"}]"#;
        let list = read(text).unwrap_or_default();
        assert_eq!(list.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(), ["main"]);
        let unclear: Vec<_> = list.unclear.iter().map(|it| (it.title(), it.port, it.why.as_str())).collect();
        assert_eq!(
            unclear,
            [
                (
                    "15/away".to_owned(),
                    Some(5433),
                    "pg_lsclusters does not say its owneruid: does /mnt/away exist?"
                ),
                (
                    "15/bare".to_owned(),
                    None,
                    "pg_lsclusters does not say its port, socketdir, pgdata, configdir, owneruid"
                ),
            ]
        );
    }

    #[test]
    fn what_is_no_list_of_clusters_is_no_empty_list() {
        assert!(read("").is_none());
        assert!(read("{}").is_none());
        assert!(read(r#"[{"version":15}]"#).is_none());
    }
}
