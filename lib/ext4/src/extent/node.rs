//! The bytes of one extent-tree node: a header of 12 bytes and entries of 12 bytes, extents in leaves, indices above.

use crate::le::{get16, get32, put16, put32};
use crate::superblock::Super;
use crate::{Error, Result};

/// Magic number of a node.
pub(crate) const MAGIC: u16 = 0xf30a;
/// Longest written extent; a stored length above it means unwritten.
const MAX_LEN: u32 = 32_768;
const SIZE: usize = 12;

/// One extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ext {
    pub logical: u32,
    pub len: u32,
    pub physical: u64,
    pub unwritten: bool,
}

impl Ext {
    /// First block behind it. Only after [`Ext::check`].
    pub(crate) fn end(&self) -> u32 {
        self.logical.saturating_add(self.len)
    }

    /// Longest extent of this state.
    pub(crate) fn max_len(unwritten: bool) -> u32 {
        if unwritten { MAX_LEN - 1 } else { MAX_LEN }
    }

    /// Whether it is not empty, ends in the 32-bit space and lies inside the volume.
    pub(crate) fn check(&self, sb: &Super) -> Result<()> {
        if self.len == 0
            || self.logical.checked_add(self.len).is_none()
            || self.physical <= u64::from(sb.first_data_block)
            || self.physical + u64::from(self.len) > sb.blocks
        {
            return Err(Error::corrupt("extent"));
        }
        Ok(())
    }

    /// The two as one, if `next` continues `self` in the file and on the device.
    pub(crate) fn joined(&self, next: &Ext) -> Option<Ext> {
        let len = self.len + next.len;
        (self.unwritten == next.unwritten
            && self.end() == next.logical
            && self.physical + u64::from(self.len) == next.physical
            && len <= Ext::max_len(self.unwritten))
        .then_some(Ext { len, ..*self })
    }
}

pub(crate) fn magic(node: &[u8]) -> u16 {
    get16(node, 0)
}

/// Number of entries.
pub(crate) fn count(node: &[u8]) -> usize {
    usize::from(get16(node, 2))
}

/// Room for entries.
pub(crate) fn max(node: &[u8]) -> usize {
    usize::from(get16(node, 4))
}

/// Levels below this node.
pub(crate) fn depth(node: &[u8]) -> usize {
    usize::from(get16(node, 6))
}

pub(crate) fn is_full(node: &[u8]) -> bool {
    count(node) >= max(node)
}

/// Makes an empty node.
pub(crate) fn init(node: &mut [u8], max: usize, depth: usize) {
    put16(node, 0, MAGIC);
    put16(node, 2, 0);
    put16(node, 4, max as u16);
    put16(node, 6, depth as u16);
    put32(node, 8, 0);
}

/// Makes the empty tree in an inode.
pub(crate) fn init_root(block: &mut [u8; 60]) {
    block.fill(0);
    init(block, 4, 0);
}

/// First block that entry `at` covers.
pub(crate) fn key(node: &[u8], at: usize) -> u32 {
    get32(node, SIZE + at * SIZE)
}

pub(crate) fn set_key(node: &mut [u8], at: usize, key: u32) {
    put32(node, SIZE + at * SIZE, key);
}

/// The block that index entry `at` points to.
pub(crate) fn child(node: &[u8], at: usize) -> u64 {
    let base = SIZE + at * SIZE;
    u64::from(get32(node, base + 4)) | u64::from(get16(node, base + 8)) << 32
}

/// The extent that leaf entry `at` holds.
pub(crate) fn extent(node: &[u8], at: usize) -> Ext {
    let base = SIZE + at * SIZE;
    let len = u32::from(get16(node, base + 4));
    let unwritten = len > MAX_LEN;
    Ext {
        logical: get32(node, base),
        len: if unwritten { len - MAX_LEN } else { len },
        physical: u64::from(get32(node, base + 8)) | u64::from(get16(node, base + 6)) << 32,
        unwritten,
    }
}

/// Overwrites leaf entry `at`.
pub(crate) fn set_extent(node: &mut [u8], at: usize, ext: &Ext) {
    let base = SIZE + at * SIZE;
    put32(node, base, ext.logical);
    put16(
        node,
        base + 4,
        (ext.len + if ext.unwritten { MAX_LEN } else { 0 }) as u16,
    );
    put16(node, base + 6, (ext.physical >> 32) as u16);
    put32(node, base + 8, ext.physical as u32);
}

