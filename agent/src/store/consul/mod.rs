//! The adapter for Consul: the few routes that the agent needs, over HTTP/1.1.
//!
//! It promises that each request ends in time ([`patience`]), that no body grows past its bound ([`body`]), and that an answer
//! is given only when it is consistent, with a known leader and a usable index: a 404 with its index is an
//! empty listing, everything else that looks empty is an error. The token shows in no message.
//! There are no proxies, no redirects and no retries here: the watch knows when to ask again.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod acl;
mod body;
mod patience;
pub mod service;
mod settings;
mod token;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response};

use tokio::sync::{Semaphore, SemaphorePermit};

use self::body::Body;
use self::patience::Patience;
use self::token::Token;
use self::wire::Verdict;
use super::{Listing, MAX_READS, MAX_VALUE, Read, Store, StoreError, StoreFuture, When, bad_key, bad_prefix};
use crate::domain::secret::Secret;
use crate::host::http::{self, TlsFiles};
use crate::host::tls::explained;

pub use self::settings::{Address, BadConsulSettings, ClientCert, ConsulSettings, PartialConsul, Timeouts};

/// Answers that keep more than this, in bytes, are read one after the other: the sum of all that are read at once has a
/// bound, too.
const SMALL_BODY: usize = 64 << 10;

/// The largest body that is read of an answer that is only looked at for its message.
const MAX_ERROR_BODY: usize = 4096;

/// Connections that are kept for the next request. One a watch is in use anyway; more would only count
/// against the server's limit for one client address.
const IDLE_CONNECTIONS: usize = 4;

/// How long a connection without a request is kept: shorter than what firewalls grant.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// A client of one Consul agent.
pub struct Consul {
    client: Client,
    base: String,
    /// `dc=…` and `ns=…`, encoded; empty or each starting with `&`.
    scope: String,
    /// As it is configured, for messages.
    datacenter: Option<String>,
    place: String,
    timeouts: Timeouts,
    token: Token,
    /// Whose answer may be large at present.
    large: Semaphore,
}

/// A change of one key.
struct Write<'a> {
    method: Method,
    key: &'a str,
    query: &'a str,
    /// `None` for a deletion.
    body: Option<Vec<u8>>,
    /// As an infinitive, for messages.
    action: &'a str,
}

/// One request to Consul.
struct Request<'a> {
    method: Method,
    /// Below `/v1/`, with its query.
    path: &'a str,
    body: Option<Vec<u8>>,
    /// An answer that does not begin within this is none.
    deadline: Duration,
    /// Names the request in errors.
    action: &'a str,
    /// The good statuses.
    expected: &'a [u16],
}

/// An answer whose status is one that the request expects.
struct Got<'a> {
    status: u16,
    headers: HeaderMap,
    body: Body,
    /// The right to have a large body, until this is dropped.
    _turn: Option<SemaphorePermit<'a>>,
}

impl Consul {
    /// Makes a client; connects to nothing yet. Reads the certificates and the token file that the settings name.
    pub fn new(settings: ConsulSettings) -> Result<Self, BadConsulSettings> {
        let mut scope = String::new();
        for (name, value) in [("dc", &settings.datacenter), ("ns", &settings.namespace)] {
            if let Some(value) = value {
                scope.push_str(&format!("&{name}={}", wire::encode_query(value)));
            }
        }
        let consul = Self {
            client: client(&settings)?,
            base: settings.address.base(),
            scope,
            datacenter: settings.datacenter,
            place: format!("Consul at {}", settings.address),
            timeouts: settings.timeouts,
            token: Token::default(),
            large: Semaphore::new(1),
        };
        consul.set_token(settings.token)?;
        consul.follow_token(settings.token_files)?;
        Ok(consul)
    }

    /// Takes another token from the next request on. A token that cannot be sent is an error, and the former one
    /// stays.
    pub fn set_token(&self, token: Option<Secret>) -> Result<(), BadConsulSettings> {
        self.token.set(token.as_ref())
    }

    /// Takes the token from these files from the next request on, and again whenever one of them changes.
    pub fn follow_token(&self, files: Vec<PathBuf>) -> Result<(), BadConsulSettings> {
        self.token.follow(files)
    }

    /// Grows with each other token that is taken from a file: what was registered with a former one is not kept up
    /// by Consul any more.
    pub fn token_changes(&self) -> u64 {
        self.token.changes()
    }

