//! What the observations mean for the change that comes next. Pure.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::{Before, Finding, Seen, Weight};
use crate::neighbours::catalog::{Database, Entry, Kind, State};
use crate::neighbours::hdblcm::{Listed, Unfinished};
use crate::neighbours::host::{Instance, ports};
use crate::neighbours::nsutil::{self, Role};
use crate::neighbours::sapcontrol::{self, Light};
use crate::neighbours::scripts::{Landscape, Replication};
use crate::proof::proof;
use crate::system::{Number, Sid, Version};

/// Above this part of a disk nothing is begun. Source: hanacleaner refuses there too.
pub const FULL: u64 = 98;
const NEARLY_FULL: u64 = 90;

/// What was seen. `None`: it was not asked, because there is no system, or no media was named.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The system.
    pub sid: Sid,
    /// Its number.
    pub number: Number,
    /// When it was seen.
    pub now: Timestamp,
    /// Bytes of memory.
    pub memory: Seen<u64>,
    /// The choice of transparent huge pages.
    pub huge_pages: Seen<String>,
    /// Whether the clock is synchronized.
    pub clock: Seen<bool>,
    /// Addresses of this host's name.
    pub addresses: Seen<Vec<IpAddr>>,
    /// Ports that are in use.
    pub ports: Seen<Vec<u16>>,
    /// Disks: a folder, and how many percent are used.
    pub disks: Vec<(String, Seen<u64>)>,
    /// Number of the user `<sid>adm`; `None` inside: no such user.
    pub user: Seen<Option<u32>>,
    /// Every hdblcm that is at work on this host.
    pub hdblcm: Seen<Vec<String>>,
    /// Whether Pacemaker runs.
    pub pacemaker: Seen<bool>,
    /// Folders of the system that are not empty.
    pub folders: Seen<Vec<String>>,
    /// What hdblcm left unfinished.
    pub unfinished: Seen<Option<Unfinished>>,
    /// What SAP's host agent lists; `None` inside: no host agent.
    pub instances: Seen<Option<Vec<Instance>>>,
    /// The installed version; `None` inside: not installed.
    pub installed: Seen<Option<Version>>,
    /// The version of the media.
    pub media: Option<Seen<Version>>,
    /// Whether the media has its signature.
    pub signature: Option<Seen<bool>>,
    /// What the resident hdblcm lists.
    pub listed: Option<Seen<Vec<Listed>>>,
    /// The processes.
    pub processes: Option<Seen<sapcontrol::State>>,
    /// The part in a replication.
    pub replication: Option<Seen<nsutil::State>>,
    /// How far the secondaries are; asked on a primary only.
    pub secondaries: Option<Seen<Replication>>,
    /// The hosts of the system.
    pub landscape: Option<Seen<Landscape>>,
    /// The databases, and whether each is active.
    pub databases: Option<Seen<Vec<(Database, bool)>>>,
    /// The newest entries of the backup catalog.
    pub backups: Option<Seen<Vec<Entry>>>,
    /// Whether the license is valid.
    pub license: Option<Seen<bool>>,
    /// What the newest backup of each database lacks to be restored; of those alone that were looked for.
    pub kept: Vec<(Database, Seen<Vec<String>>)>,
}

/// How a value is judged: weight, what it means, what to do.
type Verdict = (Weight, String, String);

fn fine(understood: impl Into<String>) -> Verdict {
    (Weight::Fine, understood.into(), String::new())
}

fn warns(understood: impl Into<String>, fix: &str) -> Verdict {
    (Weight::Warns, understood.into(), fix.to_owned())
}

struct Judge {
    before: Option<Before>,
    findings: Vec<Finding>,
}

impl Judge {
    fn is(&self, changes: &[Before]) -> bool {
        self.before.is_some_and(|before| changes.contains(&before))
    }

    /// A finding that forbids these changes, and is worth a look before others.
    fn forbids(&self, changes: &[Before], understood: impl Into<String>, fix: &str) -> Verdict {
        let weight = if self.is(changes) { Weight::Forbids } else { Weight::Warns };
        (weight, understood.into(), fix.to_owned())
    }

