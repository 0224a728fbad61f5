//! The configuration: a file, options above it, and what comes of both.
//!
//! The same file serves people, tasks and SAP HANA (`-p`). Unknown keys are refused, with line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::download::Reading;
use crate::error::Error;
use crate::retention::Keep;
use crate::secret::Secret;
use crate::store::Place;
use crate::store::credentials::KEY_ID;
use crate::store::fault::Patience;
use crate::store::objects::ObjectOptions;
use crate::stream::schedule;
use crate::stream::stages::Recipe;

/// Where the file is when nobody says.
pub const DEFAULT: &str = "/etc/hostler/depot.yml";
const MIB: u64 = 1024 * 1024;

/// The file, as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// URL of an S3-compatible server.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Bucket.
    pub bucket: Option<String>,
    /// What all keys begin with.
    pub prefix: Option<String>,
    /// The bucket in the path; the default with an endpoint.
    pub path_style: Option<bool>,
    /// Profile of the AWS configuration.
    pub profile: Option<String>,
    /// Authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Folder with credentials.
    pub credentials_dir: Option<PathBuf>,
    /// Folder of what was begun.
    pub state_dir: Option<PathBuf>,
    /// Seconds that one request may take, without its bytes.
    pub timeout: Option<f64>,
    /// Tries of one request.
    pub tries: Option<u32>,
    /// Storage class of new backups.
    pub storage_class: Option<String>,
    /// Encryption by the server.
    pub sse: Option<Sse>,
    /// Tags of new objects.
    pub tags: BTreeMap<String, String>,
    /// Object lock of new objects.
    pub lock: Option<Lock>,
    /// Level of zstd, 0 for none.
    pub compress: Option<i32>,
    /// Encryption by this program.
    pub encrypt: Encrypt,
    /// Most bytes a second.
    pub limit: Option<u64>,
    /// Memory for parts, in MiB.
    pub memory_mib: Option<u64>,
    /// Bytes of the first parts, in MiB.
    pub part_mib: Option<u64>,
    /// Requests at once.
    pub parallel: Option<usize>,
    /// Rules for each database; `*` for all others.
    pub databases: BTreeMap<String, Rules>,
    /// Seconds that a pipe's other side has to open it.
    pub pipe_open_timeout: Option<f64>,
    /// Seconds that a pipe may be silent.
    pub pipe_idle_timeout: Option<f64>,
    /// Whose backups Backint restores and finds, where that is not whoever calls.
    pub backint_user: Option<String>,
    /// Proxy: a URL, or `none`; the environment's when not said.
    pub proxy: Option<String>,
    /// What is reached without the proxy.
    pub no_proxy: Option<String>,
    /// Sums that go to the server with the bytes.
    pub checksums: crate::store::Checksums,
    /// How parts grow.
    pub parts: Parts,
}

/// How the parts of an upload grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parts {
    /// From small ones to larger ones.
    #[default]
    Growing,
    /// All of one size, but for the last.
    Even,
}

/// Encryption by the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sse {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`.
    pub algorithm: String,
    /// Key.
    pub kms_key: Option<String>,
}

/// Object lock.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// `GOVERNANCE` or `COMPLIANCE`.
    pub mode: String,
    /// From when the object is stored.
    pub days: u32,
}

/// Encryption by this program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Encrypt {
    /// Who can read: public keys of age.
    pub recipients: Vec<String>,
    /// File with the private key, needed to read only.
    pub identity_file: Option<PathBuf>,
}

/// What becomes of a database's backups.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Which are kept.
    pub keep: Keep,
    /// Which are moved.
    pub cold: Option<Cold>,
}

/// When backups are moved, and where to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cold {
    /// Age in days.
    pub after_days: u32,
    /// `GLACIER` or `DEEP_ARCHIVE`.
    pub class: String,
}

