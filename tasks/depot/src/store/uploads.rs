//! Multipart uploads and copies in parts.

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use jiff::Timestamp;

use super::contents::{Contents, header};
use super::fault::{Class, Fault};
use super::objects::ObjectOptions;
use super::{Checksums, Store};

/// What S3 copies in one request; larger objects are copied in parts.
pub const MAX_AT_ONCE: u64 = 5 * 1024 * 1024 * 1024;
/// Most uploads that are looked at in one run.
const MAX_UPLOADS: usize = 100_000;

/// A part that is to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Counted from 1.
    pub number: u32,
    /// Its bytes.
    pub bytes: Bytes,
    /// Their CRC-32C.
    pub crc: u32,
}

/// A stretch of an object that becomes a part of another.
#[derive(Clone, Copy, Debug)]
pub struct CopySource<'a> {
    /// Key of the object that is copied.
    pub key: &'a str,
    /// Offset of the first byte.
    pub from: u64,
    /// How many bytes, at least one.
    pub length: u64,
}

/// A part that is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Counted from 1.
    pub number: u32,
    /// What the server calls it.
    pub etag: String,
    /// Its sum, if it was sent by us.
    pub crc: Option<u32>,
    /// Whether the answer proves that the server has the bytes that were sent.
    pub proved: bool,
}

