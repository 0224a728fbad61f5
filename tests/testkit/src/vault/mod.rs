//! A Vault of a test's own, in process, plain or with TLS: it answers as a real one was recorded to answer
//! (`tests/contract/vault/` holds it against the recordings), as far as Hostler asks.
//!
//! Where a real `vault` or `bao` is on the PATH, [`Vault::start`] puts that behind the same front, so that the scenarios run
//! against it as they are; `HOSTLER_TEST_VAULT=double` says otherwise. What only the double can be asked is said at each
//! function; scenarios that need it take [`Vault::double`].
//!
//! The double keeps tokens with their policies, AppRole, wrapped answers, both kinds of key/value engine and leases. What
//! goes wrong with a Vault is one call away: sealed, an error for everything, silence, half an answer.

mod real;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use self::real::Real;
use crate::{Certificates, Postgres};

/// The longest that a connection stays without a word.
const PATIENCE: Duration = Duration::from_secs(60);

/// The role that [`Vault::start`] knows.
pub const ROLE_ID: &str = "bbbbbbbb-0000-4000-8000-000000000001";
/// Its secret id.
pub const SECRET_ID: &str = "cccccccc-0000-4000-8000-000000000002";

/// What a Vault holds for runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Tokens that agents have made for runs.
    pub tokens: usize,
    /// Leases of credentials for databases.
    pub leases: usize,
    /// Users that the database has for them.
    pub users: usize,
}

/// What is wrong with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultMode {
    /// Nothing.
    None,
    /// It answers everything with this status and text.
    Status(u16, String),
    /// Too many requests; it says after how many seconds to come again.
    TooMany(u64),
    /// A standby that does not forward: it sends everybody to this address.
    Standby(String),
    /// It reads the request and says nothing.
    Silent,
    /// It ends the connection in the middle of each answer.
    Half,
    /// It answers with something that is no JSON.
    Garbage,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) policies: Vec<String>,
    pub(crate) parent: Option<String>,
    pub(crate) made: Instant,
    pub(crate) from: Instant,
    pub(crate) ttl: u64,
    pub(crate) period: u64,
    pub(crate) max_ttl: Option<u64>,
    pub(crate) renewable: bool,
    pub(crate) path: String,
    pub(crate) meta: Value,
}

impl Token {
    pub(crate) fn left(&self) -> u64 {
        self.ttl.saturating_sub(self.from.elapsed().as_secs())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) data: Value,
    pub(crate) created: String,
    pub(crate) deleted: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) token: String,
    pub(crate) made: Instant,
    pub(crate) from: Instant,
    pub(crate) ttl: u64,
    pub(crate) role_ttl: u64,
    pub(crate) max: u64,
}

/// A request that came with a token that lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Whether the token was made by another one.
    pub child: bool,
    /// The path.
    pub path: String,
    /// What it takes: `read`, `update` and so on.
    pub capability: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) sealed: bool,
    pub(crate) ailment: FaultMode,
    pub(crate) tokens: BTreeMap<String, Token>,
    /// By policy: a path, with `*` at its end for all below it, and what is allowed there.
    pub(crate) policies: BTreeMap<String, Vec<(String, Vec<String>)>>,
    pub(crate) role_id: String,
    pub(crate) secret_ids: BTreeSet<String>,
    pub(crate) token_ttl: u64,
    pub(crate) token_max_ttl: Option<u64>,
    /// How long tokens of runs and renewed ones live by the word of its answers, in place of the truth.
    pub(crate) claimed: Option<u64>,
    pub(crate) wrapped: BTreeMap<String, Value>,
    pub(crate) kv1: BTreeMap<String, Value>,
    pub(crate) kv2: BTreeMap<String, Vec<Version>>,
    pub(crate) leases: BTreeMap<String, Lease>,
    pub(crate) lease_ttl: u64,
    pub(crate) lease_max: Option<u64>,
    pub(crate) requests: Vec<String>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) role_policies: Vec<String>,
    pub(crate) counter: u64,
}

