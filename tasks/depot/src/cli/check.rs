//! `check`: tries what the bucket and the keys can do, with small objects of its own, and says what follows.

use bytes::Bytes;
use serde_json::json;
use ulid::Ulid;

use super::table::table;
use super::{Context, print, print_json};
use crate::error::Error;
use crate::name::Name;
use crate::store::fault::{Class, Fault};
use crate::store::objects::Terms;
use crate::stream::schedule::SMALLEST_PART;

#[derive(clap::Args)]
pub(super) struct Check {}

/// What came of one try.
struct Row {
    what: &'static str,
    /// `yes`, `no`, or `failed` for what nothing works without.
    result: &'static str,
    text: String,
}

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

    async fn put(&self, key: &str, text: &'static [u8], terms: &Terms, new: bool) -> Result<bool, Fault> {
        let crc = crc32c::crc32c(text);
        let sent = self.context.store.put(key, Bytes::from_static(text), crc, terms, new).await?;
        Ok(sent.proved)
    }

    async fn run(&mut self) -> Result<(), Error> {
        let store = self.context.store.clone();
        let terms = self.context.settings.terms(store.clock().now())?;
        let plain = Terms { lock: None, ..terms.hot() };
        let key = self.name.data("check");
        let listed = store.list(&self.name.data("")).await;
        match listed {
            Err(fault) if matches!(fault.class, Class::Config | Class::UnknownKey | Class::Elsewhere(_)) => {
                return Err(fault.error("listing"));
            }
            listed => drop(self.needed("list", "s3:ListBucket", listed)),
        }
        self.clock();
        let sent = self.put(&key, b"check", &plain, false).await;
        let Some(proved) = self.needed("write", "s3:PutObject", sent) else { return Ok(()) };
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
        self.class(&terms).await;
        self.lock(&terms).await;
        let removed = store.remove(&key, None).await;
        self.needed("delete", "s3:DeleteObject", removed);
        Ok(())
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
    async fn conditions(&mut self, key: &str, terms: &Terms) {
        match self.put(key, b"check", terms, true).await {
            Err(fault) if fault.class == Class::Exists => {
                self.row("conditions", "yes", "one writer takes a name")
            }
            Ok(_) => self.row(
                "conditions",
                "no",
                "If-None-Match is ignored: two puts of one name are told apart by looking again",
            ),
            Err(fault) if fault.class == Class::Unsupported => {
                self.row(
                    "conditions",
                    "no",
                    "If-None-Match is refused: each put looks again after two seconds",
                );
            }
            Err(fault) => self.row("conditions", "failed", why(fault, "s3:PutObject")),
        }
    }

    async fn multipart(&mut self, terms: &Terms) {
        let store = self.context.store.clone();
        let key = self.name.data("parts");
        let begun = store.begin(&key, terms, true).await;
        let Some(id) = self.needed("multipart", "s3:PutObject", begun) else { return };
        // Two sizes, as growing parts have; the last may be of any.
        let unit = usize::try_from(SMALLEST_PART).unwrap_or_default();
        let mut parts = Vec::new();
        for (number, size) in [(1, unit), (2, 2 * unit), (3, 1)] {
            let bytes = Bytes::from(vec![0; size]);
            let crc = crc32c::crc32c(&bytes);
            match store.part(&key, &id, number, bytes, crc).await {
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
                self.row("parts that grow", "no", format!("say `parts: even` ({})", fault.text));
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

    async fn class(&mut self, terms: &Terms) {
        let Some(class) = terms.class.clone() else { return };
        let store = self.context.store.clone();
        let key = self.name.data("class");
        match self.put(&key, b"check", &Terms { lock: None, ..terms.clone() }, false).await {
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

    /// An object that is locked stays for days: locks are looked at, and tried only where the configuration asks.
    async fn lock(&mut self, terms: &Terms) {
        let bucket = self.context.store.locks().await;
        match (bucket, &terms.lock) {
            (Ok(true), _) => self.row("object lock", "yes", "the bucket can lock objects"),
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
        Err(Error::Store(format!("this bucket cannot be used so: {}", failed.join(", "))))
    }
}
