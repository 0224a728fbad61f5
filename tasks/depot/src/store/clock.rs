//! The server's clock, as the `Date` of its answers tells it.
//!
//! What several hosts share is dated and aged by one clock only: the server's. A host whose own clock differs from it
//! by more than [`MAX_SKEW`] must not decide by its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use jiff::{SignedDuration, Timestamp};

use crate::error::Error;

/// Clocks that differ by more than this differ; what is less is the network and the seconds of `Date`.
pub const MAX_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// No answer had a date yet.
const UNKNOWN: i64 = i64::MIN;

/// How far the server's clock is ahead of this host's, in seconds.
#[derive(Clone, Debug)]
pub struct Clock {
    /// By the last answer.
    seen: Arc<AtomicI64>,
    /// For signatures: 0 until the server refuses one because of its time.
    signing: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { seen: Arc::new(AtomicI64::new(UNKNOWN)), signing: Arc::default() }
    }
}

/// How far the server's clock is ahead, by the date of its answer.
pub(super) fn ahead(response: &HttpResponse) -> Option<i64> {
    let text = response.headers().get("date")?;
    let theirs =
        aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::HttpDate).ok()?;
    Some(theirs.secs().saturating_sub(Timestamp::now().as_second()))
}

impl Clock {
    /// How far the server's clock is ahead; `None` if no answer had a date yet.
    fn ahead(&self) -> Option<SignedDuration> {
        let seconds = self.seen.load(Ordering::Relaxed);
        (seconds != UNKNOWN).then(|| SignedDuration::from_secs(seconds))
    }

    /// Signs with the server's time from now on.
    pub(super) fn sign_ahead(&self, seconds: i64) {
        self.signing.store(seconds, Ordering::Relaxed);
    }

    /// The time of now: this host's where it agrees with the server's or the server told none, else the server's.
    pub fn now(&self) -> Timestamp {
        let here = Timestamp::now();
        match self.ahead() {
            Some(ahead) if ahead.abs() > MAX_SKEW => here.checked_add(ahead).unwrap_or(here),
            _ => here,
        }
    }

    /// By how much this host's clock is wrong, in words; `None` if it is not, or nobody can tell.
    pub fn wrong(&self) -> Option<String> {
        let ahead = self.ahead().filter(|ahead| ahead.abs() > MAX_SKEW)?;
        let way = if ahead.is_negative() { "ahead of" } else { "behind" };
        let seconds = ahead.abs().as_secs();
        Some(format!("this host's clock is {seconds} s {way} the server's: set it"))
    }

    /// The server's time, for what deletes or dates: refused where this host's clock is wrong or the server tells none.
    ///
    /// # Errors
    /// [`Error::Refused`] with the difference.
    pub fn trusted(&self, what: &str) -> Result<Timestamp, Error> {
        if let Some(wrong) = self.wrong() {
            return Err(Error::Refused(format!("{what}: nothing was changed: {wrong}")));
        }
        if self.ahead().is_none() {
            let text =
                format!("{what}: nothing was changed: the server's answers have no date to compare with");
            return Err(Error::Refused(text));
        }
        Ok(self.now())
    }
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let ahead = self.signing.load(Ordering::Relaxed);
        let step = Duration::from_secs(ahead.unsigned_abs());
        let moved =
            if ahead < 0 { SystemTime::now().checked_sub(step) } else { SystemTime::now().checked_add(step) };
        moved.unwrap_or_else(SystemTime::now)
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "the server's clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(seconds) = ahead(context.response()) {
            self.seen.store(seconds, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_trusted_within_five_minutes_and_else_not_even_asked() {
        let clock = Clock::default();
        assert!(clock.trusted("pruning").unwrap_err().to_string().contains("no date"));
        for (ahead, right) in [(0, true), (299, true), (-300, true), (301, false), (-691_200, false)] {
            clock.seen.store(ahead, Ordering::Relaxed);
            assert_eq!(clock.trusted("pruning").is_ok(), right, "{ahead}");
            let wanted = if right { 0 } else { ahead };
            let off = clock.now().duration_since(Timestamp::now()).as_secs() - wanted;
            assert!(off.abs() <= 1, "{ahead}: {off}");
        }
        assert!(clock.wrong().unwrap().contains("691200 s ahead of"));
    }
}
