//! `enable`, `takeover` and `register`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{BOOL, Options, run_id, span};
use crate::backup::Run;
use crate::change;
use crate::check::Before;
use crate::error::Error;
use crate::neighbours::hdbsql::Key;
use crate::neighbours::nsutil::{Mode, Site};
use crate::replicate::{Former, Pair};
use crate::report;

#[derive(clap::Args)]
pub(super) struct Enable {
    /// Name of this site
    #[arg(long, value_name = "NAME")]
    site: Site,
    /// Only wait until all secondaries are active
    #[arg(long, value_name = "TIME", value_parser = span)]
    wait: Option<Duration>,
}

impl Enable {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let pair = Pair::new(&runner, options.hostname()?);
        match self.wait {
            None => pair.enable(&self.site),
            Some(patience) => pair.wait_active(patience),
        }
    }
}

#[derive(clap::Args)]
pub(super) struct Takeover {
    /// Key in the user store that logs on to SYSTEMDB of the present primary
    #[arg(long, value_name = "KEY", required_unless_present_any = ["primary_lost", "probe", "finish"])]
    primary_key: Option<Key>,
    /// You say that the primary is down or cut off from its users: it is not asked, and what it did not send is lost
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    primary_lost: bool,
    /// Pacemaker's resources are in maintenance
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    cluster_in_maintenance: bool,
    /// How old the newest complete backup of each of the primary's databases may be; 0s asks for none
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    require_backup: Duration,
    /// Id of the run: a repetition with the same one goes on
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
    /// Change nothing: ask whether this host rules
    #[arg(long)]
    probe: bool,
    /// Only end the takeover that the run has begun here, and do nothing where it has begun none
    #[arg(long, conflicts_with = "probe")]
    finish: bool,
}

impl Takeover {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let pair = Pair::new(&runner, options.hostname()?);
        if self.probe {
            return if pair.rules()? {
                Ok(())
            } else {
                Err(Error::No(
                    "this host is no primary: look at `hdbnsutil -sr_state` on both hosts".to_owned(),
                ))
            };
        }
        if self.finish {
            return pair.finish_takeover(&run_id(self.run)?);
        }
        let former = match (self.primary_lost, self.primary_key) {
            (true, _) => Former::Lost,
            (false, Some(key)) => Former::Suspend(key),
            (false, None) => {
                return Err(Error::Config(
                    "say --primary-key KEY, or --primary-lost if you know that it is".to_owned(),
                ));
            }
        };
        let run = run_id(self.run)?;
        let begun = Instant::now();
        // What this run has begun is ended, whatever has come up since.
        if !pair.has_begun(&run)? {
            change::allow(&runner, &options.key, Before::Takeover, self.cluster_in_maintenance, &[])?;
        }
        pair.takeover(&run, &former, &options.key, self.require_backup)?;
        report::outputs(&json!({"seconds": begun.elapsed().as_secs()}))
    }
}

#[derive(clap::Args)]
pub(super) struct Register {
    /// Key in the user store that logs on to SYSTEMDB of the present primary, by the name of its host
    #[arg(long, value_name = "KEY")]
    primary_key: Key,
    /// Name of this site
    #[arg(long, value_name = "NAME")]
    site: Site,
    /// How a commit waits for this secondary
    #[arg(long, default_value = "sync")]
    mode: Mode,
    /// Pacemaker's resources are in maintenance
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    cluster_in_maintenance: bool,
}

impl Register {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let pair = Pair::new(&runner, options.hostname()?);
        change::allow(&runner, &options.key, Before::Restore, self.cluster_in_maintenance, &[])?;
        pair.register(&options.secrets(), &self.primary_key, &self.site, self.mode)
    }
}
