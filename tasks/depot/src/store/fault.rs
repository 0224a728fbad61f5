//! What can go wrong with a request, in the few classes that are branched on, and how long it is tried again.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::Error;

/// The class of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same request may succeed in a moment.
    Transient,
    /// The credentials are over; a file or the instance's role may bring new ones.
    Expired,
    /// The clocks differ by so many seconds: the server's is ahead.
    Skewed(i64),
    /// There is no such object or upload.
    Missing,
    /// The object is there already.
    Exists,
    /// The object is in cold storage.
    Cold,
    /// The server cannot do this at all.
    Unsupported,
    /// The server does not know the key's id: a wrong one, or one that is too new.
    UnknownKey,
    /// These keys may not do this, or something forbids it.
    Denied,
    /// The bucket is in this region.
    Elsewhere(String),
    /// The way to the server is configured wrongly: no server at that place will ever answer.
    Config,
    /// Anything else: trying again would not help.
    Fatal,
}

/// One failed request.
#[derive(Debug)]
pub struct Fault {
    /// What to do about it.
    pub class: Class,
    /// What was said, in one line.
    pub text: String,
}

/// Stands where the server gave no reason, as it must in the answer to a HEAD.
pub const NO_CODE: &str = "no code";

impl Fault {
    /// A failure that is tried again.
    pub fn transient(text: impl Into<String>) -> Self {
        Self { class: Class::Transient, text: text.into() }
    }

    /// As the error of a command, with what was asked.
    pub fn error(self, what: &str) -> Error {
        let fix = match &self.class {
            Class::Expired => ": renew the credentials".to_owned(),
            Class::Skewed(_) => ": set this host's clock".to_owned(),
            Class::UnknownKey => ": the access key's id is unknown there".to_owned(),
            Class::Denied if self.text.contains("SignatureDoesNotMatch") => {
                ": the secret access key is not that of the key's id".to_owned()
            }
            Class::Denied => ": the keys lack a permission; `hostler-depot check` names it".to_owned(),
            Class::Elsewhere(region) => {
                let text =
                    format!("{what}: the bucket is in {region}: set `region: {region}` ({})", self.text);
                return Error::Config(text);
            }
            Class::Config => return Error::Config(format!("{what}: {}", self.text)),
            Class::Fatal if self.text.starts_with("status 407") => {
                return Error::Config(format!(
                    "{what}: the proxy requires a user and a password: put them into its URL ({})",
                    self.text
                ));
            }
            Class::Fatal if self.text.contains("NoSuchBucket") => {
                ": create it, or set another `bucket`".to_owned()
            }
            _ => String::new(),
        };
        Error::Store(format!("{what}: {}{fix}", self.text))
    }
}

fn class(code: &str, status: u16) -> Class {
    match code {
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Class::Expired,
        "RequestTimeTooSkewed" => Class::Skewed(0),
        "NoSuchKey" | "NoSuchUpload" | "NotFound" | "NoSuchVersion" => Class::Missing,
        "PreconditionFailed" => Class::Exists,
        "InvalidObjectState" => Class::Cold,
        "NotImplemented" | "MethodNotAllowed" => Class::Unsupported,
        // The bytes were changed on the way: they are still here.
        "BadDigest"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "RequestTimeout"
        | "InternalError"
        | "SlowDown"
        | "ServiceUnavailable"
        | "OperationAborted"
        | "ConditionalRequestConflict" => Class::Transient,
        "NoSuchBucket" => Class::Fatal,
        "InvalidAccessKeyId" => Class::UnknownKey,
        "AccessDenied" | "SignatureDoesNotMatch" | "AllAccessDisabled" => Class::Denied,
        _ => match status {
            401 | 403 => Class::Denied,
            404 => Class::Missing,
            408 | 429 | 500 | 502..=504 => Class::Transient,
            412 => Class::Exists,
            501 => Class::Unsupported,
            _ => Class::Fatal,
        },
    }
}

/// The region that a redirect names; AWS says it in a header, and in words where the signature was for another.
fn region(response: &HttpResponse, code: &str, said: &str) -> Option<String> {
    let moved = matches!(response.status().as_u16(), 301 | 307 | 308)
        || matches!(
            code,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
        );
    if !moved {
        return None;
    }
    let named = response.headers().get("x-amz-bucket-region").or_else(|| {
        // "the region 'us-east-1' is wrong; expecting 'eu-central-1'"
        said.split_once("expecting '").and_then(|(_, rest)| rest.split_once('\'')).map(|(region, _)| region)
    })?;
    let plain = named.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && !named.is_empty() && named.len() <= 64).then(|| named.to_owned())
}

/// What a proxy on the way did, in words.
fn proxy(text: &str) -> Option<&'static str> {
    let known = [
        ("failed to create underlying connection", "the proxy cannot be reached"),
        ("tunnel error", "the proxy does not open the way to the server"),
    ];
    known.iter().find(|(word, _)| text.contains("tunnel error") && text.contains(word)).map(|(_, what)| *what)
}

