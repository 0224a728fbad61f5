//! An order: what an operator writes in the store.
//!
//! `task`, `params`, `revision` and `dry_run` make its identity: the same instruction is carried out once, however it
//! is spelled. Everything else is a term, which may change while the order waits.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::ids::InstructionHash;
use super::instant;
use super::name::Name;
use super::params::whole_numbers;
use super::schedule::Schedule;
use super::secret_watch::{MAX_WATCHED, SecretRef};
use super::span::{BadSpan, Span};
use super::window::Window;
use super::yaml::{self, PathSegment, YamlError};
use super::zone::Zone;

/// The largest order, in bytes.
pub const MAX_ORDER: usize = 64 << 10;

/// The spread of a group's order that does not say another.
pub const DEFAULT_SPREAD: Span = Span::secs(600);

/// An order, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Which task.
    pub task: Name,
    /// Its parameters as written; null where there are none.
    pub params: Value,
    /// Probe only.
    pub dry_run: bool,
    /// What makes it the same instruction.
    pub identity: InstructionHash,
    /// Not started before.
    pub not_before: Option<Timestamp>,
    /// Not started after: expired.
    pub not_after: Option<Timestamp>,
    /// Not started outside.
    pub window: Option<Box<Window>>,
    /// When it fires; the order itself is not carried out then.
    pub schedule: Option<Box<Schedule>>,
    /// How often it is asked whether the wanted state holds.
    pub reconcile: Option<Span>,
    /// Whether it is only reported that the state does not hold: the order starts nothing by itself.
    pub only_report: bool,
    /// How often a run of it has to succeed, or it is a condition of the host.
    pub expect_every: Option<Span>,
    /// Secrets of which each new version has it carried out once more.
    pub on_secret_change: Vec<SecretRef>,
    /// Over how long the hosts of a group spread their starts.
    pub spread: Option<Span>,
    /// At most the task's own.
    pub timeout: Option<Span>,
    /// What a host does that joins when the order is there already.
    pub on_preexisting: OnPreexisting,
    /// Who wrote it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What a host does with an order that was there before the host remembers anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPreexisting {
    /// Carries it out where the probe says that it is not done; without a probe, an operator has to say so.
    #[default]
    Hold,
    /// Carries it out.
    Run,
}

/// What a document in the place of an order says.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An order.
    Order(Box<Order>),
    /// `skip: true`: this host is exempt from a group's order of this name.
    Skip,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an order, a map of fields such as `task: hello`")]
struct File {
    task: Option<Name>,
    params: Option<Value>,
    revision: Option<Value>,
    dry_run: Option<bool>,
    #[serde(default, deserialize_with = "instant::optional")]
    not_before: Option<Timestamp>,
    #[serde(default, deserialize_with = "instant::optional")]
    not_after: Option<Timestamp>,
    spread: Option<Span>,
    timeout: Option<Span>,
    #[serde(default)]
    skip: bool,
    by: Option<String>,
    reason: Option<String>,
    window: Option<String>,
    schedule: Option<String>,
    timezone: Option<String>,
    catch_up: Option<Span>,
    reconcile: Option<Value>,
    expect_every: Option<Span>,
    on_secret_change: Option<Vec<String>>,
    on_preexisting: Option<OnPreexisting>,
}

impl Document {
    /// Reads a document, YAML or JSON.
    pub fn read(text: &[u8]) -> Result<Self, YamlError> {
        let mut file: File = yaml::parse(text, MAX_ORDER)?;
        let whole = std::str::from_utf8(text).unwrap_or_default();
        let fault =
            |field: &str, message: String| yaml::error_at(whole, &[PathSegment::from(field)], message);
        if file.skip {
            return Ok(Self::Skip);
        }
        let Some(task) = file.task.clone() else {
            return Err(yaml::error_at(whole, &[], "`task` is missing: say which task to carry out"));
        };
        match &file.revision {
            None | Some(Value::String(_)) => {}
            // A tool that writes the file again could make "5" of 5, and so another instruction.
            Some(Value::Number(number)) => {
                let message = format!("`revision` is a text: put it in quotes, as in revision: \"{number}\"");
                return Err(fault("revision", message));
            }
            Some(_) => return Err(fault("revision", "`revision` is a text: put it in quotes".into())),
        }
        if let Some(params) = &mut file.params {
            whole_numbers(params);
        }
        match &file.params {
            None | Some(Value::Object(_)) => {}
            Some(_) => return Err(fault("params", "`params` is a map of names and values".into())),
        }
        if let (Some(before), Some(after)) = (file.not_before, file.not_after)
            && before >= after
        {
            return Err(fault("not_after", "`not_after` must be later than `not_before`".into()));
        }
        let times = Times::read(&file).map_err(|(field, message)| fault(field, message))?;
        let on_secret_change = watched(&file).map_err(|(at, message)| {
            let field = PathSegment::from("on_secret_change");
            yaml::error_at(
                whole,
                &[field].into_iter().chain(at.map(PathSegment::from)).collect::<Vec<_>>(),
                message,
            )
        })?;
        let identity = identity(&task, &file)
            .map_err(|error| fault("params", format!("cannot be brought into canonical form: {error}")))?;
        Ok(Self::Order(Box::new(Order {
            task,
            params: file.params.unwrap_or_default(),
            dry_run: file.dry_run.unwrap_or_default(),
            identity,
            not_before: file.not_before,
            not_after: file.not_after,
            window: times.window.map(Box::new),
            schedule: times.schedule.map(Box::new),
            reconcile: times.reconcile.as_ref().map(|reconcile| reconcile.every),
            only_report: times.reconcile.is_some_and(|reconcile| reconcile.only.is_some()),
            expect_every: file.expect_every,
            on_secret_change,
            spread: file.spread,
            timeout: file.timeout,
            on_preexisting: file.on_preexisting.unwrap_or_default(),
            by: file.by,
            reason: file.reason,
        })))
    }
}

