//! The options of hdblcm: of the command line, else of the configuration file, else its defaults.

use super::passwords::{self, Passwords};
use crate::halt::Halt;
use crate::root::Root;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

/// SIDs that SAP reserves.
const RESERVED: &str = "ADD ALL AMD AND ANY ARE ASC AUX AVG BIN BIT CDC COM CON DAA DBA DBM DBO DTD ECO END EPS EXE FOR \
    GET GID IBM INT KEY LIB LOG LPT MAP MAX MEM MIG MIN MON NET NIX NOT NUL OFF OLD OMS OUT PAD PRN RAW REF ROW SAP SET \
    SGA SHG SID SQL SUM SYS TMP TOP TRC UID USE USR VAR";

/// The options of one call.
pub(crate) struct Options {
    given: BTreeMap<String, String>,
    pub(crate) passwords: Passwords,
}

impl Options {
    pub(crate) fn read(root: &Root, arguments: &[String]) -> Result<Self, Halt> {
        let mut given = BTreeMap::new();
        for argument in arguments {
            match argument.as_str() {
                "-b" => given.insert("batch".to_string(), "y".to_string()),
                "-U" => given.insert("uninstall".to_string(), "y".to_string()),
                "-v" => given.insert("version".to_string(), "y".to_string()),
                _ => {
                    let Some(option) = argument.strip_prefix("--") else {
                        return Err(Halt::new(1, format!("Unknown option: {argument}")));
                    };
                    let (key, value) = option.split_once('=').unwrap_or((option, "y"));
                    given.insert(key.to_string(), value.to_string())
                }
            };
        }
        let mut passwords = Passwords::new();
        if let Some(file) = given.get("configfile").cloned() {
            let path = root.at(&file);
            let text = fs::read_to_string(&path)
                .map_err(|error| Halt::new(1, format!("Cannot open configuration file '{file}': {error}")))?;
            for line in text.lines().map(str::trim) {
                if line.is_empty() || line.starts_with(['#', ';', '[']) {
                    continue;
                }
                let (key, value) = line
                    .split_once('=')
                    .ok_or_else(|| Halt::new(1, format!("Cannot parse line '{line}' of '{file}'")))?;
                let (key, value) = (key.trim(), value.trim());
                if key.ends_with("password") && !value.is_empty() && value != "***" {
                    passwords.insert(key.to_string(), value.to_string());
                }
                if !value.is_empty() {
                    given.entry(key.to_string()).or_insert_with(|| value.to_string());
                }
            }
        }
        match given.get("read_password_from_stdin").map(String::as_str) {
            Some("xml") => {
                println!("Start reading from input channel...");
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                passwords.extend(passwords::parse(&text)?);
                println!("... Done.");
            }
            Some(other) => {
                return Err(Halt::new(1, format!("Invalid value for read_password_from_stdin: {other}")));
            }
            None => {}
        }
        Ok(Self { given, passwords })
    }

    /// An option with the names of the system put in.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let value = self.given.get(key)?.clone();
        let put = |text: String, name: &str, value: Option<&String>| match value {
            Some(value) => text.replace(name, value),
            None => text,
        };
        let mount = self.given.get("sapmnt").cloned().unwrap_or_else(|| "/hana/shared".into());
        Some(put(put(value, "${sid}", self.given.get("sid")), "${sapmnt}", Some(&mount)))
    }

    pub(crate) fn or(&self, key: &str, default: &str) -> String {
        self.get(key).unwrap_or_else(|| default.to_string())
    }

    pub(crate) fn yes(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| ["y", "yes", "true", "on", "1"].contains(&value.as_str()))
    }

    /// A path below the root.
    pub(crate) fn path(&self, root: &Root, key: &str, default: &str) -> PathBuf {
        root.at(self.or(key, default))
    }

    /// The SID, as SAP allows it.
    pub(crate) fn sid(&self) -> Result<String, Halt> {
        let sid =
            self.get("sid").ok_or_else(|| Halt::new(1, "Mandatory parameter 'sid' (SID) is missing"))?;
        let mut letters = sid.chars();
        let first = letters.next().is_some_and(|letter| letter.is_ascii_uppercase());
        let others = letters.clone().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
        let reserved = RESERVED.split_whitespace().any(|other| other == sid);
        if !first || !others || letters.count() != 2 || reserved {
            return Err(Halt::new(
                1,
                format!("Checking value of 'sid' failed: '{sid}' is not a valid SAP system ID"),
            ));
        }
        Ok(sid)
    }

    /// The instance number, 00 to 97.
    pub(crate) fn number(&self) -> Result<String, Halt> {
        let number = self.or("number", "00");
        let valid = number.len() == 2 && number.parse::<u32>().is_ok_and(|number| number <= 97);
        if !valid {
            return Err(Halt::new(1, format!("Checking value of 'number' failed: '{number}' is invalid")));
        }
        Ok(number)
    }
}
