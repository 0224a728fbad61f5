//! Rules, Glacier, and the way back, against moto.

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::servers::Moto;

#[test]
fn a_cold_backup_is_thawed_waited_for_and_restored() {
    let server = Moto::start();
    server.bucket(&[]);
    let depot = Depot::new(server.address, "");
    let bytes = noise(1, 11 << 20);
    for name in ["db/a", "db/deep", "db/hot"] {
        depot.put(name, &bytes);
    }
    depot.run(&["move", "db/a", "--to", "GLACIER"]).ok();
    depot.run(&["move", "db/deep", "--to", "DEEP_ARCHIVE"]).ok();
    let states = |depot: &Depot| depot.run(&["status", "--json"]).ok().json();
    let before = states(&depot);
    assert_eq!(before[0]["state"]["state"], "cold");
    assert_eq!(before[0]["state"]["seconds"], 5 * 3600);
    assert_eq!(before[1]["state"]["class"], "DEEP_ARCHIVE");
    assert_eq!(before[1]["state"]["seconds"], 12 * 3600);
    assert_eq!(before[2]["state"]["seconds"], 0);
    let verified = depot.run(&["verify", "--json"]).ok().json();
    assert_eq!(verified[0]["verdict"], "cold");
    assert_eq!(verified[2]["verdict"], "good");
    depot.run(&["thaw", "db/deep", "--tier", "expedited"]).fails(6, "no Expedited thaw");
    depot.run(&["move", "db/a", "--to", "STANDARD"]).fails(75, "must be thawed first");
    server.held(6);
    depot.run(&["get", "db/a", "--tier", "bulk"]).fails(75, "is being thawed: in at most 12 h");
    assert_eq!(states(&depot)[0]["state"]["state"], "thawing");
    let got = depot.run(&["get", "db/a", "--wait", "60s", "--poll", "1s"]).ok();
    assert!(got.out == bytes);
    let after = states(&depot);
    assert_eq!(after[0]["state"]["state"], "thawed");
    assert!(after[0]["state"]["until"].as_str().unwrap().contains("GMT"));
    let table = depot.run(&["status"]).ok();
    assert!(String::from_utf8(table.out).unwrap().contains("now, until"));
    depot.run(&["verify", "db/a"]).ok();
}

#[test]
fn prune_deletes_moves_and_clears_and_a_dry_run_only_says_so() {
    let server = Moto::start();
    server.bucket(&[]);
    let rules = "databases: {db: {keep: {hourly: 1}, cold: {after_days: 0, class: GLACIER}}, other: {}}";
    let depot = Depot::new(server.address, rules);
    for name in ["db/1", "db/2", "other/1"] {
        depot.put(name, name.as_bytes());
    }
    depot.feed(&["put", "db/3", "--parent", "db/1"], b"builds on the first").ok();
    depot.run(&["delete", "db/1"]).fails(6, "builds on");
    // An upload of another host that nobody remembers.
    let (status, text) = server.ask("POST", "/vault/prod/db/lost/data.X?uploads", &[], "");
    assert_eq!(status, 200, "{text}");
    let dry = depot.run(&["prune", "--dry-run"]).ok();
    assert_eq!(
        String::from_utf8(dry.out).unwrap(),
        "would delete db/2\nwould move db/1 to GLACIER\nwould move db/3 to GLACIER\n"
    );
    assert_eq!(depot.names().len(), 4);
    let report = depot.run(&["prune", "--json", "--stale", "0s"]).ok().json();
    assert_eq!(report["actions"].as_array().unwrap().len(), 3);
    assert_eq!(report["stale_uploads"], 1);
    assert_eq!(depot.names(), ["db/1", "other/1", "db/3"]);
    let classes = depot.run(&["list", "--json"]).ok().json();
    assert_eq!(classes[0]["class"], "GLACIER");
    assert_eq!(classes[1]["class"], "STANDARD");
    let again = depot.run(&["prune", "--json", "--stale", "0s"]).ok().json();
    assert_eq!(again["actions"].as_array().unwrap().len(), 0);
    let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
    assert_eq!(keys.matches("<Key>").count(), 6, "three backups, and nothing else: {keys}");
}