impl Order {
    /// Whether it is carried out when it is placed. With a schedule it waits for its time, and one that is only reported
    /// on starts nothing.
    pub fn starts_when_placed(&self) -> bool {
        self.schedule.is_none() && !self.only_report
    }

    /// What makes it carried out again by itself, if anything does.
    pub fn standing_terms(&self) -> Option<String> {
        let only = if self.only_report { ", only reported" } else { "" };
        let every = |every: &Span| format!("every {every}{only}");
        let by_time =
            self.schedule.as_deref().map(Schedule::terms).or_else(|| self.reconcile.as_ref().map(every));
        let watched: Vec<String> = self.on_secret_change.iter().map(ToString::to_string).collect();
        let by_secret = (!watched.is_empty()).then(|| format!("secrets {}", watched.join(" ")));
        match (by_time, by_secret) {
            (Some(time), Some(secret)) => Some(format!("{time}; {secret}")),
            (one, other) => one.or(other),
        }
    }
}

/// `reconcile: 15m`, or `reconcile: {every: 15m, only: report}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reconcile {
    every: Span,
    only: Option<Only>,
}

/// What is done about a state that does not hold, in place of starting the order.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Only {
    Report,
}

impl Reconcile {
    fn read(value: &Value) -> Result<Self, String> {
        if let Value::String(every) = value {
            let every = every.parse().map_err(|error: BadSpan| error.to_string())?;
            return Ok(Self { every, only: None });
        }
        serde_json::from_value(value.clone())
            .map_err(|error| format!("{error}: write it as 15m, or as {{every: 15m, only: report}}"))
    }
}

/// The terms about time.
struct Times {
    window: Option<Window>,
    schedule: Option<Schedule>,
    reconcile: Option<Reconcile>,
}

impl Times {
    /// An error is the field and what is wrong with it.
    fn read(file: &File) -> Result<Self, (&'static str, String)> {
        let (window, schedule) = (&file.window, &file.schedule);
        for (field, senseless, why) in [
            (
                "timezone",
                file.timezone.is_some() && window.is_none() && schedule.is_none(),
                "`window` or `schedule`",
            ),
            ("catch_up", file.catch_up.is_some() && schedule.is_none(), "`schedule`"),
            ("expect_every", file.expect_every.is_some() && schedule.is_none(), "`schedule`"),
        ] {
            if senseless {
                return Err((field, format!("`{field}` has an effect only with {why}: leave it out")));
            }
        }
        if file.reconcile.is_some() && schedule.is_some() {
            let why = "an order has `schedule` or `reconcile`, not both: write two orders";
            return Err(("reconcile", why.to_owned()));
        }
        let reconcile = file.reconcile.as_ref().map(Reconcile::read).transpose();
        let reconcile = reconcile.map_err(|message| ("reconcile", message))?;
        let secret = file.on_secret_change.is_some();
        if secret && reconcile.as_ref().is_some_and(|reconcile| reconcile.only.is_some()) {
            let why =
                "`on_secret_change` starts the order, and `only: report` does not: leave one of them out";
            return Err(("reconcile", why.to_owned()));
        }
        if reconcile.as_ref().is_some_and(|reconcile| reconcile.every < Span::secs(1)) {
            return Err(("reconcile", "`reconcile` is an interval of at least 1s".to_owned()));
        }
        if file.reconcile.is_some() && file.dry_run == Some(true) {
            let why = "`reconcile` with `dry_run` would never change anything: leave one of them out";
            return Err(("reconcile", why.to_owned()));
        }
        let zone = file.timezone.as_deref().map_or_else(|| Ok(Zone::utc()), Zone::find);
        let zone = zone.map_err(|error| ("timezone", error.to_string()))?;
        let window = window.as_deref().map(|text| Window::read(text, zone.clone())).transpose();
        let schedule = schedule.as_deref().map(|text| Schedule::read(text, zone, file.catch_up)).transpose();
        Ok(Self {
            window: window.map_err(|error| ("window", error.to_string()))?,
            schedule: schedule.map_err(|error| ("schedule", error.to_string()))?,
            reconcile,
        })
    }
}

