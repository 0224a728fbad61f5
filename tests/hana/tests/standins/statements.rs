//! hdbsql and the user store.

use crate::host::{Host, PASSWORD};
use std::fs;

/// "header row, strings double-quoted, then `1 row selected (overall time …; server time …)`".
#[test]
fn rows_come_as_csv_with_a_count() {
    let host = Host::with_system();
    host.sql("HA1", "CREATE COLUMN TABLE T (N INTEGER PRIMARY KEY, NAME NVARCHAR(20) NOT NULL)");
    let inserted = host.hdbsql(&["-d", "HA1", "INSERT INTO T VALUES (1, 'a \"quoted\" one')"]);
    assert!(inserted.out.starts_with("1 row affected (overall time "), "{inserted:?}");
    let selected = host.hdbsql(&["-d", "HA1", "SELECT N, NAME, NULL AS NOTHING FROM T"]);
    let lines: Vec<&str> = selected.out.lines().collect();
    assert_eq!(lines[..2], ["N,NAME,NOTHING", "1,\"a \"\"quoted\"\" one\",?"]);
    assert!(lines[2].starts_with("1 row selected (overall time ") && lines[2].contains("; server time "));
    assert_eq!(host.sql("HA1", "UPDATE T SET NAME = 'b' WHERE N = 1"), "");
    assert_eq!(host.sql("HA1", "SELECT NAME FROM T"), "\"b\"");
    let twice = host.hdbsql(&["-d", "HA1", "-E", "3", "INSERT INTO T VALUES (1, 'x')"]);
    assert!(twice.code == Some(3) && twice.err.starts_with("* 301: unique constraint violated"), "{twice:?}");
    // The databases are apart.
    let other = host.hdbsql(&["-d", "SYSTEMDB", "SELECT * FROM T"]);
    assert!(other.err.starts_with("* 259: invalid table name"), "{other:?}");
}

/// "-E stops at the first error … Without -E, -I carries on after an error and only the last statement decides the rc; rc
/// 0 even on failed logon".
#[test]
fn without_e_an_error_in_a_file_is_hidden() {
    let host = Host::with_system();
    let file = host.path("/tmp.sql");
    fs::write(&file, "SELECT * FROM NOWHERE\nSELECT 1 AS X FROM DUMMY\n").unwrap();
    let file = file.to_str().unwrap();
    let hidden = host.hdbsql(&["-I", file]);
    assert_eq!(hidden.code, Some(0));
    assert!(hidden.err.starts_with("* 259: ") && hidden.out.starts_with("X\n1\n"), "{hidden:?}");
    let stopped = host.hdbsql(&["-E", "3", "-I", file]);
    assert_eq!((stopped.code, stopped.out.as_str()), (Some(3), ""));
    let logon = ["-i", "10", "-u", "SYSTEM", "-p", "wrong", "SELECT 1 FROM DUMMY"];
    let tool = "/usr/sap/HA1/HDB10/exe/hdbsql";
    let failed = host.run(tool, &logon);
    assert_eq!(failed.code, Some(0));
    assert!(
        failed.err.starts_with("* 10: authentication failed: ") && failed.err.contains("SQLSTATE: 28000")
    );
    let failed = host.run(tool, &[&["-E", "3"], &logon[..]].concat());
    assert_eq!(failed.code, Some(3));
    let text = "SELECT 1 AS ONE\nFROM DUMMY;\n";
    assert_eq!(
        host.run_with(tool, &["-m", "-x", "-a", "-E", "3", "-i", "10", "-u", "SYSTEM", "-p", PASSWORD], text)
            .out,
        "1\n"
    );
    assert_eq!(host.run(tool, &["--nothing"]).code, Some(2));
}

