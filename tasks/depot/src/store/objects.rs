//! Single objects: read, written, listed, removed, thawed.

use std::time::Duration;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, GlacierJobParameters, ObjectLockLegalHoldStatus, ObjectLockMode, RestoreRequest,
    ServerSideEncryption,
};
use aws_sdk_s3::types::{StorageClass, Tier};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::contents::{Contents, header};
use super::fault::{Class, Fault, NO_CODE};
use super::{Checksums, Store};
use crate::stream::buffer_pool::Buffer;

/// Most objects that one listing takes in.
const MAX_OBJECTS: usize = 2_000_000;

/// With which parameters an object is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectOptions {
    /// Storage class; the bucket's own when not said.
    pub class: Option<String>,
    /// Encryption on the server: `AES256`, `aws:kms`.
    pub sse: Option<String>,
    /// Id of the key for `aws:kms`.
    pub kms_key: Option<String>,
    /// Tags, as in a query string.
    pub tags: Option<String>,
    /// Object lock: mode and end.
    pub lock: Option<(String, Timestamp)>,
    /// A legal hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

impl ObjectOptions {
    /// The same for the small objects beside the data: they must be readable at once.
    pub fn hot(&self) -> Self {
        Self { class: None, hold: false, ..self.clone() }
    }

    /// The same for an object of this storage class.
    pub fn of_class(self, class: &str) -> Self {
        Self { class: Some(class.to_owned()), ..self }
    }

    pub(super) fn class(&self) -> Option<StorageClass> {
        self.class.as_deref().map(StorageClass::from)
    }

    pub(super) fn sse(&self) -> Option<ServerSideEncryption> {
        self.sse.as_deref().map(ServerSideEncryption::from)
    }

    pub(super) fn hold(&self) -> Option<ObjectLockLegalHoldStatus> {
        self.hold.then_some(ObjectLockLegalHoldStatus::On)
    }

    /// With all that forbids to delete another object: a copy of it must be kept as long.
    pub fn kept_as(&self, held: &Held) -> Self {
        let theirs =
            held.until.map(|until| (held.mode.clone().unwrap_or_else(|| "GOVERNANCE".to_owned()), until));
        let lock = match (self.lock.clone(), theirs) {
            (Some((ours, end)), Some((theirs, until))) => {
                // Nobody may shorten COMPLIANCE: it wins.
                let mode = if theirs == "COMPLIANCE" { theirs } else { ours };
                Some((mode, end.max(until)))
            }
            (ours, theirs) => ours.or(theirs),
        };
        Self { lock, hold: self.hold || held.legally, ..self.clone() }
    }

    pub(super) fn lock(&self) -> (Option<ObjectLockMode>, Option<DateTime>) {
        match &self.lock {
            Some((mode, until)) => {
                (Some(ObjectLockMode::from(mode.as_str())), Some(DateTime::from_secs(until.as_second())))
            }
            None => (None, None),
        }
    }
}

/// An object in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Key below the prefix.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written, by the server's clock.
    pub modified: Option<Timestamp>,
    /// What the server calls this state of it.
    pub etag: Option<String>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can be read now.
    Hot,
    /// It cannot be read, and nobody asked for it.
    Cold,
    /// It is being brought back.
    Thawing,
    /// A copy can be read until then.
    Thawed(String),
}

/// What the server says of an object.
#[derive(Clone, Debug)]
pub struct Found {
    /// Bytes.
    pub size: u64,
    /// Storage class.
    pub class: String,
    /// The archive that INTELLIGENT_TIERING has moved it to.
    pub archive: Option<String>,
    /// Whether it can be read.
    pub availability: Availability,
    /// Version, in a bucket with versions.
    pub version: Option<String>,
    /// What the server says that forbids to delete it. A legal hold, or an end of the lock that is to come, which the
    /// server shows only to keys that may read locks.
    pub held: Held,
}

/// What forbids to delete an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// A legal hold.
    pub legally: bool,
    /// The end of its retention.
    pub until: Option<Timestamp>,
    /// The mode of its retention.
    pub mode: Option<String>,
}

