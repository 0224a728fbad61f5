//! The bucket: every request to the object store is made here, each with a deadline and tries again.
//!
//! The SDK signs, builds and parses; its own retries are off, because they cannot see a body that breaks off, a
//! block with a wrong sum or keys that were renewed. One loop here sees all of them, and counts.

pub mod clock;
pub mod connection;
pub mod contents;
pub mod credentials;
pub mod fault;
pub mod objects;
pub mod uploads;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Region, RequestChecksumCalculation, ResponseChecksumValidation};

use crate::error::Error;
use clock::Clock;
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
    /// Proxy: a URL, `none`, or what the environment says.
    pub proxy: Option<String>,
    /// What is reached without the proxy that is said.
    pub no_proxy: Option<String>,
    /// The sums that go with bytes to the server.
    pub checksums: Checksums,
}

/// The sums that go with bytes to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksums {
    /// `x-amz-checksum-crc32c`.
    #[default]
    Crc32c,
    /// `Content-MD5`, for servers that know no other.
    Md5,
    /// None, for servers that refuse both.
    None,
}

/// The bucket.
#[derive(Clone)]
pub struct Store {
    client: Arc<RwLock<Client>>,
    place: Arc<Place>,
    clock: Clock,
    retries: Arc<AtomicU64>,
    /// A request has succeeded: these keys were right once.
    worked: Arc<AtomicBool>,
}

impl Store {
    /// Prepares the client; nothing is sent.
    pub async fn new(place: Place) -> Result<Self, Error> {
        let clock = Clock::default();
        let http = connection::client(&place)?;
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(10)).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(region) = &place.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(folder) = &place.credentials {
            loader = loader.credentials_provider(credentials::Folder::new(folder)?);
        } else if let Some(profile) = &place.profile {
            // Keys in the environment go before the default chain's profile, not before one that was asked for.
            let around = ProviderConfig::without_region()
                .with_http_client(http)
                .with_region(place.region.clone().map(Region::new));
            let said =
                ProfileFileCredentialsProvider::builder().configure(&around).profile_name(profile).build();
            let usual =
                DefaultCredentialsChain::builder().configure(around).profile_name(profile).build().await;
            let chain = CredentialsProviderChain::first_try("profile", said).or_else("default", usual);
            loader = loader.credentials_provider(chain);
        }
        if let Some(profile) = &place.profile {
            loader = loader.profile_name(profile);
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(place.path_style)
            .time_source(clock.clone())
            .interceptor(clock.clone())
            // The sums are our own, made where the bytes are made.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            config = config.region(Region::new("us-east-1"));
        }
        if let Some(endpoint) = &place.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Arc::new(RwLock::new(Client::from_conf(config.build())));
        Ok(Self { client, place: Arc::new(place), clock, retries: Arc::default(), worked: Arc::default() })
    }

    /// The client for one request.
    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on in another region; `false` if it is there already.
    fn move_to(&self, region: &str) -> bool {
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if client.config().region().is_some_and(|known| known.as_ref() == region) {
            return false;
        }
        let config = client.config().to_builder().region(Region::new(region.to_owned()));
        *client = Client::from_conf(config.build());
        true
    }

    /// The same bucket with other sums.
    pub fn with_checksums(&self, checksums: Checksums) -> Self {
        let place = Place { checksums, ..self.place.as_ref().clone() };
        Self { place: Arc::new(place), ..self.clone() }
    }

    /// The server's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where the bucket is.
    pub fn place(&self) -> &Place {
        &self.place
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
                Ok(Ok(done)) => {
                    self.worked.store(true, Ordering::Relaxed);
                    return Ok(done);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::transient(format!("no answer within {} s", time.as_secs_f64())),
            };
            match fault.class {
                Class::Transient | Class::Expired => {}
                Class::Skewed(ahead) => self.clock.sign_ahead(ahead),
                // Keys that are new, or were right a moment ago, may only not be known everywhere yet.
                Class::UnknownKey if self.may_be_renewed() => {}
                Class::Elsewhere(ref region) if self.move_to(region) => {
                    crate::message::complain(&format!(
                        "the bucket {} is in {region}: set `region: {region}`",
                        self.place.bucket
                    ));
                    continue;
                }
                _ => return Err(fault),
            }
            if n >= patience.tries {
                let text = format!("{} (tried {n} times)", fault.text);
                return Err(Fault { text, ..fault });
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Patience::wait(n, fastrand::f64())).await;
        }
        Err(Fault::transient("never tried"))
    }

    /// Whether other keys may come, or these may become known.
    fn may_be_renewed(&self) -> bool {
        match &self.place.credentials {
            Some(folder) => self.worked.load(Ordering::Relaxed) || credentials::young(folder),
            None => self.worked.load(Ordering::Relaxed) && std::env::var_os("AWS_ACCESS_KEY_ID").is_none(),
        }
    }
}
