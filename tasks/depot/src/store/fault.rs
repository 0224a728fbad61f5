//! What can go wrong with a request, in the few classes that are branched on, and how long it is tried again.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::Error;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let cure = match self.class {
            Class::Expired => ": renew the credentials",
            Class::Skewed(_) => ": set this host's clock",
            _ => "",
        };
        Error::Store(format!("{what}: {}{cure}", self.text))
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
        _ => match status {
            404 => Class::Missing,
            408 | 429 | 500 | 502..=504 => Class::Transient,
            412 => Class::Exists,
            501 => Class::Unsupported,
            _ => Class::Fatal,
        },
    }
}

/// How far the server's clock is ahead, by the date of its answer.
fn ahead(response: &HttpResponse) -> Option<i64> {
    let text = response.headers().get("date")?;
    let theirs =
        aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::HttpDate).ok()?;
    Some(theirs.secs() - jiff::Timestamp::now().as_second())
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
                    class = Class::Skewed(ahead(service.raw()).unwrap_or_default());
                }
                let said = service.err().message().unwrap_or_default();
                let code = if code.is_empty() { NO_CODE } else { code };
                Self { class, text: one_line(&format!("status {status}, {code} {said}")) }
            }
            SdkError::ConstructionFailure(_) => {
                Self { class: Class::Fatal, text: one_line(&DisplayErrorContext(&error).to_string()) }
            }
            // That there are no credentials is what an operator meets first; waiting brings none.
            SdkError::DispatchFailure(_) if without_credentials(&error) => {
                Self { class: Class::Fatal, text: one_line(&chain(&error)) }
            }
            _ => Self::transient(one_line(&chain(&error))),
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

/// The innermost causes say most; the outer ones are names of the SDK's stages.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.dedup();
    texts.split_off(texts.len().saturating_sub(3)).join(": ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
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
const SLOWEST: u64 = 128 * 1024;
/// First and longest wait between tries.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(20);

impl Patience {
    /// Time for one try that moves so many bytes.
    pub fn time(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes / SLOWEST)
    }

    /// The wait after try `n`, counted from 1; `random` between 0 and 1 spreads hosts that failed together.
    pub fn wait(n: u32, random: f64) -> Duration {
        let full = FIRST.saturating_mul(1 << n.saturating_sub(1).min(10)).min(LONGEST);
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
        assert_eq!(class("AccessDenied", 403), Class::Fatal);
        assert_eq!(class("NoSuchBucket", 404), Class::Fatal);
        assert_eq!(class("InvalidObjectState", 403), Class::Cold);
        assert_eq!(class("", 404), Class::Missing);
    }
}
