//! `/proc/self/{mounts,mountinfo,mountstats}`.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::Mount;

use crate::process::Process;

/// A word with what would end it written in octal, as `seq_escape` does.
fn escape(out: &mut Vec<u8>, word: &[u8]) {
    for &byte in word {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                out.extend(format!("\\{byte:03o}").into_bytes());
            }
            _ => out.push(byte),
        }
    }
}

fn place(process: &Process, mount: &Arc<Mount>) -> Vec<u8> {
    match mount.point() {
        Some(point) => process.fs.name_of(&point),
        None => b"/".to_vec(),
    }
}

fn options(mount: &Mount) -> Vec<u8> {
    let mut text = mount.option_text();
    let own = mount.fs().options();
    if !own.is_empty() {
        text.push(b',');
        text.extend(own);
    }
    text
}

/// `mounts`.
pub fn mounts(process: &Process) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in process.fs.namespace().mounts() {
        escape(&mut out, &mount.fs().source());
        out.push(b' ');
        escape(&mut out, &place(process, &mount));
        out.push(b' ');
        out.extend(mount.fs().name().bytes());
        out.push(b' ');
        out.extend(options(&mount));
        out.extend(b" 0 0\n");
    }
    out
}

/// `mountinfo`.
pub fn mountinfo(process: &Process) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in process.fs.namespace().mounts() {
        let parent = mount.point().map_or(mount.id(), |point| point.mount().id());
        let dev = mount
            .root()
            .inode()
            .and_then(|inode| inode.metadata().ok())
            .map(|meta| meta.dev)
            .unwrap_or_default();
        out.extend(format!("{} {parent} {}:{} / ", mount.id(), dev.major, dev.minor).into_bytes());
        escape(&mut out, &place(process, &mount));
        out.push(b' ');
        out.extend(mount.option_text());
        out.extend(b" - ");
        out.extend(mount.fs().name().bytes());
        out.push(b' ');
        escape(&mut out, &mount.fs().source());
        out.extend(if mount.fs().read_only() {
            b" ro"
        } else {
            b" rw"
        });
        let own = mount.fs().options();
        if !own.is_empty() {
            out.push(b',');
            out.extend(own);
        }
        out.push(b'\n');
    }
    out
}

/// `mountstats`.
pub fn mountstats(process: &Process) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in process.fs.namespace().mounts() {
        out.extend(b"device ");
        escape(&mut out, &mount.fs().source());
        out.extend(b" mounted on ");
        escape(&mut out, &place(process, &mount));
        out.extend(b" with fstype ");
        out.extend(mount.fs().name().bytes());
        out.push(b'\n');
    }
    out
}
