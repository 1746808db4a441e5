//! Path resolution and changes of names, against what Linux answers.

mod common;

use common::World;
use errno::Errno;
use fs::{
    Access, Credentials, FileType, LookupFlags, MountFlags, OpenFlags, RenameFlags,
    tmpfs::{Options, TmpFs},
};

/// /a/b/file, /a/link -> b, /a/abs -> /a/b/file, /loop -> loop, /dangling -> nowhere
fn tree() -> World {
    let w = World::new();
    w.mkdir("/a").unwrap();
    w.mkdir("/a/b").unwrap();
    w.put("/a/b/file", b"x").unwrap();
    w.symlink("b", "/a/link").unwrap();
    w.symlink("/a/b/file", "/a/abs").unwrap();
    w.symlink("loop", "/loop").unwrap();
    w.symlink("nowhere", "/dangling").unwrap();
    w
}

#[test]
fn resolution_table() {
    let w = tree();
    let follow = LookupFlags::FOLLOW;
    let none = LookupFlags::empty();
    let long_name = "n".repeat(256);
    let long_path = "/".repeat(4096);
    let ok = [
        ("/", none, "/"),
        ("///", none, "/"),
        ("/..", none, "/"),
        ("/../../a", none, "/a"),
        (".", none, "/"),
        ("a/./b//file", none, "/a/b/file"),
        ("/a/b/../b/file", none, "/a/b/file"),
        ("/a/link", none, "/a/link"),
        ("/a/link", follow, "/a/b"),
        ("/a/link/", none, "/a/b"),
        ("/a/link/.", none, "/a/b"),
        ("/a/link/file", none, "/a/b/file"),
        ("/a/link/../abs", follow, "/a/b/file"),
        ("/dangling", none, "/dangling"),
        ("/a/b/", LookupFlags::DIRECTORY, "/a/b"),
    ];
    for (path, flags, expected) in ok {
        let found = w
            .resolve(path, flags)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(w.name_of(&found), expected, "{path}");
    }
    let bad = [
        ("", none, Errno::ENOENT),
        ("/x", none, Errno::ENOENT),
        ("/x/y", none, Errno::ENOENT),
        ("/a/b/file/", none, Errno::ENOTDIR),
        ("/a/b/file/.", none, Errno::ENOTDIR),
        ("/a/b/file/x", none, Errno::ENOTDIR),
        ("/a/abs/", follow, Errno::ENOTDIR),
        ("/a/b/file", LookupFlags::DIRECTORY, Errno::ENOTDIR),
        ("/loop", follow, Errno::ELOOP),
        ("/loop/x", none, Errno::ELOOP),
        ("/dangling", follow, Errno::ENOENT),
        (&long_name, none, Errno::ENAMETOOLONG),
        (&long_path, none, Errno::ENAMETOOLONG),
        ("/a/link/file", LookupFlags::NO_SYMLINKS, Errno::ELOOP),
        ("/a", LookupFlags::BENEATH, Errno::EXDEV),
        ("..", LookupFlags::BENEATH, Errno::EXDEV),
        ("a/../..", LookupFlags::BENEATH, Errno::EXDEV),
    ];
    for (path, flags, expected) in bad {
        assert_eq!(w.resolve(path, flags).err(), Some(expected), "{path}");
    }
    let found = w.resolve("a/../a", LookupFlags::BENEATH).unwrap();
    assert_eq!(w.name_of(&found), "/a");
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let w = World::new();
    w.put("/l0", b"end").unwrap();
    for i in 1..=41 {
        w.symlink(&format!("l{}", i - 1), &format!("/l{i}"))
            .unwrap();
    }
    assert!(w.stat("/l40").is_ok());
    assert_eq!(w.stat("/l41").err(), Some(Errno::ELOOP));
}

#[test]
fn in_root_makes_the_start_the_root() {
    let mut w = tree();
    w.cwd = w.resolve("/a", LookupFlags::empty()).unwrap();
    let how = LookupFlags::IN_ROOT | LookupFlags::FOLLOW;
    assert_eq!(w.name_of(&w.resolve("/b/file", how).unwrap()), "/a/b/file");
    assert_eq!(w.name_of(&w.resolve("../../b", how).unwrap()), "/a/b");
    assert_eq!(w.resolve("abs", how).err(), Some(Errno::ENOENT));
}

