//! The metadata service of an EC2 instance, version 2 alone: who has no token of it gets nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::handle;
use super::servers::{KEY, KEY_ID};

/// Name of the role.
pub(crate) const ROLE: &str = "backup-role";
/// Token of the role's session.
pub(crate) const TOKEN: &str = "a-session-token-that-nobody-may-see";
/// What version 2 gives out before anything else.
const PASS: &str = "a-pass-of-the-metadata-service";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// The service.
pub(crate) struct Imds {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    broken: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

fn answer(request: &Request<Incoming>, broken: bool) -> (u16, String) {
    let path = request.uri().path();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if request.method() == "PUT" {
        let wanted = path == "/latest/api/token" && header("x-aws-ec2-metadata-token-ttl-seconds").is_some();
        return if wanted { (200, PASS.to_owned()) } else { (404, String::new()) };
    }
    if header("x-aws-ec2-metadata-token") != Some(PASS) {
        return (401, String::new());
    }
    match path.strip_prefix(ROLES) {
        Some("") => (200, ROLE.to_owned()),
        Some(ROLE) => {
            let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(6);
            let text = serde_json::json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                "AccessKeyId": KEY_ID, "SecretAccessKey": KEY, "Token": TOKEN, "Expiration": end});
            let text = text.to_string();
            // Cut after the secrets: whoever complains of it has them at hand.
            (200, if broken { text[..text.len() - 3].to_owned() } else { text })
        }
        _ => (404, String::new()),
    }
}

impl Imds {
    pub(crate) fn start() -> Self {
        let listener = handle().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, broken) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (lines, state) = (Arc::clone(&seen), Arc::clone(&broken));
        let task = handle().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (lines, state) = (Arc::clone(&lines), Arc::clone(&state));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    lines.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
                    let (status, text) = answer(&request, state.load(Ordering::SeqCst));
                    let response = Response::builder()
                        .status(status)
                        .header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
                    let response = response.body(Full::new(Bytes::from(text))).unwrap();
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, seen, broken, task }
    }

    /// Methods and paths of what was asked.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// From now on its answers are cut off.
    pub(crate) fn breaks(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.task.abort();
    }
}
