//! The whole life of a replicated pair as orders on two hosts: installed, replicated, backed up to object storage, updated
//! near zero downtime under a counting writer, its backups in Glacier, its data lost, thawed and restored to an instant.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use hostler_testkit::{Host, Vault};
use serde_json::json;

use crate::agent::{install, order};
use crate::depot::Store;
use crate::played::{PASSWORD, Played, until};

/// Two hosts that know each other, without a system.
fn two() -> [Played; 2] {
    let pair = [Played::new("h1"), Played::new("h2")];
    for (host, name, other, of_other) in [(0, "h1", "h2", 1), (1, "h2", "h1", 0)] {
        let peer = format!("{other}={}", pair[of_other].root());
        pair[host].own(&[
            "install",
            &pair[host].root(),
            "--host",
            name,
            "--factor",
            "0.001",
            "--peer",
            &peer,
        ]);
    }
    pair
}

/// What the writer saw: the rows that were acknowledged, and the longest time without one.
struct Written {
    rows: Vec<u32>,
    gap: Duration,
}

/// Writes rows into whichever system takes them, each again until it is acknowledged, until it is told to stop.
fn write(pair: &[Played; 2], stop: &AtomicBool) -> Written {
    let mut written = Written { rows: Vec::new(), gap: Duration::ZERO };
    let (mut at, mut last) = (0, Instant::now());
    for row in 100.. {
        // A lost answer may be of a row that is there: it is not written twice.
        let sql = format!("INSERT INTO T VALUES ({row})");
        while pair[at].try_sql("HDB", &sql).is_err() {
            if pair[at]
                .try_sql("HDB", &format!("SELECT N FROM T WHERE N = {row}"))
                .is_ok_and(|found| !found.is_empty())
            {
                break;
            }
            if stop.load(Ordering::SeqCst) {
                return written;
            }
            at = 1 - at;
        }
        written.gap = written.gap.max(last.elapsed());
        last = Instant::now();
        written.rows.push(row);
        if stop.load(Ordering::SeqCst) {
            return written;
        }
    }
    written
}