    fn add(&mut self, subject: &str, raw: &str, (weight, understood, fix): Verdict) {
        self.findings.push(Finding {
            weight,
            subject: subject.to_owned(),
            understood,
            raw: raw.to_owned(),
            fix,
        });
    }

    /// Judges what was seen; `needed`: the changes that must know it.
    fn look<T>(
        &mut self,
        subject: &str,
        seen: &Seen<T>,
        needed: &[Before],
        judge: impl FnOnce(&Self, &T) -> Verdict,
    ) {
        let verdict = match &seen.value {
            Ok(value) => judge(self, value),
            Err(why) => {
                let weight = if self.is(needed) { Weight::Unclear } else { Weight::Unknown };
                (
                    weight,
                    why.clone(),
                    "compare the raw line with the program's documentation on this host".to_owned(),
                )
            }
        };
        self.add(subject, &seen.raw, verdict);
    }
}

const ALL: [Before; 4] = [Before::Install, Before::Update, Before::Takeover, Before::Restore];
const CHANGES: [Before; 3] = [Before::Update, Before::Takeover, Before::Restore];

/// Judges everything; the worst comes first. `age`: how old the newest complete backup of a database may be.
/// `maintained`: the operator says that the cluster is in maintenance.
pub fn judge(seen: &Observed, before: Option<Before>, age: Duration, maintained: bool) -> Vec<Finding> {
    let mut judge = Judge { before, findings: Vec::new() };
    host(&mut judge, seen);
    others(&mut judge, seen, maintained);
    presence(&mut judge, seen);
    media(&mut judge, seen);
    system(&mut judge, seen);
    backups(&mut judge, seen, age);
    judge.findings.sort_by_key(|finding| finding.weight);
    judge.findings
}

fn host(judge: &mut Judge, seen: &Observed) {
    judge.look("memory", &seen.memory, &[], |_, bytes| fine(format!("{} GiB", bytes >> 30)));
    judge.look("huge pages", &seen.huge_pages, &[], |_, choice| match choice.as_str() {
        "always" => {
            warns("transparent huge pages are always on", "apply the tuned profile sap-hana, or set `never`")
        }
        choice => fine(format!("transparent huge pages: {choice}")),
    });
    judge.look("clock", &seen.clock, &[], |_, synchronized| {
        if *synchronized {
            fine("synchronized")
        } else {
            warns("not synchronized", "configure chrony or systemd-timesyncd")
        }
    });
    judge.look("host name", &seen.addresses, &[Before::Install], |judge, addresses| {
        let fix = "give the name of this host its own address in DNS or /etc/hosts";
        match addresses.iter().find(|address| !address.is_loopback()) {
            Some(address) => fine(format!("resolves to {address}")),
            None if addresses.is_empty() => judge.forbids(&[Before::Install], "does not resolve", fix),
            None => judge.forbids(&[Before::Install], "resolves to the loopback address only", fix),
        }
    });
    let number = seen.number;
    judge.look("ports", &seen.ports, &[Before::Install], |judge, used| {
        let taken: Vec<_> = ports(number)
            .into_iter()
            .filter(|port| used.contains(port))
            .map(|port| port.to_string())
            .collect();
        match (taken.is_empty(), judge.is(&[Before::Install])) {
            (true, _) => fine(format!("no port of instance {number} is in use")),
            (false, true) => judge.forbids(
                &[Before::Install],
                format!("in use: {}", taken.join(", ")),
                "choose another instance number, or stop what listens there",
            ),
            (false, false) => fine(format!("in use: {}", taken.join(", "))),
        }
    });
    for (folder, used) in &seen.disks {
        judge.look(&format!("disk {folder}"), used, &ALL, |judge, percent| match *percent {
            percent if percent >= FULL => {
                judge.forbids(&ALL, format!("{percent} % used"), "free space first")
            }
            percent if percent >= NEARLY_FULL => warns(format!("{percent} % used"), "free space soon"),
            percent => fine(format!("{percent} % used")),
        });
    }
}