/// Options that stand above the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Configuration file [default: /etc/hostler/depot.yml, where it is]
    #[arg(long, global = true, value_name = "FILE", env = "HOSTLER_DEPOT_CONFIG")]
    pub config: Option<PathBuf>,
    /// URL of an S3-compatible server; AWS when not said
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// Bucket
    #[arg(long, global = true)]
    pub bucket: Option<String>,
    /// What all keys begin with
    #[arg(long, global = true)]
    pub prefix: Option<String>,
    /// Folder with the files s3_access_key_id, s3_secret_access_key and, if need be, s3_session_token
    #[arg(long, global = true, value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,
    /// Folder in which is noted what was begun and not ended
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Answer with JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What comes of both.
pub struct Settings {
    /// The bucket.
    pub place: Place,
    /// Folder of the journal.
    pub state_dir: PathBuf,
    /// Parameters of new objects, without the end of their lock.
    object_options: ObjectOptions,
    lock: Option<Lock>,
    /// Compression and encryption.
    pub recipe: Recipe,
    identity_file: Option<PathBuf>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// Bytes of memory for parts, if that was said.
    pub memory: Option<u64>,
    /// Bytes of the first parts.
    pub unit: u64,
    /// How they grow.
    parts: Parts,
    /// A stream of fewer bytes than this goes by one request; 0: none that is longer than a part.
    pub at_once: u64,
    /// Whose backups Backint restores and finds, where that is not whoever calls.
    pub backint_user: Option<String>,
    /// Requests at once.
    pub parallel: usize,
    /// Rules.
    pub databases: BTreeMap<String, Rules>,
    /// For pipes.
    pub pipes: crate::stream::pipe::Patience,
    /// Answers are JSON.
    pub json: bool,
}

/// A number of seconds from outside, which may be no number at all.
fn seconds(value: f64, what: &str) -> Result<Duration, Error> {
    match Duration::try_from_secs_f64(value) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(Error::Config(format!("{what}: {value} is no time in seconds"))),
    }
}

/// An endpoint that no request could reach is found before the first one.
fn check_endpoint(url: &str) -> Result<(), Error> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        let text = if url.contains("//") || url.contains(":/") || url.is_empty() {
            format!("endpoint: `{url}` is not a URL: write https://HOST or http://HOST:PORT")
        } else {
            format!("endpoint: `{url}` has no scheme: write https://{url}")
        };
        return Err(Error::Config(text));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map(|(_, port)| port);
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}@".contains(c);
    if name.is_empty() || rest.contains(odd) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        let text = format!("endpoint: `{url}` is not a URL: write https://HOST or http://HOST:PORT");
        return Err(Error::Config(text));
    }
    Ok(())
}

/// Reads the file.
pub fn read(path: &Path) -> Result<File, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Config(format!("configuration {}: {error}", path.display())))?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_yaml::from_str(&text).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

