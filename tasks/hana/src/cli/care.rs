//! `housekeeping`, `key` and `rotate`.

use std::time::Duration;

use serde_json::json;

use super::{BOOL, Options, print, print_json, span};
use crate::error::Error;
use crate::housekeeping::{Housekeeping, Rule};
use crate::neighbours::hdbsql::Key;
use crate::report;
use crate::rotate::{self, DbUser, Rotation};

#[derive(clap::Args)]
pub(super) struct HousekeepingArguments {
    /// At least so many complete backups of each database stay
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    keep: usize,
    /// Every instant of so long a time can still be restored
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "28d")]
    window: Duration,
    /// How long the deletion of one database's backups may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "6h")]
    timeout: Duration,
    /// Delete nothing: print what would go
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    dry_run: bool,
}

impl HousekeepingArguments {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let rule = Rule { keep: self.keep, window: self.window };
        let housekeeping = Housekeeping::new(&runner, &options.key, &rule);
        let plans = housekeeping.plan()?;
        if !self.dry_run {
            housekeeping.carry_out(&plans, self.timeout)?;
        }
        let entries: usize = plans.iter().map(|plan| plan.entries).sum();
        report::outputs(&json!({"deleted": if self.dry_run { 0 } else { entries }, "due": entries}))?;
        if options.json {
            return print_json(&json!({"dry_run": self.dry_run, "plans": plans}));
        }
        for plan in &plans {
            print(&format!("{:<20} {} entries before {}", plan.database.as_str(), plan.entries, plan.oldest));
        }
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct KeyArguments {
    /// User of the database
    #[arg(long, default_value = "SYSTEM")]
    user: DbUser,
    /// Where the key leads, as HOST:PORT or HOST:PORT@DATABASE [default: SYSTEMDB on this host]
    #[arg(long, value_name = "PLACE", value_parser = place)]
    place: Option<String>,
    /// Change nothing: ask whether the key logs on
    #[arg(long)]
    probe: bool,
}

impl KeyArguments {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        if self.probe {
            return rotate::logs_on(&runner, &options.key).and_then(|on| {
                if on { Ok(()) } else { Err(Error::No("the key does not log on".to_owned())) }
            });
        }
        let port = runner.system().number.systemdb_port();
        let place = self.place.unwrap_or_else(|| format!("localhost:{port}"));
        rotate::make_key(&runner, &options.key, &place, &self.user, "system_password")
    }
}

#[derive(clap::Args)]
pub(super) struct Rotate {
    /// User whose password changes; the key of --key must be this user's
    #[arg(long)]
    user: DbUser,
    /// Key of one who may change the password [default: the user's own key]
    #[arg(long, value_name = "KEY")]
    admin_key: Option<Key>,
    /// Change nothing: ask whether the new password and the key log on
    #[arg(long)]
    probe: bool,
}

impl Rotate {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let admin = self.admin_key.as_ref().unwrap_or(&options.key);
        let rotation = Rotation::new(&runner, &self.user, &options.key, admin);
        if self.probe {
            let holds = rotation.holds()?;
            return if holds {
                Ok(())
            } else {
                Err(Error::No("the new password does not log on".to_owned()))
            };
        }
        rotation.rotate()
    }
}

fn place(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:@".contains(&byte);
    let (host, rest) = text.split_once(':').unwrap_or_default();
    let port = rest.split('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with('-') || port.parse::<u16>().is_err() || !text.bytes().all(plain) {
        return Err("write HOST:PORT, or HOST:PORT@DATABASE".to_owned());
    }
    Ok(text.to_owned())
}
