//! Installing, updating, removing.

use crate::host::{Host, XML};
use std::fs;

/// "rc 0", the frame, the manifest of the installed version, ListInstances and check_installation.
#[test]
fn an_installation_leaves_a_running_system() {
    let host = Host::new();
    let left = host.install_system("2.00.077.00");
    assert_eq!(left.code, Some(0), "{left:?}");
    for line in [
        "SAP HANA Lifecycle Management - SAP HANA Database 2.00.077.00",
        "Scanning software locations...",
        "Start reading from input channel...",
        "... Done.",
        "  All server processes started on host 'h1' (worker).",
        "SAP HANA Database System installed",
    ] {
        assert!(left.out.lines().any(|other| other == line), "{line}: {}", left.out);
    }
    let last = left.out.lines().last().unwrap();
    let log = last.strip_prefix("Log file written to '").and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(fs::read_to_string(log).unwrap().contains(" - INFO: SAP HANA Database System installed"));
    let manifest = fs::read_to_string(host.path("/usr/sap/HA1/HDB10/exe/manifest")).unwrap();
    assert!(manifest.contains("fullversion: 2.00.077.00 Build ") && manifest.contains("rev-number: 077"));
    let instances = host.run("/usr/sap/hostctrl/exe/saphostctrl", &["-function", "ListInstances"]);
    assert!(instances.out.contains("Inst Info : HA1 - 10 - h1 - "), "{instances:?}");
    assert_eq!(host.resident(&["--action=check_installation"]).code, Some(0));
    let version = host.run("/usr/sap/HA1/HDB10/HDB", &["version"]);
    assert!(version.out.starts_with("HDB version info:\n  version:             2.00.077.00."), "{version:?}");
}

/// "--list_systems shows patch 0, the manifest 00": versions compare as numbers.
#[test]
fn list_systems_writes_the_patch_level_with_one_digit() {
    let host = Host::with_system();
    let left = host.run("/hana/shared/HA1/hdblcm/hdblcm", &["--list_systems"]);
    assert!(left.out.contains("version: 2.00.077.0.") && left.out.contains("/hana/shared/HA1"), "{left:?}");
}

/// "the next run resumes" from the state below /hana/shared/SID; a half-failed installation is shown by ListInstances,
/// and is not whole.
#[test]
fn an_installation_that_died_is_listed_and_not_whole_and_resumes() {
    let host = Host::new();
    host.fault("crash*1 hdblcm.install.create");
    assert_eq!(host.install_system("2.00.077.00").code, None);
    let state = host.path("/hana/shared/HA1/HA1.hdbinstall");
    assert!(state.is_file());
    let instances = host.run("/usr/sap/hostctrl/exe/saphostctrl", &["-function", "ListInstances"]);
    assert!(instances.out.contains("HA1 - 10"), "{instances:?}");
    assert_eq!(host.sapcontrol("GetProcessList").code, Some(4));
    // Media of another version do not go on.
    let other = host.install_system("2.00.078.00");
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("Pending install to version 2.00.077.00"), "{other:?}");
    assert_eq!(host.install_system("2.00.077.00").code, Some(0));
    assert!(!state.exists());
    assert_eq!(host.sapcontrol("GetProcessList").code, Some(3));
}

#[test]
fn what_hdblcm_does_not_take_changes_nothing() {
    let host = Host::new();
    for (arguments, said) in [
        (["--action=install", "--sid=SAP", "--number=10"], "'SAP' is not a valid SAP system ID"),
        (["--action=install", "--sid=ha1", "--number=10"], "'ha1' is not a valid"),
        (["--action=install", "--sid=HA1", "--number=98"], "Checking value of 'number' failed"),
        (["--action=install", "--sid=HA1", "--component_root=/nowhere"], "No component was detected"),
        (["--action=install", "--sid=HA1", "--verify_signature"], "SIGNATURE.SMF was not found"),
        (["--action=uninstall", "--sid=HA1", "--number=10"], "is not possible with this hdblcm"),
    ] {
        let left = host.hdblcm("2.00.077.00", &arguments);
        assert_eq!(left.code, Some(1), "{left:?}");
        assert!(left.err.contains(said), "{left:?}");
    }
    let tool = "/media/2.00.077.00/SAP_HANA_DATABASE/hdblcm";
    let arguments = ["-b", "--action=install", "--sid=HA1", "--read_password_from_stdin=xml"];
    for (xml, said) in [
        ("no xml", "Cannot read passwords"),
        (&XML.replace("Secret12#", "***"), "placeholder ***"),
        (&XML.replace("Secret12#", "weak"), "does not fit"),
    ] {
        let left = host.run_with(tool, &arguments, xml);
        assert_eq!(left.code, Some(1), "{left:?}");
        assert!(left.err.contains(said), "{left:?}");
    }
    assert!(!host.path("/hana").exists());
}

