//! `memfd_create(2)` and file seals (fcntl(2)).

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use errno::{Errno, Result};
use machine::sync::Once;

use super::{Options, TmpFs, TmpInode};
use crate::{
    Credentials, DeviceId, FileType, Inode, NewInode, OpenFile, OpenFlags, Path,
    regular::RegularFile,
};

bitflags! {
    /// The seals of `F_ADD_SEALS`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Seals: u32 {
        /// No further seals.
        const SEAL = 1;
        /// The file does not shrink.
        const SHRINK = 2;
        /// The file does not grow.
        const GROW = 4;
        /// The contents do not change.
        const WRITE = 8;
        /// The contents do not change but through mappings there are already.
        const FUTURE_WRITE = 0x10;
        /// The execute bits do not change.
        const EXEC = 0x20;
    }
}

/// The file system of all memfds: limited by memory alone, mounted nowhere.
static FILES: Once<Arc<TmpFs>> = Once::new();

/// A new unnamed file in memory, open for reading and writing. `sealable` is `MFD_ALLOW_SEALING`.
///
/// # Errors
/// `EINVAL` for a name of more than 249 bytes; `ENOSPC`.
pub fn memfd(name: &[u8], sealable: bool, creds: &Credentials) -> Result<Arc<OpenFile>> {
    if name.len() > 249 {
        return Err(Errno::EINVAL);
    }
    let fs = FILES.call_once(|| {
        TmpFs::new(&Options {
            max_pages: Some(u64::MAX / 4096),
            max_inodes: Some(u64::MAX),
            ..Options::default()
        })
    });
    let new = NewInode {
        file_type: FileType::Regular,
        permissions: 0o777,
        uid: creds.uid,
        gid: creds.gid,
        rdev: DeviceId::default(),
    };
    let inode = TmpInode::unnamed(fs.clone(), &new)?;
    if sealable {
        inode.data.seals.store(0, Ordering::Release);
    }
    let mut shown = Vec::from(&b"/memfd:"[..]);
    shown.extend_from_slice(name);
    shown.extend_from_slice(b" (deleted)");
    let path = Path::anonymous(inode, &shown);
    let file = RegularFile::open(path.clone(), OpenFlags::RDWR)?;
    Ok(OpenFile::new(file, OpenFlags::RDWR, Some(path)))
}

fn sealed(inode: &Arc<dyn Inode>) -> Result<&TmpInode> {
    inode
        .as_any()
        .downcast_ref::<TmpInode>()
        .filter(|inode| inode.file_type() == FileType::Regular)
        .ok_or(Errno::EINVAL)
}

/// The seals of a file (`F_GET_SEALS`).
///
/// # Errors
/// `EINVAL` when the file is none of a tmpfs.
pub fn seals(inode: &Arc<dyn Inode>) -> Result<Seals> {
    let bits = sealed(inode)?.data.seals.load(Ordering::Acquire);
    Ok(Seals::from_bits_retain(bits))
}

/// Adds seals to a file (`F_ADD_SEALS`); the caller has checked that it is open for writing.
///
/// # Errors
/// `EINVAL` when the file is none of a tmpfs; `EPERM` when it takes no more; `EBUSY` for
/// [`Seals::WRITE`] while it is mapped writable.
pub fn add_seals(inode: &Arc<dyn Inode>, add: Seals) -> Result<()> {
    let file = sealed(inode)?;
    let cache = file.page_cache()?;
    // With the right to write held nobody is half through a write that the seal forbids.
    let _writer = cache.writer();
    if seals(inode)?.contains(Seals::SEAL) {
        return Err(Errno::EPERM);
    }
    if add.contains(Seals::WRITE) && cache.writable_mappings() > 0 {
        return Err(Errno::EBUSY);
    }
    file.data.seal(add.bits());
    Ok(())
}

/// Whether contents may change, in a file that then ends at `end` or stays at `size`.
pub(super) fn may_change(seals: &AtomicU32, size: u64, end: u64) -> Result<()> {
    let seals = Seals::from_bits_retain(seals.load(Ordering::Acquire));
    if seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) && end <= size {
        return Err(Errno::EPERM);
    }
    if end > size && seals.intersects(Seals::GROW | Seals::WRITE | Seals::FUTURE_WRITE) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

pub(super) fn may_shrink(seals: &AtomicU32, size: u64, end: u64) -> Result<()> {
    let seals = Seals::from_bits_retain(seals.load(Ordering::Acquire));
    if end < size && seals.contains(Seals::SHRINK) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

pub(super) fn may_map_writable(seals: &AtomicU32) -> Result<()> {
    let seals = Seals::from_bits_retain(seals.load(Ordering::Acquire));
    if seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
        return Err(Errno::EPERM);
    }
    Ok(())
}
