//! What an answer of Vault means. The same status means many things, and neither is every 4xx for good nor every 5xx
//! for a while: the rules are those that a real server was recorded to follow (`tests/contract/vault/`).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use serde_json::Value;

/// The longest text of a server that is passed on, in bytes.
const MAX_LEN: usize = 200;

/// What an answer that is no success means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Sealed, or never initialised.
    Sealed,
    /// Too many requests, no active node, an engine whose database is away: it may pass.
    Later,
    /// The token is dead.
    TokenDead,
    /// The token lives, and its policies do not allow it.
    Denied,
    /// There is nothing.
    Missing,
    /// A wrapping token was used before, or never was.
    Unwrapped,
    /// Plain http came to a port that speaks TLS.
    PlainToTls,
    /// It will not pass by itself.
    Refused,
}

/// The texts of an error, in one line.
pub(super) fn text(body: &[u8]) -> String {
    let errors = serde_json::from_slice::<Value>(body).ok();
    let errors = errors.as_ref().and_then(|value| value.get("errors")?.as_array());
    let said = errors.map(|list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "));
    let said = said.unwrap_or_default();
    let said = said.replace("1 error occurred:", "").replace(['\n', '\t', '*'], " ");
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::domain::text::head(&said.chars().filter(|c| !c.is_control()).collect::<String>(), MAX_LEN)
}

fn first(body: &[u8]) -> String {
    let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
    value["errors"][0].as_str().unwrap_or_default().to_owned()
}

/// What the TLS port of a server written in Go says to plain http; it is no JSON.
fn is_plain_to_tls(body: &[u8]) -> bool {
    let head = body.get(..200).unwrap_or(body);
    String::from_utf8_lossy(head).contains("HTTP request to an HTTPS server")
}

pub(super) fn verdict(status: u16, body: &[u8]) -> Verdict {
    let said = first(body);
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match status {
        // A proxy in front of it says 503 as well.
        503 if says(&["Vault is sealed", "not initialized", "not yet initialized"]) => Verdict::Sealed,
        400 if is_plain_to_tls(body) => Verdict::PlainToTls,
        429 | 307 | 412 | 473 => Verdict::Later,
        // The bare text is the only sign of a dead token; a policy's refusal comes as a list of one.
        403 if said == "permission denied" || says(&["invalid token"]) => Verdict::TokenDead,
        403 => Verdict::Denied,
        404 => Verdict::Missing,
        400 if says(&["wrapping token is not valid"]) => Verdict::Unwrapped,
        400 if says(&["failed to renew entry", "failed to revoke entry"]) => Verdict::Later,
        500 if says(&[
            "failed to verify client's certificate",
            "policies have changed",
            "does not exist during renewal",
            "error converting input",
            "could not find version data",
            "error decrementing wrapping token",
            // OpenBao 2.7.2, in the last second of a token's longest life; Vault cuts the answer to one second instead.
            "past the max TTL",
        ]) =>
        {
            Verdict::Refused
        }
        500.. => Verdict::Later,
        _ => Verdict::Refused,
    }
}

/// The longest time that an answer is believed: a year. Any number of seconds in an answer is cut to it, so that no sum
/// with it can overflow.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Seconds from an answer.
pub(super) fn seconds(number: u64) -> Duration {
    Duration::from_secs(number).min(MAX_TIME)
}

/// How long something lasts, as an answer says; nothing counts as no time.
pub(super) fn lasts(number: &Value) -> Duration {
    seconds(number.as_u64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_of_an_answer_overflows_a_sum() {
        for number in [u64::MAX, 1 << 62, MAX_TIME.as_secs() + 1] {
            assert_eq!(lasts(&number.into()), MAX_TIME);
            assert!(std::time::Instant::now().checked_add(seconds(number)).is_some());
        }
        assert_eq!(lasts(&60.into()), Duration::from_secs(60));
        assert_eq!(lasts(&Value::Null), Duration::ZERO);
    }

    #[test]
    fn the_recorded_answers_are_understood() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/contract/vault");
        let table = [
            ("sealed-kv2-read", Verdict::Sealed),
            ("sealed-approle-login", Verdict::Sealed),
            ("rate-limit-429", Verdict::Later),
            ("token-revoked-use", Verdict::TokenDead),
            ("bad-token", Verdict::TokenDead),
            ("policy-denied-kv2-read", Verdict::Denied),
            ("missing-mount-token", Verdict::Denied),
            ("token-create-forbidden", Verdict::Denied),
            ("missing-kv2", Verdict::Missing),
            ("kv2-read-deleted", Verdict::Missing),
            ("unwrap-second-time", Verdict::Unwrapped),
            ("approle-login-bad-secret-id", Verdict::Refused),
            ("lease-renew-unknown", Verdict::Refused),
        ];
        for (name, wanted) in table {
            let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
            let recorded: Value = serde_json::from_slice(&text).unwrap();
            let status = u16::try_from(recorded["response"]["status"].as_u64().unwrap()).unwrap();
            let body = recorded["response"]["body"].to_string();
            assert_eq!(verdict(status, body.as_bytes()), wanted, "{name}");
        }
        // Only a new login helps.
        assert_eq!(verdict(500, br#"{"errors":["past the max TTL, cannot renew"]}"#), Verdict::Refused);
        assert_eq!(verdict(503, b"<html>no server is available</html>"), Verdict::Later);
        assert_eq!(verdict(503, br#"{"errors":["upstream connect error"]}"#), Verdict::Later);
        assert_eq!(verdict(503, br#"{"errors":["Vault is sealed"]}"#), Verdict::Sealed);
        assert_eq!(verdict(400, b"Client sent an HTTP request to an HTTPS server.\n"), Verdict::PlainToTls);
        assert_eq!(
            text(br#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#),
            "permission denied"
        );
    }
}
