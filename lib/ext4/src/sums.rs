//! Checksums inside metadata blocks: verified when a block is read, set when it is written out.
//!
//! Bitmaps and group descriptors are summed in `group`, inodes in `inode`, the superblock in `superblock`.

use crate::cache::Kind;
use crate::crc::crc32c;
use crate::le::{get16, get32, put32};
use crate::superblock::Super;
use crate::{Error, Result};

/// The checksum seed of everything that belongs to one inode.
pub(crate) fn inode_seed(sb: &Super, ino: u32, generation: u32) -> u32 {
    crc32c(
        crc32c(sb.csum_seed, &ino.to_le_bytes()),
        &generation.to_le_bytes(),
    )
}

/// Where the count and limit of a hash-tree block lie.
pub(crate) fn index_offset(block: &[u8]) -> Option<usize> {
    let size = block.len();
    if usize::from(get16(block, 4)) == size {
        Some(8)
    } else if get16(block, 4) == 12 && usize::from(get16(block, 16)) == size - 12 {
        // The root: after `.` and `..` comes its information, whose length it says.
        (get32(block, 24) == 0 && block[29] == 8).then_some(32)
    } else {
        None
    }
}

/// Checks a block that was just read.
pub(crate) fn verify(sb: &Super, nr: u64, kind: Kind, block: &[u8]) -> Result<()> {
    if let Kind::Extent(_) = kind {
        let max = usize::from(get16(block, 4));
        let room = block.len() - 12 - if sb.has_csum() { 4 } else { 0 };
        if get16(block, 0) != 0xf30a
            || max == 0
            || max * 12 > room
            || usize::from(get16(block, 2)) > max
        {
            return Err(Error::corrupt("extent node"));
        }
    }
    if !sb.has_csum() {
        return Ok(());
    }
    let (sum, at) = sum(nr, kind, block, sb)?;
    if at != 0 && get32(block, at) != sum {
        return Err(Error::corrupt(match kind {
            Kind::DirLeaf(_) | Kind::DirIndex(_) => "directory block checksum",
            Kind::Extent(_) => "extent node checksum",
            _ => "attribute block checksum",
        }));
    }
    Ok(())
}

/// Sets the checksum of a block that is about to be written.
pub(crate) fn stamp(sb: &Super, nr: u64, kind: Kind, block: &mut [u8]) -> Result<()> {
    if sb.has_csum() {
        let (sum, at) = sum(nr, kind, block, sb)?;
        if at != 0 {
            put32(block, at, sum);
        }
    }
    Ok(())
}

/// The checksum of a block and its offset there; offset 0 means that this kind has none inside.
fn sum(nr: u64, kind: Kind, block: &[u8], sb: &Super) -> Result<(u32, usize)> {
    let end = block.len();
    Ok(match kind {
        Kind::DirLeaf(seed) => {
            let tail = &block[end - 12..];
            if get32(tail, 0) != 0 || get16(tail, 4) != 12 || tail[6] != 0 || tail[7] != 0xde {
                return Err(Error::corrupt("directory block without checksum"));
            }
            (crc32c(seed, &block[..end - 12]), end - 4)
        }
        Kind::DirIndex(seed) => {
            let at = index_offset(block).ok_or(Error::corrupt("hash tree block"))?;
            let (limit, count) = (
                usize::from(get16(block, at)),
                usize::from(get16(block, at + 2)),
            );
            if limit * 8 + at + 8 > end || count > limit {
                return Err(Error::corrupt("hash tree block"));
            }
            let tail = at + limit * 8;
            let sum = crc32c(
                crc32c(seed, &block[..at + count * 8]),
                &block[tail..tail + 4],
            );
            (crc32c(sum, &[0; 4]), tail + 4)
        }
        Kind::Extent(seed) => {
            let at = 12 + usize::from(get16(block, 4)) * 12;
            if at + 4 > end {
                return Err(Error::corrupt("extent node"));
            }
            (crc32c(seed, &block[..at]), at)
        }
        Kind::Xattr => {
            let sum = crc32c(crc32c(sb.csum_seed, &nr.to_le_bytes()), &block[..16]);
            (crc32c(crc32c(sum, &[0; 4]), &block[20..]), 16)
        }
        Kind::Super
        | Kind::GroupDesc
        | Kind::BlockBitmap(_)
        | Kind::InodeBitmap(_)
        | Kind::InodeTable
        | Kind::Symlink => (0, 0),
    })
}