    fn url(&self, path_and_query: &str) -> String {
        let Self { base, scope, .. } = self;
        match scope.strip_prefix('&') {
            Some(scope) if !path_and_query.contains('?') => format!("{base}/v1/{path_and_query}?{scope}"),
            _ => format!("{base}/v1/{path_and_query}{scope}"),
        }
    }

    /// One request with all its bounds.
    async fn ask(&self, request: Request<'_>) -> Result<Got<'_>, StoreError> {
        let Request { method, path, body, deadline, action, expected } = request;
        let token = self.token.now();
        let patience = Patience::new(deadline);
        let exchange = async {
            let url = self.url(path);
            let mut request = self.client.request(method, url);
            if let Some(value) = header(token.as_ref()).map_err(|error| self.unreadable(error.to_string()))? {
                request = request.header(HeaderName::from_static("x-consul-token"), value);
            }
            if let Some(body) = body {
                request = request.body(body);
            }
            let sent = patience.with(request.send()).await.ok_or_else(|| self.slow(&patience, 0))?;
            let mut response = sent.map_err(|error| self.unreachable(error))?;
            let status = response.status().as_u16();
            let good = expected.contains(&status);
            let headers = std::mem::take(response.headers_mut());
            if good {
                let (body, turn) = self.body(response, action, patience).await?;
                return Ok(Got { status, headers, body, _turn: turn });
            }
            let read =
                patience.with(self.error_body(response)).await.ok_or_else(|| self.slow(&patience, 0))?;
            // Before any text is cut: a piece of the token would not be found any more.
            Err(self.refusal(status, &without(read?, token.as_ref()), action))
        };
        exchange.await.map_err(|error| hide(error, token.as_ref()))
    }

    /// Reads a body within its bounds.
    async fn body(
        &self,
        mut response: Response,
        action: &str,
        mut patience: Patience,
    ) -> Result<(Body, Option<SemaphorePermit<'_>>), StoreError> {
        let (mut body, mut turn) = (Body::default(), None);
        loop {
            let next =
                patience.with(response.chunk()).await.ok_or_else(|| self.slow(&patience, body.read()))?;
            let Some(chunk) = next.map_err(|error| self.unreachable(error))? else { return Ok((body, turn)) };
            patience.brought(chunk.len());
            if let Err(why) = body.push(&chunk) {
                let (place, action) = (self.place.clone(), action.to_owned());
                return Err(StoreError::TooLarge { place, action, why });
            }
            if body.kept().len() > SMALL_BODY && turn.is_none() {
                let asked = Instant::now();
                // Nobody closes it, so there is always an answer.
                turn = self.large.acquire().await.ok();
                patience.own_time(asked.elapsed());
            }
        }
    }

    /// Reads the beginning of a body that is only looked at for its message.
    async fn error_body(&self, mut response: Response) -> Result<Vec<u8>, StoreError> {
        let (mut body, mut chunks) = (Vec::new(), 0_usize);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            let room = MAX_ERROR_BODY.saturating_sub(body.len());
            body.extend(chunk.iter().take(room));
            chunks = chunks.saturating_add(1);
            if chunk.len() >= room || chunks >= MAX_ERROR_BODY {
                break;
            }
        }
        Ok(body)
    }

    fn refusal(&self, status: u16, body: &[u8], action: &str) -> StoreError {
        let place = self.place.clone();
        let action = action.to_owned();
        let why = format!("{status} {}", wire::message(body));
        match wire::verdict(status, body) {
            Verdict::NoLeader => StoreError::NoLeader { place },
            Verdict::Busy => StoreError::Busy { place, why },
            Verdict::NoDatacenter => StoreError::Unreachable {
                place,
                why: match &self.datacenter {
                    Some(name) => {
                        format!("it knows no way to the datacenter {name:?}: see `consul.datacenter` ({why})")
                    }
                    None => why,
                },
            },
            Verdict::WantsTls => StoreError::Unreachable {
                place,
                why: format!("it speaks HTTPS there: is https:// meant in `consul.address`? ({why})"),
            },
            Verdict::Denied => StoreError::Denied { place, action, why },
            Verdict::Refused => StoreError::Refused { place, action, why },
            Verdict::Unreadable => StoreError::Unreadable { place, why: format!("to {action}: {why}") },
        }
    }

