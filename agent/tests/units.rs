//! Holds what systemd reads against systemd 239, the oldest one that the packages name: RHEL 8 and SLES 15 have it.
//!
//! systemd ignores a directive that it does not know, and logs it. So each directive newer than 239 is in the comment of
//! the unit that says what protects the host without it, and a value that 239 does not know is used nowhere: such a value
//! could also be ignored where nobody expects it. The versions are those of systemd's manual pages ("Added in version").

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::collections::BTreeMap;

const SERVICE: &str = include_str!("../../systemd/hostler.service");
const SLICE: &str = include_str!("../../systemd/hostler.slice");
const TMPFILES: &str = include_str!("../../systemd/hostler.tmpfiles");
const SYSUSERS: &str = include_str!("../../systemd/hostler.sysusers");
const PRESET: &str = include_str!("../../systemd/hostler.preset");

/// The oldest systemd.
const OLDEST: u32 = 239;

/// The directives of our units, each with the version that brought it; 0: before 220.
const DIRECTIVES: [(&str, u32); 59] = [
    ("After", 0),
    ("AmbientCapabilities", 229),
    ("Before", 0),
    ("CapabilityBoundingSet", 0),
    ("Description", 0),
    ("DevicePolicy", 0),
    ("Documentation", 0),
    ("ExecReload", 0),
    ("ExecStart", 0),
    ("KeyringMode", 235),
    ("LimitCORE", 0),
    ("LoadCredential", 247),
    ("LockPersonality", 235),
    ("LogsDirectory", 235),
    ("LogsDirectoryMode", 235),
    ("MemoryDenyWriteExecute", 231),
    ("MemoryMax", 231),
    ("NoNewPrivileges", 0),
    ("NotifyAccess", 0),
    ("PrivateDevices", 0),
    ("PrivateMounts", 239),
    ("PrivateTmp", 0),
    ("ProtectClock", 245),
    ("ProtectHome", 0),
    ("ProtectHostname", 242),
    ("ProtectKernelLogs", 244),
    ("ProtectKernelModules", 232),
    ("ProtectSystem", 0),
    ("ReadOnlyPaths", 231),
    ("RemoveIPC", 232),
    ("Restart", 0),
    ("RestartSec", 0),
    ("RestrictAddressFamilies", 0),
    ("RestrictNamespaces", 233),
    ("RestrictRealtime", 231),
    ("RestrictSUIDSGID", 242),
    ("RuntimeDirectory", 0),
    ("RuntimeDirectoryMode", 0),
    ("RuntimeDirectoryPreserve", 235),
    ("SetCredential", 247),
    ("StartLimitIntervalSec", 230),
    ("StateDirectory", 235),
    ("StateDirectoryMode", 235),
    ("SystemCallArchitectures", 0),
    ("SystemCallErrorNumber", 0),
    ("SystemCallFilter", 0),
    ("TasksMax", 227),
    ("TimeoutStartSec", 0),
    ("TimeoutStopSec", 0),
    ("Type", 0),
    ("UMask", 0),
    ("WantedBy", 0),
    ("Wants", 0),
    ("WatchdogSec", 0),
    // Not used today. In the table, so that whoever adds one of them learns here what RHEL 8 makes of it.
    ("ExecCondition", 243),
    ("OOMPolicy", 243),
    ("ProcSubset", 247),
    ("ProtectProc", 247),
    ("RestartSteps", 254),
];

/// The values that came later than their directive. Any other value of these is as old as 239 at least.
const VALUES: [(&str, &str, u32); 16] = [
    ("Type", "exec", 240),
    ("Type", "notify-reload", 253),
    ("ProtectSystem", "strict", 232),
    ("ProtectHome", "read-only", 0),
    ("ProtectHome", "tmpfs", 239),
    ("KeyringMode", "private", 235),
    ("SystemCallFilter", "@system-service", 239),
    ("SystemCallFilter", "@resources", 231),
    ("SystemCallFilter", "@privileged", 231),
    ("SystemCallFilter", "@clock", 231),
    ("SystemCallFilter", "@known", 248),
    ("SystemCallFilter", "@pkey", 250),
    ("SystemCallFilter", "@sandbox", 254),
    ("PrivateTmp", "disconnected", 257),
    ("ProtectHostname", "private", 258),
    ("Restart", "on-failure", 0),
];

