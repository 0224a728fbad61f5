//! `backup`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::restore::path;
use super::{BOOL, Options, print, print_json, run_id, span};
use crate::backup::{self, Backups, Made, Run, To, What};
use crate::error::Error;
use crate::neighbours::catalog::Database;
use crate::report;

#[derive(clap::Args)]
pub(super) struct Backup {
    /// Databases, separated by commas or said several times [default: SYSTEMDB and every active tenant]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    database: Vec<Database>,
    /// What is saved
    #[arg(long, default_value = "complete")]
    what: What,
    /// Where it goes
    #[arg(long, default_value = "backint")]
    to: To,
    /// Id of the run that makes it: its backups have it in their comment
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
    /// How long the backup of one database may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "20h")]
    timeout: Duration,
    /// Have hostler-depot read back as many percent of the blocks of each part in Backint
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    sample: Option<u32>,
    /// Configuration of hostler-depot [default: the parameter file of Backint, where hdbbackint leads to the depot]
    #[arg(long, value_name = "FILE", value_parser = path)]
    depot: Option<String>,
    /// Make nothing at all: for a task whose order wants no backup
    #[arg(long, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    skip: bool,
    /// Make nothing: ask whether the catalog has the backups of this run
    #[arg(long)]
    done: bool,
}

impl Backup {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        if self.skip {
            return Ok(());
        }
        let run = run_id(self.run)?;
        let runner = options.runner(None)?;
        let wish = backup::Wish {
            key: options.key.clone(),
            databases: self.database,
            what: self.what,
            to: self.to,
            run,
            timeout: self.timeout,
            sample: self.sample,
            depot: self.depot,
        };
        let backups = Backups::new(&runner, &wish);
        let begun = Instant::now();
        let made = if self.done { backups.done()? } else { backups.make()? };
        if !self.done {
            tell(&made, begun.elapsed())?;
        }
        if options.json {
            return print_json(&json!({"backups": made}));
        }
        for Made { database, id, parts, bytes, sampled } in &made {
            let name = database.as_str();
            print(&format!("{name:<20} {id} {parts} parts {bytes} bytes, {sampled} parts sampled"));
        }
        Ok(())
    }
}

/// The outputs of a step.
fn tell(made: &[Made], took: Duration) -> Result<(), Error> {
    let ids: Vec<_> = made.iter().map(|made| format!("{}:{}", made.database.as_str(), made.id)).collect();
    let bytes = made.iter().map(|made| made.bytes).fold(0, u64::saturating_add);
    let sampled: usize = made.iter().map(|made| made.sampled).sum();
    report::outputs(&json!({
        "backup_ids": ids.join(" "), "bytes": bytes, "seconds": took.as_secs(), "sampled_parts": sampled
    }))
}
