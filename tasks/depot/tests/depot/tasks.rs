//! The tasks `depot-backup` and `depot-restore`: their scripts, run as the agent runs them.

use std::path::PathBuf;
use std::process::Command;

use crate::support::depot::{Depot, Ended, ended};
use crate::support::servers::{Moto, Strict};

fn script(depot: &Depot, task: &str, script: &str, arguments: &[&str]) -> Ended {
    let folder = depot.path("tasks").join(task);
    hostler_testkit::install_shipped(task, &folder);
    let mut command: Command = depot.program(&folder.join(script), arguments);
    command
        .current_dir(&folder)
        .env("HOSTLER_DEPOT", env!("CARGO_BIN_EXE_hostler-depot"))
        .env("HOSTLER_DEPOT_COMMANDS", depot.path("commands"))
        .env("HOSTLER_ADMIT", admit(depot))
        .env("HOSTLER_REPORT", depot.path("report"));
    ended(command.spawn().unwrap())
}

/// What decides which folders may be touched, with this test's own word of root.
fn admit(depot: &Depot) -> String {
    let file = depot.path("tasks.yml");
    let (source, place) = (depot.path("source"), depot.path("place"));
    let policy = format!("places: {{backup: [{}], restore: [{}]}}\n", source.display(), place.display());
    std::fs::write(&file, policy).unwrap();
    format!("{} admit --tasks-file {}", hostler_testkit::program().display(), file.display())
}

fn with_report(server: std::net::SocketAddr, more: &str) -> Depot {
    let depot = Depot::new(server, more);
    std::fs::write(depot.path("report"), "").unwrap();
    std::fs::create_dir(depot.path("commands")).unwrap();
    depot
}

fn program(depot: &Depot, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path: PathBuf = depot.path("commands").join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn folders_are_backed_up_and_restored_beside_what_is_there() {
    let server = Strict::start();
    let depot = with_report(server.address, "databases: {etc: {keep: {hourly: 1}}}");
    let source = depot.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    std::fs::write(source.join("below/file"), "text").unwrap();
    let folders = format!("[\"{}\"]", source.display());
    script(&depot, "depot-backup", "store", &["etc", "", &folders]).ok();
    script(&depot, "depot-backup", "prune", &["etc", "true"]).ok();
    let name = depot.names().remove(0);
    let report = std::fs::read_to_string(depot.path("report")).unwrap();
    assert!(report.contains(&format!("\"backup\":\"{name}\"")), "{report}");
    let target = depot.path("place/target").to_str().unwrap().to_owned();
    script(&depot, "depot-restore", "restore", &[&name, "standard", &target, ""]).ok();
    let restored = format!("{target}{}/below/file", source.display());
    assert_eq!(std::fs::read_to_string(restored).unwrap(), "text");
    script(&depot, "depot-restore", "restore", &[&name, "standard", &target, ""])
        .fails(1, "nothing is overwritten");
    script(&depot, "depot-backup", "store", &["etc", "", "[\"/no/such/folder\"]"]).fails(1, "places.backup");
    script(&depot, "depot-backup", "store", &["etc", "", "[]"]).fails(1, "say which");
}

#[test]
fn a_commands_output_is_backed_up_and_a_cold_restore_says_not_now() {
    let server = Moto::start();
    server.bucket(&[]);
    let depot = with_report(server.address, "");
    program(&depot, "dump", "#!/bin/sh\necho rows\n");
    program(&depot, "load", &format!("#!/bin/sh\ncat >{}\n", depot.path("loaded").display()));
    program(&depot, "broken", "#!/bin/sh\necho half\nexit 1\n");
    script(&depot, "depot-backup", "store", &["hr", "broken", "[]"]).fails(8, "exit status: 1");
    script(&depot, "depot-backup", "store", &["hr", "nothing", "[]"]).fails(1, "install the command");
    script(&depot, "depot-backup", "store", &["hr", "dump", "[]"]).ok();
    let name = depot.names().remove(0);
    depot.run(&["move", &name, "--to", "DEEP_ARCHIVE"]).ok();
    server.held(4);
    let restore = || script(&depot, "depot-restore", "restore", &[&name, "bulk", "", "load"]);
    restore().fails(75, "is being thawed");
    assert!(std::fs::read_to_string(depot.path("report")).unwrap().contains("is being thawed"));
    crate::support::until("it is thawed", || restore().code == Some(0));
    assert_eq!(std::fs::read_to_string(depot.path("loaded")).unwrap(), "rows\n");
}
