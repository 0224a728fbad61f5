//! `hdblcm`: installs and updates.
//!
//! It runs for hours and prints for people. What it prints decides nothing: a change is done when the exit code is 0,
//! the manifest has the wanted version, and the processes run. Its text serves messages only.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::media::Media;
use crate::call::{As, Call, Input, Password};
use crate::error::{Reading, quoted, unclear};
use crate::secret::Secret;
use crate::system::{Number, Sid, System, Version};

/// From this version on the roles install with `install_execution_mode=optimized` (the secure store is LSS).
pub const OPTIMIZED_FROM: &str = "2.00.080.00";
/// What the roles allow: community.sap_install waits for 24 hours.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The exit codes. Only 0 and 1 are documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: it failed; its standard error has the causes.
    Failed,
    /// Any other: not documented.
    Undocumented(i32),
}

impl From<i32> for Exit {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Failed,
            code => Self::Undocumented(code),
        }
    }
}

/// What an installation may choose.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// `server,client` unless another list is given.
    pub components: Option<String>,
    /// Folder of the data volumes.
    pub data: Option<String>,
    /// Folder of the log volumes.
    pub log: Option<String>,
    /// Name of the host, where it is not the one that the system has.
    pub hostname: Option<String>,
    /// production, test, development or custom.
    pub usage: Option<String>,
    /// Number of the user `<sid>adm`.
    pub uid: Option<u32>,
    /// Number of the group sapsys.
    pub gid: Option<u32>,
}

fn passwords(elements: &[(&'static str, &'static str)]) -> Input {
    Input::PasswordXml(elements.iter().map(|&(element, secret)| Password { element, secret }).collect())
}

/// `install`, with the hdblcm of the media.
pub fn install(system: &System, media: &Media, version: &Version, choices: &Choices) -> Call {
    // Keys of the configuration file are options too: Azure/sap-automation HANA_2_00_install.rsp.
    let mut arguments = vec![
        "--batch".to_owned(),
        "--action=install".to_owned(),
        format!("--component_root={}", media.root.display()), // where the components lie
        "--verify_signature".to_owned(),                      // refuses components without SAP's signature
        format!("--sid={}", system.sid),
        format!("--number={}", system.number),
        format!("--sapmnt={}", system.sapmnt.display()),
        format!("--components={}", choices.components.as_deref().unwrap_or("server,client")),
    ];
    let mut option = |name: &str, value: Option<String>| {
        arguments.extend(value.map(|value| format!("--{name}={value}")));
    };
    option("datapath", choices.data.clone());
    option("logpath", choices.log.clone());
    option("hostname", choices.hostname.clone());
    option("system_usage", choices.usage.clone());
    option("userid", choices.uid.map(|uid| uid.to_string()));
    option("groupid", choices.gid.map(|gid| gid.to_string()));
    // community.sap_install roles/sap_hana_install check_version.yml
    let optimized = OPTIMIZED_FROM.parse().is_ok_and(|from: Version| *version >= from);
    option("install_execution_mode", optimized.then(|| "optimized".to_owned()));
    arguments.push("--read_password_from_stdin=xml".to_owned()); // no password is an argument
    Call {
        purpose: "install the system",
        source: "suse-best-practices sap-hana installation guides; community.sap_install roles/sap_hana_install hana_install.yml",
        user: As::Myself,
        program: media.hdblcm.clone(),
        arguments,
        input: passwords(&[
            ("password", "sidadm_password"),
            ("system_user_password", "system_password"),
            ("sapadm_password", "sapadm_password"),
        ]),
        timeout: LONG,
    }
}

/// Which part of an update a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What needs no downtime.
    Prepare,
    /// The rest, also of what was prepared or interrupted; with the start of the system or without it.
    Finish {
        /// `false` for a former primary that will be registered as a secondary.
        start: bool,
    },
}

/// `update`, with the hdblcm of the new media.
pub fn update(system: &System, media: &Media, part: Part) -> Call {
    let mut arguments = vec![
        "--batch".to_owned(),
        "--action=update".to_owned(),
        format!("--component_root={}", media.root.display()),
        "--verify_signature".to_owned(),
        format!("--sid={}", system.sid),
        "--system_user=SYSTEM".to_owned(),
        "--components=all".to_owned(), // all that are installed and that the media has
    ];
    match part {
        // SAP HANA Platform Lifecycle Management slides, SPS10
        Part::Prepare => arguments.push("--prepare_update".to_owned()),
        // yast-hana-update doc/procedure.md
        Part::Finish { start: false } => arguments.push("--hdbupd_server_nostart".to_owned()),
        Part::Finish { start: true } => {}
    }
    arguments.push("--read_password_from_stdin=xml".to_owned());
    Call {
        purpose: if part == Part::Prepare {
            "prepare the update, without downtime"
        } else {
            "update the system"
        },
        source: "SUSE updateSapHana.pl; SUSE/yast-hana-update doc/procedure.md",
        user: As::Myself,
        program: media.hdblcm.clone(),
        arguments,
        input: passwords(&[("password", "sidadm_password"), ("system_user_password", "system_password")]),
        timeout: LONG,
    }
}

