//! `hostler-depot`: thaws what Backint has stored in a cold class. Its exit codes and names are in docs/backups.md.

use std::time::Duration;

use super::catalog::Database;
use crate::call::{As, Call, Input};
use crate::error::{Error, Reading, quoted, unclear};
use crate::system::System;

/// `thaw` for a part that Backint has stored.
///
/// # Errors
/// When the part has a name that is not the same in the depot.
pub fn thaw(system: &System, config: &str, database: &Database, name: &str, id: &str) -> Result<Call, Error> {
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
    Ok(Call {
        purpose: "thaw a part, if it is cold",
        source: "docs/backups.md",
        user: As::Myself,
        program: "/usr/bin/hostler-depot".into(),
        arguments: ["--config", config, "--json", "thaw", &format!("backint/{user}{name}/{id}")]
            .map(str::to_owned)
            .to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(600),
    })
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
}
