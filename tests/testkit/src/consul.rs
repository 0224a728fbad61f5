//! A real Consul for one test: started on free ports, waited for, stopped by its own process id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::tls::Certificates;
use crate::{eventually, free_ports};

/// A server has a leader by then, also on a slow and busy machine.
const START: Duration = Duration::from_secs(60);

/// How often a start is tried with other ports when one was taken meanwhile.
const TRIES: usize = 5;

/// The management token of servers with access control.
const MANAGEMENT: &str = "6d616e61-6765-6d65-6e74-000000000000";

/// What kind of server a test needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keeps its data on disk and can be restarted; without it the server lives in memory.
    pub disk: bool,
    /// Access control, with "deny" as its default.
    pub acl: bool,
    /// An HTTPS port that wants a client certificate.
    pub tls: bool,
    /// A unix socket instead of nothing else: the HTTP port stays.
    pub unix: bool,
    /// More of the log; for the one who writes a test.
    pub verbose: bool,
}

/// One Consul server; ends with this value.
pub struct Consul {
    folder: TempDir,
    options: Options,
    http: u16,
    https: u16,
    lan: u16,
    rpc: u16,
    /// The gossip ports of a whole cluster; empty for a single server.
    peers: Vec<u16>,
    certificates: Option<Certificates>,
    child: Option<Child>,
}

/// Three servers with a leader, and access to each.
pub fn cluster() -> Vec<Consul> {
    started(|| {
        let options = Options { disk: true, ..Options::default() };
        let mut servers: Vec<Consul> = (0..3).map(|_| Consul::prepare(options)).collect();
        let peers: Vec<u16> = servers.iter().map(|server| server.lan).collect();
        servers.iter_mut().for_each(|server| server.peers.clone_from(&peers));
        servers
    })
}

/// Servers that answer, all of them. Where one ends at once, as it does when a port was taken meanwhile, all are made anew.
fn started(make: impl Fn() -> Vec<Consul>) -> Vec<Consul> {
    for _ in 0..TRIES {
        let mut servers = make();
        for server in &mut servers {
            server.configure();
            server.spawn();
        }
        let early = eventually(START, || {
            if servers.iter_mut().any(Consul::has_ended) {
                return Ok(true);
            }
            let trouble = servers.iter().find_map(|server| server.ready().err());
            match trouble {
                None => Ok(false),
                Some(trouble) => Err(format!("{trouble}; their logs:\n{}", logs(&servers))),
            }
        });
        if !early {
            return servers;
        }
        eprintln!("consul ended at once, trying other ports; the logs:\n{}", logs(&servers));
    }
    panic!("consul does not start; its log is above");
}

fn logs(servers: &[Consul]) -> String {
    servers.iter().map(Consul::log).collect::<Vec<_>>().join("\n")
}

impl Consul {
    /// A server in memory: quick to start, forgets everything.
    pub fn dev() -> Self {
        Self::with(Options::default())
    }

    /// A server on disk: can be stopped, restarted and wiped.
    pub fn disk() -> Self {
        Self::with(Options { disk: true, ..Options::default() })
    }

