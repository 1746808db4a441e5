//! Which locks are held on which file: the rules of [`locks`](super::locks) by inode, waiting for a
//! lock, and giving up those of a description that is closed.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::OpenFile;
use machine::sync::SpinLock;
use sched::{WaitQueue, Woken};

use super::locks::{FileLocks, Kind, Lock, Owner, Range, RecordLocks};

type Key = (u64, u64);

#[derive(Default)]
struct OfFile {
    records: RecordLocks,
    whole: FileLocks,
}

static TABLE: SpinLock<BTreeMap<Key, OfFile>> = SpinLock::new(BTreeMap::new());
static CHANGED: WaitQueue = WaitQueue::new();

/// The identity of an open file description among those alive.
pub fn identity(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file).addr()
}

fn key(file: &OpenFile) -> Result<Key> {
    let meta = file.metadata()?;
    Ok((meta.dev.to_u64(), meta.ino))
}

fn with<T>(key: Key, change: impl FnOnce(&mut OfFile) -> T) -> T {
    let mut table = TABLE.lock();
    let entry = table.entry(key).or_default();
    let answer = change(entry);
    if entry.records.is_empty() && entry.whole.is_empty() {
        table.remove(&key);
    }
    answer
}

/// Gives up, when dropped, what a description holds.
struct Release {
    key: Key,
    owner: usize,
}

impl Drop for Release {
    fn drop(&mut self) {
        let freed = with(self.key, |locks| {
            let records = locks.records.clear_owner(Owner::Description(self.owner));
            locks.whole.clear(self.owner) || records
        });
        if freed {
            CHANGED.wake_all();
        }
    }
}

/// Makes the end of `file` give up its locks.
fn release_at_end(file: &Arc<OpenFile>, key: Key) {
    file.attach(|| {
        Box::new(Release {
            key,
            owner: identity(file),
        })
    });
}

fn retry<T>(may_wait: bool, mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    if let Some(done) = attempt() {
        return Ok(done);
    }
    if !may_wait {
        return Err(Errno::EAGAIN);
    }
    CHANGED
        .wait_interruptible(None, attempt)
        .map_err(|woken| match woken {
            Woken::Interrupted => Errno::ERESTARTSYS,
            Woken::TimedOut => Errno::EAGAIN,
        })
}

/// Sets a record lock (`F_SETLK`, `F_OFD_SETLK` and their waiting siblings).
///
/// # Errors
/// `EAGAIN` when another's is in the way, `ERESTARTSYS`.
pub fn set_record(file: &Arc<OpenFile>, lock: Lock, may_wait: bool) -> Result<()> {
    let key = key(file)?;
    if let Owner::Description(_) = lock.owner {
        release_at_end(file, key);
    }
    retry(may_wait, || with(key, |locks| locks.records.set(lock)).ok())?;
    // A weaker lock than before may have let others in.
    CHANGED.wake_all();
    Ok(())
}

/// Unlocks a range.
///
/// # Errors
/// `EIO` when the file's identity cannot be told.
pub fn clear_record(file: &OpenFile, owner: Owner, range: Range) -> Result<()> {
    with(key(file)?, |locks| locks.records.clear(owner, range));
    CHANGED.wake_all();
    Ok(())
}

/// What stands in the way of `lock` (`F_GETLK`).
///
/// # Errors
/// As [`clear_record`].
pub fn conflict(file: &OpenFile, lock: &Lock) -> Result<Option<Lock>> {
    Ok(with(key(file)?, |locks| locks.records.conflict(lock)))
}

/// `flock(2)`; `None` unlocks.
///
/// # Errors
/// `EAGAIN` when another's is in the way and it may not wait, `ERESTARTSYS`.
pub fn flock(file: &Arc<OpenFile>, kind: Option<Kind>, may_wait: bool) -> Result<()> {
    let key = key(file)?;
    let owner = identity(file);
    let Some(kind) = kind else {
        if with(key, |locks| locks.whole.clear(owner)) {
            CHANGED.wake_all();
        }
        return Ok(());
    };
    release_at_end(file, key);
    let result = retry(may_wait, || {
        with(key, |locks| locks.whole.set(owner, kind)).then_some(())
    });
    CHANGED.wake_all();
    result
}

/// A descriptor of `file` was closed: the process's record locks on it are gone (`fcntl(2)`).
pub fn descriptor_closed(file: &OpenFile) {
    if TABLE.lock().is_empty() {
        return;
    }
    if let Ok(key) = key(file)
        && with(key, |locks| locks.records.clear_owner(Owner::Process))
    {
        CHANGED.wake_all();
    }
}

/// All record locks with the device and inode they are on, for `/proc/locks`.
pub fn all() -> Vec<(Key, Lock)> {
    let table = TABLE.lock();
    table
        .iter()
        .flat_map(|(key, locks)| locks.records.all().iter().map(|lock| (*key, *lock)))
        .collect()
}
