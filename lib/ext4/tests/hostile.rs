//! Broken and malicious volumes: whatever the bytes are, no call may panic, hang or use memory without bound.
//!
//! The volumes are damaged at random in their metadata, without checksums (so that the damage gets past them) and with.
//! The work runs in a process of its own whose memory is limited. `EXT4_HOSTILE` sets how many volumes are tried.

mod common;

use common::*;
use ext4::{
    BlockDevice, Error, Ext4, FileKind, Ino, MemDevice, MountOptions, ROOT_INO, RenameMode,
    XattrMode,
};
use std::process::Command;
use std::time::{Duration, Instant};

const CHILD: &str = "EXT4_HOSTILE_CHILD";
/// Address space of the child in KiB. Images are 8 MiB.
const MEMORY: u32 = 1 << 20;
const LONGEST: Duration = Duration::from_secs(10);

/// A volume with everything in it: deep extent trees, indexed directories, attributes, orphans, a journal in use.
fn rich(shape: &[&str]) -> Vec<u8> {
    let folder = TempDir::new();
    let path = folder.join("image");
    let mut args = vec!["-q", "-F", "-t", "ext4", "-b", "1024", "-N", "1024"];
    args.extend_from_slice(shape);
    let name = path.to_str().unwrap();
    args.extend_from_slice(&[name, "8M"]);
    let out = run("mke2fs", &args);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mut fs = Ext4::mount(file_device(&path, 8 << 20), rw()).unwrap();
    let sub = fs.create(ROOT_INO, b"sub", &dir()).unwrap().ino;
    for n in 0..250 {
        fs.create(
            sub,
            format!("a name of some length {n:>60}").as_bytes(),
            &file(),
        )
        .unwrap();
    }
    let ino = fs.create(ROOT_INO, b"holes", &file()).unwrap().ino;
    for n in 0..400 {
        fs.write_at(ino, n * 3000, &[n as u8 | 1; 900]).unwrap();
    }
    fs.fallocate(ino, 2 << 20, 100_000, true).unwrap();
    fs.set_xattr(ino, b"user.inside", b"short", XattrMode::Any)
        .unwrap();
    fs.set_xattr(ino, b"user.outside", &[9; 500], XattrMode::Any)
        .unwrap();
    fs.symlink(ROOT_INO, b"fast", b"sub", 0, 0).unwrap();
    fs.symlink(ROOT_INO, b"slow", &[b's'; 300], 0, 0).unwrap();
    fs.link(ROOT_INO, b"hard", ino).unwrap();
    fs.sync().unwrap();
    // Left as a power cut leaves it, with work for the journal and the orphan list.
    for n in 0..5 {
        fs.unlink(sub, format!("a name of some length {n:>60}").as_bytes())
            .unwrap();
    }
    fs.create_unnamed(ROOT_INO, &file()).unwrap();
    fs.sync().unwrap();
    drop(fs);
    std::fs::read(&path).unwrap()
}

/// Changes some bytes, mostly where there is something.
fn damage(image: &mut [u8], used: &[usize], rng: &mut Rng) {
    for _ in 0..1 + rng.below(12) {
        let at = match rng.below(8) {
            0 => 1024 + rng.below(1024) as usize,
            1 => 2048 + rng.below(1024) as usize,
            _ => used[rng.below(used.len() as u64) as usize],
        };
        let at = at.min(image.len() - 4);
        match rng.below(4) {
            0 => image[at] ^= 1 << rng.below(8),
            1 => image[at] = rng.next() as u8,
            2 => image[at & !3..(at & !3) + 4]
                .copy_from_slice(&(rng.next() as u32 >> rng.below(32)).to_le_bytes()),
            _ => {
                // One structure in the place of another.
                let (from, to) = (
                    used[rng.below(used.len() as u64) as usize] & !1023,
                    at & !1023,
                );
                if rng.below(4) == 0 {
                    image.copy_within(from..from + 1024, to);
                } else {
                    image[at..at + 2].fill(0xff);
                }
            }
        }
    }
}

/// Reads what there is to a depth and length that a sound volume stays far below.
fn explore<D: BlockDevice>(fs: &mut Ext4<D>, budget: &mut u32) -> Vec<(Ino, Vec<u8>, Ino)> {
    let mut seen = Vec::new();
    let mut todo = vec![(ROOT_INO, 0)];
    while let Some((dir, depth)) = todo.pop() {
        let mut entries = Vec::new();
        let _ = fs.readdir(dir, 0, &mut |entry| {
            entries.push((entry.name.to_vec(), entry.ino));
            entries.len() < 2000
        });
        for (name, ino) in entries {
            if *budget == 0 {
                return seen;
            }
            *budget -= 1;
            let _ = fs.lookup(dir, &name);
            let Ok(attrs) = fs.attrs(ino) else { continue };
            let _ = fs.list_xattrs(ino);
            let _ = fs.get_xattr(ino, b"user.outside");
            match attrs.kind {
                FileKind::Directory if depth < 4 && name != b"." && name != b".." => {
                    todo.push((ino, depth + 1))
                }
                FileKind::Regular => {
                    let mut buf = vec![0; 50_000];
                    for offset in [0, 40_000, attrs.size / 2, attrs.size.saturating_sub(10_000)] {
                        let _ = fs.read_at(ino, offset, &mut buf);
                    }
                    let mut at = 0u32;
                    for _ in 0..100 {
                        match fs.map(ino, at, u32::MAX - at) {
                            Ok(run) => {
                                assert!(run.len > 0 && run.logical == at);
                                let Some(next) = at.checked_add(run.len) else {
                                    break;
                                };
                                at = next;
                            }
                            Err(_) => break,
                        }
                    }
                }
                FileKind::Symlink => {
                    let _ = fs.readlink(ino);
                }
                _ => {}
            }
            seen.push((dir, name, ino));
        }
    }
    seen
}

