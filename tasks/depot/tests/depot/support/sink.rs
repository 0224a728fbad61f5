//! A server that checks and discards: for streams that no disk holds. It knows just what a put asks for.
//!
//! Each part is held against its CRC-32C; the numbers of parts must be 1 to n without a gap; the size of the object is
//! the sum of them. Small objects (manifests) are kept.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What is known of the one bucket.
#[derive(Default)]
pub(crate) struct Seen {
    /// Sizes of the parts of the upload under way, by number.
    pub(crate) parts: HashMap<u32, u64>,
    /// Sizes of objects.
    pub(crate) sizes: HashMap<String, u64>,
    /// Small objects.
    pub(crate) small: HashMap<String, Bytes>,
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Seen>>) -> Response<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    let key = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let (mut crc, mut size, mut kept) = (0, 0u64, Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(piece) = frame.into_data() {
            crc = crc32c::crc32c_append(crc, &piece);
            size += piece.len() as u64;
            if !query.contains("partNumber=") {
                kept.extend_from_slice(&piece);
            }
        }
    }
    let said =
        head.headers.get("x-amz-checksum-crc32c").and_then(|sum| sum.to_str().ok()).unwrap_or_default();
    let right =
        said.is_empty() || said == base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes());
    let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let number =
        query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).and_then(|n| n.parse().ok());
    let (status, length, text) = match (head.method.as_str(), number) {
        _ if !right => (400, None, Bytes::from("<Error><Code>BadDigest</Code></Error>")),
        ("PUT", Some(number)) => {
            seen.parts.insert(number, size);
            (200, None, Bytes::new())
        }
        ("PUT", None) => {
            seen.sizes.insert(key.clone(), size);
            seen.small.insert(key, kept.into());
            (200, None, Bytes::new())
        }
        ("POST", _) if query.starts_with("uploads") => {
            let text =
                "<InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>";
            (200, None, Bytes::from(text))
        }
        ("POST", _) => {
            let count = u32::try_from(seen.parts.len()).unwrap_or(u32::MAX);
            let whole = (1..=count).all(|number| seen.parts.contains_key(&number)) && count <= 10_000;
            let size = seen.parts.values().sum();
            seen.sizes.insert(key, size);
            let text = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";
            if whole {
                (200, None, Bytes::from(text))
            } else {
                (400, None, Bytes::from("<Error><Code>InvalidPart</Code></Error>"))
            }
        }
        ("HEAD" | "GET", _) => match (seen.sizes.get(&key), seen.small.get(&key)) {
            (Some(size), _) if head.method == "HEAD" => (200, Some(*size), Bytes::new()),
            (Some(_), Some(text)) => (200, None, text.clone()),
            _ => (404, None, Bytes::new()),
        },
        ("DELETE", _) => {
            seen.sizes.remove(&key);
            (204, None, Bytes::new())
        }
        _ => (501, None, Bytes::new()),
    };
    let mut response = Response::builder().status(status).header("etag", "\"x\"");
    if let Some(length) = length {
        response = response.header("content-length", length);
    }
    response.body(Full::new(text)).unwrap_or_default()
}

/// Serves until the program ends.
pub(crate) async fn serve(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = hyper::service::service_fn(move |request| {
            let seen = Arc::clone(&seen);
            async move { Ok::<_, Infallible>(answer(request, seen).await) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(connection);
    }
}

/// Binds a free port of loopback.
pub(crate) async fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
