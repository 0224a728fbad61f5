//! The bucket: every request to the object store is made here, each with a deadline and tries again.
//!
//! The SDK signs, builds and parses; its own retries are off, because they cannot see a body that breaks off, a
//! block with a wrong sum or keys that were renewed. One loop here sees all of them, and counts.

pub mod credentials;
pub mod fault;
pub mod objects;
pub mod uploads;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

use crate::error::Error;
use fault::{Class, Fault, Patience};

/// Where the bucket is and how it is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// URL of an S3-compatible server; AWS when not said.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Profile of the AWS configuration.
    pub profile: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// What all keys begin with: empty, or with a slash at its end.
    pub prefix: String,
    /// The bucket in the path, not in the host name.
    pub path_style: bool,
    /// Authorities to trust, in a file, instead of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// Folder with credentials.
    pub credentials: Option<std::path::PathBuf>,
    /// Tries and time.
    pub patience: Patience,
}

/// The system's clock, corrected by what the server said of it.
#[derive(Clone, Debug, Default)]
struct Clock(Arc<AtomicI64>);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let ahead = self.0.load(Ordering::Relaxed);
        let step = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - step } else { SystemTime::now() + step }
    }
}

/// The bucket.
#[derive(Clone)]
pub struct Store {
    client: Client,
    place: Arc<Place>,
    clock: Clock,
    retries: Arc<AtomicU64>,
}

impl Store {
    /// Prepares the client; nothing is sent.
    pub async fn new(place: Place) -> Result<Self, Error> {
        let clock = Clock::default();
        let mut trust = TrustStore::default();
        if let Some(path) = &place.ca_file {
            let pem =
                std::fs::read(path).map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
            trust = TrustStore::empty().with_pem_certificate(pem);
        }
        let tls = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|error| Error::Config(format!("ca_file: {error}")))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(10)).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(region) = &place.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &place.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(folder) = &place.credentials {
            loader = loader.credentials_provider(credentials::Folder::new(folder)?);
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(place.path_style)
            .time_source(clock.clone())
            // The sums are our own, made where the bytes are made.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            config = config.region(Region::new("us-east-1"));
        }
        if let Some(endpoint) = &place.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(config.build());
        Ok(Self { client, place: Arc::new(place), clock, retries: Arc::default() })
    }

    /// Requests that were tried again so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Tells this store from others in the journal.
    pub fn id(&self) -> String {
        format!(
            "{}/{}/{}",
            self.place.endpoint.as_deref().unwrap_or("aws"),
            self.place.bucket,
            self.place.prefix
        )
    }

    /// TLS holds the bytes together on the way, and a signed header their sum: they need not be hashed once more for
    /// the signature. Without TLS they are.
    fn sealed(&self) -> bool {
        self.place.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https://"))
    }

    /// The full key.
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.place.prefix)
    }

    /// Tries until it succeeds, cannot succeed, or has been tried often enough.
    async fn tried<T, F, W>(&self, bytes: u64, mut work: F) -> Result<T, Fault>
    where
        F: FnMut() -> W,
        W: Future<Output = Result<T, Fault>>,
    {
        let patience = self.place.patience;
        for n in 1.. {
            let time = patience.time(bytes);
            let fault = match tokio::time::timeout(time, work()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::transient(format!("no answer within {} s", time.as_secs_f64())),
            };
            match fault.class {
                Class::Transient | Class::Expired => {}
                Class::Skewed(ahead) => {
                    self.clock.0.store(ahead, Ordering::Relaxed);
                }
                _ => return Err(fault),
            }
            if n >= patience.tries {
                let text = format!("{} (tried {n} times)", fault.text);
                return Err(Fault { text, ..fault });
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Patience::wait(n, random())).await;
        }
        Err(Fault::transient("never tried"))
    }
}

/// A number between 0 and 1 that differs between hosts and moments; nothing rests on how good it is.
pub fn random() -> f64 {
    f64::from(ulid::Ulid::generate().random() as u32) / f64::from(u32::MAX)
}
