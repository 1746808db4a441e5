//! Files as objects that areas show: the page cache of an open file, and what may be mapped of it.
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use errno::{Errno, Result};
use fs::cache::{MappingObserver, PageCache};
use fs::{MmapSource, MountFlags, OpenFile};
use machine::mem::Frame;
use machine::sync::SpinLock;

use super::pager::{Description, Pager, SharedMemory};
use super::vma::{Backing, PAGE, VmProt};
use crate::socket;

/// The page cache of a file, as long as something maps it.
struct FilePager {
    cache: Arc<PageCache>,
    /// Keeps the file open, and knows its name.
    open: Arc<OpenFile>,
    /// Whether it counts as a mapping through which the file can be changed.
    writable: bool,
}

/// Pagers in use, so that mappings of one file share one and the cache tells each only once.
static PAGERS: SpinLock<BTreeMap<(usize, bool), Weak<FilePager>>> = SpinLock::new(BTreeMap::new());

fn cache_id(cache: &Arc<PageCache>) -> usize {
    Arc::as_ptr(cache) as usize
}

impl FilePager {
    fn of(cache: Arc<PageCache>, open: &Arc<OpenFile>, writable: bool) -> Result<Arc<FilePager>> {
        let key = (cache_id(&cache), writable);
        if let Some(pager) = PAGERS.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(pager);
        }
        if writable {
            cache.map_writable()?;
        }
        let pager = Arc::new(FilePager {
            cache: cache.clone(),
            open: open.clone(),
            writable,
        });
        let weak = Arc::downgrade(&pager);
        PAGERS.lock().insert(key, weak.clone());
        cache.observe(weak);
        Ok(pager)
    }
}

impl Drop for FilePager {
    fn drop(&mut self) {
        if self.writable {
            self.cache.unmap_writable();
        }
        let key = (cache_id(&self.cache), self.writable);
        let mut pagers = PAGERS.lock();
        // Another thread may have made a new one since the last use of this ended.
        if pagers
            .get(&key)
            .is_some_and(|pager| pager.strong_count() == 0)
        {
            pagers.remove(&key);
        }
    }
}

impl Pager for FilePager {
    fn id(&self) -> usize {
        cache_id(&self.cache)
    }

    fn page(&self, index: u64) -> Result<Frame> {
        self.cache.page(index)
    }

    fn cached(&self, index: u64) -> Option<Frame> {
        self.cache.resident_page(index)
    }

    fn holds(&self, index: u64, frame: &Frame) -> bool {
        self.cache.holds(index, frame)
    }

    fn mark_dirty(&self, index: u64) -> Result<()> {
        self.cache.page_for_write(index).map(drop)
    }

    fn sync(&self, pages: Range<u64>) -> Result<()> {
        self.cache.flush(pages.start, pages.end)?;
        self.cache.take_error()
    }

    fn will_need(&self, pages: Range<u64>) {
        self.cache.prefetch(
            pages.start * PAGE as u64,
            (pages.end - pages.start) * PAGE as u64,
        );
    }

    fn describe(&self) -> Description {
        let (device, inode) = match self.open.file().metadata() {
            Ok(metadata) => ((metadata.dev.major, metadata.dev.minor), metadata.ino),
            Err(_) => ((0, 0), 0),
        };
        Description {
            device,
            inode,
            path: path_of(&self.open),
        }
    }
}

impl MappingObserver for FilePager {
    fn unmap(&self, first: u64, end: u64) {
        if let Some(process) = crate::process::get() {
            process
                .mm
                .forget_pages(self.id(), first..end, end == u64::MAX);
        }
    }

    fn write_protect(&self, first: u64, end: u64) {
        if let Some(process) = crate::process::get() {
            process.mm.write_protect(self.id(), first..end);
        }
    }
}

/// The name of an open file as `/proc` shows it.
pub fn path_of(open: &OpenFile) -> Vec<u8> {
    let (Some(path), Some(process)) = (open.path(), crate::process::get()) else {
        return Vec::new();
    };
    let root = process.namespace.root().clone();
    process.namespace.path_name(path, &root).0
}

/// What a mapping of `open` shows from `offset`, and the rights that it may ever have (`mmap(2)`).
///
/// # Errors
/// `EACCES` for rights that the descriptor lacks, `EPERM` where the file system or a seal forbids it, `ENODEV` for
/// what cannot be mapped.
pub fn backing(
    open: &Arc<OpenFile>,
    offset: u64,
    bytes: usize,
    shared: bool,
    prot: VmProt,
) -> Result<(Backing, VmProt)> {
    let flags = open.flags();
    let mut max_prot = VmProt::all();
    if !flags.can_read() || shared && prot.contains(VmProt::WRITE) && !flags.can_write() {
        return Err(Errno::EACCES);
    }
    if open
        .path()
        .is_some_and(|path| path.mount().flags().contains(MountFlags::NOEXEC))
    {
        if prot.contains(VmProt::EXEC) {
            return Err(Errno::EPERM);
        }
        max_prot -= VmProt::EXEC;
    }
    if let Ok(socket) = socket::file::of(open) {
        let pager = socket.ops().mapping(offset, bytes)?;
        return Ok((Backing::Object { pager, offset: 0 }, max_prot));
    }
    let cache = match open.file().mmap_source()? {
        MmapSource::Zero if shared => {
            let pager: Arc<dyn Pager> = Arc::new(SharedMemory::new((bytes / PAGE) as u64));
            return Ok((Backing::Object { pager, offset: 0 }, max_prot));
        }
        MmapSource::Zero => return Ok((Backing::Anonymous, max_prot)),
        MmapSource::Cache(cache) => cache,
    };
    let mut writable = shared && flags.can_write();
    if shared && !flags.can_write() {
        max_prot -= VmProt::WRITE;
    }
    let pager = match FilePager::of(cache.clone(), open, writable) {
        // Sealed against writing: it can be mapped for reading only.
        Err(Errno::EPERM) if writable && !prot.contains(VmProt::WRITE) => {
            writable = false;
            max_prot -= VmProt::WRITE;
            FilePager::of(cache, open, writable)?
        }
        other => other?,
    };
    Ok((Backing::Object { pager, offset }, max_prot))
}

/// A program file as `exec` reads and maps it.
///
/// # Errors
/// `EACCES` for what is not a regular file or not executable.
pub fn image_file(open: &Arc<OpenFile>) -> Result<crate::exec::ImageFile> {
    let metadata = open.file().metadata()?;
    if metadata.file_type != fs::FileType::Regular || metadata.permissions & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    let MmapSource::Cache(cache) = open.file().mmap_source()? else {
        return Err(Errno::EACCES);
    };
    let size = cache.size();
    let pager = FilePager::of(cache, open, false)?;
    Ok(crate::exec::ImageFile { pager, size })
}
