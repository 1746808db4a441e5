//! Packing of directory entries for `getdents(2)` and `getdents64(2)`. Pure.

use alloc::vec::Vec;

/// Which of the two record layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `struct linux_dirent`: the type in the last byte.
    Old,
    /// `struct linux_dirent64`: the type before the name.
    New,
}

/// Collects records up to a size.
#[derive(Debug)]
pub struct Packer {
    layout: Layout,
    room: usize,
    bytes: Vec<u8>,
}

impl Packer {
    /// A packer for `room` bytes of records.
    pub fn new(layout: Layout, room: usize) -> Self {
        Packer {
            layout,
            room,
            bytes: Vec::new(),
        }
    }

    /// Appends a record; answers `false`, and appends nothing, when it does not fit.
    pub fn push(&mut self, ino: u64, next: u64, d_type: u8, name: &[u8]) -> bool {
        // Both: d_ino, d_off, d_reclen; then d_type and the name with its zero, in either order.
        let len = (8 + 8 + 2 + 1 + name.len() + 1).next_multiple_of(8);
        if len > self.room - self.bytes.len() {
            return false;
        }
        let end = self.bytes.len() + len;
        self.bytes.extend(ino.to_ne_bytes());
        self.bytes.extend(next.to_ne_bytes());
        self.bytes.extend((len as u16).to_ne_bytes());
        if self.layout == Layout::New {
            self.bytes.push(d_type);
        }
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        if self.layout == Layout::Old {
            self.bytes[end - 1] = d_type;
        }
        true
    }

    /// Whether nothing was packed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The records.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_linux_layout() {
        let mut packer = Packer::new(Layout::New, 64);
        assert!(packer.push(5, 9, 4, b"abc"));
        let bytes = packer.into_bytes();
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..8], 5u64.to_ne_bytes());
        assert_eq!(bytes[8..16], 9u64.to_ne_bytes());
        assert_eq!(bytes[16..18], 24u16.to_ne_bytes());
        assert_eq!(&bytes[18..23], b"\x04abc\0");

        let mut packer = Packer::new(Layout::Old, 64);
        assert!(packer.push(5, 9, 4, b"abc"));
        let bytes = packer.into_bytes();
        assert_eq!(&bytes[18..22], b"abc\0");
        assert_eq!(bytes[23], 4);
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_rest_alone() {
        let mut packer = Packer::new(Layout::New, 40);
        assert!(packer.push(1, 1, 8, b"x"));
        assert!(!packer.push(2, 2, 8, b"y"));
        assert_eq!(packer.into_bytes().len(), 24);
        let mut packer = Packer::new(Layout::New, 23);
        assert!(!packer.push(1, 1, 8, b"x"));
        assert!(packer.is_empty());
    }
}
