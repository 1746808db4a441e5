//! Words that are read without waiting.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::IrqLock;
use crate::arch;

/// `N` words that are read often and written rarely: readers never wait for each other and retry around a write.
pub struct SeqLock<const N: usize> {
    sequence: AtomicU32,
    words: [AtomicU64; N],
    writer: IrqLock<()>,
}

impl<const N: usize> SeqLock<N> {
    /// A new lock around `words`.
    pub const fn new(words: [u64; N]) -> Self {
        let mut cells = [const { AtomicU64::new(0) }; N];
        let mut i = 0;
        while i < N {
            cells[i] = AtomicU64::new(words[i]);
            i += 1;
        }
        Self {
            sequence: AtomicU32::new(0),
            words: cells,
            writer: IrqLock::new(()),
        }
    }

    /// A consistent copy of the words.
    #[inline]
    pub fn read(&self) -> [u64; N] {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let copy = core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return copy;
            }
            arch::relax();
        }
    }

    /// Replaces the words by what `change` makes of them.
    pub fn update(&self, change: impl FnOnce(&mut [u64; N])) {
        let _writer = self.writer.lock();
        let mut copy = core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
        change(&mut copy);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(copy) {
            cell.store(word, Ordering::Relaxed);
        }
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn seq_lock_never_shows_a_torn_pair() {
        let lock = Arc::new(SeqLock::new([0, 0]));
        let writer = {
            let lock = lock.clone();
            std::thread::spawn(move || {
                for i in 1..20_000u64 {
                    lock.update(|w| *w = [i, i * 3]);
                }
            })
        };
        while !writer.is_finished() {
            let [a, b] = lock.read();
            assert_eq!(a * 3, b);
        }
        writer.join().unwrap();
    }
}
