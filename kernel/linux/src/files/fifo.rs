//! Named pipes (`fifo(7)`): which pipe stands behind an inode, and opening that waits for the other
//! end.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use errno::{Errno, Result};
use fs::{File, Inode, OpenFlags};
use machine::sync::SpinLock;

use super::blocking::wait;
use super::handles::{PipeEnd, PipeIdentity};
use super::pipe::Pipe;

static FIFOS: SpinLock<BTreeMap<(u64, u64), Weak<Pipe>>> = SpinLock::new(BTreeMap::new());

fn pipe_of(inode: &Arc<dyn Inode>) -> Result<Arc<Pipe>> {
    let meta = inode.metadata()?;
    let key = (meta.dev.to_u64(), meta.ino);
    let mut fifos = FIFOS.lock();
    if let Some(pipe) = fifos.get(&key).and_then(Weak::upgrade) {
        return Ok(pipe);
    }
    fifos.retain(|_, pipe| pipe.strong_count() > 0);
    let pipe = Pipe::new();
    fifos.insert(key, Arc::downgrade(&pipe));
    Ok(pipe)
}

/// Opens a named pipe; `fs::set_fifo_opener` takes this.
///
/// # Errors
/// `ENXIO` for writing without a reader and with `O_NONBLOCK`, `ERESTARTSYS`.
pub fn open(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let pipe = pipe_of(inode)?;
    let (reads, writes) = (flags.can_read(), flags.can_write());
    let nonblock = flags.contains(OpenFlags::NONBLOCK);
    if writes && !reads && nonblock && pipe.ends().0 == 0 {
        return Err(Errno::ENXIO);
    }
    let (readers, writers) = pipe.opened();
    let end = Arc::new(PipeEnd::new(
        pipe.clone(),
        PipeIdentity::Named(inode.clone()),
        reads,
        writes,
    ));
    // Whoever comes while this one waits counts, even when gone again by then.
    if reads && !writes && !nonblock && pipe.ends().1 == 0 {
        wait(pipe.read_side(), None, || pipe.opened().1 != writers)?;
    }
    if writes && !reads && pipe.ends().0 == 0 {
        wait(pipe.write_side(), None, || pipe.opened().0 != readers)?;
    }
    Ok(end)
}
