//! The bytes of a directory block with entries. Functions take the block without its checksum tail.

use crate::le::{get16, get32, put16, put32};
use crate::{Error, Ino, Result};

/// One entry of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub at: usize,
    /// 0 for a vacant entry.
    pub ino: Ino,
    pub rec_len: usize,
    pub file_type: u8,
    pub name: &'a [u8],
}

/// An entry to be written.
pub(crate) struct New<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub file_type: u8,
}

/// Bytes that an entry with a name of this length needs.
pub(crate) const fn need(name_len: usize) -> usize {
    (8 + name_len + 3) & !3
}

/// Walks the entries of a block, vacant ones included.
pub(crate) fn entries(block: &[u8]) -> Entries<'_> {
    Entries { block, at: 0 }
}

/// Iterator over entries; ends after the first error.
pub(crate) struct Entries<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (block, at) = (self.block, self.at);
        if at >= block.len() {
            return None;
        }
        self.at = block.len();
        if at + 12 > block.len() {
            return Some(Err(Error::corrupt("directory entry")));
        }
        let rec_len = usize::from(get16(block, at + 4));
        let name_len = usize::from(block[at + 6]);
        if rec_len < 12
            || rec_len % 4 != 0
            || at + rec_len > block.len()
            || need(name_len) > rec_len
        {
            return Some(Err(Error::corrupt("directory entry")));
        }
        self.at = at + rec_len;
        Some(Ok(Entry {
            at,
            ino: get32(block, at),
            rec_len,
            file_type: block[at + 7],
            name: &block[at + 8..at + 8 + name_len],
        }))
    }
}

/// Makes a whole block empty, with the checksum tail of `tail` bytes (12 or 0).
pub(crate) fn init(block: &mut [u8], tail: usize) {
    block.fill(0);
    let end = block.len() - tail;
    put16(block, 4, end as u16);
    if tail != 0 {
        put16(block, end + 4, 12);
        block[end + 7] = 0xde;
    }
}

/// Offset and inode of a name.
pub(crate) fn find(block: &[u8], name: &[u8]) -> Result<Option<(usize, Ino)>> {
    for entry in entries(block) {
        let entry = entry?;
        if entry.ino != 0 && entry.name == name {
            return Ok(Some((entry.at, entry.ino)));
        }
    }
    Ok(None)
}

/// Offset of the entry that has room for a new name, in itself if vacant or behind its name.
pub(crate) fn room(block: &[u8], name_len: usize) -> Result<Option<usize>> {
    for entry in entries(block) {
        let entry = entry?;
        let used = if entry.ino == 0 {
            0
        } else {
            need(entry.name.len())
        };
        if entry.rec_len - used >= need(name_len) {
            return Ok(Some(entry.at));
        }
    }
    Ok(None)
}

/// Writes an entry into the room that [`room`] found.
pub(crate) fn put(block: &mut [u8], slot: usize, new: &New<'_>) {
    let mut at = slot;
    let mut rec_len = usize::from(get16(block, at + 4));
    if get32(block, at) != 0 {
        let used = need(usize::from(block[at + 6]));
        put16(block, at + 4, used as u16);
        at += used;
        rec_len -= used;
    }
    put32(block, at, new.ino);
    put16(block, at + 4, rec_len as u16);
    block[at + 6] = new.name.len() as u8;
    block[at + 7] = new.file_type;
    block[at + 8..at + 8 + new.name.len()].copy_from_slice(new.name);
}

/// Removes the entry at `at`: its space goes to the entry before it.
pub(crate) fn remove(block: &mut [u8], at: usize) -> Result<()> {
    let mut before = None;
    for entry in entries(block) {
        let entry = entry?;
        if entry.at == at {
            let rec_len = entry.rec_len;
            match before {
                Some((start, len)) => put16(block, start, (len + rec_len) as u16),
                None => put32(block, at, 0),
            }
            return Ok(());
        }
        before = Some((entry.at + 4, entry.rec_len));
    }
    Err(Error::corrupt("directory entry"))
}

/// Fills a block with these entries, given as offsets into `from`, without gaps.
pub(crate) fn pack(block: &mut [u8], from: &[u8], offsets: impl Iterator<Item = usize>) {
    let mut at = 0;
    let mut last = None;
    for offset in offsets {
        let name_len = usize::from(from[offset + 6]);
        let len = need(name_len);
        block[at..at + len].fill(0);
        block[at..at + 8 + name_len].copy_from_slice(&from[offset..offset + 8 + name_len]);
        put16(block, at + 4, len as u16);
        last = Some(at);
        at += len;
    }
    let end = block.len();
    match last {
        Some(last) => {
            put16(block, last + 4, (end - last) as u16);
            block[at..].fill(0);
        }
        None => {
            block.fill(0);
            put16(block, 4, end as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn names(block: &[u8]) -> Vec<Vec<u8>> {
        entries(block)
            .map(Result::unwrap)
            .filter(|e| e.ino != 0)
            .map(|e| e.name.to_vec())
            .collect()
    }

    #[test]
    fn fill_remove_refill() {
        let mut whole = [0xaau8; 1024];
        init(&mut whole, 12);
        let block = &mut whole[..1012];
        let mut count = 0u32;
        while let Some(slot) = room(block, 10).unwrap() {
            count += 1;
            let name = alloc::format!("name{count:06}");
            put(
                block,
                slot,
                &New {
                    name: name.as_bytes(),
                    ino: count,
                    file_type: 1,
                },
            );
        }
        assert_eq!(count, 1012 / 20);
        for n in (1..=count).step_by(2) {
            let name = alloc::format!("name{n:06}");
            let (at, ino) = find(block, name.as_bytes()).unwrap().unwrap();
            assert_eq!(ino, n);
            remove(block, at).unwrap();
            assert_eq!(find(block, name.as_bytes()).unwrap(), None);
        }
        assert_eq!(names(block).len(), (count / 2) as usize);
        let slot = room(block, 12).unwrap().unwrap();
        put(
            block,
            slot,
            &New {
                name: b"twelve bytes",
                ino: 9,
                file_type: 1,
            },
        );
        assert!(find(block, b"twelve bytes").unwrap().is_some());
    }

    #[test]
    fn broken_entries_are_errors() {
        let mut block = [0u8; 1012];
        put16(&mut block, 4, 1012);
        for (rec_len, name_len) in [(0, 0), (8, 0), (13, 0), (2000, 0), (1008, 0), (12, 5)] {
            put16(&mut block, 4, rec_len);
            block[6] = name_len;
            assert!(
                entries(&block).any(|entry| entry.is_err()),
                "{rec_len} {name_len}"
            );
        }
    }
}
