//! First things: an empty volume, a small tree, what e2fsprogs says about them.

mod common;

use common::*;
use ext4::{
    Error, Ext4, FileKind, MemDevice, MkfsOptions, MountOptions, NewInode, ROOT_INO, RenameMode,
    Timestamp, XattrMode, mkfs,
};

#[test]
fn empty_volumes_are_clean() {
    for (size, block_size, journal_blocks) in [
        (64 << 20, 4096, 1024),
        (300 << 20, 4096, 4096),
        (2 << 20, 4096, 0),
        (16 << 20, 1024, 1024),
        (200 << 20, 1024, 4096),
        (100 << 20, 2048, 1024),
        ((128 << 20) + 4096 * 10, 4096, 1024),
        (3 << 30, 4096, 8192),
    ] {
        for zeroed in [true, false] {
            if !zeroed && size > 64 << 20 {
                continue;
            }
            let dir = TempDir::new();
            let path = dir.join("image");
            let device = file_device(&path, size);
            if !zeroed {
                std::fs::write(&path, vec![0xa5; size as usize]).unwrap();
            }
            mkfs(
                &device,
                &MkfsOptions {
                    block_size,
                    journal_blocks,
                    zeroed,
                    ..options(size)
                },
            )
            .unwrap();
            fsck(&path);
        }
    }
}

#[test]
fn more_inodes_than_a_bitmap_counts() {
    for (size, inodes, block_size) in [
        (64u64 << 20, 100_000, 4096),
        (200 << 20, 150_000, 4096),
        (40 << 20, 40_000, 1024),
    ] {
        let folder = TempDir::new();
        let path = folder.join("image");
        let device = file_device(&path, size);
        let made = MkfsOptions {
            inodes: Some(inodes),
            block_size,
            ..options(size)
        };
        mkfs(&device, &made).unwrap();
        fsck(&path);
        let mut fs = Ext4::mount(device, MountOptions::bulk(NOW)).unwrap();
        assert!(fs.statfs().inodes >= u64::from(inodes));
        for n in 0..inodes - 100 {
            fs.create(ROOT_INO, format!("{n}").as_bytes(), &file())
                .unwrap();
        }
        fs.unmount().unwrap();
        fsck(&path);
    }
}

#[test]
fn mkfs_is_deterministic_and_checks_its_options() {
    let make = |fill: u8| {
        let device = MemDevice::from_vec(vec![fill; 32 << 20]);
        mkfs(
            &device,
            &MkfsOptions {
                zeroed: false,
                ..options(32 << 20)
            },
        )
        .unwrap();
        device.into_vec()
    };
    assert_eq!(make(0), make(0));
    let device = MemDevice::new(32 << 20);
    assert_eq!(mkfs(&device, &options(64 << 20)), Err(Error::Invalid));
    assert_eq!(
        mkfs(
            &device,
            &MkfsOptions {
                block_size: 512,
                ..options(32 << 20)
            }
        ),
        Err(Error::Invalid)
    );
    assert_eq!(
        mkfs(
            &device,
            &MkfsOptions {
                journal_blocks: 100_000,
                ..options(32 << 20)
            }
        ),
        Err(Error::NoSpace)
    );
    assert_eq!(mkfs(&device, &options(4096 * 10)), Err(Error::NoSpace));
}

