//! Looking into the program's memory from outside: nothing is brought in, nothing is marked as used.
//!
//! For core files, backtraces and the like, by threads that do not run in the address space. Everything is copied.
use core::ops::Range;

use errno::{Errno, Result};

use super::AddressSpace;
use super::vma::{Backing, PAGE};

impl AddressSpace {
    /// Copies what is at `addr`. Memory that the program has not touched reads as what it would find there.
    ///
    /// # Errors
    /// `EFAULT` where nothing is mapped; what reading a file reports.
    pub fn peek(&self, addr: usize, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = addr.checked_add(done).ok_or(Errno::EFAULT)?;
            let within = at % PAGE;
            let len = (PAGE - within).min(into.len() - done);
            self.peek_page(at, &mut into[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    /// [`AddressSpace::peek`] within one page.
    fn peek_page(&self, addr: usize, into: &mut [u8]) -> Result<()> {
        let (page, within) = (addr / PAGE * PAGE, addr % PAGE);
        let object = {
            let areas = self.areas.read();
            let vma = areas.find(page).ok_or(Errno::EFAULT)?;
            if let Some(mapping) = self.table.get(page) {
                drop(areas);
                mapping.frame.read(within, into);
                return Ok(());
            }
            match &vma.backing {
                Backing::Anonymous => None,
                Backing::Object { pager, .. } => vma.page_index(page).map(|n| (pager.clone(), n)),
            }
        };
        match object {
            Some((pager, index)) => pager.page(index)?.read(within, into),
            None => into.fill(0),
        }
        Ok(())
    }

    /// Reads the word at `addr`.
    ///
    /// # Errors
    /// As [`AddressSpace::peek`].
    pub fn peek_u64(&self, addr: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        self.peek(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The pages of `range` that are present, as ranges: two that are less than `gap` bytes apart count as one.
    pub fn present(&self, range: Range<usize>, gap: usize) -> Present<'_> {
        Present {
            space: self,
            at: range.start,
            end: range.end,
            gap,
        }
    }
}

/// See [`AddressSpace::present`].
pub struct Present<'a> {
    space: &'a AddressSpace,
    at: usize,
    end: usize,
    gap: usize,
}

impl Iterator for Present<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.space.table.next_mapped(self.at, self.end)?;
        let mut end = start + PAGE;
        while let Some(next) = self.space.table.next_mapped(end, self.end) {
            if next - end >= self.gap.max(PAGE) {
                break;
            }
            end = next + PAGE;
        }
        self.at = end;
        Some(start..end.min(self.end))
    }
}
