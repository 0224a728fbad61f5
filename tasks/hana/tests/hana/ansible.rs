//! The example of docs/ansible.md, carried out by the real agent (`HOSTLER_BIN`) and the real Ansible.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hostler_testkit::{Host, Vault, eventually};
use serde_json::{Value, json};

use crate::played::Played;

/// A password that Ansible would evaluate, if anything let it.
const PASSWORD: &str = "Canary9{{ 7 * 7 }}#";

fn copy(from: &Path, to: &Path, program: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, program);
            continue;
        }
        let text = fs::read_to_string(&from).unwrap();
        fs::write(&to, text.replace("[hostler-hana,", &format!("[{},", program.display()))).unwrap();
        fs::set_permissions(&to, fs::metadata(&from).unwrap().permissions()).unwrap();
    }
}

#[track_caller]
fn order(host: &Host, name: &str, params: &Value, phase: &str) -> Value {
    host.order(name, &json!({"task": "hana-by-role", "params": params}).to_string());
    eventually(Duration::from_secs(120), || match host.report(name) {
        Some(report) if report["phase"] == phase => Ok(report),
        Some(report) if !report["ended"].is_null() => {
            panic!("{name}: wanted {phase}: {report}; {}", host.log_tail())
        }
        other => Err(format!("{name}: wanted {phase}, it says {other:?}; {}", host.log_tail())),
    })
}

#[test]
fn a_role_of_a_collection_in_the_tasks_folder_installs_a_system() {
    let vault = Vault::double();
    vault.policy("agent", &[("secret/data/hana/*", &["read"]), ("auth/token/create", &["update"])]);
    vault.put("hana/db1/HDB", json!({"sidadm_password": PASSWORD, "system_password": PASSWORD}));
    let played = Played::new("h1");
    let mut host = Host::on_vault("db1", &vault, "");
    let program = host.path("hostler-hana");
    let binary = env!("CARGO_BIN_EXE_hostler-hana");
    fs::write(&program, format!("#!/bin/sh\nexec {binary} --root {} \"$@\"\n", played.root())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hana-by-role");
    let (code, text) = host.hostler(&["task", "lint", &example.display().to_string()]);
    assert_eq!(code, 0, "{text}");
    copy(&example, &host.path("tasks/hana-by-role"), &program);
    host.start();

    let params = |media: &str| {
        let path = |path: &str| played.path(path).display().to_string();
        json!({"sid": "HDB", "number": "00", "mount": "secret", "media": path(media), "sapmnt": path("/hana/shared")})
    };
    // hdblcm that is not there: the role fails, and says no password.
    order(&host, "wrong", &params("/media/none"), "failed");
    order(&host, "install", &params("/media/2.00.077.00"), "succeeded");
    // The password arrived as it was written.
    let logon = ["-i", "00", "-u", "SYSTEM", "-p", PASSWORD, "-E", "3", "SELECT 1 FROM DUMMY"];
    let left = played.tool("/usr/sap/HDB/HDB00/exe/hdbsql", &logon, "");
    assert_eq!(left.code, Some(0), "{left:?}");
    // Check mode is the probe: nothing is to be done.
    order(&host, "again", &params("/media/2.00.077.00"), "unchanged");
    let installations = played.calls().lines().filter(|line| line.contains("--action=install")).count();
    assert_eq!(installations, 1);
    host.stop();
    let own = |line: &&str| !line.contains("\"-p\"");
    assert!(!played.calls().lines().filter(own).any(|line| line.contains("Canary9")));
    for place in [host.path("state"), host.path("store")] {
        assert_eq!(crate::agent::files_with(&place, "Canary9"), Vec::<std::path::PathBuf>::new());
    }
}
