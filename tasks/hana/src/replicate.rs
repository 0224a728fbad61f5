//! `enable`, `takeover` and `register`: a pair of systems that replicate, and which of them rules.
//!
//! SAP's own takeover does not ask whether the former primary rules on: two primaries can be made. So this one asks the
//! primary itself, by a key of the user store that leads there, and has it suspended; only an operator can say that it is
//! lost. What cannot be told is no permission.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::Run;
use crate::call::{As, Call, Input};
use crate::downtime::{Watch, Way};
use crate::error::{Error, quoted};
use crate::neighbours::catalog::{
    self, DATABASES, Database, ENTRIES, Follower, IDENTITY, Identity, SECONDARIES,
};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media;
use crate::neighbours::nsutil::{self, Exit, Mode, Role, Site};
use crate::neighbours::sapcontrol;
use crate::neighbours::scripts::{self, Replication};
use crate::notes::Note;
use crate::parts::{Files, Parts};
use crate::proof::proof;
use crate::runner::{Outcome, Runner};
use crate::secret::Secrets;
use crate::system::Version;

/// How often a state is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a database may take to answer once this host rules.
const BACK: Duration = Duration::from_secs(60);
/// Where a program of the host's administrator may stand that moves the address of the database.
const HOOK: &str = "/etc/hostler/hana.d/move-address";

/// What stands between this secondary and a takeover. Pure.
pub fn forbids_takeover(followers: &[Follower], host: &str) -> Option<String> {
    let mine = || followers.iter().filter(|follower| follower.host == host);
    if mine().next().is_none() {
        return Some(format!("the primary knows no secondary on the host {host}"));
    }
    let behind = mine().find(|follower| !follower.active || !follower.recoverable);
    behind.map(|follower| {
        let what = if follower.active { "not fully recoverable" } else { "not active" };
        format!("{} on {host} is {what}: wait until the replication is active", follower.database.as_str())
    })
}

/// How the former primary is dealt with.
#[derive(Clone, Debug)]
pub enum Former {
    /// It is asked and suspended, by this key.
    Suspend(Key),
    /// The operator says that it is down or cut off, and that what it did not send is lost.
    Lost,
}

#[derive(Serialize, Deserialize)]
struct Begun {
    suspend: bool,
}

/// A pair, seen from one of its hosts.
pub struct Pair<'a> {
    runner: &'a Runner,
    /// Name of this host, as HANA knows it.
    host: String,
}

impl<'a> Pair<'a> {
    /// The pair that this host belongs to.
    pub fn new(runner: &'a Runner, host: String) -> Self {
        Self { runner, host }
    }

    fn state(&self) -> Result<nsutil::State, Error> {
        let outcome = self.runner.run(&nsutil::state_call(self.runner.system()))?;
        Ok(nsutil::state(outcome.code()?, &outcome.out)?)
    }

    fn processes(&self) -> Result<sapcontrol::State, Error> {
        let outcome = self.runner.run(&sapcontrol::process_list(self.runner.system()))?;
        Ok(sapcontrol::state(outcome.code()?.into(), &outcome.out)?)
    }

    /// How far the secondaries are; asked on the primary.
    fn secondaries(&self) -> Result<Replication, Error> {
        let outcome = self.runner.run(&scripts::replication_status(self.runner.system()))?;
        Ok(scripts::replication(outcome.code()?, &outcome.out)?)
    }

    /// Makes the running system a primary; nothing where it is one already.
    pub fn enable(&self, site: &Site) -> Result<(), Error> {
        match self.state()? {
            nsutil::State { role: Role::Primary, site: Some(named), .. } if named == site.as_str() => {
                return Ok(());
            }
            nsutil::State { role: Role::None, .. } => {}
            other => return Err(Error::Refused(format!("this system is {:?} already", other.role))),
        }
        let outcome = self.runner.run(&nsutil::enable(self.runner.system(), site))?;
        done("hdbnsutil -sr_enable", &outcome)
    }

