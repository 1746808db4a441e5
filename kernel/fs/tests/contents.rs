//! The page cache against a model: random writes, reads, truncations, holes and mappings, on tmpfs
//! and on ext4; then what e2fsck says and what a fresh mount reads.

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::sync::Arc;

use common::World;
use errno::Errno;
use fs::{FallocateMode, MmapSource, OpenFile, OpenFlags, Whence};

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}

const MOST: usize = 300_000;

fn open_rw(w: &World, path: &str) -> Arc<OpenFile> {
    w.open(path, OpenFlags::RDWR | OpenFlags::CREAT).unwrap()
}

fn cache_of(file: &OpenFile) -> Arc<fs::PageCache> {
    match file.file().mmap_source().unwrap() {
        MmapSource::Cache(cache) => cache,
        MmapSource::Zero => panic!("a regular file"),
    }
}

/// One random change of `file`, mirrored in `model`.
fn step(random: &mut Random, file: &OpenFile, model: &mut Vec<u8>) {
    let at = random.below(MOST);
    let long = random.below(4) == 0;
    let len = 1 + random.below(if long { 40_000 } else { 600 });
    match random.below(100) {
        0..45 => {
            let byte = random.next() as u8;
            let bytes: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
            assert_eq!(common::write_at(file, at as u64, &bytes), Ok(len));
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].copy_from_slice(&bytes);
        }
        45..75 => {
            let expected = &model[at.min(model.len())..(at + len).min(model.len())];
            assert_eq!(common::read_at(file, at as u64, len).unwrap(), expected);
        }
        75..83 => {
            file.truncate(at as u64).unwrap();
            model.resize(at, 0);
        }
        83..88 => {
            let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
            file.fallocate(mode, at as u64, len as u64).unwrap();
            let end = (at + len).min(model.len());
            if at < end {
                model[at..end].fill(0);
            }
        }
        88..91 => {
            file.fallocate(FallocateMode::empty(), at as u64, len as u64)
                .unwrap();
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
        }
        91..95 if !model.is_empty() => {
            // A store through a shared mapping.
            let at = random.below(model.len());
            let cache = cache_of(file);
            let frame = cache.page_for_write(at as u64 / 4096).unwrap();
            frame.write(at % 4096, b"!");
            model[at] = b'!';
        }
        95..97 => file.file().sync(true).unwrap(),
        97 => {
            fs::cache::shrink(20);
        }
        _ => assert_eq!(file.file().metadata().unwrap().size, model.len() as u64),
    }
}

fn run(w: &World, seed: u64, steps: usize) -> Vec<(String, Vec<u8>)> {
    let mut random = Random(seed);
    let mut files: Vec<_> = (0..3)
        .map(|i| {
            let name = format!("/f{i}");
            (open_rw(w, &name), name, Vec::new())
        })
        .collect();
    for _ in 0..steps {
        let which = random.below(files.len());
        let (file, _, model) = &mut files[which];
        step(&mut random, file, model);
    }
    for (_, name, model) in &files {
        assert!(w.get(name).unwrap() == *model, "{name} differs");
    }
    files
        .into_iter()
        .map(|(_, name, model)| (name, model))
        .collect()
}

#[test]
fn random_on_tmpfs() {
    for seed in 1..6 {
        run(&World::new(), seed, 1500);
    }
}

fn random_on_disk(volume: Arc<drivers::block::memory::MemoryDisk>, seed: u64) {
    let files = {
        let w = World::over(disk::mount(&volume));
        let files = run(&w, seed, 1500);
        w.ns.unmount_all().unwrap();
        files
    };
    disk::check(&volume);
    let w = World::over(disk::mount(&volume));
    for (name, model) in files {
        assert!(w.get(&name).unwrap() == model, "{name} differs on disk");
    }
    w.ns.unmount_all().unwrap();
}

#[test]
fn random_on_ext4() {
    for seed in 1..6 {
        random_on_disk(disk::volume(16), seed);
    }
}

#[test]
fn random_on_small_blocks() {
    for seed in 11..14 {
        random_on_disk(disk::small_blocks(16), seed);
    }
}

