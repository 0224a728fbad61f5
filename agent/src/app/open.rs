//! Opens what the settings name.

use std::sync::Arc;

use crate::config::{ConfigError, LauncherChoice, Settings, StoreSettings};
use crate::exec::launcher::Launcher;
use crate::host::machine;
use crate::store::Store;
use crate::store::consul::{Consul, PartialConsul};
use crate::store::dir::Dir;

/// A store, and once more what it is.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same, where it is Consul.
    pub consul: Option<Arc<Consul>>,
}

/// The store that the settings name; connects to nothing yet.
pub fn store(settings: &Settings) -> Result<Arc<dyn Store>, ConfigError> {
    Ok(opened(settings)?.store)
}

/// The same, for whoever needs more of Consul than a store.
pub fn opened(settings: &Settings) -> Result<Opened, ConfigError> {
    match &settings.store {
        StoreSettings::Dir(path) => {
            let dir = Dir::new(path);
            dir.make()?;
            Ok(Opened { store: Arc::new(dir), consul: None })
        }
        StoreSettings::Consul(layer) => {
            let consul = Arc::new(Consul::new(PartialConsul::clone(layer).build()?)?);
            Ok(Opened { store: Arc::clone(&consul) as Arc<dyn Store>, consul: Some(consul) })
        }
    }
}

/// The launcher for this host.
pub fn launcher(choice: LauncherChoice) -> Launcher {
    match choice {
        LauncherChoice::Systemd => Launcher::Systemd,
        LauncherChoice::Detached => Launcher::Detached,
        LauncherChoice::Auto if machine::systemd_runs() => Launcher::Systemd,
        LauncherChoice::Auto => Launcher::Detached,
    }
}
