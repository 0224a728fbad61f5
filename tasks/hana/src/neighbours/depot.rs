//! `hostler-depot`: thaws what Backint has stored in a cold class. Its exit codes and names are in docs/backups.md.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::catalog::Database;
use crate::call::{As, Call, Input};
use crate::error::{Error, Reading, quoted, unclear};
use crate::system::System;

/// Where its package installs it.
pub const PROGRAM: &str = "/usr/bin/hostler-depot";

/// The depot's name for a part that Backint has stored.
///
/// # Errors
/// When the part has a name that is not the same in the depot.
pub fn name(system: &System, database: &Database, name: &str, id: &str) -> Result<String, Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@=+-/".contains(&byte);
    if !name.starts_with('/') || name.contains("//") || !name.bytes().all(plain) || !id.bytes().all(plain) {
        return Err(Error::Unclear(format!(
            "{} is a name that the depot keeps under another one",
            quoted(name)
        )));
    }
    let user = if database.is_system() {
        system.sid.to_string()
    } else {
        format!("{}@{}", database.as_str(), system.sid)
    };
    Ok(format!("backint/{user}{name}/{id}"))
}

/// `thaw` for a part that Backint has stored.
///
/// # Errors
/// As [`name`].
pub fn thaw(system: &System, config: &str, database: &Database, part: &str, id: &str) -> Result<Call, Error> {
    Ok(thaw_name(config, &name(system, database, part, id)?))
}

/// `verify` of a sample of these parts: so many percent of their blocks.
pub fn verify(config: &str, percent: u32, names: &[String]) -> Call {
    let percent = percent.to_string();
    let words: Vec<_> =
        ["verify", "--sample", &percent].into_iter().chain(names.iter().map(String::as_str)).collect();
    call("read a sample of the parts back", config, &words, Duration::from_secs(20 * 3600))
}