/// A running server; it ends with this value.
pub struct Vault {
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    real: Option<Real>,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Vault {
    /// A server without TLS, unsealed, with one AppRole whose tokens have the policy `agent`.
    pub fn start() -> Self {
        Self::with(0, None, real())
    }

    /// The same with `database/creds/app`, which a real server needs a PostgreSQL for.
    pub fn start_with_database() -> Self {
        let mut vault = Self::start();
        if let Some(real) = &mut vault.real {
            real.serve_database();
        }
        vault
    }

    /// The double, whatever is on the PATH.
    pub fn double() -> Self {
        Self::with(0, None, None)
    }

    /// The double on this port of the loopback address.
    pub fn start_at(port: u16) -> Self {
        Self::with(port, None, None)
    }

    /// Which one [`Vault::start`] starts, in words.
    pub fn which() -> String {
        match real::program().filter(|_| real_is_wanted()) {
            Some(program) => program.display().to_string(),
            None => "the double of the tests".to_owned(),
        }
    }

    /// The double with TLS, which asks for certificates of clients.
    pub fn start_tls(certificates: &Certificates) -> Self {
        let chain = CertificateDer::pem_file_iter(&certificates.server_cert).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&certificates.server_key).expect("a key");
        let provider = rustls::crypto::ring::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_client_cert_verifier(any_client(certificates))
            .with_single_cert(chain, key)
            .expect("a certificate with its key");
        Self::with(0, Some(Arc::new(config)), None)
    }

    fn with(port: u16, tls: Option<Arc<ServerConfig>>, real: Option<Real>) -> Self {
        let state = Arc::new(Mutex::new(routes::first_state()));
        let mut vault = Self { port, tls, real, state, stop: Arc::default(), thread: None };
        vault.start_again();
        // The policy that the double's tokens have from the start.
        if vault.real.is_some() {
            vault.policy("agent", routes::AGENT);
        }
        vault
    }

