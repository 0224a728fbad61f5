//! Where Vault is, how it is spoken to and how the agent logs in: the configuration above the environment.
//!
//! The environment is read as Vault's own tools read it, and lies below the configuration. Nothing here reads a file.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::secret::Secret;
use crate::domain::span::Span;

/// How often the secrets that orders watch are looked at.
const WATCH_EVERY: Span = Span::secs(60);

/// What is wrong with the settings for Vault.
#[derive(Debug, thiserror::Error)]
pub enum BadVaultSettings {
    /// Not an address.
    #[error("`vault.address` is {0:?}: write http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// Settings without a server.
    #[error("`vault:` names no server: set `vault.address`, or VAULT_ADDR")]
    NoAddress,
    /// A certificate without its key, or a key without its certificate.
    #[error("vault: a client certificate and its key go together; only the {0} is given")]
    Pair(&'static str),
    /// A way back to plain text.
    #[error(
        "`vault.failover_addresses` names {0:?}: with https in `vault.address` all others are https as well"
    )]
    Plain(String),
    /// Policies.
    #[error("`vault.run_policies` names at least one policy, and never root: or leave it out")]
    Policies,
    /// Not exactly one way to log in.
    #[error("`vault.auth` names exactly one of approle, cert and token_file")]
    Auth,
    /// No way to log in.
    #[error("vault: no login method: set `vault.auth`, or VAULT_TOKEN")]
    NoAuth,
    /// An interval.
    #[error("`vault.secret_poll_interval` is {0}: at least 1s")]
    WatchEvery(Span),
    /// A flag of the environment.
    #[error("VAULT_SKIP_VERIFY is {0:?}; write true or false")]
    Flag(String),
}

/// How the agent logs in.
#[derive(Clone, PartialEq)]
pub enum Auth {
    /// With a role id and a secret id.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The file with the role id.
        role_id_file: PathBuf,
        /// Where the secret id is, or the token that wraps it.
        secret_id: SecretIdAt,
        /// Whether the file holds a wrapping token.
        wrapped: bool,
    },
    /// With the client certificate.
    Cert {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        name: Option<String>,
    },
    /// With a token that somebody else keeps fresh in a file.
    TokenFile(PathBuf),
    /// With a token of the environment.
    Token(Secret),
}

/// Where the secret id of an AppRole is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretIdAt {
    /// In this file, which the configuration names.
    Named(PathBuf),
    /// In the one of these that was changed last and holds something; without any, the role needs none.
    Usual(Vec<PathBuf>),
}

impl SecretIdAt {
    /// The files that are looked at.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Named(path) => std::slice::from_ref(path),
            Self::Usual(paths) => paths,
        }
    }
}

