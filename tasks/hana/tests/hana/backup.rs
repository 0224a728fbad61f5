//! `backup` against an hdbsql that keeps a small catalog.

use std::fs;

use crate::host::Host;

const HEADER: &str = "DATABASE_NAME,BACKUP_ID,ENTRY_TYPE_NAME,STATE_NAME,UTC_START_TIME,UTC_END_TIME";

/// An hdbsql whose catalog is the file `catalog`. `backup`: what it does for `BACKUP DATA`, with `$database`,
/// `$kind` and `$comment`; `row STATE` adds a row.
fn host(backup: &str) -> Host {
    let host = Host::healthy();
    let root = host.path().display().to_string();
    host.script(
        "usr/sap/HDB/HDB00/exe/hdbsql",
        &format!(
            r#"for sql; do :; done
catalog='{root}/catalog'
touch "$catalog"
comment=${{sql##*COMMENT }}
row() {{ echo "$comment $database" "\"$database\",17,\"$kind\",\"$1\",\"2026-11-21 01:02:03\",?" >>"$catalog"; }}
case $sql in
*M_DATABASES*) printf 'DATABASE_NAME,ACTIVE_STATUS\n"HDB","YES"\n"OLD","NO"\n"SYSTEMDB","YES"\n' ;;
*M_BACKUP_CATALOG_FILES*)
    printf 'DESTINATION_TYPE_NAME,DESTINATION_PATH,BACKUP_SIZE,EXTERNAL_BACKUP_ID\n"file","/backup/part",4096,?\n' ;;
*COMMENT\ =*)
    echo '{HEADER}'
    case $sql in
    *"FROM SYS_DATABASES."*) database=${{sql#*DATABASE_NAME = \'}}; database=${{database%%\'*}} ;;
    *) database=SYSTEMDB ;;
    esac
    comment=${{sql##*COMMENT = }}; comment=${{comment%% ORDER*}}
    grep -F "$comment $database " "$catalog" | sed 's/^[^"]*"/"/' ;;
*M_BACKUP_CATALOG*) echo '{HEADER}'; sed -n 's/^other //p' "$catalog" ;;
"BACKUP DATA"*)
    case $sql in *"FOR HDB"*) database=HDB ;; *) database=SYSTEMDB ;; esac
    case $sql in *INCREMENTAL*) kind='incremental data backup' ;; *) kind='complete data backup' ;; esac
    {backup} ;;
*) echo "* 257: sql syntax error" >&2; exit 3 ;;
esac"#
        ),
    );
    host.file("backup/part", "bytes");
    host.script("usr/sap/HDB/HDB00/exe/hdbbackupcheck", "echo \"Backup '$1' successfully checked.\"");
    host
}

fn made(host: &Host) -> usize {
    host.calls().lines().filter(|line| line.contains("BACKUP DATA")).count()
}

#[test]
fn each_database_is_backed_up_once() {
    let host = host("row successful");
    let report = host.path().join("report");
    assert_eq!(host.run(&["backup", "--run", "R1", "--done"]).code(), 1);
    let mut command = host.command(&["--json", "backup", "--to", "file"]);
    let output = command.env("HOSTLER_RUN", "R1").env("HOSTLER_REPORT", &report).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["backups"][0],
        serde_json::json!({"database": "HDB", "id": 17, "parts": 1, "bytes": 4096, "sampled": 0})
    );
    assert_eq!(json["backups"][1]["database"], "SYSTEMDB");
    assert_eq!(made(&host), 2);
    let line: serde_json::Value = serde_json::from_str(fs::read_to_string(&report).unwrap().trim()).unwrap();
    assert_eq!(line["output"]["backup_ids"], "HDB:17 SYSTEMDB:17");
    assert_eq!(line["output"]["bytes"], 8192);
    // The same run again makes nothing; another run does.
    assert_eq!(host.run(&["backup", "--run", "R1", "--done"]).code(), 0);
    assert_eq!(host.run(&["backup", "--run", "R1"]).code(), 0);
    assert_eq!(made(&host), 2);
    assert_eq!(host.run(&["backup", "--run", "R2", "--done"]).code(), 1);
    assert_eq!(host.run(&["backup", "--run", "R2", "--database", "HDB", "--what", "incremental"]).code(), 0);
    let calls = host.calls();
    assert!(calls.contains("BACKUP DATA INCREMENTAL FOR HDB USING BACKINT ('HOSTLER_2"), "{calls}");
    assert!(calls.contains("BACKUP DATA USING FILE ('HOSTLER_2"), "{calls}");
    assert!(calls.contains("COMMENT 'hostler run R1'"), "{calls}");
}