fn others(judge: &mut Judge, seen: &Observed, maintained: bool) {
    judge.look("other hdblcm", &seen.hdblcm, &ALL, |judge, working| match working.first() {
        None => fine("none is at work"),
        Some(first) => judge.forbids(&ALL, format!("at work: {first}"), "wait for its end"),
    });
    judge.look("unfinished hdblcm", &seen.unfinished, &ALL, |judge, unfinished| match unfinished {
        None => fine("nothing is unfinished"),
        Some(Unfinished::Installation) => judge.forbids(
            &ALL,
            "an installation did not come to its end",
            "read its log in /var/tmp; finish it with hdblcm of the same media, or uninstall",
        ),
        Some(Unfinished::Update) => judge.forbids(
            &[Before::Install, Before::Takeover, Before::Restore],
            "an update is prepared or did not come to its end; the next one goes on from there",
            "finish the update first",
        ),
    });
    judge.look("Pacemaker", &seen.pacemaker, &CHANGES, |judge, runs| match (runs, maintained) {
        (false, _) => fine("does not run"),
        (true, true) => warns("runs; you say that it is in maintenance", "end the maintenance afterwards"),
        (true, false) => judge.forbids(
            &CHANGES,
            "runs, and would act against the change",
            "put the cluster's resources in maintenance, then say --cluster-in-maintenance",
        ),
    });
}

/// Whether something of the system is here. A new installation wants nothing, all else wants all of it.
fn presence(judge: &mut Judge, seen: &Observed) {
    let (sid, number) = (&seen.sid, seen.number);
    judge.look("installed version", &seen.installed, &ALL, |judge, version| match version {
        Some(version) => {
            judge.verdict_of_presence(format!("{sid} {version} is installed"), "choose another SID")
        }
        None => judge
            .forbids(&CHANGES, format!("{sid} is not installed here"), "run this on the host of the system")
            .unless(judge.before.is_none_or(|before| before == Before::Install)),
    });
    judge.look("user", &seen.user, &[Before::Install], |judge, uid| match uid {
        Some(uid) => judge.verdict_of_presence(
            format!("{}adm exists, number {uid}", sid.as_str().to_ascii_lowercase()),
            "remove the user, or what is left of an old installation",
        ),
        None => fine("no user of this system"),
    });
    judge.look("folders", &seen.folders, &[Before::Install], |judge, folders| match folders.as_slice() {
        [] => fine("no folder of this system"),
        folders => judge.verdict_of_presence(
            format!("not empty: {}", folders.join(", ")),
            "look at what is there; a failed installation is removed with its resident hdblcm",
        ),
    });
    judge.look("host agent", &seen.instances, &[Before::Install], |judge, instances| {
        let Some(instances) = instances else { return fine("no SAP host agent is installed") };
        let mine = instances.iter().find(|one| one.is_of(sid) || u16::from(one.number) == number.get());
        match mine {
            None => fine(format!("lists {} instances, none of them {sid} or {number}", instances.len())),
            Some(one) if judge.is(&[Before::Install]) => judge.forbids(
                &[Before::Install],
                // It lists an installation that failed half-way too, so this does not say that the system works.
                format!("lists {} {:02}, which may also be a half-failed installation", one.sid, one.number),
                "look at what is there, or choose another SID and number",
            ),
            Some(one) => fine(format!("lists {} {:02}", one.sid, one.number)),
        }
    });
}

impl Judge {
    fn verdict_of_presence(&self, understood: String, fix: &str) -> Verdict {
        if self.is(&[Before::Install]) {
            self.forbids(&[Before::Install], understood, fix)
        } else {
            fine(understood)
        }
    }
}

trait Unless {
    fn unless(self, it_is_fine: bool) -> Self;
}

impl Unless for Verdict {
    fn unless(self, it_is_fine: bool) -> Self {
        if it_is_fine { fine(self.1) } else { self }
    }
}