impl Held {
    /// Why it cannot be deleted now; `None` if nothing is known to forbid it.
    pub fn why(&self, now: Timestamp) -> Option<String> {
        if self.legally {
            return Some("under a legal hold".to_owned());
        }
        self.until.filter(|until| *until > now).map(|until| format!("locked until {until}"))
    }
}

/// What must be so for an object to be stored.
#[derive(Clone, Copy, Debug)]
enum Condition<'a> {
    /// Nothing: whatever is there is replaced.
    None,
    /// No object is there.
    Absent,
    /// The object is the one with this ETag.
    Unchanged(&'a str),
}

impl Condition<'_> {
    /// The value of `If-None-Match`.
    fn none_match(self) -> Option<String> {
        matches!(self, Self::Absent).then(|| "*".to_owned())
    }

    /// The value of `If-Match`.
    fn matching(self) -> Option<String> {
        if let Self::Unchanged(etag) = self { Some(etag.to_owned()) } else { None }
    }
}

/// What came of sending bytes.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What the server calls what it stored.
    pub etag: String,
    /// Whether its answer proves that it has the bytes that were sent.
    pub proved: bool,
}

/// Bytes in the middle of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset of the first byte.
    pub from: u64,
    /// How many bytes.
    pub length: u64,
    /// Their CRC-32C.
    pub crc: u32,
}

fn time(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}