fn mutate<D: BlockDevice>(fs: &mut Ext4<D>, seen: &[(Ino, Vec<u8>, Ino)], rng: &mut Rng) {
    let pick = |rng: &mut Rng| seen.get(rng.below(seen.len() as u64) as usize).cloned();
    for n in 0..60 {
        let Some((dir, name, ino)) = pick(rng) else {
            break;
        };
        let Some((other_dir, other_name, _)) = pick(rng) else {
            break;
        };
        let fresh = format!("fresh {n}").into_bytes();
        let _ = match rng.below(14) {
            0 => fs.create(dir, &fresh, &file()).map(|_| ()),
            1 => fs.create(dir, &fresh, &common::dir()).map(|_| ()),
            2 => fs.symlink(dir, &fresh, &[b't'; 200], 0, 0).map(|_| ()),
            3 => fs.link(dir, &fresh, ino),
            4 => fs.unlink(dir, &name).and_then(|(ino, _)| fs.release(ino)),
            5 => fs.rmdir(dir, &name).and_then(|ino| fs.release(ino)),
            6 => fs
                .rename(dir, &name, other_dir, &fresh, RenameMode::Replace)
                .map(|_| ()),
            7 => fs
                .rename(dir, &name, other_dir, &other_name, RenameMode::Exchange)
                .map(|_| ()),
            8 => fs.write_at(ino, rng.below(1 << 21), &[5; 5000]),
            9 => fs.truncate(ino, rng.below(1 << 20)),
            10 => fs.set_xattr(ino, b"user.new", &[3; 300], XattrMode::Any),
            11 => fs.punch_hole(ino, rng.below(1 << 20), 1 + rng.below(1 << 20)),
            12 => fs.fallocate(ino, rng.below(1 << 20), 1 + rng.below(1 << 18), false),
            _ => fs.sync(),
        };
    }
    let _ = fs.unmount();
}

fn try_image(image: Vec<u8>, rng: &mut Rng) -> bool {
    let mut mounted = false;
    let start = Instant::now();
    if let Ok(mut fs) = Ext4::mount(
        MemDevice::from_vec(image.clone()),
        MountOptions::read_only(),
    ) {
        explore(&mut fs, &mut 3000);
        assert_eq!(fs.create(ROOT_INO, b"x", &file()), Err(Error::ReadOnly));
    }
    if let Ok(mut fs) = Ext4::mount(MemDevice::from_vec(image), rw()) {
        mounted = true;
        let seen = explore(&mut fs, &mut 1000);
        mutate(&mut fs, &seen, rng);
    }
    assert!(start.elapsed() < LONGEST, "took {:?}", start.elapsed());
    mounted
}

#[test]
fn damaged_volumes() {
    if std::env::var_os(CHILD).is_none() {
        let exe = std::env::current_exe().unwrap();
        let command = format!(
            "ulimit -v {MEMORY}; exec \"$0\" --exact damaged_volumes --nocapture --test-threads 1"
        );
        let out = Command::new("sh")
            .args(["-c", &command])
            .arg(exe)
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        return;
    }
    let count: u64 = std::env::var("EXT4_HOSTILE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300);
    let first: u64 = std::env::var("EXT4_HOSTILE_FIRST")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let shapes: [&[&str]; 3] = [
        &["-O", "^metadata_csum"],
        &["-O", "^metadata_csum,^has_journal"],
        &[],
    ];
    for (index, shape) in shapes.iter().enumerate() {
        let image = rich(shape);
        let used: Vec<usize> = (0..image.len())
            .filter(|&at| image[at] != 0 && at >= 1024)
            .collect();
        let mut mounted = 0;
        for n in first..first + count {
            let mut rng = Rng(n * 3 + index as u64);
            let mut bytes = image.clone();
            damage(&mut bytes, &used, &mut rng);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                try_image(bytes, &mut rng)
            }));
            match result {
                Ok(ok) => mounted += u32::from(ok),
                Err(_) => panic!("volume {n} of shape {shape:?}"),
            }
        }
        // Most damage must get past mounting, or the test shows little.
        println!("{shape:?}: {mounted} of {count} mounted");
        assert!(u64::from(mounted) * 4 > count);
    }
}

#[test]
fn garbage_devices() {
    let mut rng = Rng(9);
    for _ in 0..50 {
        let mut bytes = rng.bytes(200_000);
        assert!(Ext4::mount(MemDevice::from_vec(bytes.clone()), rw()).is_err());
        bytes[1024 + 56..1024 + 58].copy_from_slice(&0xef53u16.to_le_bytes());
        assert!(Ext4::mount(MemDevice::from_vec(bytes), rw()).is_err());
    }
    assert!(Ext4::mount(MemDevice::new(0), rw()).is_err());
    assert!(Ext4::mount(MemDevice::new(1536), rw()).is_err());
}
