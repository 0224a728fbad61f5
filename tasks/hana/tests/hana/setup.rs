//! `backup-setup`: Backint through the real depot, proved by a backup, taken back, and refused beside another agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hostler_testkit::Host as Agent;
use serde_json::json;

use crate::agent::{install, order};
use crate::depot::Store;
use crate::played::{Played, beside};

const LINK: &str = "/usr/sap/HDB/SYS/global/hdb/opt/hdbbackint";

/// A system without Backint, on a host with the depot and its configuration.
fn host(store: &Store) -> Played {
    let played = Played::with_system("h1");
    let depot = played.path("/usr/bin/hostler-depot");
    let text = format!(
        "#!/bin/sh\nexport AWS_EC2_METADATA_DISABLED=true\n[ \"${{0##*/}}\" != hdbbackint ] || set -- backint \"$@\"\nexec {} \"$@\"\n",
        beside("hostler-depot").display()
    );
    fs::create_dir_all(depot.parent().unwrap()).unwrap();
    let new = depot.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &depot).unwrap();
    fs::create_dir_all(played.path("/etc/hostler")).unwrap();
    fs::copy(store.config(), played.path("/etc/hostler/depot.yml")).unwrap();
    played
}

/// The depot's configuration on that host.
fn config(played: &Played) -> String {
    played.path("/etc/hostler/depot.yml").display().to_string()
}

fn settings(played: &Played) -> String {
    let select =
        "SELECT KEY, VALUE FROM M_INIFILE_CONTENTS WHERE LAYER_NAME = 'SYSTEM' AND SECTION = 'backup'";
    let mut lines: Vec<_> =
        played.sql("SYSTEMDB", &format!("{select} ORDER BY KEY")).lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn orders_set_it_up_and_a_failure_takes_it_back() {
    let store = Store::new();
    let played = host(&store);
    played.set("backup", "data_backup_buffer_size", "700");
    let former = settings(&played);
    let mut host = Agent::on_dir("db1");
    install(&host, &played);
    host.start();
    let params = json!({"sid": "HDB", "channels": 2, "config": config(&played)});
    // The backup that proves it fails: everything is as it was.
    played.fault("backint-error databackup");
    order(&host, "first", "hana-backup-setup", params.clone(), "undone");
    assert_eq!(settings(&played), former);
    assert!(!played.path(LINK).is_symlink());
    played.fault("");
    let report = order(&host, "setup", "hana-backup-setup", params.clone(), "succeeded");
    let kept = "SELECT BACKUP_ID FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup' AND \
                STATE_NAME = 'successful'";
    assert_eq!(
        report["outputs"]["backup_id"].as_str(),
        Some(played.sql("SYSTEMDB", kept).as_str()),
        "{report}"
    );
    for line in ["\"data_backup_buffer_size\",\"1024\"", "\"log_backup_using_backint\",\"true\""] {
        assert!(settings(&played).contains(line), "{}", settings(&played));
    }
    order(&host, "again", "hana-backup-setup", params, "unchanged");
    // From here on backups go there.
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    order(&host, "backup", "hana-backup", json!({"sid": "HDB"}), "succeeded");
}

#[test]
fn another_agent_and_foreign_changes_stay() {
    let store = Store::new();
    let played = host(&store);
    let config = format!("--config={}", config(&played));
    let setup = |run: &str| played.run(&["backup-setup", &config, "--run", run]);
    let probe = || played.run(&["backup-setup", &config, "--probe"]).code();
    let link = played.path(LINK);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    fs::write(&link, "#!/bin/sh\n").unwrap();
    let answer = setup("S1");
    assert!(answer.code() == 6 && answer.err().contains("another Backint agent"), "{}", answer.err());
    assert_eq!((settings(&played).as_str(), probe()), ("", 1));
    fs::remove_file(&link).unwrap();
    // It dies when it has set everything: the same run goes on, and makes one backup.
    played.fault("crash*1 configuration.set");
    assert_ne!(setup("S2").code(), 0);
    let answer = setup("S2");
    assert_eq!((answer.code(), probe()), (0, 0), "{}", answer.err());
    assert_eq!(setup("S2").code(), 0);
    assert_eq!(played.calls().matches("BACKUP DATA USING BACKINT").count(), 1);
    // What somebody has set since is theirs.
    played.set("backup", "log_backup_parameter_file", "/theirs");
    assert_eq!(played.run(&["backup-setup", "--undo", "--run", "S2"]).code(), 0);
    assert_eq!(settings(&played), "\"log_backup_parameter_file\",\"/theirs\"");
    assert!(!link.is_symlink());
    assert_eq!(played.run(&["backup-setup", "--undo", "--run", "S2"]).code(), 0);
}
