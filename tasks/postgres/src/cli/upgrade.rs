//! `upgrade`: one command for each step.

use serde_json::json;

use super::table::table;
use super::{print, print_json};
use crate::check::{self, Finding, Severity};
use crate::error::Error;
use crate::report;
use crate::upgrade::Plan;

/// The steps.
#[derive(clap::Subcommand)]
pub(super) enum Upgrade {
    /// Say everything that the upgrade meets, and change nothing; status 1 if something blocks it
    Check(Check),
}

/// What `check` takes.
#[derive(clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    plan: Plan,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Upgrade {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Check(check) => check.run().await,
        }
    }
}

impl Check {
    async fn run(self) -> Result<(), Error> {
        let pair = self.plan.resolve().await?;
        let findings = pair.check().await?;
        if self.json {
            print_json(&json!({ "from": pair.old.title(), "to": self.plan.to, "findings": findings }))?;
        } else if findings.is_empty() {
            print("nothing to deal with");
        } else {
            let rows: Vec<_> = findings.iter().map(row).collect();
            print(&table(["SEVERITY", "DATABASE", "COUNT", "WHAT", "EXAMPLES"], &rows));
        }
        for severity in [Severity::Block, Severity::Do, Severity::Know] {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            report::output(severity.name(), count);
        }
        check::verdict(&findings)
    }
}

fn row(finding: &Finding) -> [String; 5] {
    [
        finding.severity.name().to_owned(),
        finding.database.clone().unwrap_or_else(|| "-".to_owned()),
        finding.count.to_string(),
        finding.what.clone(),
        finding.examples.clone(),
    ]
}
