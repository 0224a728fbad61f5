//! `configure`, `housekeeping`, `key` and `rotate`.

use std::time::Duration;

use serde_json::json;

use super::{BOOL, Options, print, print_json, span};
use crate::configure::{self, Configuration, Parameter};
use crate::error::Error;
use crate::housekeeping::{Housekeeping, Plans, Rule, Waste};
use crate::neighbours::catalog::Database;
use crate::neighbours::diagnosis::Matter;
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
    /// Give log segments back where more than this number are free [default: they stay]
    #[arg(long, value_name = "COUNT")]
    segments: Option<u64>,
    /// Clear traces that are older, one day at least [default: they stay]
    #[arg(long, value_name = "TIME", value_parser = days)]
    traces: Option<Duration>,
    /// Clear crash, emergency and runtime dumps that are older, one day at least [default: they stay]
    #[arg(long, value_name = "TIME", value_parser = days)]
    dumps: Option<Duration>,
    /// Clear entries of the audit trail that are older, one day at least [default: they stay]
    #[arg(long, value_name = "TIME", value_parser = days)]
    audit: Option<Duration>,
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
        let rule = Rule {
            keep: self.keep,
            window: self.window,
            segments: self.segments,
            traces: self.traces,
            dumps: self.dumps,
            audit: self.audit,
        };
        let housekeeping = Housekeeping::new(&runner, &options.key, &rule);
        let plans = housekeeping.plan()?;
        if !self.dry_run {
            housekeeping.carry_out(&plans, self.timeout)?;
        }
        tell(&plans, self.dry_run)?;
        if options.json {
            return print_json(&json!({"dry_run": self.dry_run, "plans": plans}));
        }
        for plan in &plans.backups {
            print(&format!("{:<20} {} entries before {}", plan.database.as_str(), plan.entries, plan.oldest));
        }
        for Waste { database, matter, count, bytes, .. } in &plans.waste {
            print(&format!("{:<20} {count} {}, {bytes} bytes", database.as_str(), matter.word()));
        }
        for database in &plans.closed {
            print(&format!(
                "{:<20} the user of the key cannot log on: only its backups were looked at",
                database.as_str()
            ));
        }
        Ok(())
    }
}

/// The outputs of a step.
fn tell(plans: &Plans, dry_run: bool) -> Result<(), Error> {
    let entries: usize = plans.backups.iter().map(|plan| plan.entries).sum();
    let mut outputs = json!({"deleted": if dry_run { 0 } else { entries }, "due": entries});
    if let Some(all) = outputs.as_object_mut() {
        for (name, matter) in [
            ("segments", Matter::Segments),
            ("traces", Matter::Traces),
            ("dumps", Matter::Dumps),
            ("audit", Matter::Audit),
        ] {
            let of = plans.waste.iter().filter(|waste| waste.matter == matter);
            all.insert(name.to_owned(), json!(of.map(|waste| waste.count).sum::<u64>()));
        }
        let bytes = plans.waste.iter().map(|waste| waste.bytes).fold(0, u64::saturating_add);
        all.insert("bytes".to_owned(), json!(bytes));
    }
    report::outputs(&outputs)
}

/// A time of a day at least: HANA compares local times with one in UTC.
fn days(text: &str) -> Result<Duration, String> {
    match span(text)? {
        time if time >= Duration::from_secs(24 * 3600) => Ok(time),
        _ => Err("write 1d or more".to_owned()),
    }
}

#[derive(clap::Args)]
pub(super) struct Configure {
    /// Parameters of the whole system, as FILE.ini/SECTION/NAME=VALUE, separated by spaces or said several times
    #[arg(long, value_name = "PARAMETERS", value_delimiter = ' ')]
    parameters: Vec<Parameter>,
    /// How the log is kept: `normal` can be restored to any instant
    #[arg(long, value_parser = ["normal", "overwrite"])]
    log_mode: Option<String>,
    /// Tenants that must exist and be active, separated by commas; new ones have the secret system_password
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    tenant: Vec<Database>,
    /// Put a key HOSTLER_TENANT of the user SYSTEM of each active tenant into the user store
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    tenant_keys: bool,
    /// Change nothing: ask whether all of it is as wanted
    #[arg(long)]
    probe: bool,
}

impl Configure {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let mut parameters = self.parameters;
        if let Some(mode) = self.log_mode {
            let parameter = format!("global.ini/persistence/log_mode={mode}");
            parameters.push(parameter.parse().map_err(Error::Config)?);
        }
        let wish = configure::Wish {
            key: options.key.clone(),
            parameters,
            tenants: self.tenant,
            keys: self.tenant_keys,
        };
        if wish.tenants.iter().any(Database::is_system) {
            return Err(Error::Config("SYSTEMDB is no tenant".to_owned()));
        }
        let configuration = Configuration::new(&runner, &wish);
        if self.probe {
            return match configuration.holds()? {
                true => Ok(()),
                false => Err(Error::No("not all of it is as wanted".to_owned())),
            };
        }
        let changed = configuration.carry_out()?;
        print_json(&changed)
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
