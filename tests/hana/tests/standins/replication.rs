//! Two hosts that replicate.

use crate::host::{Host, Left, until};
use std::fs;

/// A primary and a host beside it with a system that is stopped; both have the same secure store.
fn pair() -> (Host, Host) {
    let (one, two) = (Host::new(), Host::new());
    for (host, name, other, of_other) in [(&one, "h1", "h2", &two), (&two, "h2", "h1", &one)] {
        let peer = format!("{other}={}", of_other.root());
        host.own(&["install", &host.root(), "--host", name, "--factor", "0.001", "--peer", &peer]);
        assert_eq!(host.install_system("2.00.077.00").code, Some(0));
    }
    assert_eq!(two.sapcontrol("StopWait 600 2").code, Some(0));
    (one, two)
}

fn share_the_store(one: &Host, two: &Host) {
    for file in ["data/SSFS_HA1.DAT", "key/SSFS_HA1.KEY"] {
        let path = format!("/usr/sap/HA1/SYS/global/security/rsecssfs/{file}");
        fs::copy(one.path(&path), two.path(&path)).unwrap();
    }
}

impl Host {
    fn nsutil(&self, call: &str) -> Left {
        self.run("/usr/sap/HA1/HDB10/exe/hdbnsutil", &call.split(' ').collect::<Vec<_>>())
    }

    fn register(&self, site: &str, primary: &str, mode: &str) -> Left {
        self.nsutil(&format!("-sr_register --name={site} --remoteHost={primary} --remoteInstance=10 --replicationMode={mode} --operationMode=logreplay"))
    }

    fn status(&self) -> Option<i32> {
        self.run("/usr/sap/HA1/HDB10/HDBSettings.sh", &["systemReplicationStatus.py", "--sapcontrol=1"]).code
    }

    fn enable(&self) {
        self.sql("SYSTEMDB", "BACKUP DATA FOR FULL SYSTEM USING FILE ('ALL')");
        let left = self.nsutil("-sr_enable --name=SITE1");
        assert_eq!(left.code, Some(0), "{left:?}");
    }
}

/// A primary, a secondary that is active, and the row 1 on both.
fn replicating(mode: &str) -> (Host, Host) {
    let (one, two) = pair();
    share_the_store(&one, &two);
    one.sql("HA1", "CREATE TABLE T (N INTEGER)");
    one.sql("HA1", "INSERT INTO T VALUES (1)");
    one.enable();
    let left = two.register("SITE2", "h1", mode);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(two.sapcontrol("StartWait 180 2").code, Some(0));
    until("15", || one.status() == Some(15));
    (one, two)
}

/// "needs a data backup of SYSTEMDB and every tenant first"; "on a stopped secondary"; "rc 149 = secure-store files differ:
/// copy and retry".
#[test]
fn what_a_registration_needs() {
    let (one, two) = pair();
    assert_eq!(one.status(), Some(10), "none");
    assert!(one.nsutil("-sr_state --sapcontrol=1").out.contains("\nmode=none\n"));
    let left = one.nsutil("-sr_enable --name=SITE1");
    assert!(left.code == Some(1) && left.out.contains("no data backup of"), "{left:?}");
    assert_eq!(two.register("SITE2", "h1", "sync").code, Some(1), "there is no primary");
    one.enable();
    assert_eq!(two.register("SITE2", "h1", "sync").code, Some(149));
    share_the_store(&one, &two);
    assert_eq!(two.sapcontrol("StartWait 180 2").code, Some(0));
    assert_eq!(two.register("SITE2", "h1", "sync").code, Some(1), "it runs");
    assert_eq!(two.sapcontrol("StopWait 600 2").code, Some(0));
    let left = two.register("SITE2", "h1", "sync");
    assert!(left.code == Some(0) && left.out.ends_with("updating local ini files ...\ndone.\n"), "{left:?}");
    assert_eq!(one.status(), Some(11), "the secondary does not run");
    let state = two.nsutil("-sr_state --sapcontrol=1").out;
    assert!(
        state.starts_with(
            "SAPCONTROL-OK: <begin>\nonline=false\nmode=sync\noperation mode=unknown\nsite id=2\n"
        ),
        "{state}"
    );
    assert!(state.contains("\nactive primary site=1\nprimary masters=h1\n"), "{state}");
}

