//! The inodes of a generated tree. They are made for each look-up; what they show is in the nodes.

use alloc::{sync::Arc, vec::Vec};
use core::any::Any;

use errno::{Errno, Result};

use super::{Dir, Node, Tree, text::TextFile};
use crate::inode::Emit;
use crate::{
    DirEntry, File, FileSystem, FileType, Inode, LinkTarget, Metadata, OpenFlags, SetAttr,
};

/// Cookies above it belong to the children that come and go.
const FIRST_DYNAMIC: u64 = 1 << 32;

/// The inode number of the root.
const ROOT_INO: u64 = 1;

struct TreeInode {
    tree: Arc<Tree>,
    node: Node,
    ino: u64,
}

/// The root's inode.
pub(super) fn root(tree: &Tree) -> Arc<dyn Inode> {
    // Whoever holds the reference to the tree keeps it alive.
    let tree = tree.me.upgrade().expect("a tree that is borrowed lives");
    let node = Node::Dir(tree.root.clone());
    Arc::new(TreeInode {
        tree,
        node,
        ino: ROOT_INO,
    })
}

/// The number of a child: the same at each look-up (FNV-1a over the parent's number and the name).
fn child_ino(parent: u64, name: &[u8]) -> u64 {
    let bytes = parent.to_le_bytes();
    let hash = bytes
        .iter()
        .chain(name)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    // Small enough for programs that keep it in a double or a signed number; never the root's.
    (hash >> 12) | 2
}

impl TreeInode {
    fn dir(&self) -> Result<&Arc<Dir>> {
        match &self.node {
            Node::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

impl Inode for TreeInode {
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.tree.clone()
    }

    fn file_type(&self) -> FileType {
        self.node.file_type()
    }

    fn metadata(&self) -> Result<Metadata> {
        let permissions = match &self.node {
            Node::Dir(dir) => dir.permissions,
            Node::Link { .. } => 0o777,
            Node::Text { permissions, .. } | Node::Object { permissions, .. } => *permissions,
        };
        Ok(Metadata {
            dev: self.tree.dev,
            ino: self.ino,
            file_type: self.file_type(),
            permissions,
            nlink: if self.file_type() == FileType::Directory {
                2
            } else {
                1
            },
            uid: 0,
            gid: 0,
            rdev: crate::DeviceId::default(),
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime: self.tree.born,
            mtime: self.tree.born,
            ctime: self.tree.born,
            btime: None,
        })
    }

    fn set_attr(&self, attr: &SetAttr) -> Result<()> {
        // Opening a setting with O_TRUNC empties nothing; everything else is fixed.
        match (attr.size, attr.permissions, attr.uid, attr.gid) {
            (_, None, None, None) => Ok(()),
            _ => Err(Errno::EPERM),
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let node = self.dir()?.get(name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(TreeInode {
            tree: self.tree.clone(),
            node,
            ino: child_ino(self.ino, name),
        }))
    }

    fn cacheable(&self, name: &[u8], _: Option<&Arc<dyn Inode>>) -> bool {
        match &self.node {
            Node::Dir(dir) => dir.more.is_none() && dir.children.lock().contains_key(name),
            _ => false,
        }
    }

    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let dir = self.dir()?;
        let mut cookie = cookie;
        if cookie < FIRST_DYNAMIC {
            let children: Vec<(Arc<[u8]>, FileType)> = dir
                .children
                .lock()
                .iter()
                .map(|(name, node)| (name.clone(), node.file_type()))
                .collect();
            for (name, file_type) in children.into_iter().skip(cookie as usize) {
                let ino = child_ino(self.ino, &name);
                if !emit(&DirEntry {
                    name: &name,
                    ino,
                    file_type,
                    next: cookie + 1,
                }) {
                    return Ok(cookie);
                }
                cookie += 1;
            }
        }
        let Some(more) = &dir.more else {
            return Ok(cookie);
        };
        let mut at = cookie.saturating_sub(FIRST_DYNAMIC);
        while let Some((next, name, file_type)) = more.next(at) {
            let ino = child_ino(self.ino, &name);
            if !emit(&DirEntry {
                name: &name,
                ino,
                file_type,
                next: FIRST_DYNAMIC + next,
            }) {
                break;
            }
            at = next;
            cookie = FIRST_DYNAMIC + next;
        }
        Ok(cookie)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.node {
            Node::Link { text, .. } => text(),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self) -> Result<LinkTarget> {
        match &self.node {
            Node::Link {
                follow: Some(follow),
                ..
            } => follow().map(LinkTarget::Jump),
            _ => self.readlink().map(LinkTarget::Path),
        }
    }

    fn open(&self, flags: OpenFlags) -> Result<Option<Arc<dyn File>>> {
        match &self.node {
            Node::Dir(_) => Ok(None),
            Node::Link { .. } => Err(Errno::ELOOP),
            Node::Object { open, .. } => open(flags).map(Some),
            Node::Text { read, write, .. } => {
                if flags.can_write() && write.is_none() {
                    return Err(Errno::EACCES);
                }
                Ok(Some(Arc::new(TextFile::new(
                    self.metadata()?,
                    read.clone(),
                    write.clone(),
                ))))
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
