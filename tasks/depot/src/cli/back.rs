//! `put` and `get`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Context, complain, print_json, span};
use crate::chain;
use crate::cold::{self, Speed};
use crate::command::{Input, Output};
use crate::download;
use crate::error::Error;
use crate::lookup;
use crate::manifest::Manifest;
use crate::name::Name;
use crate::progress::{Progress, bytes, outputs};
use crate::store::objects::Availability;
use crate::stream::pipe::{Endpoint, Patience};
use crate::stream::schedule;
use crate::stream::target::{Sink, Target};
use crate::upload::{self, Incoming, Proof, PutRequest, Source};

#[derive(clap::Args)]
pub(super) struct Put {
    /// Name of the new backup, such as hdb/2026-11-21_full
    name: Name,
    /// Database whose retention rules apply [default: first part of the name]
    #[arg(long)]
    database: Option<String>,
    /// Backup that this one builds on
    #[arg(long, value_name = "NAME")]
    parent: Option<Name>,
    /// Approximate size of the stream; enables even parts and an ETA
    #[arg(long, value_name = "BYTES")]
    expect: Option<u64>,
    /// Size of the first parts; below 5 MiB only if the server allows it
    #[arg(long, value_name = "BYTES", hide = true)]
    part: Option<u64>,
    /// zstd level, 0 for none [default: `compress` of the configuration]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=19))]
    compress: Option<i32>,
    /// Maximum bytes per second
    #[arg(long, value_name = "BYTES")]
    limit: Option<u64>,
    /// Storage class
    #[arg(long)]
    class: Option<String>,
    /// Fail if no byte arrives for this long
    #[arg(long, value_parser = span, default_value = "1h")]
    idle: Duration,
    /// Accept a stream without any byte
    #[arg(long)]
    empty: bool,
    /// Exempt the backup from all retention rules, in favour of this owner
    #[arg(long, value_name = "OWNER", value_parser = owner)]
    owned: Option<String>,
    /// JSON of at most 1 KiB, shown by `list` and `show`
    #[arg(long, value_name = "JSON", value_parser = label)]
    label: Option<serde_json::Value>,
    /// Succeed if a backup of this name has the same contents
    #[arg(long)]
    if_same: bool,
    /// Exit statuses of the command that count as success, besides 0
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    good: Vec<i32>,
    /// Store the output of this command, if it succeeds
    #[arg(last = true)]
    command: Vec<String>,
}

/// Maximum bytes of a label.
const MAX_LABEL: usize = 1024;

