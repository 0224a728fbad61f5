//! What happens to the bytes between the stream and the store: summed, compressed, encrypted, and all of it back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc;

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};

use super::cut::{Cutter, Layout};

/// Bytes moved at once: small enough for the cache of a core.
const CHUNK: usize = 256 * 1024;
/// Chunks that are read ahead of what is done with them.
const AHEAD: usize = 2;
/// zstd cuts its work into jobs of this size, one a core: it bounds the memory of a host of many cores.
const JOB: u32 = 2 * 1024 * 1024;
/// More workers than this are not what a host of databases wants to give.
const MAX_WORKERS: u32 = 16;

/// How to store.
#[derive(Clone, Default)]
pub struct Recipe {
    /// Level of zstd, if the bytes are to be compressed.
    pub level: Option<i32>,
    /// Who can read it, if the bytes are to be encrypted.
    pub recipients: Vec<age::x25519::Recipient>,
}

impl Recipe {
    /// Whether the bytes are stored as they are.
    pub fn is_plain(&self) -> bool {
        self.level.is_none() && self.recipients.is_empty()
    }
}

enum Locked {
    Open(Cutter),
    Age(StreamWriter<Cutter>),
}

impl Write for Locked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Open(out) => out.write(bytes),
            Self::Age(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stages {
    Plain(Locked),
    Zstd(zstd::Encoder<'static, Locked>),
}

impl Stages {
    fn new(recipe: &Recipe, cutter: Cutter) -> io::Result<Self> {
        let locked = if recipe.recipients.is_empty() {
            Locked::Open(cutter)
        } else {
            let recipients = recipe.recipients.iter().map(|one| one as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
            Locked::Age(encryptor.wrap_output(cutter)?)
        };
        let Some(level) = recipe.level else { return Ok(Self::Plain(locked)) };
        let mut encoder = zstd::Encoder::new(locked, level)?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        encoder.include_checksum(true)?;
        if cores > 1 {
            encoder.multithread(cores.min(MAX_WORKERS))?;
            encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB))?;
        }
        Ok(Self::Zstd(encoder))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Layout> {
        let locked = match self {
            Self::Plain(locked) => locked,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        match locked {
            Locked::Open(cutter) => cutter,
            Locked::Age(writer) => writer.finish()?,
        }
        .finish()
    }
}

/// What went in.
pub struct IngestResult {
    /// Bytes that were read.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// What became of them.
    pub layout: Layout,
}

/// Which side of the pump failed.
#[derive(Debug)]
pub enum StreamError {
    /// The stream that is read.
    Source(io::Error),
    /// What is done with it.
    Sink(io::Error),
    /// None of the keys opens it.
    Key,
}

/// Moves the stream to its end; `seen` is told of each piece.
///
/// This thread reads and sums; what is done with the bytes is done by another, a few chunks behind.
pub fn ingest(
    source: &mut dyn Read,
    recipe: &Recipe,
    cutter: Cutter,
    mut seen: impl FnMut(u64),
    sealed: impl FnOnce(u64) -> io::Result<()>,
) -> Result<IngestResult, StreamError> {
    let mut stages = Stages::new(recipe, cutter).map_err(StreamError::Sink)?;
    let mut sum = Sha256::new();
    let mut size = 0u64;
    let (feed, chunks) = mpsc::sync_channel::<(Vec<u8>, usize)>(AHEAD);
    let (back, used) = mpsc::channel();
    let stages = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for (chunk, count) in chunks {
                stages.write_all(chunk.get(..count).unwrap_or_default())?;
                // The last ones are not used again.
                let _ = back.send(chunk);
            }
            Ok(stages)
        });
        loop {
            let mut chunk = used.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
            let count = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StreamError::Source(error)),
            };
            sum.update(chunk.get(..count).unwrap_or_default());
            size += count as u64;
            seen(count as u64);
            // If nobody takes it, the writer has failed, and says why.
            if feed.send((chunk, count)).is_err() {
                break;
            }
        }
        drop(feed);
        let died = |_| io::Error::other("the thread that stores has died");
        writer.join().map_err(died).flatten().map_err(StreamError::Sink)
    })?;
    // The end of a stream is a success only if whoever wrote it says so; until then its last part is held back.
    sealed(size).map_err(StreamError::Source)?;
    let layout = stages.finish().map_err(StreamError::Sink)?;
    Ok(IngestResult { size, sha256: hex::encode(sum.finalize()), layout })
}

/// Size and SHA-256 of a stream.
pub fn digest(source: &mut dyn Read, mut seen: impl FnMut(u64)) -> io::Result<(u64, String)> {
    let mut sum = Sha256::new();
    let mut size = 0u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok((size, hex::encode(sum.finalize()))),
            Ok(count) => {
                sum.update(chunk.get(..count).unwrap_or_default());
                size += count as u64;
                seen(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What came out.
#[derive(Debug)]
pub struct Given {
    /// Plain bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: String,
}

/// Turns stored bytes into plain ones and writes them.
pub fn give_out(
    stored: impl BufRead + 'static,
    compressed: bool,
    identities: Option<&[age::x25519::Identity]>,
    out: &mut dyn Write,
    mut seen: impl FnMut(u64),
) -> Result<Given, StreamError> {
    let open: Box<dyn BufRead> = match identities {
        None => Box::new(stored),
        Some(identities) => {
            let decryptor =
                age::Decryptor::new(stored).map_err(|error| StreamError::Source(io::Error::other(error)))?;
            let identities = identities.iter().map(|one| one as &dyn age::Identity);
            let reader = decryptor.decrypt(identities).map_err(|error| match error {
                age::DecryptError::NoMatchingKeys => StreamError::Key,
                error => StreamError::Source(io::Error::other(error)),
            })?;
            Box::new(BufReader::with_capacity(CHUNK, reader))
        }
    };
    let mut plain: Box<dyn BufRead> = if compressed {
        let decoder = zstd::Decoder::with_buffer(open).map_err(StreamError::Source)?;
        Box::new(BufReader::with_capacity(CHUNK, decoder))
    } else {
        open
    };
    let mut sum = Sha256::new();
    let mut size = 0u64;
    loop {
        let bytes = match plain.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StreamError::Source(error)),
        };
        let count = bytes.len();
        sum.update(bytes);
        out.write_all(bytes).map_err(StreamError::Sink)?;
        plain.consume(count);
        size += count as u64;
        seen(count as u64);
    }
    Ok(Given { size, sha256: hex::encode(sum.finalize()) })
}
