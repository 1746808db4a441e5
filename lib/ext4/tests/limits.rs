//! The edges: full volumes, many names, deep trees, large and sparse files, failing devices.

mod common;

use common::model::{Mix, Model, page_write};
use common::*;
use ext4::{
    BlockDevice, Error, Ext4, FileKind, IoError, MemDevice, MkfsOptions, MountOptions, NewInode,
    ROOT_INO, RenameMode, XattrMode, mkfs,
};
use std::sync::atomic::{AtomicI64, Ordering};

fn is_send<T: Send>(_: &T) {}

#[test]
fn full_then_emptied() {
    let mut fs = fresh(24 << 20);
    is_send(&fs);
    let before = fs.statfs();
    for round in 0..3 {
        let mut files = Vec::new();
        'full: for n in 0.. {
            let ino = match fs.create(ROOT_INO, format!("{round} {n}").as_bytes(), &file()) {
                Ok(attrs) => attrs.ino,
                Err(error) => {
                    assert_eq!(error, Error::NoSpace);
                    break;
                }
            };
            files.push(n);
            for part in 0..40u64 {
                // Every second block, so that trees grow too.
                if let Err(error) = fs.write_at(ino, part * 8192, &[n as u8; 4096]) {
                    assert_eq!(error, Error::NoSpace);
                    break 'full;
                }
            }
        }
        assert_eq!(fs.statfs().free_blocks, 0);
        assert!(fs.fallocate(12, 0, 1 << 30, false).is_err());
        assert_eq!(
            fs.symlink(ROOT_INO, b"link", &[b'x'; 2000], 0, 0),
            Err(Error::NoSpace)
        );
        if round == 1 {
            fs.unmount().unwrap();
            fsck_bytes(&dump(fs.device()));
        }
        for n in files {
            let (ino, _) = fs
                .unlink(ROOT_INO, format!("{round} {n}").as_bytes())
                .unwrap();
            fs.release(ino).unwrap();
        }
        // What was just freed can be had at once, though it is only free after a commit.
        let ino = fs.create(ROOT_INO, b"again", &file()).unwrap().ino;
        fs.write_at(ino, 0, &vec![1; 8 << 20]).unwrap();
        fs.unlink(ROOT_INO, b"again").unwrap();
        fs.release(ino).unwrap();
    }
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
    // The root directory has grown; nothing else may be missing.
    let root = fs.attrs(ROOT_INO).unwrap().blocks / 8 - 1;
    assert_eq!(fs.statfs().free_blocks, before.free_blocks - root);
    assert_eq!(fs.statfs().free_inodes, before.free_inodes);
}

