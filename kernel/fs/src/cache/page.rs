//! One cached page: a frame and its state.

use core::sync::atomic::{AtomicU8, Ordering};

use machine::mem::Frame;

/// Being read; the contents are not there yet.
pub const LOADING: u8 = 1;
/// The contents are there.
pub const VALID: u8 = 2;
/// Differs from the store. Also listed in the cache's dirty set; changed under its lock only.
pub const DIRTY: u8 = 4;
/// Being written to the store.
pub const WRITING: u8 = 8;
/// Used since the shrinker last passed.
pub const RECENT: u8 = 16;
/// The store has promised room for it.
pub const RESERVED: u8 = 32;
/// Reading it failed.
pub const FAILED: u8 = 64;

/// A page of a file in memory.
pub struct Page {
    frame: Frame,
    state: AtomicU8,
}

impl Page {
    pub fn new(frame: Frame, state: u8) -> Page {
        Page {
            frame,
            state: AtomicU8::new(state),
        }
    }

    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Whether any of `bits` is set.
    pub fn is(&self, bits: u8) -> bool {
        self.state.load(Ordering::Acquire) & bits != 0
    }

    pub fn set(&self, bits: u8) {
        self.state.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears `bits` and tells which of them were set.
    pub fn clear(&self, bits: u8) -> u8 {
        self.state.fetch_and(!bits, Ordering::AcqRel) & bits
    }

    /// Notes a use; a store only when it changes something, to leave the cache line shared.
    pub fn touch(&self) {
        if self.state.load(Ordering::Relaxed) & RECENT == 0 {
            self.state.fetch_or(RECENT, Ordering::Relaxed);
        }
    }
}
