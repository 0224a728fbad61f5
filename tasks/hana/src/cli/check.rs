//! `check`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::change::CHECK;
use super::{BOOL, Options, print, print_json, span};
use crate::check::{self, Before, Wish};
use crate::error::Error;
use crate::parts::Files;
use crate::report;

#[derive(clap::Args)]
pub(super) struct Check {
    /// The change that comes next: the exit code is 1 when something forbids it
    #[arg(long)]
    before: Option<Before>,
    /// Folder into which the media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: Option<PathBuf>,
    /// How old the newest complete backup of a database may be before an update or a takeover
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    require_backup: Duration,
    /// Pacemaker's resources are in maintenance
    #[arg(long, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    cluster_in_maintenance: bool,
}

impl Check {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        // Before an installation nothing says the number.
        let runner = options.runner(None)?;
        let proved = matches!(self.before, Some(Before::Update | Before::Takeover));
        let parts = proved.then_some(Files::Read(CHECK));
        let wish = Wish { media: self.media, key: options.key.clone(), age: self.require_backup, parts };
        let seen = check::gather(&runner, &wish)?;
        let findings = check::judge(&seen, self.before, self.require_backup, self.cluster_in_maintenance);
        let forbidden = check::forbidden(&findings);
        if options.json {
            let system = runner.system();
            print_json(&json!({
                "sid": system.sid, "number": system.number, "before": self.before, "forbidden": forbidden,
                "findings": findings,
            }))?;
        } else {
            print(&check::table(&findings));
        }
        let counts = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
        let forbids = counts(check::Weight::Forbids) + counts(check::Weight::Unclear);
        report::outputs(&json!({"forbids": forbids, "warns": counts(check::Weight::Warns)}))?;
        let first = findings.first().filter(|_| forbidden);
        match first {
            None => Ok(()),
            Some(first) => Err(Error::No(format!("{}: {}", first.subject, first.understood))),
        }
    }
}
