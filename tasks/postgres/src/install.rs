//! A new cluster by the distribution's tools, as it was asked for: with checksums, a locale and settings of its own.
//!
//! Nothing that exists is touched, and nothing that a dead run has left is gone on with.

use std::net::TcpListener;
use std::path::PathBuf;

use crate::check;
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::{self, Cluster, Shape, Site};
use crate::made::{Begun, Intent};
use crate::report;
use crate::server::{Bounds, Session, literal};

/// What is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the new cluster
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
    /// Its major version, which is installed
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(13..100))]
    version: u16,
    /// Its port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Folder of its socket
    #[arg(long, value_name = "FOLDER", default_value = "/var/run/postgresql")]
    socket: PathBuf,
    /// Locale of its databases
    #[arg(long, default_value = "C.UTF-8")]
    locale: String,
    /// Encoding of its databases
    #[arg(long, default_value = "UTF8")]
    encoding: String,
    /// Size of a segment of WAL, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = segment)]
    segment: u32,
    /// A setting, as NAME=VALUE; may be said again
    #[arg(long = "set", value_name = "SETTING", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Settings, as an object of JSON whose values are texts
    #[arg(long, value_name = "JSON", value_parser = settings, default_value = "{}")]
    settings: Settings,
}

/// Settings with their values.
#[derive(Clone, Debug)]
struct Settings(Vec<(String, String)>);

fn settings(text: &str) -> Result<Settings, String> {
    let all: std::collections::BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| format!("an object of texts: {error}"))?;
    all.iter()
        .map(|(name, value)| setting(&format!("{name}={value}")))
        .collect::<Result<_, _>>()
        .map(Settings)
}

impl Plan {
    /// All settings, each once: the last one that was said.
    fn all(&self) -> Vec<(String, String)> {
        let both = self.settings.0.iter().chain(&self.set).cloned();
        both.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
    }
}

/// A cluster that this has made or begun.
#[derive(Clone, Debug, clap::Args)]
pub struct Made {
    /// Its name
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
}

fn segment(text: &str) -> Result<u32, String> {
    let size = text.parse().ok().filter(|size: &u32| size.is_power_of_two() && *size <= 1024);
    size.ok_or_else(|| "a power of two from 1 to 1024".to_owned())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(plain) || value.chars().any(char::is_control) {
        return Err(format!("`{text}` is no setting"));
    }
    if layout::PLACES.contains(&name.as_str()) {
        return Err(format!("{name} is decided by the name and the port of the cluster"));
    }
    Ok((name, value.to_owned()))
}

fn intent(name: &str) -> Intent {
    Intent::new("install", name)
}

/// Makes the cluster, starts it, and holds it against what was asked for.
///
/// # Errors
/// If something is where it would be, a setting is not taken, or a part fails: then [`undo`] clears away.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let (name, version) = (&plan.cluster, plan.version);
    intent(name).unbegun()?;
    let owner = layout::administrator()?.unwrap_or_else(Owner::own);
    free_place(plan).await?;
    let refused = check::refused_settings(owner, version, &plan.all()).await?;
    if !refused.is_empty() {
        return Err(Error::Refused(format!(
            "version {version} does not take these settings with these values: {}",
            refused.join(", ")
        )));
    }
    let begun = intent(name).begin(version)?;
    here(CrashPoint::InstallIntended);
    report::progress(10, &format!("making {version}/{name}"));
    let shape = Shape {
        encoding: plan.encoding.clone(),
        collate: plan.locale.clone(),
        ctype: plan.locale.clone(),
        checksums: true,
        segment: u64::from(plan.segment) << 20,
    };
    let site = Site { version, name, port: plan.port, socket: &plan.socket, owner };
    layout::make(&site, &shape).await?;
    here(CrashPoint::Installed);
    let cluster = layout::cluster(name, Some(version)).await?;
    let mut text = "# By hostler-postgres install.\n".to_owned();
    for (name, value) in &plan.all() {
        text.push_str(&check::line(name, value));
    }
    let file = cluster.conf.join("conf.d");
    std::fs::create_dir_all(&file).map_err(Error::local(file.display()))?;
    let file = file.join("hostler.conf");
    durable::replace(&file, &text, owner)?;
    layout::start(&cluster).await?;
    report::progress(80, "holding it against what was asked for");
    verify(plan, &cluster, &file).await?;
    layout::start_at_boot(&cluster, true).await?;
    begun.complete(&cluster.data, owner)?;
    report::output("cluster", cluster.title());
    report::progress(100, &format!("{} answers on port {}", cluster.title(), cluster.port));
    Ok(())
}

