//! The host itself: memory, disks, ports, users, processes, clock, and what SAP's host agent lists.
//!
//! Sources of the kernel's files: proc(5), proc_meminfo(5), the kernel's admin-guide/mm/transhuge.

use std::time::Duration;

use crate::call::{As, Call, Input};
use crate::error::{Reading, quoted, unclear};
use crate::system::{Number, Sid};

/// All of the memory in bytes, from `/proc/meminfo`.
pub fn memory(text: &str) -> Reading<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib =
        line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    match kib.and_then(|kib| kib.checked_mul(1024)) {
        Some(bytes) => Ok(bytes),
        None => unclear("/proc/meminfo has no line MemTotal in kB"),
    }
}

/// Which choice is on, from `/sys/kernel/mm/transparent_hugepage/enabled`: `always [madvise] never`.
pub fn huge_pages(text: &str) -> Reading<String> {
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        Some((choice @ ("always" | "madvise" | "never"), _)) => Ok(choice.to_owned()),
        _ => unclear(format!("transparent_hugepage/enabled is {}", quoted(text.trim()))),
    }
}

/// The TCP ports that something listens on, from `/proc/net/tcp` or `/proc/net/tcp6`.
pub fn listening(text: &str) -> Reading<Vec<u16>> {
    let mut ports = Vec::new();
    for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next(), words.nth(1));
        let port =
            local.and_then(|address| address.rsplit_once(':')).map(|(_, port)| u16::from_str_radix(port, 16));
        match (port, state) {
            (Some(Ok(port)), Some("0A")) => ports.push(port),
            (Some(Ok(_)), Some(_)) => {}
            _ => return unclear(format!("a line of /proc/net/tcp is {}", quoted(line))),
        }
    }
    Ok(ports)
}

/// The ports that an instance listens on or that its tenants are given first.
pub fn ports(number: Number) -> Vec<u16> {
    let tens = number.get() * 100;
    // Nameserver, SQL of SYSTEMDB and of the first tenant, sapstartsrv over HTTP and HTTPS.
    vec![30_001 + tens, 30_013 + tens, 30_015 + tens, 50_013 + tens, 50_014 + tens]
}

/// Whether a command line of `/proc/<pid>/cmdline` is an hdblcm at work, and what it does.
pub fn hdblcm(cmdline: &[u8]) -> Option<String> {
    let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let is = |word: &str| word == "hdblcm" || word.ends_with("/hdblcm");
    // The program itself, or an interpreter with it as its first argument.
    if !words.iter().take(2).any(|word| is(word)) {
        return None;
    }
    let action = words.iter().find(|word| word.starts_with("--action=") || *word == "--uninstall");
    Some(action.map_or_else(|| "hdblcm".to_owned(), |action| format!("hdblcm {action}")))
}

/// Whether a command line of `/proc/<pid>/cmdline` is the client of a recovery of that system, and which.
pub fn recovery(cmdline: &[u8], sid: &Sid) -> Option<String> {
    let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let is = |word: &str| {
        ["hdbsql", "HDBSettings.sh", "recoverSys.py"].iter().any(|tool| word.rsplit('/').next() == Some(tool))
    };
    // The program itself, or an interpreter with it as its first argument.
    // Its path has the system's name.
    let own = format!("/{sid}/");
    if !words.iter().take(2).any(|word| is(word) && (!word.starts_with('/') || word.contains(&own))) {
        return None;
    }
    words.iter().find(|word| word.contains("RECOVER DATA")).map(|word| word.chars().take(160).collect())
}

/// Whether a command line of `/proc/<pid>/cmdline` is SAPCAR at work, and on what.
pub fn extraction(cmdline: &[u8]) -> Option<String> {
    let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let is = words.first().is_some_and(|word| word.rsplit('/').next() == Some("SAPCAR"));
    is.then(|| words.join(" ").chars().take(160).collect())
}

/// Whether systemd holds the clock for synchronized.
pub fn clock_call() -> Call {
    Call {
        purpose: "ask whether the clock is synchronized",
        source: "systemd timedatectl(1)",
        user: As::Myself,
        program: "/usr/bin/timedatectl".into(),
        arguments: ["show", "--property=NTPSynchronized", "--value"].map(str::to_owned).to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(10),
    }
}

/// Reads the answer of [`clock_call`].
pub fn clock(exit: i32, text: &str) -> Reading<bool> {
    match (exit, text.trim()) {
        (0, "yes") => Ok(true),
        (0, "no") => Ok(false),
        (exit, other) => unclear(format!("timedatectl ended with {exit} and printed {}", quoted(other))),
    }
}

