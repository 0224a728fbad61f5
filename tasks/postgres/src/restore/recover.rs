//! A server that recovers in a place of its own: nobody reaches it, and it reaches nobody.
//!
//! Everything that a production server's settings could make it do stands on the command line, which wins over every
//! file: it listens nowhere but in a private folder, archives nothing, follows no primary, subscribes to nothing, loads
//! no library, and answers nobody before its recovery has ended.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::choose::{Chosen, Target};
use crate::backup::record::{self, Backup};
use crate::depot::Depot;
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner, Served};
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session};
use crate::wal;

/// For a program that reads every byte.
const LONG: Duration = Duration::from_secs(72 * 3600);
/// For one that reads a page.
const QUICK: Duration = Duration::from_secs(60);
/// For a server's stop, with its last checkpoint.
const STOP: Duration = Duration::from_secs(3600);
/// How often is looked whether the recovery has ended.
const LOOK: Duration = Duration::from_millis(200);
/// How often is said how far it is.
const SAY: Duration = Duration::from_secs(10);
/// The longest path of a socket, in bytes.
const SOCKET: usize = 107;
/// The port by which the socket is named.
const PORT: u16 = 5432;

/// The place.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The folder of data.
    pub data: PathBuf,
    /// The folder of everything else: socket, log, configuration.
    pub work: PathBuf,
    /// Whom all of it belongs to.
    pub owner: Owner,
    /// Major version.
    pub version: u16,
}

/// What the server has said of its recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Where it stopped, if it was for a target.
    pub stopping: Option<String>,
    /// The time of the last transaction that it has replayed.
    pub last_commit: Option<String>,
    /// The last segment that it got from the archive.
    pub last_segment: Option<String>,
    /// How many segments it got.
    pub segments: u64,
    /// The timeline that it has begun.
    pub timeline: Option<u32>,
}

