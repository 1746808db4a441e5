//! ext4 as a mounted file system: `lib/ext4` for the format, the page cache for contents.
//!
//! Here: mounting, the table of inodes in memory, space promised to dirty pages, durability.
//! [`node`]: the inodes; [`data`]: their pages from and to the disk; [`device`]: the disk as the
//! library sees it.
//!
//! The library is one object behind one sleeping lock (`volume`). It is held for metadata only: file
//! data moves without it, and no user memory is touched under it. Lock order: a file's `writer`, its
//! `flushing`, `volume`, then spin locks.

mod data;
mod device;
mod node;

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drivers::block::BlockDevice;
use errno::{Errno, Result};
use hashbrown::HashMap;
use libext4::{Ext4, Ino, MountOptions, ROOT_INO};
use machine::{mem::PAGE_SIZE, sync::SpinLock};
use sched::Mutex;

use crate::{
    DeviceId, FileSystem, Inode, NAME_MAX, StatFs, Timestamp,
    cache::{self, Background},
    dentry::NameHash,
    time::now,
};

use device::Disk;
use node::{Ext4Inode, Node};

/// `EXT4_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0xef53;
/// Blocks never promised to file contents: for the extent blocks that these will need.
const MARGIN: u64 = 32;

/// A mounted ext4 volume.
pub struct Ext4Fs {
    volume: Mutex<Ext4<Arc<Disk>>>,
    disk: Arc<Disk>,
    me: Weak<Ext4Fs>,
    dev: DeviceId,
    source: Vec<u8>,
    block_size: u32,
    max_size: u64,
    read_only: bool,
    /// The inodes in memory. Entries of inodes that are gone are swept out now and then.
    nodes: SpinLock<Nodes>,
    /// Inodes that lost their last name and wait for their last user.
    doomed: SpinLock<Vec<(Ino, Weak<Node>)>>,
    /// Inodes whose times are newer in memory than in the volume.
    restless: SpinLock<Vec<Arc<Node>>>,
    /// Free blocks after the last change.
    free: AtomicU64,
    /// Blocks promised to dirty pages.
    promised: AtomicU64,
    /// Something waits for a commit.
    changed: AtomicBool,
    /// Something was changed since the mount. Access times alone do not count: they reach the disk
    /// when it is written anyway, so that a program that only reads leaves it alone.
    used: AtomicBool,
}

#[derive(Default)]
struct Nodes {
    map: HashMap<Ino, Weak<Node>, NameHash>,
    sweep_at: usize,
}

/// The errno of a library error.
fn errno_of(error: libext4::Error) -> Errno {
    u16::try_from(error.errno())
        .ok()
        .and_then(Errno::from_raw)
        .unwrap_or(Errno::EIO)
}

fn to_time(time: libext4::Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.sec,
        nanoseconds: time.nsec,
    }
}

fn from_time(time: Timestamp) -> libext4::Timestamp {
    libext4::Timestamp {
        sec: time.seconds,
        nsec: time.nanoseconds,
    }
}

impl Ext4Fs {
    /// Mounts the volume on `device`, replaying its journal if need be. `source` and `dev` are what
    /// /proc/mounts and `st_dev` show for it.
    ///
    /// # Errors
    /// `EINVAL` when there is no ext4 volume; `EOPNOTSUPP` for features that are not supported;
    /// `EUCLEAN` for a damaged volume; `EROFS`; `EIO`.
    pub fn mount(
        device: Arc<dyn BlockDevice>,
        source: &[u8],
        dev: DeviceId,
        read_only: bool,
    ) -> Result<Arc<Ext4Fs>> {
        let read_only = read_only || device.read_only();
        let disk = Arc::new(Disk::new(device));
        let options = if read_only {
            MountOptions::read_only()
        } else {
            let seed = drivers::random::word();
            MountOptions::read_write(Box::new(|| from_time(now())), seed)
        };
        let volume = Ext4::mount(disk.clone(), options).map_err(errno_of)?;
        let block_size = volume.block_size();
        if block_size as usize > PAGE_SIZE {
            return Err(Errno::EOPNOTSUPP);
        }
        let free = volume.statfs().free_blocks;
        let max_size = volume.max_size();
        let fs = Arc::new_cyclic(|me: &Weak<Ext4Fs>| Ext4Fs {
            volume: Mutex::new(volume),
            disk,
            me: me.clone(),
            dev,
            source: source.to_vec(),
            block_size,
            max_size,
            read_only,
            nodes: SpinLock::new(Nodes::default()),
            doomed: SpinLock::new(Vec::new()),
            restless: SpinLock::new(Vec::new()),
            free: AtomicU64::new(free),
            promised: AtomicU64::new(0),
            changed: AtomicBool::new(false),
            used: AtomicBool::new(false),
        });
        // The root must be there, so that `root` cannot fail later.
        fs.inode(ROOT_INO)?;
        let work: Weak<dyn Background> = Arc::<Ext4Fs>::downgrade(&fs);
        cache::register_background(work);
        Ok(fs)
    }