impl Settings {
    /// Reads the file that the options name, and puts them above it.
    pub fn load(options: &Options) -> Result<Self, Error> {
        let file = match &options.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT).exists() => read(Path::new(DEFAULT))?,
            None => File::default(),
        };
        Self::new(file, options)
    }

    /// Checks all and fills in what is not said.
    pub fn new(file: File, options: &Options) -> Result<Self, Error> {
        let bucket = options.bucket.clone().or(file.bucket);
        let bucket =
            bucket.ok_or_else(|| Error::Config("no bucket: set `bucket`, or use --bucket".to_owned()))?;
        let mut prefix = options.prefix.clone().or(file.prefix).unwrap_or_default();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let endpoint = options.endpoint.clone().or(file.endpoint);
        endpoint.as_deref().map_or(Ok(()), check_endpoint)?;
        let region = options.region.clone().or(file.region);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if let Some(name) = region.as_ref().filter(|name| name.is_empty() || !name.bytes().all(plain)) {
            return Err(Error::Config(format!("region: `{name}` is not the name of a region")));
        }
        // An access point of AWS is named by its ARN.
        let named = !bucket.is_empty() && bucket.bytes().all(plain) || bucket.starts_with("arn:");
        if !named {
            let text = format!("bucket: `{bucket}` is not the name of a bucket: put a path into `prefix`");
            return Err(Error::Config(text));
        }
        let secrets = std::env::var_os("HOSTLER_SECRETS").map(PathBuf::from);
        let credentials = options
            .credentials_dir
            .clone()
            .or(file.credentials_dir)
            .or(secrets.filter(|folder| folder.join(KEY_ID).exists()));
        let place = Place {
            path_style: file.path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            region,
            profile: file.profile,
            bucket,
            prefix,
            ca_file: file.ca_file,
            credentials,
            patience: Patience {
                tries: file.tries.unwrap_or(10).max(1),
                base: seconds(file.timeout.unwrap_or(60.0), "timeout")?,
            },
            proxy: file.proxy,
            no_proxy: file.no_proxy,
            checksums: file.checksums,
        };
        let part = file.part_mib.unwrap_or(schedule::SMALLEST_PART / MIB);
        let most = if file.parts == Parts::Even { schedule::LARGEST_PART / MIB } else { 64 };
        if !(schedule::SMALLEST_PART / MIB..=most).contains(&part) {
            return Err(Error::Config(format!("part_mib: {part} is not from 5 to {most}")));
        }
        let recipients = file.encrypt.recipients.iter().map(|text| {
            text.parse().map_err(|why| Error::Config(format!("encrypt.recipients: `{text}`: {why}")))
        });
        let level = file.compress.filter(|level| *level != 0);
        if level.is_some_and(|level| !(1..=19).contains(&level)) {
            return Err(Error::Config("compress: a level is from 1 to 19, or 0 for none".to_owned()));
        }
        for (name, rules) in &file.databases {
            if let Some(cold) = &rules.cold {
                cold_class(&cold.class)
                    .map_err(|why| Error::Config(format!("databases.{name}.cold.class: {why}")))?;
            }
        }
        let (sse, kms_key) = file.sse.map(|sse| (sse.algorithm, sse.kms_key)).unzip();
        Ok(Self {
            place,
            state_dir: options.state_dir.clone().or(file.state_dir).unwrap_or_else(state_dir),
            object_options: ObjectOptions {
                class: file.storage_class,
                sse,
                kms_key: kms_key.flatten(),
                tags: tags(&file.tags),
                lock: None,
                hold: false,
            },
            lock: file.lock,
            recipe: Recipe { level, recipients: recipients.collect::<Result<_, _>>()? },
            identity_file: file.encrypt.identity_file,
            rate: file.limit.filter(|rate| *rate > 0),
            memory: file.memory_mib.map(|memory| memory.saturating_mul(MIB)),
            unit: part * MIB,
            parts: file.parts,
            // Who says how large the parts are wants parts.
            at_once: if file.part_mib.is_some() { 0 } else { schedule::AT_ONCE },
            backint_user: file.backint_user.filter(|user| !user.is_empty()),
            parallel: file.parallel.unwrap_or(8).clamp(1, 256),
            databases: file.databases,
            pipes: crate::stream::pipe::Patience {
                open: seconds(file.pipe_open_timeout.unwrap_or(120.0), "pipe_open_timeout")?,
                idle: seconds(file.pipe_idle_timeout.unwrap_or(3600.0), "pipe_idle_timeout")?,
            },
            json: options.json,
        })
    }

    /// How a stream of about so many bytes is cut, into first parts of `unit`.
    pub fn sizes(&self, expected: Option<u64>, unit: u64) -> schedule::Sizes {
        match self.parts {
            Parts::Growing => schedule::sizes(expected, unit),
            Parts::Even => schedule::even(expected, self.unit.max(unit)),
        }
    }

    /// Whether none of the keys here opens what is stored for these recipients.
    pub fn locks_itself_out(&self) -> bool {
        if self.recipe.recipients.is_empty() || self.identity_file.is_none() {
            return false;
        }
        let Ok(reading) = self.reading() else { return false };
        let ours: Vec<String> = reading.identities.iter().map(|one| one.to_public().to_string()).collect();
        !self.recipe.recipients.iter().any(|one| ours.contains(&one.to_string()))
    }

    /// Parameters for an object that is stored at this time.
    pub fn object_options(&self, now: Timestamp) -> Result<ObjectOptions, Error> {
        let lock = match &self.lock {
            None => None,
            Some(lock) => {
                let span = SignedDuration::from_hours(24 * i64::from(lock.days));
                let until = now.checked_add(span);
                Some((
                    lock.mode.clone(),
                    until.map_err(|error| Error::Config(format!("lock.days: {error}")))?,
                ))
            }
        };
        Ok(ObjectOptions { lock, ..self.object_options.clone() })
    }

    /// What is needed to read; the private key is read only where it is used.
    pub fn reading(&self) -> Result<Reading, Error> {
        let mut identities = Vec::new();
        if let Some(path) = &self.identity_file {
            let text = Secret::read(path)?;
            for line in text.expose().lines().map(str::trim) {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                // The parser's own words might hold a piece of the key.
                let one = line.parse().map_err(|_| {
                    Error::Config(format!("{}: a line is no private key of age", path.display()))
                })?;
                identities.push(one);
            }
        }
        Ok(Reading { identities: Arc::new(identities), parallel: self.parallel, memory: self.memory })
    }

    /// The rules for a database.
    pub fn rules(&self, database: &str) -> Rules {
        self.databases.get(database).or_else(|| self.databases.get("*")).cloned().unwrap_or_default()
    }
}