    /// Waits until every secondary of this primary follows.
    pub fn wait_active(&self, patience: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            match self.secondaries() {
                Ok(Replication::Active) => return Ok(()),
                Ok(status) if begun.elapsed() >= patience => {
                    return Err(Error::No(format!("the replication is {status:?} and not active")));
                }
                Err(error) if begun.elapsed() >= patience => return Err(error),
                Ok(_) => {}
                // A moment in which nothing is understood passes, but for a signal.
                Err(error @ Error::Stopped(_)) => return Err(error),
                Err(_) => {}
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether this host rules.
    pub fn rules(&self) -> Result<bool, Error> {
        Ok(self.state()?.role == Role::Primary)
    }

    /// Whether that run has begun a takeover here.
    pub fn has_begun(&self, run: &Run) -> Result<bool, Error> {
        Ok(Note::of(self.runner.system(), run, "takeover").read::<Begun>()?.is_some())
    }

    /// Watches the databases of the pair while this host takes over. With a program that moves the address, their users
    /// come to this host when it has ended.
    fn watch(&self, own: &Key, former: &Former, begun: bool) -> (Watch, Arc<AtomicBool>) {
        let system = self.runner.system();
        let way = Way::open(own);
        let here = Arc::clone(&way.open);
        here.store(!system.at(HOOK).exists(), Ordering::SeqCst);
        let known = match former {
            Former::Suspend(key) if !begun => self
                .runner
                .rows(&catalog::databases(system, key), &DATABASES)
                .and_then(|rows| Ok(catalog::read_databases(&rows)?))
                .ok()
                .map(|known| (key, known)),
            Former::Suspend(_) | Former::Lost => None,
        };
        let watch = match known {
            Some((key, known)) => {
                let active = known.into_iter().filter(|(_, active)| *active);
                let active: Vec<_> = active.map(|(name, _)| name).collect();
                Watch::begin(self.runner, &active, &[Way::open(key), way], true)
            }
            None => Watch::begin(self.runner, &[Database::system()], &[way], false),
        };
        (watch, here)
    }

    /// Ends what that run has begun here; what it has not begun is not begun. It may be repeated.
    pub fn finish_takeover(&self, run: &Run) -> Result<(), Error> {
        let note = Note::of(self.runner.system(), run, "takeover");
        let Some(Begun { suspend }) = note.read()? else { return Ok(()) };
        if !self.rules()? {
            if !suspend {
                self.move_address()?;
            }
            done(
                "hdbnsutil -sr_takeover",
                &self.runner.run(&nsutil::takeover(self.runner.system(), suspend))?,
            )?;
        }
        self.move_address()
    }

    /// Makes this secondary the primary. A repetition of a run that has begun goes on: its primary may be suspended.
    ///
    /// `age`: how old the backups of the primary may be.
    pub fn takeover(&self, run: &Run, former: &Former, own: &Key, age: Duration) -> Result<(), Error> {
        self.hook()?;
        let note = Note::of(self.runner.system(), run, "takeover");
        let begun: Option<Begun> = note.read()?;
        match (self.state()?.role, &begun) {
            (Role::Secondary(_), Some(_)) => {}
            (Role::Secondary(_), None) => self.may_take_over(former, age)?,
            // What this run has begun has come to its end, or nothing was to be done.
            (Role::Primary, _) => return self.move_address(),
            (Role::None, _) => {
                return Err(Error::Refused("this system is no secondary of a replication".to_owned()));
            }
        }
        let suspend = matches!(former, Former::Suspend(_));
        let (watch, here) = self.watch(own, former, begun.is_some());
        note.write(&Begun { suspend })?;
        if !suspend {
            // A primary that is lost may live on behind its address: its users leave it before this host rules.
            self.move_address()?;
            here.store(true, Ordering::SeqCst);
        }
        let outcome = self.runner.run(&nsutil::takeover(self.runner.system(), suspend))?;
        // What it prints decides nothing, and an end that is not documented is no failure yet.
        match (done("hdbnsutil -sr_takeover", &outcome), self.state()?.role) {
            (Ok(()), Role::Primary) => {
                // The suspension is an option of the takeover itself: before it the primary serves, behind it this host.
                if suspend {
                    self.move_address()?;
                }
                here.store(true, Ordering::SeqCst);
                watch.end(BACK)
            }
            (Ok(()), role) => {
                Err(Error::Unclear(format!("the takeover ended well, and this system is {role:?}")))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn may_take_over(&self, former: &Former, age: Duration) -> Result<(), Error> {
        let Former::Suspend(key) = former else { return Ok(()) };
        let system = self.runner.system();
        let primary = self.identity(key)?;
        let own = self.version()?;
        if primary.version > own {
            return Err(Error::Refused(format!(
                "the primary is in {} and this secondary in {own}: it cannot take over",
                primary.version
            )));
        }
        let followers =
            catalog::read_secondaries(&self.runner.rows(&catalog::secondaries(system, key), &SECONDARIES)?)?;
        match forbids_takeover(&followers, &self.host) {
            Some(why) => Err(Error::Refused(why)),
            None if age.is_zero() => Ok(()),
            None => self.proved(key, age),
        }
    }

    /// Whether the primary has a proof of a backup. Its files are on the other host; Backint is asked on this one,
    /// which will need it.
    fn proved(&self, key: &Key, age: Duration) -> Result<(), Error> {
        let (system, now) = (self.runner.system(), Timestamp::now());
        let known =
            catalog::read_databases(&self.runner.rows(&catalog::databases(system, key), &DATABASES)?)?;
        let since = now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        let entries = catalog::entries(system, key, since, now);
        let entries = catalog::read_entries(&self.runner.rows(&entries, &ENTRIES)?)?;
        for (database, _) in known.iter().filter(|(_, active)| *active) {
            let name = database.as_str();
            let fix = format!(
                "place the order {{task: hana-backup, params: {{sid: {}, databases: [{name}]}}}} on the primary first, or \
                 say require_backup: 0s",
                system.sid
            );
            let data = proof(database, &entries, now, age)
                .map_err(|lack| Error::Refused(format!("{name}: {lack}; {fix}")))?;
            let lacks = Parts::new(self.runner, key).lacks(data, now, Files::Elsewhere)?;
            if let Some(first) = lacks.first() {
                return Err(Error::Refused(format!(
                    "{name}: {} parts of its backup are missing, the first is {first}; {fix}",
                    lacks.len()
                )));
            }
        }
        Ok(())
    }

    /// Which system answers behind a key; it must be this one's partner.
    fn identity(&self, key: &Key) -> Result<Identity, Error> {
        let system = self.runner.system();
        let identity =
            catalog::read_identity(&self.runner.rows(&catalog::identity(system, key), &IDENTITY)?)?;
        if identity.sid != system.sid.as_str() || identity.host == self.host {
            return Err(Error::Refused(format!(
                "behind the key {} is {} on {}, and not the other host of {}",
                key.as_str(),
                identity.sid,
                identity.host,
                system.sid
            )));
        }
        Ok(identity)
    }

    fn version(&self) -> Result<Version, Error> {
        let system = self.runner.system();
        let place = system.at(system.manifest());
        media::version_at(&place)?.ok_or_else(|| Error::Unclear(format!("{} is not there", place.display())))
    }

    /// Whether the administrator has a program that moves the address; one that others can write is refused.
    fn hook(&self) -> Result<bool, Error> {
        let place = self.runner.system().at(HOOK);
        let there = match fs::metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there.map_err(Error::local(place.display()))?,
        };
        if there.uid() != 0 || there.mode() & 0o022 != 0 {
            return Err(Error::Refused(format!(
                "{} must be of root and writable by nobody else",
                place.display()
            )));
        }
        Ok(true)
    }

    /// Moves the address by the administrator's program, where there is one. It is repeatable by contract.
    fn move_address(&self) -> Result<(), Error> {
        if !self.hook()? {
            return Ok(());
        }
        let system = self.runner.system();
        let outcome = self.runner.run(&move_address(system.sid.as_str(), &self.host))?;
        match outcome.code()? {
            0 => Ok(()),
            code => Err(Error::Tool(format!(
                "{HOOK} ended with {code}: {}; repeat it",
                quoted(outcome.err.trim())
            ))),
        }
    }

    /// Makes this system a secondary of the host behind the key, and starts it.
    pub fn register(&self, secrets: &Secrets, key: &Key, site: &Site, mode: Mode) -> Result<(), Error> {
        let state = self.state()?;
        let primary = self.identity(key)?;
        let follows =
            matches!(state.role, Role::Secondary(_)) && state.site.as_deref() == Some(site.as_str());
        let known = catalog::secondaries(self.runner.system(), key);
        let known = catalog::read_secondaries(&self.runner.rows(&known, &SECONDARIES)?)?;
        // Only the primary can say that it takes part: what stands on this host may be of a former life.
        if !(follows && known.iter().any(|follower| follower.host == self.host)) {
            if self.version()? < primary.version {
                return Err(Error::Refused(format!(
                    "the primary is in {}, which is newer than this system: update this one first",
                    primary.version
                )));
            }
            let rules = state.role == Role::Primary && state.suspended != Some(true);
            if rules && self.processes()? != sapcontrol::State::Stopped {
                return Err(Error::Refused(
                    "this system runs as a primary that is not suspended: if the other host rules, stop this one first"
                        .to_owned(),
                ));
            }
            self.stop()?;
            self.enroll(secrets, &primary, site, mode)?;
        }
        self.start()
    }

    fn stop(&self) -> Result<(), Error> {
        if self.processes()? == sapcontrol::State::Stopped {
            return Ok(());
        }
        let outcome = self.runner.run(&sapcontrol::stop(self.runner.system()))?;
        match sapcontrol::waited(outcome.code()?.into(), &outcome.out)? {
            true => Ok(()),
            false => Err(Error::Tool("the system did not stop in time; it is not registered".to_owned())),
        }
    }

    fn start(&self) -> Result<(), Error> {
        if matches!(self.processes()?, sapcontrol::State::Running(_)) {
            return Ok(());
        }
        let outcome = self.runner.run(&sapcontrol::start(self.runner.system()))?;
        match sapcontrol::waited(outcome.code()?.into(), &outcome.out)? {
            true => Ok(()),
            false => Err(Error::Tool(
                "not all processes came up in time: look at sapcontrol GetProcessList".to_owned(),
            )),
        }
    }

    fn enroll(&self, secrets: &Secrets, primary: &Identity, site: &Site, mode: Mode) -> Result<(), Error> {
        let system = self.runner.system();
        let call = nsutil::register(system, site, &primary.host, mode);
        let mut outcome = self.runner.run(&call)?;
        if Exit::from(outcome.code()?) == Exit::SecureStoreDiffers {
            self.copy_secure_store(secrets)?;
            outcome = self.runner.run(&call)?;
        }
        done("hdbnsutil -sr_register", &outcome)
    }

    /// Puts the primary's secure store here, from two secrets in Base64; what was there stays beside it.
    fn copy_secure_store(&self, secrets: &Secrets) -> Result<(), Error> {
        let system = self.runner.system();
        let sid = &system.sid;
        let folder = PathBuf::from(format!("/usr/sap/{sid}/SYS/global/security/rsecssfs"));
        for (secret, file) in
            [("ssfs_data", format!("data/SSFS_{sid}.DAT")), ("ssfs_key", format!("key/SSFS_{sid}.KEY"))]
        {
            let bytes = secrets.bytes(secret).map_err(|error| match error {
                Error::Config(why) | Error::Local(why) => Error::Refused(format!(
                    "the secure store is not that of the primary, and cannot be copied: {why}"
                )),
                other => other,
            })?;
            let place = system.at(folder.join(file));
            replace(&place, &bytes).map_err(Error::local(place.display()))?;
        }
        Ok(())
    }
}

/// Replaces a file durably, with its owner and mode; the former one is kept under `.before-hostler`.
fn replace(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = |more: &str| {
        let mut name = place.as_os_str().to_owned();
        name.push(more);
        PathBuf::from(name)
    };
    let there = fs::metadata(place)?;
    let kept = beside(".before-hostler");
    if !kept.exists() {
        fs::hard_link(place, &kept)?;
    }
    let new = beside(".new");
    let mut file = File::create(&new)?;
    file.set_permissions(fs::Permissions::from_mode(there.mode() & 0o777))?;
    chown(&new, Some(there.uid()), Some(there.gid()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, place)?;
    place.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The administrator's program that moves the address of the database to this host.
pub fn move_address(sid: &str, host: &str) -> Call {
    Call {
        purpose: "move the address of the database, where the host has a program for it",
        source: "docs/hana.md",
        user: As::Myself,
        program: HOOK.into(),
        arguments: vec![sid.to_owned(), host.to_owned()],
        input: Input::Nothing,
        timeout: Duration::from_secs(300),
    }
}

/// Judges the end of a command that changes a replication.
fn done(name: &str, outcome: &Outcome) -> Result<(), Error> {
    let printed = || {
        let text = if outcome.out.trim().is_empty() { &outcome.err } else { &outcome.out };
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        quoted(&lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join(" | "))
    };
    match Exit::from(outcome.code()?) {
        Exit::Done => Ok(()),
        Exit::Failed => Err(Error::Tool(format!("{name} failed: {}", printed()))),
        Exit::SecureStoreDiffers => {
            Err(Error::Refused(format!("{name}: the secure store is not that of the primary")))
        }
        Exit::Undocumented(code) => {
            Err(Error::Unclear(format!("{name} ended with {code}, which is not documented: {}", printed())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(host: &str, active: bool, recoverable: bool) -> Follower {
        Follower { database: "HDB".parse().unwrap(), host: host.to_owned(), active, recoverable }
    }

    #[test]
    fn every_service_of_this_host_must_follow() {
        let cases: &[(&[Follower], bool)] = &[
            (&[], false),
            (&[follower("west1", true, true)], true),
            (&[follower("west1", true, true), follower("west1", true, false)], false),
            (&[follower("west1", true, true), follower("west1", false, true)], false),
            (&[follower("west2", true, true)], false),
            // Another secondary that is behind holds nobody up.
            (&[follower("west1", true, true), follower("west2", false, false)], true),
        ];
        for (followers, may) in cases {
            assert_eq!(forbids_takeover(followers, "west1").is_none(), *may, "{followers:?}");
        }
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_former_self() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("SSFS_HDB.KEY");
        fs::write(&place, "old").unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&place, b"new").unwrap();
        replace(&place, b"newer").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"newer");
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read(folder.path().join("SSFS_HDB.KEY.before-hostler")).unwrap(), b"old");
    }
}