    /// Ends the server: nobody listens on its port any more. What it holds stays, and its clocks run on.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A connection wakes the thread that accepts them.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    /// Starts it on the same port, after [`Vault::stop`].
    pub fn start_again(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("a free port");
        self.port = listener.local_addr().expect("a bound port").port();
        self.stop = Arc::default();
        let (state, stopped, tls) = (Arc::clone(&self.state), Arc::clone(&self.stop), self.tls.clone());
        let behind = self.real.as_ref().map(Real::port);
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), state, tls) = (stream, Arc::clone(&state), tls.clone()) else { continue };
                std::thread::spawn(move || connection(stream, tls, behind, &state));
            }
        }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state of the double")
    }

    /// The port of the loopback address that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as a configuration wants it.
    pub fn address(&self) -> String {
        format!("{}://localhost:{}", if self.tls.is_some() { "https" } else { "http" }, self.port)
    }

    /// Seals it, or takes the seal away.
    pub fn seal(&self, sealed: bool) {
        if let Some(real) = &self.real {
            // Told that it is to be as it is already, it need not be asked.
            if std::mem::replace(&mut self.state().sealed, sealed) != sealed {
                real.seal(sealed);
            }
            return;
        }
        self.state().sealed = sealed;
    }

    /// Lets it ail from the next request on.
    pub fn ail(&self, ailment: FaultMode) {
        self.state().ailment = ailment;
    }

    /// Writes a new version of a key of the engine `secret/` (version 2); which one it is.
    pub fn put(&self, key: &str, data: Value) -> u64 {
        if let Some(real) = &self.real {
            let answer = real.ask("POST", &format!("secret/data/{key}"), json!({"data": data}));
            return answer["data"]["version"].as_u64().expect("a version");
        }
        let mut state = self.state();
        let created = routes::later(&mut state);
        let versions = state.kv2.entry(key.to_owned()).or_default();
        versions.push(Version { data, created, deleted: false });
        versions.len() as u64
    }

    /// Takes such a key away with all its versions, as the deletion of its metadata does.
    pub fn forget(&self, key: &str) {
        if let Some(real) = &self.real {
            real.ask("DELETE", &format!("secret/metadata/{key}"), Value::Null);
            return;
        }
        self.state().kv2.remove(key);
    }

    /// Sets a key back to its first `count` versions, as a restored snapshot does.
    pub fn set_back(&self, key: &str, count: usize) {
        if let Some(real) = &self.real {
            return real.set_back(key, count);
        }
        if let Some(versions) = self.state().kv2.get_mut(key) {
            versions.truncate(count);
        }
    }

    /// Deletes the newest version of such a key, softly.
    pub fn delete(&self, key: &str) {
        if let Some(real) = &self.real {
            real.ask("DELETE", &format!("secret/data/{key}"), Value::Null);
            return;
        }
        if let Some(version) = self.state().kv2.get_mut(key).and_then(|versions| versions.last_mut()) {
            version.deleted = true;
        }
    }

    /// Writes a key of the engine `kv1/` (version 1).
    pub fn put_v1(&self, key: &str, data: Value) {
        if let Some(real) = &self.real {
            real.ask("POST", &format!("kv1/{key}"), data);
            return;
        }
        self.state().kv1.insert(key.to_owned(), data);
    }

    /// Says what a policy allows: paths and capabilities.
    pub fn policy(&self, name: &str, rules: &[(&str, &[&str])]) {
        if let Some(real) = &self.real {
            let rules: serde_json::Map<String, Value> = rules
                .iter()
                .map(|(path, words)| ((*path).to_owned(), json!({"capabilities": words})))
                .collect();
            let policy = json!({"path": rules}).to_string();
            real.ask("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": policy}));
            return;
        }
        let rule = |(path, allowed): &(&str, &[&str])| {
            ((*path).to_owned(), allowed.iter().map(|word| (*word).to_owned()).collect())
        };
        self.state().policies.insert(name.to_owned(), rules.iter().map(rule).collect());
    }

    /// Says which policies tokens of a login have.
    pub fn role_policies(&self, policies: &[&str]) {
        if let Some(real) = &self.real {
            return real.role(json!({"token_policies": policies}));
        }
        self.state().role_policies = policies.iter().map(|name| (*name).to_owned()).collect();
    }

    /// All requests so far that came with a token that lives (the double).
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Makes a token with these policies.
    pub fn token(&self, id: &str, policies: &[&str], ttl: u64) {
        if let Some(real) = &self.real {
            real.ask(
                "POST",
                "auth/token/create",
                json!({"id": id, "policies": policies, "ttl": format!("{ttl}s")}),
            );
            return;
        }
        let token =
            routes::token(policies.iter().map(|p| (*p).to_owned()).collect(), ttl, "auth/approle/login");
        self.state().tokens.insert(id.to_owned(), token);
    }

    /// How long tokens of a login live, and how long with renewals at most.
    pub fn token_ttl(&self, ttl: u64, max: Option<u64>) {
        if let Some(real) = &self.real {
            return real.role(json!({"token_ttl": ttl, "token_max_ttl": max.unwrap_or(0)}));
        }
        let mut state = self.state();
        (state.token_ttl, state.token_max_ttl) = (ttl, max);
    }

    /// Says of the tokens of runs, and of each that is renewed, that they live so many seconds (the double).
    pub fn claim(&self, ttl: u64) {
        self.state().claimed = Some(ttl);
    }

    /// A secret id, wrapped; the wrapping token.
    pub fn wrapped_secret_id(&self) -> String {
        if let Some(real) = &self.real {
            return real.wrapped_secret_id();
        }
        let token = format!("s.WrapToken{:015}", self.state().wrapped.len() + 24);
        self.wrap(&token, json!({"secret_id": SECRET_ID}));
        token
    }

    /// Wraps an answer's `data` (the double).
    pub fn wrap(&self, token: &str, data: Value) {
        self.state().wrapped.insert(token.to_owned(), data);
    }

    /// Puts a lease in place (the double), with the token that made it; it lives for a day at most.
    pub fn lease(&self, id: &str, token: &str, ttl: u64) {
        let lease = routes::lease(token, ttl, Some(86_400));
        self.state().leases.insert(id.to_owned(), lease);
    }

    /// How long leases of `database/creds/` live, and how long with renewals at most.
    pub fn lease_ttl(&self, ttl: u64, max: Option<u64>) {
        if let Some(real) = &self.real {
            return real.lease_ttl(ttl, max);
        }
        let mut state = self.state();
        (state.lease_ttl, state.lease_max) = (ttl, max);
    }

    /// Revokes all leases, and nothing else.
    pub fn revoke_leases(&self) {
        if let Some(real) = &self.real {
            real.ask("PUT", "sys/leases/revoke-prefix/database/creds/app", Value::Null);
            return;
        }
        self.state().leases.clear();
    }

    /// How often the renewal of a lease was asked for.
    pub fn renewals(&self) -> usize {
        self.state().requests.iter().filter(|line| line.ends_with("/sys/leases/renew")).count()
    }

    /// The policies of the tokens that live (the double), by the route that made them.
    pub fn policies_of(&self, route: &str) -> Vec<Vec<String>> {
        let state = self.state();
        state
            .tokens
            .values()
            .filter(|token| token.path == route)
            .map(|token| token.policies.clone())
            .collect()
    }

    /// The leases that live.
    pub fn leases(&self) -> Vec<String> {
        if let Some(real) = &self.real {
            return real.list("sys/leases/lookup/database/creds/app");
        }
        self.state().leases.keys().cloned().collect()
    }

    /// Forgets all tokens, as a revocation of each would.
    pub fn revoke_all(&self) {
        if let Some(real) = &self.real {
            return real.revoke_all();
        }
        let mut state = self.state();
        state.tokens.clear();
        state.leases.clear();
    }

    /// How many tokens live.
    pub fn tokens(&self) -> usize {
        if let Some(real) = &self.real {
            // All but the root's.
            return real.list("auth/token/accessors").len() - 1;
        }
        self.state().tokens.len()
    }

    /// What is held for runs: their tokens, the leases below `database/creds/`, the users that the database has for these
    /// (a real server with a database).
    pub fn held(&self) -> Held {
        let (real, database) = (self.real_server(), self.database().expect("a database"));
        let leases = real.list("sys/leases/lookup/database/creds");
        let leases =
            leases.iter().flat_map(|role| real.list(&format!("sys/leases/lookup/database/creds/{role}")));
        let users = database.sql("select count(*) from pg_roles where rolname like 'v-%'");
        Held { tokens: real.run_tokens(), leases: leases.count(), users: users.parse().expect("a number") }
    }

    /// Another role of the database, `database/creds/NAME`, and what makes its users (a real server).
    pub fn database_role(&self, name: &str, statement: &str) {
        self.real_server().database_role(name, statement);
    }

    /// Allows one request a day below a path, or any number again (a real server).
    pub fn quota(&self, path: &str, is_limited: bool) {
        let (real, quota) = (self.real_server(), "sys/quotas/rate-limit/test");
        match is_limited {
            true => real.ask("POST", quota, json!({"path": path, "rate": 1, "interval": "24h"})),
            false => real.ask("DELETE", quota, Value::Null),
        };
    }

    /// Sets something of the agent's role (a real server).
    pub fn role(&self, settings: Value) {
        self.real_server().role(settings);
    }

    /// Mounts another engine of version 2 (a real server).
    pub fn mount(&self, path: &str) {
        let engine = json!({"type": "kv", "options": {"version": "2"}});
        self.real_server().ask("POST", &format!("sys/mounts/{path}"), engine);
    }

    /// Writes as its operator does (a real server).
    pub fn write(&self, path: &str, body: Value) {
        self.real_server().ask("POST", path, body);
    }

    /// Reads a path as its operator does (a real server); the status of the answer.
    pub fn ask_as_root(&self, path: &str) -> u16 {
        self.real_server().status(path)
    }

    fn real_server(&self) -> &Real {
        self.real.as_ref().expect("a real server: tests/install brings one")
    }

    /// The PostgreSQL behind `database/creds/app`; the double has none.
    pub fn database(&self) -> Option<&Postgres> {
        self.real.as_ref()?.database()
    }

    /// All requests so far: method and path with query.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// Whoever has a certificate may show it; the handshake succeeds in any case, as that of the real one does.
