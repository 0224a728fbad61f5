//! Where Consul is and how it is spoken to: the layers that settings come from, and the result.
//!
//! [`PartialConsul`] is one source with gaps: the configuration file, or the environment as Consul's own tools
//! read it. [`PartialConsul::over`] puts one above the other, [`PartialConsul::settle`] fills what is left.
//! Nothing here reads a file or the environment by itself.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::domain::secret::Secret;
use crate::host::http::ClientError;

/// Where Consul's own tools look when nothing is said.
const DEFAULT_HOST: &str = "127.0.0.1:8500";

/// The address of a Consul agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, plain or with TLS.
    Tcp {
        /// With TLS.
        tls: bool,
        /// `host:port`.
        host: String,
    },
    /// A socket file.
    Unix(PathBuf),
}

impl Address {
    /// The part of a URL before the path.
    pub(crate) fn base(&self) -> String {
        match self {
            Self::Tcp { tls, host } => format!("{}://{host}", if *tls { "https" } else { "http" }),
            Self::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { .. } => f.write_str(&self.base()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What is wrong with the settings for Consul, and where.
#[derive(Debug, thiserror::Error)]
pub enum BadConsulSettings {
    /// Not an address.
    #[error(
        "{text:?} is not an address of Consul: {why}; write http://HOST:PORT, https://HOST:PORT or unix:///PATH"
    )]
    Address {
        /// As written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A variable that wants true or false.
    #[error("{name} is {text:?}; write true or false")]
    Flag {
        /// The variable.
        name: &'static str,
        /// As written.
        text: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("a client certificate and its key go together; only the {0} is given")]
    Pair(&'static str),
    /// The token cannot be sent.
    #[error("the token for Consul holds a newline or another character that no token has; write it anew")]
    Token,
    /// A file without a token in it.
    #[error("the token file {} is empty: write the token into it", path.display())]
    EmptyToken {
        /// Which.
        path: PathBuf,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate that is of no use.
    #[error(transparent)]
    Http(#[from] ClientError),
    /// The TLS library refuses what it was given.
    #[error("cannot set up the client for Consul: {0}")]
    Client(String),
}

impl FromStr for Address {
    type Err = BadConsulSettings;

    fn from_str(text: &str) -> Result<Self, BadConsulSettings> {
        let bad = |why| BadConsulSettings::Address { text: text.chars().take(100).collect(), why };
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let tls = match scheme {
            "http" => false,
            "https" => true,
            "unix" if rest.starts_with('/') => return Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => return Err(bad("the path of a socket starts with '/'")),
            _ => return Err(bad("its scheme is not known")),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        if host.contains(['/', '?', '#', '@']) || host.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(bad("only host and port may follow the scheme"));
        }
        let base = format!("{scheme}://{host}");
        if reqwest::Url::parse(&base).is_err() {
            return Err(bad("it is not a host and a port"));
        }
        Ok(Self::Tcp { tls, host: host.to_owned() })
    }
}

/// One source of settings: what it does not say is `None`.
#[derive(Clone, Default, PartialEq)]
pub struct PartialConsul {
    /// Where the agent is.
    pub address: Option<Address>,
    /// The token itself.
    pub token: Option<Secret>,
    /// The file that holds the token; stronger than `token`, as with Consul's own tools.
    pub token_file: Option<PathBuf>,
    /// Where a later token stands, if `token_file` is a copy that is made once.
    pub later_token_file: Option<PathBuf>,
    /// The authorities that sign the server's certificate, PEM; the system's own if missing.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
    /// False: the server's certificate is not verified.
    pub verify: Option<bool>,
    /// The datacenter; the agent's own if missing.
    pub datacenter: Option<String>,
    /// The namespace (Consul Enterprise).
    pub namespace: Option<String>,
}

impl PartialConsul {
    /// The environment as Consul's own tools read it; an empty variable counts as unset.
    pub fn from_env(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, BadConsulSettings> {
        let text = |name: &str| var(name).filter(|value| !value.is_empty());
        let flag = |name: &'static str| match text(name) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
                _ => Err(BadConsulSettings::Flag { name, text: value.chars().take(40).collect() }),
            },
        };
        let ssl = flag("CONSUL_HTTP_SSL")?.unwrap_or(false);
        let mut address = text("CONSUL_HTTP_ADDR").map(|value| value.parse()).transpose()?;
        if ssl {
            // TLS that was asked for is never taken back by an address that says "http".
            match address.get_or_insert(Address::Tcp { tls: true, host: DEFAULT_HOST.to_owned() }) {
                Address::Tcp { tls, .. } => *tls = true,
                Address::Unix(_) => {}
            }
        }
        Ok(Self {
            address,
            token: text("CONSUL_HTTP_TOKEN").map(Secret::new),
            token_file: text("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from),
            later_token_file: None,
            ca_file: text("CONSUL_CACERT").map(PathBuf::from),
            client_cert: text("CONSUL_CLIENT_CERT").map(PathBuf::from),
            client_key: text("CONSUL_CLIENT_KEY").map(PathBuf::from),
            verify: flag("CONSUL_HTTP_SSL_VERIFY")?,
            datacenter: None,
            namespace: text("CONSUL_NAMESPACE"),
        })
    }

    /// The variables of Consul's own tools that are set and not read here, each with what to write in its place.
    pub fn unread(var: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, &'static str)> {
        const UNREAD: [(&str, &str); 4] = [
            ("CONSUL_CAPATH", "name one file with all authorities: CONSUL_CACERT, or `consul.ca_file`"),
            ("CONSUL_TLS_SERVER_NAME", "use an address whose host is in the server's certificate"),
            ("CONSUL_HTTP_AUTH", "use a token of Consul; basic authentication is not supported"),
            ("CONSUL_PARTITION", "use an agent of that partition; partitions are not supported"),
        ];
        UNREAD.into_iter().filter(|(name, _)| var(name).is_some_and(|value| !value.is_empty())).collect()
    }

    /// This layer above `lower`: what it leaves open, `lower` says.
    ///
    /// Token and token file are one thing, and so are certificate and key: a layer that names a part of a
    /// pair hides the whole pair below it.
    pub fn over(self, lower: Self) -> Self {
        let (token, token_file, later_token_file) = if self.token.is_some() || self.token_file.is_some() {
            (self.token, self.token_file, self.later_token_file)
        } else {
            (lower.token, lower.token_file, lower.later_token_file)
        };
        let (client_cert, client_key) = if self.client_cert.is_some() || self.client_key.is_some() {
            (self.client_cert, self.client_key)
        } else {
            (lower.client_cert, lower.client_key)
        };
        Self {
            address: self.address.or(lower.address),
            token,
            token_file,
            later_token_file,
            ca_file: self.ca_file.or(lower.ca_file),
            client_cert,
            client_key,
            verify: self.verify.or(lower.verify),
            datacenter: self.datacenter.or(lower.datacenter),
            namespace: self.namespace.or(lower.namespace),
        }
    }

    /// The files that the token comes from.
    pub fn token_files(&self) -> Vec<PathBuf> {
        self.token_file.iter().chain(&self.later_token_file).cloned().collect()
    }

    /// This layer without its token: what a client cannot change while it works.
    pub fn without_token(&self) -> Self {
        Self { token: None, token_file: None, later_token_file: None, ..self.clone() }
    }

    /// The settings, with Consul's own defaults for what no layer said.
    pub fn build(self) -> Result<ConsulSettings, BadConsulSettings> {
        let token_files = self.token_files();
        let default = Address::Tcp { tls: false, host: DEFAULT_HOST.to_owned() };
        let client = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some(ClientCert { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(BadConsulSettings::Pair("certificate")),
            (None, Some(_)) => return Err(BadConsulSettings::Pair("key")),
        };
        Ok(ConsulSettings {
            address: self.address.unwrap_or(default),
            token: self.token,
            token_files,
            ca_file: self.ca_file,
            client,
            verify: self.verify.unwrap_or(true),
            datacenter: self.datacenter,
            namespace: self.namespace,
            timeouts: Timeouts::default(),
        })
    }
}

/// A client certificate with its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// The certificate and those that lead to its authority.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How long the client waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For a whole request that answers at once.
    pub request: Duration,
    /// How long the server holds a blocking query; whole seconds. It stretches it by up to a sixteenth.
    pub wait: Duration,
    /// How much later than that the answer may come.
    pub margin: Duration,
}

impl Default for Timeouts {
    /// A minute of waiting: an index above the present one hides changes for that long at most.
    /// Request and margin are longer than the 7 s for which a server looks for a leader before it says
    /// that there is none, so that the message is "no leader" and not "no answer".
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(15),
            wait: Duration::from_secs(60),
            margin: Duration::from_secs(10),
        }
    }
}

/// Everything that the client for Consul needs to know; a token that is not trimmed is trimmed.
pub struct ConsulSettings {
    /// Where the agent is.
    pub address: Address,
    /// The token, where no file holds one.
    pub token: Option<Secret>,
    /// Where the token comes from, whenever one of them changes; of several the one that was changed last.
    pub token_files: Vec<PathBuf>,
    /// The authorities that sign the server's certificate, PEM; the system's own if missing.
    pub ca_file: Option<PathBuf>,
    /// The client certificate.
    pub client: Option<ClientCert>,
    /// False: the server's certificate is not verified.
    pub verify: bool,
    /// The datacenter; the agent's own if missing.
    pub datacenter: Option<String>,
    /// The namespace (Consul Enterprise).
    pub namespace: Option<String>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Result<PartialConsul, BadConsulSettings> {
        PartialConsul::from_env(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn addresses_are_read_as_consuls_own_tools_read_them() {
        let table = [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("http://consul:8500/", "http://consul:8500"),
            ("https://[::1]:8501", "https://[::1]:8501"),
            ("unix:///run/consul/http.sock", "unix:///run/consul/http.sock"),
        ];
        for (text, shown) in table {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", "https://", "unix://a", "ftp://x", "http://a/b", "http://u@h", "a b", "h:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_says_what_consuls_own_tools_understand() {
        let table: [(&[(&str, &str)], &str); 5] = [
            (&[], "http://127.0.0.1:8500"),
            (&[("CONSUL_HTTP_ADDR", "")], "http://127.0.0.1:8500"),
            (&[("CONSUL_HTTP_SSL", "true")], "https://127.0.0.1:8500"),
            (&[("CONSUL_HTTP_SSL", "1"), ("CONSUL_HTTP_ADDR", "http://c:1")], "https://c:1"),
            (&[("CONSUL_HTTP_SSL", "1"), ("CONSUL_HTTP_ADDR", "unix:///s")], "unix:///s"),
        ];
        for (pairs, shown) in table {
            assert_eq!(env(pairs).unwrap().build().unwrap().address.to_string(), shown, "{pairs:?}");
        }
        assert!(!env(&[("CONSUL_HTTP_SSL_VERIFY", "false")]).unwrap().build().unwrap().verify);
        assert!(env(&[("CONSUL_HTTP_SSL_VERIFY", "no")]).is_err());
        let half = env(&[("CONSUL_CLIENT_CERT", "/c")]).unwrap().build();
        assert!(matches!(half, Err(BadConsulSettings::Pair("certificate"))));
    }

    #[test]
    fn what_is_set_and_not_read_is_named() {
        let set = |name: &str| match name {
            "CONSUL_CAPATH" | "CONSUL_HTTP_AUTH" => Some("x".to_owned()),
            "CONSUL_PARTITION" => Some(String::new()),
            _ => None,
        };
        let names: Vec<&str> = PartialConsul::unread(&set).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["CONSUL_CAPATH", "CONSUL_HTTP_AUTH"]);
    }

    #[test]
    fn a_layer_hides_the_whole_pair_below_it() {
        let below = env(&[
            ("CONSUL_HTTP_TOKEN", "from-env"),
            ("CONSUL_CLIENT_CERT", "/c"),
            ("CONSUL_CLIENT_KEY", "/k"),
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_NAMESPACE", "ns"),
        ])
        .unwrap();
        let file = PartialConsul {
            address: Some("http://c:1".parse().unwrap()),
            token_file: Some("/t".into()),
            ..PartialConsul::default()
        };
        let settled = file.over(below).build().unwrap();
        assert!(settled.token.is_none());
        assert_eq!(settled.token_files, [PathBuf::from("/t")]);
        // The file's address stands as it is written there.
        assert_eq!(settled.address.to_string(), "http://c:1");
        assert_eq!(settled.namespace.as_deref(), Some("ns"));
        assert!(settled.client.is_some());
    }
}
