//! What a run holds in Vault while it executes, its token and its leases, is renewed at two thirds of its life.
//!
//! Nothing here ends a run. What Vault does not renew, because it is away, sealed or busy, is tried again until its own
//! end has passed: what was handed out works until then. What is gone, because somebody revoked it, is told.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::vault::client::Request;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, VaultError};
use super::secrets::Lease;
use crate::domain::secret::Secret;

/// After the first failure; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts, and the longest that a server is believed that says when to come again.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// One thing to keep.
struct Kept {
    /// The id of a lease; none: the token.
    lease: Option<String>,
    ends: Instant,
    due: Instant,
    pause: Duration,
}

impl Kept {
    fn new(lease: Option<String>, lasts: Duration) -> Self {
        let mut kept = Self { lease, ends: Instant::now(), due: Instant::now(), pause: FIRST_PAUSE };
        kept.renewed(lasts);
        kept
    }

    fn renewed(&mut self, lasts: Duration) {
        let now = Instant::now();
        self.ends = now.checked_add(lasts).unwrap_or(now);
        // Near its longest life it gets less each time.
        let two_thirds = lasts.saturating_mul(2).checked_div(3).unwrap_or_default();
        self.due = now.checked_add(two_thirds.max(FIRST_PAUSE)).unwrap_or(now);
        self.pause = FIRST_PAUSE;
    }

    fn name(&self) -> String {
        self.lease.as_ref().map_or_else(|| "the run's token".to_owned(), |id| format!("the lease {id}"))
    }
}

/// Renews the token, which lasts for `lasts`, for so long again, and the leases, each for `life` if Vault gives so much. Ends only when
/// nothing is left to be kept.
pub async fn keep(
    client: &Client,
    token: &Secret,
    lasts: Option<Duration>,
    leases: &[Lease],
    life: Duration,
) {
    let renewable = leases.iter().filter(|lease| lease.renewable);
    let mut all: Vec<Kept> = renewable.map(|lease| Kept::new(Some(lease.id.clone()), lease.lasts)).collect();
    all.extend(lasts.map(|lasts| Kept::new(None, lasts)));
    while let Some(at) = (0..all.len()).min_by_key(|at| all.get(*at).map(|kept| kept.due)) {
        let Some(kept) = all.get_mut(at) else { return };
        sleep_until(kept.due).await;
        let span = if kept.lease.is_some() { life } else { lasts.unwrap_or_default() };
        let error = match renew(client, token, kept.lease.as_deref(), span).await {
            Ok(lasts) => {
                kept.renewed(lasts);
                continue;
            }
            Err(error) => error,
        };
        let name = kept.name();
        if let VaultError::TokenDead { .. } = error {
            tracing::warn!("the run's token has expired, and its leases with it: {error}");
            return;
        }
        let gone = matches!(error, VaultError::Refused { .. } | VaultError::Missing { .. });
        if gone || Instant::now() >= kept.ends {
            tracing::warn!("giving up the renewal of {name}: {error}");
            all.remove(at);
            continue;
        }
        tracing::warn!("cannot renew {name} yet: {error}");
        let pause = kept.pause.max(error.after().unwrap_or_default()).min(MAX_BACKOFF);
        let now = Instant::now();
        kept.due = now.checked_add(pause).unwrap_or(now);
        kept.pause = kept.pause.saturating_mul(2).min(MAX_BACKOFF);
    }
}

/// Renews one of them; how long it lasts now.
async fn renew(
    client: &Client,
    token: &Secret,
    lease: Option<&str>,
    span: Duration,
) -> Result<Duration, VaultError> {
    // What is not asked for is what the token or the lease was made with, which may be less.
    let mut body = json!({"increment": span.as_secs().max(1)});
    let (path, action) = match lease {
        Some(id) => {
            body["lease_id"] = json!(id);
            ("sys/leases/renew", "renew a lease of the run")
        }
        None => ("auth/token/renew-self", "renew the run's token"),
    };
    let answer = client
        .ask(Request { body: Some(&body), token: Some(token), ..Request::new(Method::PUT, path, action) })
        .await?;
    let lasts = match lease {
        Some(_) => &answer["lease_duration"],
        None => &answer["auth"]["lease_duration"],
    };
    match lasts.as_u64() {
        Some(lasts) => Ok(super::wire::seconds(lasts)),
        // Taken for zero it would be asked for again without end.
        None => Err(VaultError::Refused {
            place: client.server().address.clone(),
            action: action.to_owned(),
            why: "an answer without `lease_duration`".to_owned(),
        }),
    }
}