#[test]
fn the_life_of_a_replicated_pair() {
    let store = Store::new();
    let vault = Vault::double();
    vault.policy("agent", &[("secret/data/hana/*", &["read"]), ("auth/token/create", &["update"])]);
    let pair = two();
    let [one, two] = &pair;
    let mut hosts = ["db1", "db2"].map(|name| Host::on_vault(name, &vault, ""));
    for (host, played) in hosts.iter_mut().zip(&pair) {
        let passwords =
            json!({"sidadm_password": PASSWORD, "system_password": PASSWORD, "sapadm_password": PASSWORD});
        vault.put(&format!("hana/{}/HDB", host.name()), passwords);
        install(host, played);
        host.start();
    }
    let [db1, db2] = &hosts;

    // Both are installed.
    let media = |version: &str| json!({"sid": "HDB", "number": "00", "media": format!("/media/{version}"), "mount": "secret"});
    for (host, played, other) in [(db1, one, "h2"), (db2, two, "h1")] {
        order(host, "install", "hana-install", media("2.00.077.00"), "succeeded");
        played.key("OTHER", &format!("{other}:30013"));
        store.serve(played);
    }
    one.sql("HDB", "CREATE TABLE T (N INTEGER)");
    one.sql("HDB", "INSERT INTO T VALUES (1)");

    // They replicate, after a backup to object storage.
    order(db1, "backup", "hana-backup", json!({"sid": "HDB"}), "succeeded");
    order(db1, "enable", "hana-enable", json!({"sid": "HDB", "site": "EAST"}), "succeeded");
    let ssfs = |file: &str| {
        let path = format!("/usr/sap/HDB/SYS/global/security/rsecssfs/{file}");
        BASE64_STANDARD.encode(fs::read(one.path(&path)).unwrap())
    };
    vault.put("hana/ssfs/HDB", json!({"data": ssfs("data/SSFS_HDB.DAT"), "key": ssfs("key/SSFS_HDB.KEY")}));
    let register = |name: &str, site: &str| json!({"sid": "HDB", "hostname": name, "site": site, "primary_key": "OTHER", "mount": "secret"});
    order(db2, "register", "hana-register", register("h2", "WEST"), "succeeded");
    let active = |primary: &Played, site: &str| {
        let answer = primary.run(&["enable", "--site", site, "--wait", "60s"]);
        assert_eq!(answer.code(), 0, "{}", answer.err());
    };
    active(one, "EAST");

    // They are updated, and a writer counts.
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (written, takeover) = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&pair, &stop));
        // However this ends, the writer does.
        let end = Ending(&stop);
        order(db2, "update", "hana-update", media("2.00.079.00"), "succeeded");
        active(one, "EAST");
        let takeover = json!({"sid": "HDB", "hostname": "h2", "primary_key": "OTHER"});
        let report = order(db2, "takeover", "hana-takeover", takeover.clone(), "succeeded");
        order(db2, "takeover-again", "hana-takeover", takeover, "unchanged");
        let mut former = media("2.00.079.00");
        former.as_object_mut().unwrap().insert("start".to_owned(), json!(false));
        order(db1, "update", "hana-update", former, "succeeded");
        order(db1, "register", "hana-register", register("h1", "EAST"), "succeeded");
        active(two, "WEST");
        drop(end);
        (writer.join().unwrap(), report)
    });
    let took = began.elapsed();
    let mut rows: Vec<u32> = [1].into_iter().chain(written.rows).collect();
    let all = |rows: &[u32]| rows.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(two.rows(), all(&rows), "each acknowledged row is there once");
    // The two updates, with their stops and starts, take many times as long, whatever the machine does beside.
    assert!(written.gap < took / 3, "{:?} of {took:?} without a system", written.gap);

    let downtime = takeover["downtime"].as_array().unwrap().iter().find(|of| of["service"] == "hana:hdb:hdb");
    let seconds = downtime.unwrap()["seconds"].as_f64().unwrap();
    let gap = written.gap.as_secs_f64();
    assert!((seconds - gap).abs() < 0.3, "{seconds} s in the report, {gap} s for the writer: {takeover}");

    // Backed up, and moved to Glacier; then rows in the logs up to an instant, and one behind it.
    two.set("persistence", "log_backup_timeout_s", "50");
    order(db2, "full", "hana-backup", json!({"sid": "HDB"}), "succeeded");
    two.sql("HDB", "INSERT INTO T VALUES (2)");
    rows.insert(1, 2);
    let instant = two.instant();
    two.sql("HDB", "INSERT INTO T VALUES (3)");
    two.logs_sent();
    assert!(store.freeze() >= 8, "two backups of two databases");

    // The secondary follows no more, and the primary loses its data.
    order(db1, "stop", "hana-stop", json!({"sid": "HDB"}), "succeeded");
    two.tool("/usr/sap/HDB/HDB00/HDB", &["kill"], "");
    until("it is down", || two.sapcontrol("GetProcessList") == Some(4));
    for volume in ["hdb00001", "hdb00002"] {
        fs::remove_dir_all(two.path(&format!("/hana/data/HDB/mnt00001/{volume}"))).unwrap();
        fs::remove_dir_all(two.path(&format!("/hana/log/HDB/mnt00001/{volume}"))).unwrap();
    }
    store.thaw_lasts(2);
    let lost = json!({"sid": "HDB", "to": instant, "data_lost": true, "thaw": store.config()});
    let report = order(db2, "restore", "hana-restore", lost, "succeeded");
    assert_ne!(report["epoch"], 1, "it waited for the thaw: {report}");
    assert_eq!(two.rows(), all(&rows), "the rows of the instant");
}

/// Tells the writer to stop when it goes.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