#[test]
fn an_update_changes_the_version_and_keeps_the_rows() {
    let host = Host::with_system();
    host.sql("HA1", "CREATE TABLE T (N INTEGER PRIMARY KEY)");
    host.sql("HA1", "INSERT INTO T VALUES (7)");
    // "everything that needs no downtime": the system runs on.
    let prepared = host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1", "--prepare_update"]);
    assert_eq!(prepared.code, Some(0), "{prepared:?}");
    assert_eq!(host.sapcontrol("GetProcessList").code, Some(3));
    assert!(host.path("/hana/shared/HA1/HA1.hdblcm.update").is_file());
    assert_eq!(host.resident(&["--action=check_installation"]).code, Some(1));
    // "leave the DB stopped after the update".
    let left = host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1", "--hdbupd_server_nostart"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert!(left.out.contains("SAP HANA Database components updated"));
    assert_eq!(host.sapcontrol("GetProcessList").code, Some(4));
    assert_eq!(host.sapcontrol("StartWait 180 2").code, Some(0));
    assert_eq!(host.sql("HA1", "SELECT N FROM T"), "7");
    assert!(host.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").starts_with("\"2.00.079.00."));
    for version in ["2.00.079.00", "2.00.077.00"] {
        let back = host.hdblcm(version, &["--action=update", "--sid=HA1"]);
        assert_eq!(back.code, Some(1), "{back:?}");
        assert!(back.err.starts_with("Update of SAP HANA Database components failed.\n  "), "{back:?}");
    }
}

/// hdblcm dies behind each phase: a second run ends in the new version with the rows.
#[test]
fn an_update_resumes_from_each_phase() {
    for phase in ["prepare", "stop", "manifest", "switch", "start", "finish"] {
        let host = Host::with_system();
        host.sql("HA1", "CREATE TABLE T (N INTEGER)");
        host.sql("HA1", "INSERT INTO T VALUES (7)");
        host.fault(&format!("crash*1 hdblcm.update.{phase}"));
        let update = || host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1"]);
        assert_eq!(update().code, None, "{phase}");
        assert_eq!(host.resident(&["--action=check_installation"]).code, Some(1), "{phase}");
        let left = update();
        assert_eq!(left.code, Some(0), "{phase}: {left:?}");
        assert_eq!(host.resident(&["--action=check_installation"]).code, Some(0), "{phase}");
        assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM T"), "1", "{phase}");
    }
}

