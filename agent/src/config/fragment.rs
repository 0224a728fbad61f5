//! One configuration file as it is written: everything may be left out, nothing unknown may stand in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{ClockChoice, ConfigError, LauncherChoice, LogFormat, RunSettings, Settings, StoreSettings};
use crate::domain::downtime::Objective;
use crate::domain::facts::FactName;
use crate::domain::keys::{DEFAULT_PREFIX, Keys};
use crate::domain::name::Name;
use crate::domain::span::Bytes;
use crate::domain::text::without_mark;
use crate::domain::yaml::{self, YamlError};
use crate::host::logging::LEVELS;
use crate::store::consul::PartialConsul;
use crate::vault::VaultLayer;

const MAX: usize = 256 << 10;

/// Where measurements are asked for: on the host itself.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9732);

/// The most groups of a host besides `all`: before a run starts, one transaction of Consul, which has 64 operations, asks
/// for the marker, the freeze and a nearer order of each group and of the host.
const MAX_GROUPS: usize = 19;

/// The most labels of a host, and the longest one, in bytes: they have room in each report of its facts.
const MAX_LABELS: usize = 16;
const MAX_LABEL: usize = 63;

/// The most objectives: each is held against each service.
const MAX_OBJECTIVES: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    Consul,
    Dir,
}