/// The addresses that a host name has.
pub fn resolve_call(name: &str) -> Call {
    Call {
        purpose: "resolve the name of this host",
        source: "getent(1)",
        user: As::Myself,
        program: "/usr/bin/getent".into(),
        arguments: ["ahosts", name].map(str::to_owned).to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(15),
    }
}

/// The exit codes of getent. Source: getent(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Getent {
    /// 0
    Found,
    /// 1: an argument is missing, or the database is unknown.
    Usage,
    /// 2: no such key.
    NotFound,
    /// 3: the database cannot be enumerated.
    NoEnumeration,
    /// Any other: not documented.
    Undocumented(i32),
}

impl From<i32> for Getent {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::Found,
            1 => Self::Usage,
            2 => Self::NotFound,
            3 => Self::NoEnumeration,
            code => Self::Undocumented(code),
        }
    }
}

/// Reads the answer of [`resolve_call`]. No address: the name is not known.
pub fn addresses(exit: Getent, text: &str) -> Reading<Vec<std::net::IpAddr>> {
    match exit {
        Getent::NotFound => return Ok(Vec::new()),
        Getent::Found => {}
        other => return unclear(format!("getent ended with {other:?}")),
    }
    let mut found = Vec::new();
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        // A link-local address has its interface behind it.
        let word = word.split_once('%').map_or(word, |(address, _)| address);
        match word.parse() {
            Ok(address) if found.contains(&address) => {}
            Ok(address) => found.push(address),
            Err(_) => return unclear(format!("getent printed {}", quoted(line))),
        }
    }
    if found.is_empty() { unclear("getent found a name without an address") } else { Ok(found) }
}

/// `saphostctrl -function ListInstances`
pub fn instances_call() -> Call {
    Call {
        purpose: "list the instances that SAP's host agent knows",
        source: "community.sap_install roles/sap_hana_install hana_exists.yml; RedHatInsights insights-core",
        user: As::Myself,
        program: "/usr/sap/hostctrl/exe/saphostctrl".into(),
        arguments: ["-function", "ListInstances"].map(str::to_owned).to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(60),
    }
}

/// An instance in the list of SAP's host agent. It may be of an installation that failed half-way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its system; the agent's own is DAA, so this is not a [`Sid`].
    pub sid: String,
    /// Its number; 98 of the agent's own is no HANA number, so this is not a [`Number`].
    pub number: u8,
}

impl Instance {
    /// Whether it is an instance of that system.
    pub fn is_of(&self, sid: &Sid) -> bool {
        self.sid == sid.as_str()
    }
}

