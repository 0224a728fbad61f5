//! The end of the way in: cuts the stored bytes into parts, sums each block, and hands parts to the uploader.
//!
//! Memory is bounded by a budget of bytes: a part's room is taken before its first byte is written and given back
//! when its upload is over. While the uploader is slow, writing waits here, and so does whoever reads the stream.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::schedule;

/// The budget is counted in this many bytes.
const GRAIN: u64 = 1024;

/// One part, ready to be uploaded.
#[derive(Debug)]
pub struct Part {
    /// Counted from 1.
    pub number: u32,
    /// The bytes; their room is given back with the last clone.
    pub bytes: Bytes,
    /// CRC-32C of the bytes.
    pub crc: u32,
    /// Nothing follows.
    pub last: bool,
}

/// Room for parts: a budget of bytes, and buffers that are used again.
#[derive(Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    used: Arc<Mutex<Vec<Vec<u8>>>>,
    handle: Handle,
    bytes: u64,
}

struct Buffer {
    bytes: Vec<u8>,
    room: Room,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut used) = self.room.used.lock() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            used.push(bytes);
        }
    }
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: u64, handle: Handle) -> Self {
        let permits = usize::try_from(bytes / GRAIN).unwrap_or(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(permits)), used: Arc::default(), handle, bytes }
    }

    /// Nobody will give room back any more: whoever waits for it gets an error.
    pub fn close(&self) {
        self.free.close();
    }

    fn take(&mut self, size: u64) -> io::Result<Buffer> {
        // A part larger than the whole budget is the price of a very long stream: then two fit, no more.
        if 2 * size > self.bytes {
            let more = usize::try_from((2 * size - self.bytes) / GRAIN).unwrap_or(0);
            self.free.add_permits(more);
            self.bytes += more as u64 * GRAIN;
        }
        let wanted = u32::try_from(size.div_ceil(GRAIN)).map_err(io::Error::other)?;
        let permit = self
            .handle
            .block_on(Arc::clone(&self.free).acquire_many_owned(wanted))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has ended"))?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let mut used = self.used.lock().map_err(|_| io::Error::other("a writer has died"))?;
        // Buffers of an earlier, smaller step are let go.
        used.retain(|bytes| bytes.capacity() >= size);
        let bytes = used.pop().unwrap_or_default();
        drop(used);
        let mut buffer = Buffer { bytes, room: self.clone(), _permit: permit };
        buffer.bytes.try_reserve_exact(size).map_err(io::Error::other)?;
        Ok(buffer)
    }
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
    unit: u64,
    room: Room,
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
    /// A cutter with blocks, and first parts, of `unit` bytes.
    pub fn new(unit: u64, room: Room, out: mpsc::Sender<Part>, rate: Option<u64>) -> Self {
        let pace = rate.map(|rate| Pace { rate: rate.max(1), begun: Instant::now(), sent: 0 });
        let layout = Layout::default();
        Self { unit, room, out, filling: None, block: (0, 0), number: 0, layout, pace }
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
        let size = schedule::part_size(self.unit, self.number).ok_or_else(|| {
            let most = schedule::most_bytes(self.unit);
            io::Error::other(format!(
                "the stream is longer than the {most} bytes that {} parts of this size hold: say --expect BYTES",
                schedule::MOST_PARTS
            ))
        })?;
        self.filling = Some((self.room.take(size)?, size, 0));
        self.block = (0, 0);
        Ok(())
    }

    /// Ends the block at the end of what is filled.
    fn end_block(&mut self) {
        if let Some((buffer, _, sum)) = &mut self.filling {
            let length = buffer.bytes.len() - self.block.0;
            if length > 0 {
                *sum = crc32c::crc32c_combine(*sum, self.block.1, length);
                self.layout.sums.push(self.block.1);
            }
            self.block = (buffer.bytes.len(), 0);
        }
    }

    fn hand_over(&mut self, last: bool) -> io::Result<()> {
        self.end_block();
        let Some((buffer, _, crc)) = self.filling.take() else { return Ok(()) };
        let size = buffer.bytes.len() as u64;
        self.layout.size += size;
        match self.layout.parts.last_mut() {
            Some((count, each)) if *each == size => *count += 1,
            _ if size > 0 => self.layout.parts.push((1, size)),
            _ => {}
        }
        let part = Part { number: self.number, bytes: Bytes::from_owner(buffer), crc, last };
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
        if self.filling.as_ref().is_some_and(|(buffer, size, _)| buffer.bytes.len() as u64 == *size) {
            self.hand_over(false)?;
        }
        if self.filling.is_none() {
            self.begin()?;
        }
        let unit = self.unit as usize;
        let Some((buffer, _, _)) = &mut self.filling else { return Ok(0) };
        let room = unit - (buffer.bytes.len() - self.block.0);
        let taken = bytes.get(..room).unwrap_or(bytes);
        buffer.bytes.extend_from_slice(taken);
        self.block.1 = crc32c::crc32c_append(self.block.1, taken);
        if taken.len() == room {
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
