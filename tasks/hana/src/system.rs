//! What names a HANA system on this host: SID, instance number, version, and the paths that follow from them.
//!
//! Paths and the reserved SIDs: community.sap_install roles/sap_hana_install (SAP Note 1979280), SAPHanaSR,
//! SUSE/shaptools shaptools/hana.py.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Reading, quoted, unclear};

const RESERVED: &str = "ADD ALL AMD AND ANY ARE ASC AUX AVG BIN BIT CDC COM CON DAA DBA DBM DBO DTD ECO END EPS EXE \
    FOR GET GID IBM INT KEY LIB LOG LPT MAP MAX MEM MIG MIN MON NET NIX NOT NUL OFF OLD OMS OUT PAD PRN RAW REF \
    ROW SAP SET SGA SHG SID SQL SUM SYS TMP TOP TRC UID USE USR VAR";

/// The name of a system: a capital letter, then two capital letters or digits, and none of the reserved names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Sid(String);

impl Sid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut letters = text.chars();
        let good = letters.next().is_some_and(|first| first.is_ascii_uppercase())
            && letters.clone().count() == 2
            && letters.all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
        if !good {
            return Err("a SID is a capital letter and two capital letters or digits, such as HDB".to_owned());
        }
        if RESERVED.split_whitespace().any(|name| name == text) {
            return Err(format!("SAP reserves the SID {text}: choose another one"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

/// An instance number: two digits, 00 to 97.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "String")]
pub struct Number(u8);

impl Number {
    /// As a number.
    pub fn get(self) -> u16 {
        self.0.into()
    }

    /// The SQL port of SYSTEMDB, 3NN13.
    pub fn systemdb_port(self) -> u16 {
        30_013 + self.get() * 100
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u8>() {
            Ok(number) if digits && number <= 97 => Ok(Self(number)),
            _ => Err("an instance number is two digits, 00 to 97".to_owned()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:02}", self.0)
    }
}

impl From<Number> for String {
    fn from(number: Number) -> Self {
        number.to_string()
    }
}

/// A version of HANA, compared part by part as numbers: 2.00.077.0 and 2.00.77.00 are the same one.
///
/// Four parts say which version it is. A fifth is the build, which not every tool prints; it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 4]);

impl Version {
    /// Reads `2.00.063.00 Build 1655123455-1530`, `2.00.058.00.1634122452` or `2.00.077.0`.
    pub fn read(text: &str) -> Reading<Self> {
        let word = text.split_whitespace().next().unwrap_or_default();
        let mut parts = [0; 4];
        let mut given = word.split('.');
        for part in &mut parts {
            let digits = given.next().unwrap_or_default();
            let number = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 9;
            match digits.parse() {
                Ok(value) if number => *part = value,
                _ => return unclear(format!("{} is not a version such as 2.00.077.00", quoted(text))),
            }
        }
        match (given.next(), given.next()) {
            (None, None) => Ok(Self(parts)),
            (Some(build), None) if !build.is_empty() && build.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(parts))
            }
            _ => unclear(format!("{} is not a version such as 2.00.077.00", quoted(text))),
        }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|unclear| unclear.to_string())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, revision, patch] = self.0;
        write!(to, "{major}.{minor:02}.{revision:03}.{patch:02}")
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A system on this host.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name.
    pub sid: Sid,
    /// Its instance number.
    pub number: Number,
    /// The folder that takes the place of `/`: anything else than `/` is for tests.
    pub root: PathBuf,
    /// The shared folder of all systems, `/hana/shared`.
    pub sapmnt: PathBuf,
}

impl System {
    /// The system's operating system user.
    pub fn adm(&self) -> String {
        format!("{}adm", self.sid.as_str().to_ascii_lowercase())
    }

    /// A path below the root; one that lies there already is what a tool below it printed.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.starts_with(&self.root) {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `/usr/sap/HDB`
    pub fn home(&self) -> PathBuf {
        Path::new("/usr/sap").join(self.sid.as_str())
    }

    /// `/usr/sap/HDB/HDB00`
    pub fn instance(&self) -> PathBuf {
        self.home().join(format!("HDB{}", self.number))
    }

    /// `/usr/sap/HDB/HDB00/exe`
    pub fn exe(&self) -> PathBuf {
        self.instance().join("exe")
    }

    /// `/hana/shared/HDB`
    pub fn shared(&self) -> PathBuf {
        self.sapmnt.join(self.sid.as_str())
    }

    /// The manifest of the installed version.
    pub fn manifest(&self) -> PathBuf {
        self.exe().join("manifest")
    }
}

/// The instance numbers of the system that this host has folders of, such as `/usr/sap/HDB/HDB00`.
pub fn numbers(root: &Path, sid: &Sid) -> Result<Vec<Number>, Error> {
    let home = root.join("usr/sap").join(sid.as_str());
    let entries = match std::fs::read_dir(&home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::local(home.display())(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::local(home.display()))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("HDB")).map(str::parse);
        if let Some(Ok(number)) = number {
            numbers.push(number);
        }
    }
    numbers.sort_by_key(|number: &Number| number.get());
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sids_and_numbers() {
        for good in ["HDB", "H01", "ZZ9", "HA1"] {
            assert!(good.parse::<Sid>().is_ok(), "{good}");
        }
        for bad in ["", "HD", "HDBX", "hdb", "1HD", "H-B", "HÄB", "H B", "SAP", "SYS", "VAR", "ADD", "GID"] {
            assert!(bad.parse::<Sid>().is_err(), "{bad}");
        }
        assert_eq!(RESERVED.split_whitespace().count(), 66);
        for good in ["00", "07", "97"] {
            assert_eq!(good.parse::<Number>().unwrap().to_string(), good);
        }
        for bad in ["", "0", "98", "99", "100", "+1", "-1", " 1", "0x"] {
            assert!(bad.parse::<Number>().is_err(), "{bad}");
        }
        assert_eq!("97".parse::<Number>().unwrap().systemdb_port(), 39_713);
    }

    #[test]
    fn versions_are_lists_of_integers() {
        let read = |text| Version::read(text).unwrap();
        assert_eq!(read("2.00.077.0"), read("2.00.77.00 Build 1-2"));
        assert_eq!(read("2.00.058.00.1634122452"), read("2.00.058.00"));
        assert!(read("2.00.100.00") > read("2.00.99.09"));
        assert!(read("2.00.080.00") > read("2.00.079.10"));
        assert!(read("1.00.122.33") < read("2.00.000.00"));
        assert_eq!(read("2.0.63.1").to_string(), "2.00.063.01");
        for bad in [
            "",
            "2",
            "2.00.077",
            "2.00.x.00",
            "2.00.077.00.a",
            "2.00.077.00.",
            "2.00.77.0.1.2",
            "v2.0.7.0",
            "2.-1.0.0",
        ] {
            assert!(Version::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_folders_of_an_instance_say_its_number() {
        let root = tempfile::tempdir().unwrap();
        let sid: Sid = "HDB".parse().unwrap();
        assert!(numbers(root.path(), &sid).unwrap().is_empty());
        for name in ["HDB42", "HDB07", "SYS", "home", "HDB99", "D01"] {
            std::fs::create_dir_all(root.path().join("usr/sap/HDB").join(name)).unwrap();
        }
        let found: Vec<_> = numbers(root.path(), &sid).unwrap().iter().map(Number::to_string).collect();
        assert_eq!(found, ["07", "42"]);
    }
}