/// A class that must be thawed.
pub fn cold_class(text: &str) -> Result<(), String> {
    match text {
        "GLACIER" | "DEEP_ARCHIVE" => Ok(()),
        _ => Err(format!("`{text}` is neither GLACIER nor DEEP_ARCHIVE")),
    }
}

fn tags(tags: &BTreeMap<String, String>) -> Option<String> {
    let escape = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
    };
    let pairs: Vec<String> =
        tags.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

fn state_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/hostler-depot");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("hostler-depot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_could_reach_is_refused_by_its_key() {
        let with = |change: fn(&mut File)| {
            let mut file = File { bucket: Some("vault".to_owned()), ..File::default() };
            change(&mut file);
            Settings::new(file, &Options::default()).map(|_| ()).map_err(|error| error.to_string())
        };
        for good in ["http://localhost", "https://[::1]:9000/", "http://[::1]", "https://s3.example.com/s3"] {
            assert_eq!(check_endpoint(good).map_err(|error| error.to_string()), Ok(()), "{good}");
        }
        for bad in
            ["http://", "https://:9000", "https:/x", "http://a b", "http://host:port", "http://h:99999", ""]
        {
            assert!(check_endpoint(bad).unwrap_err().to_string().contains("is not a URL"), "{bad}");
        }
        assert!(check_endpoint("s3.local:9000").unwrap_err().to_string().contains("https://s3.local:9000"));
        assert_eq!(with(|_| {}), Ok(()));
        assert!(
            with(|file| file.region = Some("eu central".to_owned())).unwrap_err().starts_with("region: ")
        );
        assert_eq!(
            with(|file| file.bucket = Some("arn:aws:s3:eu-central-1:1:accesspoint/a".to_owned())),
            Ok(())
        );
        for bucket in ["vault/db1", "s3://vault", "", "my vault"] {
            let options = Options { bucket: Some(bucket.to_owned()), ..Options::default() };
            let refused = Settings::new(File::default(), &options).map(|_| ()).unwrap_err();
            assert!(refused.to_string().starts_with("bucket: "), "{bucket}");
        }
    }

    #[test]
    fn the_example_that_is_shipped_is_valid_and_so_is_each_line_that_it_comments_out() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/depot.yml");
        let options = Options::default();
        Settings::new(read(&path).unwrap(), &options).map(|_| ()).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        // The first two lines are words, as is each that does not begin with a key.
        let keys = text.lines().skip(2).map(|line| line.strip_prefix("# ").unwrap_or(line));
        let keys: Vec<&str> = keys.filter(|line| !line.ends_with('.')).collect();
        let all = keys
            .join("\n")
            .replace("age1…", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p");
        let file: File = serde_yaml::from_str(&all).unwrap_or_else(|error| panic!("{error}:\n{all}"));
        assert_eq!(file.databases.len(), 2, "the last lines are reached");
        assert_eq!(
            (file.part_mib, file.parallel, file.timeout, file.tries),
            (Some(5), Some(8), Some(60.0), Some(10))
        );
        Settings::new(file, &options).map(|_| ()).unwrap();
    }
}
