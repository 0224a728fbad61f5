//! Opens what the settings name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::{ConfigError, LauncherChoice, Settings, StoreSettings};
use crate::domain::secret::Secret;
use crate::exec::launcher::Launcher;
use crate::host::disk::{self, At};
use crate::host::facts;
use crate::store::Store;
use crate::store::consul::{Consul, ConsulLayer};
use crate::store::dir::Dir;

/// The longest token file, in bytes.
const MAX_TOKEN: u64 = 4 << 10;

/// The store that the settings name; connects to nothing yet.
pub fn store(settings: &Settings) -> Result<Arc<dyn Store>, ConfigError> {
    match &settings.store {
        StoreSettings::Dir(path) => {
            let dir = Dir::new(path);
            dir.make()?;
            Ok(Arc::new(dir))
        }
        StoreSettings::Consul(layer) => {
            let mut settings = ConsulLayer::clone(layer).settle()?;
            if let Some(path) = &settings.token_file {
                settings.token = Some(token(path)?);
            }
            Ok(Arc::new(Consul::new(settings)?))
        }
    }
}

fn token(path: &Path) -> Result<Secret, ConfigError> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let bytes = disk::read(path, MAX_TOKEN)?.ok_or_else(missing).at("read the token in", path)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other).at("read the token in", path)?;
    Ok(Secret::new(text))
}

/// The launcher for this host.
pub fn launcher(choice: LauncherChoice) -> Launcher {
    match choice {
        LauncherChoice::Systemd => Launcher::Systemd,
        LauncherChoice::Detached => Launcher::Detached,
        LauncherChoice::Auto if facts::systemd_runs() => Launcher::Systemd,
        LauncherChoice::Auto => Launcher::Detached,
    }
}
