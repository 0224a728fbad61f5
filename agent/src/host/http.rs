//! The HTTP client of both neighbours, Consul and Vault: no default that reaches outside, and TLS from files.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity, redirect};
use rustls::RootCertStore;

use super::tls::pem;

/// Whom a client trusts, and by what it is known.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The authorities in PEM form; `None`: the system's.
    pub ca_file: Option<&'a Path>,
    /// The client's certificate and its key; `None`: it has none.
    pub client: Option<(&'a Path, &'a Path)>,
    /// Whether the server's certificate is verified.
    pub verify: bool,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file with something else in it.
    #[error("{} does not hold {what} in PEM form", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The TLS library refuses what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A client without proxy, redirect and retry, with HTTP/1 alone. `files`: `None` where no address begins with `https:`;
/// then nothing is paid for TLS, whose authorities of the system alone are half a megabyte.
///
/// # Errors
/// Where a file cannot be read or holds something else.
pub fn client(files: Option<TlsFiles<'_>>) -> Result<ClientBuilder, ClientError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("hostler/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only();
    match files {
        Some(files) => with_tls(builder, files),
        None => {
            let provider = rustls::crypto::ring::default_provider();
            let none = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            Ok(builder.tls_backend_preconfigured(none))
        }
    }
}

fn with_tls(mut builder: ClientBuilder, files: TlsFiles<'_>) -> Result<ClientBuilder, ClientError> {
    // An error only says that the process has one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |path: &Path| pem(path).map_err(|source| ClientError::File { path: path.to_owned(), source });
    let bad = |path: &Path, what| ClientError::Pem { path: path.to_owned(), what };
    if let Some(path) = files.ca_file {
        let what = "certificates";
        let authorities = Certificate::from_pem_bundle(&read(path)?).map_err(|_| bad(path, what))?;
        if authorities.is_empty() {
            return Err(bad(path, what));
        }
        builder = builder.tls_certs_only(authorities);
    }
    if let Some((cert, key)) = files.client {
        let mut both = read(key)?;
        both.push(b'\n');
        both.extend_from_slice(&read(cert)?);
        let what = "a certificate that goes with its key";
        builder = builder.identity(Identity::from_pem(&both).map_err(|_| bad(cert, what))?);
    }
    if !files.verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    Ok(builder)
}
