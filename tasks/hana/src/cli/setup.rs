//! `backup-setup`.

use std::time::Duration;

use serde_json::json;

use super::{Options, run_id, span};
use crate::backup::Run;
use crate::error::Error;
use crate::report;
use crate::setup::{Setup, Wish};

#[derive(clap::Args)]
pub(super) struct BackupSetup {
    /// The depot's configuration, readable for <sid>adm
    #[arg(long, value_name = "FILE", value_parser = path, default_value = "/etc/hostler/depot.yml")]
    config: String,
    /// How many streams a data backup has [default: as it is]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=32))]
    channels: Option<u32>,
    /// How long the backup that proves it may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2h")]
    timeout: Duration,
    /// Id of the run: a repetition with the same one goes on
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
    /// Change nothing: ask whether everything is set
    #[arg(long)]
    probe: bool,
    /// Take back what the run has set
    #[arg(long, conflicts_with = "probe")]
    undo: bool,
}

impl BackupSetup {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let wish = Wish { key: options.key.clone(), config: self.config, channels: self.channels };
        let setup = Setup::new(&runner, &wish);
        if self.probe {
            return match setup.holds()? {
                true => Ok(()),
                false => Err(Error::No("Backint is not set up so".to_owned())),
            };
        }
        let run = run_id(self.run)?;
        if self.undo {
            return setup.undo(&run);
        }
        let backup = setup.carry_out(&run, self.timeout)?;
        report::outputs(&json!({"backup_id": backup}))
    }
}

fn path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.len() > 200 || !text.starts_with('/') || !text.bytes().all(plain) {
        return Err("write an absolute path of letters, digits and . _ -".to_owned());
    }
    Ok(text.to_owned())
}
