//! `fact`: what the fleet shows of a system. What cannot be told is left out, and `unclear` says why.
//!
//! Nothing here waits for long: each question has [`EACH`], all of them together [`ALL`], and what has not answered by
//! then cannot be told.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::check::{Glance, Seen, glance};
use crate::error::Error;
use crate::neighbours::catalog::{Entry, Kind, State};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::nsutil::Role;
use crate::neighbours::sapcontrol;
use crate::neighbours::scripts::Replication;
use crate::runner::Runner;
use crate::system::{Number, Sid, Version};

/// How long one question may take, and all of them together. The agent waits 10 s for a fact.
const EACH: Duration = Duration::from_secs(4);
const ALL: Duration = Duration::from_secs(8);
/// How much later than that its answer is still taken: its last question ends with the time.
const LATE: Duration = Duration::from_millis(500);
/// Bytes of a fact of the agent.
const MOST: usize = 4096;
/// Most characters of a reason.
const MAX_REASON: usize = 160;
/// With more than this a system's tenants are left out, where the fact has no room.
const MANY_TENANTS: usize = 10;
/// How far back the catalog is read: what is older is no protection.
const BACK: Duration = Duration::from_secs(35 * 24 * 3600);

/// The fact of one system.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Its name.
    pub sid: String,
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<Number>,
    /// Whether it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<bool>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Whether all processes run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// none, primary or secondary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Name of its site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// On a primary: how far its secondaries are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// Its active databases beside SYSTEMDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
    /// When the oldest of the newest complete backups of all active databases began; `null`: a database has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Option<Timestamp>>,
    /// What cannot be told, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unclear: Vec<String>,
}

/// What the fleet shows of a host.
#[derive(Debug, Default, Serialize)]
struct Facts {
    /// By SID.
    systems: BTreeMap<String, Fact>,
    /// Systems for which there was no room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
    /// Why systems may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    unclear: Option<String>,
}

/// The fact of one system.
pub fn of_system(runner: Runner, key: &Key) -> Fact {
    look(&runner.bounded(Instant::now() + ALL, EACH), key)
}

fn look(runner: &Runner, key: &Key) -> Fact {
    let (system, now) = (runner.system(), Timestamp::now());
    let since = now.checked_sub(BACK).unwrap_or(Timestamp::UNIX_EPOCH);
    let seen = glance(runner, key, since, now);
    Fact { sid: system.sid.to_string(), number: Some(system.number), ..fact(&seen) }
}

/// The fact of the systems of a host, as one line for the agent; `runner` makes the runner of one of them.
pub fn of_host(
    found: Result<BTreeMap<Sid, Vec<Number>>, Error>,
    key: &Key,
    runner: impl Fn(Sid, Number) -> Runner,
) -> String {
    let found = match found {
        Ok(found) => found,
        Err(error) => return line(&Facts { unclear: Some(short(&error.to_string())), ..Facts::default() }),
    };
    let until = Instant::now() + ALL;
    let (answer, answers) = mpsc::channel();
    let mut facts = Facts::default();
    for (sid, numbers) in found {
        let entry = |why: String| Fact { sid: sid.to_string(), unclear: vec![why], ..Fact::default() };
        let [number] = numbers.as_slice() else {
            let several: Vec<_> = numbers.iter().map(Number::to_string).collect();
            let why = format!("number: it has the instances {}", several.join(", "));
            facts.systems.insert(sid.to_string(), entry(why));
            continue;
        };
        // What has answered by the end replaces this; a file system that hangs holds up nobody but its own system.
        facts.systems.insert(sid.to_string(), entry(format!("no answer within {} s", ALL.as_secs())));
        let runner = runner(sid, *number).bounded(until, EACH);
        let (answer, key) = (answer.clone(), key.clone());
        // Nobody waits for an answer that comes later.
        std::thread::spawn(move || drop(answer.send(look(&runner, &key))));
    }
    drop(answer);
    let last = until + LATE;
    while let Ok(fact) = answers.recv_timeout(last.saturating_duration_since(Instant::now())) {
        facts.systems.insert(fact.sid.clone(), fact);
    }
    fit(facts)
}

