//! Figures: run with `cargo test --release -p ext4 --test speed -- --ignored --nocapture`. Not part of the normal tests,
//! as a machine's load says nothing about the code.

mod common;

use common::*;
use ext4::{Ext4, MemDevice, MkfsOptions, MountOptions, ROOT_INO, mkfs};
use std::time::Instant;

fn report(what: &str, start: Instant, count: f64, unit: &str) {
    let secs = start.elapsed().as_secs_f64();
    println!("{what}: {secs:.3} s, {:.0} {unit}/s", count / secs);
}

#[test]
#[ignore = "prints figures"]
fn build_an_image() {
    let dir_path = TempDir::new();
    let path = dir_path.join("image");
    let size = 512 << 20;
    let start = Instant::now();
    let device = file_device(&path, size);
    mkfs(&device, &options(size)).unwrap();
    let mut fs = Ext4::mount(device, MountOptions::bulk(NOW)).unwrap();
    let data = vec![0x5au8; 1 << 20];
    let mut total = 0;
    let mut rng = Rng(1);
    for d in 0..300 {
        let sub = fs
            .create(ROOT_INO, format!("directory-{d}").as_bytes(), &dir())
            .unwrap()
            .ino;
        for f in 0..20 {
            let ino = fs
                .create(sub, format!("some_module_{f}.py").as_bytes(), &file())
                .unwrap()
                .ino;
            let len = rng.below(96 << 10) as usize;
            fs.write_at(ino, 0, &data[..len]).unwrap();
            fs.set_times(ino, Some(NOW), Some(NOW), Some(NOW)).unwrap();
            total += len;
        }
    }
    let ino = fs.create(ROOT_INO, b"big", &file()).unwrap().ino;
    while total < 300 << 20 {
        let at = fs.attrs(ino).unwrap().size;
        fs.write_at(ino, at, &data).unwrap();
        total += data.len();
    }
    fs.unmount().unwrap();
    report("image of 6,000 files, 300 MB", start, 6000.0, "files");
    fsck(&path);
}

#[test]
#[ignore = "prints figures"]
fn journalled_names() {
    let size = 1 << 30;
    let device = MemDevice::new(size);
    mkfs(
        &device,
        &MkfsOptions {
            journal_blocks: 4096,
            inodes: Some(120_000),
            ..options(size as u64)
        },
    )
    .unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    let names: Vec<Vec<u8>> = (0..100_000)
        .map(|n| format!("file-{n:06}").into_bytes())
        .collect();
    let start = Instant::now();
    for name in &names {
        fs.create(ROOT_INO, name, &file()).unwrap();
    }
    fs.sync().unwrap();
    report("create", start, names.len() as f64, "files");
    let start = Instant::now();
    for name in &names {
        fs.lookup(ROOT_INO, name).unwrap();
    }
    report("lookup", start, names.len() as f64, "names");
    let start = Instant::now();
    let mut count = 0;
    fs.readdir(ROOT_INO, 0, &mut |_| {
        count += 1;
        true
    })
    .unwrap();
    report("readdir", start, count as f64, "entries");
    let start = Instant::now();
    for name in &names {
        let (ino, _) = fs.unlink(ROOT_INO, name).unwrap();
        fs.release(ino).unwrap();
    }
    fs.sync().unwrap();
    report("unlink", start, names.len() as f64, "files");
    let start = Instant::now();
    for n in 0..2000u32 {
        let ino = fs
            .create(ROOT_INO, &names[n as usize], &file())
            .unwrap()
            .ino;
        fs.fsync(ino, false).unwrap();
    }
    report("create and fsync", start, 2000.0, "files");
}

#[test]
#[ignore = "prints figures"]
fn sequential_data() {
    let size = 1200 << 20;
    let device = MemDevice::new(size);
    mkfs(&device, &options(size as u64)).unwrap();
    let mut fs = Ext4::mount(device, rw()).unwrap();
    let ino = fs.create(ROOT_INO, b"big", &file()).unwrap().ino;
    for chunk in [1 << 20, 64 << 10, 4096] {
        let data = vec![1u8; chunk];
        let total = 1u64 << 30;
        let start = Instant::now();
        let mut at = 0;
        while at < total {
            fs.write_at(ino, at, &data).unwrap();
            at += chunk as u64;
        }
        fs.sync().unwrap();
        report(&format!("write in {chunk}"), start, 1024.0, "MiB");
        let mut buf = vec![0u8; chunk];
        let start = Instant::now();
        let mut at = 0;
        while at < total {
            fs.read_at(ino, at, &mut buf).unwrap();
            at += chunk as u64;
        }
        report(&format!("read in {chunk}"), start, 1024.0, "MiB");
        let start = Instant::now();
        fs.truncate(ino, 0).unwrap();
        fs.sync().unwrap();
        report("truncate 1 GiB", start, 1.0, "times");
    }
}
