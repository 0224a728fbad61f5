//! `health`: what hurts, as a table, JSON, or a page.

use serde_json::json;

use super::page::page;
use super::table::table;
use super::{print, print_json};
use crate::error::Error;
use crate::health::{Finding, Level, all};
use crate::{layout, report};

/// What the command takes.
#[derive(clap::Args)]
pub(super) struct Health {
    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print below each finding the statement that shows it
    #[arg(long, conflicts_with = "json")]
    statements: bool,
    /// Print a page (HTML, one file that loads nothing), with the statements
    #[arg(long, conflicts_with_all = ["json", "statements"])]
    html: bool,
}

impl Health {
    pub(super) async fn run(self) -> Result<(), Error> {
        let cluster = layout::cluster(&self.cluster, self.version).await?;
        let findings = all(&cluster).await?;
        if self.json {
            print_json(&json!({ "cluster": cluster.title(), "findings": findings }))?;
        } else if self.html {
            print(&page(&cluster.title(), &format!("{:.0}", jiff::Timestamp::now()), &findings));
        } else if findings.is_empty() {
            print(&format!("{}: nothing hurts", cluster.title()));
        } else if self.statements {
            for finding in &findings {
                let row = row(finding).join("  ");
                print(&format!("{row}\n    {}", finding.statement));
            }
        } else {
            let rows: Vec<_> = findings.iter().map(row).collect();
            print(&table(["LEVEL", "PROBE", "DATABASE", "SUBJECT", "FINDING"], &rows));
        }
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let (bad, unknown, warn) = (count(Level::Bad), count(Level::Unknown), count(Level::Warn));
        for (name, count) in [("bad", bad), ("unknown", unknown), ("warn", warn)] {
            report::output(name, count);
        }
        let worst = findings.first().filter(|finding| finding.level != Level::Warn);
        worst.map_or(Ok(()), |worst| {
            let [level, probe, _, subject, text] = row(worst);
            Err(Error::No(format!(
                "{}: {bad} bad, {unknown} unknown, {warn} to warn of; the worst: {level}, {probe} {subject}: {text}",
                cluster.title()
            )))
        })
    }
}

fn row(finding: &Finding) -> [String; 5] {
    [
        finding.level.name().to_owned(),
        finding.probe.to_owned(),
        finding.database.clone().unwrap_or_else(|| "-".to_owned()),
        finding.subject.clone(),
        finding.text.clone(),
    ]
}
