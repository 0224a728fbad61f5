//! One request to Vault, with its bounds: a deadline, a largest body, no redirect but to a configured address and never
//! away from TLS, no proxy. The token is a header that no debug text shows, and bodies of answers never become part of an error.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::settings::Server;
use super::wire::{self, Verdict};
use crate::domain::secret::{MAX_LEN, Secret};
use crate::host::http::{self, TlsFiles};
use crate::host::tls::explained;

/// The largest answer, in bytes: a value has at most 1 MiB, and JSON may write six bytes for one of it.
const MAX_BODY: usize = 8 << 20;
/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// For a whole request.
const REQUEST: Duration = Duration::from_secs(10);
/// A standby sends to the active one; more is a loop.
const REDIRECTS: usize = 2;
/// Shorter than the server keeps idle connections.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// Why Vault did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No answer, or none that makes sense.
    #[error("Vault at {place} cannot be reached: {why}")]
    Away {
        /// Its address.
        place: String,
        /// What happened.
        why: String,
    },
    /// Sealed.
    #[error("Vault at {place} is sealed: an operator has to unseal it")]
    Sealed {
        /// Its address.
        place: String,
    },
    /// Never set up.
    #[error("Vault at {place} is not initialised: run `vault operator init` there")]
    Uninitialised {
        /// Its address.
        place: String,
    },
    /// Busy, or something behind it is away.
    #[error("Vault at {place} cannot {action} now: {why}")]
    Busy {
        /// Its address.
        place: String,
        /// What was asked.
        action: String,
        /// What it said.
        why: String,
        /// When it wants to be asked again, if it says so.
        after: Option<Duration>,
    },
    /// The token is dead.
    #[error("Vault at {place} rejects the token as expired or revoked")]
    TokenDead {
        /// Its address.
        place: String,
    },
    /// The policies do not allow it.
    #[error("Vault at {place} forbids to {action}: give the agent's policy that right")]
    Denied {
        /// Its address.
        place: String,
        /// What was asked.
        action: String,
    },
    /// There is nothing.
    #[error("Vault at {place} has nothing to {action}: {why}")]
    Missing {
        /// Its address.
        place: String,
        /// What was asked.
        action: String,
        /// Which kind of nothing.
        why: String,
    },
    /// A wrapping token was used before.
    #[error(
        "the wrapped secret id in {} was unwrapped by another client, or has expired: treat it as stolen, destroy it in Vault, and place a new one", path.display()
    )]
    Stolen {
        /// The file that held it.
        path: PathBuf,
    },
    /// A wrapping token was used before, or never was.
    #[error("Vault at {place} does not know the wrapping token: it was used before, or its time is over")]
    Spent {
        /// Its address.
        place: String,
    },
    /// It will not pass by itself.
    #[error("Vault at {place} refuses to {action}: {why}")]
    Refused {
        /// Its address.
        place: String,
        /// What was asked.
        action: String,
        /// What it said.
        why: String,
    },
    /// Something on this host.
    #[error("{0}")]
    Local(String),
}

impl VaultError {
    /// Whether the same request may succeed later without anybody doing anything about this host.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Away { .. }
                | Self::Sealed { .. }
                | Self::Uninitialised { .. }
                | Self::Busy { .. }
                | Self::TokenDead { .. }
        )
    }

    /// How long the server wants to be left alone, if it says so.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }
}

/// One request to Vault.
pub struct Request<'a> {
    /// How.
    pub method: Method,
    /// As Vault's own tools write it, without `/v1/`.
    pub path: &'a str,
    /// Without the `?`; empty for none.
    pub query: &'a str,
    /// What is sent.
    pub body: Option<&'a Value>,
    /// By whose right; `None`: nobody's.
    pub token: Option<&'a Secret>,
    /// Names the request in errors.
    pub action: &'a str,
}

impl<'a> Request<'a> {
    /// A request without query, body and token.
    pub fn new(method: Method, path: &'a str, action: &'a str) -> Self {
        Self { method, path, query: "", body: None, token: None, action }
    }
}

/// A client of one Vault.
pub struct Client {
    client: reqwest::Client,
    server: Server,
}

