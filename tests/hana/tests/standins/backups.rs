//! Backups, their catalog, and recoveries, to files and through Backint.

use crate::host::{Host, PASSWORD, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const FUTURE: &str = "2099-01-01 00:00:00";

impl Host {
    fn set(&self, section: &str, key: &str, value: &str) {
        let set = format!(
            "ALTER SYSTEM ALTER CONFIGURATION ('global.ini','SYSTEM') SET ('{section}','{key}') = '{value}' WITH RECONFIGURE"
        );
        self.sql("SYSTEMDB", &set);
    }

    /// A tenant with the rows 1 in a backup, 2 and 3 in its logs, and the instant between them.
    fn with_history(&self, using: &str) -> String {
        self.set("persistence", "log_backup_timeout_s", "50");
        self.sql("HA1", "CREATE TABLE T (N INTEGER)");
        self.sql("HA1", "INSERT INTO T VALUES (1)");
        self.sql("SYSTEMDB", &format!("BACKUP DATA FOR HA1 USING {using} ('FIRST') COMMENT 'run 7'"));
        self.sql("HA1", "INSERT INTO T VALUES (2)");
        let instant = self.sql("HA1", "SELECT CURRENT_UTCTIMESTAMP FROM DUMMY").trim_matches('"').to_string();
        self.sql("HA1", "INSERT INTO T VALUES (3)");
        self.logs_sent();
        instant
    }

    /// Waits until no commit is in the log alone, and the catalog that says so is sent.
    fn logs_sent(&self) {
        let log = self.path("/hana/log/HA1/mnt00001/hdb00002/logsegment_000_00000000.dat");
        until("the logs are sent", || fs::read(&log).unwrap().is_empty());
        let sent = "SELECT COUNT(*) FROM M_BACKUP_CATALOG_FILES WHERE SOURCE_TYPE_NAME = 'catalog'";
        let before: u32 = self.sql("HA1", sent).parse().unwrap();
        let newest = "SELECT SOURCE_TYPE_NAME FROM M_BACKUP_CATALOG_FILES ORDER BY ENTRY_ID DESC LIMIT 1";
        until("the catalog is sent", || self.sql("HA1", newest) == "\"catalog\"");
        assert!(self.sql("HA1", sent).parse::<u32>().unwrap() >= before);
    }

    fn recover(&self, statement: &str) {
        self.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE HA1");
        self.sql("SYSTEMDB", statement);
    }

    fn backint(&self) {
        let store = self.path("/store");
        fs::create_dir_all(&store).unwrap();
        let program = self.path("/usr/sap/HA1/SYS/global/hdb/opt/hdbbackint");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let script = include_str!("backint.sh").replace("@FOLDER@", store.to_str().unwrap());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for kind in ["log", "catalog"] {
            self.set("backup", &format!("{kind}_backup_using_backint"), "true");
        }
    }
}

#[test]
fn a_recovery_brings_back_the_rows_of_the_instant() {
    let host = Host::with_system();
    let instant = host.with_history("FILE");
    let entry = "SELECT C.ENTRY_TYPE_NAME, C.STATE_NAME, C.COMMENT, F.DESTINATION_TYPE_NAME, F.SOURCE_TYPE_NAME FROM M_BACKUP_CATALOG C \
                 JOIN M_BACKUP_CATALOG_FILES F ON C.ENTRY_ID = F.ENTRY_ID WHERE C.ENTRY_TYPE_NAME = 'complete data backup'";
    assert_eq!(
        host.sql("HA1", entry),
        "\"complete data backup\",\"successful\",\"run 7\",\"file\",\"topology\"\n\"complete data backup\",\"successful\",\"run 7\",\"file\",\"volume\""
    );
    // "default dir $(DIR_INSTANCE)/backup/data"; "<prefix>_databackup_<volume>_<part> (topology _0_1)".
    let folder = host.path("/usr/sap/HA1/HDB10/backup/data/DB_HA1");
    assert!(folder.join("FIRST_databackup_0_1").is_file() && folder.join("FIRST_databackup_2_1").is_file());
    host.recover(&format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{instant}' CLEAR LOG"));
    assert_eq!(host.rows(), "1 2");
    // "A timestamp in the future means most recent": of the history that the newest backup belongs to.
    host.recover(&format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{FUTURE}' CLEAR LOG"));
    assert_eq!(host.rows(), "1 2 3");
    host.recover("RECOVER DATA FOR HA1 USING FILE ('FIRST') CLEAR LOG");
    assert_eq!(host.rows(), "1", "no log is replayed");
    // What is in the log alone is kept by a recovery that does not clear it, and lost by one that does.
    host.sql("SYSTEMDB", "BACKUP DATA FOR HA1 USING FILE ('SECOND')");
    host.set("persistence", "log_backup_timeout_s", "9000000");
    host.sql("HA1", "INSERT INTO T VALUES (4)");
    host.recover(&format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{FUTURE}'"));
    assert_eq!(host.rows(), "1 4");
}

#[test]
fn a_running_tenant_is_not_recovered() {
    let host = Host::with_system();
    host.with_history("FILE");
    let left =
        host.hdbsql(&["-E", "3", &format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{FUTURE}' CLEAR LOG")]);
    assert_eq!(left.code, Some(3));
    assert!(left.err.starts_with("* 448: recovery could not be completed"), "{left:?}");
    assert_eq!(host.rows(), "1 2 3");
}

#[test]
fn a_lost_log_backup_ends_a_recovery_and_changes_nothing() {
    let host = Host::with_system();
    host.fault("log-backup-lost HA1");
    host.with_history("FILE");
    host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE HA1");
    let diag = host.run(
        "/usr/sap/HA1/HDB10/exe/hdbbackupdiag",
        &["--check", "-d", "/usr/sap/HA1/HDB10/backup/log/DB_HA1"],
    );
    assert!(diag.code == Some(1) && diag.out.contains("not found"), "{diag:?}");
    let left =
        host.hdbsql(&["-E", "3", &format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{FUTURE}' CLEAR LOG")]);
    assert!(left.err.starts_with("* 448: "), "{left:?}");
    host.sql("SYSTEMDB", "ALTER SYSTEM START DATABASE HA1");
    assert_eq!(host.rows(), "1 2 3");
}

/// "HDBSettings.sh recoverSys.py": of a system that is down; it is up afterwards, on a host that had lost its data.
#[test]
fn the_system_database_is_recovered_while_the_system_is_down() {
    let host = Host::with_system();
    host.sql("SYSTEMDB", "CREATE TABLE S (N INTEGER)");
    host.sql("SYSTEMDB", "INSERT INTO S VALUES (1)");
    host.sql("SYSTEMDB", "BACKUP DATA USING FILE ('/backup/SYS')");
    let settings = "/usr/sap/HA1/HDB10/HDBSettings.sh";
    let recover = || {
        host.run(
            settings,
            &["recoverSys.py", "--wait", "--command=RECOVER DATA USING FILE ('/backup/SYS') CLEAR LOG"],
        )
    };
    assert_eq!(recover().code, Some(1), "it runs");
    assert_eq!(host.sapcontrol("StopWait 600 2").code, Some(0));
    fs::remove_file(host.path("/hana/data/HA1/mnt00001/hdb00001/datavolume_0000.dat")).unwrap();
    let left = recover();
    assert_eq!(left.code, Some(0), "{left:?}");
    for said in [
        "recoverSys started: ",
        "RECOVER DATA finished successfully, reached timestamp 2",
        ", reached log position ",
        "rc = 0 (RC_TEST_OK), after ",
    ] {
        assert!(left.out.contains(said), "{said}: {left:?}");
    }
    assert_eq!(host.sql("SYSTEMDB", "SELECT N FROM S"), "1");
    let check = host.path("/backup/SYS_databackup_1_1");
    let checked = || host.run("/usr/sap/HA1/HDB10/exe/hdbbackupcheck", &["/backup/SYS_databackup_1_1"]).code;
    assert_eq!(checked(), Some(0));
    let mut bytes = fs::read(&check).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&check, bytes).unwrap();
    assert_eq!(checked(), Some(1), "a flipped bit");
}

#[test]
fn backups_and_recoveries_through_backint() {
    let host = Host::with_system();
    host.backint();
    host.set("backup", "parallel_data_backup_backint_channels", "3");
    host.set("backup", "parallel_data_backup_backint_size_threshold", "0");
    let instant = host.with_history("BACKINT");
    let pieces = "SELECT DESTINATION_PATH FROM M_BACKUP_CATALOG_FILES WHERE DESTINATION_TYPE_NAME = 'backint' AND DESTINATION_PATH LIKE '%databackup%' AND EXTERNAL_BACKUP_ID IS NOT NULL";
    let paths = host.sql("HA1", pieces);
    let pipes = host.path("/usr/sap/HA1/SYS/global/hdb/backint/DB_HA1/FIRST_databackup_");
    let expected = ["0_1", "2_1", "2_2", "2_3"].map(|part| format!("\"{}{part}\"", pipes.display()));
    assert_eq!(paths.lines().collect::<Vec<_>>(), expected);
    // "-u <DB>@<SID> for a tenant", "-c object count", "-l level".
    let calls = fs::read_to_string(host.path("/store/calls")).unwrap();
    for call in ["-f backup", "-u HA1@HA1", "-c 3", "-l COMPLETE", "-l LOG"] {
        assert!(calls.lines().any(|line| line == call), "{call}");
    }
    host.recover(&format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{instant}' CLEAR LOG USING CATALOG BACKINT CHECK ACCESS USING BACKINT"));
    assert_eq!(host.rows(), "1 2");
    let id = host.sql("HA1", "SELECT BACKUP_ID FROM M_BACKUP_CATALOG WHERE COMMENT = 'run 7'");
    let stored = || fs::read_dir(host.path("/store")).unwrap().count();
    let before = stored();
    host.sql("SYSTEMDB", &format!("BACKUP CATALOG DELETE FOR HA1 BACKUP_ID {id} COMPLETE"));
    assert_eq!(before - stored(), 8, "four streams and their names");
    assert_eq!(host.sql("HA1", "SELECT COUNT(*) FROM M_BACKUP_CATALOG WHERE COMMENT = 'run 7'"), "0");
}

#[test]
fn what_backint_cannot_save_fails_the_backup() {
    let host = Host::with_system();
    host.backint();
    host.fault("backint-error*1 databackup_2");
    let backup =
        |name: &str| host.hdbsql(&["-E", "3", &format!("BACKUP DATA FOR HA1 USING BACKINT ('{name}')")]);
    let left = backup("A");
    assert!(left.err.starts_with("* 447: backup could not be completed: Backint could not save"), "{left:?}");
    // "must start with /usr/sap/<SID>/SYS/global/hdb/backint/…, else error 110091".
    assert!(backup("/elsewhere/B").err.contains("[110091]"));
    fs::write(host.path("/usr/sap/HA1/SYS/global/hdb/opt/hdbbackint"), "#!/bin/sh\nexit 4\n").unwrap();
    assert!(backup("C").err.contains("[110507] Backint exited with exit code 4 instead of 0"));
    let states = host
        .sql("HA1", "SELECT STATE_NAME FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup'");
    assert_eq!(states, "\"failed\"\n\"failed\"");
}

/// The process of a backup dies at each of its points: the entry is one that failed, or the whole backup.
#[test]
fn a_backup_that_dies_has_failed() {
    for (point, state) in
        [("topology", "failed"), ("volume", "failed"), ("written", "failed"), ("recorded", "successful")]
    {
        let host = Host::with_system();
        host.fault(&format!("crash*1 backup.{point}"));
        host.hdbsql(&["BACKUP DATA FOR HA1 USING FILE ('A')"]);
        let states = "SELECT STATE_NAME FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup'";
        assert_eq!(host.sql("HA1", states), format!("\"{state}\""), "{point}");
        host.sql("SYSTEMDB", "BACKUP DATA FOR HA1 USING FILE ('B')");
    }
}

/// The server goes on with a backup when the hdbsql that asked for it is killed.
#[test]
fn a_backup_outlives_its_hdbsql() {
    let host = Host::with_system();
    host.own(&["install", &host.root(), "--host", "h1", "--factor", "0.1"]);
    assert_eq!(host.sapcontrol("WaitforStarted 2700 2").code, Some(0));
    let mut child = host.begin(
        "/usr/sap/HA1/HDB10/exe/hdbsql",
        &["-i", "10", "-u", "SYSTEM", "-p", PASSWORD, "BACKUP DATA FOR HA1 USING FILE ('A') COMMENT 'run 8'"],
    );
    let state = || host.sql("HA1", "SELECT STATE_NAME FROM M_BACKUP_CATALOG WHERE COMMENT = 'run 8'");
    until("it runs", || state() == "\"running\"");
    child.kill().unwrap();
    child.wait().unwrap();
    let second = host.hdbsql(&["-E", "3", "BACKUP DATA FOR HA1 USING FILE ('B')"]);
    assert!(second.err.starts_with("* 447: "), "one at a time: {second:?}");
    until("it is done", || state() == "\"successful\"");
}

#[test]
fn a_tenant_may_be_missing_and_a_snapshot_must_be_closed() {
    let host = Host::with_system();
    host.fault("tenant-not-in-backup HA1");
    host.sql("SYSTEMDB", "BACKUP DATA FOR FULL SYSTEM USING FILE ('ALL')");
    let with = "SELECT DATABASE_NAME FROM SYS_DATABASES.M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup'";
    assert_eq!(host.sql("SYSTEMDB", with), "\"SYSTEMDB\"");
    host.sql("SYSTEMDB", "BACKUP DATA FOR FULL SYSTEM CREATE SNAPSHOT COMMENT 'c'");
    let id = host.sql("SYSTEMDB", "SELECT BACKUP_ID FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME='data snapshot' AND STATE_NAME='prepared' AND COMMENT='c'");
    let again = host.hdbsql(&["-E", "3", "BACKUP DATA FOR FULL SYSTEM CREATE SNAPSHOT COMMENT 'd'"]);
    assert!(again.err.starts_with("* 447: "), "a prepared snapshot blocks the next: {again:?}");
    host.sql(
        "SYSTEMDB",
        &format!("BACKUP DATA FOR FULL SYSTEM CLOSE SNAPSHOT BACKUP_ID {id} UNSUCCESSFUL 'why'"),
    );
    host.sql("SYSTEMDB", "BACKUP DATA FOR FULL SYSTEM CREATE SNAPSHOT COMMENT 'd'");
}

#[test]
fn a_full_disk_fails_the_backup() {
    let host = Host::with_system();
    host.fault("disk-full /backup");
    let left = host.hdbsql(&["-E", "3", "BACKUP DATA FOR HA1 USING FILE ('/backup/A')"]);
    assert!(left.err.starts_with("* 447: ") && left.err.contains("No space left on device"), "{left:?}");
}

/// A recovery that dies leaves the rows as they were, or as they shall be, and can be repeated.
#[test]
fn a_recovery_that_dies_is_repeated() {
    for (point, rows) in [("read", "1 2 3"), ("written", "1 2"), ("started", "1 2")] {
        let host = Host::with_system();
        let instant = host.with_history("FILE");
        host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE HA1");
        host.fault(&format!("crash*1 recovery.{point}"));
        let recover = format!("RECOVER DATABASE FOR HA1 UNTIL TIMESTAMP '{instant}' CLEAR LOG");
        assert_eq!(host.hdbsql(&[&recover]).code, None, "{point}");
        host.sql("SYSTEMDB", "ALTER SYSTEM START DATABASE HA1");
        assert_eq!(host.rows(), rows, "{point}");
        host.recover(&recover);
        assert_eq!(host.rows(), "1 2", "{point}");
    }
}

/// "System copy adds USING SOURCE 'DB@SID' (backint)"; a copy from files has the volumes of its source.
#[test]
fn a_tenant_is_copied_into_another() {
    for using in ["FILE", "BACKINT"] {
        let host = Host::with_system();
        if using == "BACKINT" {
            host.backint();
        }
        host.with_history(using);
        host.sql("SYSTEMDB", "CREATE DATABASE COPY SYSTEM USER PASSWORD \"Other123#\"");
        host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE COPY");
        let rows = match using {
            "FILE" => {
                let prefix = host.path("/usr/sap/HA1/HDB10/backup/data/DB_HA1/FIRST");
                host.sql(
                    "SYSTEMDB",
                    &format!("RECOVER DATA FOR COPY USING FILE ('{}') CLEAR LOG", prefix.display()),
                );
                "1"
            }
            _ => {
                host.sql("SYSTEMDB", &format!("RECOVER DATABASE FOR COPY UNTIL TIMESTAMP '{FUTURE}' CLEAR LOG USING SOURCE 'HA1@HA1' USING CATALOG BACKINT CHECK ACCESS USING BACKINT"));
                "1\n2\n3"
            }
        };
        // Its users are those of the source.
        assert_eq!(host.sql("COPY", "SELECT N FROM T ORDER BY N"), rows, "{using}");
        assert_eq!(host.rows(), "1 2 3");
        host.sql("SYSTEMDB", "ALTER SYSTEM STOP DATABASE COPY");
        host.sql("SYSTEMDB", "DROP DATABASE COPY");
    }
}

/// "-I file", "-E": a statement with a password is read from standard input, and is no argument.
#[test]
fn a_statement_is_read_from_standard_input() {
    let host = Host::with_system();
    let options = ["-i", "10", "-u", "SYSTEM", "-p", PASSWORD, "-d", "HA1", "-E", "3", "-I", "/dev/stdin"];
    let sent = |text: &str| host.run_with("/usr/sap/HA1/HDB10/exe/hdbsql", &options, text);
    assert_eq!(sent("CREATE USER X PASSWORD \"Other123#\"\n").code, Some(0));
    let left = sent("ALTER USER X PASSWORD Other\n");
    assert!(left.code == Some(3) && left.err.starts_with("* 257"), "{left:?}");
    let calls = fs::read_to_string(host.path("/.hana-standins/calls")).unwrap();
    assert!(!calls.contains("Other123#"));
}