fn any_client(certificates: &Certificates) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(&certificates.ca).expect("an authority") {
        roots.add(authority.expect("a certificate")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.allow_unauthenticated().build().expect("a verifier")
}

fn real_is_wanted() -> bool {
    !std::env::var("HOSTLER_TEST_VAULT").is_ok_and(|word| word == "double")
}

/// A real server, if there is one.
fn real() -> Option<Real> {
    real::program().filter(|_| real_is_wanted()).map(|program| Real::start(&program))
}

/// One connection, one request; what goes wrong on it is the client's doing and no matter.
fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, behind: Option<u16>, state: &Mutex<State>) {
    drop(stream.set_read_timeout(Some(PATIENCE)));
    drop(stream.set_write_timeout(Some(PATIENCE)));
    match tls {
        None => serve(stream, state, behind, Certificate::PlainHttp),
        Some(config) => {
            let Ok(connection) = ServerConnection::new(config) else { return };
            let mut stream = StreamOwned::new(connection, stream);
            while stream.conn.is_handshaking() {
                if stream.conn.complete_io(&mut stream.sock).is_err() {
                    return;
                }
            }
            let shown = stream.conn.peer_certificates().is_some();
            serve(&mut stream, state, behind, if shown { Certificate::Shown } else { Certificate::None });
            stream.conn.send_close_notify();
            drop(stream.flush());
        }
    }
}

