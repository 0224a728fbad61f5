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

/// The exit codes of the commands that change a replication. Source: SUSE/shaptools shaptools/hana.py.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: it failed, and says why.
    Failed,
    /// 149: the files of the secure store are not those of the primary.
    SecureStoreDiffers,
    /// Any other: not documented.
    Undocumented(i32),
}

impl From<i32> for Exit {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Failed,
            149 => Self::SecureStoreDiffers,
            code => Self::Undocumented(code),
        }
    }
}

/// How a secondary follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A commit waits until the secondary has it on its disk
    Sync,
    /// A commit waits until the secondary has it in memory
    Syncmem,
    /// A commit does not wait
    Async,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Syncmem => "syncmem",
            Self::Async => "async",
        }
    }
}

/// The name of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site(String);

impl Site {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if text.len() > 64 || !begins || !text.bytes().all(letter) {
            return Err("the name of a site is 1 to 64 letters, digits, hyphens and underscores".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

fn change(system: &System, purpose: &'static str, arguments: Vec<String>, minutes: u64) -> Call {
    Call {
        purpose,
        source: "SUSE/shaptools shaptools/hana.py; yast-hana-update doc/procedure.md",
        user: As::Adm,
        program: system.exe().join("hdbnsutil"),
        arguments,
        input: Input::Nothing,
        timeout: Duration::from_secs(minutes * 60),
    }
}

/// `-sr_enable`: makes the running system a primary.
pub fn enable(system: &System, site: &Site) -> Call {
    let arguments = vec!["-sr_enable".to_owned(), format!("--name={}", site.as_str())];
    change(system, "make the system a primary", arguments, 15)
}

/// `-sr_register`: makes the stopped system a secondary of the primary on that host.
pub fn register(system: &System, site: &Site, primary: &str, mode: Mode) -> Call {
    let arguments = vec![
        "-sr_register".to_owned(),
        format!("--name={}", site.as_str()),
        format!("--remoteHost={primary}"),
        format!("--remoteInstance={}", system.number),
        format!("--replicationMode={}", mode.word()),
        "--operationMode=logreplay".to_owned(),
    ];
    change(system, "register the stopped system as a secondary", arguments, 30)
}

/// `-sr_takeover`: makes the secondary the primary. `suspend`: the former primary is reached, and takes no commit more.
pub fn takeover(system: &System, suspend: bool) -> Call {
    let mut arguments = vec!["-sr_takeover".to_owned()];
    if suspend {
        arguments.push("--suspendPrimary".to_owned());
    }
    change(system, "take over", arguments, 120)
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
    fn every_documented_exit_code() {
        for (code, exit) in
            [(0, Exit::Done), (1, Exit::Failed), (149, Exit::SecureStoreDiffers), (2, Exit::Undocumented(2))]
        {
            assert_eq!(Exit::from(code), exit);
        }
        for good in ["EAST", "site-2", "A_1"] {
            assert!(good.parse::<Site>().is_ok());
        }
        for bad in ["", "-x", "a b", "a=b", "ä"] {
            assert!(bad.parse::<Site>().is_err());
        }
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
