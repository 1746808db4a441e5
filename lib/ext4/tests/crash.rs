//! Power cuts: random operations on a device that records its writes; then the device as it may look after a cut at
//! many points, with unflushed writes lost at random, is recovered and checked.
//!
//! `EXT4_CUTS` sets the number of cuts per history, `EXT4_SEED` picks other histories.
//!
//! Checked after each cut: that the library mounts it, that files synced and untouched since are whole, that no file
//! shows bytes of another file or of never-written space, and that e2fsck agrees, both after the library's recovery and
//! after its own.

mod common;

use common::model::{Body, Mix, Model, POISON, tag_byte};
use common::*;
use ext4::{
    BlockDevice, Ext4, FileKind, Ino, IoError, MemDevice, MkfsOptions, MountOptions, ROOT_INO, mkfs,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// A device that remembers what was written and when it was flushed.
struct LogDevice {
    inner: MemDevice,
    log: Mutex<Vec<Event>>,
}

impl LogDevice {
    fn len(&self) -> usize {
        self.log.lock().unwrap().len()
    }
}

impl BlockDevice for LogDevice {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.inner.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.log
            .lock()
            .unwrap()
            .push(Event::Write(offset, buf.to_vec()));
        self.inner.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.log.lock().unwrap().push(Event::Flush);
        Ok(())
    }
}

/// What had to survive from some point on.
struct Synced {
    /// Events at which it was durable.
    at: usize,
    model: Model,
    /// Inodes touched by later operations, with the number of events when they began.
    touched: Vec<(usize, BTreeSet<Ino>)>,
}

struct Counts {
    cuts: u32,
    synced_files: u32,
    resurrected: u32,
}

/// The image as the cut leaves it: `stable` has everything flushed, `window` is what was written since.
fn cut_image(stable: &[u8], window: &[&Event], rng: &mut Rng) -> Vec<u8> {
    let mut image = stable.to_vec();
    let lose = rng.below(4);
    for event in window {
        let Event::Write(offset, data) = event else {
            continue;
        };
        let mut super_lost = false;
        for (index, piece) in data.chunks(512).enumerate() {
            // Whole runs, single sectors, or nothing is lost.
            let mut lost = match lose {
                0 => false,
                1 => rng.below(2) == 0,
                _ => index % 8 == 0 && rng.below(2) == 0 || lose == 3 && rng.below(8) == 0,
            };
            let at = *offset as usize + index * 512;
            // The superblock is two sectors long, and its checksum lies in the second. Linux and e2fsck, too, rely on
            // the device to write it as a whole; every other structure must stand torn writes.
            match at {
                1024 => super_lost = lost,
                1536 => lost = super_lost,
                _ => {}
            }
            if !lost {
                image[at..at + piece.len()].copy_from_slice(piece);
            }
        }
    }
    image
}

/// All paths of a volume with their inodes.
fn walk(fs: &mut Ext4<MemDevice>) -> BTreeMap<Vec<u8>, Ino> {
    let mut out = BTreeMap::new();
    let mut todo = vec![(Vec::new(), ROOT_INO)];
    while let Some((path, dir)) = todo.pop() {
        let mut entries = Vec::new();
        fs.readdir(dir, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                entries.push((entry.name.to_vec(), entry.ino));
            }
            true
        })
        .expect("readdir after a cut");
        for (name, ino) in entries {
            let path = [&path[..], b"/", &name].concat();
            if fs.attrs(ino).expect("attrs after a cut").kind == FileKind::Directory {
                todo.push((path.clone(), ino));
            }
            out.insert(path, ino);
        }
    }
    out
}

fn paths(model: &Model) -> Vec<(Vec<u8>, Ino, BTreeSet<Ino>)> {
    let mut out = Vec::new();
    let mut todo = vec![(Vec::new(), ROOT_INO, BTreeSet::new())];
    while let Some((path, dir, above)) = todo.pop() {
        let Body::Dir(entries) = &model.items[&dir].body else {
            continue;
        };
        for (name, &ino) in entries {
            let path = [&path[..], b"/", name].concat();
            let mut above = above.clone();
            above.insert(ino);
            if matches!(model.items[&ino].body, Body::Dir(_)) {
                todo.push((path.clone(), ino, above.clone()));
            }
            out.push((path, ino, above));
        }
    }
    out
}