/// `vault:` as it is written.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaultLayer {
    address: Option<String>,
    failover_addresses: Option<Vec<String>>,
    run_policies: Option<Vec<String>>,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    namespace: Option<String>,
    verify: Option<bool>,
    auth: Option<AuthFile>,
    secret_poll_interval: Option<Span>,
    #[serde(skip)]
    token: Option<Secret>,
    /// Where the secret id is that the configuration does not name.
    #[serde(skip)]
    secret_ids: Vec<PathBuf>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthFile {
    approle: Option<AppRoleFile>,
    cert: Option<CertFile>,
    token_file: Option<PathBuf>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRoleFile {
    role_id_file: PathBuf,
    secret_id_file: Option<PathBuf>,
    #[serde(default)]
    wrapped: bool,
    mount: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CertFile {
    name: Option<String>,
    mount: Option<String>,
}

/// How a server is reached; the part that an executor needs as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `https://host:port`
    pub address: String,
    /// The other servers of the same cluster: asked where nobody listens at the first, and followed to by redirects.
    #[serde(default)]
    pub failover_addresses: Vec<String>,
    /// The authorities that sign the server's certificate, PEM; the system's own if missing.
    pub ca_file: Option<PathBuf>,
    /// The client certificate with its key, both PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The namespace (Vault Enterprise).
    pub namespace: Option<String>,
    /// False: the server's certificate is not verified.
    pub verify: bool,
}

/// Everything that the agent needs to know.
#[derive(Clone, PartialEq)]
pub struct VaultSettings {
    /// The server.
    pub server: Server,
    /// How to log in.
    pub auth: Auth,
    /// The policies of tokens for runs; `None`: the agent's own.
    pub run_policies: Option<Vec<String>>,
    /// How often watched secrets are looked at.
    pub secret_poll_interval: Duration,
}

/// An address without anything behind it.
fn checked(address: &str) -> Result<String, BadVaultSettings> {
    let address = address.trim().trim_end_matches('/').to_owned();
    let parsed = reqwest::Url::parse(&address);
    let good = parsed.as_ref().is_ok_and(|url| {
        ["http", "https"].contains(&url.scheme())
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.username().is_empty()
    });
    match parsed {
        // As it is parsed, scheme and host are in lower case: whatever asks for `https:` finds it.
        Ok(url) if good => Ok(url.as_str().trim_end_matches('/').to_owned()),
        _ => Err(BadVaultSettings::Address(address.chars().take(100).collect())),
    }
}

fn is_tls(address: &str) -> bool {
    address.starts_with("https:")
}

impl Server {
    /// All addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        [&self.address].into_iter().chain(&self.failover_addresses).map(String::as_str)
    }

    /// The configured address that a redirect from another one leads to. The token goes along, so it leads nowhere
    /// else, and never from TLS to plain text.
    pub fn redirect(&self, from: &str, target: &str) -> Result<String, String> {
        let origin = |address: &str| reqwest::Url::parse(address).ok().map(|url| url.origin());
        let target = origin(target).ok_or("it sends elsewhere without saying where")?;
        let known = self.addresses().find(|address| origin(address).as_ref() == Some(&target));
        match known {
            Some(known) if is_tls(from) && !is_tls(known) => {
                Err(format!("it sends from TLS to plain text, to {known}: not followed"))
            }
            Some(known) => Ok(known.to_owned()),
            None => Err(format!(
                "it sends to {}, which is not configured: not followed; name it in `vault.failover_addresses` if it is one of the \
                 cluster",
                target.ascii_serialization()
            )),
        }
    }
}

