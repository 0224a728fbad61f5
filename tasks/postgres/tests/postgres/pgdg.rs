//! The layout of the PGDG's rpms, in a tree that has Debian's servers where those rpms have theirs. What systemd and dnf do
//! there, nobody does here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use hostler_testkit::free_ports;
use serde_json::Value;

use crate::kit::{Lab, as_postgres, output};

struct Host {
    lab: Lab,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::new();
        for version in [13, 15] {
            let place = lab.path(&format!("root/usr/pgsql-{version}"));
            fs::create_dir_all(&place).expect("a folder");
            for (name, to) in [
                ("bin", format!("/usr/lib/postgresql/{version}/bin")),
                ("lib", format!("/usr/lib/postgresql/{version}/lib")),
                ("share", format!("/usr/share/postgresql/{version}")),
            ] {
                symlink(to, place.join(name)).expect("a link");
            }
        }
        Self { lab }
    }

    fn data(&self, version: u16, folder: &str) -> PathBuf {
        self.lab.path(&format!("root/var/lib/pgsql/{version}/{folder}"))
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.lab.path("root/etc/systemd/system").join(name)
    }

    fn program(&self, words: &[&str]) -> Command {
        let mut command = self.lab.program(words);
        command.env("HOSTLER_POSTGRES_PGDG", self.lab.path("root"));
        command
    }

    /// What a command says that ends so.
    #[track_caller]
    fn ends(&self, words: &[&str], status: i32) -> String {
        let (ended, out, said) = output(&mut self.program(words));
        assert_eq!(ended, status, "{words:?}: {said}");
        format!("{out}{said}")
    }

    #[track_caller]
    fn install(&self, name: &str, version: &str, port: u16) {
        let (port, run) = (port.to_string(), self.lab.path("run").display().to_string());
        let words =
            ["install", "run", "--cluster", name, "--version", version, "--port", &port, "--socket", &run];
        self.ends(&[&words[..], &["--set", "wal_level=logical", "--set", "fsync=off"]].concat(), 0);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (version, folder) in [(13, "data"), (15, "data"), (15, "shop")] {
            let data = self.data(version, folder);
            if data.join("postmaster.pid").exists() {
                let mut command = as_postgres(format!("/usr/lib/postgresql/{version}/bin/pg_ctl"));
                command.arg("--pgdata").arg(&data).args(["--mode=immediate", "--wait", "stop"]);
                let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
    }
}

#[test]
fn a_cluster_of_the_rpms_is_made_seen_restarted_and_upgraded() {
    let host = Host::new();
    let [port, other, spare] = free_ports();
    assert!(host.ends(&["health", "--cluster", "main"], 5).contains("the units postgresql-VERSION"));
    // The rpm makes an empty folder.
    fs::create_dir_all(host.data(13, "data")).expect("a folder");
    crate::kit::own(&host.data(13, "data"));
    crate::kit::own(host.data(13, "data").parent().expect("a parent"));
    host.install("main", "13", port);
    // A name of its own has a unit of its own, and both go together.
    host.install("shop", "15", other);
    let unit = host.unit("postgresql-15-shop.service");
    let text = fs::read_to_string(&unit).expect("a unit");
    let data = host.data(15, "shop");
    assert!(text.contains(&format!("PGDATA={}\n", data.display())), "{text}");
    let fact = host.ends(&["fact"], 0);
    let fact: Value = serde_json::from_str(fact.trim()).expect("a fact");
    for (title, port) in [("13/main", port), ("15/shop", other)] {
        let entry = &fact["clusters"][title];
        assert!(
            entry["role"] == "primary" && entry["port"] == port && entry["unclear"]["server"].is_null(),
            "{fact}"
        );
    }
    host.ends(&["install", "undo", "--cluster", "shop"], 6);
    let begun = host.lab.sql(port, "postgres", "select pg_postmaster_start_time()");
    host.ends(&["restart", "--cluster", "main", "--always"], 0);
    assert_ne!(host.lab.sql(port, "postgres", "select pg_postmaster_start_time()"), begun);
    // From one folder of the rpms to the other.
    let rows = "select count(*), sum(i) from t";
    host.lab.sql(
        port,
        "postgres",
        "create table t as select generate_series(1, 1000) as i; alter table t add primary key (i)",
    );
    let spare = spare.to_string();
    let step = |step: &[&str]| {
        let words = ["upgrade"].iter().chain(step).copied();
        let plan = ["--cluster", "main", "--to", "15", "--port", &spare];
        host.ends(&words.chain(plan).collect::<Vec<_>>(), 0)
    };
    step(&["prepare"]);
    step(&["undo", "prepare"]);
    for name in ["check", "prepare", "follow", "switch", "follow-back", "verify", "finish"] {
        step(&[name]);
        if name == "switch" {
            host.lab.sql(port, "postgres", "insert into t select max(i) + 1 from t");
        }
    }
    step(&["done", "finish"]);
    assert_eq!(host.lab.sql(port, "postgres", rows), "1001|501501");
    assert_eq!(&host.lab.sql(port, "postgres", "show server_version_num")[..2], "15");
    assert!(!host.data(13, "data").exists());
    let wanted = |version: u16| {
        fs::symlink_metadata(
            host.unit("multi-user.target.wants").join(format!("postgresql-{version}.service")),
        )
    };
    assert!(wanted(15).is_ok() && wanted(13).is_err());
}