fn serve(mut stream: impl Read + Write, state: &Mutex<State>, behind: Option<u16>, certificate: Certificate) {
    let Some(request) = request(&mut stream, certificate) else { return };
    let (ailment, answer) = {
        let mut state = state.lock().expect("the state of the double");
        state.requests.push(format!("{} {}", request.method, request.target));
        let ailment = state.ailment.clone();
        // What ails it answers instead of it: a real one is not even asked.
        let answer = match behind {
            None => Some(routes::answer(&mut state, &request)),
            Some(_) => None,
        };
        (ailment, answer)
    };
    let answer = || match (answer, behind) {
        (Some(answer), _) => answer,
        (None, Some(port)) => real::forward(port, &request),
        (None, None) => (500, String::new()),
    };
    let mut more = String::new();
    let (status, body) = match ailment {
        FaultMode::None => answer(),
        FaultMode::TooMany(seconds) => {
            more = format!(
                "Retry-After: {seconds}\r\nX-Ratelimit-Limit: 2\r\nX-Ratelimit-Remaining: 0\r\nX-Ratelimit-Reset: {seconds}\r\n"
            );
            let path = request.target.trim_start_matches("/v1/");
            let said = format!("request path \"{path}\": rate limit quota exceeded");
            (429, serde_json::json!({"errors": [said]}).to_string())
        }
        FaultMode::Standby(address) => {
            more = format!("Location: {address}{}\r\n", request.target);
            (307, String::new())
        }
        FaultMode::Status(status, text) => (status, serde_json::json!({"errors": [text]}).to_string()),
        FaultMode::Silent => {
            drop(stream.read(&mut [0; 64]));
            return;
        }
        FaultMode::Half => {
            drop(stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"req",
            ));
            return;
        }
        FaultMode::Garbage => (200, "<html>no Vault here</html>".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status} Double\r\nCache-Control: no-store\r\nContent-Type: application/json\r\n\
         {more}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    drop(stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()));
    drop(stream.flush());
}

/// A request, as far as it matters.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) token: Option<String>,
    pub(crate) body: Value,
    /// What the connection came with.
    pub(crate) certificate: Certificate,
}

/// A client certificate of the test's authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    PlainHttp,
    None,
    Shown,
}

fn request(stream: &mut impl Read, certificate: Certificate) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65536 {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let header = |name: &str| {
        let of = |line: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        head.lines().skip(1).find_map(of)
    };
    let length = header("content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let mut body = vec![0; length.min(1 << 20)];
    stream.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Request { method, target, token: header("x-vault-token"), body, certificate })
}