/// Overwrites index entry `at`.
pub(crate) fn set_index(node: &mut [u8], at: usize, key: u32, child: u64) {
    let base = SIZE + at * SIZE;
    put32(node, base, key);
    put32(node, base + 4, child as u32);
    put16(node, base + 8, (child >> 32) as u16);
    put16(node, base + 10, 0);
}

/// Makes room for an entry at `at`; there must be space and the caller fills it.
pub(crate) fn open_gap(node: &mut [u8], at: usize) {
    let n = count(node);
    node.copy_within(SIZE + at * SIZE..SIZE + n * SIZE, SIZE + (at + 1) * SIZE);
    put16(node, 2, n as u16 + 1);
}

/// Removes entry `at`.
pub(crate) fn remove(node: &mut [u8], at: usize) {
    let n = count(node);
    node.copy_within(SIZE + (at + 1) * SIZE..SIZE + n * SIZE, SIZE + at * SIZE);
    put16(node, 2, n as u16 - 1);
}

/// The bytes of all entries from `at` on.
pub(crate) fn tail(node: &[u8], at: usize) -> &[u8] {
    &node[SIZE + at * SIZE..SIZE + count(node) * SIZE]
}

/// Appends entries given as bytes; there must be space.
pub(crate) fn append(node: &mut [u8], entries: &[u8]) {
    let n = count(node);
    node[SIZE + n * SIZE..SIZE + n * SIZE + entries.len()].copy_from_slice(entries);
    put16(node, 2, (n + entries.len() / SIZE) as u16);
}

/// Keeps the first `n` entries.
pub(crate) fn shorten(node: &mut [u8], n: usize) {
    put16(node, 2, n as u16);
}

/// The last entry whose key is at or before `target`.
pub(crate) fn search(node: &[u8], target: u32) -> Option<usize> {
    let (mut low, mut high) = (0, count(node));
    while low < high {
        let mid = (low + high) / 2;
        if key(node, mid) <= target {
            low = mid + 1
        } else {
            high = mid
        }
    }
    low.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext(logical: u32, len: u32, physical: u64, unwritten: bool) -> Ext {
        Ext {
            logical,
            len,
            physical,
            unwritten,
        }
    }

    #[test]
    fn entries_keep_their_fields() {
        let mut block = [0; 60];
        init_root(&mut block);
        let all = [
            ext(0, 32_768, 1, false),
            ext(40_000, 32_767, 0xffff_1234_5678, true),
            ext(u32::MAX - 1, 1, 7, false),
        ];
        for (at, one) in all.iter().enumerate() {
            open_gap(&mut block, at);
            set_extent(&mut block, at, one);
        }
        for (at, one) in all.iter().enumerate() {
            assert_eq!(extent(&block, at), *one);
        }
        assert_eq!((count(&block), max(&block), is_full(&block)), (3, 4, false));
        assert_eq!(search(&block, 39_999), Some(0));
        assert_eq!(search(&block, 40_000), Some(1));
        assert_eq!(search(&block, u32::MAX), Some(2));
        remove(&mut block, 0);
        assert_eq!(search(&block, 39_999), None);
        assert_eq!(extent(&block, 0), all[1]);
    }

    #[test]
    fn only_neighbours_of_one_state_join() {
        let first = ext(10, 5, 100, false);
        assert_eq!(
            first.joined(&ext(15, 2, 105, false)),
            Some(ext(10, 7, 100, false))
        );
        assert_eq!(first.joined(&ext(15, 2, 105, true)), None);
        assert_eq!(first.joined(&ext(16, 2, 105, false)), None);
        assert_eq!(first.joined(&ext(15, 2, 106, false)), None);
        // A written extent holds one block more than an unwritten one.
        let long = |unwritten| ext(0, 32_767, 100, unwritten);
        assert!(long(false).joined(&ext(32_767, 1, 32_867, false)).is_some());
        assert_eq!(long(true).joined(&ext(32_767, 1, 32_867, true)), None);
    }
}
