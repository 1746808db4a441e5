//! /dev: a tmpfs with the device nodes that every program expects, and the devices that need nothing but the kernel:
//! null, zero, full, random, urandom. Terminals register themselves from the `linux` room.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::any::Any;

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use crate::special::register_char_device;
use crate::tmpfs::{Options, TmpFs};
use crate::{
    DeviceId, File, FileSystem, FileType, Metadata, MmapSource, NewInode, OpenFlags, Timestamp,
};

/// The nodes: name, numbers (Linux's `Documentation/admin-guide/devices.txt`), permission bits.
const NODES: &[(&str, u32, u32, u32)] = &[
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("console", 5, 1, 0o600),
    ("ptmx", 5, 2, 0o666),
];

/// The links to the program's own descriptors.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The directories on which something else is mounted.
const DIRECTORIES: &[(&str, u32)] = &[("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)];

/// Makes the file system and registers its devices.
///
/// # Errors
/// `ENOMEM`, `ENOSPC`.
pub fn new() -> Result<Arc<dyn FileSystem>> {
    register();
    let fs = TmpFs::new(&Options {
        name: "devtmpfs",
        permissions: 0o755,
        ..Options::default()
    });
    let root = fs.root();
    let new = |file_type, permissions, rdev| NewInode {
        file_type,
        permissions,
        uid: 0,
        gid: 0,
        rdev,
    };
    for &(name, major, minor, permissions) in NODES {
        let id = DeviceId::new(major, minor);
        root.create(name.as_bytes(), &new(FileType::CharDevice, permissions, id))?;
    }
    for (name, target) in LINKS {
        root.symlink(name.as_bytes(), target.as_bytes(), 0, 0)?;
    }
    for &(name, permissions) in DIRECTORIES {
        root.create(
            name.as_bytes(),
            &new(FileType::Directory, permissions, DeviceId::default()),
        )?;
    }
    Ok(fs)
}

/// Adds the node of a character device.
///
/// # Errors
/// `EEXIST`, `ENOMEM`, `ENOSPC`.
pub fn add(fs: &Arc<dyn FileSystem>, name: &str, id: DeviceId, permissions: u32) -> Result<()> {
    let node = NewInode {
        file_type: FileType::CharDevice,
        permissions,
        uid: 0,
        gid: 0,
        rdev: id,
    };
    fs.root().create(name.as_bytes(), &node).map(drop)
}

fn register() {
    let device = |minor, device: Memory| {
        let file: Arc<dyn File> = Arc::new(device);
        let opener = move |_: OpenFlags| Ok(file.clone());
        register_char_device(DeviceId::new(1, minor), Box::new(opener));
    };
    device(3, Memory::Null);
    device(5, Memory::Zero);
    device(7, Memory::Full);
    device(8, Memory::Random);
    device(9, Memory::Random);
}

/// What is known of a character device without its node.
pub fn device_metadata(rdev: DeviceId, permissions: u32) -> Metadata {
    let never = Timestamp::default();
    Metadata {
        dev: DeviceId::default(),
        ino: rdev.to_u64(),
        file_type: FileType::CharDevice,
        permissions,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev,
        size: 0,
        block_size: 4096,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        btime: None,
    }
}

/// The memory devices (`null(4)`, `full(4)`, `random(4)`). The generator is ready before the program is, so the two
/// random ones are one.
enum Memory {
    Null,
    Zero,
    Full,
    Random,
}

impl File for Memory {
    fn seekable(&self) -> bool {
        // Seeking is allowed and without effect; `read_at` ignores the offset.
        true
    }

    fn read_at(&self, _: u64, sink: &mut dyn Sink, _: OpenFlags) -> Result<usize> {
        match self {
            Memory::Null => Ok(0),
            Memory::Zero | Memory::Full => sink.put_zeros(sink.remaining()),
            Memory::Random => {
                let mut done = 0;
                let mut part = [0; 256];
                while sink.remaining() > 0 {
                    let part = &mut part[..sink.remaining().min(256)];
                    drivers::random::fill(part);
                    match sink.put(part) {
                        Ok(n) => done += n,
                        Err(error) if done == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
                Ok(done)
            }
        }
    }

    fn write_at(&self, offset: u64, source: &mut dyn Source, _: OpenFlags) -> Result<(usize, u64)> {
        let len = source.remaining();
        match self {
            Memory::Full if len > 0 => return Err(Errno::ENOSPC),
            Memory::Random => {
                let mut bytes: Vec<u8> = alloc::vec![0; len.min(4096)];
                let taken = source.take(&mut bytes)?;
                drivers::random::add(&bytes[..taken]);
                return Ok((taken, offset));
            }
            Memory::Null | Memory::Zero | Memory::Full => {}
        }
        Ok((len, offset))
    }

    fn seek(&self, _: u64, _: crate::Whence, _: i64) -> Result<u64> {
        Ok(0)
    }

    fn metadata(&self) -> Result<Metadata> {
        let minor = match self {
            Memory::Null => 3,
            Memory::Zero => 5,
            Memory::Full => 7,
            Memory::Random => 9,
        };
        Ok(device_metadata(DeviceId::new(1, minor), 0o666))
    }

    fn mmap_source(&self) -> Result<MmapSource> {
        match self {
            Memory::Zero => Ok(MmapSource::Zero),
            _ => Err(Errno::ENODEV),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use errno::Errno;
    use iobuf::{SliceSink, SliceSource};

    use super::*;
    use crate::special::open_char_device;

    #[test]
    fn the_memory_devices_do_what_their_manuals_say() {
        let fs = new().unwrap();
        let read = |minor: u32, room: &mut [u8]| {
            let file = open_char_device(DeviceId::new(1, minor), OpenFlags::RDWR).unwrap();
            file.read_at(0, &mut SliceSink::new(room), OpenFlags::RDWR)
        };
        let write = |minor: u32| {
            let file = open_char_device(DeviceId::new(1, minor), OpenFlags::RDWR).unwrap();
            file.write_at(0, &mut SliceSource::new(b"abc"), OpenFlags::RDWR)
                .map(|(n, _)| n)
        };
        let mut room = vec![1; 600];
        assert_eq!((read(3, &mut room), write(3)), (Ok(0), Ok(3)));
        assert_eq!((read(5, &mut room), write(5)), (Ok(600), Ok(3)));
        assert!(room.iter().all(|byte| *byte == 0));
        assert_eq!((read(9, &mut room), write(9)), (Ok(600), Ok(3)));
        assert!(room.iter().any(|byte| *byte != 0));
        assert_eq!(write(7), Err(Errno::ENOSPC));
        let null = fs.root().lookup(b"null").unwrap().metadata().unwrap();
        assert_eq!((null.rdev, null.mode()), (DeviceId::new(1, 3), 0o020_666));
        assert_eq!(
            fs.root().lookup(b"stdin").unwrap().readlink().unwrap(),
            b"/proc/self/fd/0"
        );
    }
}
