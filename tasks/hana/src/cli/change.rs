//! `install` and `update`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{BOOL, Options, run_id, span};
use crate::backup::Run;
use crate::change::{self, Step, Terms};
use crate::check::{self, Observed, Wish};
use crate::downtime::{Watch, Way};
use crate::error::Error;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdblcm::{Choices, Part, Unfinished};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media::Media;
use crate::neighbours::nsutil;
use crate::parts::Files;
use crate::power;
use crate::runner::Runner;
use crate::system::Version;

/// How long a database may take to answer once all processes run.
const BACK: Duration = Duration::from_secs(60);
/// How long hdbbackupcheck may take for one file.
pub(super) const CHECK: Duration = Duration::from_secs(12 * 3600);

#[derive(clap::Args)]
pub(super) struct Install {
    /// Folder into which the media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: PathBuf,
    /// Archive that the folder of the media is extracted from by `media`: until it is, a probe answers no
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Components, separated by commas [default: server,client]
    #[arg(long, value_name = "LIST", value_parser = word)]
    components: Option<String>,
    /// Folder of the data volumes [default: hdblcm's]
    #[arg(long, value_name = "FOLDER", value_parser = word)]
    data: Option<String>,
    /// Folder of the log volumes [default: hdblcm's]
    #[arg(long, value_name = "FOLDER", value_parser = word)]
    log: Option<String>,
    /// What the system is for [default: hdblcm's]
    #[arg(long, value_parser = ["production", "test", "development", "custom"])]
    usage: Option<String>,
    /// Number of the user <sid>adm [default: hdblcm's]
    #[arg(long)]
    uid: Option<u32>,
    /// Number of the group sapsys [default: hdblcm's]
    #[arg(long)]
    gid: Option<u32>,
    /// Change nothing: ask whether the version of the media is installed, whole and running
    #[arg(long)]
    probe: bool,
    /// Take away what this run has installed, if nothing of the system was here before it
    #[arg(long, conflicts_with = "probe")]
    undo: bool,
    /// Id of the run that installs, without which nothing can be undone
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
}

#[derive(clap::Args)]
pub(super) struct Update {
    /// Folder into which the new media was extracted
    #[arg(long, value_name = "FOLDER")]
    media: PathBuf,
    /// Archive that the folder of the media is extracted from by `media`: until it is, a probe answers no
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Only do what needs no downtime
    #[arg(long)]
    prepare: bool,
    /// Leave the system stopped: for a former primary that will be registered as a secondary
    #[arg(long, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    no_start: bool,
    /// How old the newest complete backup of a database may be
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "24h")]
    require_backup: Duration,
    /// Pacemaker's resources are in maintenance
    #[arg(long, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    cluster_in_maintenance: bool,
    /// Change nothing: ask whether the version of the media is installed, whole and running
    #[arg(long)]
    probe: bool,
    /// Id of the run: a repetition with the same one starts the system that its update has left stopped
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
}

impl Install {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        if self.undo {
            return change::undo_install(&options.runner(None)?, &run_id(self.run)?);
        }
        extracted(options, &self.media, self.archive.as_deref(), self.probe)?;
        alone(options, self.probe)?;
        let (runner, media, seen) = look(options, &self.media, Duration::ZERO, None)?;
        if !settle(change::install(&seen), self.probe)? {
            return Ok(());
        }
        let choices = Choices {
            components: self.components,
            data: self.data,
            log: self.log,
            hostname: options.hostname.clone(),
            usage: self.usage,
            uid: self.uid,
            gid: self.gid,
        };
        change::carry_out_install(&runner, &media, version(&seen)?, &choices, self.run.as_ref())
    }
}