/// Words for what no later try can fix: certificates, and a scheme that the server does not speak.
fn wrong_way(text: &str) -> Option<String> {
    if text.contains("proxy authorization required") {
        return Some("the proxy requires a user and a password: put them into its URL".to_owned());
    }
    let known = [
        (
            "UnknownIssuer",
            "its certificate is from an unknown authority: set `ca_file` to the authority's certificate",
        ),
        (
            "BadSignature",
            "its certificate is from another authority of the same name: set `ca_file` to the authority's certificate",
        ),
        (
            "CaUsedAsEndEntity",
            "it uses an authority's certificate as its own: give it one that the authority has signed, and set `ca_file` to the authority's",
        ),
        ("NotValidForName", "its certificate is for another name: use one of its names in `endpoint`"),
        (
            "certificate not valid for name",
            "its certificate is for another name: use one of its names in `endpoint`",
        ),
        ("NotValidYet", "its certificate is not valid yet, or this host's clock is wrong"),
        ("not valid yet", "its certificate is not valid yet, or this host's clock is wrong"),
        ("Expired", "its certificate has expired, or this host's clock is wrong"),
        ("expired", "its certificate has expired, or this host's clock is wrong"),
        ("invalid peer certificate", "its certificate cannot be trusted: see `ca_file`"),
        (
            "InvalidContentType",
            "it does not speak TLS on this port: use `http://` in `endpoint`, or another port",
        ),
        (
            "received corrupt message",
            "it does not speak TLS on this port: use `http://` in `endpoint`, or another port",
        ),
        (
            "invalid HTTP version parsed",
            "it does not speak plain HTTP on this port: use `https://` in `endpoint`, or another port",
        ),
        (
            "no native root CA",
            "this host has no certificate authorities: install ca-certificates, or set `ca_file`",
        ),
    ];
    let certificate = text.contains("certificate") || text.contains("Cert");
    known
        .iter()
        .find(|(word, _)| text.contains(word) && (certificate || !word.to_lowercase().starts_with("expired")))
        .map(|(_, fix)| format!("the server was reached, but {fix} ({text})"))
}

impl<E> From<SdkError<E, HttpResponse>> for Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code().unwrap_or_default();
                let mut class = class(code, status);
                if class == Class::Skewed(0) {
                    class = Class::Skewed(super::clock::ahead(service.raw()).unwrap_or_default());
                }
                let said = service.err().message().unwrap_or_default();
                if let Some(region) = region(service.raw(), code, said) {
                    class = Class::Elsewhere(region);
                }
                let body = service.raw().body().bytes().unwrap_or_default();
                if status == 400 && code.is_empty() && String::from_utf8_lossy(body).contains("HTTPS") {
                    let text =
                        "the server does not speak plain HTTP on this port: use `https://` in `endpoint`";
                    return Self { class: Class::Config, text: text.to_owned() };
                }
                let code = if code.is_empty() { NO_CODE } else { code };
                Self { class, text: one_line(&format!("status {status}, {code} {said}")) }
            }
            SdkError::ConstructionFailure(_) => {
                Self { class: Class::Fatal, text: one_line(&DisplayErrorContext(&error).to_string()) }
            }
            // That there are no credentials is what an operator meets first; waiting brings none.
            SdkError::DispatchFailure(_) if without_credentials(&error) => {
                let text = format!(
                    "no credentials in the environment, a profile, `credentials_dir` or the metadata service: {}",
                    chain(&error)
                );
                Self { class: Class::Fatal, text: one_line(&text) }
            }
            _ => match wrong_way(&whole(&error)) {
                Some(text) => Self { class: Class::Config, text: one_line(&text) },
                None => match proxy(&whole(&error)) {
                    Some(what) => Self::transient(one_line(&format!("{what}: {}", chain(&error)))),
                    None => Self::transient(one_line(&chain(&error))),
                },
            },
        }
    }
}

fn without_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            return !matches!(error, CredentialsError::ProviderTimedOut(_));
        }
        next = error.source();
    }
    false
}

/// All causes.
fn whole(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}

/// The innermost causes say most; the outer ones are names of the SDK's stages.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = causes(error);
    texts.split_off(texts.len().saturating_sub(3)).join(": ")
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.dedup();
    texts
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(1000).collect()
}

/// How often and how long a request is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries in all.
    pub tries: u32,
    /// Time of one try, without its bytes.
    pub base: Duration,
}

/// The slowest rate that a try is given time for: below it, a retry with the same fate is likely anyhow.
const MIN_RATE: u64 = 128 * 1024;
/// First and longest wait between tries.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(20);

impl Patience {
    /// Time for one try that moves so many bytes.
    pub fn time(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes / MIN_RATE)
    }

    /// The wait after try `n`, counted from 1; `random` between 0 and 1 spreads hosts that failed together.
    pub fn wait(n: u32, random: f64) -> Duration {
        let full = FIRST_BACKOFF.saturating_mul(1 << n.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_waits_double_and_are_bounded() {
        let waits: Vec<u128> = (1..=9).map(|n| Patience::wait(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 20_000, 20_000]);
        assert_eq!(Patience::wait(1, 0.0).as_millis(), 100);
    }

    #[test]
    fn codes_are_told_apart() {
        assert_eq!(class("SlowDown", 503), Class::Transient);
        assert_eq!(class("", 500), Class::Transient);
        assert_eq!(class("ExpiredToken", 400), Class::Expired);
        assert_eq!(class("AccessDenied", 403), Class::Denied);
        assert_eq!(class("InvalidAccessKeyId", 403), Class::UnknownKey);
        assert_eq!(class("NoSuchBucket", 404), Class::Fatal);
        assert_eq!(class("InvalidObjectState", 403), Class::Cold);
        assert_eq!(class("", 404), Class::Missing);
    }
}
