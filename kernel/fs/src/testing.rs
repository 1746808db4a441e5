//! Helpers of this room's own tests.

use crate::{DeviceId, FileType, Metadata, Timestamp};

/// Plain metadata of a given type and permissions.
pub fn metadata(file_type: FileType, permissions: u32) -> Metadata {
    Metadata {
        dev: DeviceId::new(0, 1),
        ino: 1,
        file_type,
        permissions,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: DeviceId::default(),
        size: 0,
        block_size: 4096,
        blocks: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
    }
}