#[test]
fn each_commit_of_a_synchronous_primary_is_on_its_secondary() {
    let (one, two) = replicating("sync");
    let state = one.nsutil("-sr_state").out;
    for line in [
        "online: true",
        "mode: primary",
        "site name: SITE1",
        "has secondaries/consumers attached: true",
        "h1 -> [SITE2] h2",
    ] {
        assert!(state.lines().any(|other| other == line), "{line}: {state}");
    }
    let text = one.run("/usr/sap/HA1/HDB10/HDBSettings.sh", &["systemReplicationStatus.py"]);
    assert!(
        text.out.contains(
            "status system replication site \"2\": ACTIVE\noverall system replication status: ACTIVE\n"
        ),
        "{text:?}"
    );
    assert_eq!(two.status(), Some(10), "a secondary answers 10");
    assert!(
        two.hdbsql(&["SELECT 1 FROM DUMMY"]).err.starts_with("* -10709"),
        "a secondary takes no connections"
    );
    let view = "SELECT REPLICATION_STATUS, SECONDARY_FULLY_RECOVERABLE FROM M_SERVICE_REPLICATION";
    assert_eq!(one.sql("HA1", view), "\"ACTIVE\",\"TRUE\"");
    one.sql("HA1", "INSERT INTO T VALUES (2)");
    // The primary is lost: the secondary has each commit.
    one.run("/usr/sap/HA1/HDB10/HDB", &["kill"]);
    assert_eq!(two.nsutil("-sr_takeover").code, Some(0));
    assert_eq!(two.rows(), "1 2");
    two.sql("HA1", "INSERT INTO T VALUES (3)");
    // The former primary comes back as a secondary, and gets what it missed.
    assert_eq!(one.register("SITE1", "h2", "sync").code, Some(0));
    assert_eq!(one.sapcontrol("StartWait 180 2").code, Some(0));
    until("15", || two.status() == Some(15));
    assert_eq!(one.nsutil("-sr_takeover --suspendPrimary").code, Some(0));
    assert_eq!(one.rows(), "1 2 3");
    assert!(two.nsutil("-sr_state").out.contains("is primary suspended: true"));
    assert!(two.hdbsql(&["SELECT 1 FROM DUMMY"]).err.starts_with("* -10709"));
}

/// A takeover does not see to it that the former primary is gone: both go on, and part.
#[test]
fn two_primaries_can_be_made() {
    let (one, two) = replicating("sync");
    assert_eq!(two.nsutil("-sr_takeover").code, Some(0));
    one.sql("HA1", "INSERT INTO T VALUES (10)");
    two.sql("HA1", "INSERT INTO T VALUES (20)");
    assert_eq!((one.rows(), two.rows()), ("1 10".to_string(), "1 20".to_string()));
    assert_eq!(one.status(), Some(11));
}

#[test]
fn a_replication_that_fell_ships_nothing() {
    let (one, two) = replicating("sync");
    for status in [11, 12, 13, 14] {
        one.fault(&format!("replication-status {status}"));
        assert_eq!(one.status(), Some(status));
    }
    one.sql("HA1", "INSERT INTO T VALUES (2)");
    assert_eq!(two.nsutil("-sr_takeover").code, Some(0));
    assert_eq!(two.rows(), "1", "the row that was not shipped is lost");
}

/// "A newer secondary may follow an older primary; never the reverse"; 4 is OK, 1 is down.
#[test]
fn a_secondary_is_updated_first() {
    let (one, two) = pair();
    share_the_store(&one, &two);
    let update = |host: &Host| {
        host.hdblcm("2.00.079.00", &["--action=update", "--sid=HA1", "--hdbupd_server_nostart"]).code
    };
    one.enable();
    assert_eq!(update(&two), Some(0));
    assert_eq!(two.register("SITE2", "h1", "async").code, Some(0));
    let landscape =
        |host: &Host| host.run("/usr/sap/HA1/HDB10/HDBSettings.sh", &["landscapeHostConfiguration.py"]).code;
    assert_eq!((landscape(&one), landscape(&two)), (Some(4), Some(1)));
    assert_eq!(two.sapcontrol("StartWait 180 2").code, Some(0));
    until("15", || one.status() == Some(15));
    assert_eq!(one.sapcontrol("StopWait 600 2").code, Some(0));
    assert_eq!(two.nsutil("-sr_takeover").code, Some(0));
    let left = one.register("SITE1", "h2", "async");
    assert!(left.code == Some(1) && left.out.contains("older"), "{left:?}");
    assert_eq!(update(&one), Some(0));
    assert_eq!(one.register("SITE1", "h2", "async").code, Some(0));
}

/// A takeover that dies is repeated; until then no row is lost, and the suspended primary takes no connections.
#[test]
fn a_takeover_that_dies_is_repeated() {
    for point in ["suspended", "taken", "set"] {
        let (one, two) = replicating("syncmem");
        one.sql("HA1", "INSERT INTO T VALUES (2)");
        two.fault(&format!("crash*1 replication.{point}"));
        assert_eq!(two.nsutil("-sr_takeover --suspendPrimary").code, None, "{point}");
        assert!(one.hdbsql(&["SELECT 1 FROM DUMMY"]).err.starts_with("* -10709"), "{point}");
        if point != "set" {
            assert!(two.hdbsql(&["SELECT 1 FROM DUMMY"]).err.starts_with("* -10709"), "{point}");
            assert_eq!(two.nsutil("-sr_takeover --suspendPrimary").code, Some(0), "{point}");
        }
        assert_eq!(two.rows(), "1 2", "{point}");
    }
}
