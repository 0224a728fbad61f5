//! The settings: fragments as they are written, merged, and checked once.
//!
//! ```text
//! /etc/hostler/hostler.yml  <  /etc/hostler/conf.d/*.yml (by name)     each a Fragment, all optional
//!                    \______ merged ______/ --settle--> Settings       nothing optional that is needed
//! ```
//!
//! Defaults stand in `settle` and nowhere else. The environment is handed in, never read here.

mod fragment;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use fragment::Fragment;

use crate::domain::downtime::Objective;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::span::Bytes;
use crate::domain::text::matches_pattern;
use crate::domain::yaml::YamlError;
use crate::host::disk::{self, DiskError, PathContext};
use crate::store::consul::{BadConsulSettings, PartialConsul};
use crate::vault::{BadVaultSettings, VaultLayer};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/hostler/hostler.yml";

/// The name of the credential, and of the file beside the configuration, that holds the token for Consul.
const TOKEN_FILE: &str = "consul.token";

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 256 << 10;

/// The group that every host is in.
pub use crate::domain::name::ALL;

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is not what it should be.
    #[error("{}:{source}", path.display())]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Where, and what.
        #[source]
        source: YamlError,
    },
    /// A value is out of its range.
    #[error("configuration: {0}")]
    Value(String),
    /// The settings for Consul, in a file or in the environment.
    #[error(transparent)]
    Consul(#[from] BadConsulSettings),
    /// The settings for Vault, in a file or in the environment.
    #[error(transparent)]
    Vault(#[from] BadVaultSettings),
}

/// Where orders and reports stand.
pub enum StoreSettings {
    /// In Consul.
    Consul(Box<PartialConsul>),
    /// In a folder.
    Dir(PathBuf),
}

/// How executors are to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LauncherChoice {
    /// systemd where it runs, else detached.
    #[default]
    Auto,
    /// Units of systemd.
    Systemd,
    /// Sessions of their own.
    Detached,
}

/// Whether what depends on the time of day waits for a clock that something keeps right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockChoice {
    /// The kernel says that it is synchronised, and it is not older than the ledger.
    #[default]
    Synchronised,
    /// It is right, whatever the kernel and the ledger say.
    Trusted,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// To the journal with its fields, where standard error leads to one.
    #[default]
    Journald,
    /// To standard error.
    Text,
}

/// What is kept of runs, and how many may execute at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSettings {
    /// At once.
    pub parallel: usize,
    /// Folders at most.
    pub keep_count: usize,
    /// Days at most.
    pub keep_days: u32,
    /// Bytes at most, of all folders together.
    pub keep_bytes: Bytes,
}

/// Everything that the program needs to know.
pub struct Settings {
    /// This host; `None`: to be found out at the first start.
    pub host: Option<Name>,
    /// Its groups, the nearest first; `all` is always the last.
    pub groups: Vec<Name>,
    /// What must outlive a reboot.
    pub state_dir: PathBuf,
    /// What must not.
    pub runtime_dir: PathBuf,
    /// Where facts are installed; the first wins.
    pub facts_dirs: Vec<PathBuf>,
    /// What the configuration says of this host, for searches; at most 16, each at most 63 bytes long.
    pub labels: BTreeMap<String, String>,
    /// Where tasks are installed; the first wins.
    pub task_dirs: Vec<PathBuf>,
    /// Which tasks orders may name: names, and `*` for any part of one.
    pub allow: Vec<String>,
    /// The store.
    pub store: StoreSettings,
    /// Its keys.
    pub keys: Keys,
    /// How executors are started.
    pub launcher: LauncherChoice,
    /// What is asked of the clock.
    pub clock: ClockChoice,
    /// Vault, the environment below; settled by who asks it.
    pub vault: VaultLayer,
    /// Runs.
    pub runs: RunSettings,
    /// What is promised of services on this host; each covering one has to have the budget that a gate asks for.
    pub objectives: Vec<Objective>,
    /// Whether the agent shows itself as a service of Consul.
    pub register: bool,
    /// Where measurements are asked for; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// The level of the log.
    pub log_level: String,
    /// Where the log goes.
    pub log_format: LogFormat,
}

impl From<RunSettings> for crate::ledger::trim::Keep {
    fn from(runs: RunSettings) -> Self {
        Self { count: runs.keep_count, days: runs.keep_days, bytes: runs.keep_bytes.0 }
    }
}

