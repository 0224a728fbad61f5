//! `/etc/hostler/tasks.yml`: what the shipped tasks may touch on this host. Root writes it; a key that is left out has
//! its default, and a file that is wrong or that others can write admits nothing.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{PATH, Refusal};
use crate::domain::yaml;

/// The largest file that is read, in bytes.
const MAX_FILE: usize = 64 << 10;

/// What the shipped tasks may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Folders.
    pub places: Places,
    /// Packages.
    pub packages: Packages,
    /// PostgreSQL.
    pub postgres: Postgres,
}

/// In which folders, and below which, a task may work. Full paths.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// `disk-cleanup`: whose old files may be removed.
    pub clean: Vec<PathBuf>,
    /// `depot-backup`: what may be read.
    pub backup: Vec<PathBuf>,
    /// `depot-restore`: below which a new folder may be made.
    pub restore: Vec<PathBuf>,
}

/// Which packages the task `package` may install, hold and release: patterns with `*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packages {
    /// One of these must match.
    pub allow: Vec<String>,
    /// None of these may match.
    pub deny: Vec<String>,
}

/// Which servers a password may be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// The folders of their sockets.
    pub sockets: Vec<PathBuf>,
    /// Their ports.
    pub ports: Vec<u16>,
}

fn texts<T: From<&'static str>>(texts: &[&'static str]) -> Vec<T> {
    texts.iter().map(|text| T::from(text)).collect()
}

impl Default for Places {
    fn default() -> Self {
        Self {
            clean: texts(&["/var/log", "/var/tmp", "/var/crash"]),
            backup: texts(&["/etc", "/home", "/srv", "/opt", "/var/lib"]),
            restore: texts(&["/var/restore"]),
        }
    }
}

impl Default for Packages {
    fn default() -> Self {
        let deny = ["hostler*", "systemd*", "libc6", "glibc*", "linux-image*", "kernel*"];
        Self { allow: texts(&["*"]), deny: texts(&deny) }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self { sockets: texts(&["/var/run/postgresql"]), ports: vec![5432] }
    }
}

impl Policy {
    /// Reads the file; without one, the defaults.
    ///
    /// # Errors
    /// It cannot be read, others can write it, or something in it is wrong: then nothing is admitted.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display();
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Refusal::io(&shown)(error)),
        };
        let meta = file.metadata().map_err(Refusal::io(&shown))?;
        if !super::folder::is_of_root(meta.uid()) || meta.mode() & 0o022 != 0 {
            let message =
                format!("others than root can write {shown}: run chown root {shown}; chmod 0644 {shown}");
            return Err(Refusal::Refused(message));
        }
        let mut text = String::new();
        let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
        (&mut file).take(most).read_to_string(&mut text).map_err(Refusal::io(&shown))?;
        Self::parse(&text).map_err(|why| Refusal::Refused(format!("{shown}: {why}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let policy: Self = yaml::parse(text, MAX_FILE).map_err(|error| error.to_string())?;
        let places = &policy.places;
        let folders = [&places.clean, &places.backup, &places.restore, &policy.postgres.sockets];
        if let Some(path) = folders.into_iter().flatten().find(|path| !path.is_absolute()) {
            return Err(format!("{} is no full path", path.display()));
        }
        Ok(policy)
    }
}

impl Packages {
    /// Whether a task may act on the package of this exact name.
    ///
    /// # Errors
    /// The reason, with where to change it.
    pub fn admit(&self, name: &str) -> Result<(), Refusal> {
        let list = if let Some(pattern) = self.deny.iter().find(|pattern| matches(pattern, name)) {
            format!("packages.deny has {pattern}")
        } else if self.allow.iter().any(|pattern| matches(pattern, name)) {
            return Ok(());
        } else {
            "packages.allow has no pattern for it".to_owned()
        };
        Err(Refusal::Refused(format!("the package {name} is not admitted on this host: {list} in {PATH}")))
    }
}

/// Whether a pattern, in which `*` stands for any text, matches the whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at.saturating_add(part.len())..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("libc6", "libc6", true),
            ("libc6", "libc6-dev", false),
            ("kernel*", "kernel-core", true),
            ("kernel*", "my-kernel", false),
            ("*-dbg", "libc6-dbg", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*a", "a", false),
            ("a*bc", "abcb", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_wrong_admits_nothing() {
        let policy = Policy::parse("places: {clean: [/data]}\n").unwrap();
        assert_eq!(policy.places.clean, [Path::new("/data")]);
        assert_eq!(policy.places.restore, Places::default().restore);
        assert_eq!(Policy::parse("# nothing\n").unwrap(), Policy::default());
        for wrong in
            ["place: {}", "places: {clean: [data]}", "places: {clean: /data}", "postgres: {ports: [70000]}"]
        {
            assert!(Policy::parse(wrong).is_err(), "{wrong}");
        }
        let packages = Policy::default().packages;
        assert!(packages.admit("postgresql-15").is_ok() && packages.admit("hostler-depot").is_err());
        assert!(Packages { allow: vec!["pg*".into()], ..packages }.admit("nginx").is_err());
    }

    #[test]
    fn a_file_that_others_can_write_admits_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.yml");
        assert_eq!(Policy::read(&path).unwrap(), Policy::default());
        std::fs::write(&path, "postgres: {ports: [1]}").unwrap();
        assert_eq!(Policy::read(&path).unwrap().postgres.ports, [1]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        assert!(Policy::read(&path).is_err());
    }

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/tasks.yml");
        let text = std::fs::read_to_string(file).unwrap();
        // A line of prose has a blank behind its `#`, one of a list two.
        let settings: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' ') || line.starts_with("  "))
            .collect();
        assert!(settings.len() > 8, "{settings:?}");
        let policy: Policy = yaml::parse(settings.join("\n"), MAX_FILE).unwrap();
        assert_eq!(policy, Policy::default());
    }
}
