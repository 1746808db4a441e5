//! Trees whose files are made when they are read: the ground of procfs and sysfs.
//!
//! A [`Tree`] is a file system; a [`Dir`] has fixed [`Node`]s and, where they come and go by themselves (threads,
//! descriptors), a [`Dynamic`] source of more. Whoever has something to show adds it with [`Dir::text`], [`Dir::setting`],
//! [`Dir::link`], [`Dir::dir`] or [`Dir::dynamic`].

mod inode;
mod text;

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};

use errno::Result;
use machine::sync::SpinLock;

use crate::{DeviceId, File, FileSystem, FileType, Inode, NAME_MAX, OpenFlags, Path, StatFs};
use crate::{Timestamp, types::anonymous_device};

/// Makes a file's text. Called when the file is first read after it was opened.
pub type Read = Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;
/// Takes what one `write(2)` wrote.
pub type Write = Arc<dyn Fn(&[u8]) -> Result<()> + Send + Sync>;
/// Tells where a link leads, as a path.
pub type LinkText = Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;
/// Goes where a link leads.
pub type Follow = Arc<dyn Fn() -> Result<Path> + Send + Sync>;
/// Opens a file that is more than text.
pub type Open = Arc<dyn Fn(OpenFlags) -> Result<Arc<dyn File>> + Send + Sync>;

/// One object of a tree.
#[derive(Clone)]
pub enum Node {
    /// A directory.
    Dir(Arc<Dir>),
    /// Text, and how to change it where that can be done.
    Text {
        /// The permission bits.
        permissions: u32,
        /// Makes the text.
        read: Read,
        /// Takes a change.
        write: Option<Write>,
    },
    /// A symbolic link.
    Link {
        /// What `readlink(2)` answers.
        text: LinkText,
        /// Goes straight to an object, as the links of `/proc/self/fd` do; without it, the text is resolved.
        follow: Option<Follow>,
    },
    /// A file that the opener makes.
    Object {
        /// The permission bits.
        permissions: u32,
        /// Opens it.
        open: Open,
    },
}

impl Node {
    /// A file that can only be read.
    pub fn text(read: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
        Node::Text {
            permissions: 0o444,
            read: Arc::new(read),
            write: None,
        }
    }

    /// A symbolic link to a path.
    pub fn link(path: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Node {
        Node::Link {
            text: Arc::new(path),
            follow: None,
        }
    }

    /// A symbolic link straight to an object, whatever its name is by now.
    pub fn jump(
        text: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
        follow: impl Fn() -> Result<Path> + Send + Sync + 'static,
    ) -> Node {
        Node::Link {
            text: Arc::new(text),
            follow: Some(Arc::new(follow)),
        }
    }

    fn file_type(&self) -> FileType {
        match self {
            Node::Dir(_) => FileType::Directory,
            Node::Link { .. } => FileType::Symlink,
            Node::Text { .. } | Node::Object { .. } => FileType::Regular,
        }
    }
}

/// The children of a directory that come and go by themselves.
pub trait Dynamic: Send + Sync {
    /// The child of that name.
    fn lookup(&self, name: &[u8]) -> Option<Node>;

    /// The first child behind `cookie` (0 is the start): its own cookie, name and type. Cookies rise and stay with
    /// their child, so that a listing goes on rightly while others vanish.
    fn next(&self, cookie: u64) -> Option<(u64, Vec<u8>, FileType)>;
}

/// A directory of a tree.
pub struct Dir {
    permissions: u32,
    children: SpinLock<BTreeMap<Arc<[u8]>, Node>>,
    more: Option<Box<dyn Dynamic>>,
}

impl Dir {
    /// An empty directory.
    pub fn new() -> Arc<Dir> {
        Arc::new(Dir {
            permissions: 0o555,
            children: SpinLock::default(),
            more: None,
        })
    }

    /// A directory with children that come and go, beside those that are added.
    pub fn dynamic(permissions: u32, more: Box<dyn Dynamic>) -> Arc<Dir> {
        Arc::new(Dir {
            permissions,
            children: SpinLock::default(),
            more: Some(more),
        })
    }

    /// Puts `node` under `name`, instead of what was there.
    pub fn add(&self, name: &str, node: Node) -> &Self {
        let old = self.children.lock().insert(name.as_bytes().into(), node);
        drop(old);
        self
    }

    /// The directory `name`, made if there is none.
    pub fn dir(&self, name: &str) -> Arc<Dir> {
        if let Some(Node::Dir(dir)) = self.children.lock().get(name.as_bytes()) {
            return dir.clone();
        }
        let dir = Dir::new();
        self.add(name, Node::Dir(dir.clone()));
        dir
    }

    /// A file that can only be read.
    pub fn text(&self, name: &str, read: impl Fn() -> String + Send + Sync + 'static) -> &Self {
        self.add(name, Node::text(move || Ok(read().into_bytes())))
    }

    /// A file with a value that can be changed.
    pub fn setting(
        &self,
        name: &str,
        read: impl Fn() -> String + Send + Sync + 'static,
        write: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
    ) -> &Self {
        let read: Read = Arc::new(move || Ok(read().into_bytes()));
        self.add(
            name,
            Node::Text {
                permissions: 0o644,
                read,
                write: Some(Arc::new(write)),
            },
        )
    }

    /// A symbolic link to a path.
    pub fn link(
        &self,
        name: &str,
        path: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static,
    ) -> &Self {
        self.add(name, Node::link(path))
    }

    fn get(&self, name: &[u8]) -> Option<Node> {
        let child = self.children.lock().get(name).cloned();
        child.or_else(|| self.more.as_ref()?.lookup(name))
    }
}

/// A file system of generated files.
pub struct Tree {
    name: &'static str,
    magic: u64,
    dev: DeviceId,
    born: Timestamp,
    root: Arc<Dir>,
    me: alloc::sync::Weak<Tree>,
}

impl Tree {
    /// An empty tree, with its name and its magic number (`statfs(2)`).
    pub fn new(name: &'static str, magic: u64) -> Arc<Tree> {
        Arc::new_cyclic(|me| Tree {
            name,
            magic,
            dev: anonymous_device(),
            born: crate::time::now(),
            root: Dir::new(),
            me: me.clone(),
        })
    }

    /// Its root, to add to.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.root
    }
}

impl FileSystem for Tree {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Arc<dyn Inode> {
        inode::root(self)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            magic: self.magic,
            block_size: 4096,
            name_max: NAME_MAX as u64,
            ..StatFs::default()
        })
    }
}

#[cfg(test)]
mod tests;