#[test]
fn a_process_root_is_not_left() {
    let mut w = tree();
    w.root = w.resolve("/a", LookupFlags::empty()).unwrap();
    w.cwd = w.root.clone();
    assert!(w.stat("/../../b/file").is_ok());
    assert_eq!(w.stat("/a").err(), Some(Errno::ENOENT));
}

#[test]
fn mounts_are_crossed_both_ways() {
    let w = tree();
    w.mkdir("/mnt").unwrap();
    w.put("/mnt/below", b"").unwrap();
    let point = w.resolve("/mnt", LookupFlags::empty()).unwrap();
    let other = TmpFs::new(&Options::default());
    w.ns.mount(other, &point, MountFlags::empty()).unwrap();
    assert_eq!(w.stat("/mnt/below").err(), Some(Errno::ENOENT));
    w.put("/mnt/above", b"").unwrap();
    let back = w.resolve("/mnt/../a", LookupFlags::empty()).unwrap();
    assert_eq!(w.name_of(&back), "/a");
    let top = w.resolve("/mnt/above", LookupFlags::empty()).unwrap();
    assert_eq!(w.name_of(&top), "/mnt/above");
    assert_eq!(
        w.resolve("/mnt/above", LookupFlags::NO_XDEV).err(),
        Some(Errno::EXDEV)
    );
    assert_eq!(w.rename("/a/b/file", "/mnt/f").err(), Some(Errno::EXDEV));
    assert_eq!(w.link("/a/b/file", "/mnt/f").err(), Some(Errno::EXDEV));
    assert_eq!(w.rmdir("/mnt").err(), Some(Errno::EBUSY));
    assert_eq!(w.rename("/mnt", "/mnt2").err(), Some(Errno::EBUSY));
    drop(top);
    drop(back);
    let root = w.resolve("/mnt", LookupFlags::empty()).unwrap();
    w.ns.unmount(&root, false).unwrap();
    assert!(w.stat("/mnt/below").is_ok());
}

#[test]
fn a_busy_mount_stays() {
    let w = World::new();
    w.mkdir("/mnt").unwrap();
    let point = w.resolve("/mnt", LookupFlags::empty()).unwrap();
    w.ns.mount(TmpFs::new(&Options::default()), &point, MountFlags::empty())
        .unwrap();
    w.put("/mnt/f", b"data").unwrap();
    let file = w.open("/mnt/f", OpenFlags::empty()).unwrap();
    let root = w.resolve("/mnt", LookupFlags::empty()).unwrap();
    assert_eq!(w.ns.unmount(&root, false).err(), Some(Errno::EBUSY));
    w.ns.unmount(&root, true).unwrap();
    assert_eq!(common::read_all(&file).unwrap(), b"data");
    assert_eq!(w.stat("/mnt/f").err(), Some(Errno::ENOENT));
}

#[test]
fn opening() {
    let w = tree();
    let creat = OpenFlags::CREAT | OpenFlags::WRONLY;
    let err = |path: &str, flags| w.open(path, flags).err();
    assert_eq!(err("/a", OpenFlags::RDWR), Some(Errno::EISDIR));
    assert_eq!(err("/a", creat), Some(Errno::EISDIR));
    assert_eq!(err("/new/", creat), Some(Errno::EISDIR));
    assert_eq!(
        err("/a/b/file", creat | OpenFlags::EXCL),
        Some(Errno::EEXIST)
    );
    assert_eq!(
        err("/dangling", creat | OpenFlags::EXCL),
        Some(Errno::EEXIST)
    );
    assert_eq!(err("/a/link", OpenFlags::NOFOLLOW), Some(Errno::ELOOP));
    assert_eq!(err("/a/b/file", OpenFlags::DIRECTORY), Some(Errno::ENOTDIR));
    assert_eq!(err("/x/y", creat), Some(Errno::ENOENT));
    assert_eq!(
        err("/a/b/file", OpenFlags::from_bits_retain(3)),
        Some(Errno::EINVAL)
    );
    // Through a dangling link a file is made where it points.
    assert!(w.open("/dangling", creat).is_ok());
    assert_eq!(w.lstat("/nowhere").unwrap().file_type, FileType::Regular);
    let link = w
        .open("/a/link", OpenFlags::PATH | OpenFlags::NOFOLLOW)
        .unwrap();
    assert_eq!(link.file().metadata().unwrap().file_type, FileType::Symlink);
    assert_eq!(common::read_at(&link, 0, 1).err(), Some(Errno::EBADF));
    let dir = w.open("/a", OpenFlags::empty()).unwrap();
    assert_eq!(common::read_at(&dir, 0, 1).err(), Some(Errno::EISDIR));
}

