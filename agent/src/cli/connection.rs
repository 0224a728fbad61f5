//! Where the operators' commands work: the configured store with its keys, opened once a command.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::Args;

use super::exit::{Exit, fault};
use super::{Failure, env, show};
use crate::app::open;
use crate::config::{Fragment, Settings, StoreSettings, load};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::store::Store;
use crate::store::consul::PartialConsul;

/// Where the command that is carried out was said to work, in the words for the next one; settled once a process.
static SAID: OnceLock<String> = OnceLock::new();

/// What a command that is printed needs behind it to work in the same place: ` --config FILE`, ` --store-dir DIR`, or nothing.
pub(super) fn said() -> &'static str {
    SAID.get().map_or("", String::as_str)
}

/// A command that is printed, with [`said`] behind it; one that is to be typed on another host is as it is.
pub(super) fn placed(command: &str) -> String {
    let place = if command.starts_with("hostler ") { said() } else { "" };
    format!("{command}{place}")
}

/// Options of each command that asks a store.
#[derive(Args, Default)]
pub(super) struct ConnectionArgs {
    /// The configuration file (HOSTLER_CONFIG); default /etc/hostler/hostler.yml, if it exists
    #[arg(long, short, value_name = "FILE", help_heading = "Where")]
    pub(super) config: Option<PathBuf>,
    /// A folder that is the store, in place of the configured one
    #[arg(long, value_name = "DIR", help_heading = "Where", conflicts_with = "config")]
    pub(super) store_dir: Option<PathBuf>,
}

/// An open store.
pub(super) struct Connection {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
}

/// The configuration file that was asked for: by the option, else by `HOSTLER_CONFIG`. `None`: the usual one.
pub(super) fn config_file(option: Option<&Path>) -> Option<PathBuf> {
    let named = || env("HOSTLER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    option.map(Path::to_owned).or_else(named)
}

impl ConnectionArgs {
    /// The configuration file that was asked for, as [`config_file`].
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        config_file(self.config.as_deref())
    }

    /// The settings; the environment names the token of the person who types, so it wins over the host's own.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let _ = SAID.set(self.words());
        let mut settings = self.host_settings()?;
        if let StoreSettings::Consul(layer) = &mut settings.store {
            for (name, fix) in PartialConsul::unread(&env) {
                show::note(format!("{name} is set and not read: {fix}"));
            }
            let PartialConsul { token, token_file, .. } = PartialConsul::from_env(&env)?;
            let person = PartialConsul { token, token_file, ..PartialConsul::default() };
            **layer = person.over(layer.as_ref().clone());
        }
        Ok(settings)
    }

    /// The settings as the agent has them: for looking at what the agent may do.
    pub(super) fn host_settings(&self) -> Result<Settings, Failure> {
        if let Some(dir) = &self.store_dir {
            let mut settings = Fragment::default().build(PartialConsul::default())?;
            settings.store = StoreSettings::Dir(dir.clone());
            return Ok(settings);
        }
        Ok(load(self.config_file().as_deref(), &env)?)
    }

    /// These options as they are typed; what the environment says, the next command finds there, too.
    fn words(&self) -> String {
        let given = [("config", &self.config), ("store-dir", &self.store_dir)];
        let word = |(option, path): (&str, &Option<PathBuf>)| {
            let path = path.as_ref()?.to_str()?;
            Some(format!(" --{option} {}", show::quoted(path)))
        };
        given.into_iter().filter_map(word).collect()
    }

    /// Whether there is nothing but a store: then no run's folder belongs to it.
    pub(super) fn is_folder_only(&self) -> bool {
        self.store_dir.is_some()
    }

    /// The store, which must be there: a mistyped folder is not made.
    pub(super) fn open(&self) -> Result<Connection, Failure> {
        Connection::existing(&self.settings()?)
    }

    /// The store, which may be made.
    pub(super) fn make(&self) -> Result<Connection, Failure> {
        Connection::of(&self.settings()?)
    }
}

fn no_folder(dir: &Path) -> Failure {
    let message = format!("there is no store in {}: hostler enroll makes one", dir.display());
    fault(Exit::NotFound, message)
}

impl Connection {
    /// The store of these settings, which must be there.
    pub(super) fn existing(settings: &Settings) -> Result<Self, Failure> {
        match &settings.store {
            StoreSettings::Dir(dir) if !dir.is_dir() => Err(no_folder(dir)),
            _ => Self::of(settings),
        }
    }

    fn of(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self { store: open::store(settings)?, keys: settings.keys.clone() })
    }
}

/// A host or a group: where an order stands.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct SourceArgs {
    /// The host
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// The group
    #[arg(long, value_name = "GROUP")]
    group: Option<Name>,
}

impl SourceArgs {
    /// The place; clap sees to it that there is exactly one.
    pub(super) fn source(&self) -> Result<crate::domain::source::Source, Failure> {
        use crate::domain::source::Source;
        match (&self.host, &self.group) {
            (Some(host), None) => Ok(Source::Host(host.clone())),
            (None, Some(group)) => Ok(Source::Group(group.clone())),
            _ => Err(fault(Exit::Usage, "say --host or --group")),
        }
    }
}
