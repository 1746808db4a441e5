//! `/files`: open descriptors, mounts, the page cache.
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::{FileType, Mount, OpenFile};
use machine::mem::PAGE_SIZE;
use store::{Branch, Leaf, Value};

use super::{MAX_LISTED, with_process};
use crate::process::Process;
use crate::syscalls::names::descriptor_text;

/// Files.
pub fn branch() -> Branch {
    Branch::new("Open files, mounts, and the page cache.")
        .with(
            "open",
            Leaf::gauge(|| with_process(|process| process.files.len() as u64))
                .unit("descriptors")
                .help("Open descriptors."),
        )
        .with(
            "descriptors",
            Branch::new("Open descriptors.").no_metrics().listed(
                "descriptor",
                descriptors,
                descriptor,
            ),
        )
        .with(
            "mounts",
            Branch::new("Mounted file systems.")
                .metric("mount")
                .listed("mount", mounts, mount),
        )
        .with("page_cache", page_cache())
}

fn pages(count: usize) -> u64 {
    (count * PAGE_SIZE) as u64
}

fn page_cache() -> Branch {
    use fs::cache;
    Branch::new("Pages of files in memory.")
        .with(
            "pages",
            Leaf::gauge(cache::resident_pages)
                .unit("pages")
                .help("Pages that are held."),
        )
        .with(
            "size",
            Leaf::size(|| pages(cache::resident_pages())).help("The memory they take."),
        )
        .with(
            "dirty",
            Leaf::gauge(cache::dirty_pages)
                .unit("pages")
                .help("Pages that are still to be written."),
        )
        .with(
            "written",
            Leaf::count(cache::written_pages)
                .unit("pages")
                .help("Pages written back."),
        )
}

fn descriptors() -> Vec<String> {
    with_process(|process| {
        let all = process.files.all().into_iter();
        all.take(MAX_LISTED)
            .map(|(fd, _)| format!("{fd}"))
            .collect()
    })
}

fn kind(file: &OpenFile, shown: &[u8]) -> &'static str {
    if shown.starts_with(b"anon_inode:[eventpoll]") {
        return "epoll";
    }
    if shown.starts_with(b"anon_inode:") {
        return "anonymous";
    }
    match file.metadata().map(|meta| meta.file_type) {
        Ok(FileType::Regular) => "file",
        Ok(FileType::Directory) => "directory",
        Ok(FileType::Symlink) => "link",
        Ok(FileType::Fifo) => "pipe",
        Ok(FileType::Socket) => "socket",
        Ok(FileType::CharDevice | FileType::BlockDevice) => "device",
        Err(_) => "unknown",
    }
}

fn descriptor(name: &str) -> Option<Branch> {
    let fd: i32 = name.parse().ok()?;
    with_process(|process| {
        let file = process.files.get(fd).ok()?;
        let shown = descriptor_text(process, file.as_ref());
        let offset = if file.file().seekable() {
            file.offset()
        } else {
            0
        };
        let text = |value: String| Leaf::fixed(Value::String(value));
        Some(
            Branch::new("An open descriptor.")
                .with(
                    "kind",
                    text(kind(&file, &shown).into()).help("What it is open on."),
                )
                .with(
                    "path",
                    text(String::from_utf8_lossy(&shown).into_owned())
                        .help("Its name, as /proc/self/fd has it."),
                )
                .with(
                    "flags",
                    text(format!("0{:o}", file.flags().bits())).help("O_* flags in octal."),
                )
                .with(
                    "offset",
                    Leaf::fixed(Value::integer(offset))
                        .unit("bytes")
                        .help("Where it reads and writes next."),
                ),
        )
    })
}

fn mounts() -> Vec<String> {
    with_process(|process| {
        let all = process.fs.namespace().mounts().into_iter();
        all.map(|mount| format!("{}", mount.id())).collect()
    })
}

fn target(process: &Process, mount: &Arc<Mount>) -> Vec<u8> {
    match mount.point() {
        Some(point) => process.fs.name_of(&point),
        None => b"/".to_vec(),
    }
}

fn mount(name: &str) -> Option<Branch> {
    let id: u64 = name.parse().ok()?;
    with_process(|process| {
        let mounts = process.fs.namespace().mounts();
        let mount = mounts.iter().find(|mount| mount.id() == id)?;
        let lossy =
            |bytes: &[u8]| Leaf::fixed(Value::String(String::from_utf8_lossy(bytes).into_owned()));
        let at = target(process, mount);
        let branch = Branch::new("A mounted file system.")
            .label("target", String::from_utf8_lossy(&at))
            .with("target", lossy(&at).help("Where it is mounted."))
            .with(
                "type",
                lossy(mount.fs().name().as_bytes()).help("Its kind."),
            )
            .with(
                "source",
                lossy(&mount.fs().source()).help("Where it comes from."),
            )
            .with("options", lossy(&mount.option_text()).help("Its options."));
        // One without blocks of its own (proc, sys) has no sizes.
        let Ok(usage) = mount.fs().statfs() else {
            return Some(branch);
        };
        if usage.blocks == 0 {
            return Some(branch);
        }
        let size = |blocks: u64| Leaf::fixed(Value::Size(blocks.saturating_mul(usage.block_size)));
        Some(
            branch
                .with("total", size(usage.blocks).metric("size").help("Its size."))
                .with("free", size(usage.free).help("What is free on it."))
                .with(
                    "files",
                    Leaf::fixed(Value::integer(usage.files))
                        .unit("files")
                        .help("How many files it can hold; 0 if that has no bound."),
                )
                .with(
                    "free_files",
                    Leaf::fixed(Value::integer(usage.free_files))
                        .unit("files")
                        .help("How many more it can hold."),
                ),
        )
    })
}
