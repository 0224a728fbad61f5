//! Faults of a system and of its host: each is named, nothing rests on a guess, and when it is over the work goes on.

use serde_json::json;

use crate::played::Played;

#[test]
fn each_fault_is_named_and_passes() {
    let played = Played::with_system("h1");
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    let backup = |run: &str| played.run(&["backup", "--run", run, "--to", "file"]);
    // The statement succeeds, and the catalog knows nothing of the tenant.
    played.fault("tenant-not-in-backup HDB");
    let answer = backup("B1");
    assert!(answer.code() == 5 && answer.err().contains("no backup of HDB"), "{}", answer.err());
    // The disk of the backups is full.
    played.fault("disk-full /usr/sap/HDB/HDB00/backup");
    let answer = backup("B2");
    assert!(answer.code() == 4 && answer.err().contains("SQL error 447"), "{}", answer.err());
    played.fault("");
    assert_eq!(backup("B2").code(), 0);
    // With an expired license nothing is updated.
    played.fault("license-expired");
    let update = ["update", "--media", "/media/2.00.079.00"];
    let answer = played.run(&update);
    assert!(answer.code() == 6 && answer.err().contains("license"), "{}", answer.err());
    assert!(!played.calls().contains("--action=update"));
    // Without an answer of sapstartsrv nothing is known of the processes; the rest is.
    played.fault("sapstartsrv-hangs");
    let fact = played.run_of_host(&["fact"]).json()["systems"]["HDB"].clone();
    assert!(fact["running"].is_null() && fact["unclear"].to_string().contains("processes"), "{fact}");
    assert_eq!(fact["tenants"], json!(["HDB"]), "{fact}");
    played.fault("");
    assert_eq!(played.rows(), "1");
}

/// What the host agent lists without its being there is no system, and nothing is begun beside it.
#[test]
fn a_stale_instance_is_no_installation() {
    let played = Played::new("h1");
    played.fault("stale-instance HDB 00");
    let install = ["--number", "00", "install", "--media", "/media/2.00.077.00"];
    assert_eq!(played.run(&[&install[..], &["--probe"]].concat()).code(), 1);
    let answer = played.run(&install);
    assert!(answer.code() == 6 && !played.calls().contains("--action=install"), "{}", answer.err());
    played.fault("");
    assert_eq!(played.run(&install).code(), 0);
}
