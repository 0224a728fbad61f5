//! `media` and `configure` against the stand-ins: from SAP's archive to a system as it is wanted.

use std::fs;

use crate::played::{PASSWORD, Played};

/// The SHA-256 of a file, by coreutils.
pub(crate) fn sha256(played: &Played, path: &str) -> String {
    let output = std::process::Command::new("sha256sum").arg(played.path(path)).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn an_archive_becomes_media_or_nothing() {
    let played = Played::new("h1");
    played.own(&["archive", &played.root(), "2.00.079.00", "/media/IMDB.SAR"]);
    let sum = sha256(&played, "/media/IMDB.SAR");
    let media = |sum: &str, more: &[&str]| {
        let archive = ["media", "--media", "/media/new", "--archive", "/media/IMDB.SAR", "--sha256", sum];
        played.run(&[&archive[..], more].concat())
    };
    let there = || played.path("/media/new").exists() || played.path("/media/new.hostler-new").exists();
    let extracted = || played.calls().matches("SAPCAR").count();
    assert_eq!(media(&sum, &["--probe"]).code(), 1);
    let answer = media(&"0".repeat(64), &[]);
    assert!(answer.code() == 6 && answer.err().contains("download it again"), "{}", answer.err());
    assert_eq!((there(), extracted()), (false, 0), "another archive is not even opened");
    // The archive has another version than the order.
    played.fault("media-version*1 2.00.078.00");
    let answer = media(&sum, &["--media-version", "2.00.079.00"]);
    assert!(
        answer.code() == 6 && answer.err().contains("is 2.00.078.00 and not 2.00.079.00"),
        "{}",
        answer.err()
    );
    assert!(!there(), "what nobody wants is not left");
    // The disk is full: nothing has the name of the media.
    played.fault("disk-full /media/new.hostler-new");
    assert_eq!(media(&sum, &[]).code(), 4);
    assert!(!played.path("/media/new").exists());
    // The step is killed while SAPCAR is at work.
    played.fault("kill-step*1 sapcar.extracted");
    assert_eq!((media(&sum, &[]).code(), played.path("/media/new").exists()), (-1, false));
    played.fault("");
    for _ in 0..2 {
        let answer = media(&sum, &["--media-version", "2.00.79.0"]);
        assert_eq!((answer.code(), answer.err().as_str()), (0, ""));
    }
    assert_eq!(
        (extracted(), media(&sum, &["--probe"]).code()),
        (4, 0),
        "what is there is not extracted again"
    );
    assert!(played.path("/media/new/SAP_HANA_DATABASE/SIGNATURE.SMF").is_file());
    assert!(played.calls().contains("\"-manifest\",\"SIGNATURE.SMF\""), "{}", played.calls());
    // A folder of another archive, or of somebody else, stays.
    let answer = media(&"1".repeat(64), &[]);
    assert!(answer.code() == 6 && answer.err().contains("not of this archive"), "{}", answer.err());
    let look = ["media", "--media", "/media/2.00.077.00"];
    assert_eq!(played.run(&look).code(), 0);
    fs::write(played.path("/media/2.00.077.00/SAP_HANA_DATABASE/SIGNATURE.SMF"), "").unwrap();
    assert_eq!(played.run(&look).code(), 6, "without a signature");
    // It is good media.
    let install = ["--number", "00", "install", "--media", "/media/new", "--archive", "/media/IMDB.SAR"];
    assert_eq!(played.run(&[&install[..], &["--probe"]].concat()).code(), 1);
    let answer = played.run(&install);
    assert_eq!(answer.code(), 0, "{}", answer.err());
}

#[test]
fn a_system_is_configured_once() {
    let played = Played::with_system("h1");
    let wanted = [
        "configure",
        "--log-mode=normal",
        "--parameters=global.ini/memorymanager/global_allocation_limit=65536 indexserver.ini/sql/plan_cache=on",
        "--tenant=HDB,QA1",
        "--tenant-keys",
    ];
    let probe = || played.run(&[&wanted[..], &["--probe"]].concat()).code();
    assert_eq!(probe(), 1);
    // It dies when the parameters are set: a repetition does the rest.
    played.fault("hdbsql-refuses*1\ncrash*1 database.volume-made");
    assert_ne!(played.run(&wanted).code(), 0);
    played.fault("crash*1 database.volume-made");
    assert_ne!(played.run(&wanted).code(), 0);
    played.fault("");
    let answer = played.run(&wanted);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!((probe(), answer.json()["tenants"][0].as_str()), (0, Some("QA1")));
    let answer = played.run(&wanted);
    let nothing = serde_json::json!({"parameters": [], "tenants": [], "keys": []});
    assert_eq!((answer.code(), answer.json()), (0, nothing));
    assert_eq!(played.calls().matches("SET ('sql','plan_cache')").count(), 1);
    // Each tenant has its key.
    for tenant in ["HDB", "QA1"] {
        let key = format!("HOSTLER_{tenant}");
        let asked = ["-U", &key, "-E", "3", "-x", "-a", "SELECT DATABASE_NAME FROM M_DATABASE"];
        let left = played.tool("/usr/sap/HDB/HDB00/exe/hdbsql", &asked, "");
        assert_eq!(left.out.trim(), format!("\"{tenant}\""), "{left:?}");
    }
    assert!(!played.calls().lines().any(|line| !line.contains("\"-p\"") && line.contains(PASSWORD)));
    let answer = played.run(&["configure", "--tenant=SYSTEMDB"]);
    assert_eq!(answer.code(), 3);
}