#[test]
fn unlinked_files_live_on() {
    let w = tree();
    let file = w.open("/a/b/file", OpenFlags::RDWR).unwrap();
    w.unlink("/a/b/file").unwrap();
    assert_eq!(w.stat("/a/b/file").err(), Some(Errno::ENOENT));
    assert_eq!(common::read_all(&file).unwrap(), b"x");
    assert_eq!(file.file().metadata().unwrap().nlink, 0);
    assert_eq!(w.name_of(file.path().unwrap()), "/a/b/file (deleted)");
    w.put("/a/b/file", b"another").unwrap();
    assert_eq!(common::read_at(&file, 0, 9).unwrap(), b"x");
}

#[test]
fn removed_directories_take_no_names() {
    let mut w = tree();
    w.mkdir("/gone").unwrap();
    w.cwd = w.resolve("/gone", LookupFlags::empty()).unwrap();
    w.rmdir("/gone").unwrap();
    assert_eq!(w.put("f", b"").err(), Some(Errno::ENOENT));
    assert_eq!(w.names(".").err(), Some(Errno::ENOENT));
    assert_eq!(w.stat("..").unwrap().ino, w.stat("/").unwrap().ino);
}

#[test]
fn removing() {
    let w = tree();
    assert_eq!(w.unlink("/a").err(), Some(Errno::EISDIR));
    assert_eq!(w.unlink("/a/b/file/").err(), Some(Errno::ENOTDIR));
    assert_eq!(w.unlink("/none").err(), Some(Errno::ENOENT));
    assert_eq!(w.rmdir("/a").err(), Some(Errno::ENOTEMPTY));
    assert_eq!(w.rmdir("/a/b/file").err(), Some(Errno::ENOTDIR));
    assert_eq!(w.rmdir("/a/.").err(), Some(Errno::EINVAL));
    assert_eq!(w.rmdir("/a/..").err(), Some(Errno::ENOTEMPTY));
    assert_eq!(w.rmdir("/").err(), Some(Errno::EBUSY));
    assert_eq!(w.mkdir("/a").err(), Some(Errno::EEXIST));
    assert_eq!(w.mkdir("/").err(), Some(Errno::EEXIST));
    w.mkdir("/d/").unwrap();
    assert_eq!(w.stat("/").unwrap().nlink, 4);
    w.rmdir("/d/").unwrap();
    assert_eq!(w.stat("/").unwrap().nlink, 3);
}