/// `--uninstall`, with the resident hdblcm: all components, and the system with them.
pub fn uninstall(system: &System) -> Call {
    Call {
        purpose: "uninstall the system",
        source: "community.sap_install roles/sap_hana_install README; transcripts of 1.00.121",
        user: As::Myself,
        program: system.shared().join("hdblcm/hdblcm"),
        arguments: ["--uninstall", "-b", "--components=all"].map(str::to_owned).to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(4 * 3600),
    }
}

/// `--list_systems`, with the resident hdblcm.
pub fn list_systems(system: &System) -> Call {
    Call {
        purpose: "list the systems that hdblcm knows",
        source: "community.sap_install roles/sap_hana_install README (add hosts)",
        user: As::Myself,
        program: system.shared().join("hdblcm/hdblcm"),
        arguments: vec!["--list_systems".to_owned()],
        input: Input::Nothing,
        timeout: Duration::from_secs(120),
    }
}

/// The passwords as hdblcm reads them.
pub fn password_xml(passwords: &[(&'static str, Secret)]) -> Zeroizing<String> {
    // Enough room for all of it: a text that grew would leave copies behind.
    let room = passwords
        .iter()
        .map(|(element, value)| 4 * value.expose().len() + 2 * element.len() + 64)
        .sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(room + 128));
    text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Passwords>\n");
    for (element, value) in passwords {
        for part in ["<", element, "><![CDATA["] {
            text.push_str(part);
        }
        // The end of a CDATA section is the one text that it cannot hold.
        for (at, piece) in value.expose().split("]]>").enumerate() {
            if at > 0 {
                text.push_str("]]]]><![CDATA[>");
            }
            text.push_str(piece);
        }
        for part in ["]]></", element, ">\n"] {
            text.push_str(part);
        }
    }
    text.push_str("</Passwords>\n");
    text
}

/// A system in the answer of `--list_systems`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, from its folder.
    pub sid: Sid,
    /// Its instance number; `None` where the block has none.
    pub number: Option<Number>,
    /// Its version. A half-failed installation can have one too.
    pub version: Version,
}

/// Reads the answer of `--list_systems`: blocks that begin with the folder of a system.
pub fn listed(exit: Exit, text: &str) -> Reading<Vec<Listed>> {
    if exit != Exit::Done {
        return unclear(format!("hdblcm --list_systems ended with {exit:?}"));
    }
    let mut systems = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some(sid) = folder(line) else { continue };
        let (mut version, mut number) = (None, None);
        while let Some(line) = lines.next_if(|line| folder(line).is_none()) {
            if let Some(value) = line.strip_prefix("version:") {
                version = Some(Version::read(value.trim())?);
            }
            if let Some(Ok(value)) = line.strip_prefix("HDB").filter(|rest| rest.len() == 2).map(str::parse) {
                number = Some(value);
            }
        }
        let Some(version) = version else {
            return unclear(format!("hdblcm lists {sid} without its version"));
        };
        systems.push(Listed { sid, number, version });
    }
    if systems.is_empty() {
        return unclear(format!("hdblcm lists no system in {}", quoted(text.trim())));
    }
    Ok(systems)
}

fn folder(line: &str) -> Option<Sid> {
    let path = line.split_whitespace().next().filter(|word| word.starts_with('/'))?;
    Path::new(path).file_name()?.to_str()?.parse().ok()
}

/// Where hdblcm says that its log is: `Log file written to '…' on host '…'.`
pub fn log_file(text: &str) -> Option<&str> {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("Log file written to '"))?;
    line.split_once('\'').map(|(path, _)| path)
}

/// The causes on standard error, from the outermost to the innermost, as one line.
pub fn causes(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(5);
    let joined = lines.get(from..).unwrap_or_default().join(": ");
    joined.chars().filter(|letter| !letter.is_control()).take(600).collect()
}

/// An hdblcm that did not come to its end leaves a file; the next run goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Of an installation.
    Installation,
    /// Of an update.
    Update,
}