/// Reads the answer of [`instances_call`]: lines `Inst Info : HDB - 00 - host - 753, patch 1100, changelist 2200000`.
pub fn instances(exit: i32, text: &str) -> Reading<Vec<Instance>> {
    if exit != 0 {
        return unclear(format!("saphostctrl ended with {exit} and printed {}", quoted(text.trim())));
    }
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields = line.strip_prefix("Inst Info").and_then(|rest| rest.trim_start().strip_prefix(':'));
        let mut fields = fields.unwrap_or_default().split(" - ").map(str::trim);
        let (sid, number, host) = (fields.next(), fields.next(), fields.next());
        match (sid, number.map(str::parse), host) {
            (Some(sid), Some(Ok(number)), Some(_)) if sid.len() == 3 => {
                found.push(Instance { sid: sid.to_owned(), number });
            }
            _ => return unclear(format!("saphostctrl printed {}", quoted(line))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_recoveries() {
        let sid = "HDB".parse().unwrap();
        let of = |words: &[&str]| recovery(words.join("\0").as_bytes(), &sid).is_some();
        assert!(of(&[
            "/usr/sap/HDB/HDB00/exe/hdbsql",
            "-U",
            "K",
            "RECOVER DATABASE FOR HDB UNTIL TIMESTAMP 'x'"
        ]));
        assert!(of(&[
            "/bin/sh",
            "/usr/sap/HDB/HDB00/HDBSettings.sh",
            "recoverSys.py",
            "--command=RECOVER DATA x"
        ]));
        let script = "/usr/sap/HDB/HDB00/exe/python_support/recoverSys.py";
        assert!(of(&["python3", script, "--command=RECOVER DATABASE"]));
        assert!(of(&["python3", "recoverSys.py", "--command=RECOVER DATABASE"]));
        assert!(!of(&["/usr/sap/QA1/HDB10/exe/hdbsql", "-U", "K", "RECOVER DATABASE FOR QA1"]));
        assert!(!of(&["/usr/sap/HDB/HDB00/exe/hdbsql", "-U", "K", "SELECT 1 FROM DUMMY"]));
        assert!(!of(&["vi", "notes", "RECOVER DATABASE"]));
        assert!(!of(&[]));
        assert!(extraction(b"/usr/sap/hostctrl/exe/SAPCAR\0-R\0/m\0-xvf\0a.SAR\0").is_some());
        assert!(extraction(b"vi\0SAPCAR\0").is_none() && extraction(b"").is_none());
    }

    #[test]
    fn the_kernels_files() {
        assert_eq!(memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Ok(16 << 20));
        for odd in ["", "MemTotal: 1", "MemTotal: x kB", "MemTotal: 99999999999999999999 kB"] {
            assert!(memory(odd).is_err());
        }
        for choice in ["always", "madvise", "never"] {
            let text = "always madvise never\n".replace(choice, &format!("[{choice}]"));
            assert_eq!(huge_pages(&text), Ok(choice.to_owned()));
        }
        assert!(huge_pages("").is_err());
        assert!(huge_pages("[maybe]").is_err());
        let tcp = "  sl  local_address rem_address   st tx_queue\n\
                   \x20  0: 0100007F:C35D 00000000:0000 0A 00000000:00000000 00:00000000\n\
                   \x20  1: 0100007F:1F90 0100007F:0001 01 00000000:00000000 00:00000000\n";
        assert_eq!(listening(tcp), Ok(vec![50_013]));
        assert!(listening("header\nnonsense\n").is_err());
        assert_eq!(ports("97".parse().unwrap()), [39_701, 39_713, 39_715, 59_713, 59_714]);
    }

    #[test]
    fn an_hdblcm_at_work() {
        let line = |words: &[&str]| words.join("\0").into_bytes();
        assert_eq!(
            hdblcm(&line(&["/m/SAP_HANA_DATABASE/hdblcm", "--action=update"])),
            Some("hdblcm --action=update".to_owned())
        );
        assert_eq!(
            hdblcm(&line(&["perl", "/hana/shared/HDB/hdblcm/hdblcm", "-b"])),
            Some("hdblcm".to_owned())
        );
        assert_eq!(hdblcm(&line(&["./hdblcm", "--uninstall"])), Some("hdblcm --uninstall".to_owned()));
        assert_eq!(hdblcm(&line(&["vi", "-R", "/x/hdblcm"])), None);
        assert_eq!(hdblcm(&line(&["tail", "hdblcm.log"])), None);
        assert_eq!(hdblcm(b""), None);
    }

    #[test]
    fn clock_and_names() {
        assert_eq!(clock(0, "yes\n"), Ok(true));
        assert_eq!(clock(0, "no\n"), Ok(false));
        assert!(clock(1, "").is_err() && clock(0, "perhaps").is_err());
        for (code, exit) in [
            (0, Getent::Found),
            (1, Getent::Usage),
            (2, Getent::NotFound),
            (3, Getent::NoEnumeration),
            (4, Getent::Undocumented(4)),
        ] {
            assert_eq!(Getent::from(code), exit);
        }
        let text = "10.1.2.3        STREAM east1\n10.1.2.3        DGRAM  \nfe80::1%eth0 STREAM\n";
        assert_eq!(addresses(Getent::Found, text).unwrap().len(), 2);
        assert_eq!(addresses(Getent::NotFound, ""), Ok(Vec::new()));
        assert!(addresses(Getent::Found, "").is_err());
        assert!(addresses(Getent::Found, "east1 10.1.2.3").is_err());
        assert!(addresses(Getent::Usage, text).is_err());
    }

    #[test]
    fn instances_of_the_host_agent() {
        let text = " Inst Info : HDB - 00 - east1 - 753, patch 1100, changelist 2200000\n Inst Info : DAA - 98 - east1 - 753, patch 1100\n";
        let found = instances(0, text).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].is_of(&"HDB".parse().unwrap()));
        assert_eq!((found[1].sid.as_str(), found[1].number), ("DAA", 98));
        assert_eq!(instances(0, ""), Ok(Vec::new()));
        assert!(instances(1, text).is_err());
        assert!(instances(0, "Inst Info : HDB - zero - east1 - 753").is_err());
        assert!(instances(0, "Error: no host agent").is_err());
    }
}
