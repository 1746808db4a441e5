//! The least of descriptors and directories that a program needs to start, until `files` takes over.
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::{Namespace, OpenFile, Path};
use machine::sync::SpinLock;

/// Descriptors by number.
#[derive(Default)]
pub struct FileTable(SpinLock<BTreeMap<i32, Arc<OpenFile>>>);

impl FileTable {
    /// None open.
    pub fn new() -> Self {
        Self::default()
    }

    /// The open file behind `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        self.0.lock().get(&fd).cloned().ok_or(Errno::EBADF)
    }
}

/// Root and working directory.
pub struct FsContext(Path);

impl FsContext {
    /// A process that starts at the root of `namespace`.
    pub fn new(namespace: Arc<Namespace>) -> Self {
        FsContext(namespace.root().clone())
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        self.0.clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.0.clone()
    }
}