/// Reads the answer of [`verify`]: the first part that is not good, and why; `None` when all are. A cold part cannot be
/// read; its size was looked at.
pub fn verified(exit: i32, text: &str, names: &[String]) -> Reading<Option<String>> {
    let Ok(serde_json::Value::Array(answers)) = serde_json::from_str(text) else {
        return unclear(format!(
            "hostler-depot verify ended with {exit} and printed {}",
            quoted(text.trim())
        ));
    };
    let field = |answer: &serde_json::Value, name: &str| {
        answer.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    for answer in &answers {
        let (name, verdict, why) = (field(answer, "name"), field(answer, "verdict"), field(answer, "text"));
        match verdict.as_str() {
            "good" | "cold" => {}
            "damaged" | "missing" => return Ok(Some(format!("{name} is {verdict}: {why}"))),
            _ => {
                return unclear(format!(
                    "hostler-depot verify says {} of {}",
                    quoted(&verdict),
                    quoted(&name)
                ));
            }
        }
    }
    let all = names.iter().all(|name| answers.iter().any(|answer| field(answer, "name") == *name));
    match (exit, all) {
        (0, true) => Ok(None),
        (0, false) => unclear("hostler-depot verify does not name each part"),
        (code, _) => unclear(format!("hostler-depot verify ended with {code}")),
    }
}

fn call(purpose: &'static str, config: &str, words: &[&str], timeout: Duration) -> Call {
    Call {
        purpose,
        source: "docs/backups.md",
        user: As::Myself,
        program: PROGRAM.into(),
        arguments: ["--config", config, "--json"].iter().chain(words).map(|&word| word.to_owned()).collect(),
        input: Input::Nothing,
        timeout,
    }
}

/// `thaw` for a backup by the depot's own name.
pub fn thaw_name(config: &str, name: &str) -> Call {
    call("thaw a part, if it is cold", config, &["thaw", name], Duration::from_secs(600))
}

/// `list` of all that Backint has stored, for a system that cannot be asked what its backups are.
pub fn list(config: &str) -> Call {
    let time = Duration::from_secs(3600);
    call("list what Backint has stored", config, &["list", "--names", "backint/"], time)
}

/// The parts of a backup by their paths: when each was begun, and the depot's name for it.
type Parts<'a> = BTreeMap<&'a str, (i64, &'a str)>;

/// Reads the answer of [`list`]: of each database of the system, the parts of the newest data backup that was begun
/// before the instant. A delta backup is a data backup too; what it builds on is not found here.
pub fn newest(exit: i32, text: &str, sid: &str, to: Timestamp) -> Reading<Vec<String>> {
    if exit != 0 {
        return unclear(format!("hostler-depot list ended with {exit}"));
    }
    let Ok(serde_json::Value::Array(listed)) = serde_json::from_str(text) else {
        return unclear(format!("hostler-depot list printed {}", quoted(text.trim())));
    };
    // Of each user and prefix the newest id of each part.
    let mut sets: BTreeMap<(&str, &str), Parts<'_>> = BTreeMap::new();
    for one in &listed {
        let Some(name) = one.get("name").and_then(serde_json::Value::as_str) else {
            return unclear(format!("hostler-depot list printed {}", quoted(&one.to_string())));
        };
        let Some((user, path)) = name.strip_prefix("backint/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let mine = user == sid || user.strip_suffix(sid).is_some_and(|rest| rest.ends_with('@'));
        let Some((part, id)) = path.rsplit_once('/') else { continue };
        let Some((prefix, _)) = part.split_once("_databackup_").filter(|_| mine) else { continue };
        let begun = begun(id)?;
        if begun > to.as_millisecond() {
            continue;
        }
        let newest = sets.entry((user, prefix)).or_default().entry(part).or_insert((begun, name));
        if newest.0 <= begun {
            *newest = (begun, name);
        }
    }
    let mut chosen: BTreeMap<&str, (i64, Vec<String>)> = BTreeMap::new();
    for ((user, _), parts) in sets {
        let begun = parts.values().map(|(begun, _)| *begun).max().unwrap_or_default();
        let names = parts.into_values().map(|(_, name)| name.to_owned()).collect();
        match chosen.get(user) {
            Some((other, _)) if *other >= begun => {}
            _ => {
                chosen.insert(user, (begun, names));
            }
        }
    }
    Ok(chosen.into_values().flat_map(|(_, names)| names).collect())
}

/// When a part was begun, in milliseconds: the ids of the depot are ULIDs, whose first ten letters say it.
pub fn begun(id: &str) -> Reading<i64> {
    const LETTERS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digits =
        id.chars().take(10).map(|letter| LETTERS.find(letter).and_then(|digit| i64::try_from(digit).ok()));
    match digits.collect::<Option<Vec<_>>>() {
        Some(digits) if id.len() == 26 => Ok(digits.iter().fold(0, |time, digit| time << 5 | digit)),
        _ => unclear(format!("{} is no id of the depot", quoted(id))),
    }
}

/// Reads the answer: whether the part can be read now.
pub fn thawed(exit: i32, text: &str) -> Reading<bool> {
    if exit != 0 {
        return unclear(format!("hostler-depot thaw ended with {exit}"));
    }
    let Ok(serde_json::Value::Array(states)) = serde_json::from_str(text) else {
        return unclear(format!("hostler-depot thaw printed {}", quoted(text.trim())));
    };
    let mut ready = true;
    for state in &states {
        match state.pointer("/state/state").and_then(serde_json::Value::as_str) {
            Some("hot" | "thawed") => {}
            Some("cold" | "thawing") => ready = false,
            _ => return unclear(format!("hostler-depot thaw printed {}", quoted(&state.to_string()))),
        }
    }
    if states.is_empty() { unclear("hostler-depot thaw names no backup") } else { Ok(ready) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_the_depot() {
        let of = |states: &[&str]| {
            let all: Vec<_> = states
                .iter()
                .map(|state| serde_json::json!({"name": "x", "state": {"state": state, "class": "GLACIER", "seconds": 0}}))
                .collect();
            thawed(0, &serde_json::Value::from(all).to_string())
        };
        assert_eq!(of(&["hot"]), Ok(true));
        assert_eq!(of(&["thawed", "hot"]), Ok(true));
        assert_eq!(of(&["thawed", "thawing"]), Ok(false));
        assert_eq!(of(&["cold"]), Ok(false));
        assert!(of(&["lukewarm"]).is_err() && of(&[]).is_err());
        assert!(thawed(0, "").is_err() && thawed(8, "[]").is_err());
    }

    #[test]
    fn verdicts_of_the_depot() {
        let names = ["a".to_owned(), "b".to_owned()];
        let of = |exit, verdicts: &[&str]| {
            let all: Vec<_> = verdicts
                .iter()
                .zip(&names)
                .map(|(verdict, name)| serde_json::json!({"name": name, "verdict": verdict, "text": "why"}))
                .collect();
            verified(exit, &serde_json::Value::from(all).to_string(), &names)
        };
        assert_eq!(of(0, &["good", "cold"]), Ok(None));
        assert_eq!(of(7, &["good", "damaged"]), Ok(Some("b is damaged: why".to_owned())));
        assert_eq!(of(4, &["missing", "good"]), Ok(Some("a is missing: why".to_owned())));
        for (exit, verdicts) in
            [(0, &["good"][..]), (0, &[]), (7, &["good", "good"]), (9, &["good", "unreadable"])]
        {
            assert!(of(exit, verdicts).is_err(), "{exit} {verdicts:?}");
        }
        assert!(verified(0, "", &names).is_err() && verified(0, "{}", &names).is_err());
    }

    #[test]
    fn the_newest_data_backup_of_each_database() {
        // Ids of the years 2001 (0), 2018 (5) and 2033 (Z), about.
        let old = "00WW000000AAAAAAAAAAAAAAAA";
        let mid = "01C0000000AAAAAAAAAAAAAAAA";
        let new = "01V0000000AAAAAAAAAAAAAAAA";
        let path = |user: &str, name: &str, id: &str| format!("backint/{user}/b/{name}/{id}");
        let all = [
            path("HDB", "A_databackup_0_1", old),
            path("HDB", "A_databackup_1_1", old),
            path("HDB", "B_databackup_0_1", mid),
            path("HDB", "B_databackup_1_1", mid),
            path("HDB", "log_backup_0_0_0_0", new),
            path("HDB@HDB", "A_databackup_2_1", old),
            // The same name again.
            path("HDB@HDB", "A_databackup_2_1", mid),
            path("HDB@QA1", "A_databackup_2_1", mid),
            path("HDB", "C_databackup_0_1", new),
            "backint/odd".to_owned(),
        ];
        let text = |names: &[String]| {
            let all: Vec<_> =
                names.iter().map(|name| serde_json::json!({"name": name, "changed": null})).collect();
            serde_json::Value::from(all).to_string()
        };
        let of = |ms: i64| newest(0, &text(&all), "HDB", Timestamp::from_millisecond(ms).unwrap()).unwrap();
        let (at, later) = (begun(mid).unwrap(), begun(new).unwrap());
        assert_eq!(of(at), [all[2].clone(), all[3].clone(), all[6].clone()]);
        assert_eq!(of(at - 1), [all[0].clone(), all[1].clone(), all[5].clone()]);
        assert_eq!(of(later), [all[8].clone(), all[6].clone()]);
        assert!(of(0).is_empty());
        let wrong = text(&[path("HDB", "A_databackup_0_1", "short")]);
        assert!(newest(0, &wrong, "HDB", Timestamp::now()).is_err());
        assert!(newest(1, "[]", "HDB", Timestamp::now()).is_err());
        assert!(newest(0, "{}", "HDB", Timestamp::now()).is_err());
    }
}
