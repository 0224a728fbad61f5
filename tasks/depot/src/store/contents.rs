//! The bytes of one request, and what is known of them.
//!
//! The SHA-256 of a signature and the MD5 that an answer is held against take longer than the network does in a machine
//! room. So they are made on threads of their own while the bytes come, or are on their way.

use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_runtime_api::box_error::BoxError;
use base64::Engine;
use bytes::Bytes;
use md5::{Digest, Md5};
use sha2::Sha256;
use tokio::task::JoinHandle;

use super::{Checksums, Store};

/// Less than this is hashed at once, sooner than a thread would have begun.
const SMALL: usize = 64 * 1024;

/// A hash that follows bytes on a thread of its own.
struct Following {
    feed: mpsc::Sender<Bytes>,
    sum: JoinHandle<Vec<u8>>,
}

impl Following {
    fn new<D: Digest + Send + 'static>() -> Self {
        let (feed, bytes) = mpsc::channel::<Bytes>();
        let sum = tokio::task::spawn_blocking(move || {
            let mut sum = D::new();
            for piece in bytes {
                sum.update(&piece);
            }
            sum.finalize().to_vec()
        });
        Self { feed, sum }
    }
}

/// A sum that takes long.
enum Sum {
    /// Nobody makes it.
    None,
    /// A thread makes it.
    Made(JoinHandle<Vec<u8>>),
    Known(Vec<u8>),
}

/// The MD5 that an answer will be held against, made on another thread if there is much to hash.
fn beside(store: &Store, pieces: &[Bytes]) -> Sum {
    let compared = store.place.endpoint.is_some() || store.place.checksums == Checksums::Md5;
    let size: usize = pieces.iter().map(Bytes::len).sum();
    if !compared || size < SMALL {
        return Sum::None;
    }
    let pieces = pieces.to_vec();
    Sum::Made(tokio::task::spawn_blocking(move || hash::<Md5>(&pieces)))
}

fn hash<D: Digest>(pieces: &[Bytes]) -> Vec<u8> {
    let mut sum = D::new();
    for piece in pieces {
        sum.update(piece);
    }
    sum.finalize().to_vec()
}

/// Bytes that come in pieces, and are hashed meanwhile.
pub struct Coming {
    pieces: Vec<Bytes>,
    size: usize,
    crc: u32,
    md5: Option<Following>,
    sha256: Option<Following>,
}

/// The bytes of one request.
pub struct Contents {
    pieces: Vec<Bytes>,
    /// CRC-32C.
    pub(super) crc: u32,
    md5: Sum,
    /// In hexadecimal digits; `None` if nobody has made it yet.
    sha256: Option<String>,
}

impl Coming {
    /// None yet. `sha256` says that theirs will be known from elsewhere.
    pub fn new(store: &Store, sha256: bool) -> Self {
        Self {
            pieces: Vec::new(),
            size: 0,
            crc: 0,
            // Where only the answer is held against it, it is made while the bytes are on their way.
            md5: (store.place.checksums == Checksums::Md5).then(Following::new::<Md5>),
            sha256: (!store.sealed() && !sha256).then(Following::new::<Sha256>),
        }
    }

    /// The next piece, and its CRC-32C.
    pub fn add(&mut self, bytes: Bytes, crc: u32) {
        for following in self.md5.iter().chain(&self.sha256) {
            // A thread that is gone is noticed when its sum is asked for.
            let _ = following.feed.send(bytes.clone());
        }
        self.crc = crc32c::crc32c_combine(self.crc, crc, bytes.len());
        self.size += bytes.len();
        self.pieces.push(bytes);
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All are there; `sha256` is theirs, if it is known from elsewhere.
    pub async fn ended(self, store: &Store, sha256: Option<String>) -> Contents {
        let Self { pieces, crc, md5, sha256: own, .. } = self;
        let md5 = md5.map_or_else(|| beside(store, &pieces), |following| Sum::Made(following.sum));
        let sha256 = match own {
            Some(Following { feed, sum }) => {
                drop(feed);
                sum.await.ok().map(hex::encode)
            }
            None => sha256,
        };
        Contents { pieces, crc, md5, sha256 }
    }
}

impl Contents {
    /// Bytes that are there, and their CRC-32C. Many of them are hashed while they are on their way.
    pub fn of(store: &Store, bytes: Bytes, crc: u32) -> Self {
        let pieces = vec![bytes];
        Self { md5: beside(store, &pieces), pieces, crc, sha256: None }
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The body of a request.
    pub(super) fn body(&self) -> ByteStream {
        match self.pieces.as_slice() {
            [one] => ByteStream::from(one.clone()),
            pieces => ByteStream::new(SdkBody::from_body_1_x(Pieces(pieces.to_vec().into()))),
        }
    }

    /// What a signature says of the bytes; `None` leaves it to whoever signs, who can hash one piece, not several.
    pub(super) fn signed(&self) -> Option<Signed> {
        if self.sha256.is_none() && self.pieces.len() == 1 {
            return None;
        }
        let hashed = || hex::encode(hash::<Sha256>(&self.pieces));
        Some(Signed(self.sha256.clone().unwrap_or_else(hashed)))
    }

    /// Their MD5.
    async fn md5(&mut self) -> Vec<u8> {
        let sum = match std::mem::replace(&mut self.md5, Sum::None) {
            Sum::Known(sum) => sum,
            Sum::Made(task) => task.await.unwrap_or_else(|_| hash::<Md5>(&self.pieces)),
            Sum::None => hash::<Md5>(&self.pieces),
        };
        self.md5 = Sum::Known(sum.clone());
        sum
    }

    /// The MD5 as `Content-MD5` wants it, where that is what the server wants.
    pub(super) async fn content_md5(&mut self, store: &Store) -> Option<String> {
        if store.place().checksums != Checksums::Md5 {
            return None;
        }
        Some(base64::engine::general_purpose::STANDARD.encode(self.md5().await))
    }

    /// Whether an answer's checksum or ETag is that of the bytes. AWS holds each part against the sum that came with it and
    /// answers with its own; of other servers some only repeat what they were sent, so there the MD5 in the ETag counts.
    pub(super) async fn proved(&mut self, store: &Store, answered: Option<&str>, etag: &str) -> bool {
        let same = answered.is_some_and(|sum| sum == header(self.crc));
        if store.place().endpoint.is_none() && same {
            return true;
        }
        let etag = etag.trim_matches('"');
        etag.len() == 32 && etag.eq_ignore_ascii_case(&hex::encode(self.md5().await))
    }
}

/// A CRC-32C as the headers want it.
pub(super) fn header(crc: u32) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

/// Several pieces as one body.
struct Pieces(std::collections::VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Signs the SHA-256 that is known, and does not make it again.
#[derive(Debug)]
pub(super) struct Signed(String);

impl Intercept for Signed {
    fn name(&self) -> &'static str {
        "the SHA-256 of the body"
    }

    fn modify_before_signing(
        &self,
        _context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}