impl Client {
    /// Makes a client; connects to nothing yet. Reads the certificates that the settings name.
    pub fn new(server: Server) -> Result<Self, VaultError> {
        let failed = |why: String| VaultError::Local(format!("cannot set up the client for Vault: {why}"));
        let client = server.client.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        let files = TlsFiles { ca_file: server.ca_file.as_deref(), client, verify: server.verify };
        let uses_tls = server.addresses().any(|address| address.starts_with("https:"));
        let builder = http::client(uses_tls.then_some(files))
            .map_err(|error| VaultError::Local(error.to_string()))?
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_FOR);
        let client = builder.build().map_err(|error| failed(innermost(&error)))?;
        Ok(Self { client, server })
    }

    /// How the server is reached.
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn place(&self) -> String {
        self.server.address.clone()
    }

    /// One request. The `data`, `auth` and the rest of the answer; `Null` where it has no body.
    pub async fn ask(&self, request: Request<'_>) -> Result<Value, VaultError> {
        let Request { method, path, query, body, token, action } = request;
        let away = |why: String| VaultError::Away { place: self.place(), why };
        let mut addresses = self.server.addresses();
        let mut address = addresses.next().ok_or_else(|| away("no address".to_owned()))?.to_owned();
        let mut redirects = 0;
        let mut response = loop {
            let url = url(&address, path, query).map_err(away)?;
            let request = self.request(method.clone(), url, body, token)?;
            match request.send().await {
                // Nobody listens there, so nothing was asked: another one of the same cluster may be up.
                Err(error) if error.is_connect() && redirects == 0 => match addresses.next() {
                    Some(next) => next.clone_into(&mut address),
                    None => return Err(away(innermost(&error))),
                },
                Err(error) => return Err(away(innermost(&error))),
                Ok(response)
                    if response.status() == StatusCode::TEMPORARY_REDIRECT && redirects < REDIRECTS =>
                {
                    let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
                    address = self.server.redirect(&address, target.unwrap_or_default()).map_err(away)?;
                    redirects = usize::saturating_add(redirects, 1);
                }
                Ok(response) => break response,
            }
        };
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let after = after.map(wire::seconds);
        let mut body = Zeroizing::new(Vec::with_capacity(16 << 10));
        while let Some(chunk) = response.chunk().await.map_err(|error| away(innermost(&error)))? {
            if body.len().saturating_add(chunk.len()) > MAX_BODY {
                let (place, action) = (self.place(), action.to_owned());
                let why =
                    format!("an answer of more than {MAX_BODY} bytes, and a secret has at most {MAX_LEN}");
                return Err(VaultError::Refused { place, action, why });
            }
            body.extend_from_slice(&chunk);
        }
        match status {
            204 | 202 => Ok(Value::Null),
            200 => match serde_json::from_slice(&body) {
                Ok(value @ Value::Object(_)) => Ok(value),
                _ => Err(away("the server is not Vault".to_owned())),
            },
            _ => Err(self.refusal(status, after, &body, action)),
        }
    }

    /// Whether Vault can serve, which anybody may ask: no token is sent, nothing is read and no quota is touched. What
    /// answers in its place, such as a proxy that passes this route to nobody, is no word on Vault.
    pub async fn health(&self) -> Result<(), VaultError> {
        // A server that says how it is in its status says it in its body as well, and the status is what was asked for.
        let query = "standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200";
        match self.ask(Request { query, ..Request::new(Method::GET, "sys/health", "tell how it is") }).await {
            Ok(about) if about["initialized"] == Value::Bool(false) => {
                Err(VaultError::Uninitialised { place: self.place() })
            }
            Ok(about) if about["sealed"] == Value::Bool(true) => {
                Err(VaultError::Sealed { place: self.place() })
            }
            Err(error @ (VaultError::Away { .. } | VaultError::Sealed { .. })) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn request(
        &self,
        method: Method,
        url: reqwest::Url,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<reqwest::RequestBuilder, VaultError> {
        let mut request =
            self.client.request(method, url).header(HeaderName::from_static("x-vault-request"), "true");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.reveal()).map_err(|_| {
                VaultError::Local("the token for Vault holds a character that no token has".into())
            })?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("x-vault-token"), value);
        }
        if let Some(namespace) = &self.server.namespace {
            request = request.header(HeaderName::from_static("x-vault-namespace"), namespace.as_str());
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        Ok(request)
    }

    fn refusal(&self, status: u16, after: Option<Duration>, body: &[u8], action: &str) -> VaultError {
        let (place, action) = (self.place(), action.to_owned());
        let why = || format!("{status} {}", wire::text(body)).trim().to_owned();
        match wire::verdict(status, body) {
            Verdict::Sealed => VaultError::Sealed { place },
            Verdict::Later => VaultError::Busy { place, action, why: why(), after },
            Verdict::TokenDead => VaultError::TokenDead { place },
            Verdict::Denied => VaultError::Denied { place, action },
            Verdict::Missing => VaultError::Missing { place, action, why: missing(body) },
            Verdict::Unwrapped => VaultError::Spent { place },
            Verdict::PlainToTls => {
                VaultError::Away { place, why: "it speaks TLS: write https:// in `vault.address`".to_owned() }
            }
            Verdict::Refused => VaultError::Refused { place, action, why: why() },
        }
    }
}

fn url(address: &str, path: &str, query: &str) -> Result<reqwest::Url, String> {
    let mut url = reqwest::Url::parse(address).map_err(|error| error.to_string())?;
    if let Ok(mut segments) = url.path_segments_mut() {
        // Encoded once, and never a double slash: the server answers such paths with a redirect that loses writes.
        segments.pop_if_empty().push("v1").extend(path.split('/').filter(|part| !part.is_empty()));
    }
    if !query.is_empty() {
        url.set_query(Some(query));
    }
    Ok(url)
}

/// The three kinds of nothing.
fn missing(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let about = &value["data"]["metadata"];
    if about["destroyed"] == Value::Bool(true) {
        return "this version was destroyed".to_owned();
    }
    if about.is_object() {
        return "this version was deleted".to_owned();
    }
    if value["warnings"].is_array() {
        return "the engine keeps versions: its path has `data/` after the mount".to_owned();
    }
    match wire::text(body) {
        said if said.is_empty() => "there is none".to_owned(),
        said => said,
    }
}

/// The outermost texts only repeat that a request failed, with its address; the innermost says why.
fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        explained(&inner.to_string(), "vault")
    };
    crate::domain::text::head(&text.replace(['\n', '\r'], " "), 200)
}