impl Scratch {
    /// As a cluster, for a session.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            version: self.version,
            name: "restored".to_owned(),
            port: PORT,
            configured: PORT,
            socket: self.work.join("run"),
            data: self.data.clone(),
            conf: self.work.clone(),
            running: true,
            owner: self.owner,
        }
    }

    fn folder(&self, path: &Path) -> Result<(), Error> {
        fs::create_dir_all(path).map_err(Error::local(path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(Error::local(path.display()))?;
        self.owner.give(path)
    }

    /// Makes the folders, and unpacks and verifies a backup: the last of these, which builds on those before it.
    ///
    /// # Errors
    /// If it cannot be read, or is not what its manifest says.
    pub async fn unpack(&self, depot: &Depot, chain: &[Backup]) -> Result<(), Error> {
        let run = self.work.join("run");
        if run.as_os_str().len() + "/.s.PGSQL.5432.lock".len() > SOCKET {
            return Err(Error::Refused(format!(
                "{} is too long a path for a socket: choose a shorter one",
                run.display()
            )));
        }
        for folder in [&self.work, &run, &self.data] {
            self.folder(folder)?;
        }
        let Some(backup) = chain.last() else { return Err(Error::Missing("no backup".to_owned())) };
        if let [one] = chain {
            self.unpack_one(depot, one, &self.data).await?;
        } else {
            self.combine(depot, chain).await?;
        }
        if wal::system(&self.data)? != backup.system {
            return Err(Error::Damaged(format!(
                "{} is of another system than its record says",
                backup.record.stamp
            )));
        }
        let spaces = self.data.join("pg_tblspc");
        if fs::read_dir(&spaces).map_err(Error::local(spaces.display()))?.next().is_some() {
            return Err(Error::Refused(
                "it has tablespaces, whose folders could be those of a living cluster".to_owned(),
            ));
        }
        Ok(())
    }

    /// Unpacks the files of one backup and compares them with their manifest.
    async fn unpack_one(&self, depot: &Depot, backup: &Backup, to: &Path) -> Result<(), Error> {
        let tar: Vec<OsString> = vec![
            "tar".into(),
            "--extract".into(),
            "--file=-".into(),
            "--same-permissions".into(),
            "-C".into(),
            to.into(),
        ];
        depot.feed(&record::name(&depot.place, "base", &backup.record.stamp), &tar).await?;
        report::message("comparing the files with their manifest");
        self.verify(to, &backup.record.stamp).await
    }

    async fn verify(&self, folder: &Path, what: &str) -> Result<(), Error> {
        // The WAL is not in it: the archive has it.
        let words: Vec<OsString> = vec!["--no-parse-wal".into(), "--quiet".into(), folder.into()];
        let program = layout::program(self.version, "pg_verifybackup");
        let verified = exec::run(Some(self.owner), &program, &words, LONG).await?;
        if verified.status == Some(0) {
            return Ok(());
        }
        Err(Error::Damaged(format!(
            "{what}: the files are not what their manifest says: {}",
            verified.complaint
        )))
    }

    /// Makes whole files of a backup and all that it builds on. The files of a link are never started.
    async fn combine(&self, depot: &Depot, chain: &[Backup]) -> Result<(), Error> {
        let mut links = Vec::new();
        for (at, backup) in chain.iter().enumerate() {
            let folder = self.work.join(format!("link-{at}"));
            self.folder(&folder)?;
            self.unpack_one(depot, backup, &folder).await?;
            links.push(folder);
        }
        report::message(&format!("combining {} backups", chain.len()));
        let mut words: Vec<OsString> = links.iter().map(OsString::from).collect();
        words.extend(["--output".into(), self.data.clone().into()]);
        let combined =
            exec::run(Some(self.owner), &layout::program(self.version, "pg_combinebackup"), &words, LONG)
                .await?;
        if combined.status != Some(0) {
            return Err(Error::Damaged(format!("the backups cannot be combined: {}", combined.complaint)));
        }
        for folder in &links {
            layout::remove_folder(folder)?;
        }
        self.verify(&self.data, "what was combined").await
    }

    /// Starts the server, with the recovery that is wanted, and with `more` settings, which win over all others.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(
        &self,
        depot: &Depot,
        chosen: &Chosen,
        more: &[(&str, &str)],
    ) -> Result<Served, Error> {
        for (name, text) in
            [("postgresql.conf", ""), ("pg_hba.conf", "local all postgres peer\n"), ("pg_ident.conf", "")]
        {
            durable::replace(&self.work.join(name), text, self.owner)?;
        }
        durable::replace(&self.data.join("recovery.signal"), "", self.owner)?;
        durable::remove(&self.data.join("standby.signal"))?;
        let mut settings = self.settings(depot, chosen)?;
        settings.extend(self.control().await?);
        settings.extend(more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let mut words: Vec<OsString> = vec!["-D".into(), self.data.clone().into()];
        for (name, value) in settings {
            words.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let program = layout::program(self.version, "postgres");
        exec::serve(self.owner, &program, &words, &self.log())
    }

    /// Where the server writes.
    fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    fn settings(&self, depot: &Depot, chosen: &Chosen) -> Result<Vec<(String, String)>, Error> {
        let ours = std::env::current_exe().map_err(Error::local("this program"))?;
        let words = depot.place.words();
        let fetch: Vec<String> = [ours.display().to_string(), "fetch".to_owned()]
            .into_iter()
            .chain(words)
            .map(|word| quoted(&word))
            .collect();
        let path = |name: &str| self.work.join(name).display().to_string();
        let target = match &chosen.target {
            Target::Latest => None,
            Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
            Target::Time(at) => {
                Some(("recovery_target_time", at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()))
            }
            Target::Name(point) => Some(("recovery_target_name", point.clone())),
            Target::Lsn(place) => Some(("recovery_target_lsn", place.to_string())),
        };
        let own = [
            ("config_file", path("postgresql.conf")),
            ("hba_file", path("pg_hba.conf")),
            ("ident_file", path("pg_ident.conf")),
            ("restore_command", format!("{} \"%f\" \"%p\"", fetch.join(" "))),
            ("recovery_target_timeline", chosen.way.timeline.to_string()),
        ];
        // The target comes last: one that is emptied after another is set counts as two.
        let own = own.into_iter().chain(target).map(|(name, value)| (name.to_owned(), value));
        Ok(self.private().chain(own).collect())
    }

    /// What keeps a server to its own folder, whatever the settings of its origin say.
    pub(crate) fn private(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let own = [
            ("unix_socket_directories", self.work.join("run").display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", PORT.to_string()),
        ];
        // Parameters that a primary may have raised meanwhile stop a recovery only where it answers queries.
        let fixed = [
            ("listen_addresses", ""),
            ("archive_mode", "off"),
            ("archive_command", ""),
            ("archive_cleanup_command", ""),
            ("recovery_end_command", ""),
            ("recovery_target", ""),
            ("recovery_target_lsn", ""),
            ("recovery_target_name", ""),
            ("recovery_target_time", ""),
            ("recovery_target_xid", ""),
            ("recovery_target_action", "promote"),
            ("recovery_target_inclusive", "on"),
            ("hot_standby", "off"),
            ("primary_conninfo", ""),
            ("primary_slot_name", ""),
            ("synchronous_standby_names", ""),
            ("max_logical_replication_workers", "0"),
            ("shared_preload_libraries", ""),
            ("session_preload_libraries", ""),
            ("local_preload_libraries", ""),
            ("external_pid_file", ""),
            ("cluster_name", ""),
            ("autovacuum", "off"),
            ("ssl", "off"),
            ("huge_pages", "off"),
            ("shared_buffers", "64MB"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_line_prefix", ""),
            ("log_min_messages", "log"),
            ("log_connections", "off"),
            ("lc_messages", "C"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("default_transaction_read_only", "off"),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        fixed.chain(own.into_iter().map(|(name, value)| (name.to_owned(), value)))
    }

    /// What the control file says that the old server was set to, and a recovery needs.
    pub(crate) async fn control(&self) -> Result<Vec<(String, String)>, Error> {
        let program = layout::program(self.version, "pg_controldata");
        let text = exec::succeed(Some(self.owner), &program, &[&self.data], QUICK).await?;
        let mut settings = Vec::new();
        for name in [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            "max_prepared_xacts",
            "max_locks_per_xact",
            "track_commit_timestamp",
        ] {
            let prefix = format!("{name} setting:");
            let value = text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim);
            let value =
                value.ok_or_else(|| Error::Program(format!("{} does not say {name}", program.display())))?;
            settings.push((
                name.replace("xacts", "transactions").replace("xact", "transaction"),
                value.to_owned(),
            ));
        }
        Ok(settings)
    }

    /// Waits until the recovery has ended and the server answers; what it has said, held against what was wanted.
    ///
    /// # Errors
    /// If the server ends, or has opened with less than was wanted.
    pub async fn recovered(&self, served: &mut Served, chosen: &Chosen) -> Result<Evidence, Error> {
        let cluster = self.cluster();
        let mut said = Instant::now();
        loop {
            if let Some(status) = served.ended()? {
                return Err(Error::Damaged(format!(
                    "the recovery has failed, {status}: {}",
                    self.complaints()?
                )));
            }
            if let Ok(session) = Session::open(&cluster, "postgres", Bounds::LOOK).await
                && !session.holds("select pg_is_in_recovery()").await?
            {
                break;
            }
            if said.elapsed() > SAY {
                said = Instant::now();
                if let Some(segment) = self.evidence()?.last_segment {
                    report::message(&format!("replaying {segment}"));
                }
            }
            sleep(LOOK).await;
        }
        let evidence = self.evidence()?;
        prove(&evidence, chosen)?;
        Ok(evidence)
    }

    fn lines(&self) -> Result<impl Iterator<Item = String>, Error> {
        let log = self.log();
        let file = fs::File::open(&log).map_err(Error::local(log.display()))?;
        Ok(BufReader::new(file).lines().map_while(Result::ok))
    }

    pub(crate) fn evidence(&self) -> Result<Evidence, Error> {
        Ok(read(self.lines()?))
    }

    /// The end of what the server complained of, on one line.
    pub(crate) fn complaints(&self) -> Result<String, Error> {
        let mut kept: Vec<String> = Vec::new();
        for line in self.lines()? {
            // Our own attempts to log in.
            if !line.contains("the database system is") && !line.starts_with("LOG:  restored log file") {
                kept.push(line);
                let surplus = kept.len().saturating_sub(8);
                kept.drain(..surplus);
            }
        }
        Ok(kept.join("; "))
    }

    /// Stops the server.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(&self, served: &mut Served, mode: &str) -> Result<(), Error> {
        let words: Vec<OsString> = vec![
            "--pgdata".into(),
            self.data.clone().into(),
            format!("--mode={mode}").into(),
            "--wait".into(),
            format!("--timeout={}", STOP.as_secs()).into(),
            "stop".into(),
        ];
        exec::succeed(Some(self.owner), &layout::program(self.version, "pg_ctl"), &words, STOP).await?;
        served.wait().await
    }
}

/// A word that a shell takes as it is, and in which the server finds nothing to replace.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''").replace('%', "%%"))
}

fn read(lines: impl Iterator<Item = String>) -> Evidence {
    let mut evidence = Evidence::default();
    for line in lines {
        let Some(text) = line.strip_prefix("LOG:  ") else { continue };
        if text.starts_with("recovery stopping ") {
            evidence.stopping = Some(text.to_owned());
        } else if let Some(time) = text.strip_prefix("last completed transaction was at log time ") {
            evidence.last_commit = Some(time.to_owned());
        } else if let Some(number) = text.strip_prefix("selected new timeline ID: ") {
            evidence.timeline = number.trim().parse().ok();
        } else if let Some(rest) = text.strip_prefix("restored log file \"") {
            let name = rest.split('"').next().unwrap_or_default();
            if !name.ends_with(".history") {
                evidence.segments += 1;
                evidence.last_segment = Some(name.to_owned());
            }
        }
    }
    evidence
}

/// Whether a recovery came to where it was to come. The server itself refuses to open before a target; without one it
/// opens at whatever it takes for the end.
fn prove(evidence: &Evidence, chosen: &Chosen) -> Result<(), Error> {
    if evidence.timeline.is_none() {
        return Err(Error::Unclear("the server has opened without a new timeline".to_owned()));
    }
    if chosen.target != Target::Latest {
        return match &evidence.stopping {
            Some(_) => Ok(()),
            None => Err(Error::Unclear("the server has opened and does not say where it stopped".to_owned())),
        };
    }
    let size = chosen.backup.size;
    let reached =
        evidence.last_segment.as_deref().and_then(|name| size.segment(name)).map(|segment| segment.number);
    if reached.is_none_or(|reached| reached < chosen.last.number) {
        let reached = evidence.last_segment.as_deref().unwrap_or("nothing");
        return Err(Error::Damaged(format!(
            "the server has opened after {reached}, and the archive goes on to {}: the WAL in between cannot be read",
            size.name(chosen.last)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Evidence, quoted, read};

    #[test]
    fn what_a_server_says_of_its_recovery_is_read() {
        let log = "LOG:  restored log file \"00000002.history\" from archive\n\
            LOG:  restored log file \"000000010000000000000003\" from archive\n\
            FATAL:  the database system is starting up\n\
            LOG:  recovery stopping before commit of transaction 740, time 2026-11-29 04:00:00.1+00\n\
            LOG:  last completed transaction was at log time 2026-11-29 03:59:59+00\n\
            LOG:  selected new timeline ID: 3";
        let evidence = read(log.lines().map(str::to_owned));
        assert_eq!(
            evidence,
            Evidence {
                stopping: Some(
                    "recovery stopping before commit of transaction 740, time 2026-11-29 04:00:00.1+00"
                        .to_owned()
                ),
                last_commit: Some("2026-11-29 03:59:59+00".to_owned()),
                last_segment: Some("000000010000000000000003".to_owned()),
                segments: 1,
                timeline: Some(3),
            }
        );
    }

    #[test]
    fn a_word_of_a_command_stays_one() {
        assert_eq!(quoted("/a b/100%'s"), r"'/a b/100%%'\''s'");
    }
}