/// What it watches; an error is which of them, if it is one, and what is wrong with it.
fn watched(file: &File) -> Result<Vec<SecretRef>, (Option<usize>, String)> {
    let Some(texts) = &file.on_secret_change else { return Ok(Vec::new()) };
    if texts.is_empty() || texts.len() > MAX_WATCHED {
        return Err((
            None,
            format!("`on_secret_change` names 1 to {MAX_WATCHED} secrets: name some, or leave it out"),
        ));
    }
    if file.dry_run == Some(true) {
        let why = "`on_secret_change` with `dry_run` would never change anything: leave one of them out";
        return Err((None, why.to_owned()));
    }
    let mut watched: Vec<SecretRef> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let one = SecretRef::read(text).map_err(|why| (Some(at), why))?;
        if watched.contains(&one) {
            return Err((Some(at), format!("{text:?} is named twice: leave one of them out")));
        }
        watched.push(one);
    }
    Ok(watched)
}

/// SHA-256 over the RFC 8785 form, in which equal meaning is equal: empty `params` and `dry_run: false` are left out
/// as if they were not written.
fn identity(task: &Name, file: &File) -> Result<InstructionHash, serde_json::Error> {
    let mut document = Map::new();
    document.insert("task".into(), task.as_str().into());
    let params = file.params.clone().filter(|params| params.as_object().is_some_and(|map| !map.is_empty()));
    for (name, value) in [("params", params), ("revision", file.revision.clone())] {
        document.extend(value.map(|value| (name.to_owned(), value)));
    }
    document.extend(
        file.dry_run.filter(|dry_run| *dry_run).map(|dry_run| ("dry_run".to_owned(), dry_run.into())),
    );
    let canonical = serde_json_canonicalizer::to_vec(&Value::Object(document))?;
    Ok(InstructionHash::new(Sha256::digest(canonical).into()))
}

