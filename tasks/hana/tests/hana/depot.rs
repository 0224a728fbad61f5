//! Backint by the real `hostler-depot`, on a server of S3 that knows storage classes (`moto`).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::played::{Played, beside};

/// The server; it ends with the test.
pub(crate) struct Store {
    server: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Store {
    /// An empty store.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("keys")).unwrap();
        for (file, text) in [("s3_access_key_id", "id"), ("s3_secret_access_key", "key")] {
            let path = folder.path().join("keys").join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/depot-venv/bin");
        let moto = programs.join("moto_server");
        assert!(moto.exists(), "{} is not there: run tests/install", moto.display());
        let mut command = Command::new(programs.join("python3"));
        command.arg(moto).args(["-H", "127.0.0.1", "-p", "0"]).env("PYTHONUNBUFFERED", "1");
        let mut server =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap());
        let mut line = String::new();
        let address: SocketAddr = loop {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "moto ended before it served");
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().unwrap();
            }
        };
        // Its log must be read, or it would wait for us.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let text = format!(
            "endpoint: http://{address}\nregion: us-east-1\nbucket: hana\nprefix: prod\nstate_dir: {}\n\
             credentials_dir: {}\npart_mib: 5\ncompress: 1\ntimeout: 5\ntries: 2\n",
            folder.path().join("state").display(),
            folder.path().join("keys").display()
        );
        fs::write(folder.path().join("depot.yml"), text).unwrap();
        let store = Self { server, address, folder };
        store.ask("PUT", "/hana", "");
        store
    }

    /// Asks the server something that it needs no signature for.
    fn ask(&self, method: &str, path: &str, body: &str) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It reads who asks, and holds no signature against its key.
        let who = "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let text = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: {who}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{answer}");
    }

    /// Lets a thaw last for so many questions after it.
    pub(crate) fn thaw_lasts(&self, questions: u32) {
        let body = format!(
            "{{\"model_name\": \"s3::keyrestore\", \"transition\": {{\"progression\": \"manual\", \"times\": {questions}}}}}"
        );
        self.ask("POST", "/moto-api/state-manager/set-transition", &body);
    }

    fn depot(&self, words: &[&str]) -> String {
        let mut command = Command::new(beside("hostler-depot"));
        command.args(words).args(["--config", &self.config()]).env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The names of all that it has.
    pub(crate) fn names(&self) -> Vec<String> {
        self.depot(&["list", "--names"]).lines().map(|name| name.trim().to_owned()).collect()
    }

    /// Deletes one of them.
    pub(crate) fn delete(&self, name: &str) {
        self.depot(&["delete", name]);
    }

    /// Moves all data backups to Glacier; how many parts they have.
    pub(crate) fn freeze(&self) -> usize {
        let names = self.depot(&["list", "--names"]);
        let data: Vec<_> =
            names.lines().map(str::trim).filter(|name| name.contains("_databackup_")).collect();
        for name in &data {
            self.depot(&["move", name, "--to", "GLACIER"]);
        }
        data.len()
    }

    /// The configuration.
    pub(crate) fn config(&self) -> String {
        self.folder.path().join("depot.yml").display().to_string()
    }

    /// Makes it the Backint of a host's system, for data, logs and catalogs.
    pub(crate) fn serve(&self, played: &Played) {
        let program = played.path("/usr/sap/HDB/SYS/global/hdb/opt/hdbbackint");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let depot = beside("hostler-depot");
        let text = format!(
            "#!/bin/sh\nexport HOSTLER_DEPOT_CONFIG={} AWS_EC2_METADATA_DISABLED=true\nexec {} backint \"$@\" 2>>/tmp/backint.err\n",
            self.config(),
            depot.display()
        );
        let new = program.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &program).unwrap();
        for kind in ["log", "catalog"] {
            played.set("backup", &format!("{kind}_backup_using_backint"), "true");
        }
        // Where `hostler-depot thaw` is looked for.
        let thaw = played.path("/usr/bin/hostler-depot");
        let text =
            format!("#!/bin/sh\nexport AWS_EC2_METADATA_DISABLED=true\nexec {} \"$@\"\n", depot.display());
        let new = thaw.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &thaw).unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