    /// A server of another kind.
    pub fn with(options: Options) -> Self {
        started(|| vec![Self::prepare(options)]).pop().expect("the one that was made")
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    fn prepare(options: Options) -> Self {
        assert!(on_path("consul"), "consul is not on the PATH: run tests/run, which installs it");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [http, https, lan, rpc] = free_ports();
        let certificates = options.tls.then(|| Certificates::make(folder.path()));
        Self { folder, options, http, https, lan, rpc, peers: Vec::new(), certificates, child: None }
    }

    fn configure(&self) {
        let mut config = json!({
            "node_name": format!("node-{}", self.lan),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "http": self.http, "dns": -1, "grpc": -1, "server": self.rpc,
                "serf_lan": self.lan, "serf_wan": -1,
            },
            "disable_update_check": true,
            "log_level": if self.options.verbose { "debug" } else { "info" },
            // Elections are quick, as they are in production.
            "performance": {"raft_multiplier": 1},
        });
        let mut set = |key: &str, value: Value| {
            if let Some(object) = config.as_object_mut() {
                object.insert(key.to_owned(), value);
            }
        };
        if self.options.disk {
            set("server", json!(true));
            set("data_dir", json!(self.data()));
            set("bootstrap_expect", json!(self.peers.len().max(1)));
            let peers: Vec<String> = self.peers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            set("retry_join", json!(peers));
            set("retry_interval", json!("1s"));
        }
        if self.options.acl {
            let tokens = json!({"master": MANAGEMENT});
            set("acl", json!({"enabled": true, "default_policy": "deny", "tokens": tokens}));
        }
        if let Some(certificates) = &self.certificates {
            set("ca_file", json!(certificates.ca));
            set("cert_file", json!(certificates.server_cert));
            set("key_file", json!(certificates.server_key));
            set("verify_incoming_https", json!(true));
        }
        if self.options.unix {
            set("addresses", json!({"http": format!("127.0.0.1 unix://{}", self.socket().display())}));
        }
        if self.options.tls
            && let Some(ports) = config.get_mut("ports").and_then(Value::as_object_mut)
        {
            ports.insert("https".to_owned(), json!(self.https));
        }
        fs::write(self.config(), config.to_string()).expect("to write consul's configuration");
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a log file for consul");
        let mut command = Command::new("consul");
        command.arg("agent").arg("-config-file").arg(self.config());
        if !self.options.disk {
            command.arg("-dev");
        }
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of a log file"))
            .stderr(log);
        self.child = Some(command.spawn().expect("to start consul"));
    }

    /// Ready is: it answers a consistent read with a known leader.
    fn ready(&self) -> Result<(), String> {
        let answer = self.try_api("GET", "/v1/kv/none?consistent", b"").map_err(|error| error.to_string())?;
        match (answer.status, answer.header("X-Consul-KnownLeader")) {
            (200 | 404, Some("true")) => Ok(()),
            _ => Err(format!("{} {}", answer.head, answer.text())),
        }
    }

    /// The port of its HTTP interface.
    pub fn port(&self) -> u16 {
        self.http
    }

    /// `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// `https://localhost:PORT`; needs [`Options::tls`].
    pub fn https_address(&self) -> String {
        format!("https://localhost:{}", self.https)
    }