/// Where in the spread this host starts: between zero and the spread, the same whenever it is asked.
pub fn offset(spread: Span, host: &Name, identity: &InstructionHash) -> std::time::Duration {
    let digest = Sha256::new().chain_update(host.as_str()).chain_update(identity.bytes()).finalize();
    let share = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    spread.0.mul_f64(f64::from(share) / 2_f64.powi(32))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::domain) fn order(text: &str) -> Order {
        match Document::read(text.as_bytes()).unwrap() {
            Document::Order(order) => *order,
            Document::Skip => panic!("an order was expected"),
        }
    }

    #[test]
    fn the_identity_is_that_of_the_instruction() {
        let identity = order("task: backup\nparams: {b: 1, a: [x]}\nrevision: '1'").identity;
        for same in [
            "{\"revision\":\"1\",\"params\":{\"a\":[\"x\"],\"b\":1.0},\"task\":\"backup\"}",
            "task: backup\nparams: {a: [x], b: 1}\nrevision: '1'\nreason: why\nspread: 0s\nnot_after: 2030-01-01T00:00:00Z",
            "task: backup\nparams: {a: [x], b: 1}\nrevision: '1'\nschedule: '@daily'\ntimezone: UTC\ncatch_up: 1h\n\
             window: '01:00-05:00'",
            "task: backup\nparams: {a: [x], b: 1e0}\nrevision: '1'\ndry_run: false",
            "{\"task\":\"backup\",\"params\":{\"a\":[\"x\"],\"b\":1},\"revision\":\"1\",\"dry_run\":null}",
            "task: backup\nparams: {a: [x], b: 1}\nrevision: '1'\nreconcile: 15m",
        ] {
            assert_eq!(order(same).identity, identity, "{same}");
        }
        for other in [
            "task: backup2\nparams: {b: 1, a: [x]}\nrevision: '1'",
            "task: backup\nparams: {b: 2, a: [x]}\nrevision: '1'",
            "task: backup\nparams: {b: 1, a: [x]}",
            "task: backup\nparams: {b: 1, a: [x]}\nrevision: '1'\ndry_run: true",
        ] {
            assert_ne!(order(other).identity, identity, "{other}");
        }
        let bare = order("task: hello").identity;
        for same in [
            "task: hello\nparams: {}",
            "task: hello\nparams:\nrevision: ~\ndry_run: false",
            "{\"task\": \"hello\"}",
        ] {
            assert_eq!(order(same).identity, bare, "{same}");
        }
        // The published form: whoever computes it elsewhere must get the same.
        let expected = Sha256::digest(br#"{"params":{"a":["x"],"b":1},"revision":"1","task":"backup"}"#);
        assert_eq!(identity, InstructionHash::new(expected.into()));
    }

    #[test]
    fn every_wrong_document_gets_one_line_with_the_place_and_the_cure() {
        for (text, expected) in [
            ("tsk: hello", "task"),
            ("params: {}", "`task` is missing"),
            ("task: hello\non_secret_change: [kv/data/a]", "names no field: write MOUNT/data/PATH#FIELD"),
            ("task: hello\non_secret_change:\n- 'kv/data/a#b'\n- 'kv/a#b'", "4:3"),
            ("task: hello\non_secret_change: 'kv/data/a#b'", "on_secret_change"),
            ("task: hello\non_secret_change: []", "1 to 16 secrets"),
            ("task: hello\non_secret_change: ['kv/data/a#b', 'kv/data/a#b']", "named twice"),
            ("task: hello\ndry_run: true\non_secret_change: ['kv/data/a#b']", "never change"),
            ("task: hello\nschedule: '61 * * * *'", "2:11"),
            ("task: hello\nschedule: '61 * * * *'", "field 1 (minute)"),
            ("task: hello\nschedule: 5", "schedule"),
            ("task: hello\nschedule: '* * * * *'\ntimezone: Berlin", "Europe/Berlin"),
            ("task: hello\nwindow: Sat", "Sat,Sun 01:00-05:00"),
            ("task: hello\ntimezone: UTC", "only with `window` or `schedule`"),
            ("task: hello\nwindow: 01:00-02:00\ncatch_up: 1h", "only with `schedule`"),
            ("task: hello\nschedule: '@daily'\nreconcile: 15m", "not both"),
            ("task: hello\nreconcile: 0s", "at least 1s"),
            ("task: hello\nreconcile: 15m\ndry_run: true", "never change"),
            ("task: hello\nrevision: [1]", "put it in quotes"),
            ("task: hello\nrevision: 5", "revision: \"5\""),
            ("{\"task\": \"hello\", \"revision\": 20260101}", "revision: \"20260101\""),
            ("task: hello\nrevision: -1", "revision: \"-1\""),
            ("task: hello\nparams: 5", "map of names"),
            ("task: hello\nspread: 5", "spread"),
            ("task: hello\nspread: 5 minutes", "length of time"),
            ("task: hello\nnot_before: tomorrow", "not_before"),
            (
                "task: hello\nnot_before: 2026-11-28 22:00",
                "write date, time and zone, as 2026-11-28T22:00:00Z",
            ),
            ("task: hello\nnot_after: 2026-11-28", "2:12"),
            ("Backup the database", "expected an order, a map of fields such as `task: hello`"),
            ("- task: hello", "an order, a map of fields"),
            ("<html></html>", "an order, a map of fields"),
            ("task: ../../etc", "is not a name"),
            ("task: hello\ntask: hello", "task"),
            ("task: hello\nnot_before: 2030-01-02T00:00:00Z\nnot_after: 2030-01-01T00:00:00Z", "later"),
            ("[]", ""),
            ("", ""),
        ] {
            let error = Document::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn whole_numbers_are_whole_in_what_is_carried_out() {
        let order = order("task: t\nparams: {i: 5.0, e: 1e3, f: 1.5, n: -0.0, l: [2.0, {m: 3.0}]}");
        let shown = order.params.to_string();
        assert_eq!(shown, r#"{"i":5,"e":1000,"f":1.5,"n":0,"l":[2,{"m":3}]}"#);
    }

    #[test]
    fn a_skip_needs_no_task() {
        assert_eq!(Document::read(b"skip: true").unwrap(), Document::Skip);
    }

    #[test]
    fn offsets_spread_and_stay() {
        let identity = order("task: hello").identity;
        let offsets: Vec<_> = (0..200)
            .map(|n| offset(Span::secs(600), &format!("host{n}").parse().unwrap(), &identity).as_secs())
            .collect();
        assert!(offsets.iter().all(|offset| *offset < 600));
        for part in 0..4 {
            let count = offsets.iter().filter(|offset| **offset / 150 == part).count();
            assert!(count > 25, "part {part} has {count} of 200 hosts");
        }
        assert_eq!(offset(Span::secs(0), &"h".parse().unwrap(), &identity).as_secs(), 0);
    }

    #[test]
    fn the_schema_describes_what_is_read() {
        yaml::described::same_fields::<File>(include_str!("../../schemas/order.json"), "");
    }
}