impl Settings {
    /// What differs in `new` and counts only after a restart, as it is written in the configuration.
    pub fn for_a_restart(&self, new: &Self) -> Vec<&'static str> {
        let same_store = match (&self.store, &new.store) {
            (StoreSettings::Dir(here), StoreSettings::Dir(there)) => here == there,
            (StoreSettings::Consul(here), StoreSettings::Consul(there)) => {
                here.without_token() == there.without_token()
            }
            _ => false,
        };
        let differs = [
            ("host", self.host != new.host),
            ("groups", self.groups != new.groups),
            ("state_dir", self.state_dir != new.state_dir),
            ("runtime_dir", self.runtime_dir != new.runtime_dir),
            ("store", !same_store),
            ("consul.prefix", self.keys != new.keys),
            ("launcher", self.launcher != new.launcher),
            ("log.format", self.log_format != new.log_format),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The kind of store, for a line of status.
    pub fn store_word(&self) -> &'static str {
        match self.store {
            StoreSettings::Consul(_) => "Consul",
            StoreSettings::Dir(_) => "the folder",
        }
    }
}

/// Reads the configuration at `path` with its `conf.d`; a missing main file is no error unless it was asked for.
pub fn load(path: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
    let main = path.unwrap_or(Path::new(DEFAULT_PATH));
    // Whoever can write to a folder puts another file there.
    if disk::parent(main).is_dir() {
        trusted(disk::parent(main))?;
    }
    let mut merged = match read(main)? {
        Some(fragment) => fragment,
        // A name without a file behind it: what it restricts must not become unrestricted.
        None if main.symlink_metadata().is_ok() => return Err(leads_nowhere(main)),
        None if path.is_some() => {
            return Err(ConfigError::Value(format!("there is no file {}", main.display())));
        }
        None => Fragment::default(),
    };
    for path in drop_ins(&disk::parent(main).join("conf.d"))? {
        let fragment = read(&path)?.ok_or_else(|| leads_nowhere(&path))?;
        merged = fragment.over(merged);
    }
    let [token_file, later_token_file] = token_files(main, env);
    let token = PartialConsul { token_file, later_token_file, ..PartialConsul::default() };
    let mut settings = merged.build(PartialConsul::from_env(env)?.over(token))?;
    settings.vault = settings.vault.over(VaultLayer::from_env(env)?);
    settings.vault = settings.vault.with_usual_secret_ids(usual_secret_ids(main, env));
    Ok(settings)
}

/// The file with the token for Consul where none is named: the credential that systemd hands over, else the file
/// beside the configuration, for whoever may read it. systemd copies a credential once, at the start: later the token is
/// the one of the file.
fn token_files(main: &Path, env: &dyn Fn(&str) -> Option<String>) -> [Option<PathBuf>; 2] {
    let credential = env("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join(TOKEN_FILE));
    let holds_something = |path: &PathBuf| {
        let bytes = disk::read(path, MAX_FILE).ok().flatten();
        bytes.is_some_and(|bytes| !bytes.trim_ascii().is_empty())
    };
    let beside = disk::parent(main).join(TOKEN_FILE);
    // A link that leads nowhere is named when the token is read.
    let broken = beside.symlink_metadata().is_ok() && matches!(disk::read(&beside, MAX_FILE), Ok(None));
    match credential.filter(holds_something) {
        Some(credential) => [Some(credential), Some(beside)],
        None => [Some(beside).filter(|path| broken || holds_something(path)), None],
    }
}

/// The files with the secret id for Vault where none is named: the credential that systemd hands over, and the file that
/// it is a copy of.
fn usual_secret_ids(main: &Path, env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let credential = env("CREDENTIALS_DIRECTORY").map(|dir| Path::new(&dir).join("vault.secret_id"));
    credential.into_iter().chain([disk::parent(main).join("secret_id")]).collect()
}

fn read(path: &Path) -> Result<Option<Fragment>, ConfigError> {
    let Some(text) = disk::read(path, MAX_FILE)? else { return Ok(None) };
    trusted(path)?;
    let fragment = Fragment::read(&text);
    fragment.map(Some).map_err(|source| ConfigError::Yaml { path: path.to_owned(), source })
}

fn leads_nowhere(path: &Path) -> ConfigError {
    let shown = path.display();
    ConfigError::Value(format!(
        "{shown} is a link that leads nowhere: put the file there, or remove the link"
    ))
}

/// Refuses a file or folder that somebody else than root or this user could have written: it decides what root runs.
/// In a folder with the sticky bit, as /tmp is, nobody replaces what is another user's.
fn trusted(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).with_path("look at", path)?;
    let me = nix::unistd::geteuid();
    // The group can write where this user is not root: that is how many systems give a user's own files.
    let loose = if me.is_root() { 0o022 } else { 0o002 };
    let shared = meta.is_dir() && meta.mode() & 0o1000 != 0;
    if (meta.uid() == 0 || meta.uid() == me.as_raw()) && (shared || meta.mode() & loose == 0) {
        return Ok(());
    }
    let (shown, user, mode) = (path.display(), meta.uid(), meta.mode() & 0o7777);
    let fix = format!("chown root {shown}; chmod go-w {shown}");
    Err(ConfigError::Value(format!(
        "{shown} is of user {user} with mode {mode:04o}, so others can change it: {fix}"
    )))
}