/// An upload that is not complete.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Key below the prefix.
    pub key: String,
    /// Its id.
    pub id: String,
    /// When it was begun, by the server's clock.
    pub begun: Option<Timestamp>,
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Store {
    /// Begins an upload. With `sums`, each part brings its own.
    pub async fn begin(
        &self,
        key: &str,
        object_options: &ObjectOptions,
        sums: bool,
    ) -> Result<String, Fault> {
        let full = self.key(key);
        let (mode, until) = object_options.lock();
        let sums = sums && self.place.checksums == Checksums::Crc32c;
        let answer = self
            .tried(0, || async {
                let request = self.client().create_multipart_upload().bucket(&self.place.bucket).key(&full);
                request
                    .set_storage_class(object_options.class())
                    .set_server_side_encryption(object_options.sse())
                    .set_ssekms_key_id(object_options.kms_key.clone())
                    .set_tagging(object_options.tags.clone())
                    .set_object_lock_mode(mode.clone())
                    .set_object_lock_retain_until_date(until)
                    .set_object_lock_legal_hold_status(object_options.hold())
                    .set_checksum_algorithm(sums.then_some(ChecksumAlgorithm::Crc32C))
                    .send()
                    .await
                    .map_err(Fault::from)
            })
            .await?;
        answer
            .upload_id
            .ok_or_else(|| Fault { class: Class::Fatal, text: "the server gave no upload id".to_owned() })
    }

    /// Sends one part.
    pub async fn part(&self, key: &str, id: &str, part: Outgoing) -> Result<Stored, Fault> {
        let Outgoing { number: part, bytes, crc } = part;
        let full = self.key(key);
        let crc32c = self.place.checksums == Checksums::Crc32c;
        let mut contents = Contents::of(self, bytes, crc);
        let md5 = contents.content_md5(self).await;
        let answer = self
            .tried(contents.size(), || async {
                let request = self.client().upload_part().bucket(&self.place.bucket).key(&full).upload_id(id);
                let request = request
                    .part_number(number(part))
                    .set_checksum_algorithm(crc32c.then_some(ChecksumAlgorithm::Crc32C))
                    .set_checksum_crc32_c(crc32c.then(|| header(crc)))
                    .set_content_md5(md5.clone())
                    .body(contents.body());
                let request = request.customize();
                let request = if self.sealed() { request.disable_payload_signing() } else { request };
                request.send().await.map_err(Fault::from)
            })
            .await?;
        let answered = answer.checksum_crc32_c().map(str::to_owned);
        let etag = answer.e_tag.unwrap_or_default();
        let proved = contents.proved(self, answered.as_deref(), &etag).await;
        Ok(Stored { number: part, etag, crc: crc32c.then_some(crc), proved })
    }

    /// Copies a range of another object into a part.
    pub async fn part_copy(
        &self,
        key: &str,
        id: &str,
        part: u32,
        copied: CopySource<'_>,
    ) -> Result<Stored, Fault> {
        let source = self.source(copied.key);
        let full = self.key(key);
        let range = format!("bytes={}-{}", copied.from, copied.from + copied.length - 1);
        let answer = self
            // The server moves the bytes: it is given the time of a large part, whatever its size.
            .tried(1 << 26, || async {
                let request =
                    self.client().upload_part_copy().bucket(&self.place.bucket).key(&full).upload_id(id);
                let request =
                    request.copy_source(&source).copy_source_range(&range).part_number(number(part));
                request.send().await.map_err(Fault::from)
            })
            .await?;
        let etag = answer.copy_part_result.and_then(|result| result.e_tag).unwrap_or_default();
        Ok(Stored { number: part, etag, crc: None, proved: false })
    }

    /// Copies an object of at most 5 GiB.
    pub async fn copy(&self, from: &str, key: &str, object_options: &ObjectOptions) -> Result<(), Fault> {
        let source = self.source(from);
        let full = self.key(key);
        let (mode, until) = object_options.lock();
        self.tried(1 << 26, || async {
            let request =
                self.client().copy_object().bucket(&self.place.bucket).key(&full).copy_source(&source);
            request
                .set_storage_class(object_options.class())
                .set_server_side_encryption(object_options.sse())
                .set_ssekms_key_id(object_options.kms_key.clone())
                .set_object_lock_mode(mode.clone())
                .set_object_lock_retain_until_date(until)
                .set_object_lock_legal_hold_status(object_options.hold())
                .send()
                .await
                .map_err(Fault::from)
        })
        .await
        .map(|_| ())
    }

    /// Keys hold no characters but those of names, `/` and `%`; only the last needs care in this header.
    fn source(&self, key: &str) -> String {
        format!("{}/{}", self.place.bucket, self.key(key))
            .replace('%', "%25")
            .replace('+', "%2B")
            .replace('=', "%3D")
    }

    /// Makes the object of its parts. `Class::Missing` when the server knows no such upload (any more).
    pub async fn complete(&self, key: &str, id: &str, parts: &[Stored]) -> Result<(), Fault> {
        let full = self.key(key);
        let parts = parts
            .iter()
            .map(|part| {
                CompletedPart::builder()
                    .part_number(number(part.number))
                    .e_tag(&part.etag)
                    .set_checksum_crc32_c(part.crc.map(header))
                    .build()
            })
            .collect();
        let completed = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        // Servers may take minutes over thousands of parts.
        self.tried(1 << 26, || async {
            let request = self.client().complete_multipart_upload().bucket(&self.place.bucket).key(&full);
            request.upload_id(id).multipart_upload(completed.clone()).send().await.map_err(Fault::from)
        })
        .await
        .map(|_| ())
    }

    /// Throws an upload and its parts away; that there is none is a success.
    pub async fn abort(&self, key: &str, id: &str) -> Result<(), Fault> {
        let full = self.key(key);
        let answer = self
            .tried(0, || async {
                let request = self.client().abort_multipart_upload().bucket(&self.place.bucket).key(&full);
                request.upload_id(id).send().await.map_err(Fault::from)
            })
            .await;
        match answer {
            Err(fault) if fault.class == Class::Missing => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Whether an upload has parts; `None` where the server cannot tell.
    pub async fn has_parts(&self, key: &str, id: &str) -> Result<Option<bool>, Fault> {
        let full = self.key(key);
        let answer = self
            .tried(0, || async {
                let request = self.client().list_parts().bucket(&self.place.bucket).key(&full);
                request.upload_id(id).max_parts(1).send().await.map_err(Fault::from)
            })
            .await;
        match answer {
            Err(fault) if fault.class == Class::Missing => Ok(Some(false)),
            Err(fault) if fault.class == Class::Unsupported => Ok(None),
            answer => answer.map(|page| Some(!page.parts().is_empty())),
        }
    }

    /// Uploads below a key that were begun and not ended; `None` where the server cannot tell.
    pub async fn pending(&self, below: &str) -> Result<Option<Vec<Pending>>, Fault> {
        let prefix = self.key(below);
        let mut all = Vec::new();
        let (mut at_key, mut at_id): (Option<String>, Option<String>) = (None, None);
        loop {
            let answer = self
                .tried(0, || async {
                    let request =
                        self.client().list_multipart_uploads().bucket(&self.place.bucket).prefix(&prefix);
                    let request = request.set_key_marker(at_key.clone()).set_upload_id_marker(at_id.clone());
                    request.send().await.map_err(Fault::from)
                })
                .await;
            let page = match answer {
                Err(fault) if fault.class == Class::Unsupported => return Ok(None),
                answer => answer?,
            };
            for upload in page.uploads() {
                let key = upload.key().and_then(|key| key.strip_prefix(&self.place.prefix));
                let (Some(key), Some(id)) = (key, upload.upload_id()) else { continue };
                let begun = upload.initiated().and_then(|time| Timestamp::from_second(time.secs()).ok());
                all.push(Pending { key: key.to_owned(), id: id.to_owned(), begun });
            }
            at_key = page.next_key_marker().map(str::to_owned);
            at_id = page.next_upload_id_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || at_key.is_none() || all.len() > MAX_UPLOADS {
                return Ok(Some(all));
            }
        }
    }
}