fn version(directive: &str) -> u32 {
    let row = DIRECTIVES.iter().find(|(name, _)| *name == directive);
    row.unwrap_or_else(|| {
        panic!("{directive}= is not in the table of versions: take its version from systemd's manual")
    })
    .1
}

/// The directives of a unit, in their order, with their values.
fn directives(unit: &str) -> Vec<(&str, &str)> {
    let lines = unit.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    lines.map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line} is no directive"))).collect()
}

/// What a unit's comment says of systemd 239: each directive with the version that brought it.
fn explained(unit: &str) -> BTreeMap<&str, u32> {
    let mut explained = BTreeMap::new();
    let from = unit.lines().skip_while(|line| !line.starts_with("# systemd 239 ")).skip(1);
    for line in from.take_while(|line| line.starts_with("#   ")) {
        let (names, rest) = line.trim_start_matches(['#', ' ']).split_once(" (").unwrap();
        let (version, instead) = rest.split_once(')').unwrap();
        assert!(!instead.trim().is_empty(), "nothing is said to protect in place of {names}");
        for name in names.split(", ") {
            explained.insert(name.strip_suffix('=').unwrap(), version.parse().unwrap());
        }
    }
    explained
}

#[test]
fn what_systemd_239_does_not_know_is_explained_in_the_unit() {
    for unit in [SERVICE, SLICE] {
        let newer: BTreeMap<&str, u32> = directives(unit)
            .into_iter()
            .map(|(name, _)| (name, version(name)))
            .filter(|(_, version)| *version > OLDEST)
            .collect();
        assert_eq!(explained(unit), newer, "the comment and the unit differ");
    }
    assert!(!explained(SERVICE).is_empty());
}

#[test]
fn no_value_is_newer_than_systemd_239() {
    for (name, value) in [SERVICE, SLICE].into_iter().flat_map(directives) {
        // A list: `~` takes away. A directive that is ignored as a whole has no value to look at.
        for word in value.split_whitespace().map(|word| word.trim_start_matches('~')) {
            let known = VALUES.iter().find(|(directive, known, _)| (*directive, *known) == (name, word));
            assert!(known.is_none_or(|(.., version)| *version <= OLDEST), "{name}={word} is too new");
            assert!(known.is_some() || !word.starts_with('@'), "{word} is not in the table of versions");
        }
    }
}

#[test]
fn tmpfiles_sysusers_and_presets_are_those_of_systemd_239() {
    let rows = |text: &'static str| text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for row in rows(TMPFILES) {
        let fields: Vec<&str> = row.split_whitespace().collect();
        // Modifiers beside `+` and `!`, and specifiers, are newer or change their meaning.
        assert!(matches!(fields.first(), Some(&("d" | "D" | "f" | "z"))), "{row}");
        assert!(fields.len() >= 5 && !row.contains('%'), "{row}");
        let mode = fields.get(2).unwrap();
        assert!(mode.len() == 4 && mode.chars().all(|c| ('0'..='7').contains(&c)), "{row}");
    }
    for row in rows(SYSUSERS) {
        let fields: Vec<&str> = row.splitn(4, ' ').collect();
        assert!(matches!(*fields, ["u", "hostler", "-", _]), "{row}");
    }
    for row in rows(PRESET) {
        assert_eq!(row, "enable hostler.service");
    }
    assert_eq!([TMPFILES, SYSUSERS, PRESET].map(|text| rows(text).count()), [3, 1, 1]);
}
