//! The way to the server: whom to trust, and through which proxy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector, http_client_fn};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Place;
use crate::error::Error;

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

/// Whom to trust.
fn trust(place: &Place) -> Result<TrustStore, Error> {
    let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let (what, path) = match (&place.ca_file, &bundle) {
        (Some(path), _) => ("ca_file", path),
        (None, Some(path)) => ("AWS_CA_BUNDLE", path),
        (None, None) => return Ok(TrustStore::default()),
    };
    Ok(TrustStore::empty().with_pem_certificate(authorities(what, path)?))
}

/// Through which proxy: that of the configuration, `none`, or the environment's.
fn proxy(place: &Place) -> Result<ProxyConfig, Error> {
    match place.proxy.as_deref() {
        None => Ok(ProxyConfig::from_env()),
        Some("none") => Ok(ProxyConfig::disabled()),
        Some(url) => {
            let config = ProxyConfig::all(url).map_err(|error| Error::Config(format!("proxy: {error}")))?;
            Ok(match &place.no_proxy {
                Some(rules) => config.no_proxy(rules),
                None => config,
            })
        }
    }
}

/// The client of HTTP for all requests.
///
/// # Errors
/// [`Error::Config`], with the key that is wrong.
pub fn client(place: &Place) -> Result<SharedHttpClient, Error> {
    let tls = TlsContext::builder()
        .with_trust_store(trust(place)?)
        .build()
        .map_err(|error| Error::Config(format!("ca_file: {error}")))?;
    let proxy = proxy(place)?;
    // One for the whole program: it holds the pool of connections.
    let one: Arc<OnceLock<SharedHttpConnector>> = Arc::default();
    Ok(http_client_fn(move |settings, components| {
        let build = || {
            let mut builder = Connector::builder().proxy_config(proxy.clone());
            builder.set_connector_settings(Some(settings.clone()));
            builder.set_sleep_impl(components.sleep_impl());
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone());
            SharedHttpConnector::new(builder.build())
        };
        one.get_or_init(build).clone()
    }))
}