#[test]
fn the_catalog_is_believed_and_not_the_statement() {
    // The connection broke, and the backup is there.
    let lost = host("row successful; echo '* -10807: Connection down' >&2; exit 1");
    assert_eq!(lost.run(&["backup", "--run", "R1"]).code(), 0);
    // It succeeded, and the catalog knows nothing.
    let nothing = host(":");
    let answer = nothing.run(&["backup", "--run", "R1"]);
    assert_eq!(answer.code(), 5, "{}", answer.err());
    // It failed: with the database's own words, and the next attempt makes it anew.
    let failing =
        host("row failed; echo '* 447: backup could not be completed: [110507] Backint exited' >&2; exit 3");
    let answer = failing.run(&["backup", "--run", "R1"]);
    assert_eq!(answer.code(), 4);
    assert_eq!(
        answer.err(),
        "hostler-hana: SQL error 447: backup could not be completed: [110507] Backint exited\n"
    );
    assert_eq!(failing.run(&["backup", "--run", "R1", "--done"]).code(), 1);
    assert_eq!((failing.run(&["backup", "--run", "R1"]).code(), made(&failing)), (4, 2));
    // A logon that fails with exit code 0.
    let denied = host("echo '* 10: authentication failed SQLSTATE: 28000' >&2; exit 0");
    assert_eq!(denied.run(&["backup", "--run", "R1"]).code(), 4);
    // It does not end in time, and goes on in the database: no second one is made.
    let slow = host("row running; exec sleep 600");
    assert_eq!(slow.run(&["backup", "--run", "R1", "--timeout", "1s"]).code(), 5);
    assert_eq!(slow.run(&["backup", "--run", "R1", "--done"]).code(), 5);
    assert_eq!((slow.run(&["backup", "--run", "R1", "--timeout", "1s"]).code(), made(&slow)), (5, 1));
    // A repetition waits for it.
    let ended = fs::read_to_string(slow.path().join("catalog")).unwrap().replace("running", "successful");
    slow.file("catalog", &ended);
    let again = slow.run(&["backup", "--run", "R1", "--database", "HDB"]);
    assert_eq!((again.code(), made(&slow)), (0, 1), "{}", again.err());
}

#[test]
fn what_forbids_a_backup() {
    let busy = host("row successful");
    busy.file("catalog", "other \"HDB\",9,\"data snapshot\",\"prepared\",\"2026-11-21 01:02:03\",?\n");
    let answer = busy.run(&["backup", "--run", "R1", "--database", "HDB"]);
    assert_eq!((answer.code(), made(&busy)), (6, 0), "{}", answer.err());
    assert!(answer.err().contains("a prepared snapshot must be closed"));
    assert_eq!(busy.run(&["backup", "--run", "R1", "--database", "SYSTEMDB"]).code(), 0);
    for database in ["OLD", "NONE"] {
        assert_eq!(busy.run(&["backup", "--run", "R1", "--database", database]).code(), 3);
    }
    assert_eq!(busy.run(&["backup", "--run", "R1", "--database", "H;DROP"]).code(), 2);
    assert_eq!(busy.run(&["backup", "--run", "it's"]).code(), 2);
    assert_eq!(busy.run(&["backup"]).code(), 3, "without a run");
    // The catalog calls it successful, and its file is not there.
    let gone = host("row successful");
    fs::remove_file(gone.path().join("backup/part")).unwrap();
    assert_eq!(gone.run(&["backup", "--run", "R1"]).code(), 9);
    gone.file("backup/part", "");
    assert_eq!(gone.run(&["backup", "--run", "R1", "--done"]).code(), 4);
    assert_eq!(made(&gone), 1);
    // Its file is there, and HANA's tool says that it is not whole, or says what nobody knows.
    let torn = host("row successful");
    for (exit, code) in [(1, 4), (2, 5)] {
        torn.script("usr/sap/HDB/HDB00/exe/hdbbackupcheck", &format!("exit {exit}"));
        let answer = torn.run(&["backup", "--run", "R1", "--database", "HDB"]);
        assert_eq!(answer.code(), code, "{}", answer.err());
        assert!(answer.err().contains("hdbbackupcheck"), "{}", answer.err());
    }
    assert!(torn.calls().contains("hdbbackupcheck /backup/part"), "{}", torn.calls());
}
