//! The end of the way in: cuts the stored bytes into parts, sums each block, and hands parts to the uploader.
//!
//! A part's memory is taken before its first byte is written and given back when its upload is over. While the uploader
//! is slow, writing waits here, and so does whoever reads the stream.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::buffer_pool::{Buffer, BufferPool};
use super::schedule::{MAX_PARTS, Sizes};

/// One part, ready to be uploaded.
#[derive(Debug)]
pub struct Part {
    /// Counted from 1.
    pub number: u32,
    /// The bytes; their memory is given back with the last clone.
    pub bytes: Bytes,
    /// CRC-32C of the bytes.
    pub crc: u32,
    /// Nothing follows.
    pub last: bool,
}

/// What the manifest says of the stored bytes.
#[derive(Debug, Default)]
pub struct Layout {
    /// Bytes in all.
    pub size: u64,
    /// Runs of parts of one size.
    pub parts: Vec<(u32, u64)>,
    /// CRC-32C of each block.
    pub sums: Vec<u32>,
}

/// Cuts what is written into parts.
pub struct Cutter {
    sizes: Sizes,
    pool: BufferPool,
    handle: Handle,
    out: mpsc::Sender<Part>,
    /// The part being filled, its full size and its sum up to the last whole block.
    filling: Option<(Buffer, u64, u32)>,
    /// Begin of the block in the part being filled, and its sum.
    block: (usize, u32),
    number: u32,
    layout: Layout,
    pace: Option<Pace>,
}

/// Holds the stored bytes below a rate.
struct Pace {
    rate: u64,
    begun: Instant,
    sent: u64,
}

impl Pace {
    fn wait(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
    }
}

impl Cutter {
    /// A cutter that takes its parts' memory from the pool.
    pub fn new(
        sizes: Sizes,
        pool: BufferPool,
        handle: Handle,
        out: mpsc::Sender<Part>,
        rate: Option<u64>,
    ) -> Self {
        let pace = rate.map(|rate| Pace { rate: rate.max(1), begun: Instant::now(), sent: 0 });
        let layout = Layout::default();
        Self { sizes, pool, handle, out, filling: None, block: (0, 0), number: 0, layout, pace }
    }

    /// Hands over the last part and says what there was.
    pub fn finish(mut self) -> io::Result<Layout> {
        if self.filling.is_none() && self.number == 0 {
            self.begin()?;
        }
        self.hand_over(true)?;
        Ok(self.layout)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.number += 1;
        let size = self.sizes.part(self.number).ok_or_else(|| {
            let most = self.sizes.max_bytes();
            io::Error::other(format!(
                "the stream is longer than the {most} bytes that {MAX_PARTS} parts of this size hold: use --expect BYTES"
            ))
        })?;
        self.filling = Some((self.pool.take_blocking(size, &self.handle)?, size, 0));
        self.block = (0, 0);
        Ok(())
    }

    /// Ends the block at the end of what is filled.
    fn end_block(&mut self) {
        if let Some((buffer, _, sum)) = &mut self.filling {
            let length = buffer.len() - self.block.0;
            if length > 0 {
                *sum = crc32c::crc32c_combine(*sum, self.block.1, length);
                self.layout.sums.push(self.block.1);
            }
            self.block = (buffer.len(), 0);
        }
    }

    fn hand_over(&mut self, last: bool) -> io::Result<()> {
        self.end_block();
        let Some((buffer, _, crc)) = self.filling.take() else { return Ok(()) };
        let size = buffer.len() as u64;
        self.layout.size += size;
        match self.layout.parts.last_mut() {
            Some((count, each)) if *each == size => *count += 1,
            _ if size > 0 => self.layout.parts.push((1, size)),
            _ => {}
        }
        let part = Part { number: self.number, bytes: buffer.freeze(), crc, last };
        let ended = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended");
        self.out.blocking_send(part).map_err(ended)
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        // A full part is handed over only when more comes, so that the last one is known as the last.
        if self.filling.as_ref().is_some_and(|(buffer, size, _)| buffer.len() as u64 == *size) {
            self.hand_over(false)?;
        }
        if self.filling.is_none() {
            self.begin()?;
        }
        let block = usize::try_from(self.sizes.block).unwrap_or(usize::MAX);
        let Some((buffer, _, _)) = &mut self.filling else { return Ok(0) };
        let left = block - (buffer.len() - self.block.0);
        let taken = bytes.get(..left).unwrap_or(bytes);
        buffer.extend_from_slice(taken);
        self.block.1 = crc32c::crc32c_append(self.block.1, taken);
        if taken.len() == left {
            self.end_block();
        }
        let count = taken.len();
        if let Some(pace) = &mut self.pace {
            pace.wait(count);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