impl VaultLayer {
    /// The environment as Vault's own tools read it; an empty variable counts as unset.
    pub fn from_env(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadVaultSettings> {
        let text = |name: &str| var(name).filter(|value| !value.is_empty());
        // Executors read the same files, and work in `/`.
        let path = |name: &str| text(name).map(|path| std::path::absolute(&path).unwrap_or(path.into()));
        let verify = match text("VAULT_SKIP_VERIFY") {
            None => None,
            Some(word) => match word.as_str() {
                "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(false),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(true),
                _ => return Err(BadVaultSettings::Flag(word.chars().take(40).collect())),
            },
        };
        Ok(Self {
            address: text("VAULT_ADDR"),
            failover_addresses: None,
            run_policies: None,
            ca_file: path("VAULT_CACERT"),
            client_cert: path("VAULT_CLIENT_CERT"),
            client_key: path("VAULT_CLIENT_KEY"),
            namespace: text("VAULT_NAMESPACE"),
            verify,
            auth: None,
            secret_poll_interval: None,
            token: text("VAULT_TOKEN").map(Secret::new),
            secret_ids: Vec::new(),
        })
    }

    /// The files that are named, each with its key below `vault`.
    pub fn files(&self) -> Vec<(&'static str, &PathBuf)> {
        let auth = self.auth.as_ref();
        let approle = auth.and_then(|auth| auth.approle.as_ref());
        let named = [
            ("ca_file", self.ca_file.as_ref()),
            ("client_cert", self.client_cert.as_ref()),
            ("client_key", self.client_key.as_ref()),
            ("auth.token_file", auth.and_then(|auth| auth.token_file.as_ref())),
            ("auth.approle.role_id_file", approle.map(|approle| &approle.role_id_file)),
            ("auth.approle.secret_id_file", approle.and_then(|approle| approle.secret_id_file.as_ref())),
        ];
        named.into_iter().filter_map(|(key, file)| Some((key, file?))).collect()
    }

    /// This layer above `lower`: what it leaves open, `lower` says. Certificate and key are one thing.
    pub fn over(self, lower: Self) -> Self {
        let (client_cert, client_key) = if self.client_cert.is_some() || self.client_key.is_some() {
            (self.client_cert, self.client_key)
        } else {
            (lower.client_cert, lower.client_key)
        };
        Self {
            address: self.address.or(lower.address),
            failover_addresses: self.failover_addresses.or(lower.failover_addresses),
            run_policies: self.run_policies.or(lower.run_policies),
            ca_file: self.ca_file.or(lower.ca_file),
            client_cert,
            client_key,
            namespace: self.namespace.or(lower.namespace),
            verify: self.verify.or(lower.verify),
            auth: self.auth.or(lower.auth),
            secret_poll_interval: self.secret_poll_interval.or(lower.secret_poll_interval),
            token: self.token.or(lower.token),
            secret_ids: if self.secret_ids.is_empty() { lower.secret_ids } else { self.secret_ids },
        }
    }

    /// Says where the secret id is if the configuration names no file for it.
    pub fn with_usual_secret_ids(self, secret_ids: Vec<PathBuf>) -> Self {
        Self { secret_ids, ..self }
    }

    /// The settings; `None` where nothing names a server: the host has no Vault.
    pub fn build(self) -> Result<Option<VaultSettings>, BadVaultSettings> {
        let says_more =
            self.auth.is_some() || self.failover_addresses.is_some() || self.run_policies.is_some();
        let Some(address) = self.address else {
            return if says_more { Err(BadVaultSettings::NoAddress) } else { Ok(None) };
        };
        let address = checked(&address)?;
        let failover_addresses = self.failover_addresses.unwrap_or_default();
        let failover_addresses =
            failover_addresses.iter().map(|standby| checked(standby)).collect::<Result<Vec<_>, _>>()?;
        if let Some(plain) = failover_addresses.iter().find(|standby| is_tls(&address) && !is_tls(standby)) {
            return Err(BadVaultSettings::Plain(plain.clone()));
        }
        if self.run_policies.as_ref().is_some_and(|all| all.is_empty() || all.iter().any(|one| one == "root"))
        {
            return Err(BadVaultSettings::Policies);
        }
        let client = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(BadVaultSettings::Pair("certificate")),
            (None, Some(_)) => return Err(BadVaultSettings::Pair("key")),
        };
        let mount = |mount: Option<String>, default: &str| {
            mount.map_or_else(|| default.to_owned(), |text| text.trim_matches('/').to_owned())
        };
        let auth = match self.auth {
            None => Auth::Token(self.token.ok_or(BadVaultSettings::NoAuth)?),
            Some(AuthFile { approle: Some(file), cert: None, token_file: None }) => Auth::AppRole {
                mount: mount(file.mount, "approle"),
                role_id_file: file.role_id_file,
                secret_id: match file.secret_id_file {
                    Some(path) => SecretIdAt::Named(path),
                    None => SecretIdAt::Usual(self.secret_ids),
                },
                wrapped: file.wrapped,
            },
            Some(AuthFile { approle: None, cert: Some(file), token_file: None }) => {
                Auth::Cert { mount: mount(file.mount, "cert"), name: file.name }
            }
            Some(AuthFile { approle: None, cert: None, token_file: Some(path) }) => Auth::TokenFile(path),
            Some(_) => return Err(BadVaultSettings::Auth),
        };
        let secret_poll_interval = self.secret_poll_interval.unwrap_or(WATCH_EVERY);
        if secret_poll_interval < Span::secs(1) {
            return Err(BadVaultSettings::WatchEvery(secret_poll_interval));
        }
        let server = Server {
            address,
            failover_addresses,
            ca_file: self.ca_file,
            client,
            namespace: self.namespace,
            verify: self.verify.unwrap_or(true),
        };
        Ok(Some(VaultSettings {
            server,
            auth,
            run_policies: self.run_policies,
            secret_poll_interval: secret_poll_interval.0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> VaultLayer {
        let var =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        VaultLayer::from_env(&var).unwrap()
    }

    #[test]
    fn the_environment_lies_below_the_configuration() {
        let below = env(&[
            ("VAULT_ADDR", "https://env:8200"),
            ("VAULT_TOKEN", "t"),
            ("VAULT_CACERT", "/ca"),
            ("VAULT_CLIENT_CERT", "/c"),
            ("VAULT_CLIENT_KEY", "/k"),
            ("VAULT_NAMESPACE", "ns"),
            ("VAULT_SKIP_VERIFY", "true"),
        ]);
        let alone = below.clone().build().unwrap().unwrap();
        assert_eq!(alone.server.address, "https://env:8200");
        assert!(!alone.server.verify && alone.server.namespace.as_deref() == Some("ns"));
        assert!(matches!(alone.auth, Auth::Token(_)));
        let file: VaultLayer = serde_json::from_str(
            r#"{"address": "http://file:1/", "verify": true, "auth": {"token_file": "/t"}}"#,
        )
        .unwrap();
        let both = file.over(below).build().unwrap().unwrap();
        assert_eq!(both.server.address, "http://file:1");
        assert!(both.server.verify && both.server.client.is_some());
        assert!(matches!(both.auth, Auth::TokenFile(_)));
    }

    #[test]
    fn a_redirect_leads_to_configured_addresses_only_and_never_away_from_tls() {
        let server = |address: &str, failover_addresses: &[&str]| Server {
            address: address.into(),
            failover_addresses: failover_addresses.iter().map(|one| (*one).into()).collect(),
            ca_file: None,
            client: None,
            namespace: None,
            verify: true,
        };
        let tls = server("https://v1:8200", &["https://v2:8200", "http://v3:8200"]);
        let go = |to: &str| tls.redirect("https://v1:8200", to);
        assert_eq!(go("https://v2:8200/v1/secret/data/x?version=1").unwrap(), "https://v2:8200");
        for (to, word) in [
            ("https://v2:8201/v1/x", "not configured"),
            ("https://elsewhere:8200/v1/x", "not configured"),
            ("https://v2:8200@elsewhere:8200/v1/x", "not configured"),
            ("http://v2:8200/v1/x", "not configured"),
            ("http://v3:8200/v1/x", "plain text"),
            ("/v1/x", "without saying where"),
            ("", "without saying where"),
        ] {
            assert!(go(to).unwrap_err().contains(word), "{to}");
        }
        let plain = server("http://v1:8200", &["http://v2:8200"]);
        assert!(plain.redirect("http://v1:8200", "http://v2:8200/v1/x").is_ok());
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert!(env(&[]).build().unwrap().is_none());
        let lost: VaultLayer = serde_json::from_str(r#"{"auth": {"cert": {}}}"#).unwrap();
        assert!(lost.build().err().unwrap().to_string().contains("names no server"));
        let upper = env(&[("VAULT_ADDR", "HTTPS://Vault.Example:8200/"), ("VAULT_TOKEN", "t")]);
        assert_eq!(upper.build().unwrap().unwrap().server.address, "https://vault.example:8200");
        for (pairs, word) in [
            (&[("VAULT_ADDR", "vault:8200"), ("VAULT_TOKEN", "t")][..], "vault.address"),
            (&[("VAULT_ADDR", "http://u@h:1"), ("VAULT_TOKEN", "t")][..], "vault.address"),
            (&[("VAULT_ADDR", "http://h:1")][..], "no login method"),
            (
                &[("VAULT_ADDR", "http://h:1"), ("VAULT_TOKEN", "t"), ("VAULT_CLIENT_KEY", "/k")][..],
                "go together",
            ),
        ] {
            let error = env(pairs).build().err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
        for (more, word) in [
            (r#""failover_addresses": ["http://h:2"]"#, "all others are https"),
            (r#""failover_addresses": ["h:2"]"#, "vault.address"),
            (r#""run_policies": []"#, "run_policies"),
            (r#""run_policies": ["a", "root"]"#, "never root"),
            (r#""secret_poll_interval": "0s""#, "at least 1s"),
        ] {
            let text = format!(r#"{{"address": "https://h:1", "auth": {{"cert": {{}}}}, {more}}}"#);
            let layer: VaultLayer = serde_json::from_str(&text).unwrap();
            let error = layer.build().err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
        let two: VaultLayer =
            serde_json::from_str(r#"{"address": "http://h:1", "auth": {"token_file": "/t", "cert": {}}}"#)
                .unwrap();
        assert!(two.build().err().unwrap().to_string().contains("exactly one"));
    }
}
