//! A real Vault or OpenBao behind the double's front: one of the two on the PATH, else the OpenBao that `tests/install`
//! brings. It is a development server of the test's own, brought into the state that the double begins with. What ails it is still the front's doing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ROLE_ID, Request, SECRET_ID};
use crate::http::{Response, send};
use crate::{Postgres, eventually, free_ports};

/// The one token that is there from the start.
const ROOT: &str = "root";
/// A development server is up within this.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// The password of the role by which the server makes others.
const MAKER: &str = "maker-of-roles";

/// The program that serves, if there is one.
pub(super) fn program() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/openbao/bao");
    program_in(&std::env::var_os("PATH").unwrap_or_default()).or(Some(installed).filter(|bao| bao.is_file()))
}

fn program_in(path: &OsStr) -> Option<PathBuf> {
    let all = ["vault", "bao"]
        .into_iter()
        .flat_map(|name| std::env::split_paths(path).map(move |dir| dir.join(name)));
    all.into_iter().find(|program| program.is_file())
}

/// What makes a user for a lease.
const MAKES_USER: &str =
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

/// A development server; it ends with this value.
pub(super) struct Real {
    server: Child,
    port: u16,
    dir: TempDir,
    database: Option<Postgres>,
}

impl Real {
    pub(super) fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let [port] = free_ports();
        let log = File::create(dir.path().join("log")).expect("the log");
        let server = Command::new(program)
            .args(["server", "-dev", "-dev-no-store-token", &format!("-dev-root-token-id={ROOT}")])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log"))
            .stdout(log)
            .spawn()
            .expect("the server");
        let real = Self { server, port, dir, database: None };
        eventually(UP_WITHIN, || match real.send("GET", "sys/health", "", &Value::Null) {
            Ok(answer) if answer.status == 200 => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
        real.ask("POST", "sys/mounts/kv1", json!({"type": "kv", "options": {"version": "1"}}));
        real.ask("POST", "sys/auth/approle", json!({"type": "approle"}));
        real.role(json!({"token_policies": ["agent"], "token_ttl": 3600, "token_max_ttl": 0}));
        real.ask("POST", "auth/approle/role/host/role-id", json!({"role_id": ROLE_ID}));
        real.ask("POST", "auth/approle/role/host/custom-secret-id", json!({"secret_id": SECRET_ID}));
        real
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn send(&self, method: &str, path: &str, more: &str, body: &Value) -> std::io::Result<Response> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = format!("X-Vault-Token: {ROOT}\r\n{more}");
        send(self.port, method, &format!("/v1/{path}"), &headers, body.as_bytes())
    }

    /// The status of what the root token reads.
    pub(super) fn status(&self, path: &str) -> u16 {
        self.send("GET", path, "", &Value::Null).expect("an answer of the server").status
    }

    /// What the root token is answered; anything but a success fails the test.
    #[track_caller]
    pub(super) fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.send(method, path, "", &body).expect("an answer of the server");
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// The names that a listing gives; none where there is nothing.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let answer = self.send("GET", &format!("{path}?list=true"), "", &Value::Null).expect("an answer");
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let keys = value["data"]["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
    }

    pub(super) fn role(&self, settings: Value) {
        self.ask("POST", "auth/approle/role/host", settings);
    }

    pub(super) fn wrapped_secret_id(&self) -> String {
        let path = "auth/approle/role/host/secret-id";
        let answer = self.send("POST", path, "X-Vault-Wrap-TTL: 600\r\n", &json!({})).expect("an answer");
        let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
        value["wrap_info"]["token"].as_str().expect("a wrapping token").to_owned()
    }

    pub(super) fn seal(&self, sealed: bool) {
        if sealed {
            self.ask("PUT", "sys/seal", json!({}));
            return;
        }
        let log = fs::read_to_string(self.dir.path().join("log")).expect("the log");
        let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: ")).expect("the key").to_owned();
        self.ask("PUT", "sys/unseal", json!({"key": key}));
    }

    /// Takes a key back to its first versions, which the engine itself cannot: it is made anew with them.
    pub(super) fn set_back(&self, key: &str, count: usize) {
        let path = format!("secret/data/{key}");
        let kept: Vec<Value> = (1..=count)
            .map(|n| self.ask("GET", &format!("{path}?version={n}"), Value::Null)["data"]["data"].clone())
            .collect();
        self.ask("DELETE", &format!("secret/metadata/{key}"), Value::Null);
        for data in kept {
            self.ask("POST", &path, json!({"data": data}));
        }
    }

    pub(super) fn revoke_all(&self) {
        let own = self.ask("GET", "auth/token/lookup-self", Value::Null)["data"]["accessor"].clone();
        for accessor in self.list("auth/token/accessors").iter().filter(|accessor| own != accessor.as_str()) {
            // One that went with its parent is gone already.
            drop(self.send("PUT", "auth/token/revoke-accessor", "", &json!({"accessor": accessor})));
        }
    }

    /// Lets it make roles of a PostgreSQL, under `database/creds/app`.
    pub(super) fn serve_database(&mut self) {
        let database = Postgres::start();
        database.sql(&format!("create role maker superuser login password '{MAKER}'"));
        self.ask("POST", "sys/mounts/database", json!({"type": "database"}));
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
            database.port()
        );
        let connection = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
            "connection_url": url, "username": "maker", "password": MAKER});
        self.ask("POST", "database/config/app", connection);
        self.database = Some(database);
        self.lease_ttl(3600, None);
    }

    /// How many tokens live that others have made.
    pub(super) fn run_tokens(&self) -> usize {
        let is_made = |accessor: &String| {
            let body = json!({"accessor": accessor});
            // One may go while it is looked at.
            let answer = self.send("POST", "auth/token/lookup-accessor", "", &body).expect("an answer");
            let about: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            about["data"]["display_name"] == "token-hostler-run"
        };
        self.list("auth/token/accessors").iter().filter(|accessor| is_made(accessor)).count()
    }

    pub(super) fn database_role(&self, name: &str, statement: &str) {
        let role = json!({"db_name": "app", "creation_statements": [statement], "default_ttl": 3600});
        self.ask("POST", &format!("database/roles/{name}"), role);
    }

    pub(super) fn lease_ttl(&self, ttl: u64, max: Option<u64>) {
        let role = json!({"db_name": "app", "creation_statements": [MAKES_USER], "default_ttl": ttl,
            "max_ttl": max.unwrap_or(0)});
        self.ask("POST", "database/roles/app", role);
    }

    pub(super) fn database(&self) -> Option<&Postgres> {
        self.database.as_ref()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// Hands a request on to the server at this port; its status and body.
pub(super) fn forward(port: u16, request: &Request) -> (u16, String) {
    let token = request.token.as_ref().map(|token| format!("X-Vault-Token: {token}\r\n")).unwrap_or_default();
    let body = if request.body.is_null() { String::new() } else { request.body.to_string() };
    match send(port, &request.method, &request.target, &token, body.as_bytes()) {
        Ok(answer) => (answer.status, answer.text()),
        Err(error) => (500, json!({"errors": [format!("the server behind the front: {error}")]}).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Certificate, Vault};
    use super::*;

    #[test]
    fn either_program_is_found_on_the_path() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let path = std::env::join_paths([one.path(), other.path()]).expect("a path");
        assert_eq!(program_in(&path), None);
        fs::write(one.path().join("bao"), "").expect("a file");
        assert_eq!(program_in(&path), Some(one.path().join("bao")));
        fs::write(other.path().join("vault"), "").expect("a file");
        assert_eq!(program_in(&path), Some(other.path().join("vault")));
    }

    /// The double in the place of the server behind the front: what comes in front is what comes there.
    #[test]
    fn a_request_is_handed_on_as_it_came() {
        let server = Vault::double();
        server.token("t", &["agent", "default"], 60);
        server.put("app/x", json!({"a": "b"}));
        let ask = |method: &str, target: &str, token: Option<&str>, body: Value| {
            let (method, target, token) = (method.to_owned(), target.to_owned(), token.map(str::to_owned));
            forward(
                server.port(),
                &Request { method, target, token, body, certificate: Certificate::PlainHttp },
            )
        };
        let (status, body) = ask("GET", "/v1/secret/data/app/x?version=1", Some("t"), Value::Null);
        assert!(status == 200 && body.contains("\"a\":\"b\""), "{status} {body}");
        let login = json!({"role_id": ROLE_ID, "secret_id": SECRET_ID});
        let (status, body) = ask("POST", "/v1/auth/approle/login", None, login);
        assert!(status == 200 && body.contains("client_token"), "{status} {body}");
        assert_eq!(ask("PUT", "/v1/auth/token/revoke-self", Some("t"), json!({})), (204, String::new()));
        assert_eq!(ask("GET", "/v1/secret/data/app/x", Some("t"), Value::Null).0, 403);
    }
}