/// One file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a map of settings such as `groups: [db]`")]
pub struct Fragment {
    host: Option<Name>,
    groups: Option<Vec<Name>>,
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    task_dirs: Option<Vec<PathBuf>>,
    tasks: Tasks,
    facts_dirs: Option<Vec<PathBuf>>,
    labels: Option<BTreeMap<FactName, String>>,
    store: Option<StoreKind>,
    dir: Dir,
    consul: Consul,
    vault: Option<VaultLayer>,
    launcher: Option<LauncherChoice>,
    clock: Option<ClockChoice>,
    runs: Runs,
    objectives: Option<Vec<Objective>>,
    telemetry: Telemetry,
    log: Log,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tasks {
    allow: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dir {
    path: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Consul {
    address: Option<String>,
    prefix: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    verify: Option<bool>,
    datacenter: Option<String>,
    namespace: Option<String>,
    register: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Runs {
    parallel: Option<usize>,
    keep_count: Option<usize>,
    keep_days: Option<u32>,
    keep_bytes: Option<Bytes>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Telemetry {
    /// `Some(None)`: nowhere, as the file says.
    #[serde(deserialize_with = "listen")]
    listen: Option<Option<SocketAddr>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Log {
    level: Option<String>,
    format: Option<LogFormat>,
}

fn listen<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Option<SocketAddr>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(text)? else { return Ok(Some(None)) };
    let address = text.parse().map_err(|_| {
        D::Error::custom(format!(
            "{:?} is not ADDRESS:PORT, as in 127.0.0.1:9732; null: nowhere",
            crate::domain::text::head(&text, 60)
        ))
    })?;
    Ok(Some(Some(address)))
}

/// Fields of `self` where they are set, of `lower` where they are not.
macro_rules! first {
    ($upper:expr, $lower:expr, $type:ident { $($field:ident),+ $(,)? }) => {
        $type { $($field: $upper.$field.or($lower.$field)),+ }
    };
}

impl Fragment {
    /// Reads a file's contents. One that says nothing, as the one that is shipped, changes nothing.
    pub fn read(text: &[u8]) -> Result<Self, YamlError> {
        let text = without_mark(text);
        let says_nothing = |line: &[u8]| matches!(line.trim_ascii().first(), None | Some(b'#'));
        if text.split(|byte| *byte == b'\n').all(says_nothing) {
            return Ok(Self::default());
        }
        yaml::parse(text, MAX)
    }

    /// This file over an earlier one.
    pub fn over(self, lower: Self) -> Self {
        Self {
            host: self.host.or(lower.host),
            groups: self.groups.or(lower.groups),
            state_dir: self.state_dir.or(lower.state_dir),
            runtime_dir: self.runtime_dir.or(lower.runtime_dir),
            task_dirs: self.task_dirs.or(lower.task_dirs),
            tasks: Tasks { allow: self.tasks.allow.or(lower.tasks.allow) },
            facts_dirs: self.facts_dirs.or(lower.facts_dirs),
            labels: self.labels.or(lower.labels),
            store: self.store.or(lower.store),
            dir: Dir { path: self.dir.path.or(lower.dir.path) },
            consul: first!(
                self.consul,
                lower.consul,
                Consul {
                    address,
                    prefix,
                    token_file,
                    ca_file,
                    client_cert,
                    client_key,
                    verify,
                    datacenter,
                    namespace,
                    register,
                }
            ),
            vault: match (self.vault, lower.vault) {
                (Some(upper), Some(lower)) => Some(upper.over(lower)),
                (upper, lower) => upper.or(lower),
            },
            launcher: self.launcher.or(lower.launcher),
            clock: self.clock.or(lower.clock),
            runs: first!(self.runs, lower.runs, Runs { parallel, keep_count, keep_days, keep_bytes }),
            objectives: self.objectives.or(lower.objectives),
            telemetry: first!(self.telemetry, lower.telemetry, Telemetry { listen }),
            log: first!(self.log, lower.log, Log { level, format }),
        }
    }

    /// The settings, with the defaults for what no file says; `env` lies below the files.
    pub fn build(self, env: PartialConsul) -> Result<Settings, ConfigError> {
        self.full_paths()?;
        let all = Name::all();
        let mut groups = self.groups.unwrap_or_default();
        groups.retain(|group| *group != all);
        groups.push(all);
        if groups.len() > MAX_GROUPS + 1 {
            let why = format!("`groups` names {MAX_GROUPS} groups at most, besides `all`");
            return Err(ConfigError::Value(why));
        }
        let keys = Keys::new(self.consul.prefix.as_deref().unwrap_or(DEFAULT_PREFIX));
        let state_dir = self.state_dir.unwrap_or_else(|| "/var/lib/hostler".into());
        let register = self.consul.register.unwrap_or(true);
        let store = match self.store.unwrap_or(StoreKind::Consul) {
            StoreKind::Dir => StoreSettings::Dir(self.dir.path.unwrap_or_else(|| state_dir.join("store"))),
            StoreKind::Consul => {
                let consul = self.consul;
                let address = consul.address.map(|text| text.parse()).transpose()?;
                let layer = PartialConsul {
                    address,
                    token: None,
                    token_file: consul.token_file,
                    later_token_file: None,
                    ca_file: consul.ca_file,
                    client_cert: consul.client_cert,
                    client_key: consul.client_key,
                    verify: consul.verify,
                    datacenter: consul.datacenter,
                    namespace: consul.namespace,
                };
                StoreSettings::Consul(Box::new(layer.over(env)))
            }
        };
        let runs = RunSettings {
            parallel: self.runs.parallel.unwrap_or(4),
            keep_count: self.runs.keep_count.unwrap_or(200),
            keep_days: self.runs.keep_days.unwrap_or(90),
            keep_bytes: self.runs.keep_bytes.unwrap_or(Bytes(2 << 30)),
        };
        if !(1..=1000).contains(&runs.parallel) {
            return Err(ConfigError::Value("`runs.parallel` is 1 to 1000".into()));
        }
        if runs.keep_count < 20 {
            return Err(ConfigError::Value(
                "`runs.keep_count` is at least 20: so many runs are reported".into(),
            ));
        }
        let objectives = self.objectives.unwrap_or_default();
        if objectives.len() > MAX_OBJECTIVES {
            return Err(ConfigError::Value(format!("`objectives` has at most {MAX_OBJECTIVES} entries")));
        }
        let log_level = self.log.level.unwrap_or_else(|| "info".into());
        if !LEVELS.contains(&log_level.as_str()) {
            let levels = LEVELS.join(", ");
            return Err(ConfigError::Value(format!("`log.level` is one of {levels}, not {log_level:?}")));
        }
        let labels = labels(self.labels.unwrap_or_default())?;
        let facts = || vec!["/etc/hostler/facts.d".into(), "/usr/share/hostler/facts.d".into()];
        let dirs = || vec!["/etc/hostler/tasks".into(), "/usr/share/hostler/tasks".into()];
        Ok(Settings {
            host: self.host,
            groups,
            runtime_dir: self.runtime_dir.unwrap_or_else(|| "/run/hostler".into()),
            task_dirs: self.task_dirs.unwrap_or_else(dirs),
            allow: self.tasks.allow.unwrap_or_else(|| vec!["*".into()]),
            facts_dirs: self.facts_dirs.unwrap_or_else(facts),
            labels,
            store,
            keys,
            state_dir,
            launcher: self.launcher.unwrap_or_default(),
            clock: self.clock.unwrap_or_default(),
            vault: self.vault.unwrap_or_default(),
            runs,
            objectives,
            register,
            listen: self.telemetry.listen.unwrap_or(Some(LISTEN.into())),
            log_level,
            log_format: self.log.format.unwrap_or_default(),
        })
    }
}

impl Fragment {
    /// Refuses a path that means another place for each program that reads it: executors work in `/`.
    fn full_paths(&self) -> Result<(), ConfigError> {
        let consul = &self.consul;
        let one = [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
            ("dir.path", &self.dir.path),
            ("consul.token_file", &consul.token_file),
            ("consul.ca_file", &consul.ca_file),
            ("consul.client_cert", &consul.client_cert),
            ("consul.client_key", &consul.client_key),
        ];
        let one = one.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_ref()?)));
        let folders = self.task_dirs.iter().flatten().map(|path| ("task_dirs".to_owned(), path));
        let facts = self.facts_dirs.iter().flatten().map(|path| ("facts_dirs".to_owned(), path));
        let folders = folders.chain(facts);
        let vault = self.vault.iter().flat_map(VaultLayer::files);
        let vault = vault.map(|(key, path)| (format!("vault.{key}"), path));
        match one.chain(folders).chain(vault).find(|(_, path)| !path.is_absolute()) {
            Some((key, path)) => {
                let shown = path.display();
                Err(ConfigError::Value(format!("`{key}` is {shown}: write a full path, which begins with /")))
            }
            None => Ok(()),
        }
    }
}

/// The labels as they are reported.
fn labels(labels: BTreeMap<FactName, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    if labels.len() > MAX_LABELS {
        return Err(ConfigError::Value(format!("`labels` has at most {MAX_LABELS} entries")));
    }
    if let Some((name, _)) =
        labels.iter().find(|(_, text)| text.len() > MAX_LABEL || text.contains(char::is_control))
    {
        let why = format!("`labels.{name}` has at most {MAX_LABEL} bytes, and no control characters");
        return Err(ConfigError::Value(why));
    }
    Ok(labels.into_iter().map(|(name, text)| (name.into(), text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SHIPPED: &str = include_str!("../../../packaging/hostler.yml");

    /// The shipped file with its commented settings in force.
    fn uncommented() -> String {
        let setting = |line: &str| line.strip_prefix('#').filter(|rest| !is_prose(rest)).map(str::to_owned);
        SHIPPED.lines().filter_map(setting).collect::<Vec<_>>().join("\n")
    }

    /// A comment begins with one blank, a setting with none or two.
    fn is_prose(line: &str) -> bool {
        line.starts_with(' ') && !line.starts_with("  ")
    }

    #[test]
    fn the_shipped_file_says_nothing_by_itself() {
        assert!(SHIPPED.lines().all(|line| line.is_empty() || line.starts_with('#')));
        assert!(Fragment::read(SHIPPED.as_bytes()).is_ok());
        assert!(Fragment::read(format!("\u{feff}{SHIPPED}").as_bytes()).is_ok());
    }

    #[test]
    fn its_commented_settings_are_the_defaults() {
        let shown =
            Fragment::read(uncommented().as_bytes()).unwrap().build(PartialConsul::default()).unwrap();
        let own = Fragment::default().build(PartialConsul::default()).unwrap();
        // Taken apart, so that a new setting has to be looked at here.
        let parts = |settings: Settings| {
            let Settings {
                host,
                groups,
                state_dir,
                runtime_dir,
                task_dirs,
                allow,
                facts_dirs,
                labels,
                store,
                keys,
                launcher,
                clock,
                vault,
                runs,
                objectives,
                register,
                listen,
                log_level,
                log_format,
            } = settings;
            assert!(vault.build().unwrap().is_none(), "no Vault is the default");
            let StoreSettings::Consul(layer) = store else { panic!("the default is Consul") };
            let consul = layer.build().unwrap();
            let (files, flags) = (
                (host, groups, state_dir, runtime_dir, (task_dirs, facts_dirs, labels)),
                (allow, launcher, clock, runs, objectives, (register, listen, log_level, log_format)),
            );
            let tls = (consul.token_files, consul.ca_file, consul.client, consul.verify);
            let place = (consul.address, consul.datacenter, consul.namespace, keys.prefix().to_owned());
            format!("{files:?} {flags:?} {tls:?} {place:?}")
        };
        assert_eq!(parts(shown), parts(own));
        let Fragment { dir, .. } = Fragment::read(uncommented().as_bytes()).unwrap();
        let StoreSettings::Dir(path) =
            Fragment::read(b"store: dir").unwrap().build(PartialConsul::default()).unwrap().store
        else {
            panic!("not a folder")
        };
        assert_eq!(dir.path, Some(path));
    }

    #[test]
    fn it_shows_each_key() {
        let shown: Value = yaml::parse(uncommented(), MAX).unwrap();
        let pointers = ["", "/tasks", "/dir", "/consul", "/runs", "/telemetry", "/log"];
        for pointer in pointers {
            let mut wrong = json!({});
            let mut place = &mut wrong;
            for part in pointer.split('/').skip(1) {
                place = place.as_object_mut().unwrap().entry(part).or_insert(json!({}));
            }
            place["no such key"] = json!(0);
            // What the reader itself calls its keys.
            let error = serde_json::from_value::<Fragment>(wrong).err().unwrap().to_string();
            let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
            assert!(!keys.is_empty(), "{error}");
            for key in keys {
                let there = shown.pointer(pointer).and_then(|section| section.get(key)).is_some();
                assert!(there, "{pointer}/{key} is not in packaging/hostler.yml");
            }
        }
    }

    #[test]
    fn the_schema_describes_what_is_read() {
        use yaml::described::same_fields;
        let schema = include_str!("../../schemas/configuration.json");
        same_fields::<Fragment>(schema, "");
        same_fields::<Tasks>(schema, "/properties/tasks");
        same_fields::<Dir>(schema, "/properties/dir");
        same_fields::<Consul>(schema, "/properties/consul");
        same_fields::<VaultLayer>(schema, "/properties/vault");
        same_fields::<Runs>(schema, "/properties/runs");
        same_fields::<Telemetry>(schema, "/properties/telemetry");
        same_fields::<Log>(schema, "/properties/log");
    }

    #[test]
    fn the_address_for_measurements_can_be_null() {
        let listen = |text: &str| {
            let fragment = Fragment::read(text.as_bytes()).map_err(|error| error.to_string())?;
            Ok::<_, String>(fragment.build(PartialConsul::default()).unwrap().listen.map(|a| a.to_string()))
        };
        assert_eq!(listen("host: a"), Ok(Some("127.0.0.1:9732".into())));
        assert_eq!(listen("telemetry: {}"), Ok(Some("127.0.0.1:9732".into())));
        assert_eq!(listen("telemetry: {listen: null}"), Ok(None));
        assert_eq!(listen("telemetry: {listen: \"[::1]:1\"}"), Ok(Some("[::1]:1".into())));
        let error = listen("telemetry: {listen: localhost}").unwrap_err();
        assert!(error.contains("ADDRESS:PORT"), "{error}");
        let (upper, lower) = ("telemetry: {listen: null}", "telemetry: {listen: \"[::1]:1\"}");
        let read = |text: &str| Fragment::read(text.as_bytes()).unwrap();
        let merged = read(upper).over(read(lower)).build(PartialConsul::default()).unwrap();
        assert_eq!(merged.listen, None);
    }
}
