//! `check`: tries what the bucket and the keys can do, with small objects of its own, and says what follows.

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::json;
use ulid::Ulid;

use super::table::table;
use super::{Context, print, print_json};
use crate::error::Error;
use crate::name::Name;
use crate::store::fault::{Class, Fault};
use crate::store::objects::ObjectOptions;
use crate::store::uploads::Outgoing;
use crate::store::{Checksums, Store};
use crate::stream::schedule::SMALLEST_PART;

#[derive(clap::Args)]
pub(super) struct Check {}

/// The result of one try.
struct Row {
    what: &'static str,
    /// `yes`, `no`, or `failed` for what nothing works without.
    result: &'static str,
    text: String,
}

/// For how long an object is locked to try locks.
const LOCK: SignedDuration = SignedDuration::from_secs(5);

/// What is tried, and what it is needed for.
struct Tries<'a> {
    context: &'a Context,
    name: Name,
    rows: Vec<Row>,
}

/// Which permission a refused request lacks, and what else a failure means.
fn why(fault: Fault, permission: &str) -> String {
    match fault.class {
        Class::Denied => format!("the permission {permission} is missing ({})", fault.text),
        _ => fault.error("the server said").to_string(),
    }
}

impl Tries<'_> {
    fn row(&mut self, what: &'static str, result: &'static str, text: impl Into<String>) {
        self.rows.push(Row { what, result, text: text.into() });
    }

    /// Notes a try that nothing works without; `None` if it failed.
    fn needed<T>(&mut self, what: &'static str, permission: &str, answer: Result<T, Fault>) -> Option<T> {
        match answer {
            Ok(done) => {
                self.row(what, "yes", "");
                Some(done)
            }
            Err(fault) => {
                self.row(what, "failed", why(fault, permission));
                None
            }
        }
    }

    async fn put(
        &self,
        key: &str,
        text: &'static [u8],
        object_options: &ObjectOptions,
        new: bool,
    ) -> Result<bool, Fault> {
        let sent = self.context.store.put(key, Bytes::from_static(text), object_options, new).await?;
        Ok(sent.proved)
    }

    async fn run(&mut self) -> Result<(), Error> {
        let store = self.context.store.clone();
        let object_options = self.context.settings.object_options(store.clock().now())?;
        let plain = ObjectOptions { lock: None, ..object_options.hot() };
        let key = self.name.data("check");
        let listed = store.list(&self.name.data("")).await;
        match listed {
            Err(fault) if matches!(fault.class, Class::Config | Class::UnknownKey | Class::Elsewhere(_)) => {
                return Err(fault.error("listing"));
            }
            listed => drop(self.needed("list", "s3:ListBucket", listed)),
        }
        self.clock();
        let proved = match self.put(&key, b"check", &plain, false).await {
            Ok(proved) => proved,
            Err(fault) => {
                let text = self.why_not_written(fault, &key, &plain).await;
                self.row("write", "failed", text);
                return Ok(());
            }
        };
        self.row("write", "yes", "");
        if proved {
            self.row("checksums in answers", "yes", "each put is verified by them");
        } else {
            self.row("checksums in answers", "no", "each put is verified by reading a sample back");
        }
        let read = store.small(&key, 64).await;
        if let Some(text) = self.needed("read", "s3:GetObject", read)
            && text.as_deref() != Some(b"check")
        {
            self.row("read", "failed", "what came back is not what was written");
        }
        self.conditions(&key, &plain).await;
        self.multipart(&plain).await;
        self.class(&object_options).await;
        self.lock(&object_options).await;
        let removed = store.remove(&key, None).await;
        self.needed("delete", "s3:DeleteObject", removed);
        Ok(())
    }

    /// Tries to write with less, to find out what the server or the keys do not allow.
    async fn why_not_written(&self, fault: Fault, key: &str, options: &ObjectOptions) -> String {
        let store = &self.context.store;
        let works = async |store: &Store, options: &ObjectOptions| {
            let sent = store.put(key, Bytes::from_static(b"check"), options, false).await;
            if sent.is_ok() {
                // What stays is an object of five bytes, under a name of its own.
                let _ = store.remove(key, None).await;
            }
            sent.is_ok()
        };
        let denied = fault.class == Class::Denied;
        if matches!(fault.class, Class::Unsupported | Class::Fatal | Class::Transient) {
            for (checksums, name) in [(Checksums::Md5, "md5"), (Checksums::None, "none")] {
                if works(&store.with_checksums(checksums), options).await {
                    return format!("set `checksums: {name}` ({})", fault.text);
                }
            }
        }
        let without_tags = ObjectOptions { tags: None, ..options.clone() };
        if options.tags.is_some() && works(store, &without_tags).await {
            return match denied {
                true => format!("the permission s3:PutObjectTagging is missing ({})", fault.text),
                false => format!("remove `tags`: the server does not take them ({})", fault.text),
            };
        }
        let without_sse = ObjectOptions { sse: None, kms_key: None, ..options.clone() };
        if options.sse.is_some() && works(store, &without_sse).await {
            return match denied {
                true => format!(
                    "a permission for the key of `sse` is missing, such as kms:GenerateDataKey ({})",
                    fault.text
                ),
                false => format!("change `sse`: the server does not take it ({})", fault.text),
            };
        }
        why(fault, "s3:PutObject")
    }

    fn clock(&mut self) {
        let clock = self.context.store.clock();
        match (clock.wrong(), clock.trusted("")) {
            (Some(wrong), _) => {
                self.row("clock", "failed", format!("{wrong}: until then nothing is pruned or cleaned"))
            }
            (None, Err(_)) => {
                self.row("clock", "failed", "answers have no date: nothing is pruned or cleaned")
            }
            (None, Ok(_)) => self.row("clock", "yes", "within five minutes of the server's"),
        }
    }

    /// Whether a name can be taken by one writer only.
    async fn conditions(&mut self, key: &str, object_options: &ObjectOptions) {
        match self.put(key, b"check", object_options, true).await {
            Err(fault) if fault.class == Class::Exists => {
                self.row("conditions", "yes", "one writer takes a name")
            }
            Ok(_) => self.row(
                "conditions",
                "no",
                "If-None-Match is ignored: each put checks again whether it owns the name",
            ),
            Err(fault) if fault.class == Class::Unsupported => {
                self.row(
                    "conditions",
                    "no",
                    "If-None-Match is refused: each put checks again after two seconds",
                );
            }
            Err(fault) => self.row("conditions", "failed", why(fault, "s3:PutObject")),
        }
    }

    async fn multipart(&mut self, object_options: &ObjectOptions) {
        let store = self.context.store.clone();
        let key = self.name.data("parts");
        let begun = store.begin(&key, object_options, true).await;
        let Some(id) = self.needed("multipart", "s3:PutObject", begun) else { return };
        // Two sizes, as growing parts have; the last may be of any.
        let unit = usize::try_from(SMALLEST_PART).unwrap_or_default();
        let mut parts = Vec::new();
        for (number, size) in [(1, unit), (2, 2 * unit), (3, 1)] {
            let bytes = Bytes::from(vec![0; size]);
            let crc = crc32c::crc32c(&bytes);
            match store.part(&key, &id, Outgoing { number, bytes, crc }).await {
                Ok(part) => parts.push(part),
                Err(fault) => {
                    self.row("parts", "failed", why(fault, "s3:PutObject"));
                    break;
                }
            }
        }
        let completed = if parts.len() == 3 { Some(store.complete(&key, &id, &parts).await) } else { None };
        match completed {
            Some(Ok(())) => {
                self.row("parts that grow", "yes", "parts: growing");
                let removed = store.remove(&key, None).await;
                if let Err(fault) = removed {
                    self.row("delete", "failed", why(fault, "s3:DeleteObject"));
                }
            }
            Some(Err(fault)) => {
                self.row("parts that grow", "no", format!("set `parts: even` ({})", fault.text));
                let aborted = store.abort(&key, &id).await;
                self.needed("abort", "s3:AbortMultipartUpload", aborted);
            }
            None => {
                let aborted = store.abort(&key, &id).await;
                self.needed("abort", "s3:AbortMultipartUpload", aborted);
            }
        }
        match store.pending(&self.name.data("")).await {
            Ok(Some(_)) => self.row("list uploads", "yes", "what other hosts left is cleared away"),
            Ok(None) => {
                self.row("list uploads", "no", "let the bucket abort old uploads: see docs/backups.md")
            }
            Err(fault) => self.row("list uploads", "no", why(fault, "s3:ListBucketMultipartUploads")),
        }
    }

    async fn class(&mut self, object_options: &ObjectOptions) {
        let Some(class) = object_options.class.clone() else { return };
        let store = self.context.store.clone();
        let key = self.name.data("class");
        match self.put(&key, b"check", &ObjectOptions { lock: None, ..object_options.clone() }, false).await {
            Ok(_) => match store.head(&key).await {
                Ok(Some(found)) if found.class == class => self.row("storage class", "yes", class),
                Ok(found) => {
                    let got = found.map(|found| found.class).unwrap_or_default();
                    self.row("storage class", "no", format!("{class} was asked for, the server says {got}"));
                }
                Err(fault) => self.row("storage class", "failed", why(fault, "s3:GetObject")),
            },
            Err(fault) => self.row("storage class", "failed", why(fault, "s3:PutObject")),
        }
        let _ = store.remove(&key, None).await;
    }

    /// Locks are tried only if the configuration asks for them, and for some seconds.
    async fn lock(&mut self, object_options: &ObjectOptions) {
        let bucket = self.context.store.locks().await;
        match (bucket, &object_options.lock) {
            (Ok(true), None) => self.row("object lock", "yes", "the bucket can lock objects"),
            (Ok(true), Some((mode, _))) => self.locked(mode.clone(), object_options).await,
            (Ok(false), None) => {
                self.row("object lock", "no", "not enabled in this bucket, and not asked for")
            }
            (Ok(false), Some(_)) => {
                self.row("object lock", "failed", "`lock` is configured, and the bucket was made without it");
            }
            (Err(fault), lock) => {
                let result = if lock.is_some() { "failed" } else { "no" };
                self.row("object lock", result, why(fault, "s3:GetBucketObjectLockConfiguration"));
            }
        }
    }
}