    fn arc(&self) -> Result<Arc<Ext4Fs>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    /// Runs `act` on the volume without changing it.
    fn look<T>(&self, act: impl FnOnce(&mut Ext4<Arc<Disk>>) -> libext4::Result<T>) -> Result<T> {
        act(&mut self.volume.lock()).map_err(errno_of)
    }

    /// Runs `act`, which changes the volume.
    fn change<T>(&self, act: impl FnOnce(&mut Ext4<Arc<Disk>>) -> libext4::Result<T>) -> Result<T> {
        let result = {
            let mut volume = self.volume.lock();
            let result = act(&mut volume);
            self.free
                .store(volume.statfs().free_blocks, Ordering::Relaxed);
            result
        };
        self.note_change();
        result.map_err(errno_of)
    }

    fn note_change(&self) {
        self.used.store(true, Ordering::Relaxed);
        if !self.changed.swap(true, Ordering::AcqRel) {
            cache::want_ticks();
        }
    }

    /// As [`Ext4Fs::change`]; when the disk is full, inodes without users are freed, what was freed
    /// before is committed so that it can be used again, and `act` has a second chance.
    fn change_or_make_room<T>(
        &self,
        mut act: impl FnMut(&mut Ext4<Arc<Disk>>) -> libext4::Result<T>,
    ) -> Result<T> {
        match self.change(&mut act) {
            Err(Errno::ENOSPC) => {
                self.make_room()?;
                self.change(act)
            }
            other => other,
        }
    }

    fn make_room(&self) -> Result<()> {
        self.reap();
        self.change(|volume| volume.sync())
    }

