//! `check`.

use serde_json::Value;

use crate::host::Host;

fn finding<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["subject"] == subject)
        .unwrap_or_else(|| panic!("{subject}: {report:#}"))
}

/// Runs the check; returns its report and its exit code.
fn check(host: &Host, before: &str) -> (Value, i32) {
    let answer = host.run(&["--json", "check", "--before", before, "--number", "00"]);
    (answer.json(), answer.code())
}

#[test]
fn a_healthy_system_may_be_updated() {
    let host = Host::healthy();
    let (report, code) = check(&host, "update");
    assert_eq!((code, &report["forbidden"]), (0, &Value::Bool(false)), "{report:#}");
    assert_eq!(finding(&report, "processes")["understood"], "all 1 run");
    assert!(
        finding(&report, "processes")["raw"]
            .as_str()
            .unwrap()
            .starts_with("exit code 3: 21.11.2026 04:05:06 | GetProcessList | OK")
    );
    assert_eq!(finding(&report, "installed version")["understood"], "HDB 2.00.077.00 is installed");
    assert_eq!(finding(&report, "license")["understood"], "valid");
    assert_eq!(finding(&report, "backup of HDB")["weight"], "fine");
    assert_eq!(finding(&report, "hdblcm list")["weight"], "fine");
    // Nothing but questions was asked.
    let asked = host.calls();
    for word in [
        "StartSystem",
        "StopSystem",
        "--action",
        "BACKUP DATA",
        "ALTER",
        "DELETE",
        "-sr_takeover",
        "recoverSys",
    ] {
        assert!(!asked.contains(word), "{asked}");
    }
    // Ten of the host and the system, and three of the backup of each database.
    assert_eq!(asked.lines().count(), 16, "{asked}");
}