impl Tries<'_> {
    /// Writes an object that is locked for some seconds, and removes it after them.
    async fn locked(&mut self, mode: String, options: &ObjectOptions) {
        let store = self.context.store.clone();
        let key = self.name.data("lock");
        let now = store.clock().now();
        let until = now.checked_add(LOCK).unwrap_or(now);
        let options = ObjectOptions { lock: Some((mode, until)), ..options.hot() };
        match self.put(&key, b"check", &options, false).await {
            Err(fault) => self.row("object lock", "failed", why(fault, "s3:PutObjectRetention")),
            Ok(_) => match store.head(&key).await {
                Ok(Some(found)) if found.held.until.is_some() => {
                    tokio::time::sleep(LOCK.unsigned_abs() + Duration::from_secs(1)).await;
                    match store
                        .remove(&key, found.version.filter(|version| version != "null").as_deref())
                        .await
                    {
                        Ok(()) => self.row("object lock", "yes", "objects are locked as configured"),
                        Err(fault) => {
                            self.row("object lock", "failed", why(fault, "s3:DeleteObjectVersion"));
                        }
                    }
                }
                Ok(_) => {
                    let _ = store.remove(&key, None).await;
                    let text = "the server shows no lock: either it ignores `lock`, or the keys lack s3:GetObjectRetention";
                    self.row("object lock", "no", text);
                }
                Err(fault) => self.row("object lock", "failed", why(fault, "s3:GetObject")),
            },
        }
    }
}

impl Check {
    pub(super) async fn run(self, context: &Context) -> Result<(), Error> {
        let name = format!("check-{}", Ulid::generate()).parse().map_err(Error::Local)?;
        let mut tries = Tries { context, name, rows: Vec::new() };
        tries.run().await?;
        let rows = tries.rows;
        if context.settings.json {
            let all: Vec<_> = rows
                .iter()
                .map(|row| json!({"what": row.what, "result": row.result, "text": row.text}))
                .collect();
            print_json(&all)?;
        } else {
            let rows: Vec<Vec<String>> = rows
                .iter()
                .map(|row| vec![row.what.to_owned(), row.result.to_owned(), row.text.clone()])
                .collect();
            print(&table(&["WHAT", "RESULT", ""], &rows));
        }
        let failed: Vec<&str> =
            rows.iter().filter(|row| row.result == "failed").map(|row| row.what).collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::Store(format!(
            "this bucket cannot be used with this configuration: {}",
            failed.join(", ")
        )))
    }
}