fn label(text: &str) -> Result<serde_json::Value, String> {
    if text.len() > MAX_LABEL {
        return Err(format!("{} bytes are more than the {MAX_LABEL} of a label", text.len()));
    }
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

fn owner(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@=+-".contains(&byte));
    if text.is_empty() || text.len() > 100 || !plain {
        return Err("an owner is 1 to 100 of A-Z a-z 0-9 . _ @ = + -".to_owned());
    }
    Ok(text.to_owned())
}

struct Plain(Endpoint);

impl io::Read for Plain {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Source for Plain {
    fn ended(&mut self, _size: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Put {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let settings = &context.settings;
        context.clean().await;
        if let Some(parent) = &self.parent {
            lookup::manifest(&context.store, parent).await?;
        }
        let first = self.name.as_str().split('/').next().unwrap_or_default().to_owned();
        if settings.locks_itself_out() {
            complain("none of the keys in identity_file opens what is stored for encrypt.recipients");
        }
        let mut object_options = settings.object_options(context.store.clock().now())?;
        object_options.class = self.class.or(object_options.class);
        let mut recipe = settings.recipe.clone();
        if let Some(level) = self.compress {
            recipe.level = (level > 0).then_some(level);
        }
        let unit = self.part.filter(|part| *part > 0).unwrap_or(settings.unit).min(schedule::LARGEST_PART);
        let request = PutRequest {
            name: self.name,
            database: self.database.unwrap_or(first),
            parent: self.parent.map(|parent| parent.as_str().to_owned()),
            recipe,
            object_options,
            sizes: settings.sizes(self.expect, unit),
            memory: settings.memory,
            parallel: settings.parallel,
            at_once: if self.part.is_some() { 0 } else { settings.at_once },
            rate: self.limit.filter(|rate| *rate > 0).or(settings.rate),
            backint: None,
            owner: self.owned,
            label: self.label,
            empty: self.empty,
            same: self.if_same,
        };
        let called_off = Arc::new(AtomicBool::new(false));
        let source: Box<dyn Source> = if self.command.is_empty() {
            let end = Endpoint::standard(0, self.idle, Arc::clone(&called_off));
            Box::new(Plain(end.map_err(Error::local("standard input"))?))
        } else {
            let output = Output::start(&self.command, self.idle, &self.good, Arc::clone(&called_off));
            Box::new(output.map_err(|error| Error::Stream(error.to_string()))?)
        };
        let progress = Progress::new("stored", self.expect);
        let incoming = Incoming { source, called_off, progress: Arc::clone(&progress) };
        let work = upload::put(&context.store, &context.journal, request, incoming);
        let (manifest, proof) = progress.shown(work).await?;
        let figures = progress.figures(context.store.retries());
        outputs(
            &json!({"backup": manifest.name, "bytes": figures.bytes, "stored_bytes": manifest.stored.size,
            "bytes_per_second": figures.bytes_per_second, "retries": figures.retries, "verified": proof}),
        );
        if settings.json {
            return print_json(&json!({"backup": manifest, "figures": figures, "verified": proof}));
        }
        if proof == Proof::Same {
            complain(&format!("`{}` has the same contents already: nothing was stored", manifest.name));
            return Ok(());
        }
        complain(&format!(
            "stored `{}`: {} as {} in {:.1} s, {}/s, {}, {} retries",
            manifest.name,
            bytes(manifest.size),
            bytes(manifest.stored.size),
            figures.seconds,
            bytes(figures.bytes_per_second),
            match proof {
                Proof::Checksums | Proof::Same => "verified by checksums",
                Proof::Sample => "verified by a sample",
                Proof::Unverified => "unverified",
            },
            figures.retries
        ));
        Ok(())
    }
}

#[derive(clap::Args)]
pub(super) struct Get {
    /// Name of the backup
    name: Name,
    /// File, device or pipe to write to; - for standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    output: Option<PathBuf>,
    /// Succeed without reading if the file already has these contents
    #[arg(long, requires = "output")]
    if_same: bool,
    /// Retrieval tier, if the backup is cold
    #[arg(long, value_enum, default_value = "standard")]
    tier: Speed,
    /// Days to keep the thawed copy
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=365))]
    days: u32,
    /// Wait up to this long for a thaw; exit with 75 after that
    #[arg(long, value_parser = span, default_value = "0s")]
    wait: Duration,
    /// Interval between checks for the thaw
    #[arg(long, value_parser = span, default_value = "60s")]
    poll: Duration,
    /// Fail if the reader accepts no byte for this long
    #[arg(long, value_parser = span, default_value = "1h")]
    idle: Duration,
    /// Pipe the backup into this command; it is killed on any error
    #[arg(last = true)]
    command: Vec<String>,
}

/// The destination of the bytes.
enum Out {
    Standard(Endpoint),
    Target(Sink),
    Command(Input),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(end) => end.write(bytes),
            Self::Target(sink) => sink.write(bytes),
            Self::Command(input) => input.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn end(self) -> io::Result<()> {
        match self {
            Self::Standard(_) => Ok(()),
            Self::Target(sink) => sink.keep(),
            Self::Command(input) => input.end(),
        }
    }
}