#[test]
fn what_forbids_an_update() {
    type Disturb<'a> = &'a dyn Fn(&Host);
    let cases: [(&str, Disturb<'_>); 9] = [
        ("processes", &|host| {
            host.script(
                "usr/sap/HDB/HDB00/exe/sapcontrol",
                "printf '\\n21.11.2026 04:05:06\\nGetProcessList\\nFAIL: NIECONN_REFUSED\\n'; exit 1",
            );
        }),
        ("processes", &|host| {
            host.script("usr/sap/HDB/HDB00/exe/sapcontrol", "echo 'sapcontrol: new format'; exit 3");
        }),
        ("license", &|host| host.sql("*M_LICENSE*) printf 'VALID\\n\"FALSE\"\\n' ;;")),
        ("backup of HDB", &|host| {
            host.sql("*M_DATABASES*) printf 'DATABASE_NAME,ACTIVE_STATUS\\n\"HDB\",\"YES\"\\n\"SYSTEMDB\",\"YES\"\\n' ;;\n*M_BACKUP_CATALOG*) printf 'DATABASE_NAME,BACKUP_ID,ENTRY_TYPE_NAME,STATE_NAME,UTC_START_TIME,UTC_END_TIME\\n' ;;");
        }),
        ("databases", &|host| {
            host.sql("*M_DATABASES*) echo '* 10: authentication failed SQLSTATE: 28000' >&2; exit 0 ;;")
        }),
        ("backup at work", &|host| {
            host.sql("*M_BACKUP_CATALOG*) printf 'DATABASE_NAME,BACKUP_ID,ENTRY_TYPE_NAME,STATE_NAME,UTC_START_TIME,UTC_END_TIME\\n\"HDB\",7,\"data snapshot\",\"prepared\",\"2026-11-21 01:02:03\",?\\n' ;;");
        }),
        ("other hdblcm", &|host| {
            host.file("proc/4711/cmdline", "/media/SAP_HANA_DATABASE/hdblcm\0--action=update\0");
            host.file("proc/4711/comm", "hdblcm\n");
        }),
        ("Pacemaker", &|host| {
            host.file("proc/815/cmdline", "/usr/sbin/pacemakerd\0");
            host.file("proc/815/comm", "pacemakerd\n");
        }),
        ("unfinished hdblcm", &|host| {
            host.file("hana/shared/HDB/HDB.hdbinstall", "");
        }),
    ];
    for (subject, disturb) in cases {
        let host = Host::healthy();
        disturb(&host);
        let (report, code) = check(&host, "update");
        assert_eq!(code, 1, "{subject}: {report:#}");
        let weight = finding(&report, subject)["weight"].as_str().unwrap().to_owned();
        assert!(["forbids", "unclear"].contains(&weight.as_str()), "{subject}: {report:#}");
        // The same host without a change to come is only described.
        assert_eq!(host.run(&["check"]).code(), 0, "{subject}");
    }
}

#[test]
fn an_update_that_is_half_done_goes_on() {
    let host = Host::healthy();
    host.file("hana/shared/HDB/HDB.hdblcm.update", "");
    assert_eq!(check(&host, "update").1, 0);
    assert_eq!(check(&host, "restore").1, 1);
}

#[test]
fn an_installation_wants_an_empty_host() {
    let host = Host::empty();
    let (report, code) = check(&host, "install");
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(finding(&report, "host agent")["understood"], "no SAP host agent is installed");
    // An installation that failed half-way: the host agent lists it, and no version is there.
    host.script(
        "usr/sap/hostctrl/exe/saphostctrl",
        "echo ' Inst Info : HDB - 00 - east1 - 753, patch 1, changelist 2'",
    );
    let (report, code) = check(&host, "install");
    assert_eq!((code, finding(&report, "host agent")["weight"].as_str().unwrap()), (1, "forbids"));
    assert_eq!(finding(&report, "installed version")["understood"], "HDB is not installed here");
    // A host agent that cannot answer is not a host without instances.
    host.script("usr/sap/hostctrl/exe/saphostctrl", "exit 1");
    let (report, code) = check(&host, "install");
    assert_eq!((code, finding(&report, "host agent")["weight"].as_str().unwrap()), (1, "unclear"));
    assert_eq!(check(&host, "update").1, 1);

    let host = Host::empty();
    host.file("proc/net/tcp", "  sl  local_address rem_address   st\n   0: 00000000:C35D 00000000:0000 0A\n");
    assert_eq!(finding(&check(&host, "install").0, "ports")["understood"], "in use: 50013");
    assert_eq!(check(&Host::healthy(), "install").1, 1);
}

#[test]
fn a_takeover_belongs_on_a_secondary() {
    let host = Host::healthy();
    assert_eq!(finding(&check(&host, "takeover").0, "replication")["weight"], "forbids");
    host.script(
        "usr/sap/HDB/HDB00/exe/hdbnsutil",
        "printf 'SAPCONTROL-OK: <begin>\\nonline=true\\nmode=sync\\nsite name=WEST\\nSAPCONTROL-OK: <end>\\ndone.\\n'",
    );
    let (report, code) = check(&host, "takeover");
    assert_eq!(finding(&report, "replication")["understood"], "secondary (sync), WEST");
    // How far it is cannot be seen here, so nothing is allowed on a guess.
    assert_eq!((code, finding(&report, "takeover readiness")["weight"].as_str().unwrap()), (1, "unclear"));
    assert!(!host.calls().lines().last().unwrap().contains("hdbsql"), "a secondary answers no SQL");
}

#[test]
fn media_is_compared_as_numbers() {
    let host = Host::healthy();
    host.script("media/SAP_HANA_DATABASE/hdblcm", "exit 1");
    host.file("media/SAP_HANA_DATABASE/SIGNATURE.SMF", "");
    for (version, code, understood) in [
        ("2.00.100.00", 0, "2.00.100.00"),
        ("2.00.77.0", 0, "2.00.077.00 is installed already"),
        ("2.00.9.00", 1, "2.00.009.00 is older than the installed 2.00.077.00"),
    ] {
        host.file("media/SAP_HANA_DATABASE/server/manifest", &format!("fullversion: {version} Build 1-2\n"));
        let answer = host.run(&["--json", "check", "--before", "update", "--media", "/media"]);
        assert_eq!(
            (answer.code(), finding(&answer.json(), "media")["understood"].as_str().unwrap()),
            (code, understood)
        );
    }
    std::fs::remove_file(host.path().join("media/SAP_HANA_DATABASE/SIGNATURE.SMF")).unwrap();
    host.file("media/SAP_HANA_DATABASE/server/manifest", "fullversion: 2.00.100.00\n");
    let answer = host.run(&["--json", "check", "--before", "update", "--media", "/media"]);
    assert_eq!(
        (answer.code(), finding(&answer.json(), "media signature")["weight"].as_str().unwrap()),
        (1, "forbids")
    );
}

#[test]
fn the_table_has_the_worst_first() {
    let host = Host::healthy();
    host.sql("*M_LICENSE*) printf 'VALID\\n\"FALSE\"\\n' ;;");
    let answer = host.run(&["check", "--before", "update"]);
    let out = answer.out();
    let first: Vec<_> = out.lines().take(3).collect();
    assert_eq!(
        first,
        [
            "FORBIDS      license                not valid",
            "                                raw exit code 0: VALID | \"FALSE\"",
            "                                fix install a valid license",
        ]
    );
    assert_eq!(answer.err(), "hostler-hana: license: not valid\n");
}