    /// An answer that did not come in time, or stopped coming behind so many bytes of its body.
    fn slow(&self, patience: &Patience, read: usize) -> StoreError {
        let seconds = patience.begun().as_secs().max(1);
        let why = match read {
            0 => format!("no answer within {seconds} s"),
            _ => format!("its answer comes too slowly: {read} bytes within {seconds} s"),
        };
        StoreError::Unreachable { place: self.place.clone(), why }
    }

    fn unreachable(&self, error: reqwest::Error) -> StoreError {
        // The outermost texts only repeat that a request failed; the innermost says why.
        let error = error.without_url();
        let mut inner: &dyn std::error::Error = &error;
        while let Some(source) = inner.source() {
            inner = source;
        }
        StoreError::Unreachable {
            place: self.place.clone(),
            why: explained(&wire::message(inner.to_string().as_bytes()), "consul"),
        }
    }

    fn unreadable(&self, why: String) -> StoreError {
        StoreError::Unreadable { place: self.place.clone(), why }
    }

    fn refused(&self, action: &str, why: &str) -> StoreError {
        StoreError::Refused { place: self.place.clone(), action: action.to_owned(), why: why.to_owned() }
    }

    /// Only an answer that a leader stands behind counts.
    fn led(&self, headers: &HeaderMap) -> Result<(), StoreError> {
        match wire::known_leader(headers) {
            Some(true) => Ok(()),
            Some(false) => Err(StoreError::NoLeader { place: self.place.clone() }),
            None => Err(self.unreadable("the answer does not say whether there is a leader".to_owned())),
        }
    }

    /// `seen`: the index to wait behind, and for how long at most.
    async fn get(&self, prefix: &str, seen: Option<(u64, Duration)>) -> Result<Listing, StoreError> {
        let action = format!("to list {prefix:?}");
        if let Some(why) = bad_prefix(prefix) {
            return Err(self.refused(&action, why));
        }
        let mut path = format!("kv/{}?recurse&consistent", wire::encode_path(prefix));
        let mut deadline = self.timeouts.request;
        if let Some((seen, within)) = seen {
            let wait = Duration::from_secs(self.timeouts.wait.min(within).as_secs().max(1));
            // An index of 0 would not wait at all.
            path.push_str(&format!("&index={}&wait={}s", seen.max(1), wait.as_secs()));
            // Consul stretches a wait by up to a sixteenth.
            let stretch = wait.checked_div(16).unwrap_or_default();
            deadline = wait.saturating_add(stretch).saturating_add(self.timeouts.margin);
        }
        let got = self
            .ask(Request {
                method: Method::GET,
                path: &path,
                body: None,
                deadline,
                action: &action,
                expected: &[200, 404],
            })
            .await?;
        self.led(&got.headers)?;
        let index = wire::index(&got.headers).map_err(|why| self.unreadable(why))?;
        let entries = match got.status {
            404 => Vec::new(),
            _ => wire::entries(got.body.kept(), prefix).map_err(|why| self.unreadable(why))?,
        };
        Ok(Listing { index, entries, sent: got.body.read() })
    }

    async fn transact(&self, reads: &[Read]) -> Result<Vec<Listing>, StoreError> {
        let action = "to look at several keys";
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        if reads.len() > MAX_READS {
            return Err(self.refused(action, "more than 64 reads"));
        }
        for read in reads {
            let bad = match read {
                Read::Key(key) => bad_key(key),
                Read::Prefix(prefix) => bad_prefix(prefix),
            };
            if let Some(why) = bad {
                return Err(self.refused(action, why));
            }
        }
        let body = wire::transaction(reads).map_err(|why| self.unreadable(why))?;
        let deadline = self.timeouts.request;
        let got = self
            .ask(Request {
                method: Method::PUT,
                path: "txn?consistent",
                body: Some(body),
                deadline,
                action,
                expected: &[200],
            })
            .await?;
        self.led(&got.headers)?;
        wire::looked(got.body.kept(), reads).map_err(|why| self.unreadable(why))
    }