    /// The node of an inode number: the one in memory, or a new one.
    fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        if let Some(node) = self.known(ino) {
            return Ok(node);
        }
        let attrs = self.look(|volume| volume.attrs(ino))?;
        self.adopt(&attrs)
    }

    fn known(&self, ino: Ino) -> Option<Arc<Node>> {
        self.nodes.lock().map.get(&ino)?.upgrade()
    }

    /// The node for attributes just read or made.
    fn adopt(&self, attrs: &libext4::Attrs) -> Result<Arc<Node>> {
        let fresh = Arc::new(Node::new(self.arc()?, attrs));
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.map.get(&attrs.ino).and_then(Weak::upgrade) {
            drop(nodes);
            return Ok(node);
        }
        if nodes.map.len() >= nodes.sweep_at {
            nodes.map.retain(|_, node| node.strong_count() > 0);
            nodes.sweep_at = (nodes.map.len() * 2).max(256);
        }
        nodes.map.insert(attrs.ino, Arc::downgrade(&fresh));
        Ok(fresh)
    }

    fn inode(&self, ino: Ino) -> Result<Arc<Ext4Inode>> {
        Ok(Ext4Inode::of(self.node(ino)?))
    }

    /// Frees the inodes without names whose last user has gone.
    fn reap(&self) {
        self.discard_doomed();
        let mut dead = Vec::new();
        self.doomed.lock().retain(|(ino, node)| {
            let used = node.strong_count() > 0;
            if !used {
                dead.push(*ino);
            }
            used
        });
        for ino in dead {
            // A failure leaves it on the volume's orphan list, for the next mount.
            let _ = self.change(|volume| volume.release(ino));
        }
    }

    /// Drops the dirty pages of files that nobody can reach any more, instead of writing them.
    fn discard_doomed(&self) {
        let nodes: Vec<Arc<Node>> = self
            .doomed
            .lock()
            .iter()
            .filter_map(|(_, node)| node.upgrade())
            .collect();
        if nodes.is_empty() {
            return;
        }
        for node in nodes {
            node.discard_if_unused();
        }
        // The list of files with dirty pages holds on to the cache, and so to the node; the list of
        // times to write to the node itself.
        cache::tidy();
        let mut unused = Vec::new();
        self.restless.lock().retain(|node| {
            let keep = node.has_names() || Arc::strong_count(node) > 1;
            if !keep {
                unused.push(node.clone());
            }
            keep
        });
    }

    /// Has a nameless inode freed when `node` goes.
    fn doom(&self, node: &Arc<Node>) {
        let mut doomed = self.doomed.lock();
        if !doomed.iter().any(|(ino, _)| *ino == node.ino()) {
            doomed.push((node.ino(), Arc::downgrade(node)));
        }
    }

    fn undoom(&self, ino: Ino) {
        self.doomed.lock().retain(|(other, _)| *other != ino);
    }

    /// Writes times that are newer in memory to the volume.
    fn settle_times(&self) -> Result<()> {
        let nodes = core::mem::take(&mut *self.restless.lock());
        let mut result = Ok(());
        for node in nodes {
            node.listed.store(false, Ordering::Release);
            result = result.and(node.settle_times());
        }
        result
    }

    fn restless(&self, node: Arc<Node>) {
        self.restless.lock().push(node);
    }

    fn group(&self) -> usize {
        Arc::as_ptr(&self.disk).addr()
    }

    /// Promises `blocks` blocks if there are that many beyond the margin.
    fn promise(&self, blocks: u64) -> bool {
        let free = self.free.load(Ordering::Relaxed);
        self.promised
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |promised| {
                let wanted = promised + blocks;
                // Contents need about one extent block for some hundred blocks at worst.
                (wanted + MARGIN + wanted / 128 <= free).then_some(wanted)
            })
            .is_ok()
    }
}

impl FileSystem for Ext4Fs {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn source(&self) -> Vec<u8> {
        self.source.clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.inode(ROOT_INO) {
            Ok(root) => root,
            // Seen at mount; a disk that fails now shows an empty tree.
            Err(_) => crate::tmpfs::dead_directory(),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        let stat = self.look(|volume| Ok(volume.statfs()))?;
        let promised = self.promised.load(Ordering::Relaxed);
        let mut id = [0; 8];
        for (at, byte) in stat.uuid.iter().enumerate() {
            id[at % 8] ^= byte;
        }
        Ok(StatFs {
            magic: MAGIC,
            block_size: u64::from(stat.block_size),
            blocks: stat.blocks,
            free: stat.free_blocks.saturating_sub(promised),
            available: stat.available_blocks.saturating_sub(promised),
            files: stat.inodes,
            free_files: stat.free_inodes,
            id: u64::from_le_bytes(id),
            name_max: NAME_MAX as u64,
        })
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn sync(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let written = cache::flush_group(self.group());
        self.reap();
        self.changed.store(false, Ordering::Release);
        let settled = self.settle_times();
        let synced = self.look(|volume| volume.sync());
        written.and(settled).and(synced)
    }

    fn unmount(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let written = cache::flush_group(self.group());
        self.reap();
        let settled = if self.used.load(Ordering::Relaxed) {
            self.settle_times()
        } else {
            Ok(())
        };
        self.changed.store(false, Ordering::Release);
        let unmounted = self.look(|volume| volume.unmount());
        written.and(settled).and(unmounted)
    }
}

impl Background for Ext4Fs {
    /// Commits what has changed, as jbd2 does every five seconds.
    fn tick(&self) -> bool {
        if !self.changed.swap(false, Ordering::AcqRel) {
            return false;
        }
        self.reap();
        let settled = self.settle_times();
        if settled.and(self.look(|volume| volume.sync())).is_err() {
            // The disk fails: it is tried again when something else changes.
            return false;
        }
        self.changed.load(Ordering::Acquire)
    }
}