#[test]
fn a_phase_that_fails_leaves_its_state() {
    let host = Host::with_system();
    host.fault("hdblcm-fails*1 switch\n");
    let left = host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(host.path("/hana/shared/HA1/HA1.hdblcm.update").is_file());
    assert_eq!(host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1"]).code, Some(0));
}

#[test]
fn an_uninstallation_leaves_nothing_but_logs() {
    let host = Host::with_system();
    let left = host.run("/hana/shared/HA1/hdblcm/hdblcm", &["--uninstall", "-b"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    for path in ["/hana/shared/HA1", "/hana/data/HA1", "/hana/log/HA1", "/usr/sap/HA1"] {
        assert!(!host.path(path).exists(), "{path}");
    }
    let instances = || host.run("/usr/sap/hostctrl/exe/saphostctrl", &["-function", "ListInstances"]);
    assert_eq!(instances().out, "");
    host.fault("stale-instance HA1 10");
    assert!(instances().out.contains("HA1 - 10"));
    assert_eq!(host.install_system("2.00.077.00").code, Some(0));
}

/// "move SIGNATURE.SMF into the extracted component dir, otherwise --verify_signature fails"; the media may be another
/// version than the archive's name says; a broken archive is none.
#[test]
fn an_archive_becomes_media() {
    let host = Host::new();
    host.own(&["archive", &host.root(), "2.00.077.00", "/IMDB_SERVER20_077.SAR"]);
    let extract = || {
        let arguments = ["-R", "/media/x", "-xvf", "/IMDB_SERVER20_077.SAR", "-manifest", "SIGNATURE.SMF"];
        host.run("/usr/sap/hostctrl/exe/SAPCAR", &arguments)
    };
    assert_eq!(extract().code, Some(0));
    let tool = "/media/x/SAP_HANA_DATABASE/hdblcm";
    let arguments = [
        "-b",
        "--action=install",
        "--sid=HA1",
        "--number=10",
        "--verify_signature",
        "--read_password_from_stdin=xml",
    ];
    assert_eq!(host.run_with(tool, &arguments, XML).code, Some(1));
    fs::rename(host.path("/media/x/SIGNATURE.SMF"), host.path("/media/x/SAP_HANA_DATABASE/SIGNATURE.SMF"))
        .unwrap();
    let left = host.run_with(tool, &arguments, XML);
    assert_eq!(left.code, Some(0), "{left:?}");
    host.fault("media-version 2.00.055.00");
    assert_eq!(extract().code, Some(0));
    let manifest = fs::read_to_string(host.path("/media/x/SAP_HANA_DATABASE/server/manifest")).unwrap();
    assert!(manifest.contains("fullversion: 2.00.055.00"));
    let mut bytes = fs::read(host.path("/IMDB_SERVER20_077.SAR")).unwrap();
    let place = bytes.len() - 30;
    bytes[place] ^= 1;
    fs::write(host.path("/IMDB_SERVER20_077.SAR"), bytes).unwrap();
    assert_ne!(extract().code, Some(0));
}

/// hdblcm dies behind each phase of an installation: a second run ends with a running system.
#[test]
fn an_installation_resumes_from_each_phase() {
    for phase in ["extract", "create", "start", "finish"] {
        let host = Host::new();
        host.fault(&format!("crash*1 hdblcm.install.{phase}"));
        assert_eq!(host.install_system("2.00.077.00").code, None, "{phase}");
        let left = host.install_system("2.00.077.00");
        assert_eq!(left.code, Some(0), "{phase}: {left:?}");
        assert_eq!(host.sapcontrol("GetProcessList").code, Some(3), "{phase}");
        assert_eq!(host.resident(&["--action=check_installation"]).code, Some(0), "{phase}");
    }
}

/// An uninstallation that died at its end leaves nothing that stops an installation; the new system knows no backups of the
/// former one.
#[test]
fn a_system_is_installed_where_another_was() {
    for point in ["stopped", "files"] {
        let host = Host::with_system();
        host.sql("HA1", "CREATE TABLE T (N INTEGER)");
        host.sql("HA1", "BACKUP DATA USING FILE ('/backup/A')");
        host.fault(&format!("crash*1 hdblcm.uninstall.{point}"));
        let uninstall = || host.run("/hana/shared/HA1/hdblcm/hdblcm", &["--uninstall", "-b"]).code;
        assert_eq!(uninstall(), None, "{point}");
        if point == "stopped" {
            assert_eq!(uninstall(), Some(0));
        }
        let left = host.install_system("2.00.077.00");
        assert_eq!(left.code, Some(0), "{point}: {left:?}");
        assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM M_BACKUP_CATALOG"), "0", "{point}");
        assert!(host.hdbsql(&["-d", "HA1", "SELECT * FROM T"]).err.starts_with("* 259: "), "{point}");
        // The files are there still, and bring the rows back.
        host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE HA1");
        host.sql("SYSTEMDB", "RECOVER DATA FOR HA1 USING FILE ('/backup/A') CLEAR LOG");
        assert_eq!(host.rows(), "", "{point}");
    }
}

/// "writes F and F.xml"; what is filled in is taken, what is not is refused.
#[test]
fn a_template_becomes_a_configuration() {
    let host = Host::new();
    let media = "/media/77";
    host.own(&["media", &host.root(), "2.00.077.00", media]);
    let tool = format!("{media}/SAP_HANA_DATABASE/hdblcm");
    assert_eq!(host.run(&tool, &["--action=install", "--dump_configfile_template=/etc/t"]).code, Some(0));
    let template = fs::read_to_string(host.path("/etc/t")).unwrap();
    let filled = template
        .replace("sid=\n", "sid=HA1\n")
        .replace("number=\n", "number=10\n")
        .replace("action=\n", "action=install\n");
    fs::write(host.path("/etc/t"), filled).unwrap();
    let xml = fs::read_to_string(host.path("/etc/t.xml")).unwrap();
    let install = |xml: &str| {
        host.run_with(&tool, &["-b", "--read_password_from_stdin=xml", "--configfile=/etc/t"], xml)
    };
    let refused = install(&xml);
    assert!(refused.code == Some(1) && refused.err.contains("placeholder ***"), "{refused:?}");
    let left = install(&xml.replace("***", "Secret12#"));
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(host.sql("HA1", "SELECT 1 FROM DUMMY"), "1");
}