#[test]
fn a_small_tree() {
    let mut fs = fresh(64 << 20);
    let home = fs.create(ROOT_INO, b"home", &dir()).unwrap();
    let hello = fs.create(home.ino, b"hello.txt", &file()).unwrap();
    fs.write_at(hello.ino, 0, b"hello, world").unwrap();
    let long = vec![b'x'; 3000];
    fs.symlink(home.ino, b"short", b"hello.txt", 1000, 100_000)
        .unwrap();
    let far = fs.symlink(home.ino, b"long", &long, 0, 0).unwrap();
    fs.link(ROOT_INO, b"again", hello.ino).unwrap();
    fs.create(
        ROOT_INO,
        b"null",
        &NewInode {
            kind: FileKind::CharDevice(0x103),
            perm: 0o666,
            uid: 0,
            gid: 0,
        },
    )
    .unwrap();
    fs.create(
        ROOT_INO,
        b"disk",
        &NewInode {
            kind: FileKind::BlockDevice(0x1234_5678),
            perm: 0o660,
            uid: 0,
            gid: 6,
        },
    )
    .unwrap();
    fs.create(
        ROOT_INO,
        b"pipe",
        &NewInode {
            kind: FileKind::Fifo,
            perm: 0o600,
            uid: 0,
            gid: 0,
        },
    )
    .unwrap();
    fs.create(
        ROOT_INO,
        b"sock",
        &NewInode {
            kind: FileKind::Socket,
            perm: 0o600,
            uid: 0,
            gid: 0,
        },
    )
    .unwrap();
    fs.set_xattr(hello.ino, b"user.small", b"value", XattrMode::Any)
        .unwrap();
    fs.set_xattr(hello.ino, b"user.large", &[7; 3000], XattrMode::Create)
        .unwrap();
    let old = Timestamp {
        sec: -5_000_000_000 / 3,
        nsec: 5,
    };
    let far_future = Timestamp {
        sec: 5_000_000_000,
        nsec: 999_999_999,
    };
    fs.set_times(hello.ino, Some(old), Some(far_future), None)
        .unwrap();
    let (gone, left) = fs.unlink(ROOT_INO, b"pipe").unwrap();
    assert_eq!(left, 0);
    fs.release(gone).unwrap();
    assert_eq!(fs.attrs(gone), Err(Error::NotFound));
    fs.unmount().unwrap();

    let bytes = dump(fs.device());
    fsck_bytes(&bytes);
    let mut fs = Ext4::mount(MemDevice::from_vec(bytes), MountOptions::read_only()).unwrap();
    let home = fs.lookup(ROOT_INO, b"home").unwrap();
    assert_eq!(fs.lookup(home, b"..").unwrap(), ROOT_INO);
    let ino = fs.lookup(home, b"hello.txt").unwrap();
    assert_eq!(fs.lookup(ROOT_INO, b"again").unwrap(), ino);
    let mut buf = [0; 100];
    assert_eq!(fs.read_at(ino, 0, &mut buf).unwrap(), 12);
    assert_eq!(&buf[..12], b"hello, world");
    let attrs = fs.attrs(ino).unwrap();
    assert_eq!(
        (attrs.nlink, attrs.size, attrs.atime, attrs.mtime),
        (2, 12, old, far_future)
    );
    let short = fs.lookup(home, b"short").unwrap();
    assert_eq!(fs.readlink(short).unwrap(), b"hello.txt");
    assert_eq!(fs.attrs(short).unwrap().gid, 100_000);
    assert_eq!(fs.readlink(far.ino).unwrap(), long);
    let null = fs.lookup(ROOT_INO, b"null").unwrap();
    assert_eq!(fs.attrs(null).unwrap().kind, FileKind::CharDevice(0x103));
    let disk = fs.lookup(ROOT_INO, b"disk").unwrap();
    assert_eq!(
        fs.attrs(disk).unwrap().kind,
        FileKind::BlockDevice(0x1234_5678)
    );
    assert_eq!(fs.get_xattr(ino, b"user.small").unwrap(), b"value");
    assert_eq!(fs.get_xattr(ino, b"user.large").unwrap(), [7; 3000]);
    assert_eq!(fs.list_xattrs(ino).unwrap(), b"user.small\0user.large\0");
    assert_eq!(fs.get_xattr(ino, b"user.none"), Err(Error::NoData));
    assert_eq!(fs.create(ROOT_INO, b"no", &file()), Err(Error::ReadOnly));
    let mut names = Vec::new();
    fs.readdir(ROOT_INO, 0, &mut |entry| {
        names.push((entry.name.to_vec(), entry.dirent_type));
        true
    })
    .unwrap();
    assert_eq!(names[0], (b".".to_vec(), 4));
    assert_eq!(names[1], (b"..".to_vec(), 4));
    assert!(names.contains(&(b"again".to_vec(), 8)) && names.contains(&(b"sock".to_vec(), 12)));
    assert_eq!(names.len(), 2 + 6);
}

