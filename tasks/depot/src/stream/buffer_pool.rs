//! The memory of a transfer: a budget of bytes, and buffers that are used again.
//!
//! A buffer's memory is taken before its first byte is there and given back with its last reader, so whoever fills
//! buffers waits for whoever empties them. By default the budget follows the buffers: some of the size that is asked
//! for. Short streams have small parts and take little; long ones need large parts, and some of them in flight.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in this many bytes.
const GRAIN: u64 = 1024;
/// So many buffers fit in by default: one is filled, or emptied, while the others are on their way.
const BUFFERS: u64 = 6;
/// By default large buffers are fewer than that, so that they do not take more than this.
const MAX_BYTES: u64 = 240 * 1024 * 1024;

/// A pool of buffers.
#[derive(Clone)]
pub struct BufferPool {
    free: Arc<Semaphore>,
    inner: Arc<Mutex<Inner>>,
    /// The budget, if one was said.
    said: Option<u64>,
}

#[derive(Default)]
struct Inner {
    /// Buffers that nobody uses.
    idle: Vec<Vec<u8>>,
    /// The budget.
    grains: u64,
}

/// Bytes with the right to be in memory.
pub struct Buffer {
    bytes: Vec<u8>,
    pool: BufferPool,
    _permit: OwnedSemaphorePermit,
}

impl BufferPool {
    /// A pool of so many bytes; when not said, for some buffers of the size that is asked for.
    pub fn new(bytes: Option<u64>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(0)),
            inner: Arc::default(),
            said: bytes.map(|bytes| bytes / GRAIN),
        }
    }

    /// Nobody will give memory back any more: whoever waits for it gets an error.
    pub fn close(&self) {
        self.free.close();
    }

    /// An empty buffer for so many bytes, when there is memory for it.
    pub async fn take(&self, size: u64) -> io::Result<Buffer> {
        let grains = size.div_ceil(GRAIN);
        self.grow(grains)?;
        let wanted = u32::try_from(grains).map_err(io::Error::other)?;
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted).await;
        let permit =
            permit.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the transfer has ended"))?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Buffers of an earlier, smaller step are let go.
        inner.idle.retain(|bytes| bytes.capacity() >= size);
        let mut bytes = inner.idle.pop().unwrap_or_default();
        drop(inner);
        bytes.try_reserve_exact(size).map_err(io::Error::other)?;
        Ok(Buffer { bytes, pool: self.clone(), _permit: permit })
    }

    /// The same for a thread that may wait.
    pub fn take_blocking(&self, size: u64, handle: &Handle) -> io::Result<Buffer> {
        handle.block_on(self.take(size))
    }

    /// How many buffers of so many bytes fit in.
    pub fn room(&self, size: u64) -> u64 {
        let each = size.div_ceil(GRAIN).max(1);
        self.budget(each) / each
    }

    /// The grains for buffers of so many each.
    fn budget(&self, each: u64) -> u64 {
        let wanted = self.said.unwrap_or_else(|| (BUFFERS * each).min(MAX_BYTES / GRAIN));
        // Two at least, whatever was said: one is filled while the other is sent.
        wanted.max(2 * each)
    }

    /// Sees that the budget is right for buffers of so many grains.
    fn grow(&self, each: u64) -> io::Result<()> {
        let wanted = self.budget(each);
        let mut inner = self.inner.lock().map_err(|_| io::Error::other("a writer has died"))?;
        let more = usize::try_from(wanted.saturating_sub(inner.grains)).map_err(io::Error::other)?;
        self.free.add_permits(more);
        inner.grains += more as u64;
        Ok(())
    }
}

impl Buffer {
    /// As bytes that can be shared; the memory is given back with the last of them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl std::ops::Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut inner) = self.pool.inner.lock() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            inner.idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// How many buffers of a size fit in at once.
    async fn fit(pool: &BufferPool, size: u64) -> usize {
        let mut held = Vec::new();
        while let Ok(buffer) =
            tokio::time::timeout(std::time::Duration::from_millis(20), pool.take(size)).await
        {
            held.push(buffer.unwrap());
        }
        held.len()
    }

    #[tokio::test]
    async fn the_budget_follows_the_buffers_and_has_a_bound() {
        let pool = BufferPool::new(None);
        assert_eq!(fit(&pool, MIB).await, 6);
        assert_eq!(fit(&pool, 5 * MIB).await, 6);
        assert_eq!(fit(&pool, 60 * MIB).await, 4, "240 MiB");
        assert_eq!(fit(&pool, 300 * MIB).await, 2);
        assert_eq!([MIB, 60 * MIB, 300 * MIB].map(|size| pool.room(size)), [6, 4, 2]);
        let pool = BufferPool::new(Some(20 * MIB));
        assert_eq!(fit(&pool, 5 * MIB).await, 4);
        assert_eq!(fit(&pool, 16 * MIB).await, 2, "two always");
        assert_eq!([5 * MIB, 16 * MIB].map(|size| pool.room(size)), [4, 2]);
    }

    #[tokio::test]
    async fn buffers_are_used_again_and_closing_ends_the_waiting() {
        let pool = BufferPool::new(Some(2 * MIB));
        let mut buffer = pool.take(MIB).await.unwrap();
        buffer.extend_from_slice(b"old");
        let at = buffer.as_ptr();
        drop(buffer.freeze());
        let again = pool.take(MIB).await.unwrap();
        assert!(again.is_empty() && again.as_ptr() == at);
        let _other = pool.take(MIB).await.unwrap();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take(MIB).await.map(|_| ()) }
        });
        pool.close();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
