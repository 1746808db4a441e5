//! The memory of received packets: boxed bytes that return to their card's pool when they are dropped, so that a
//! packet costs neither an allocation nor clearing.

use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};
use core::{
    fmt,
    ops::{Deref, DerefMut, Range},
};

use machine::sync::SpinLock;

/// A stock of buffers of one size.
pub struct BufferPool {
    size: usize,
    most: usize,
    free: SpinLock<Vec<Box<[u8]>>>,
}

impl BufferPool {
    /// A pool of buffers of `size` bytes that keeps up to `most` unused ones.
    pub fn new(size: usize, most: usize) -> Arc<BufferPool> {
        Arc::new(BufferPool {
            size,
            most,
            free: SpinLock::new(Vec::new()),
        })
    }

    /// Bytes in each buffer.
    pub fn buffer_size(&self) -> usize {
        self.size
    }

    /// A buffer with arbitrary contents of this pool's past, or `None` when memory is short.
    pub fn take(&self) -> Option<Box<[u8]>> {
        if let Some(buffer) = self.free.lock().pop() {
            return Some(buffer);
        }
        let mut fresh = Vec::new();
        fresh.try_reserve_exact(self.size).ok()?;
        fresh.resize(self.size, 0);
        Some(fresh.into_boxed_slice())
    }

    /// Keeps a buffer for later, or frees it.
    pub fn give(&self, buffer: Box<[u8]>) {
        if buffer.len() != self.size {
            return;
        }
        let mut free = self.free.lock();
        if free.len() < self.most && free.try_reserve(1).is_ok() {
            free.push(buffer);
        }
    }

    /// Frees the unused buffers and returns how many bytes that were.
    pub fn shrink(&self) -> usize {
        let spare = core::mem::take(&mut *self.free.lock());
        spare.len() * self.size
    }
}

/// Bytes of a received packet. Owned; the visible part can be narrowed from both ends.
pub struct RxBuffer {
    bytes: Box<[u8]>,
    visible: Range<usize>,
    pool: Option<Arc<BufferPool>>,
}

impl RxBuffer {
    /// The bytes `visible` of a buffer of `pool`, as far as there are any.
    pub fn pooled(bytes: Box<[u8]>, visible: Range<usize>, pool: Arc<BufferPool>) -> RxBuffer {
        let end = visible.end.min(bytes.len());
        RxBuffer {
            visible: visible.start.min(end)..end,
            bytes,
            pool: Some(pool),
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> RxBuffer {
        RxBuffer::from(bytes.to_vec())
    }

    /// Drops up to `count` bytes from the front.
    pub fn advance(&mut self, count: usize) {
        self.visible.start += count.min(self.visible.len());
    }

    /// Keeps at most the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.visible.end = self.visible.start + len.min(self.visible.len());
    }

    /// Bytes of memory that the buffer holds on to, visible or not.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl From<Vec<u8>> for RxBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        RxBuffer {
            visible: 0..bytes.len(),
            bytes: bytes.into_boxed_slice(),
            pool: None,
        }
    }
}

impl Drop for RxBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give(core::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for RxBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.visible.clone()]
    }
}

impl DerefMut for RxBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.visible.clone()]
    }
}

impl Default for RxBuffer {
    fn default() -> Self {
        RxBuffer::from(vec![])
    }
}

impl fmt::Debug for RxBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RxBuffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = BufferPool::new(64, 1);
        let mut bytes = pool.take().unwrap();
        bytes[7] = 9;
        drop(RxBuffer::pooled(bytes, 4..40, pool.clone()));
        let again = pool.take().unwrap();
        assert_eq!(again[7], 9);
        pool.give(again);
        pool.give(vec![0; 64].into_boxed_slice());
        pool.give(vec![0; 63].into_boxed_slice());
        assert_eq!(pool.shrink(), 64);
    }

    #[test]
    fn narrowing_never_leaves_the_buffer() {
        let pool = BufferPool::new(16, 4);
        let mut buffer = RxBuffer::pooled(pool.take().unwrap(), 12..100, pool.clone());
        assert_eq!(buffer.len(), 4);
        buffer.advance(1);
        buffer.truncate(2);
        assert_eq!(buffer.len(), 2);
        buffer.advance(50);
        assert!(buffer.is_empty());
        assert!(RxBuffer::pooled(vec![0; 4].into(), 9..12, pool).is_empty());
    }
}
