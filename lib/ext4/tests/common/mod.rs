//! What the integration tests share: images in a temporary folder, e2fsprogs, a small random generator.

#![allow(dead_code, missing_docs)]

pub mod model;

use ext4::{
    BlockDevice, Ext4, FileDevice, FileKind, MemDevice, MkfsOptions, MountOptions, NewInode,
    Timestamp, mkfs,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

pub const UUID: [u8; 16] = *b"\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x01";
pub const SEED: [u8; 16] = *b"hash seed, 16 by";
pub const NOW: Timestamp = Timestamp {
    sec: 1_790_000_000,
    nsec: 123_456_789,
};

/// A folder that is removed at the end.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let name = format!(
            "ext4-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = base.join(name);
        std::fs::create_dir(&path).expect("a temporary folder");
        TempDir(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program of e2fsprogs.
pub fn run(program: &str, args: &[&str]) -> Output {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.exists());
    let path = found.unwrap_or_else(|| {
        panic!("{program} is not installed: these tests need the package e2fsprogs")
    });
    Command::new(path)
        .env("MKE2FS_DETERMINISTIC", "1")
        .args(args)
        .output()
        .expect("running a program of e2fsprogs")
}

/// `e2fsck -fn` must find nothing. Suggestions to optimise are allowed.
pub fn fsck(path: &Path) {
    let out = run("e2fsck", &["-fn", path.to_str().expect("a plain path")]);
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if out.status.code() != Some(0) {
        if let Ok(keep) = std::env::var("EXT4_KEEP") {
            let _ = std::fs::copy(path, keep);
        }
        panic!(
            "e2fsck -fn: {:?}\n{}",
            out.status.code(),
            text.chars().take(4000).collect::<String>()
        );
    }
}

/// Writes an image to a file and checks it.
pub fn fsck_bytes(bytes: &[u8]) {
    let dir = TempDir::new();
    let path = dir.join("image");
    write_sparse(&path, bytes);
    fsck(&path);
}

/// Writes a file with holes where there are zeros.
pub fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let out = File::create(path).expect("an image file");
    out.set_len(bytes.len() as u64).expect("growing the image");
    const ZEROS: [u8; 16384] = [0; 16384];
    for (at, piece) in (0u64..).step_by(16384).zip(bytes.chunks(16384)) {
        if *piece != ZEROS[..piece.len()] {
            out.write_all_at(piece, at).expect("writing the image");
        }
    }
}

/// A sparse file device.
pub fn file_device(path: &Path, size: u64) -> FileDevice {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("image file");
    if file.metadata().expect("metadata").len() < size {
        file.set_len(size).expect("growing the image");
    }
    FileDevice::new(file, 0, size)
}

pub fn options(size: u64) -> MkfsOptions {
    MkfsOptions {
        zeroed: true,
        ..MkfsOptions::new(size, UUID, SEED, NOW)
    }
}

pub fn rw() -> MountOptions {
    MountOptions::read_write(Box::new(|| NOW), 42)
}

/// A fresh file system in memory, mounted read-write.
pub fn fresh(size: usize) -> Ext4<MemDevice> {
    let device = MemDevice::new(size);
    mkfs(&device, &options(size as u64)).expect("mkfs");
    Ext4::mount(device, rw()).expect("mount")
}

pub fn file() -> NewInode {
    NewInode {
        kind: FileKind::Regular,
        perm: 0o644,
        uid: 0,
        gid: 0,
    }
}

pub fn dir() -> NewInode {
    NewInode {
        kind: FileKind::Directory,
        perm: 0o755,
        uid: 0,
        gid: 0,
    }
}

/// All of a device's bytes.
pub fn dump<D: BlockDevice>(device: &D) -> Vec<u8> {
    let mut out = vec![0; device.size_bytes() as usize];
    device.read(0, &mut out).expect("reading the device");
    out
}

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}