/// The facts as a line of at most [`MOST`] bytes. What has no room is left out whole, and named.
fn fit(mut facts: Facts) -> String {
    let fits = |facts: &Facts| line(facts).len() < MOST;
    if !fits(&facts) {
        for fact in facts.systems.values_mut() {
            if let Some(tenants) = fact.tenants.take_if(|tenants| tenants.len() > MANY_TENANTS) {
                fact.unclear.push(format!("tenants: {} of them have no room here", tenants.len()));
            }
        }
    }
    while !fits(&facts) {
        let Some((sid, _)) = facts.systems.pop_last() else { break };
        facts.left_out.push(sid);
    }
    line(&facts)
}

fn line(facts: &Facts) -> String {
    // What consists of texts and numbers can be written.
    serde_json::to_string(facts).unwrap_or_else(|error| format!("{{\"unclear\":\"{error}\"}}"))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

/// Reads the fact from what was seen.
fn fact(seen: &Glance) -> Fact {
    let mut fact = Fact::default();
    let mut unclear = Vec::new();
    if let Some(version) = value("version", Some(&seen.installed), &mut unclear) {
        fact.installed = Some(version.is_some());
        fact.version = *version;
    }
    fact.running = value("processes", seen.processes.as_ref(), &mut unclear).and_then(|state| match state {
        sapcontrol::State::Running(_) => Some(true),
        sapcontrol::State::Stopped | sapcontrol::State::Partly(_) => Some(false),
        // Without sapstartsrv nothing is known of the processes.
        sapcontrol::State::NoAnswer(_) => None,
    });
    if let Some(state) = value("replication", seen.replication.as_ref(), &mut unclear) {
        fact.role = Some(match state.role {
            Role::None => "none",
            Role::Primary => "primary",
            Role::Secondary(_) => "secondary",
        });
        fact.site.clone_from(&state.site);
    }
    fact.replication = value("secondaries", seen.secondaries.as_ref(), &mut unclear).copied();
    let databases = value("databases", seen.databases.as_ref(), &mut unclear);
    let backups = value("backups", seen.backups.as_ref(), &mut unclear);
    if let Some(databases) = databases {
        let active = databases.iter().filter(|(_, active)| *active).map(|(database, _)| database);
        let tenants = active.clone().filter(|database| !database.is_system());
        fact.tenants = Some(tenants.map(|database| database.as_str().to_owned()).collect());
        if let Some(backups) = backups {
            let good = |entry: &&Entry| entry.kind == Kind::Complete && entry.state == State::Successful;
            let newest = active.map(|database| {
                backups
                    .iter()
                    .filter(good)
                    .filter(|entry| entry.database == *database)
                    .map(|entry| entry.begun)
                    .max()
            });
            // None is less than any time: one database without a backup is a system without one.
            fact.backup = Some(newest.min().flatten());
        }
    }
    fact.unclear = unclear;
    fact
}

fn value<'a, T>(name: &str, seen: Option<&'a Seen<T>>, unclear: &mut Vec<String>) -> Option<&'a T> {
    match &seen?.value {
        Ok(value) => Some(value),
        Err(why) => {
            unclear.push(short(&format!("{name}: {why}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(sid: &str, tenants: usize) -> (String, Fact) {
        let tenants = (0..tenants).map(|number| format!("TENANT{number:04}")).collect();
        (sid.to_owned(), Fact { sid: sid.to_owned(), tenants: Some(tenants), ..Fact::default() })
    }

    #[test]
    fn what_has_no_room_is_left_out_whole_and_named() {
        let small = fit(Facts { systems: [system("HDB", 3)].into(), ..Facts::default() });
        assert!(small.contains("TENANT0002") && !small.contains("left_out"), "{small}");
        let wide = fit(Facts { systems: [system("HDB", 900), system("QA1", 2)].into(), ..Facts::default() });
        assert!(wide.contains("tenants: 900 of them") && wide.contains("TENANT0001"), "{wide}");
        let names = (0..90).map(|number| format!("A{number:02}"));
        let many: BTreeMap<_, _> = names.map(|sid| system(&sid, 9)).collect();
        let many = fit(Facts { systems: many, ..Facts::default() });
        assert!(many.len() < MOST && many.contains("\"A00\":") && many.contains("left_out"), "{many}");
    }
}