#[test]
fn a_full_disk_says_so_and_recovers() {
    let volume = disk::volume(8);
    {
        let w = World::over(disk::mount(&volume));
        let chunk = vec![0x5a; 64 * 1024];
        for _ in 0..3 {
            let file = open_rw(&w, "/big");
            let mut written = 0;
            let error = loop {
                match common::write_at(&file, written, &chunk) {
                    Ok(n) => written += n as u64,
                    Err(error) => break error,
                }
            };
            assert_eq!(error, Errno::ENOSPC);
            assert!(written > 1 << 20, "{written}");
            // What was accepted finds its place: nothing is promised twice.
            file.file().sync(false).unwrap();
            // Overwriting needs no room.
            assert_eq!(common::write_at(&file, 0, &chunk), Ok(chunk.len()));
            file.file().sync(false).unwrap();
            assert_eq!(file.file().metadata().unwrap().size, written);
            w.unlink("/big").unwrap();
            drop(file);
            fs::dentry::shrink(usize::MAX);
        }
        w.ns.unmount_all().unwrap();
    }
    disk::check(&volume);
}

#[test]
fn a_full_tmpfs_says_so() {
    let w = World::new();
    let file = open_rw(&w, "/big");
    let chunk = vec![1; 1 << 20];
    for at in 0..16 {
        assert_eq!(common::write_at(&file, at << 20, &chunk), Ok(1 << 20));
    }
    assert_eq!(
        common::write_at(&file, 16 << 20, &chunk),
        Err(Errno::ENOSPC)
    );
    file.truncate(0).unwrap();
    assert_eq!(common::write_at(&file, 0, &chunk), Ok(1 << 20));
    assert_eq!(w.ns.statfs(&w.root).unwrap().free, 4096 - 256);
}

#[test]
fn sparse_files() {
    let volume = disk::volume(16);
    for w in [World::new(), World::over(disk::mount(&volume))] {
        let file = open_rw(&w, "/sparse");
        let far = 5u64 << 30;
        common::write_at(&file, far, b"end").unwrap();
        common::write_at(&file, 1 << 20, b"mid").unwrap();
        let meta = file.file().metadata().unwrap();
        assert_eq!(meta.size, far + 3);
        assert!(meta.blocks <= 2 * 8, "{}", meta.blocks);
        assert_eq!(common::read_at(&file, 1 << 30, 9).unwrap(), [0; 9]);
        assert_eq!(file.seek(Whence::Data, 0), Ok(1 << 20));
        assert_eq!(file.seek(Whence::Hole, 1 << 20), Ok((1 << 20) + 4096));
        assert_eq!(file.seek(Whence::Data, (1 << 20) + 4096), Ok(far));
        assert_eq!(file.seek(Whence::Hole, far as i64), Ok(far + 3));
        assert_eq!(file.seek(Whence::Data, far as i64 + 3), Err(Errno::ENXIO));
        drop(file);
        w.ns.unmount_all().unwrap();
    }
    disk::check(&volume);
}

#[test]
fn offsets_and_appending() {
    let w = World::new();
    w.put("/log", b"one\n").unwrap();
    let log = w.open("/log", OpenFlags::RDWR | OpenFlags::APPEND).unwrap();
    let write = |bytes: &[u8]| log.write(&mut iobuf::SliceSource::new(bytes));
    assert_eq!(write(b"two\n"), Ok(4));
    assert_eq!(log.offset(), 8);
    assert_eq!(log.seek(Whence::Set, 0), Ok(0));
    assert_eq!(write(b"three\n"), Ok(6));
    assert_eq!(log.offset(), 14);
    assert_eq!(w.get("/log").unwrap(), b"one\ntwo\nthree\n");
    assert_eq!(log.seek(Whence::End, -6), Ok(8));
    assert_eq!(common::read_all(&log).unwrap(), b"three\n");
    assert_eq!(log.seek(Whence::Set, -1), Err(Errno::EINVAL));
    assert_eq!(log.seek(Whence::Current, i64::MAX), Err(Errno::EINVAL));
    let reader = w.open("/log", OpenFlags::empty()).unwrap();
    assert_eq!(common::write_at(&reader, 0, b"x"), Err(Errno::EBADF));
    assert_eq!(reader.truncate(0), Err(Errno::EINVAL));
}