    /// The path of its socket; needs [`Options::unix`].
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("http.sock")
    }

    /// Its certificates; needs [`Options::tls`].
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a server with Options::tls")
    }

    /// The management token; needs [`Options::acl`].
    pub fn management_token(&self) -> &'static str {
        MANAGEMENT
    }

    /// A folder of this server's own, for a test's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Any request, with the management token where there is one.
    pub fn try_api(&self, method: &str, target: &str, body: &[u8]) -> std::io::Result<Response> {
        let token = self.options.acl.then_some(MANAGEMENT);
        http::request(self.http, method, target, token, body)
    }

    /// As [`Consul::try_api`]; anything but a success panics.
    #[track_caller]
    pub fn api(&self, method: &str, target: &str, body: &[u8]) -> Response {
        let answer = self.try_api(method, target, body).expect("an answer of consul");
        assert!(answer.status == 200, "{method} {target}: {} {}", answer.head, answer.text());
        answer
    }

    /// Writes a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        let answer = self.api("PUT", &format!("/v1/kv/{}", encode(key)), value.as_bytes());
        assert_eq!(answer.text().trim(), "true");
    }

    /// Writes at most 64 keys in one transaction.
    #[track_caller]
    pub fn put_all(&self, entries: &[(String, String)]) {
        let set = |(key, value): &(String, String)| json!({"KV": {"Verb": "set", "Key": key, "Value": BASE64.encode(value)}});
        let all: Vec<Value> = entries.iter().map(set).collect();
        self.api("PUT", "/v1/txn", Value::from(all).to_string().as_bytes());
    }

    /// Reads a key.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let target = format!("/v1/kv/{}?raw&consistent", encode(key));
        let answer = self.try_api("GET", &target, b"").expect("an answer of consul");
        match answer.status {
            200 => Some(answer.text()),
            404 => None,
            _ => panic!("{key}: {} {}", answer.head, answer.text()),
        }
    }

    /// Removes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.api("DELETE", &format!("/v1/kv/{}", encode(key)), b"");
    }

    /// The keys below a prefix.
    #[track_caller]
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let target = format!("/v1/kv/{}?keys&consistent", encode(prefix));
        let answer = self.try_api("GET", &target, b"").expect("an answer of consul");
        match answer.status {
            200 => serde_json::from_slice(&answer.body).expect("a list of keys"),
            404 => Vec::new(),
            _ => panic!("{prefix}: {} {}", answer.head, answer.text()),
        }
    }

    /// A snapshot of everything.
    #[track_caller]
    pub fn snapshot(&self) -> Vec<u8> {
        self.api("GET", "/v1/snapshot", b"").body
    }

    /// The name of its node.
    #[track_caller]
    pub fn node(&self) -> String {
        let answer: Value =
            serde_json::from_slice(&self.api("GET", "/v1/agent/self", b"").body).unwrap_or_default();
        answer["Config"]["NodeName"].as_str().expect("a node's name").to_ascii_lowercase()
    }

    /// Puts a snapshot back.
    #[track_caller]
    pub fn restore(&self, snapshot: &[u8]) {
        self.api("PUT", "/v1/snapshot", snapshot);
    }

    /// Makes a policy out of rules, and a token with it; gives the token's secret. The same name again
    /// replaces the rules.
    #[track_caller]
    pub fn token(&self, name: &str, rules: &str) -> String {
        let policy = json!({"Name": name, "Rules": rules}).to_string();
        self.api("PUT", "/v1/acl/policy", policy.as_bytes());
        let token = json!({"Policies": [{"Name": name}]}).to_string();
        let answer = self.api("PUT", "/v1/acl/token", token.as_bytes());
        let answer: Value = serde_json::from_slice(&answer.body).expect("a token as JSON");
        answer["SecretID"].as_str().expect("a token's secret").to_owned()
    }

    /// Replaces the rules of a policy that [`Consul::token`] made.
    #[track_caller]
    pub fn set_rules(&self, name: &str, rules: &str) {
        let answer = self.api("GET", &format!("/v1/acl/policy/name/{name}"), b"");
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let id = found["ID"].as_str().expect("a policy's id");
        let policy = json!({"ID": id, "Name": name, "Rules": rules}).to_string();
        self.api("PUT", &format!("/v1/acl/policy/{id}"), policy.as_bytes());
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Ends it in order, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if let Some(mut child) = self.child.take() {
            let ended: ExitStatus = eventually(START, || match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                other => Err(format!("consul after SIGTERM: {other:?}")),
            });
            eprintln!("consul ended: {ended}");
        }
    }

    /// Freezes it: connections are accepted by the system and never answered.
    ///
    /// A signal stops one thread after the other, and one that still runs answers; so all of them are waited for.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let Some(child) = &self.child else { return };
        let tasks = format!("/proc/{}/task", child.id());
        eventually(Duration::from_secs(10), || {
            let threads = fs::read_dir(&tasks).map_err(|error| error.to_string())?;
            let stands =
                |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']));
            let runs = threads
                .flatten()
                .filter(|thread| !fs::read_to_string(thread.path().join("stat")).is_ok_and(stands));
            match runs.count() {
                0 => Ok(()),
                n => Err(format!("{n} threads of consul still run")),
            }
        });
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            kill(pid, signal).expect("to signal consul");
        }
    }

    /// Starts a stopped or killed server again, on the same ports with the same data; waits for its leader.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        eventually(START, || self.ready());
    }

    /// As [`Consul::start`], but waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        self.spawn();
    }

    /// Ends it, loses all its data and starts it again.
    #[track_caller]
    pub fn wipe(&mut self) {
        self.kill();
        drop(fs::remove_dir_all(self.data()));
        self.start();
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn encode(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