fn media(judge: &mut Judge, seen: &Observed) {
    const NEEDED: [Before; 2] = [Before::Install, Before::Update];
    let installed = seen.installed.value.as_ref().ok().copied().flatten();
    let Some(media) = &seen.media else {
        if judge.is(&NEEDED) {
            judge.add("media", "", warns("no media was named", "say --media FOLDER to have it looked at"));
        }
        return;
    };
    judge.look("media", media, &NEEDED, |judge, version| match installed {
        Some(installed) if *version < installed => judge.forbids(
            &[Before::Update],
            format!("{version} is older than the installed {installed}"),
            "HANA has no downgrade: take newer media",
        ),
        Some(installed) if *version == installed => {
            warns(format!("{version} is installed already"), "nothing is to do")
        }
        _ => fine(version.to_string()),
    });
    if let Some(signature) = &seen.signature {
        judge.look("media signature", signature, &NEEDED, |judge, there| {
            if *there {
                return fine("the file is there; hdblcm verifies it");
            }
            judge.forbids(
                &NEEDED,
                "SIGNATURE.SMF is missing, so hdblcm --verify_signature would fail",
                "extract with SAPCAR -manifest SIGNATURE.SMF and move the file into SAP_HANA_DATABASE",
            )
        });
    }
}

fn system(judge: &mut Judge, seen: &Observed) {
    let installed = seen.installed.value.as_ref().ok().copied().flatten();
    if let Some(listed) = &seen.listed {
        judge.look("hdblcm list", listed, &[], |_, systems| {
            let mine = systems.iter().find(|listed| listed.sid == seen.sid);
            match (mine, installed) {
                (Some(listed), Some(installed)) if listed.version == installed => {
                    fine(format!("lists {installed}"))
                }
                (Some(listed), _) => warns(
                    format!("lists {}, unlike the manifest", listed.version),
                    "an update may be half done",
                ),
                (None, _) => warns("does not list this system", "look at the installation"),
            }
        });
    }
    if let Some(processes) = &seen.processes {
        let needed = [Before::Update, Before::Takeover];
        judge.look("processes", processes, &needed, |judge, state| match state {
            sapcontrol::State::Running(processes) => fine(format!("all {} run", processes.len())),
            sapcontrol::State::Stopped => judge.forbids(&needed, "all are stopped", "start the system"),
            sapcontrol::State::Partly(processes) => {
                let late = processes.iter().find(|process| process.light != Light::Green);
                let late = late.map_or_else(String::new, |late| {
                    format!("{} is {:?} ({})", late.name, late.light, late.text)
                });
                judge.forbids(&needed, late, "wait, or look at the trace of this process")
            }
            sapcontrol::State::NoAnswer(reason) => judge.forbids(
                &needed,
                format!("sapstartsrv does not answer: {reason}"),
                "start the service of the instance",
            ),
        });
    }
    if let Some(landscape) = &seen.landscape {
        judge.look("hosts", landscape, &[], |judge, state| match state {
            Landscape::Ok | Landscape::Info => fine(format!("{state:?}")),
            Landscape::Warning => warns("an action such as a failover is going on", "wait for its end"),
            Landscape::Down | Landscape::Fatal => {
                judge.forbids(&[Before::Update], format!("{state:?}"), "bring the hosts up")
            }
        });
    }
    replication(judge, seen);
    if let Some(license) = &seen.license {
        judge.look("license", license, &[Before::Update], |judge, valid| {
            if *valid {
                fine("valid")
            } else {
                judge.forbids(&[Before::Update], "not valid", "install a valid license")
            }
        });
    }
}