    /// Names below a prefix, without it; none where nothing is.
    async fn names_below(&self, prefix: &str, separator: &str) -> Result<Vec<String>, StoreError> {
        let action = format!("to list the names below {prefix:?}");
        if let Some(why) = bad_prefix(prefix) {
            return Err(self.refused(&action, why));
        }
        let path = format!("kv/{}?keys{separator}&consistent", wire::encode_path(prefix));
        let got = self
            .ask(Request {
                method: Method::GET,
                path: &path,
                body: None,
                deadline: self.timeouts.request,
                action: &action,
                expected: &[200, 404],
            })
            .await?;
        self.led(&got.headers)?;
        match got.status {
            404 => Ok(Vec::new()),
            _ => wire::names(got.body.kept(), prefix).map_err(|why| self.unreadable(why)),
        }
    }

    /// Writes and deletes answer `true` or `false`.
    async fn write(&self, write: Write<'_>) -> Result<bool, StoreError> {
        let Write { method, key, query, body, action } = write;
        if let Some(why) = bad_key(key) {
            return Err(self.refused(action, why));
        }
        let path = format!("kv/{}?{query}", wire::encode_path(key));
        let deadline = self.timeouts.request;
        let got = self.ask(Request { method, path: &path, body, deadline, action, expected: &[200] }).await?;
        match got.body.kept().trim_ascii() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            other => Err(self.unreadable(format!("{action}: {}", wire::message(other)))),
        }
    }
}