/// What the names in `/hana/shared/<SID>` say of an unfinished hdblcm.
///
/// Source: a gist by shaheerxt, one report; a name that is like these without being one of them is not understood.
pub fn unfinished<'a>(sid: &Sid, names: impl IntoIterator<Item = &'a str>) -> Reading<Option<Unfinished>> {
    let mut found = None;
    for name in names {
        let Some(rest) = name.strip_prefix(sid.as_str()).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        found = match rest {
            "hdblcm.update" => Some(Unfinished::Update),
            // The state of the server's installer, which an update has as well.
            "hdbinstall" | "hdblcm.install" => found.or(Some(Unfinished::Installation)),
            rest if rest.starts_with("hdb") => {
                return unclear(format!(
                    "a file {name} in the system's folder, which may be an unfinished hdblcm"
                ));
            }
            _ => found,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secrets;

    #[test]
    fn every_documented_exit_code() {
        for (code, exit) in
            [(0, Exit::Done), (1, Exit::Failed), (2, Exit::Undocumented(2)), (255, Exit::Undocumented(255))]
        {
            assert_eq!(Exit::from(code), exit);
        }
    }

    #[test]
    fn passwords_survive_xml() {
        let folder = tempfile::tempdir().unwrap();
        let secret = |text: &str| {
            std::fs::write(folder.path().join("x"), text).unwrap();
            Secrets::new(Some(folder.path().to_owned())).read("x").map_err(|error| error.to_string()).unwrap()
        };
        let text = password_xml(&[("password", secret("a<&>b")), ("sapadm_password", secret("x]]>y]]>"))]);
        assert_eq!(
            text.as_str(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Passwords>\n\
             <password><![CDATA[a<&>b]]></password>\n\
             <sapadm_password><![CDATA[x]]]]><![CDATA[>y]]]]><![CDATA[>]]></sapadm_password>\n</Passwords>\n"
        );
    }

    #[test]
    fn systems() {
        let text = "Known systems\n\n/hana/shared/HDB\n  HDB00\n  version: 2.00.077.0.1712345678\n  host: east1 (Database Worker)\n\
                    \n/hana/shared/QA1 (update)\n  version: 2.00.059.12\n  hosts: a, b\n";
        let systems = listed(Exit::Done, text).unwrap();
        assert_eq!(systems.len(), 2);
        assert_eq!((systems[0].sid.as_str(), systems[0].number.unwrap().get()), ("HDB", 0));
        assert_eq!(systems[0].version, "2.00.077.00".parse().unwrap());
        assert_eq!((systems[1].sid.as_str(), systems[1].number), ("QA1", None));
        for odd in [
            "",
            "No systems",
            "/hana/shared/HDB\n host: a\n",
            "/hana/shared/HDB\n version: new\n",
            "/hana/shared/hdb\n version: 2.00.077.00\n",
        ] {
            assert!(listed(Exit::Done, odd).is_err(), "{odd}");
        }
        assert!(listed(Exit::Failed, text).is_err());
    }

    #[test]
    fn logs_and_causes() {
        let out = "Updating components...\nLog file written to '/var/tmp/hdb_HDB_hdblcm_update_2026-11-21_01.02.03/hdblcm.log' on host 'east1'.\n";
        assert_eq!(log_file(out), Some("/var/tmp/hdb_HDB_hdblcm_update_2026-11-21_01.02.03/hdblcm.log"));
        assert_eq!(log_file("nothing"), None);
        let err =
            "Update of components failed.\n  Update of the database failed\n    Port 50013 is in use\n\n";
        assert_eq!(
            causes(err),
            "Update of components failed.: Update of the database failed: Port 50013 is in use"
        );
        assert!(causes(&"x\n".repeat(10_000)).len() < 100);
    }

    #[test]
    fn unfinished_work() {
        let sid: Sid = "HDB".parse().unwrap();
        let of = |names: &[&str]| unfinished(&sid, names.iter().copied());
        assert_eq!(of(&["HDB00", "global", "profile", "hdblcm", "hdbclient", "HDB.txt"]), Ok(None));
        assert_eq!(of(&["HDB.hdbinstall"]), Ok(Some(Unfinished::Installation)));
        assert_eq!(of(&["HDB.hdbinstall", "HDB.hdblcm.update"]), Ok(Some(Unfinished::Update)));
        assert_eq!(of(&["HDB.hdblcm.update", "HDB.hdbinstall"]), Ok(Some(Unfinished::Update)));
        assert_eq!(of(&["QA1.hdblcm.update"]), Ok(None));
        assert!(of(&["HDB.hdbupd"]).is_err());
    }
}
