//! What an upgrade of a cluster meets: everything at once, before anything is changed.
//!
//! `block` is refused, `do` is dealt with by the upgrade, `know` is for the operator. The catalogs answer in one
//! statement for each database (`catalog.sql`) and one for the cluster (`cluster.sql`); the host answers in `host.rs`, and
//! `copied.rs` has what only a copy of the files meets.

mod copied;
mod host;

use serde::Serialize;

use crate::error::Error;
use crate::layout::Cluster;
use crate::server::{Bounds, Row, Session};
use crate::upgrade::Method;
use crate::upgrade::door::Door;

pub use host::{carried, refused_settings};
pub(crate) use host::{free, line};

/// What a finding means for the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The upgrade is refused.
    Block,
    /// The upgrade deals with it.
    Do,
    /// The operator should know.
    Know,
}

impl Severity {
    fn read(text: &str) -> Option<Self> {
        match text {
            "block" => Some(Self::Block),
            "do" => Some(Self::Do),
            "know" => Some(Self::Know),
            _ => None,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Do => "do",
            Self::Know => "know",
        }
    }
}

/// One kind of thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// What it is, and what to do.
    pub what: String,
    /// Where: a database; `None` for the cluster or the host.
    pub database: Option<String>,
    /// How many there are.
    pub count: u64,
    /// Some of them.
    pub examples: String,
}

impl Finding {
    /// One thing of the cluster or the host.
    pub fn new(severity: Severity, what: impl Into<String>, examples: impl Into<String>) -> Self {
        Self { severity, what: what.into(), database: None, count: 1, examples: examples.into() }
    }

    fn read(row: Row, database: Option<&str>) -> Option<Self> {
        let mut columns = row.into_iter();
        let mut next = || columns.next().flatten();
        let severity = Severity::read(&next()?)?;
        let (what, count) = (next()?, next()?.parse().ok()?);
        let examples = next().unwrap_or_default();
        Some(Self { severity, what, database: database.map(str::to_owned), count, examples })
    }
}

/// What is to be checked.
pub struct Wish<'a> {
    /// The cluster that is upgraded.
    pub old: &'a Cluster,
    /// To which version.
    pub to: u16,
    /// The port of the new cluster.
    pub port: u16,
    /// The new cluster was made by this program: it is looked for neither name nor port.
    pub prepared: bool,
    /// Where clients come in.
    pub door: &'a Door,
    /// How the rows come to the new cluster.
    pub method: Method,
}

/// Databases that are replicated: those that let clients in and are no template. Object identifier, name, bytes.
///
/// # Errors
/// If the server does not answer.
pub async fn databases(admin: &Session) -> Result<Vec<(String, String, u64)>, Error> {
    let rows = admin
        .rows(
            "select oid, datname, pg_database_size(oid) from pg_database where datallowconn and not datistemplate \
             order by oid",
        )
        .await?;
    let read = |row: Row| match row.as_slice() {
        [Some(oid), Some(name), Some(size)] => Some((oid.clone(), name.clone(), size.parse().ok()?)),
        _ => None,
    };
    rows.into_iter()
        .map(read)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Server("the list of databases cannot be read".to_owned()))
}

/// Everything that the upgrade would meet, the worst first.
///
/// # Errors
/// If a question cannot be answered: that is never "nothing found".
pub async fn all(wish: &Wish<'_>) -> Result<Vec<Finding>, Error> {
    let admin = Session::open(wish.old, "postgres", Bounds::LOOK).await?;
    let databases = databases(&admin).await?;
    let mut findings = Vec::new();
    let mut take = |rows: Vec<Row>, database: Option<&str>| {
        for row in rows {
            let finding = Finding::read(row, database);
            findings.push(finding.ok_or_else(|| Error::Server("a finding cannot be read".to_owned()))?);
        }
        Ok::<_, Error>(())
    };
    let statement = include_str!("cluster.sql").replace("{databases}", &databases.len().to_string());
    take(admin.rows(&statement).await?, None)?;
    let statement = include_str!("catalog.sql").replace("{to}", &wish.to.to_string());
    let mut extensions = Vec::new();
    for (_, name, _) in &databases {
        let session = Session::open(wish.old, name, Bounds::LOOK).await?;
        take(session.rows(&statement).await?, Some(name))?;
        extensions
            .extend(session.rows("select extname from pg_extension").await?.into_iter().flatten().flatten());
    }
    extensions.sort_unstable();
    extensions.dedup();
    findings.extend(host::all(wish, &admin, &databases, &extensions).await?);
    findings.extend(wish.door.check(wish.old).await?);
    if wish.method == Method::Standby && !wish.prepared {
        findings.extend(copied::all(wish, &admin, &databases).await?);
    }
    findings.sort_unstable();
    Ok(findings)
}

/// Whether the upgrade may go on.
///
/// # Errors
/// [`Error::No`] if something blocks it.
pub fn verdict(findings: &[Finding]) -> Result<(), Error> {
    let blocks: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Block).collect();
    let Some(first) = blocks.first() else { return Ok(()) };
    Err(Error::No(format!(
        "{} kinds of things block the upgrade, the first: {} ({})",
        blocks.len(),
        first.what,
        first.examples
    )))
}