async fn free_place(plan: &Plan) -> Result<(), Error> {
    let (name, version) = (&plan.cluster, plan.version);
    if !layout::installed(version) {
        return Err(Error::Refused(format!(
            "version {version} is not installed: install postgresql-{version}"
        )));
    }
    let list = layout::list().await?;
    if let Some(there) =
        list.clusters.iter().find(|cluster| cluster.version == version && cluster.name == *name)
    {
        return Err(Error::Refused(format!(
            "there is a cluster {} already, and it is not touched",
            there.title()
        )));
    }
    for path in [layout::conf(version, name), layout::data(version, name)] {
        if layout::occupied(&path) {
            return Err(Error::Refused(format!(
                "{} exists: it is nothing of ours, so move it away",
                path.display()
            )));
        }
    }
    let taken = list.at_port(plan.port);
    let taken =
        taken.or_else(|| TcpListener::bind(("127.0.0.1", plan.port)).err().map(|error| error.to_string()));
    match taken {
        Some(taken) => Err(Error::Refused(format!("port {} is taken ({taken}): say another", plan.port))),
        None => Ok(()),
    }
}

/// Whether the server is what was asked for: the tools take some of it from the environment, without a word.
async fn verify(plan: &Plan, cluster: &Cluster, file: &std::path::Path) -> Result<(), Error> {
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    let is = session
        .text(
            "select concat_ws(' ', current_setting('data_checksums'), pg_encoding_to_char(encoding), datcollate, datctype, \
             (select setting from pg_settings where name = 'wal_segment_size')) from pg_database where datname = 'template1'",
        )
        .await?;
    let wanted =
        format!("on {} {} {} {}", plan.encoding, plan.locale, plan.locale, u64::from(plan.segment) << 20);
    if is != wanted {
        return Err(Error::Unclear(format!(
            "{}: checksums, encoding, locale and segment are {is}, and not {wanted}",
            cluster.title()
        )));
    }
    let path = literal(&file.display().to_string());
    let idle = session
        .value(&format!(
            "select string_agg(coalesce(name, '?') || ': ' || coalesce(error, 'overridden elsewhere'), '; ') \
             from pg_file_settings where sourcefile = {path} and (not applied or error is not null)"
        ))
        .await?;
    let count =
        session.text(&format!("select count(*) from pg_file_settings where sourcefile = {path}")).await?;
    match idle {
        Some(idle) => Err(Error::Unclear(format!("{}: settings have no effect: {idle}", cluster.title()))),
        None if count != plan.all().len().to_string() => Err(Error::Unclear(format!(
            "{}: {} is not read whole: {count} settings",
            cluster.title(),
            file.display()
        ))),
        None => Ok(()),
    }
}

/// Whether the cluster is made, and answers.
///
/// # Errors
/// [`Error::No`] if it is not; others if that cannot be told.
pub async fn done(made: &Made) -> Result<(), Error> {
    let name = &made.cluster;
    let whole = match intent(name).begun()? {
        Some(begun) if begun.whole(&layout::data(begun.version, name))? => begun,
        _ => return Err(Error::No("not done".to_owned())),
    };
    let cluster = layout::cluster(name, Some(whole.version)).await?;
    Session::open(&cluster, "postgres", Bounds::LOOK).await.map(|_| ())
}

/// Removes what an install of this run has made or begun, or by hand of any run what is not whole: one that is may hold
/// data by now.
///
/// # Errors
/// If something of it is still there.
pub async fn undo(made: &Made) -> Result<(), Error> {
    let name = &made.cluster;
    let Some(begun) = intent(name).begun()?.filter(Begun::ours) else { return Ok(()) };
    let by_hand = std::env::var_os("HOSTLER_RUN").is_none();
    if by_hand && begun.whole(&layout::data(begun.version, name))? {
        return Err(Error::Refused(format!(
            "{0}/{name} is whole and may hold data: if it may go, `pg_dropcluster --stop {0} {name}`",
            begun.version
        )));
    }
    let owner = layout::administrator()?.unwrap_or_else(Owner::own);
    layout::clear_away(begun.version, name, owner).await?;
    intent(name).forget()
}

#[cfg(test)]
mod tests {
    use super::{segment, setting, settings};

    #[test]
    fn settings_and_sizes_are_read() {
        assert_eq!(setting("Work_Mem = 8MB"), Ok(("work_mem".to_owned(), "8MB".to_owned())));
        assert_eq!(setting("a.b="), Ok(("a.b".to_owned(), String::new())));
        for wrong in ["", "x", "=1", "a b=1", "port=1", "work_mem=1\nport=2"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            settings("{\"a\": \"1=2\"}").map(|all| all.0),
            Ok(vec![("a".to_owned(), "1=2".to_owned())])
        );
        assert!(settings("{\"a\": 1}").is_err() && settings("{\"port\": \"1\"}").is_err());
        assert_eq!(segment("64"), Ok(64));
        assert!(segment("3").is_err() && segment("0").is_err() && segment("2048").is_err());
    }
}
