//! `hdbnsutil -sr_state`: which part of a replication this system has.
//!
//! The output for scripts is used, whose lines are `key=value` between two marks. Some keys repeat. Where a key has a
//! space (`site id`), an older form has an underscore.

use std::time::Duration;

use crate::call::{As, Call, Input};
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

/// The part of a system in a replication.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It does not replicate.
    None,
    /// It is the source.
    Primary,
    /// It follows a primary in this mode: sync, syncmem or async.
    Secondary(String),
}

/// What `-sr_state` says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct State {
    /// Whether the system runs; `None` where it is not said.
    pub online: Option<bool>,
    /// Its part.
    pub role: Role,
    /// Name of its site; `None` without replication.
    pub site: Option<String>,
    /// Whether a primary is suspended; `None` where it is not known.
    pub suspended: Option<bool>,
}

/// `hdbnsutil -sr_state`.
pub fn state_call(system: &System) -> Call {
    Call {
        purpose: "read the state of system replication",
        source: "SUSE/shaptools shaptools/hana.py; trento-project/agent internal/core/sapsystem",
        user: As::Adm,
        program: system.exe().join("hdbnsutil"),
        // -sr_state reads the configuration, also of a system that is stopped; --sapcontrol=1: lines for scripts
        arguments: vec!["-sr_state".to_owned(), "--sapcontrol=1".to_owned()],
        input: Input::Nothing,
        timeout: Duration::from_secs(60),
    }
}

/// Lines `key=value` in the frame of `--sapcontrol=1`, in their order. What follows the frame is left out.
pub fn frame(text: &str) -> Reading<Vec<(&str, &str)>> {
    let mut lines = text.lines().map(str::trim_end).skip_while(|line| *line != "SAPCONTROL-OK: <begin>");
    if lines.next().is_none() {
        return unclear(format!("no frame of --sapcontrol=1 in {}", quoted(text.trim())));
    }
    let mut pairs = Vec::new();
    for line in lines {
        if line == "SAPCONTROL-OK: <end>" {
            return Ok(pairs);
        }
        match line.split_once('=') {
            Some(pair) => pairs.push(pair),
            None if line.is_empty() => {}
            None => return unclear(format!("{} is no line key=value", quoted(line))),
        }
    }
    unclear("the frame of --sapcontrol=1 does not end")
}

/// The value of a key that may stand there once.
pub fn one<'a>(pairs: &[(&'a str, &'a str)], key: &str) -> Reading<Option<&'a str>> {
    let same = |name: &str| name == key || name.replace('_', " ") == key;
    let mut values = pairs.iter().filter(|(name, _)| same(name)).map(|(_, value)| *value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => unclear(format!("the key `{key}` is there twice")),
    }
}

fn truth(pairs: &[(&str, &str)], key: &str) -> Reading<Option<bool>> {
    match one(pairs, key)? {
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        None | Some("unknown") => Ok(None),
        Some(other) => unclear(format!("`{key}` is {}", quoted(other))),
    }
}

/// Reads the answer.
pub fn state(exit: i32, text: &str) -> Reading<State> {
    if exit != 0 {
        return unclear(format!("hdbnsutil -sr_state ended with {exit} and printed {}", quoted(text.trim())));
    }
    let pairs = frame(text)?;
    let role = match one(&pairs, "mode")? {
        Some("none") => Role::None,
        Some("primary") => Role::Primary,
        Some(mode @ ("sync" | "syncmem" | "async")) => Role::Secondary(mode.to_owned()),
        other => return unclear(format!("the mode of replication is {}", quoted(other.unwrap_or_default()))),
    };
    let site = one(&pairs, "site name")?.filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(State {
        online: truth(&pairs, "online")?,
        role,
        site,
        suspended: truth(&pairs, "isPrimarySuspended")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(lines: &str) -> String {
        format!(
            "SAPCONTROL-OK: <begin>\n{lines}\nSAPCONTROL-OK: <end>\ndone.\nReleasing memory with 4 threads.\n"
        )
    }

    #[test]
    fn roles() {
        let none = state(0, &framed("online=true\nmode=none")).unwrap();
        assert_eq!((none.role, none.online, none.site, none.suspended), (Role::None, Some(true), None, None));
        let primary = framed(
            "online=true\nmode=primary\noperation mode=primary\nsite id=1\nsite name=EAST\nisSource=true\n\
             isPrimarySuspended=false\nmapping/a=EAST/a\nmapping/a=WEST/b\nhintBasedRoutingSite=",
        );
        let primary = state(0, &primary).unwrap();
        assert_eq!((primary.role, primary.site.as_deref()), (Role::Primary, Some("EAST")));
        assert_eq!(primary.suspended, Some(false));
        for mode in ["sync", "syncmem", "async"] {
            let text = framed(&format!(
                "online=false\nmode={mode}\nsite_name=WEST\nisSource=unknown\nisPrimarySuspended=unknown\nactive primary site=1"
            ));
            let secondary = state(0, &text).unwrap();
            assert_eq!(secondary.role, Role::Secondary(mode.to_owned()));
            assert_eq!((secondary.online, secondary.suspended), (Some(false), None));
            assert_eq!(secondary.site.as_deref(), Some("WEST"));
        }
    }

    #[test]
    fn what_is_not_understood_is_no_role() {
        let good = framed("online=true\nmode=primary");
        for text in [
            String::new(),
            "done.".to_owned(),
            good.replace("mode=primary", ""),
            good.replace("mode=primary", "mode=leader"),
            good.replace("mode=primary", "mode=primary\nmode=sync"),
            good.replace("online=true", "online=perhaps"),
            good.replace("online=true", "no pair"),
            good.replace("SAPCONTROL-OK: <end>", ""),
        ] {
            assert!(state(0, &text).is_err(), "{text}");
        }
        assert!(state(1, &good).is_err());
        assert!(state(149, &good).is_err());
    }
}