impl Store {
    /// Stores a small object at once. With `new`, only where none is: `Class::Exists` otherwise.
    pub async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        object_options: &ObjectOptions,
        new: bool,
    ) -> Result<Sent, Fault> {
        let crc = crc32c::crc32c(&bytes);
        let contents = Contents::of(self, bytes, crc);
        let condition = if new { Condition::Absent } else { Condition::None };
        self.send(key, contents, object_options, condition).await
    }

    /// Stores an object at once, whatever is there.
    pub async fn put_whole(
        &self,
        key: &str,
        contents: Contents,
        object_options: &ObjectOptions,
    ) -> Result<Sent, Fault> {
        self.send(key, contents, object_options, Condition::None).await
    }

    /// Replaces the object that the server calls `etag`: `Class::Exists` or `Class::Missing` where it is another.
    pub async fn replace(
        &self,
        key: &str,
        bytes: Bytes,
        object_options: &ObjectOptions,
        etag: &str,
    ) -> Result<Sent, Fault> {
        let crc = crc32c::crc32c(&bytes);
        let contents = Contents::of(self, bytes, crc);
        self.send(key, contents, object_options, Condition::Unchanged(etag)).await
    }

    /// Stores an object at once, under a condition.
    async fn send(
        &self,
        key: &str,
        mut contents: Contents,
        object_options: &ObjectOptions,
        condition: Condition<'_>,
    ) -> Result<Sent, Fault> {
        let full = self.key(key);
        let (mode, until) = object_options.lock();
        let crc32c = self.place.checksums == Checksums::Crc32c;
        let md5 = contents.content_md5(self).await;
        let done = self
            .tried(contents.size(), || async {
                let request = self
                    .client()
                    .put_object()
                    .bucket(&self.place.bucket)
                    .key(&full)
                    .set_storage_class(object_options.class())
                    .set_server_side_encryption(object_options.sse())
                    .set_ssekms_key_id(object_options.kms_key.clone())
                    .set_tagging(object_options.tags.clone())
                    .set_object_lock_mode(mode.clone())
                    .set_object_lock_retain_until_date(until)
                    .set_object_lock_legal_hold_status(object_options.hold())
                    .set_if_none_match(condition.none_match())
                    .set_if_match(condition.matching())
                    .set_checksum_algorithm(crc32c.then_some(ChecksumAlgorithm::Crc32C))
                    .set_checksum_crc32_c(crc32c.then(|| header(contents.crc)))
                    .set_content_md5(md5.clone())
                    .body(contents.body());
                let request = request.customize();
                let request = if self.sealed() {
                    request.disable_payload_signing()
                } else if let Some(signed) = contents.signed() {
                    request.interceptor(signed)
                } else {
                    request
                };
                request.send().await.map_err(Fault::from)
            })
            .await?;
        let etag = done.e_tag().unwrap_or_default().to_owned();
        let proved = contents.proved(self, done.checksum_crc32_c(), &etag).await;
        Ok(Sent { etag, proved })
    }

    /// What is there, if anything.
    pub async fn head(&self, key: &str) -> Result<Option<Found>, Fault> {
        let full = self.key(key);
        let answer = self
            .tried(0, || async {
                let request = self.client().head_object().bucket(&self.place.bucket).key(&full);
                match request.send().await.map_err(Fault::from) {
                    Err(fault)
                        if matches!(fault.class, Class::Fatal | Class::Denied)
                            && fault.text.contains(NO_CODE) =>
                    {
                        Err(self.reason(&full).await.unwrap_or(fault))
                    }
                    answer => answer,
                }
            })
            .await;
        let head = match answer {
            Err(fault) if fault.class == Class::Missing => return Ok(None),
            answer => answer?,
        };
        let class = head.storage_class().map_or("STANDARD", StorageClass::as_str).to_owned();
        let availability = match head.restore() {
            Some(text) if text.contains("ongoing-request=\"true\"") => Availability::Thawing,
            Some(text) if text.contains("ongoing-request=\"false\"") => Availability::Thawed(
                text.split("expiry-date=\"").nth(1).unwrap_or("").trim_end_matches('"').to_owned(),
            ),
            _ if matches!(class.as_str(), "GLACIER" | "DEEP_ARCHIVE") => Availability::Cold,
            // Objects of INTELLIGENT_TIERING that nobody read for months.
            _ if head.archive_status().is_some() => Availability::Cold,
            _ => Availability::Hot,
        };
        let archive = head.archive_status().map(|status| status.as_str().to_owned());
        let held = Held {
            legally: head.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On),
            until: head.object_lock_retain_until_date().and_then(time),
            mode: head.object_lock_mode().map(|mode| mode.as_str().to_owned()),
        };
        let size = u64::try_from(head.content_length().unwrap_or_default()).unwrap_or_default();
        Ok(Some(Found {
            size,
            class,
            archive,
            availability,
            version: head.version_id().map(str::to_owned),
            held,
        }))
    }

    /// Asks once more in a way that can be answered with a reason.
    async fn reason(&self, full: &str) -> Option<Fault> {
        let request = self.client().get_object().bucket(&self.place.bucket).key(full).range("bytes=0-0");
        request.send().await.map_err(Fault::from).err()
    }

    /// A small object whole, if it is there; more than `most` bytes are an error.
    pub async fn small(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.small_tagged(key, most).await?.map(|(text, _)| text))
    }

    /// The same, with what the server calls this state of it.
    pub async fn small_tagged(
        &self,
        key: &str,
        most: u64,
    ) -> Result<Option<(Vec<u8>, Option<String>)>, Fault> {
        let full = self.key(key);
        let answer = self
            .tried(most.min(1 << 20), || async {
                let request = self.client().get_object().bucket(&self.place.bucket).key(&full);
                let mut answer = request.send().await.map_err(Fault::from)?;
                let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
                let mut text = Vec::new();
                while let Some(piece) = answer.body.next().await {
                    text.extend_from_slice(&piece.map_err(|error| Fault::transient(error.to_string()))?);
                    if text.len() as u64 > most {
                        return Err(Fault {
                            class: Class::Fatal,
                            text: format!("{full}: more than {most} bytes"),
                        });
                    }
                }
                if length.is_some_and(|length| length != text.len() as u64) {
                    return Err(Fault::transient("the answer broke off"));
                }
                Ok((text, answer.e_tag().map(str::to_owned)))
            })
            .await;
        match answer {
            Err(fault) if fault.class == Class::Missing => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Fails with `Class::Cold` if the object's first byte cannot be read now.
    pub async fn readable(&self, key: &str) -> Result<(), Fault> {
        let full = self.key(key);
        self.tried(0, || async {
            let request = self.client().get_object().bucket(&self.place.bucket).key(&full).range("bytes=0-0");
            request.send().await.map(|_| ()).map_err(Fault::from)
        })
        .await
    }

    /// A block of an object, held against its sum; `false` if it was wrong twice: that is not the network.
    pub async fn block(
        &self,
        key: &str,
        block: Block,
        into: &tokio::sync::Mutex<Buffer>,
    ) -> Result<bool, Fault> {
        let Block { from, length, crc } = block;
        let full = self.key(key);
        let range = format!("bytes={from}-{}", from + length.saturating_sub(1));
        let wrong = std::sync::atomic::AtomicU32::new(0);
        // A try that was too slow is dropped before the next one begins, and leaves the buffer to it.
        self.tried(length, || async {
            let mut into = into.lock().await;
            into.clear();
            let request = self.client().get_object().bucket(&self.place.bucket).key(&full).range(&range);
            let mut answer = request.send().await.map_err(Fault::from)?;
            let mut sum = 0;
            while let Some(piece) = answer.body.next().await {
                let piece =
                    piece.map_err(|error| Fault::transient(format!("the answer broke off: {error}")))?;
                if (into.len() + piece.len()) as u64 > length {
                    return Err(Fault::transient("the answer is longer than what was asked for"));
                }
                sum = crc32c::crc32c_append(sum, &piece);
                into.extend_from_slice(&piece);
            }
            if (into.len() as u64) < length {
                return Err(Fault::transient("the answer broke off"));
            }
            if sum != crc && wrong.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                return Err(Fault::transient("the bytes are not those that were stored"));
            }
            Ok(sum == crc)
        })
        .await
    }

    /// Removes an object; that there is none is a success.
    pub async fn remove(&self, key: &str, version: Option<&str>) -> Result<(), Fault> {
        let full = self.key(key);
        let answer = self
            .tried(0, || async {
                let request = self.client().delete_object().bucket(&self.place.bucket).key(&full);
                request.set_version_id(version.map(str::to_owned)).send().await.map_err(Fault::from)
            })
            .await;
        match answer {
            Err(fault) if fault.class == Class::Missing => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// All objects whose key begins with `below`, in order.
    pub async fn list(&self, below: &str) -> Result<Vec<Listed>, Fault> {
        let prefix = self.key(below);
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .tried(0, || async {
                    let request = self.client().list_objects_v2().bucket(&self.place.bucket).prefix(&prefix);
                    request.set_continuation_token(token.clone()).send().await.map_err(Fault::from)
                })
                .await?;
            for object in page.contents() {
                let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.place.prefix)) else {
                    continue;
                };
                all.push(Listed {
                    key: key.to_owned(),
                    size: u64::try_from(object.size().unwrap_or_default()).unwrap_or_default(),
                    modified: object.last_modified().and_then(time),
                    etag: object.e_tag().map(str::to_owned),
                });
            }
            if all.len() > MAX_OBJECTS {
                let text =
                    format!("more than {MAX_OBJECTS} objects below {prefix}: use a prefix for each database");
                return Err(Fault { class: Class::Fatal, text });
            }
            token = page.next_continuation_token().map(str::to_owned);
            if page.is_truncated() != Some(true) || token.is_none() {
                break;
            }
        }
        all.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(all)
    }

    /// Asks for a copy of a cold object that can be read for some days; what INTELLIGENT_TIERING archived comes back for
    /// good, and takes no days. `false`: it is on its way already.
    pub async fn restore(&self, key: &str, tier: &str, days: Option<i32>) -> Result<bool, Fault> {
        let full = self.key(key);
        let job = GlacierJobParameters::builder().tier(Tier::from(tier)).build();
        let job = job.map_err(|error| Fault { class: Class::Fatal, text: error.to_string() })?;
        let restore = RestoreRequest::builder().set_days(days).glacier_job_parameters(job).build();
        let answer = self
            .tried(0, || async {
                let request = self.client().restore_object().bucket(&self.place.bucket).key(&full);
                request.restore_request(restore.clone()).send().await.map_err(Fault::from)
            })
            .await;
        match answer {
            Err(fault) if fault.text.contains("RestoreAlreadyInProgress") => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// Whether the bucket can lock objects.
    pub async fn locks(&self) -> Result<bool, Fault> {
        let answer = self
            .tried(0, || async {
                let request = self.client().get_object_lock_configuration().bucket(&self.place.bucket);
                request.send().await.map_err(Fault::from)
            })
            .await;
        match answer {
            Ok(answer) => Ok(answer.object_lock_configuration().is_some()),
            Err(fault) if matches!(fault.class, Class::Missing | Class::Unsupported) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// How long one request may take: for whoever polls.
    pub fn step(&self) -> Duration {
        self.place.patience.base
    }
}
