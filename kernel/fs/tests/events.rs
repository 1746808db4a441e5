//! What watchers are told (inotify(7)), and mounts that take no writes.

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::sync::{Arc, Mutex};

use common::World;
use errno::Errno;
use fs::{
    LookupFlags, MountFlags, OpenFlags,
    notify::{self, Event, Mask, Observer},
};

/// Notes the events: watch, mask, whether there is a cookie, name.
#[derive(Default)]
struct Notes(Mutex<Vec<(i32, Mask, bool, String)>>);

impl Observer for Notes {
    fn event(&self, event: &Event<'_>) {
        let name = event.name.map_or(String::new(), |name| {
            String::from_utf8_lossy(name).into_owned()
        });
        self.0
            .lock()
            .unwrap()
            .push((event.watch, event.mask, event.cookie != 0, name));
    }
}

impl Notes {
    fn take(&self) -> Vec<(i32, Mask, bool, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn watchers_hear_what_inotify_says() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.mkdir("/e").unwrap();
    let notes = Arc::new(Notes::default());
    let observer: Arc<dyn Observer> = notes.clone();
    let dir = w.resolve("/d", LookupFlags::empty()).unwrap();
    let watch = notify::watch(dir.inode(), Mask::all(), 1, &observer);
    let none = |mask, name: &str| (1, mask, false, name.to_string());

    w.put("/d/f", b"hello").unwrap();
    assert_eq!(
        notes.take(),
        [
            none(Mask::CREATE, "f"),
            none(Mask::OPEN, "f"),
            none(Mask::MODIFY, "f"),
            none(Mask::CLOSE_WRITE, "f"),
        ]
    );
    w.get("/d/f").unwrap();
    assert_eq!(
        notes.take(),
        [
            none(Mask::OPEN, "f"),
            none(Mask::ACCESS, "f"),
            none(Mask::CLOSE_NOWRITE, "f"),
        ]
    );
    w.rename("/d/f", "/e/g").unwrap();
    assert_eq!(notes.take(), [(1, Mask::MOVED_FROM, true, "f".to_string())]);
    w.rename("/e/g", "/d/h").unwrap();
    assert_eq!(notes.take(), [(1, Mask::MOVED_TO, true, "h".to_string())]);
    let file = w.resolve("/d/h", LookupFlags::empty()).unwrap();
    let own = notify::watch(file.inode(), Mask::all(), 2, &observer);
    w.ns.chmod(&w.start(), &file, 0o600).unwrap();
    assert_eq!(
        notes.take(),
        [
            none(Mask::ATTRIB, "h"),
            (2, Mask::ATTRIB, false, String::new())
        ]
    );
    w.unlink("/d/h").unwrap();
    // Two events, as Linux has it: the count of names fell, then the last name was gone.
    assert_eq!(
        notes.take(),
        [
            (2, Mask::ATTRIB, false, String::new()),
            (2, Mask::DELETE_SELF, false, String::new()),
            none(Mask::DELETE, "h")
        ]
    );
    w.mkdir("/d/sub").unwrap();
    assert_eq!(notes.take(), [none(Mask::CREATE | Mask::ISDIR, "sub")]);
    watch.set_mask(Mask::DELETE);
    w.put("/d/quiet", b"").unwrap();
    assert_eq!(notes.take(), []);
    drop((watch, own));
    w.unlink("/d/quiet").unwrap();
    assert_eq!(notes.take(), []);
}

#[test]
fn a_read_only_mount_takes_nothing() {
    let volume = disk::volume(16);
    {
        let w = World::over(disk::mount(&volume));
        w.put("/f", b"x").unwrap();
        w.mkdir("/d").unwrap();
        w.ns.unmount_all().unwrap();
    }
    let before = volume.contents();
    let refuses = |w: &World| {
        let creat = OpenFlags::CREAT | OpenFlags::WRONLY;
        assert_eq!(w.put("/f", b"y"), Err(Errno::EROFS));
        assert_eq!(w.open("/new", creat).err(), Some(Errno::EROFS));
        assert_eq!(w.mkdir("/x"), Err(Errno::EROFS));
        assert_eq!(w.mkdir("/d"), Err(Errno::EEXIST));
        assert_eq!(w.unlink("/f"), Err(Errno::EROFS));
        assert_eq!(w.rmdir("/d"), Err(Errno::EROFS));
        assert_eq!(w.rename("/f", "/g"), Err(Errno::EROFS));
        assert_eq!(w.symlink("f", "/l"), Err(Errno::EROFS));
        let path = w.resolve("/f", LookupFlags::empty()).unwrap();
        assert_eq!(w.ns.chmod(&w.start(), &path, 0), Err(Errno::EROFS));
        assert_eq!(w.ns.truncate(&w.start(), &path, 0), Err(Errno::EROFS));
        assert_eq!(w.get("/f").unwrap(), b"x");
    };
    // The volume itself.
    let device = Arc::new(
        drivers::block::memory::MemoryDisk::from_bytes(volume.contents()).into_read_only(),
    );
    let id = fs::DeviceId::new(254, 2);
    let fs = fs::ext4::Ext4Fs::mount(device, b"/dev/vda2", id, false).unwrap();
    refuses(&World::over(fs));
    // A mount of one that could be written.
    let mut w = World::over(disk::mount(&volume));
    w.ns = fs::Namespace::new(disk::mount(&volume), MountFlags::RDONLY).unwrap();
    w.root = w.ns.root().clone();
    w.cwd = w.root.clone();
    refuses(&w);
    assert!(volume.contents() == before, "the disk was written");
}

#[test]
fn what_is_no_volume_does_not_mount() {
    let device = Arc::new(drivers::block::memory::MemoryDisk::new(4096));
    let id = fs::DeviceId::new(254, 2);
    assert!(fs::ext4::Ext4Fs::mount(device, b"/dev/vda2", id, false).is_err());
}