impl Get {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let local = |error: io::Error| Error::Local(error.to_string());
        let output = self.output.as_ref().filter(|path| path.as_os_str() != "-");
        let target = output.map(|path| Target::look(path)).transpose().map_err(local)?;
        let manifest = lookup::manifest(&context.store, &self.name).await?;
        if let Some(Target::File(path)) = target.as_ref().filter(|_| self.if_same)
            && has(path, &manifest)?
        {
            complain(&format!("{} has the contents of `{}` already", path.display(), self.name));
            return Ok(());
        }
        let reading = context.settings.reading()?;
        if let Err(error) = chain::whole(&context.store, &manifest.name, manifest.parent.as_deref()).await {
            complain(&format!("{error}: these bytes alone cannot be restored"));
        }
        self.warm(context, &manifest).await?;
        let called_off = Arc::new(AtomicBool::new(false));
        let out = match target {
            Some(target) => {
                let patience = Patience { idle: self.idle, ..context.settings.pipes };
                Out::Target(target.open(patience, called_off).map_err(local)?)
            }
            None if self.command.is_empty() => {
                let end = Endpoint::standard(1, self.idle, called_off);
                Out::Standard(end.map_err(Error::local("standard output"))?)
            }
            None => {
                let input = Input::start(&self.command, self.idle, called_off);
                Out::Command(input.map_err(|error| Error::Stream(error.to_string()))?)
            }
        };
        let to_stdout = matches!(out, Out::Standard(_));
        let progress = Progress::new("read", Some(manifest.size));
        let work = download::get(&context.store, &manifest, &reading, out, Arc::clone(&progress));
        let out = progress.shown(work).await?;
        let ended = tokio::task::spawn_blocking(move || out.end()).await;
        ended
            .map_err(|error| Error::Local(error.to_string()))?
            .map_err(|error| Error::Stream(error.to_string()))?;
        let figures = progress.figures(context.store.retries());
        outputs(&json!({"backup": manifest.name, "bytes": figures.bytes,
            "bytes_per_second": figures.bytes_per_second, "retries": figures.retries}));
        if context.settings.json && !to_stdout {
            return print_json(&json!({"backup": manifest, "figures": figures}));
        }
        complain(&format!(
            "read `{}`: {} in {:.1} s, {}/s, {} retries, all verified",
            manifest.name,
            bytes(figures.bytes),
            figures.seconds,
            bytes(figures.bytes_per_second),
            figures.retries
        ));
        Ok(())
    }

    /// Makes the backup readable: requests a thaw if it is cold, and waits for it up to the limit.
    async fn warm(&self, context: &Context, manifest: &Manifest) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            match download::ready(&context.store, manifest).await?.1 {
                Availability::Hot | Availability::Thawed(_) => return Ok(()),
                Availability::Cold | Availability::Thawing => {}
            }
            let object_options = context.settings.object_options(context.store.clock().now())?;
            let wanted = cold::RestoreOptions { speed: self.tier, days: self.days };
            let state =
                match cold::restore(&context.store, &self.name, manifest, wanted, &object_options).await {
                    // One that is on its way comes, if not as fast as was asked.
                    Err(Error::Refused(_)) if thawing(context, &self.name, manifest).await? => {
                        cold::state(&context.store, &self.name, manifest).await?
                    }
                    state => state?,
                };
            if matches!(state.state, "hot" | "thawed") {
                return Ok(());
            }
            let left = self.wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let time = super::tend::expected(&state);
                return Err(Error::Cold(format!("`{}` is being thawed: {time}; ask again", self.name)));
            }
            tokio::time::sleep(self.poll.min(left)).await;
        }
    }
}

async fn thawing(context: &Context, name: &Name, manifest: &Manifest) -> Result<bool, Error> {
    Ok(cold::state(&context.store, name, manifest).await?.state == "thawing")
}

/// Whether the file has the backup's contents.
fn has(path: &Path, manifest: &Manifest) -> Result<bool, Error> {
    let place = || path.display().to_string();
    let size = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::local(place())(error)),
    };
    if size != manifest.size {
        return Ok(false);
    }
    let mut file = std::fs::File::open(path).map_err(Error::local(place()))?;
    let digest = crate::stream::stages::digest(&mut file, |_| {}).map_err(Error::local(place()))?;
    Ok(digest == (manifest.size, manifest.sha256.clone()))
}
