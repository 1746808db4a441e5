//! Volumes of e2fsprogs read and written here, and volumes of this library read by e2fsprogs.

mod common;

use common::*;
use ext4::{Error, Ext4, FileKind, MountOptions, NewInode, ROOT_INO, Timestamp};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn mke2fs(path: &Path, args: &[&str], size: &str) {
    let mut all = vec!["-q", "-F", "-t", "ext4"];
    all.extend_from_slice(args);
    all.extend_from_slice(&[text(path), size]);
    let out = run("mke2fs", &all);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn debugfs(path: &Path, command: &str) -> String {
    let out = run("debugfs", &["-R", command, text(path)]);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn device(path: &Path) -> ext4::FileDevice {
    file_device(path, fs::metadata(path).unwrap().len())
}

#[test]
fn volumes_of_mke2fs_in_many_shapes() {
    let shapes: [&[&str]; 14] = [
        &[],
        &["-b", "1024"],
        &["-b", "2048"],
        &["-b", "4096", "-I", "512"],
        &["-I", "128"],
        &["-O", "^metadata_csum"],
        &["-O", "^metadata_csum,uninit_bg"],
        &["-O", "^64bit"],
        &["-O", "^flex_bg"],
        &["-O", "^has_journal"],
        &["-O", "^resize_inode,meta_bg"],
        &["-O", "metadata_csum_seed"],
        &["-O", "^dir_index"],
        &["-b", "1024", "-O", "^metadata_csum,^64bit,^flex_bg"],
    ];
    for shape in shapes {
        let folder = TempDir::new();
        let path = folder.join("image");
        let tree = folder.join("tree");
        fs::create_dir(&tree).unwrap();
        fs::create_dir(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/hello"), b"from the host").unwrap();
        fs::write(tree.join("big"), vec![7; 3_000_000]).unwrap();
        symlink("sub/hello", tree.join("link")).unwrap();
        symlink("x".repeat(200), tree.join("longlink")).unwrap();
        for n in 0..300 {
            fs::write(
                tree.join(format!("sub/a file with a fairly long name, number {n}")),
                b"",
            )
            .unwrap();
        }
        let mut args = shape.to_vec();
        args.extend_from_slice(&["-d", text(&tree)]);
        mke2fs(&path, &args, "60M");

        let mut fs =
            Ext4::mount(device(&path), rw()).unwrap_or_else(|error| panic!("{shape:?}: {error:?}"));
        let sub = fs.lookup(ROOT_INO, b"sub").unwrap();
        let hello = fs.lookup(sub, b"hello").unwrap();
        let mut buf = [0; 64];
        let n = fs.read_at(hello, 0, &mut buf).unwrap();
        assert_eq!(&buf[..n], b"from the host");
        let link = fs.lookup(ROOT_INO, b"link").unwrap();
        assert_eq!(fs.readlink(link).unwrap(), b"sub/hello");
        let longlink = fs.lookup(ROOT_INO, b"longlink").unwrap();
        assert_eq!(fs.readlink(longlink).unwrap().len(), 200);
        let big = fs.lookup(ROOT_INO, b"big").unwrap();
        let mut data = vec![0; 3_000_000];
        assert_eq!(fs.read_at(big, 0, &mut data).unwrap(), data.len());
        assert!(data.iter().all(|&byte| byte == 7));
        let mut count = 0;
        fs.readdir(sub, 0, &mut |_| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 303, "{shape:?}");

        // Enough to reach groups that were never used and to split directories.
        for n in 0..1500 {
            let ino = fs
                .create(sub, format!("new {n}").as_bytes(), &file())
                .unwrap()
                .ino;
            fs.write_at(ino, 0, format!("contents {n}").as_bytes())
                .unwrap();
        }
        for n in 0..300 {
            let name = format!("a file with a fairly long name, number {n}");
            let (ino, _) = fs.unlink(sub, name.as_bytes()).unwrap();
            fs.release(ino).unwrap();
        }
        fs.truncate(big, 1_234_567).unwrap();
        fs.unmount().unwrap();
        fsck(&path);
        assert_eq!(
            debugfs(&path, "cat sub/hello"),
            "from the host",
            "{shape:?}"
        );
        assert_eq!(
            debugfs(&path, "cat \"sub/new 1234\""),
            "contents 1234",
            "{shape:?}"
        );
        assert!(
            debugfs(&path, "stat big").contains("Size: 1234567"),
            "{shape:?}"
        );
    }
}

#[test]
fn every_directory_hash() {
    for hash in ["legacy", "half_md4", "tea"] {
        for flags in ["test_fs", "^test_fs"] {
            let folder = TempDir::new();
            let path = folder.join("image");
            mke2fs(&path, &["-b", "1024", "-N", "8000"], "60M");
            let algorithm = format!("hash_alg={hash},{flags}");
            let out = run("tune2fs", &["-E", &algorithm, text(&path)]);
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
            let mut fs = Ext4::mount(device(&path), rw()).unwrap();
            let mut rng = Rng(3);
            let mut names = Vec::new();
            for n in 0..5000 {
                let mut name = format!("{n} ").into_bytes();
                let len = rng.below(60) as usize;
                // Bytes above 127 tell signed hashing from unsigned.
                name.extend(
                    rng.bytes(len)
                        .iter()
                        .map(|&byte| if byte == 0 || byte == b'/' { 1 } else { byte }),
                );
                fs.create(ROOT_INO, &name, &file()).unwrap();
                names.push(name);
            }
            for name in &names {
                fs.lookup(ROOT_INO, name).unwrap();
            }
            fs.unmount().unwrap();
            // e2fsck computes every name's hash and compares it with the bounds of its block.
            fsck(&path);
        }
    }
}

#[test]
fn inodes_of_never_used_groups() {
    let folder = TempDir::new();
    let path = folder.join("image");
    mke2fs(&path, &["-N", "20000"], "400M");
    let mut fs = Ext4::mount(device(&path), rw()).unwrap();
    for n in 0..12_000 {
        fs.create(ROOT_INO, format!("{n}").as_bytes(), &file())
            .unwrap();
    }
    let ino = fs.create(ROOT_INO, b"data", &file()).unwrap().ino;
    fs.fallocate(ino, 0, 300 << 20, false).unwrap();
    fs.unmount().unwrap();
    fsck(&path);
}

#[test]
fn debugfs_reads_what_is_written_here() {
    let folder = TempDir::new();
    let path = folder.join("image");
    let size = 64 << 20;
    let made = file_device(&path, size);
    ext4::mkfs(
        &made,
        &ext4::MkfsOptions {
            label: *b"a label\0\0\0\0\0\0\0\0\0",
            ..options(size)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(made, MountOptions::bulk(NOW)).unwrap();
    let etc = fs.create(ROOT_INO, b"etc", &dir()).unwrap().ino;
    let ino = fs
        .create(
            etc,
            b"passwd",
            &NewInode {
                kind: FileKind::Regular,
                perm: 0o4755,
                uid: 70_000,
                gid: 80_000,
            },
        )
        .unwrap()
        .ino;
    fs.write_at(ino, 0, b"root:x:0:0\n").unwrap();
    fs.set_times(
        ino,
        None,
        Some(Timestamp {
            sec: 4_000_000_000,
            nsec: 7,
        }),
        None,
    )
    .unwrap();
    fs.symlink(etc, b"link", b"passwd", 0, 0).unwrap();
    fs.create(
        etc,
        b"tty",
        &NewInode {
            kind: FileKind::CharDevice(5 << 8),
            perm: 0o666,
            uid: 0,
            gid: 5,
        },
    )
    .unwrap();
    fs.set_xattr(ino, b"user.colour", b"green", ext4::XattrMode::Any)
        .unwrap();
    fs.set_xattr(
        ino,
        b"security.capability",
        &[1; 2000],
        ext4::XattrMode::Any,
    )
    .unwrap();
    fs.unmount().unwrap();
    fsck(&path);
    assert_eq!(debugfs(&path, "cat /etc/passwd"), "root:x:0:0\n");
    let stat = debugfs(&path, "stat /etc/passwd");
    for part in [
        "Mode:  04755",
        "User: 70000",
        "Group: 80000",
        "Size: 11",
        "mtime: 0xee6b2800:0000001d",
        "Links: 1",
    ] {
        assert!(stat.contains(part), "{part} in\n{stat}");
    }
    assert!(debugfs(&path, "stat /etc/link").contains("Fast link dest: \"passwd\""));
    assert!(debugfs(&path, "stat /etc/tty").contains("05:00"));
    assert!(debugfs(&path, "ea_get /etc/passwd user.colour").contains("green"));
    let features = debugfs(&path, "show_super_stats -h");
    for part in [
        "a label",
        "has_journal",
        "metadata_csum",
        "64bit",
        "11223344-5566-7788-99aa-bbccddeeff01",
        "half_md4",
    ] {
        assert!(features.contains(part), "{part} in\n{features}");
    }
    let log = debugfs(&path, "logdump -S");
    assert!(
        log.contains("journal_checksum_v3") && log.contains("Journal is empty")
            || log.contains("Journal starts at block: 0")
            || log.contains("Journal start:            0"),
        "{log}"
    );
}

#[test]
fn e2fsck_replays_the_journal_written_here() {
    let folder = TempDir::new();
    let path = folder.join("image");
    let size = 64 << 20;
    let made = file_device(&path, size);
    ext4::mkfs(&made, &options(size)).unwrap();
    let mut fs = Ext4::mount(made, rw()).unwrap();
    for n in 0..500 {
        fs.create(ROOT_INO, format!("file {n}").as_bytes(), &file())
            .unwrap();
    }
    // A data block that looks like the journal's own must be escaped.
    let mut target = vec![0xc0, 0x3b, 0x39, 0x98];
    target.resize(500, b'x');
    fs.symlink(
        ROOT_INO,
        b"magic",
        &target.iter().map(|&byte| byte.max(1)).collect::<Vec<u8>>(),
        0,
        0,
    )
    .unwrap();
    fs.sync().unwrap();
    drop(fs);
    let out = run("e2fsck", &["-p", text(&path)]);
    assert!(
        out.status.code() == Some(0) || out.status.code() == Some(1),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    fsck(&path);
    assert!(debugfs(&path, "stat \"file 499\"").contains("Type: regular"));
    let mut fs = Ext4::mount(device(&path), MountOptions::read_only()).unwrap();
    let ino = fs.lookup(ROOT_INO, b"magic").unwrap();
    assert_eq!(fs.readlink(ino).unwrap()[..4], [0xc0, 0x3b, 0x39, 0x98]);
}

#[test]
fn what_is_not_supported_is_refused() {
    let folder = TempDir::new();
    let path = folder.join("image");
    mke2fs(&path, &["-O", "inline_data"], "60M");
    assert!(matches!(
        Ext4::mount(device(&path), rw()),
        Err(Error::Unsupported { .. })
    ));
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    assert!(matches!(
        Ext4::mount(device(&path), rw()),
        Err(Error::Corrupt { .. })
    ));
    mke2fs(&path, &["-O", "quota"], "60M");
    assert!(matches!(
        Ext4::mount(device(&path), rw()),
        Err(Error::Unsupported { .. })
    ));
    let mut fs = Ext4::mount(device(&path), MountOptions::read_only()).unwrap();
    assert!(fs.lookup(ROOT_INO, b"lost+found").is_ok());
}

#[test]
fn volumes_made_here_can_be_resized_and_tuned() {
    let folder = TempDir::new();
    let path = folder.join("image");
    let size = 64 << 20;
    let made = file_device(&path, size);
    ext4::mkfs(&made, &options(size)).unwrap();
    let mut fs = Ext4::mount(made, rw()).unwrap();
    for n in 0..500 {
        let ino = fs
            .create(ROOT_INO, format!("file {n}").as_bytes(), &file())
            .unwrap()
            .ino;
        fs.write_at(ino, 0, format!("contents {n}").as_bytes())
            .unwrap();
    }
    fs.unmount().unwrap();
    for target in ["400M", "40M"] {
        let out = run("resize2fs", &["-f", text(&path), target]);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        fsck(&path);
        let mut fs = Ext4::mount(device(&path), rw()).unwrap();
        for n in 0..500 {
            let ino = fs.lookup(ROOT_INO, format!("file {n}").as_bytes()).unwrap();
            let mut buf = [0; 32];
            let len = fs.read_at(ino, 0, &mut buf).unwrap();
            assert_eq!(buf[..len], *format!("contents {n}").as_bytes());
        }
        fs.create(ROOT_INO, target.as_bytes(), &file()).unwrap();
        fs.unmount().unwrap();
        fsck(&path);
    }
    // A new UUID changes the seed of all checksums.
    let out = run(
        "tune2fs",
        &["-U", "01234567-89ab-cdef-0123-456789abcdef", text(&path)],
    );
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mut fs = Ext4::mount(device(&path), rw()).unwrap();
    fs.create(ROOT_INO, b"last", &file()).unwrap();
    fs.sync().unwrap();
    drop(fs);
    let mut fs = Ext4::mount(device(&path), rw()).unwrap();
    assert!(fs.lookup(ROOT_INO, b"last").is_ok());
    fs.unmount().unwrap();
    fsck(&path);
}

#[test]
fn journals_written_by_e2fsprogs_are_replayed() {
    for open in ["jo", "jo -c -v 2", "jo -c -v 3"] {
        for features in ["^64bit", "64bit"] {
            let folder = TempDir::new();
            let path = folder.join("image");
            mke2fs(&path, &["-b", "4096", "-O", features], "60M");
            let mut fs = Ext4::mount(device(&path), rw()).unwrap();
            let ino = fs.create(ROOT_INO, b"f", &file()).unwrap().ino;
            fs.write_at(ino, 0, &[1; 3 * 4096]).unwrap();
            let block = fs.map(ino, 0, 1).unwrap().physical.unwrap();
            fs.unmount().unwrap();
            // Three transactions: blocks 0 and 1 are logged, block 1 is revoked, block 2 is logged twice. The first
            // copy starts with the journal's magic number and so is escaped.
            let copy = |name: &str, fill: u8, magic: bool| {
                let mut bytes = vec![fill; 4096];
                if magic {
                    bytes[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
                }
                let path = folder.join(name);
                fs::write(&path, bytes).unwrap();
                path
            };
            let (a, b, c) = (copy("a", 2, true), copy("b", 3, false), copy("c", 4, false));
            let script = folder.join("script");
            let commands = format!(
                "{open}\njw -b {block} {}\njw -b {},{} {}\njw -r {}\njw -b {} {}\njc\n",
                text(&a),
                block + 1,
                block + 2,
                text(&b),
                block + 1,
                block + 2,
                text(&c)
            );
            // A file of two blocks for the second transaction.
            fs::write(&b, vec![3; 8192]).unwrap();
            fs::write(&script, commands).unwrap();
            let out = run("debugfs", &["-w", "-f", text(&script), text(&path)]);
            let said = String::from_utf8_lossy(&out.stdout).into_owned()
                + &String::from_utf8_lossy(&out.stderr);
            let copy = folder.join("copy");
            fs::copy(&path, &copy).unwrap();

            let check = |fs: &mut Ext4<ext4::FileDevice>, who: &str| {
                let mut data = vec![0; 3 * 4096];
                fs.read_at(ino, 0, &mut data).unwrap();
                assert_eq!(
                    data[..4],
                    [0xc0, 0x3b, 0x39, 0x98],
                    "{open}, {features}, {who}: {said}"
                );
                let at = [data[4096 - 1], data[4096], data[8192]];
                assert_eq!(at, [2, 1, 4], "{open}, {features}, {who}: {said}");
            };
            let mut reader = Ext4::mount(device(&path), MountOptions::read_only()).unwrap();
            check(&mut reader, "in memory");
            let mut writer = Ext4::mount(device(&path), rw()).unwrap();
            check(&mut writer, "on disk");
            writer.create(ROOT_INO, b"g", &file()).unwrap();
            writer.unmount().unwrap();
            fsck(&path);
            // e2fsck must see the same in the log.
            run("e2fsck", &["-fy", text(&copy)]);
            let mut judge = Ext4::mount(device(&copy), MountOptions::read_only()).unwrap();
            check(&mut judge, "by e2fsck");
        }
    }
}