fn check_cut(image: Vec<u8>, synced: &Synced, cut: usize, counts: &mut Counts) {
    let dir = TempDir::new();
    // e2fsck recovers a copy by itself: preening must be enough.
    let path = dir.join("image");
    std::fs::write(&path, &image).unwrap();
    let out = run("e2fsck", &["-p", path.to_str().unwrap()]);
    if out.status.code().is_none_or(|code| code > 1) {
        keep(&path);
        panic!(
            "cut {cut}: e2fsck -p: {}",
            String::from_utf8_lossy(&out.stdout)
        );
    }
    fsck(&path);

    std::fs::write(&path, &image).unwrap();
    let mut fs = Ext4::mount(MemDevice::from_vec(image), rw()).unwrap_or_else(|error| {
        keep(&path);
        panic!("cut {cut}: mount: {error:?}");
    });
    let found = walk(&mut fs);
    let touched: BTreeSet<Ino> = synced
        .touched
        .iter()
        .filter(|(start, _)| *start <= cut)
        .flat_map(|(_, inodes)| inodes.iter().copied())
        .collect();
    for (name, ino, above) in paths(&synced.model) {
        // A directory's other entries may have changed; its name and the file may not.
        if touched.contains(&ino)
            || above
                .iter()
                .any(|dir| touched.contains(dir) && !found.values().any(|ino| ino == dir))
        {
            continue;
        }
        let item = &synced.model.items[&ino];
        let now = found.get(&name).unwrap_or_else(|| {
            keep(&path);
            panic!(
                "cut {cut}: a synced name is gone: {:?}",
                String::from_utf8_lossy(&name)
            );
        });
        match &item.body {
            Body::File(data) => {
                let mut read = vec![0; data.len() + 1];
                let n = fs.read_at(*now, 0, &mut read).expect("read after a cut");
                assert!(
                    read[..n] == data[..],
                    "cut {cut}: a synced file changed: inode {now}, {n} of {} bytes",
                    data.len()
                );
            }
            Body::Link(target) => {
                assert_eq!(&fs.readlink(*now).expect("readlink after a cut"), target)
            }
            Body::Dir(_) | Body::Other => {}
        }
        for (name, value) in &item.xattrs {
            assert_eq!(
                &fs.get_xattr(*now, name).expect("get_xattr after a cut"),
                value
            );
        }
        counts.synced_files += 1;
    }
    for (name, ino) in found {
        let attrs = fs.attrs(ino).unwrap();
        // The owner is the tag that all of a file's bytes follow.
        let data = match attrs.kind {
            FileKind::Regular => {
                let mut data = vec![0; attrs.size as usize];
                fs.read_at(ino, 0, &mut data).expect("read after a cut");
                data
            }
            FileKind::Symlink => fs.readlink(ino).expect("readlink after a cut"),
            _ => continue,
        };
        counts.resurrected += u32::from(!synced.model.items.contains_key(&ino));
        if let Some((at, byte)) = (0u64..)
            .zip(&data)
            .find(|&(at, &byte)| byte != 0 && byte != tag_byte(attrs.uid, at))
        {
            keep(&path);
            panic!(
                "cut {cut}: foreign byte {byte:#x}{} at {at} of {} in {:?}",
                if *byte == POISON {
                    " (never written)"
                } else {
                    ""
                },
                data.len(),
                String::from_utf8_lossy(&name)
            );
        }
    }
    fs.unmount().expect("unmount after a cut");
    std::fs::write(&path, dump(fs.device())).unwrap();
    fsck(&path);
    counts.cuts += 1;
}

fn keep(path: &std::path::Path) {
    if let Ok(to) = std::env::var("EXT4_KEEP") {
        let _ = std::fs::copy(path, to);
    }
}