#[test]
fn renaming() {
    let w = tree();
    let err = |a: &str, b: &str| w.rename(a, b).err();
    assert_eq!(err("/a", "/a/b/c"), Some(Errno::EINVAL));
    assert_eq!(err("/a/b/file", "/a"), Some(Errno::ENOTEMPTY));
    w.mkdir("/empty").unwrap();
    assert_eq!(err("/a/b/file", "/empty"), Some(Errno::EISDIR));
    assert_eq!(err("/empty", "/a/b/file"), Some(Errno::ENOTDIR));
    assert_eq!(err("/empty", "/a/b"), Some(Errno::ENOTEMPTY));
    assert_eq!(err("/a/b/file", "/f/"), Some(Errno::ENOTDIR));
    assert_eq!(err("/a/.", "/f"), Some(Errno::EBUSY));
    assert_eq!(err("/none", "/f"), Some(Errno::ENOENT));
    let open = w.open("/a/b/file", OpenFlags::empty()).unwrap();
    w.rename("/a/b", "/empty").unwrap();
    assert_eq!(w.name_of(open.path().unwrap()), "/empty/file");
    assert_eq!(w.get("/empty/file").unwrap(), b"x");
    assert_eq!(w.stat("/a/b").err(), Some(Errno::ENOENT));
    assert_eq!(w.stat("/").unwrap().nlink, 4);
    w.put("/one", b"1").unwrap();
    w.put("/two", b"2").unwrap();
    assert_eq!(
        w.rename_how("/one", "/two", RenameFlags::NOREPLACE).err(),
        Some(Errno::EEXIST)
    );
    w.rename_how("/one", "/two", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(w.get("/one").unwrap(), b"2");
    w.rename("/one", "/two").unwrap();
    assert_eq!(w.get("/two").unwrap(), b"2");
    w.link("/two", "/three").unwrap();
    w.rename("/two", "/three").unwrap();
    assert!(w.stat("/two").is_ok(), "two names of one inode stay");
    assert_eq!(w.stat("/three").unwrap().nlink, 2);
}

#[test]
fn links() {
    let w = tree();
    assert_eq!(w.link("/a", "/x").err(), Some(Errno::EPERM));
    assert_eq!(w.link("/a/b/file", "/a").err(), Some(Errno::EEXIST));
    w.link("/a/b/file", "/hard").unwrap();
    assert_eq!(w.stat("/hard").unwrap(), w.stat("/a/b/file").unwrap());
    w.unlink("/a/b/file").unwrap();
    assert_eq!(w.get("/hard").unwrap(), b"x");
    assert_eq!(w.stat("/hard").unwrap().nlink, 1);
}

#[test]
fn listing() {
    let w = tree();
    assert_eq!(w.names("/a").unwrap(), [".", "..", "abs", "b", "link"]);
    for i in 0..500 {
        w.put(&format!("/a/b/f{i}"), b"").unwrap();
    }
    // A buffer of three entries at a time, removing what was seen.
    let dir = w.open("/a/b", OpenFlags::empty()).unwrap();
    let mut seen = Vec::new();
    loop {
        let before = seen.len();
        dir.readdir(&mut |entry| {
            if seen.len() == before + 3 {
                return false;
            }
            seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        })
        .unwrap();
        if seen.len() == before {
            break;
        }
        for name in &seen[before..] {
            if name.starts_with('f') {
                w.unlink(&format!("/a/b/{name}")).unwrap();
            }
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 503);
    assert_eq!(w.names("/a/b").unwrap(), [".", ".."]);
}

#[test]
fn an_ordinary_user_is_held_to_the_bits() {
    let mut w = tree();
    w.put("/secret", b"s").unwrap();
    let path = w.resolve("/secret", LookupFlags::empty()).unwrap();
    w.ns.chmod(&w.start(), &path, 0o600).unwrap();
    let dir = w.resolve("/a/b", LookupFlags::empty()).unwrap();
    w.ns.chmod(&w.start(), &dir, 0o700).unwrap();
    w.creds = Credentials {
        uid: 1000,
        gid: 1000,
        groups: vec![],
    };
    assert_eq!(w.get("/secret").err(), Some(Errno::EACCES));
    assert_eq!(w.stat("/a/b/file").err(), Some(Errno::EACCES));
    assert_eq!(w.put("/mine", b"").err(), Some(Errno::EACCES));
    assert_eq!(
        w.ns.access(&w.start(), &path, Access::READ).err(),
        Some(Errno::EACCES)
    );
    assert_eq!(
        w.ns.chmod(&w.start(), &path, 0o777).err(),
        Some(Errno::EPERM)
    );
}

#[test]
fn negative_entries_give_way() {
    let w = World::new();
    for round in 0..3 {
        assert_eq!(w.stat("/f").err(), Some(Errno::ENOENT));
        w.put("/f", b"now").unwrap();
        assert_eq!(w.get("/f").unwrap(), b"now");
        if round == 1 {
            w.rename("/f", "/g").unwrap();
            assert_eq!(w.stat("/f").err(), Some(Errno::ENOENT));
            assert!(w.stat("/g").is_ok());
        } else {
            w.unlink("/f").unwrap();
        }
    }
}

#[test]
fn unnamed_files_get_a_name_by_link() {
    let w = World::new();
    let file = w.open("/", OpenFlags::TMPFILE | OpenFlags::RDWR).unwrap();
    common::write_at(&file, 0, b"late").unwrap();
    assert_eq!(w.names("/").unwrap(), [".", ".."]);
    let place = file.path().unwrap().clone();
    w.ns.link(&w.start(), &place, b"/named").unwrap();
    assert_eq!(w.get("/named").unwrap(), b"late");
    assert_eq!(w.stat("/named").unwrap().nlink, 1);
    assert_eq!(w.open("/", OpenFlags::TMPFILE).err(), Some(Errno::EINVAL));
}

#[test]
fn deep_trees_do_not_overflow_the_stack() {
    let mut w = World::new();
    let deep = 20_000;
    for _ in 0..deep {
        w.mkdir("d").unwrap();
        w.cwd = w.resolve("d", LookupFlags::empty()).unwrap();
    }
    w.cwd = w.root.clone();
    fs::dentry::shrink(usize::MAX);
    w.ns.unmount_all().unwrap();
}
