//! The program's memory as a trace reads it: that of the thread's own call, or of another thread's from outside.
use alloc::vec;
use alloc::vec::Vec;

use machine::user;

use crate::mm::AddressSpace;

/// The longest path shown, in bytes.
const MAX_PATH: usize = 512;
/// Reads that end here never cross into a page that may be missing.
const PAGE: usize = 4096;

/// Whose eyes see it.
#[derive(Clone, Copy)]
pub(super) enum Memory<'a> {
    /// The calling thread's, which runs in the program's address space.
    Own,
    /// A kernel thread's. Nothing is brought in.
    Peek(&'a AddressSpace),
    /// Bytes of a test, from address 4096 on.
    #[cfg(test)]
    Test(&'a [u8]),
}

impl Memory<'_> {
    /// Reads all of `into`; `None` if not all of it is there.
    pub(super) fn read(self, addr: u64, into: &mut [u8]) -> Option<()> {
        let addr = usize::try_from(addr).ok().filter(|addr| *addr != 0)?;
        match self {
            Memory::Own => user::copy_from_user(addr, into).ok(),
            Memory::Peek(mm) => mm.peek(addr, into).ok(),
            #[cfg(test)]
            Memory::Test(bytes) => {
                let at = addr.checked_sub(PAGE)?;
                into.copy_from_slice(bytes.get(at..)?.get(..into.len())?);
                Some(())
            }
        }
    }

    /// Reads the word at `addr`.
    pub(super) fn word(self, addr: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Reads the 32-bit number at `addr`.
    pub(super) fn half(self, addr: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// Reads the string at `addr`, at most [`MAX_PATH`] bytes, and whether that is all.
    pub(super) fn path(self, addr: u64) -> Option<(Vec<u8>, bool)> {
        let mut bytes = vec![0; MAX_PATH];
        let len = match self {
            Memory::Own => user::strncpy_from_user(addr as usize, &mut bytes).ok()?,
            _ => self.string(addr, &mut bytes)?,
        };
        bytes.truncate(len);
        Some((bytes, len < MAX_PATH))
    }

    /// Reads up to the zero byte, page by page; gives the length.
    fn string(self, addr: u64, into: &mut [u8]) -> Option<usize> {
        let mut done = 0;
        while done < into.len() {
            let at = addr.checked_add(done as u64)?;
            let len = (PAGE - at as usize % PAGE).min(into.len() - done);
            let piece = &mut into[done..done + len];
            self.read(at, piece)?;
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                return Some(done + end);
            }
            done += len;
        }
        Some(done)
    }
}
