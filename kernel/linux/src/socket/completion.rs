//! What a socket's descriptor adds to a family's own calls: telling the end of sends with `MSG_ZEROCOPY`, and peeking
//! from an offset.

use core::sync::atomic::{AtomicU64, Ordering};

use errno::Result;
use iobuf::Sink;
use net::MsgFlags;

use super::ops::{Control, Received};

/// Sends with `MSG_ZEROCOPY` (Linux's `msg_zerocopy.rst`), numbered from 0. The data was copied when the call
/// returned, and that is what the error queue says: a program whose pages the kernel read later could change them
/// under a checksum, and pinning them costs more than the copy of a few pages.
///
/// All ended in order, so that one range holds what was not told yet: the number after the last in the upper half,
/// the first in the lower.
#[derive(Debug, Default)]
pub struct Completions(AtomicU64);

fn halves(both: u64) -> (u32, u32) {
    (both as u32, (both >> 32) as u32)
}

impl Completions {
    /// One more ended.
    pub fn add(&self) {
        let step = |both: u64| {
            let (first, next) = halves(both);
            // A number of 32 bits that wraps around, as Linux's.
            Some(u64::from(next.wrapping_add(1)) << 32 | u64::from(first))
        };
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
    }

    /// Whether there is something to tell.
    pub fn any(&self) -> bool {
        let (first, next) = halves(self.0.load(Ordering::Acquire));
        first != next
    }

    /// The message that tells of all that ended.
    pub fn take(&self) -> Option<Received> {
        let told = |both: u64| {
            let (first, next) = halves(both);
            (first != next).then_some(u64::from(next) << 32 | u64::from(next))
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, told)
            .ok()?;
        let (first, next) = halves(before);
        Some(Received {
            flags: MsgFlags::ERRQUEUE,
            control: alloc::vec![Control::Sent {
                first,
                last: next.wrapping_sub(1),
            }],
            ..Received::default()
        })
    }
}

/// A sink that swallows the first bytes.
pub struct Skip<'a> {
    inner: &'a mut dyn Sink,
    skip: usize,
}

impl<'a> Skip<'a> {
    /// Swallows `skip` bytes, then passes on to `inner`.
    pub fn new(inner: &'a mut dyn Sink, skip: usize) -> Self {
        Skip { inner, skip }
    }
}

impl Sink for Skip<'_> {
    fn remaining(&self) -> usize {
        self.inner.remaining().saturating_add(self.skip)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let skipped = bytes.len().min(self.skip);
        self.skip -= skipped;
        let put = match &bytes[skipped..] {
            [] => 0,
            rest => self.inner.put(rest)?,
        };
        Ok(skipped + put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iobuf::VecSink;

    #[test]
    fn ends_are_told_together_once() {
        let all = Completions::default();
        assert!(!all.any() && all.take().is_none());
        for _ in 0..3 {
            all.add();
        }
        let range = |told: Received| match told.control[..] {
            [Control::Sent { first, last }] => (first, last),
            _ => panic!("no notification"),
        };
        assert_eq!(range(all.take().unwrap()), (0, 2));
        assert!(!all.any());
        all.add();
        assert_eq!(range(all.take().unwrap()), (3, 3));
    }

    #[test]
    fn the_first_bytes_are_swallowed() {
        let mut sink = VecSink::new(3);
        let mut skip = Skip::new(&mut sink, 4);
        assert_eq!(skip.remaining(), 7);
        assert_eq!(skip.put(b"ab"), Ok(2));
        assert_eq!(skip.put(b"cdefgh"), Ok(5));
        assert_eq!(sink.into_bytes(), b"efg");
    }
}