#[test]
fn writing_drops_setuid() {
    let w = World::new();
    w.put("/tool", b"#!").unwrap();
    let path = w.resolve("/tool", fs::LookupFlags::empty()).unwrap();
    w.ns.chmod(&w.start(), &path, 0o6755).unwrap();
    let file = w.open("/tool", OpenFlags::RDWR).unwrap();
    assert_eq!(w.stat("/tool").unwrap().permissions, 0o6755);
    common::write_at(&file, 0, b"x").unwrap();
    assert_eq!(w.stat("/tool").unwrap().permissions, 0o755);
}

#[test]
fn stores_behind_the_end_do_not_come_to_light() {
    let volume = disk::volume(16);
    let w = World::over(disk::mount(&volume));
    let file = open_rw(&w, "/f");
    common::write_at(&file, 0, &[7; 100]).unwrap();
    let cache = cache_of(&file);
    cache.page_for_write(0).unwrap().write(98, &[9; 50]);
    file.file().sync(false).unwrap();
    drop((cache, file));
    w.ns.unmount_all().unwrap();
    let w = World::over(disk::mount(&volume));
    let file = open_rw(&w, "/f");
    common::write_at(&file, 5000, b"end").unwrap();
    let mut expected = vec![7; 98];
    expected.extend([9; 2]);
    expected.resize(5000, 0);
    assert_eq!(common::read_at(&file, 0, 5000).unwrap(), expected);
    w.ns.unmount_all().unwrap();
}

#[test]
fn seals_hold() {
    use fs::tmpfs::{Seals, add_seals, memfd, seals};
    let file = memfd(b"m", true, &fs::Credentials::ROOT).unwrap();
    common::write_at(&file, 0, &[1; 5000]).unwrap();
    let inode = file.file().inode().unwrap().clone();
    add_seals(&inode, Seals::SHRINK | Seals::GROW).unwrap();
    assert_eq!(file.truncate(10), Err(Errno::EPERM));
    assert_eq!(file.truncate(9000), Err(Errno::EPERM));
    assert_eq!(common::write_at(&file, 4999, b"xy"), Err(Errno::EPERM));
    assert_eq!(common::write_at(&file, 0, b"xy"), Ok(2));
    let cache = cache_of(&file);
    cache.map_writable().unwrap();
    assert_eq!(add_seals(&inode, Seals::WRITE), Err(Errno::EBUSY));
    cache.unmap_writable();
    add_seals(&inode, Seals::WRITE | Seals::SEAL).unwrap();
    assert_eq!(common::write_at(&file, 0, b"xy"), Err(Errno::EPERM));
    assert_eq!(cache.map_writable(), Err(Errno::EPERM));
    assert_eq!(add_seals(&inode, Seals::EXEC), Err(Errno::EPERM));
    assert!(seals(&inode).unwrap().contains(Seals::WRITE | Seals::GROW));
    let plain = memfd(b"n", false, &fs::Credentials::ROOT).unwrap();
    let inode = plain.file().inode().unwrap().clone();
    assert_eq!(add_seals(&inode, Seals::WRITE), Err(Errno::EPERM));
}

#[test]
fn truncation_tells_mappings() {
    use std::sync::Mutex;
    struct Log(Mutex<Vec<(u64, u64)>>);
    impl fs::cache::MappingObserver for Log {
        fn unmap(&self, first: u64, end: u64) {
            self.0.lock().unwrap().push((first, end));
        }
        fn write_protect(&self, _: u64, _: u64) {}
    }
    let w = World::new();
    w.put("/f", &[7; 20_000]).unwrap();
    let file = open_rw(&w, "/f");
    let cache = cache_of(&file);
    let log = Arc::new(Log(Mutex::new(Vec::new())));
    let weak: std::sync::Weak<dyn fs::cache::MappingObserver> = Arc::<Log>::downgrade(&log);
    cache.observe(weak);
    let last = cache.page(4).unwrap();
    file.truncate(5000).unwrap();
    assert_eq!(*log.0.lock().unwrap(), [(2, u64::MAX)]);
    assert_eq!(cache.page(2).err(), Some(Errno::EFAULT));
    assert!(!cache.holds(4, &last));
    let tail = cache.page(1).unwrap();
    let mut bytes = [1; 10];
    tail.read(5000 - 4096 - 5, &mut bytes);
    assert_eq!(bytes, [7, 7, 7, 7, 7, 0, 0, 0, 0, 0]);
}
