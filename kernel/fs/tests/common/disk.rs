//! An ext4 volume on a disk in memory, and e2fsck as its judge.
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use drivers::block::memory::MemoryDisk;
use ext4::{BlockDevice, MemDevice, MkfsOptions, Timestamp, mkfs};
use fs::{DeviceId, ext4::Ext4Fs};

/// A fresh volume of `mib` MiB.
pub fn volume(mib: usize) -> Arc<MemoryDisk> {
    let device = MemDevice::new(mib << 20);
    let size = device.size_bytes();
    let options = MkfsOptions::new(size, [7; 16], [9; 16], Timestamp::from_secs(1_700_000_000));
    mkfs(&device, &options).unwrap();
    Arc::new(MemoryDisk::from_bytes(device.into_vec()))
}

/// The volume, mounted.
pub fn mount(disk: &Arc<MemoryDisk>) -> Arc<Ext4Fs> {
    Ext4Fs::mount(disk.clone(), b"/dev/vda2", DeviceId::new(254, 2), false).unwrap()
}

/// A volume of 1 KiB blocks made by the host's tool.
pub fn small_blocks(mib: usize) -> Arc<MemoryDisk> {
    let path = temp_file();
    let status = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-b", "1024"])
        .arg(&path)
        .arg(format!("{mib}M"))
        .status()
        .expect("mke2fs runs");
    assert!(status.success());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    Arc::new(MemoryDisk::from_bytes(bytes))
}

fn temp_file() -> std::path::PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("fs-test-{}-{number}.img", std::process::id()))
}

/// Fails the test unless `e2fsck -fn` finds nothing.
pub fn check(disk: &MemoryDisk) {
    let path = temp_file();
    std::fs::write(&path, disk.contents()).unwrap();
    let output = Command::new("e2fsck")
        .args(["-fn"])
        .arg(&path)
        .output()
        .expect("e2fsck runs");
    std::fs::remove_file(&path).unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
