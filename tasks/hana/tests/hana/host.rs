//! A folder that looks like a host with HANA, whose tools are small scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The host. Every script appends its name and arguments to `calls`.
pub(crate) struct Host {
    folder: TempDir,
}

impl Host {
    /// A host without HANA.
    pub(crate) fn empty() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        host.file("proc/meminfo", "MemTotal:       268435456 kB\n");
        host.file("proc/net/tcp", "  sl  local_address rem_address   st\n");
        host.file("proc/net/tcp6", "  sl  local_address rem_address   st\n");
        host.file("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
        host.script("usr/bin/timedatectl", "echo yes");
        host.script("usr/bin/getent", "echo '10.1.2.3 STREAM east1'");
        host
    }

    /// A host with a healthy HDB 00 in 2.00.077.00 with one tenant and fresh backups.
    pub(crate) fn healthy() -> Self {
        let host = Self::empty();
        host.file("usr/sap/HDB/HDB00/exe/manifest", "fullversion: 2.00.077.00 Build 1700000000-1530\n");
        host.script(
            "usr/sap/HDB/HDB00/exe/sapcontrol",
            "printf '\\n21.11.2026 04:05:06\\nGetProcessList\\nOK\\nname, description, dispstatus, textstatus, starttime, \
             elapsedtime, pid\\nhdbdaemon, HDB Daemon, GREEN, Running, 2026 11 20 22:00:00, 6:05:06, 4242\\n'; exit 3",
        );
        host.script(
            "usr/sap/HDB/HDB00/exe/hdbnsutil",
            "printf 'SAPCONTROL-OK: <begin>\\nonline=true\\nmode=none\\nSAPCONTROL-OK: <end>\\ndone.\\n'",
        );
        host.script(
            "usr/sap/HDB/HDB00/HDBSettings.sh",
            "printf 'SAPCONTROL-OK: <begin>\\nhost/east1/hostStatus=ok\\nSAPCONTROL-OK: <end>\\n'; exit 4",
        );
        host.script(
            "hana/shared/HDB/hdblcm/hdblcm",
            "printf '\\n/hana/shared/HDB\\n  HDB00\\n  version: 2.00.077.0.1700000000\\n  host: east1\\n'",
        );
        host.script(
            "usr/sap/hostctrl/exe/saphostctrl",
            "echo ' Inst Info : HDB - 00 - east1 - 753, patch 1, changelist 2'",
        );
        host.sql("");
        host.file("backup/F_databackup_1_1", "bytes");
        host.script("usr/sap/HDB/HDB00/exe/hdbbackupcheck", "echo \"Backup '$1' successfully checked.\"");
        host
    }

    /// Plays hdbsql; `more`: cases of the shell's `case` on the statement that go before.
    pub(crate) fn sql(&self, more: &str) {
        let hour = jiff::Timestamp::now().as_millisecond() - 3_600_000;
        let time =
            jiff::Timestamp::from_millisecond(hour).unwrap().strftime("%Y-%m-%d %H:%M:%S.%f").to_string();
        let row = |database: &str| {
            format!("\"{database}\",{hour},\"complete data backup\",\"successful\",\"{time}\",\"{time}\"\\n")
        };
        self.script(
            "usr/sap/HDB/HDB00/exe/hdbsql",
            &format!(
                "for last; do :; done\ncase $last in\n{more}\n\
                 *M_LICENSE*) printf 'VALID\\n\"TRUE\"\\n' ;;\n\
                 *M_DATABASES*) printf 'DATABASE_NAME,ACTIVE_STATUS\\n\"HDB\",\"YES\"\\n\"SYSTEMDB\",\"YES\"\\n' ;;\n\
                 *M_BACKUP_CATALOG_FILES*) printf 'BACKUP_ID,DESTINATION_TYPE_NAME,DESTINATION_PATH,BACKUP_SIZE,EXTERNAL_BACKUP_ID\\n{hour},\"file\",\"/backup/F_databackup_1_1\",5,?\\n' ;;\n\
                 *M_BACKUP_CATALOG*) printf 'DATABASE_NAME,BACKUP_ID,ENTRY_TYPE_NAME,STATE_NAME,UTC_START_TIME,UTC_END_TIME\\n{}{}' ;;\n\
                 *) echo \"* 257: sql syntax error\" >&2; exit 3 ;;\nesac",
                row("HDB"),
                row("SYSTEMDB")
            ),
        );
    }

    /// Writes a file below the host's folder.
    pub(crate) fn file(&self, path: &str, text: &str) -> PathBuf {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, text).unwrap();
        place
    }

    /// Writes a script there.
    pub(crate) fn script(&self, path: &str, body: &str) -> PathBuf {
        let calls = self.path().join("calls");
        let text = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>'{}'\n{body}\n", calls.display());
        // A script that is open for writing cannot be started; another test's fork may hold it for a moment.
        let new = self.file(&format!("{path}.new"), &text);
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        let place = self.path().join(path);
        fs::rename(&new, &place).unwrap();
        place
    }

    /// The host's folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lines with every start of a script.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.path().join("calls")).unwrap_or_default()
    }

    /// Runs the program on this host.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output().unwrap();
        Answer(output)
    }

    /// The program, to be started on this host for its system.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_of_host(&[]);
        if !arguments.contains(&"--sid") {
            command.args(["--sid", "HDB"]);
        }
        command.args(arguments);
        command
    }

    /// The program, to be started on this host for no certain system.
    pub(crate) fn command_of_host(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler-hana"));
        command
            .arg("--root")
            .arg(self.path())
            .args(arguments)
            .env_remove("HOSTLER_SECRETS")
            .env_remove("HOSTLER_RUN");
        command
    }
}

/// How the program ended.
pub(crate) struct Answer(Output);

impl Answer {
    /// Of a command that has ended.
    pub(crate) fn of(output: Output) -> Self {
        Self(output)
    }

    /// Its exit code.
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    /// Its standard output.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Its standard error.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Its standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.out(), self.err()))
    }
}
