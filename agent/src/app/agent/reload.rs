//! SIGHUP: the configuration and the tasks are read anew.
//!
//! All of it or nothing: a configuration with a fault changes nothing, and stands in the agent's report until it is put
//! right. What counts only after a restart (who the host is, and where its store and its folders are) is told there, too;
//! everything else is in force at once, for whatever starts from now on.

use super::{Agent, AgentError, vault};
use crate::catalog::Catalog;
use crate::config::{ConfigError, Settings, StoreSettings};
use crate::domain::ids::RunId;
use crate::host::logging::Level;
use crate::ledger::Folder;
use std::path::PathBuf;

/// The configuration in force, and how another one is read.
pub(super) struct Config {
    pub(super) settings: Settings,
    pub(super) reload_context: ReloadContext,
    /// The configuration on the disk is not the one in force: one line for the operator.
    pub(super) pending: Option<String>,
}

impl Config {
    /// Where the folders of runs are.
    pub(super) fn runs_dir(&self) -> PathBuf {
        self.settings.state_dir.join("runs")
    }

    /// The folder of a run.
    pub(super) fn run_folder(&self, run: RunId) -> Folder {
        Folder::new(&self.runs_dir(), run)
    }
}

/// What reading anew needs from outside.
pub struct ReloadContext {
    /// Reads the configuration, as it was read at the start.
    pub load: Box<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>,
    /// The level of the log.
    pub level: Level,
}

impl Agent {
    pub(super) fn reload(&mut self) {
        self.config.pending = match (self.config.reload_context.load)()
            .map_err(AgentError::from)
            .and_then(|new| self.apply_settings(new))
        {
            Ok(later) if later.is_empty() => {
                tracing::info!("reloaded the configuration and the tasks");
                None
            }
            Ok(later) => Some(format!(
                "settings: {} changed in the configuration: restart the agent to put that in force",
                later.join(", ")
            )),
            Err(error) => Some(format!("settings: keeping the current settings: {error}")),
        };
        if let Some(why) = &self.config.pending {
            tracing::warn!("{why}");
        }
        self.orders.catalog = Catalog::load(&self.config.settings.task_dirs, self.identity.rule);
        self.know_tasks();
        self.facts.reload(&self.config.settings.facts_dirs, self.identity.rule);
        // What was refused on the former settings and tasks is looked at again.
        self.orders.checked.clear();
    }

    /// Puts new settings in force; what has to wait for a restart. First all that can fail.
    fn apply_settings(&mut self, new: Settings) -> Result<Vec<&'static str>, AgentError> {
        let (former, next) = (self.config.settings.vault.clone().build(), new.vault.clone().build());
        let next = next.map_err(ConfigError::from)?;
        let another_vault = match (former, &next) {
            (Ok(None), None) => None,
            (Ok(Some(former)), Some(next)) if former == *next => None,
            _ => Some(vault::open(&new)?),
        };
        if let (StoreSettings::Consul(layer), StoreSettings::Consul(_), Some(consul)) =
            (&new.store, &self.config.settings.store, &self.sync.consul)
        {
            consul.follow_token(layer.token_files()).map_err(ConfigError::from)?;
        }
        let later = self.config.settings.for_a_restart(&new);
        let Settings {
            task_dirs,
            allow,
            facts_dirs,
            labels,
            clock,
            vault,
            runs,
            objectives,
            register,
            listen,
            log_level,
            ..
        } = new;
        self.config.settings.task_dirs = task_dirs;
        self.config.settings.allow = allow;
        self.config.settings.facts_dirs = facts_dirs;
        self.config.settings.labels = labels;
        self.config.settings.clock = clock;
        self.config.settings.runs = runs;
        self.config.settings.objectives = objectives;
        self.config.settings.vault = vault;
        self.config.settings.register = register;
        self.config.settings.listen = listen;
        self.config.settings.log_level = log_level;
        self.config.reload_context.level.set(&self.config.settings.log_level);
        if let Some(vault) = another_vault {
            self.vault.client = vault;
            self.keep_vault();
        }
        self.output.listening.listen(listen);
        self.keep_presence();
        Ok(later)
    }
}