#[test]
fn out_of_inodes() {
    let device = MemDevice::new(32 << 20);
    mkfs(
        &device,
        &MkfsOptions {
            inodes: Some(64),
            ..options(32 << 20)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    let free = fs.statfs().free_inodes;
    for n in 0..free {
        fs.create(ROOT_INO, format!("{n}").as_bytes(), &file())
            .unwrap();
    }
    assert_eq!(fs.create(ROOT_INO, b"more", &file()), Err(Error::NoSpace));
    assert_eq!(fs.create_unnamed(ROOT_INO, &file()), Err(Error::NoSpace));
    let (ino, _) = fs.unlink(ROOT_INO, b"0").unwrap();
    fs.release(ino).unwrap();
    assert_eq!(fs.create(ROOT_INO, b"more", &file()).unwrap().ino, ino);
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn an_index_of_two_levels() {
    // Small blocks and long names make a deep index soon.
    let size = 96 << 20;
    let device = MemDevice::new(size);
    mkfs(
        &device,
        &MkfsOptions {
            block_size: 1024,
            inodes: Some(32_000),
            ..options(size as u64)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    let sub = fs.create(ROOT_INO, b"sub", &dir()).unwrap().ino;
    let name = |n: u32| format!("{n:0>200}").into_bytes();
    let target = fs.create(sub, b"target", &file()).unwrap().ino;
    for n in 0..20_000 {
        fs.link(sub, &name(n), target).unwrap();
    }
    assert_eq!(fs.attrs(target).unwrap().nlink, 20_001);
    let blocks = fs.attrs(sub).unwrap().size / 1024;
    assert!(blocks > 5_000, "{blocks} blocks");
    for n in (0..20_000).step_by(7) {
        assert_eq!(fs.lookup(sub, &name(n)), Ok(target));
        assert_eq!(fs.link(sub, &name(n), target), Err(Error::Exists));
    }
    // Names come and go while the directory is read in portions: each that stays is seen exactly once.
    let mut seen = std::collections::BTreeSet::new();
    let mut cookie = 0;
    let mut removed = 0;
    loop {
        let mut taken = 0;
        fs.readdir(sub, cookie, &mut |entry| {
            taken += 1;
            cookie = entry.next;
            assert!(seen.insert(entry.name.to_vec()), "an entry came twice");
            taken < 500
        })
        .unwrap();
        if taken < 500 {
            break;
        }
        for _ in 0..100 {
            if removed * 7 + 1 >= 20_000 {
                break;
            }
            fs.unlink(sub, &name(removed * 7 + 1)).unwrap();
            fs.link(sub, format!("late {removed}").as_bytes(), target)
                .unwrap();
            removed += 1;
        }
    }
    for n in (0..20_000).filter(|n| n % 7 != 1) {
        assert!(seen.contains(&name(n)), "{n} was not seen");
    }
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn many_links_and_subdirectories() {
    let size = 400 << 20;
    let device = MemDevice::new(size);
    mkfs(
        &device,
        &MkfsOptions {
            inodes: Some(66_500),
            journal_blocks: 4096,
            ..options(size as u64)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(device, MountOptions::bulk(NOW)).unwrap();
    let target = fs.create(ROOT_INO, b"target", &file()).unwrap().ino;
    let links = fs.create(ROOT_INO, b"links", &dir()).unwrap().ino;
    for n in 1..65_000 {
        fs.link(links, format!("{n}").as_bytes(), target).unwrap();
    }
    assert_eq!(
        fs.link(links, b"too many", target),
        Err(Error::TooManyLinks)
    );
    let dirs = fs.create(ROOT_INO, b"dirs", &dir()).unwrap().ino;
    for n in 0..65_100 {
        fs.create(dirs, format!("{n}").as_bytes(), &dir()).unwrap();
    }
    assert_eq!(fs.attrs(dirs).unwrap().nlink, 1);
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
    for n in 0..65_100 {
        let ino = fs.rmdir(dirs, format!("{n}").as_bytes()).unwrap();
        fs.release(ino).unwrap();
    }
    fs.rmdir(ROOT_INO, b"dirs").unwrap();
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn large_sparse_files() {
    let mut fs = fresh(64 << 20);
    let ino = fs.create(ROOT_INO, b"sparse", &file()).unwrap().ino;
    let far = 100u64 << 30;
    fs.write_at(ino, far, b"far away").unwrap();
    fs.write_at(ino, (2 << 30) + 5, b"middle").unwrap();
    assert_eq!(fs.attrs(ino).unwrap().size, far + 8);
    assert!(fs.attrs(ino).unwrap().blocks < 32);
    let hole = fs.map(ino, 0, 1 << 30).unwrap();
    assert_eq!((hole.physical, hole.len), (None, (2 << 30) / 4096));
    let mut buf = [1; 16];
    assert_eq!(fs.read_at(ino, far - 8, &mut buf).unwrap(), 16);
    assert_eq!(&buf, b"\0\0\0\0\0\0\0\0far away");
    let most = fs.max_size();
    assert_eq!(fs.write_at(ino, most, b"x"), Err(Error::TooBig));
    assert_eq!(fs.truncate(ino, most + 1), Err(Error::TooBig));
    fs.write_at(ino, most - 1, b"x").unwrap();
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn deep_extent_trees() {
    let size = 80 << 20;
    let device = MemDevice::new(size);
    mkfs(
        &device,
        &MkfsOptions {
            block_size: 1024,
            ..options(size as u64)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    let free = fs.statfs().free_blocks;
    let ino = fs.create(ROOT_INO, b"f", &file()).unwrap().ino;
    let mut rng = Rng(77);
    // Every second block, in random order: no two extents join. 1 KiB nodes hold 84 entries, so the depth is 3.
    let mut order: Vec<u32> = (0..20_000).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at as u64 + 1) as usize);
    }
    for &n in &order {
        page_write(
            &mut fs,
            ino,
            n * 2,
            &[n as u8 | 1; 1024],
            u64::from(n * 2 + 1) * 1024,
        )
        .unwrap();
    }
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
    let mut buf = [0; 1024];
    for &n in order.iter().step_by(13) {
        fs.read_at(ino, u64::from(n) * 2048, &mut buf).unwrap();
        assert_eq!(buf, [n as u8 | 1; 1024]);
        assert_eq!(fs.map(ino, n * 2, 5).unwrap().len, 1);
    }
    // Filling the gaps makes longer extents where the space allows it; punching takes them out again in random order.
    for &n in &order[..10_000] {
        fs.punch_hole(ino, u64::from(n) * 2048, 1024).unwrap();
    }
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
    for &n in &order[10_000..] {
        fs.read_at(ino, u64::from(n) * 2048, &mut buf).unwrap();
        assert_eq!(buf, [n as u8 | 1; 1024]);
    }
    for &n in &order[10_000..19_990] {
        fs.punch_hole(ino, u64::from(n) * 2048, 1024).unwrap();
    }
    // Nothing of the tree may be left over: ten extents fit one node below the root.
    assert!(
        fs.attrs(ino).unwrap().blocks / 2 <= 10 + 4,
        "{} blocks",
        fs.attrs(ino).unwrap().blocks / 2
    );
    fs.truncate(ino, 0).unwrap();
    assert_eq!(fs.attrs(ino).unwrap().blocks, 0);
    fs.sync().unwrap();
    assert_eq!(fs.statfs().free_blocks, free);
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn files_are_contiguous_and_space_is_initialised_lazily() {
    let mut fs = fresh(256 << 20);
    let ino = fs.create(ROOT_INO, b"f", &file()).unwrap().ino;
    let run = fs.allocate(ino, 0, 20_000).unwrap();
    assert!(run.unwritten && run.len > 16_000);
    assert_eq!(fs.attrs(ino).unwrap().size, 0);
    // What lies behind the end of the file stays unwritten, whatever the caller says.
    fs.mark_written(ino, 0, 200, Some(100 * 4096 - 7)).unwrap();
    let written = fs.map(ino, 0, 20_000).unwrap();
    assert_eq!(
        (written.physical, written.len, written.unwritten),
        (run.physical, 100, false)
    );
    let rest = fs.map(ino, 100, 20_000).unwrap();
    assert!(rest.unwritten && rest.physical == run.physical.map(|at| at + 100));
    // Allocating what is there changes nothing.
    assert_eq!(fs.allocate(ino, 100, 20_000).unwrap(), rest);
    // Appending goes on behind.
    let more = fs.allocate(ino, run.len, 100).unwrap();
    assert_eq!(
        more.physical,
        run.physical.map(|at| at + u64::from(run.len))
    );
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn arguments_out_of_range() {
    let mut fs = fresh(32 << 20);
    let ino = fs.create(ROOT_INO, b"f", &file()).unwrap().ino;
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
        assert_eq!(fs.create(ROOT_INO, name, &file()), Err(Error::Invalid));
    }
    assert_eq!(
        fs.create(ROOT_INO, &[b'n'; 256], &file()),
        Err(Error::NameTooLong)
    );
    assert_eq!(fs.lookup(ROOT_INO, &[b'n'; 256]), Err(Error::NameTooLong));
    assert_eq!(fs.create(ino, b"x", &file()), Err(Error::NotDir));
    assert_eq!(fs.symlink(ROOT_INO, b"l", b"", 0, 0), Err(Error::Invalid));
    assert_eq!(
        fs.symlink(ROOT_INO, b"l", &[b'x'; 4096], 0, 0),
        Err(Error::NameTooLong)
    );
    assert_eq!(fs.link(ROOT_INO, b"l", ROOT_INO), Err(Error::NotPermitted));
    assert_eq!(fs.unlink(ROOT_INO, b"none"), Err(Error::NotFound));
    assert_eq!(fs.rmdir(ROOT_INO, b"."), Err(Error::Invalid));
    assert_eq!(fs.rmdir(ROOT_INO, b".."), Err(Error::NotEmpty));
    assert_eq!(fs.readlink(ino), Err(Error::Invalid));
    assert_eq!(fs.map(ino, u32::MAX, 1), Err(Error::Invalid));
    assert_eq!(fs.allocate(ino, u32::MAX - 1, 5), Err(Error::TooBig));
    assert_eq!(fs.allocate(ino, 0, 0), Err(Error::Invalid));
    assert_eq!(fs.write_at(ROOT_INO, 0, b"x"), Err(Error::IsDir));
    assert_eq!(fs.get_xattr(ino, b"foreign.x"), Err(Error::NotSupported));
    assert_eq!(
        fs.set_xattr(ino, b"user.", b"", XattrMode::Any),
        Err(Error::NotSupported)
    );
    assert_eq!(
        fs.set_xattr(ino, b"user.x", &[0; 60_000], XattrMode::Any),
        Err(Error::NoSpace)
    );
    assert_eq!(
        fs.set_xattr(ino, b"user.x", b"", XattrMode::Replace),
        Err(Error::NoData)
    );
    fs.set_xattr(ino, b"user.x", b"", XattrMode::Create)
        .unwrap();
    assert_eq!(
        fs.set_xattr(ino, b"user.x", b"", XattrMode::Create),
        Err(Error::Exists)
    );
    assert_eq!(fs.get_xattr(ino, b"user.x").unwrap(), b"");
    fs.set_xattr(
        ino,
        b"system.posix_acl_access",
        &[2, 0, 0, 0],
        XattrMode::Any,
    )
    .unwrap();
    assert_eq!(
        fs.list_xattrs(ino).unwrap(),
        b"user.x\0system.posix_acl_access\0"
    );
    assert_eq!(fs.set_flags(ino, 0x8_0000), Err(Error::NotSupported));
    assert_eq!(
        (fs.attrs(0), fs.attrs(u32::MAX)),
        (Err(Error::NotFound), Err(Error::NotFound))
    );
    assert_eq!(fs.attrs(500), Err(Error::NotFound));
    assert_eq!(
        fs.rename(ROOT_INO, b"f", ROOT_INO, b"f", RenameMode::Replace),
        Ok(None)
    );
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn open_files_without_names() {
    let mut fs = fresh(32 << 20);
    let unnamed = fs.create_unnamed(ROOT_INO, &file()).unwrap();
    assert_eq!(unnamed.nlink, 0);
    fs.write_at(unnamed.ino, 0, b"temporary").unwrap();
    let other = fs.create_unnamed(ROOT_INO, &file()).unwrap().ino;
    let third = fs.create_unnamed(ROOT_INO, &file()).unwrap().ino;
    fs.link(ROOT_INO, b"kept", unnamed.ino).unwrap();
    fs.release(unnamed.ino).unwrap();
    // A removed directory that is still open is empty and takes no names.
    let gone = fs.create(ROOT_INO, b"gone", &dir()).unwrap().ino;
    fs.rmdir(ROOT_INO, b"gone").unwrap();
    assert_eq!(fs.create(gone, b"x", &file()), Err(Error::NotFound));
    assert_eq!(fs.readdir(gone, 0, &mut |_| true), Err(Error::NotFound));
    fs.sync().unwrap();
    // A crash now: the next mount frees the orphans.
    let mut fs = Ext4::mount(MemDevice::from_vec(dump(fs.device())), rw()).unwrap();
    for ino in [other, third, gone] {
        assert_eq!(fs.attrs(ino), Err(Error::NotFound));
    }
    assert_eq!(fs.lookup(ROOT_INO, b"kept"), Ok(unnamed.ino));
    let fifo = NewInode {
        kind: FileKind::Fifo,
        perm: 0o600,
        uid: 0,
        gid: 0,
    };
    assert_eq!(fs.create_unnamed(ROOT_INO, &fifo), Err(Error::Invalid));
    // Unmounting frees what nobody released.
    let left = fs.create_unnamed(ROOT_INO, &file()).unwrap().ino;
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
    assert_eq!(fs.attrs(left), Err(Error::NotFound));
}

/// A device that fails after a number of writes.
struct Failing {
    inner: MemDevice,
    left: AtomicI64,
}

impl BlockDevice for Failing {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.inner.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(IoError);
        }
        self.inner.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        if self.left.load(Ordering::Relaxed) <= 0 {
            Err(IoError)
        } else {
            Ok(())
        }
    }
}

#[test]
fn a_failing_device_leaves_a_recoverable_volume() {
    for allowed in (0..400).step_by(9) {
        let size = 16 << 20;
        let inner = MemDevice::new(size);
        mkfs(&inner, &options(size as u64)).unwrap();
        let device = Failing {
            inner,
            left: AtomicI64::new(allowed),
        };
        let mut fs = Ext4::mount(&device, rw()).unwrap();
        let mut failed = false;
        for n in 0..300 {
            let result = fs
                .create(ROOT_INO, format!("{n}").as_bytes(), &file())
                .and_then(|attrs| fs.write_at(attrs.ino, 0, &[1; 5000]))
                .and_then(|()| if n % 20 == 0 { fs.sync() } else { Ok(()) });
            match result {
                Ok(()) => {}
                Err(Error::Io | Error::ReadOnly) => failed = true,
                Err(error) => panic!("{error:?}"),
            }
        }
        if fs.is_read_only() {
            // What was lost must not look durable.
            assert_eq!(
                (fs.sync(), fs.fsync(ROOT_INO, true)),
                (Err(Error::Io), Err(Error::Io))
            );
            assert_eq!(fs.unmount(), Err(Error::Io));
        }
        failed |= fs.unmount().is_err();
        drop(fs);
        assert!(failed || allowed > 300, "{allowed}");
        let mut fs = Ext4::mount(MemDevice::from_vec(dump(&device.inner)), rw()).unwrap();
        fs.unmount().unwrap();
        fsck_bytes(&dump(fs.device()));
    }
}

#[test]
fn the_cache_stays_small() {
    let size = 128 << 20;
    let device = MemDevice::new(size);
    mkfs(
        &device,
        &MkfsOptions {
            inodes: Some(20_000),
            ..options(size as u64)
        },
    )
    .unwrap();
    let small = MountOptions {
        cache_blocks: 64,
        ..rw()
    };
    let mut fs = Ext4::mount(device, small).unwrap();
    let mut model = Model::new();
    let mut rng = Rng(4);
    let mix = Mix {
        max_write: 20_000,
        rename_dirs: true,
        max_items: 3000,
    };
    for _ in 0..6000 {
        model.step(&mut rng, &mut fs, &mix);
        assert!(
            fs.cached_blocks() < 64 + 1024,
            "{} blocks",
            fs.cached_blocks()
        );
    }
    model.check(&mut fs);
    model.release_open(&mut fs);
    fs.unmount().unwrap();
    fs.attrs(ROOT_INO).unwrap();
    assert!(fs.cached_blocks() <= 256, "{} blocks", fs.cached_blocks());
    fsck_bytes(&dump(fs.device()));
}

/// A device that counts requests.
struct Counting {
    inner: MemDevice,
    reads: AtomicI64,
    writes: AtomicI64,
}

impl BlockDevice for Counting {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.inner.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

#[test]
fn a_built_image_is_read_with_few_requests() {
    let size = 128 << 20;
    let device = MemDevice::new(size);
    mkfs(&device, &options(size as u64)).unwrap();
    let mut fs = Ext4::mount(device, MountOptions::bulk(NOW)).unwrap();
    let mut paths = Vec::new();
    for d in 0..100 {
        let sub = fs
            .create(ROOT_INO, format!("dir{d}").as_bytes(), &dir())
            .unwrap()
            .ino;
        for f in 0..20 {
            let ino = fs
                .create(sub, format!("file{f}").as_bytes(), &file())
                .unwrap()
                .ino;
            fs.write_at(ino, 0, &[7; 10_000]).unwrap();
            paths.push((sub, format!("file{f}")));
        }
    }
    fs.unmount().unwrap();
    let device = Counting {
        inner: MemDevice::from_vec(dump(fs.device())),
        reads: AtomicI64::new(0),
        writes: AtomicI64::new(0),
    };
    let mut fs = Ext4::mount(&device, rw()).unwrap();
    assert_eq!(device.reads.swap(0, Ordering::Relaxed), 1, "reads to mount");
    let mut end = None;
    for (sub, name) in &paths {
        let ino = fs.lookup(*sub, name.as_bytes()).unwrap();
        let run = fs.map(ino, 0, 100).unwrap();
        assert_eq!(run.len, 3);
        // File data lies in the order it was written.
        assert!(end.is_none_or(|end| run.physical == Some(end)));
        end = run.physical.map(|at| at + 3);
    }
    // 100 directories and 2,100 inodes (132 blocks of the table).
    let reads = device.reads.load(Ordering::Relaxed);
    assert!(reads < 40, "{reads} reads");
    // Only looking writes nothing, ever.
    fs.sync().unwrap();
    fs.unmount().unwrap();
    assert_eq!(device.writes.load(Ordering::Relaxed), 0);
}

#[test]
fn many_changes_are_few_writes() {
    let size = 64 << 20;
    let inner = MemDevice::new(size);
    mkfs(&inner, &options(size as u64)).unwrap();
    let device = Counting {
        inner,
        reads: AtomicI64::new(0),
        writes: AtomicI64::new(0),
    };
    let mut fs = Ext4::mount(&device, rw()).unwrap();
    for n in 0..1000 {
        fs.create(ROOT_INO, format!("{n}").as_bytes(), &file())
            .unwrap();
    }
    fs.sync().unwrap();
    let writes = device.writes.load(Ordering::Relaxed);
    assert!(writes < 10, "{writes} writes");
}
