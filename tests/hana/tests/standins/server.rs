//! Starting, stopping, and what sapcontrol says.

use crate::host::{Host, until};
use std::process::Command;

/// "rc 3 is the healthy answer of GetProcessList", 4: all stopped, 0: neither.
#[test]
fn the_exit_code_of_get_process_list_says_how_the_system_is() {
    let host = Host::with_system();
    let list = host.sapcontrol("GetProcessList");
    assert_eq!(list.code, Some(3), "{list:?}");
    let lines: Vec<&str> = list.out.lines().collect();
    assert_eq!(lines[0], "");
    assert_eq!(
        lines[2..5],
        ["GetProcessList", "OK", "name, description, dispstatus, textstatus, starttime, elapsedtime, pid"]
    );
    assert!(lines[5].starts_with("hdbdaemon, HDB Daemon, GREEN, Running, 20"), "{}", lines[5]);
    assert_eq!(lines.len(), 12);
    assert_eq!(host.sapcontrol("StopWait 600 2").code, Some(0));
    let list = host.sapcontrol("GetProcessList");
    assert_eq!(list.code, Some(4));
    assert!(list.out.contains("hdbindexserver, HDB Indexserver, GRAY, Stopped, , , 0"), "{list:?}");
    host.fault("process-yellow hdbindexserver");
    assert_eq!(host.sapcontrol("StartWait 30 2").code, Some(2), "a wait that times out is 2");
    let list = host.sapcontrol("GetProcessList");
    assert_eq!(list.code, Some(0));
    assert!(list.out.contains("hdbindexserver, HDB Indexserver, YELLOW"), "{list:?}");
    host.fault("");
    assert_eq!(host.sapcontrol("WaitforStarted 2700 2").code, Some(0));
    let script = host.run(
        "/usr/sap/HA1/HDB10/exe/sapcontrol",
        &["-nr", "10", "-format", "script", "-function", "GetProcessList"],
    );
    assert!(
        script.out.contains("0 name: hdbdaemon\n") && script.out.contains("0 dispstatus: GREEN\n"),
        "{script:?}"
    );
}

/// "1: call failed (also: no sapstartsrv to talk to)".
#[test]
fn a_sapstartsrv_that_does_not_answer() {
    let host = Host::with_system();
    host.fault("sapstartsrv-refuses");
    let left = host.sapcontrol("GetProcessList");
    assert_eq!(left.code, Some(1));
    assert!(left.out.contains("FAIL: NIECONN_REFUSED"), "{left:?}");
    host.fault("sapstartsrv-hangs");
    let mut child =
        host.begin("/usr/sap/hostctrl/exe/sapcontrol", &["-nr", "10", "-function", "GetProcessList"]);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    host.fault("");
    assert_eq!(host.sapcontrol("Nothing").code, Some(1));
    let other = host.run("/usr/sap/hostctrl/exe/sapcontrol", &["-nr", "42", "-function", "GetProcessList"]);
    assert_eq!(other.code, Some(1));
}

#[test]
fn a_started_system_takes_statements_only_when_it_is_up() {
    let host = Host::with_system();
    let stop = host.run("/usr/sap/HA1/HDB10/HDB", &["stop"]);
    assert!(stop.code == Some(0) && stop.out.ends_with("hdbdaemon is stopped.\n"), "{stop:?}");
    let refused = host.hdbsql(&["-E", "3", "SELECT 1 FROM DUMMY"]);
    assert_eq!(refused.code, Some(3));
    assert!(refused.err.starts_with("* -10709: Connection failed (RTE:["), "{refused:?}");
    // HDB info says that the system is installed, not that it runs.
    assert_eq!(host.run("/usr/sap/HA1/HDB10/HDB", &["info"]).code, Some(0));
    assert_eq!(host.run("/usr/sap/HA1/HDB10/HDB", &["start"]).code, Some(0));
    assert_eq!(host.sql("SYSTEMDB", "SELECT 1 AS ONE FROM DUMMY"), "1");
}

/// A power cut or SIGKILL of the server: the system is down, and what was committed is there after the next start.
#[test]
fn a_killed_server_is_down_and_loses_nothing() {
    let host = Host::with_system();
    host.sql("HA1", "CREATE TABLE T (N INTEGER)");
    host.sql("HA1", "INSERT INTO T VALUES (1)");
    let server = std::fs::read_to_string(host.path("/.hana-standins/systems/HA1/server.pid")).unwrap();
    let running = std::fs::read(format!("/proc/{server}/cmdline")).unwrap();
    assert!(running.starts_with(b"hdb.sapHA1_HDB10"), "it is found by its name");
    assert!(Command::new("kill").args(["-9", &server]).status().unwrap().success());
    until("the system is down", || host.sapcontrol("GetProcessList").code == Some(4));
    host.fault("crash*1 commit.after-log");
    assert_eq!(host.sapcontrol("StartWait 180 2").code, Some(0));
    assert_eq!(
        host.hdbsql(&["-d", "HA1", "INSERT INTO T VALUES (2)"]).code,
        None,
        "it dies behind its commit"
    );
    host.fault("crash*1 commit.before-log");
    assert_eq!(
        host.hdbsql(&["-d", "HA1", "INSERT INTO T VALUES (3)"]).code,
        None,
        "it dies before its commit"
    );
    assert_eq!(host.sql("HA1", "SELECT N FROM T ORDER BY N"), "1\n2");
}