fn run_crash(seed: u64, size: usize, steps: u32, cuts: usize, mix: Mix) -> Counts {
    let device = MemDevice::from_vec(vec![POISON; size]);
    mkfs(
        &device,
        &MkfsOptions {
            zeroed: false,
            ..options(size as u64)
        },
    )
    .expect("mkfs");
    let base = dump(&device);
    let device = LogDevice {
        inner: device,
        log: Mutex::new(Vec::new()),
    };
    let mut fs = Ext4::mount(device, rw()).expect("mount");
    let mut model = Model::new();
    let mut rng = Rng(seed);
    let mut history = vec![Synced {
        at: 0,
        model: model.clone(),
        touched: Vec::new(),
    }];
    for _ in 0..steps {
        let start = fs.device().len();
        model.touched.clear();
        model.step(&mut rng, &mut fs, &mix);
        let touched = std::mem::take(&mut model.touched);
        history.last_mut().unwrap().touched.push((start, touched));
        let durable = match rng.below(60) {
            0 | 1 => fs.sync().map(|()| true),
            2 => fs.write_back().map(|()| true),
            3 if rng.below(3) == 0 => {
                model.release_open(&mut fs);
                fs.unmount().map(|()| true)
            }
            4 => {
                // The transaction is shared: syncing one changed inode makes everything before it durable.
                let ino = *model
                    .items
                    .keys()
                    .nth(rng.below(model.items.len() as u64) as usize)
                    .unwrap();
                fs.set_mode(ino, 0o700).expect("set_mode");
                model.items.get_mut(&ino).unwrap().mode = 0o700;
                fs.fsync(ino, false).map(|()| true)
            }
            _ => Ok(false),
        };
        if durable.expect("sync") {
            history.push(Synced {
                at: fs.device().len(),
                model: model.clone(),
                touched: Vec::new(),
            });
        }
    }
    model.check(&mut fs);
    let log = std::mem::take(&mut *fs.device().log.lock().unwrap());

    let mut points: Vec<usize> = (0..cuts)
        .map(|_| rng.below(log.len() as u64 + 1) as usize)
        .collect();
    // Cuts right before and after flushes are where order matters most.
    let flushes: Vec<usize> = (0..log.len())
        .filter(|&at| matches!(log[at], Event::Flush))
        .collect();
    for point in points.iter_mut().step_by(3) {
        *point = (flushes[rng.below(flushes.len() as u64) as usize] + rng.below(2) as usize)
            .min(log.len());
    }
    points.sort_unstable();
    let mut counts = Counts {
        cuts: 0,
        synced_files: 0,
        resurrected: 0,
    };
    let mut stable = base;
    let mut flushed = 0;
    for cut in points {
        let barrier = (0..cut)
            .rev()
            .find(|&at| matches!(log[at], Event::Flush))
            .map_or(0, |at| at + 1);
        for event in &log[flushed..barrier] {
            if let Event::Write(offset, data) = event {
                stable[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
            }
        }
        flushed = barrier.max(flushed);
        let window: Vec<&Event> = log[flushed..cut].iter().collect();
        let image = cut_image(&stable, &window, &mut rng);
        let synced = history
            .iter()
            .rev()
            .find(|synced| synced.at <= cut)
            .unwrap();
        check_cut(image, synced, cut, &mut counts);
    }
    counts
}

fn cuts() -> usize {
    std::env::var("EXT4_CUTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(25)
}

/// Added to all seeds, to try other histories.
fn seed() -> u64 {
    std::env::var("EXT4_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[test]
fn power_cuts() {
    let mix = Mix {
        max_write: 40_000,
        rename_dirs: true,
        max_items: 150,
    };
    let mut total = Counts {
        cuts: 0,
        synced_files: 0,
        resurrected: 0,
    };
    for seed in seed() + 100..seed() + 104 {
        let counts = run_crash(seed, 14 << 20, 1200, cuts(), mix);
        total.cuts += counts.cuts;
        total.synced_files += counts.synced_files;
        total.resurrected += counts.resurrected;
    }
    println!(
        "{} cuts, {} synced files, {} others",
        total.cuts, total.synced_files, total.resurrected
    );
    assert!(total.synced_files > total.cuts && total.resurrected > 0);
}

#[test]
fn power_cuts_when_nearly_full() {
    // Freed blocks are in demand at once here.
    let mix = Mix {
        max_write: 200_000,
        rename_dirs: false,
        max_items: 60,
    };
    let counts = run_crash(seed() + 200, 8 << 20, 1500, cuts(), mix);
    assert!(counts.cuts > 0);
}

#[test]
fn a_cut_during_recovery_is_recovered() {
    let size = 14 << 20;
    let device = MemDevice::new(size);
    mkfs(&device, &options(size as u64)).unwrap();
    let device = LogDevice {
        inner: device,
        log: Mutex::new(Vec::new()),
    };
    let mut fs = Ext4::mount(device, rw()).unwrap();
    for n in 0..200 {
        let ino = fs
            .create(ROOT_INO, format!("file {n}").as_bytes(), &file())
            .unwrap()
            .ino;
        fs.write_at(ino, 0, format!("contents {n}").as_bytes())
            .unwrap();
    }
    fs.sync().unwrap();
    let crashed = dump(&fs.device().inner);
    let recover = LogDevice {
        inner: MemDevice::from_vec(crashed.clone()),
        log: Mutex::new(Vec::new()),
    };
    let fs = Ext4::mount(recover, rw()).unwrap();
    let log = std::mem::take(&mut *fs.device().log.lock().unwrap());
    let mut rng = Rng(5);
    for cut in 0..=log.len() {
        let barrier = (0..cut)
            .rev()
            .find(|&at| matches!(log[at], Event::Flush))
            .map_or(0, |at| at + 1);
        let mut stable = crashed.clone();
        for event in &log[..barrier] {
            if let Event::Write(offset, data) = event {
                stable[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
            }
        }
        let image = cut_image(
            &stable,
            &log[barrier..cut].iter().collect::<Vec<_>>(),
            &mut rng,
        );
        // Reading only must see everything too, without writing.
        let mut fs = Ext4::mount(
            MemDevice::from_vec(image.clone()),
            MountOptions::read_only(),
        )
        .unwrap();
        let ino = fs.lookup(ROOT_INO, b"file 199").unwrap();
        let mut buf = [0; 20];
        let n = fs.read_at(ino, 0, &mut buf).unwrap();
        assert_eq!(&buf[..n], b"contents 199");
        assert!(dump(fs.device()) == image);
        let mut fs = Ext4::mount(MemDevice::from_vec(image), rw()).unwrap();
        assert_eq!(walk(&mut fs).len(), 201);
        fs.unmount().unwrap();
        fsck_bytes(&dump(fs.device()));
    }
}

#[test]
fn a_freed_metadata_block_is_not_replayed_over_data() {
    let size = 10 << 20;
    let device = MemDevice::new(size);
    mkfs(&device, &options(size as u64)).unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    // Blocks of symbolic links, directories and attributes go through the journal.
    for n in 0..20 {
        fs.symlink(
            ROOT_INO,
            format!("link {n}").as_bytes(),
            &[b'l'; 1000],
            0,
            0,
        )
        .unwrap();
        let ino = fs
            .create(ROOT_INO, format!("dir {n}").as_bytes(), &dir())
            .unwrap()
            .ino;
        fs.set_xattr(ino, b"user.a", &[1; 1000], ext4::XattrMode::Any)
            .unwrap();
    }
    fs.sync().unwrap();
    for n in 0..20 {
        let (ino, _) = fs.unlink(ROOT_INO, format!("link {n}").as_bytes()).unwrap();
        fs.release(ino).unwrap();
        let ino = fs.rmdir(ROOT_INO, format!("dir {n}").as_bytes()).unwrap();
        fs.release(ino).unwrap();
    }
    fs.sync().unwrap();
    // All of the space becomes data, so the freed blocks are among it.
    let ino = fs.create(ROOT_INO, b"all", &file()).unwrap().ino;
    let mut len = 0;
    while fs.write_at(ino, len, &[b'd'; 4096]).is_ok() {
        len += 4096;
    }
    fs.sync().unwrap();
    let mut fs = Ext4::mount(MemDevice::from_vec(dump(fs.device())), rw()).unwrap();
    let mut data = vec![0; len as usize];
    assert_eq!(fs.read_at(ino, 0, &mut data).unwrap(), len as usize);
    assert_eq!(data.iter().position(|&byte| byte != b'd'), None);
}