fn replication(judge: &mut Judge, seen: &Observed) {
    let Some(state) = &seen.replication else { return };
    judge.look("replication", state, &[Before::Update, Before::Takeover], |judge, state| {
        let site = state.site.as_deref().unwrap_or("no site");
        match &state.role {
            Role::None => judge
                .forbids(&[Before::Takeover], "this system does not replicate", "run this on the secondary")
                .unless(!judge.is(&[Before::Takeover])),
            Role::Primary => judge
                .forbids(&[Before::Takeover], format!("primary, {site}"), "run this on the secondary")
                .unless(!judge.is(&[Before::Takeover])),
            Role::Secondary(_) if state.online == Some(false) => judge.forbids(
                &[Before::Takeover],
                format!("secondary, {site}, not online"),
                "start the secondary and wait until it follows",
            ),
            Role::Secondary(mode) if judge.is(&[Before::Restore]) => judge.forbids(
                &[Before::Restore],
                format!("secondary ({mode}), {site}"),
                "restore the primary; a secondary is filled by replication",
            ),
            Role::Secondary(mode) => fine(format!("secondary ({mode}), {site}")),
        }
    });
    let role = state.value.as_ref().ok().map(|state| &state.role);
    if matches!(role, Some(Role::Secondary(_))) && judge.is(&[Before::Takeover]) {
        let verdict = (
            Weight::Unclear,
            "how far this secondary is can be seen on the primary only".to_owned(),
            "run `hostler-hana check` on the primary: its secondaries must be active".to_owned(),
        );
        judge.add("takeover readiness", "", verdict);
    }
    let Some(secondaries) = &seen.secondaries else { return };
    judge.look("secondaries", secondaries, &[Before::Update], |judge, status| match status {
        Replication::None => fine("none"),
        status if judge.is(&[Before::Update]) => (
            Weight::Unclear,
            format!(
                "{status:?}; the version of a secondary cannot be seen from here, and it must not be older"
            ),
            "update the secondary first, take over, then update this system".to_owned(),
        ),
        Replication::Active => fine("all are active"),
        status => warns(format!("{status:?}"), "look at the replication before it is needed"),
    });
}

fn backups(judge: &mut Judge, seen: &Observed, age: Duration) {
    const NEEDED: [Before; 2] = [Before::Update, Before::Takeover];
    let (Some(databases), Some(backups)) = (&seen.databases, &seen.backups) else { return };
    // A secondary answers no SQL; its primary has the backups.
    judge.look("databases", databases, &NEEDED, |_, databases| {
        let active = databases.iter().filter(|(_, active)| *active).count();
        fine(format!("{} databases, {active} active", databases.len()))
    });
    judge.look("backup at work", backups, &CHANGES, |judge, entries| {
        let open =
            |entry: &&Entry| matches!(entry.state, State::Running | State::Prepared | State::CancelPending);
        // Log backups come and go all the time.
        match entries.iter().filter(|entry| entry.kind != Kind::Log).find(open) {
            None => fine("none"),
            Some(entry) => judge.forbids(
                &CHANGES,
                format!(
                    "{:?} of {} is {:?}, id {}",
                    entry.kind,
                    entry.database.as_str(),
                    entry.state,
                    entry.id
                ),
                "wait for its end; a prepared snapshot must be closed",
            ),
        }
    });
    let (Ok(databases), Ok(entries)) = (&databases.value, &backups.value) else { return };
    for (database, _) in databases.iter().filter(|(_, active)| *active) {
        let fix = fix(seen, database);
        let verdict = match proof(database, entries, seen.now, age) {
            Ok(entry) => {
                let hours = seen.now.duration_since(entry.begun).as_secs() / 3600;
                fine(format!("the newest complete one is {hours} h old"))
            }
            Err(lack) => judge.forbids(&NEEDED, lack.to_string(), &fix),
        };
        judge.add(&format!("backup of {}", database.as_str()), "", verdict);
    }
    for (database, lacks) in &seen.kept {
        judge.look(&format!("backup parts of {}", database.as_str()), lacks, &NEEDED, |judge, lacks| {
            match lacks.first() {
                None => fine("each part is there, and the log since has no gap"),
                Some(first) => judge.forbids(
                    &NEEDED,
                    format!("{} parts are missing or damaged, the first is {first}", lacks.len()),
                    &fix(seen, database),
                ),
            }
        });
    }
}

/// The order that makes a backup of a database.
fn fix(seen: &Observed, database: &Database) -> String {
    let (sid, name) = (&seen.sid, database.as_str());
    format!("place the order {{task: hana-backup, params: {{sid: {sid}, databases: [{name}]}}}}")
}
