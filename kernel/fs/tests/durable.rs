//! What reaches the disk and how: requests at a cold start, and what a power cut leaves.

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::World;
use drivers::block::{
    BlockDevice, Limits, Operation, Outcome, Request, Segment, memory::MemoryDisk,
};
use fs::{DeviceId, OpenFlags, ext4::Ext4Fs};

/// Counts what reaches a disk.
struct Counting {
    disk: Arc<MemoryDisk>,
    reads: AtomicUsize,
    bytes: AtomicUsize,
    writes: AtomicUsize,
}

impl Counting {
    fn new(disk: &Arc<MemoryDisk>) -> Arc<Counting> {
        Arc::new(Counting {
            disk: disk.clone(),
            reads: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
        })
    }

    fn mount(self: &Arc<Self>) -> World {
        let fs = Ext4Fs::mount(self.clone(), b"/dev/vda2", DeviceId::new(254, 2), false).unwrap();
        World::over(fs)
    }
}

impl BlockDevice for Counting {
    fn sector_count(&self) -> u64 {
        self.disk.sector_count()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn limits(&self) -> Limits {
        Limits {
            max_segments: 254,
            max_sectors: 254 * 8,
            ..Limits::default()
        }
    }

    fn submit(&self, request: Request) {
        let outcome = self.execute(request.op, request.sector, &request.segments);
        request.finish(outcome);
    }

    fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        let count = match op {
            Operation::Read => {
                let len: usize = segments.iter().map(|s| s.len as usize).sum();
                self.bytes.fetch_add(len, Ordering::Relaxed);
                &self.reads
            }
            _ => &self.writes,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if segments.is_empty() {
            return self.disk.execute(op, sector, &[]);
        }
        // The disk below takes small requests: cut to its size.
        let mut at = sector;
        for part in segments.chunks(self.disk.limits().max_segments) {
            self.disk.execute(op, at, part)?;
            at += part.iter().map(|s| u64::from(s.len)).sum::<u64>() / 512;
        }
        Ok(())
    }
}

#[test]
fn a_cold_start_reads_little_and_in_large_pieces() {
    let volume = disk::volume(64);
    let w = World::over(disk::mount(&volume));
    w.mkdir("/lib").unwrap();
    for i in 0..200 {
        w.put(&format!("/lib/module{i}.py"), &vec![b'#'; 5000 + i * 40])
            .unwrap();
    }
    w.put("/lib/libbig.so", &vec![1; 5 << 20]).unwrap();
    w.ns.unmount_all().unwrap();
    drop(w);

    let device = Counting::new(&volume);
    let w = device.mount();
    let mount = device.reads.load(Ordering::Relaxed);
    assert!(mount <= 12, "{mount} reads to mount");
    for i in 0..200 {
        assert_eq!(
            w.get(&format!("/lib/module{i}.py")).unwrap().len(),
            5000 + i * 40
        );
    }
    let small = device.reads.load(Ordering::Relaxed) - mount;
    // One for each file's contents, and few for all directories and inodes.
    assert!(small <= 200 + 12, "{small} reads for 200 files");
    let before = device.reads.load(Ordering::Relaxed);
    assert_eq!(w.get("/lib/libbig.so").unwrap().len(), 5 << 20);
    let big = device.reads.load(Ordering::Relaxed) - before;
    assert!(big <= 16, "{big} reads for 5 MiB in order");
    w.stat("/lib/module7.py").unwrap();
    let warm = device.reads.load(Ordering::Relaxed);
    for i in 0..200 {
        w.get(&format!("/lib/module{i}.py")).unwrap();
    }
    assert_eq!(device.reads.load(Ordering::Relaxed), warm, "all is cached");
    // Access times alone do not make a program that only reads write.
    w.ns.unmount_all().unwrap();
    assert_eq!(device.writes.load(Ordering::Relaxed), 0);
}

/// A copy of the disk as it is now, as if the power had gone, mounted.
fn after_power_cut(disk: &MemoryDisk) -> (Arc<MemoryDisk>, World) {
    let copy = Arc::new(MemoryDisk::from_bytes(disk.contents()));
    let w = World::over(disk::mount(&copy));
    (copy, w)
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    let volume = disk::volume(32);
    let w = World::over(disk::mount(&volume));
    for round in 0..20usize {
        let bytes = vec![round as u8; 1000 + round * 5000];
        let name = format!("/f{}", round % 7);
        let file = w.open(&name, OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
        common::write_at(&file, 0, &bytes).unwrap();
        file.truncate(bytes.len() as u64).unwrap();
        if round % 3 == 0 {
            file.file().sync(false).unwrap();
        } else {
            file.file().sync(true).unwrap();
        }
        // Not synced: may be lost, must not harm.
        w.put("/scratch", &vec![0xee; round * 3000]).unwrap();
        let (copy, after) = after_power_cut(&volume);
        assert!(after.get(&name).unwrap() == bytes, "round {round}");
        after.ns.unmount_all().unwrap();
        drop(after);
        disk::check(&copy);
    }
    w.ns.unmount_all().unwrap();
}

#[test]
fn o_sync_needs_no_fsync() {
    let volume = disk::volume(16);
    let w = World::over(disk::mount(&volume));
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::SYNC;
    let file = w.open("/s", flags).unwrap();
    common::write_at(&file, 0, b"durable").unwrap();
    let (_, after) = after_power_cut(&volume);
    assert_eq!(after.get("/s").unwrap(), b"durable");
}

#[test]
fn times_and_modes_survive_a_remount() {
    let volume = disk::volume(16);
    let w = World::over(disk::mount(&volume));
    w.put("/f", b"x").unwrap();
    let path = w.resolve("/f", fs::LookupFlags::empty()).unwrap();
    w.ns.chmod(&w.start(), &path, 0o4751).unwrap();
    w.ns.chown(&w.start(), &path, Some(70_000), Some(5))
        .unwrap();
    w.ns.chmod(&w.start(), &path, 0o2640).unwrap();
    let at = |seconds, nanoseconds| {
        fs::SetTime::At(fs::Timestamp {
            seconds,
            nanoseconds,
        })
    };
    w.ns.set_times(&w.start(), &path, at(-5, 7), at(1 << 32, 999_999_999))
        .unwrap();
    let before = w.stat("/f").unwrap();
    w.symlink("f", "/link").unwrap();
    w.ns.mknod(
        &w.start(),
        b"/dev0",
        fs::FileType::CharDevice,
        0o600,
        DeviceId::new(204, 300),
    )
    .unwrap();
    w.ns.set_xattr(&w.start(), &path, b"user.k", b"v", fs::XattrFlags::empty())
        .unwrap();
    let ctime = w.stat("/f").unwrap().ctime;
    drop(path);
    w.ns.unmount_all().unwrap();
    drop(w);
    disk::check(&volume);
    let w = World::over(disk::mount(&volume));
    let after = w.stat("/f").unwrap();
    assert_eq!(
        after,
        fs::Metadata {
            ctime,
            blocks: after.blocks,
            ..before
        }
    );
    assert_eq!(
        (after.uid, after.gid, after.permissions),
        (70_000, 5, 0o2640)
    );
    assert_eq!(w.lstat("/dev0").unwrap().rdev, DeviceId::new(204, 300));
    assert_eq!(w.get("/link").unwrap(), b"x");
    let path = w.resolve("/f", fs::LookupFlags::empty()).unwrap();
    assert_eq!(w.ns.get_xattr(&w.start(), &path, b"user.k").unwrap(), b"v");
    w.ns.unmount_all().unwrap();
}

#[test]
fn an_open_file_without_a_name_is_freed_at_its_end() {
    let volume = disk::volume(16);
    let w = World::over(disk::mount(&volume));
    let free = w.ns.statfs(&w.root).unwrap().free;
    let file = w.open("/gone", OpenFlags::RDWR | OpenFlags::CREAT).unwrap();
    common::write_at(&file, 0, &[9; 200_000]).unwrap();
    file.file().sync(false).unwrap();
    w.unlink("/gone").unwrap();
    assert_eq!(common::read_at(&file, 199_999, 5).unwrap(), [9]);
    assert!(w.ns.statfs(&w.root).unwrap().free < free - 40);
    drop(file);
    fs::dentry::shrink(usize::MAX);
    w.ns.sync_all().unwrap();
    assert_eq!(w.ns.statfs(&w.root).unwrap().free, free);
    w.ns.unmount_all().unwrap();
    drop(w);
    disk::check(&volume);
}
