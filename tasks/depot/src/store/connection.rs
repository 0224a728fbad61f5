//! The way to the server: which authorities to trust, and which proxy to use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Place;
use crate::error::Error;

/// The services that give an instance or a container its credentials: no proxy reaches them.
const LINK_LOCAL: &str = "169.254.0.0/16,fd00:ec2::/32";

/// Reads a file of authorities, and refuses one that holds none.
fn authorities(what: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::Config(format!("{what} {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut count = 0;
    for one in CertificateDer::pem_slice_iter(&pem) {
        one.map_err(|error| wrong(format!("a certificate in it cannot be read: {error}")))?;
        count += 1;
    }
    if count == 0 {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    Ok(pem)
}

/// The authorities to trust.
fn trust(place: &Place) -> Result<TrustStore, Error> {
    let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let (what, path) = match (&place.ca_file, &bundle) {
        (Some(path), _) => ("ca_file", path),
        (None, Some(path)) => ("AWS_CA_BUNDLE", path),
        (None, None) => return Ok(TrustStore::default()),
    };
    Ok(TrustStore::empty().with_pem_certificate(authorities(what, path)?))
}

/// The proxies of requests to `http://` and to `https://`.
#[derive(Clone)]
struct Proxies {
    http: ProxyConfig,
    https: ProxyConfig,
}

impl Proxies {
    /// Those of the configuration, or of the environment.
    fn new(place: &Place, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let variable = |upper: &'static str| {
            let lower = upper.to_ascii_lowercase();
            let value = environment(upper).filter(|text| !text.trim().is_empty());
            value.or_else(|| environment(&lower).filter(|text| !text.trim().is_empty()))
        };
        match place.proxy.as_deref() {
            Some("none") => Ok(Self { http: ProxyConfig::disabled(), https: ProxyConfig::disabled() }),
            Some(url) => {
                let one = proxy("proxy", url, place.no_proxy.as_deref().unwrap_or_default())?;
                Ok(Self { http: one.clone(), https: one })
            }
            None => {
                let direct = place.no_proxy.clone().or_else(|| variable("NO_PROXY")).unwrap_or_default();
                let of = |own: &'static str| {
                    let named = [own, "ALL_PROXY"].into_iter().find_map(|name| Some((name, variable(name)?)));
                    named.map_or(Ok(ProxyConfig::disabled()), |(name, url)| proxy(name, &url, &direct))
                };
                Ok(Self { http: of("HTTP_PROXY")?, https: of("HTTPS_PROXY")? })
            }
        }
    }
}

/// One proxy. Its URL may hold a password: no error repeats it.
fn proxy(what: &str, url: &str, direct: &str) -> Result<ProxyConfig, Error> {
    let url = url.trim();
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Error::Config(format!(
            "{what}: only HTTP proxies are supported: write http://HOST:PORT"
        )));
    }
    let config = ProxyConfig::all(url).map_err(|_| {
        Error::Config(format!("{what}: this is not the URL of a proxy: write http://HOST:PORT"))
    })?;
    Ok(config.no_proxy(exceptions(direct)))
}

/// The hosts that are reached without the proxy, as the client wants them: with `*.` as `.`, and without ports.
fn exceptions(direct: &str) -> String {
    let one = |text: &str| {
        let text = text.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(text);
        match text.split_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                host.to_owned()
            }
            _ => text.to_owned(),
        }
    };
    let said = direct.split([',', ' ', '\t']).filter(|text| !text.is_empty()).map(one);
    said.chain([LINK_LOCAL.to_owned()]).collect::<Vec<_>>().join(",")
}

/// A connector for each scheme, because each has a proxy of its own. Each holds a pool of connections, and is built
/// when it is first used.
struct ByScheme<B> {
    proxies: Proxies,
    build: B,
    http: OnceLock<SharedHttpConnector>,
    https: OnceLock<SharedHttpConnector>,
}

impl<B> std::fmt::Debug for ByScheme<B> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ByScheme")
    }
}

impl<B: Fn(&ProxyConfig) -> SharedHttpConnector + Send + Sync> HttpConnector for ByScheme<B> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (one, proxy) = if request.uri().starts_with("https:") {
            (&self.https, &self.proxies.https)
        } else {
            (&self.http, &self.proxies.http)
        };
        one.get_or_init(|| (self.build)(proxy)).call(request)
    }
}

/// The client of HTTP for all requests.
///
/// # Errors
/// [`Error::Config`], with the key or the variable that is wrong.
pub fn client(place: &Place) -> Result<SharedHttpClient, Error> {
    let tls = TlsContext::builder()
        .with_trust_store(trust(place)?)
        .build()
        .map_err(|error| Error::Config(format!("ca_file: {error}")))?;
    let proxies = Proxies::new(place, |name| std::env::var(name).ok())?;
    // One for the whole program.
    let shared: Arc<OnceLock<SharedHttpConnector>> = Arc::default();
    Ok(http_client_fn(move |settings, components| {
        let (settings, sleep, tls) = (settings.clone(), components.sleep_impl(), tls.clone());
        let build = move |proxy: &ProxyConfig| {
            let mut builder = Connector::builder().proxy_config(proxy.clone());
            builder.set_connector_settings(Some(settings.clone()));
            builder.set_sleep_impl(sleep.clone());
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone());
            SharedHttpConnector::new(builder.build())
        };
        let new = || {
            let proxies = proxies.clone();
            SharedHttpConnector::new(ByScheme {
                proxies,
                build,
                http: OnceLock::new(),
                https: OnceLock::new(),
            })
        };
        shared.get_or_init(new).clone()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_understood_in_each_usual_spelling() {
        for (said, wanted) in [
            ("", ""),
            ("localhost,.example.com", "localhost,.example.com,"),
            ("*.example.com, s3.local:9000", ".example.com,s3.local,"),
            ("* 10.0.0.0/8", "*,10.0.0.0/8,"),
            ("fd00::1,[fd00::2]", "fd00::1,[fd00::2],"),
        ] {
            assert_eq!(exceptions(said), format!("{wanted}{LINK_LOCAL}"), "{said}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_by_its_name_without_its_password() {
        for (url, why) in [
            ("socks5://user:hush@proxy:1080", "only HTTP proxies"),
            ("ftp://user:hush@proxy", "only HTTP proxies"),
            ("http://user:hush@", "not the URL of a proxy"),
            ("no url", "not the URL of a proxy"),
        ] {
            let error = proxy("HTTPS_PROXY", url, "").unwrap_err().to_string();
            assert!(error.starts_with("HTTPS_PROXY: ") && error.contains(why), "{url}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
        for url in ["proxy:3128", "http://proxy:3128", "https://user:hush@proxy", " http://proxy/ "] {
            assert!(proxy("proxy", url, "").is_ok(), "{url}");
        }
    }
}