impl Update {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        extracted(options, &self.media, self.archive.as_deref(), self.probe)?;
        alone(options, self.probe)?;
        let files = (!self.probe).then_some(Files::Read(CHECK));
        let (runner, media, seen) = look(options, &self.media, self.require_backup, files)?;
        let part = if self.prepare { Part::Prepare } else { Part::Finish { start: !self.no_start } };
        let terms = Terms {
            age: self.require_backup,
            maintained: self.cluster_in_maintenance,
            part,
            former: self.no_start,
        };
        if !self.probe && change::left_stopped(&runner, &seen, part, self.run.as_ref())? {
            power::start(&runner)?;
            return change::forget_update(&runner, self.run.as_ref());
        }
        let step = match change::update(&seen, terms) {
            // A probe says why it is not done.
            Step::Go if self.probe && matches!(seen.unfinished.value, Ok(Some(Unfinished::Update))) => {
                Step::Refuse(
                    "an update is prepared or did not come to its end: read hdblcm's log in /var/tmp; the next one goes on"
                        .to_owned(),
                )
            }
            step => step,
        };
        if !settle(step, self.probe)? {
            return Ok(());
        }
        let watch = watch(&runner, &options.key, &seen, part);
        change::note_update(&runner, part, self.run.as_ref())?;
        change::carry_out_update(&runner, &media, version(&seen)?, part)?;
        change::forget_update(&runner, self.run.as_ref())?;
        // What fails is said when the watch goes.
        watch.map_or(Ok(()), |watch| watch.end(BACK))
    }
}

/// Waits for an hdblcm that an earlier epoch of this run has left at work.
fn alone(options: &Options, probe: bool) -> Result<(), Error> {
    let epoch = std::env::var("HOSTLER_EPOCH").ok().and_then(|epoch| epoch.parse::<u32>().ok());
    if probe || epoch.is_none_or(|epoch| epoch < 2) {
        return Ok(());
    }
    change::wait_alone(&options.runner(None)?, "hdblcm", check::hdblcm_at_work)
}

/// A probe's answer where the media is not extracted yet: what is not there is installed nowhere.
fn extracted(options: &Options, media: &Path, archive: Option<&Path>, probe: bool) -> Result<(), Error> {
    let place = options.root.join(media.strip_prefix("/").unwrap_or(media));
    match (probe, archive) {
        (true, Some(archive)) if !place.exists() => {
            Err(Error::No(format!("{} is not extracted yet", archive.display())))
        }
        _ => Ok(()),
    }
}

/// Looks at the media and at everything that a change depends on.
fn look(
    options: &Options,
    folder: &Path,
    age: Duration,
    parts: Option<Files>,
) -> Result<(Runner, Media, Observed), Error> {
    let runner = options.runner(None)?;
    let media = Media::find(&options.root, folder)?;
    let wish = Wish { media: Some(folder.to_owned()), key: options.key.clone(), age, parts };
    let seen = check::gather(&runner, &wish)?;
    Ok((runner, media, seen))
}

/// Whether hdblcm is to begin. A probe never begins: what is not there yet is its answer no.
fn settle(step: Step, probe: bool) -> Result<bool, Error> {
    match (step, probe) {
        (Step::Already, _) => Ok(false),
        (Step::Go, false) => Ok(true),
        (Step::Go, true) => Err(Error::No("not installed in the version of the media".to_owned())),
        (Step::Refuse(why), true) => Err(Error::No(why)),
        (Step::Refuse(why), false) => Err(Error::Refused(why)),
        (Step::Unclear(why), _) => Err(Error::Unclear(why)),
    }
}

/// Watches the databases that an update takes away from their users. A secondary has none, and a former primary, which
/// is left stopped, neither.
fn watch(runner: &Runner, key: &Key, seen: &Observed, part: Part) -> Option<Watch> {
    let secondary = seen.replication.as_ref().is_some_and(|seen| {
        matches!(seen.value.as_ref().map(|state| &state.role), Ok(nsutil::Role::Secondary(_)))
    });
    if secondary || part != (Part::Finish { start: true }) {
        return None;
    }
    let known = seen.databases.as_ref().and_then(|seen| seen.value.as_ref().ok());
    let active = known.map(|known| known.iter().filter(|(_, active)| *active).map(|(name, _)| name.clone()));
    let (databases, answering) =
        active.map_or_else(|| (vec![Database::system()], false), |active| (active.collect(), true));
    Some(Watch::begin(runner, &databases, &[Way::open(key)], answering))
}

/// The version of the media, once it was understood.
fn version(seen: &Observed) -> Result<Version, Error> {
    let media = seen.media.as_ref().and_then(|media| media.value.as_ref().ok());
    media.copied().ok_or_else(|| Error::Unclear("the version of the media".to_owned()))
}

/// A value for hdblcm: letters, digits and `. _ , / : = -`, and no option.
pub(super) fn word(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._,/:=-".contains(&byte);
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || !text.bytes().all(plain) {
        return Err("write letters, digits and . _ , / : = -".to_owned());
    }
    Ok(text.to_owned())
}
