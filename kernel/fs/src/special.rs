//! Files that are neither regular nor directories and belong to no other room: `O_PATH`
//! descriptors, and the table through which device nodes find their driver.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc};
use core::any::Any;

use errno::{Errno, Result};
use machine::sync::SpinLock;

use crate::{DeviceId, File, Inode, Metadata, OpenFlags};

/// What an `O_PATH` descriptor works on: nothing but `fstat(2)` and use as a starting point.
pub struct PathOnly {
    inode: Arc<dyn Inode>,
}

impl PathOnly {
    pub(crate) fn new(inode: Arc<dyn Inode>) -> Self {
        PathOnly { inode }
    }
}

impl File for PathOnly {
    fn metadata(&self) -> Result<Metadata> {
        self.inode.metadata()
    }

    fn inode(&self) -> Option<&Arc<dyn Inode>> {
        Some(&self.inode)
    }

    fn sync(&self, _: bool) -> Result<()> {
        Err(Errno::EBADF)
    }

    fn ioctl(&self, _: u32, _: usize) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Opens a device.
pub type DeviceOpener = Box<dyn Fn(OpenFlags) -> Result<Arc<dyn File>> + Send + Sync>;

static CHAR_DEVICES: SpinLock<BTreeMap<DeviceId, Arc<DeviceOpener>>> =
    SpinLock::new(BTreeMap::new());

/// Registers how the character device `id` is opened, wherever its node lies. The last one counts.
pub fn register_char_device(id: DeviceId, opener: DeviceOpener) {
    let old = CHAR_DEVICES.lock().insert(id, Arc::new(opener));
    drop(old);
}

/// Opens the character device `id`.
///
/// # Errors
/// `ENXIO` when there is none; as the device says.
pub fn open_char_device(id: DeviceId, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let opener = CHAR_DEVICES.lock().get(&id).cloned().ok_or(Errno::ENXIO)?;
    opener(flags)
}