/// "rc≠0 when absent; lines `KEY NAME`, `  ENV : host:30013`, `  USER: X`"; the password by the standard input, nowhere in
/// the arguments or the files.
#[test]
fn a_key_of_the_user_store_connects() {
    let host = Host::with_system();
    let store = "/usr/sap/HA1/HDB10/exe/hdbuserstore";
    assert_ne!(host.run(store, &["LIST", "BACKUP"]).code, Some(0));
    let set =
        host.run_with(store, &["-i", "SET", "BACKUP", "h1:31013@HA1", "SYSTEM"], &format!("{PASSWORD}\n"));
    assert_eq!(set.code, Some(0), "{set:?}");
    let list = host.run(store, &["LIST", "BACKUP"]);
    assert_eq!(
        (list.code, list.out.as_str()),
        (Some(0), "KEY BACKUP\n  ENV : h1:31013@HA1\n  USER: SYSTEM\n")
    );
    let sql = "/usr/sap/HA1/HDB10/exe/hdbsql";
    let asked =
        host.run(sql, &["-U", "BACKUP", "-x", "-a", "-E", "3", "SELECT DATABASE_NAME FROM M_DATABASES"]);
    assert_eq!(asked.out, "\"HA1\"\n", "{asked:?}");
    let calls = fs::read_to_string(host.path("/.hana-standins/calls")).unwrap();
    assert!(calls.contains("hdbuserstore") && !calls.contains(PASSWORD));
    assert_eq!(host.run(store, &["DELETE", "BACKUP"]).code, Some(0));
    let missing = host.run(sql, &["-U", "BACKUP", "-E", "3", "SELECT 1 FROM DUMMY"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
}

#[test]
fn tenants_are_made_stopped_and_dropped() {
    let host = Host::with_system();
    host.sql("SYSTEMDB", "CREATE DATABASE T2 SYSTEM USER PASSWORD \"Secret12#\"");
    assert_eq!(
        host.sql(
            "SYSTEMDB",
            "SELECT DATABASE_NAME, ACTIVE_STATUS FROM SYS.M_DATABASES ORDER BY DATABASE_NAME"
        ),
        "\"HA1\",\"YES\"\n\"SYSTEMDB\",\"YES\"\n\"T2\",\"YES\""
    );
    let ports = host
        .sql("SYSTEMDB", "SELECT DATABASE_NAME, SQL_PORT FROM SYS_DATABASES.M_SERVICES WHERE SQL_PORT > 0");
    assert_eq!(ports, "\"SYSTEMDB\",31013\n\"HA1\",31015\n\"T2\",31041");
    let by_port = host.run(
        "/usr/sap/HA1/HDB10/exe/hdbsql",
        &[
            "-n",
            "h1:31041",
            "-u",
            "SYSTEM",
            "-p",
            PASSWORD,
            "-x",
            "-a",
            "SELECT DATABASE_NAME FROM M_DATABASE",
        ],
    );
    assert_eq!(by_port.out, "\"T2\"\n");
    host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE T2");
    assert!(host.hdbsql(&["-d", "T2", "SELECT 1 FROM DUMMY"]).err.starts_with("* -10709: "));
    host.sql("SYSTEMDB", "DROP DATABASE T2");
    assert_eq!(host.sql("SYSTEMDB", "SELECT COUNT(*) FROM M_DATABASES"), "2");
}

#[test]
fn parameters_are_set_and_unset() {
    let host = Host::with_system();
    let read = "SELECT VALUE FROM M_INIFILE_CONTENTS WHERE SECTION = 'backup' AND KEY = 'parallel_data_backup_backint_channels' ORDER BY LAYER_NAME";
    assert_eq!(host.sql("SYSTEMDB", read), "\"1\"");
    host.sql("SYSTEMDB", "ALTER SYSTEM ALTER CONFIGURATION ('global.ini','SYSTEM') SET ('backup','parallel_data_backup_backint_channels') = '4' COMMENT 'more' WITH RECONFIGURE");
    assert_eq!(host.sql("SYSTEMDB", read), "\"1\"\n\"4\"");
    host.sql("SYSTEMDB", "ALTER SYSTEM ALTER CONFIGURATION ('global.ini','SYSTEM') UNSET ('backup','parallel_data_backup_backint_channels') WITH RECONFIGURE");
    assert_eq!(host.sql("SYSTEMDB", read), "\"1\"");
}

#[test]
fn a_connection_hangs_is_lost_or_refused_on_demand() {
    let host = Host::with_system();
    host.sql("HA1", "CREATE TABLE T (N INTEGER)");
    host.fault("hdbsql-loses*1 INSERT");
    let lost = host.hdbsql(&["-d", "HA1", "-E", "3", "INSERT INTO T VALUES (1)"]);
    assert_eq!(lost.code, Some(3));
    assert!(lost.err.starts_with("* -10807: Connection down"), "{lost:?}");
    assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM T"), "1", "it was carried out");
    host.fault("hdbsql-hangs DUMMY");
    let mut child = host.begin(
        "/usr/sap/HA1/HDB10/exe/hdbsql",
        &["-i", "10", "-u", "SYSTEM", "-p", PASSWORD, "SELECT 1 FROM DUMMY"],
    );
    assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM T"), "1", "others go on");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    host.fault("hdbsql-refuses");
    assert!(host.hdbsql(&["SELECT 1 FROM DUMMY"]).err.starts_with("* -10709: "));
    host.fault("disk-full /hana/log");
    assert!(host.hdbsql(&["-d", "HA1", "INSERT INTO T VALUES (2)"]).err.contains("No space left on device"));
    host.fault("");
    assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM T"), "1");
    host.fault("no-such-fault");
    assert_eq!(host.hdbsql(&["SELECT 1 FROM DUMMY"]).code, Some(70));
}

#[test]
fn a_license_that_expired_locks_all_but_its_view() {
    let host = Host::with_system();
    assert_eq!(host.sql("SYSTEMDB", "SELECT VALID FROM M_LICENSE"), "\"TRUE\"");
    host.fault("license-expired");
    assert_eq!(
        host.sql("SYSTEMDB", "SELECT VALID FROM M_LICENSE WHERE EXPIRATION_DATE < CURRENT_UTCTIMESTAMP"),
        "\"FALSE\""
    );
    let left = host.hdbsql(&["-d", "HA1", "CREATE TABLE T (N INTEGER)"]);
    assert!(left.err.starts_with("* 19: "), "{left:?}");
}

/// A password is changed, and the old one is none any more.
#[test]
fn a_password_is_changed() {
    let host = Host::with_system();
    host.sql("HA1", "ALTER USER SYSTEM PASSWORD \"Another34#\" NO FORCE_FIRST_PASSWORD_CHANGE");
    assert!(host.hdbsql(&["-d", "HA1", "SELECT 1 FROM DUMMY"]).err.starts_with("* 10: "));
    let new =
        ["-i", "10", "-d", "HA1", "-u", "SYSTEM", "-p", "Another34#", "-x", "-a", "SELECT 1 FROM DUMMY"];
    assert_eq!(host.run("/usr/sap/HA1/HDB10/exe/hdbsql", &new).out, "1\n");
    assert_eq!(host.sql("SYSTEMDB", "SELECT 1 FROM DUMMY"), "1", "the databases have passwords of their own");
}

/// "`ALTER SYSTEM CLEAR TRACES ('…') [WITH BACKUP] [UNTIL '…']`", "`ALTER SYSTEM CLEAR AUDIT LOG UNTIL '…'`", "`ALTER SYSTEM
/// RECLAIM LOG`": of the database that is connected, of the kinds that are named, and of what is older alone.
#[test]
fn traces_and_the_audit_trail_are_cleared_by_kind_and_age() {
    let host = Host::with_system();
    let folder = host.path("/usr/sap/HA1/HDB10/h1/trace");
    fs::create_dir_all(&folder).unwrap();
    let names =
        ["nameserver_h1.30001.000.trc", "nameserver_h1.crashdump.1.trc", "localclient_7.trc", "backup.log"];
    for name in names {
        fs::write(folder.join(name), "text").unwrap();
    }
    let files = || host.sql("SYSTEMDB", "SELECT COUNT(*) FROM M_TRACEFILES WHERE FILE_SIZE = 4");
    host.sql("SYSTEMDB", "ALTER SYSTEM CLEAR TRACES ('CRASHDUMP','*') UNTIL '2020-01-01 00:00:00'");
    assert_eq!(files(), "4", "they are younger");
    host.sql("HA1", "ALTER SYSTEM CLEAR TRACES ('CRASHDUMP','*')");
    assert_eq!(files(), "4", "they are of another database");
    host.sql(
        "SYSTEMDB",
        "ALTER SYSTEM CLEAR TRACES ('CRASHDUMP','*') WITH BACKUP UNTIL '2999-01-01 00:00:00'",
    );
    assert_eq!(
        host.sql("SYSTEMDB", "SELECT FILE_NAME FROM M_TRACEFILES ORDER BY FILE_NAME"),
        "\"backup.log\"\n\"localclient_7.trc\""
    );
    let odd = host.hdbsql(&["-E", "3", "ALTER SYSTEM CLEAR TRACES ('NOTHING')"]);
    assert!(odd.err.starts_with("* 257: "), "{odd:?}");

    host.sql("HA1", "CREATE USER ONE PASSWORD \"Secret34#\"");
    let trail = || host.sql("HA1", "SELECT USER_NAME, EVENT_ACTION FROM AUDIT_LOG");
    assert_eq!(trail(), "\"SYSTEM\",\"CREATE USER\"");
    host.sql("HA1", "ALTER SYSTEM CLEAR AUDIT LOG UNTIL '2020-01-01 00:00:00'");
    assert_eq!(trail(), "\"SYSTEM\",\"CREATE USER\"");
    host.sql("HA1", "ALTER SYSTEM CLEAR AUDIT LOG UNTIL '2999-01-01 00:00:00'");
    assert_eq!(trail(), "");
    let segments = || host.sql("HA1", "SELECT STATE FROM M_LOG_SEGMENTS");
    host.sql("HA1", "ALTER SYSTEM RECLAIM LOG");
    assert_eq!(segments(), "\"Writing\"", "what is written to is never given back");
}