#[test]
fn renames() {
    let mut fs = fresh(64 << 20);
    let a = fs.create(ROOT_INO, b"a", &dir()).unwrap().ino;
    let b = fs.create(ROOT_INO, b"b", &dir()).unwrap().ino;
    let deep = fs.create(a, b"deep", &dir()).unwrap().ino;
    let f = fs.create(a, b"f", &file()).unwrap().ino;
    let g = fs.create(b, b"g", &file()).unwrap().ino;
    assert_eq!(
        fs.rename(ROOT_INO, b"a", deep, b"x", RenameMode::Replace),
        Err(Error::Invalid)
    );
    assert_eq!(
        fs.rename(a, b"f", b, b"g", RenameMode::NoReplace),
        Err(Error::Exists)
    );
    assert_eq!(
        fs.rename(a, b"f", b, b"none", RenameMode::Exchange),
        Err(Error::NotFound)
    );
    assert_eq!(
        fs.rename(a, b"f", ROOT_INO, b"b", RenameMode::Replace),
        Err(Error::IsDir)
    );
    assert_eq!(
        fs.rename(ROOT_INO, b"b", a, b"f", RenameMode::Replace),
        Err(Error::NotDir)
    );
    assert_eq!(
        fs.rename(b, b"none", a, b"f", RenameMode::Replace),
        Err(Error::NotFound)
    );
    assert_eq!(
        fs.rename(a, b"f", b, b"g", RenameMode::Replace),
        Ok(Some(g))
    );
    fs.release(g).unwrap();
    assert_eq!(fs.lookup(b, b"g"), Ok(f));
    assert_eq!(
        fs.rename(a, b"deep", b, b"g", RenameMode::Exchange),
        Ok(None)
    );
    assert_eq!(fs.lookup(b, b"g"), Ok(deep));
    assert_eq!(fs.lookup(deep, b".."), Ok(b));
    assert_eq!(
        (fs.attrs(a).unwrap().nlink, fs.attrs(b).unwrap().nlink),
        (2, 3)
    );
    assert_eq!(
        fs.rename(b, b"g", ROOT_INO, b"moved", RenameMode::Replace),
        Ok(None)
    );
    assert_eq!(fs.lookup(deep, b".."), Ok(ROOT_INO));
    assert_eq!(
        fs.rename(ROOT_INO, b"b", ROOT_INO, b"moved", RenameMode::Replace),
        Ok(Some(deep))
    );
    assert_eq!(fs.rmdir(ROOT_INO, b"a"), Err(Error::NotEmpty));
    assert_eq!(fs.unlink(ROOT_INO, b"a"), Err(Error::IsDir));
    fs.unmount().unwrap();
    fsck_bytes(&dump(fs.device()));
}

#[test]
fn the_same_calls_give_the_same_sparse_image() {
    let build = || {
        let folder = TempDir::new();
        let path = folder.join("image");
        let size = 256 << 20;
        let device = file_device(&path, size);
        mkfs(&device, &options(size)).unwrap();
        let mut fs = Ext4::mount(device, MountOptions::bulk(NOW)).unwrap();
        for d in 0..20 {
            let sub = fs
                .create(ROOT_INO, format!("{d}").as_bytes(), &dir())
                .unwrap()
                .ino;
            for f in 0..50 {
                let ino = fs
                    .create(sub, format!("{f}").as_bytes(), &file())
                    .unwrap()
                    .ino;
                fs.write_at(ino, 0, &vec![f as u8; d * 1000]).unwrap();
                fs.set_xattr(ino, b"user.n", &[f as u8; 150], XattrMode::Any)
                    .unwrap();
            }
            fs.symlink(sub, b"link", &[b'x'; 100], 0, 0).unwrap();
        }
        fs.unmount().unwrap();
        fsck(&path);
        let held = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512;
        assert!(held < 32 << 20, "{held} bytes held");
        std::fs::read(&path).unwrap()
    };
    assert!(build() == build());
}