/// The files of `conf.d` that count, in the order of their names.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    Ok(listed(dir)?.into_iter().filter(|path| is_drop_in(path)).collect())
}

/// The files of the `conf.d` beside `main` that are no part of the configuration, for whoever wonders.
pub fn passed_over(main: Option<&Path>) -> Vec<PathBuf> {
    let dir = disk::parent(main.unwrap_or(Path::new(DEFAULT_PATH))).join("conf.d");
    listed(&dir).unwrap_or_default().into_iter().filter(|path| !is_drop_in(path)).collect()
}

fn is_drop_in(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    path.extension().is_some_and(|extension| extension == "yml") && !hidden
}

/// What is in `conf.d`, sorted.
fn listed(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    // Only a folder that is not there at all holds nothing; a broken link in its place is an error.
    if dir.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_path("list", dir)?;
    trusted(dir)?;
    let mut paths = entries
        .map(|entry| Ok(entry.with_path("list", dir)?.path()))
        .collect::<Result<Vec<_>, DiskError>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether orders may name this task on this host.
pub fn allows(patterns: &[String], task: &Name) -> bool {
    patterns.iter().any(|pattern| matches_pattern(pattern, task.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn settings(files: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        load(Some(&dir.path().join("hostler.yml")), &no_env)
    }

    #[test]
    fn later_files_win_and_defaults_fill_the_rest() {
        let settings = settings(&[
            ("hostler.yml", "host: db1\ngroups: [hana]\nruns: {parallel: 2, keep_count: 50}"),
            ("conf.d/10-a.yml", "runs: {parallel: 8}\nstore: dir\ndir: {path: /x}"),
            ("conf.d/.hidden.yml", "host: no"),
            ("conf.d/20-b.yml", "groups: [pg]"),
        ])
        .unwrap();
        assert_eq!(settings.host.unwrap().as_str(), "db1");
        let groups: Vec<_> = settings.groups.iter().map(Name::as_str).collect();
        assert_eq!(groups, ["pg", "all"]);
        assert_eq!((settings.runs.parallel, settings.runs.keep_count), (8, 50));
        assert!(matches!(settings.store, StoreSettings::Dir(path) if path == Path::new("/x")));
        assert_eq!(settings.state_dir, Path::new("/var/lib/hostler"));
    }

    #[test]
    fn a_wrong_file_is_told_with_its_place() {
        let groups = |count: usize| (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>().join(", ");
        assert!(settings(&[("hostler.yml", &format!("groups: [{}, all]", groups(19)))]).is_ok());
        let too_many = format!("groups: [{}]", groups(20));
        for (text, expected) in [
            (too_many.as_str(), "19 groups at most"),
            ("hots: db1", "did you mean `host`"),
            ("host: DB1", "is not a name"),
            ("runs: {parallel: 0}", "runs.parallel"),
            ("store: etcd", "store"),
            ("log: {level: loud}", "log.level"),
            ("log: {format: xml}", "format"),
            ("groups: [a]\ngroups: [b]", "groups"),
        ] {
            let error = settings(&[("hostler.yml", text)]).err().expect(text).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        let missing = load(Some(Path::new("/nonexistent/hostler.yml")), &no_env);
        assert!(missing.err().unwrap().to_string().contains("there is no file"));
    }

    #[test]
    fn the_token_is_a_credential_or_stands_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (main, credentials) = (dir.path().join("hostler.yml"), dir.path().join("credentials"));
        fs::create_dir(&credentials).unwrap();
        fs::write(&main, "").unwrap();
        let given = credentials.to_str().unwrap().to_owned();
        let env = move |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| given.clone());
        let token_file = || match load(Some(&main), &env).unwrap().store {
            StoreSettings::Consul(layer) => {
                let copied = layer.token_file.as_ref().is_some_and(|file| file.starts_with(&credentials));
                let beside = dir.path().join("consul.token");
                assert_eq!(layer.later_token_file, copied.then_some(beside));
                layer.token_file
            }
            StoreSettings::Dir(_) => panic!("not the default"),
        };
        assert_eq!(token_file(), None);
        fs::write(dir.path().join("consul.token"), "beside").unwrap();
        assert_eq!(token_file(), Some(dir.path().join("consul.token")));
        // The unit hands over an empty line where there is no file.
        fs::write(credentials.join("consul.token"), "\n").unwrap();
        assert_eq!(token_file(), Some(dir.path().join("consul.token")));
        fs::write(credentials.join("consul.token"), "given").unwrap();
        assert_eq!(token_file(), Some(credentials.join("consul.token")));
        fs::write(&main, "consul: {token_file: /named}").unwrap();
        assert_eq!(token_file(), Some("/named".into()));
    }

    #[test]
    fn a_name_without_a_file_keeps_nothing_in_force_by_halves() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (main, conf) = (dir.path().join("hostler.yml"), dir.path().join("conf.d"));
        fs::write(&main, "host: db1").unwrap();
        let said = || load(Some(&main), &no_env).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(said(), Ok(()));
        symlink(dir.path().join("elsewhere"), &conf).unwrap();
        assert!(said().unwrap_err().contains("conf.d"), "a conf.d that leads nowhere");
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        symlink("/nonexistent/allow.yml", conf.join("allow.yml")).unwrap();
        assert!(said().unwrap_err().contains("allow.yml is a link that leads nowhere"));
        fs::remove_file(conf.join("allow.yml")).unwrap();
        fs::write(conf.join("10.yml"), "groups: [pg]").unwrap();
        assert_eq!(said(), Ok(()));
        fs::set_permissions(conf.join("10.yml"), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(said().unwrap_err().contains("mode 0666"), "{:?}", said());
        fs::set_permissions(conf.join("10.yml"), fs::Permissions::from_mode(0o644)).unwrap();
        if nix::unistd::Uid::effective().is_root() {
            std::os::unix::fs::chown(conf.join("10.yml"), Some(12345), None).unwrap();
            assert!(said().unwrap_err().contains("user 12345"));
            std::os::unix::fs::chown(conf.join("10.yml"), Some(0), None).unwrap();
        }
        for (folder, mode) in [(&conf, 0o777), (&conf, 0o757), (&dir.path().to_owned(), 0o777)] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
            assert!(said().unwrap_err().contains(&format!("mode {mode:04o}")), "{:?}", said());
            fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).unwrap();
            assert_eq!(said(), Ok(()), "nobody replaces another user's file there");
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["host.yaml", "host.conf", "10.yml~"] {
            fs::write(conf.join(name), "").unwrap();
        }
        let names: Vec<_> =
            passed_over(Some(&main)).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["10.yml~", "host.conf", "host.yaml"]);
        fs::remove_file(&main).unwrap();
        symlink("/nonexistent/main.yml", &main).unwrap();
        assert!(said().unwrap_err().contains("hostler.yml is a link that leads nowhere"));
    }

    #[test]
    fn a_path_is_a_full_one() {
        for (text, key) in [
            ("state_dir: state", "state_dir"),
            ("runtime_dir: ./run", "runtime_dir"),
            ("task_dirs: [/a, tasks]", "task_dirs"),
            ("state_dir: ~/state", "state_dir"),
            ("store: dir\ndir: {path: store}", "dir.path"),
            ("consul: {token_file: token}", "consul.token_file"),
            ("consul: {ca_file: ca.pem}", "consul.ca_file"),
            ("consul: {client_cert: /c, client_key: k}", "consul.client_key"),
            ("vault: {address: 'https://v', ca_file: ca.pem}", "vault.ca_file"),
            ("vault: {address: 'https://v', client_cert: ./c, client_key: /k}", "vault.client_cert"),
            ("vault: {address: 'https://v', client_cert: /c, client_key: ~/k}", "vault.client_key"),
            ("vault: {auth: {token_file: token}}", "vault.auth.token_file"),
            ("vault: {auth: {approle: {role_id_file: role}}}", "vault.auth.approle.role_id_file"),
            (
                "vault: {auth: {approle: {role_id_file: /r, secret_id_file: s}}}",
                "vault.auth.approle.secret_id_file",
            ),
        ] {
            let error = settings(&[("hostler.yml", text)]).err().expect(text).to_string();
            assert!(error.contains(&format!("`{key}`")) && error.contains("full path"), "{text}: {error}");
        }
    }

    #[test]
    fn patterns_of_tasks() {
        let name: Name = "postgres-backup".parse().unwrap();
        for (pattern, expected) in [
            ("*", true),
            ("postgres-*", true),
            ("*-backup", true),
            ("p*b*p", true),
            ("hana-*", false),
            ("", false),
        ] {
            assert_eq!(allows(&[pattern.to_owned()], &name), expected, "{pattern}");
        }
    }
}