impl Store for Consul {
    fn node(&self) -> StoreFuture<'_, String> {
        Box::pin(async move {
            let action = "to read the node's name";
            let got = self
                .ask(Request {
                    method: Method::GET,
                    path: "agent/self",
                    body: None,
                    deadline: self.timeouts.request,
                    action,
                    expected: &[200],
                })
                .await?;
            wire::node(got.body.kept()).map_err(|why| self.unreadable(why))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        Box::pin(self.get(prefix, None))
    }

    fn changed<'a>(
        &'a self,
        prefix: &'a str,
        seen: Option<u64>,
        within: Duration,
    ) -> StoreFuture<'a, Listing> {
        Box::pin(self.get(prefix, seen.map(|seen| (seen, within))))
    }

    fn look<'a>(&'a self, reads: &'a [Read]) -> StoreFuture<'a, Vec<Listing>> {
        Box::pin(self.transact(reads))
    }

    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, when: When) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let action = format!("to write {key:?}");
            if value.len() > MAX_VALUE {
                return Err(self.refused(&action, "a value has at most 524288 bytes"));
            }
            let query = match when {
                When::Always => String::new(),
                When::Unchanged(index) => format!("cas={index}"),
            };
            let (method, body) = (Method::PUT, Some(value));
            let written = self.write(Write { method, key, query: &query, body, action: &action }).await?;
            match when {
                When::Always if !written => Err(self.unreadable(format!("{action}: false, unasked"))),
                _ => Ok(written),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let action = format!("to delete {key:?}");
            let (method, query) = (Method::DELETE, "");
            match self.write(Write { method, key, query, body: None, action: &action }).await? {
                true => Ok(()),
                false => Err(self.unreadable(format!("{action}: false, unasked"))),
            }
        })
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(async move {
            let below = self.names_below(prefix, "").await?;
            Ok(below.into_iter().map(|name| format!("{prefix}{name}")).collect())
        })
    }

    fn names<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(self.names_below(prefix, "&separator=/"))
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// The token as a header that no debug output shows.
fn header(token: Option<&Secret>) -> Result<Option<HeaderValue>, BadConsulSettings> {
    let Some(token) = token else { return Ok(None) };
    if token.reveal().contains(|c: char| c.is_control()) {
        return Err(BadConsulSettings::Token);
    }
    let mut value = HeaderValue::from_str(token.reveal()).map_err(|_| BadConsulSettings::Token)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A body without the token.
fn without(body: Vec<u8>, token: Option<&Secret>) -> Vec<u8> {
    match token {
        Some(token) => String::from_utf8_lossy(&body).replace(token.reveal(), "(token)").into_bytes(),
        None => body,
    }
}

/// Takes the token out of what a server wrote.
fn hide(error: StoreError, token: Option<&Secret>) -> StoreError {
    let Some(token) = token else { return error };
    let clean = |why: String| why.replace(token.reveal(), "(token)");
    match error {
        StoreError::Unreachable { place, why } => StoreError::Unreachable { place, why: clean(why) },
        StoreError::Busy { place, why } => StoreError::Busy { place, why: clean(why) },
        StoreError::Denied { place, action, why } => StoreError::Denied { place, action, why: clean(why) },
        StoreError::Refused { place, action, why } => StoreError::Refused { place, action, why: clean(why) },
        StoreError::Unreadable { place, why } => StoreError::Unreadable { place, why: clean(why) },
        other @ (StoreError::TooLarge { .. } | StoreError::NoLeader { .. }) => other,
    }
}

/// The HTTP client with every default that reaches outside switched off.
fn client(settings: &ConsulSettings) -> Result<Client, BadConsulSettings> {
    let failed = |error: reqwest::Error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        BadConsulSettings::Client(why)
    };
    let client = settings.client.as_ref().map(|client| (client.cert.as_path(), client.key.as_path()));
    let files = TlsFiles { ca_file: settings.ca_file.as_deref(), client, verify: settings.verify };
    let uses_tls = matches!(settings.address, Address::Tcp { tls: true, .. });
    let mut builder = http::client(uses_tls.then_some(files))?
        .connect_timeout(settings.timeouts.connect)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_FOR);
    if let Address::Unix(path) = &settings.address {
        builder = builder.unix_socket(path.clone());
    }
    builder.build().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn settings() -> ConsulSettings {
        PartialConsul::default().build().unwrap()
    }

    #[test]
    fn a_token_with_a_newline_inside_is_an_error_and_one_at_its_end_is_not() {
        let consul = Consul::new(settings()).unwrap();
        let token = |text: &str| Some(Secret::new(text.to_owned()));
        let now = || consul.token.now().map(|token| token.reveal().to_owned());
        consul.set_token(token("first\n")).unwrap();
        assert!(consul.set_token(token("a\nb")).is_err());
        assert!(consul.set_token(token("a\u{0}b")).is_err());
        assert_eq!(now().as_deref(), Some("first"));
        consul.set_token(token(" \n")).unwrap();
        assert_eq!(now(), None);
    }

    #[test]
    fn the_scope_is_part_of_every_query() {
        let plain = Consul::new(settings()).unwrap();
        let scoped = Consul::new(ConsulSettings { datacenter: Some("d 1".into()), ..settings() }).unwrap();
        let base = "http://127.0.0.1:8500/v1";
        for (path, without, with) in [("agent/self", "", "?dc=d%201"), ("kv/a?recurse", "", "&dc=d%201")] {
            assert_eq!(plain.url(path), format!("{base}/{path}{without}"));
            assert_eq!(scoped.url(path), format!("{base}/{path}{with}"));
        }
    }

    #[test]
    fn a_token_is_taken_out_before_its_text_is_cut() {
        let token = Secret::new("0123abcd-4567-89ef-0123-456789abcdef".to_owned());
        for before in 100..260 {
            let body = format!("{}{}", "x".repeat(before), token.reveal());
            let said = wire::message(&without(body.into_bytes(), Some(&token)));
            assert!(!said.contains("0123a"), "{said}");
        }
    }

    #[test]
    fn the_token_is_taken_out_of_every_message() {
        let token = Secret::new("s3cret".to_owned());
        let consul = Consul::new(settings()).unwrap();
        for status in [403, 429, 400, 404, 500] {
            let error = hide(consul.refusal(status, b"token s3cret is bad", "to list \"x\""), Some(&token));
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn bad_certificates_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let with = |ca: &Path| ConsulSettings {
            address: "https://localhost:1".parse().unwrap(),
            ca_file: Some(ca.to_owned()),
            ..settings()
        };
        let error = Consul::new(with(&path)).err().unwrap().to_string();
        assert!(error.contains("ca.pem: No such file"), "{error}");
        fs::write(&path, "not a certificate").unwrap();
        let error = Consul::new(with(&path)).err().unwrap().to_string();
        assert!(error.contains("ca.pem does not hold certificates"), "{error}");
        let wide: Vec<u8> = b"-----BEGIN CERTIFICATE-----".iter().flat_map(|byte| [*byte, 0]).collect();
        fs::write(&path, wide).unwrap();
        let error = Consul::new(with(&path)).err().unwrap().to_string();
        assert!(error.contains("ca.pem: it is UTF-16"), "{error}");
    }
}
