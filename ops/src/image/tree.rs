//! The root file system of an image before it is written: an ordered tree in memory. File contents stay where they are
//! on the host until the writer fetches them. Where the files come from is in `collect`, writing in `root`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The number of a node in its tree.
pub type Id = usize;

/// The root folder.
pub const ROOT: Id = 0;

/// How many symbolic links are followed in one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder, its entries in byte order of their names.
    Dir(BTreeMap<OsString, Id>),
    /// A file with contents on the host.
    HostFile(PathBuf, u64),
    /// A file with contents made by the tool.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Symlink(PathBuf),
}

/// Permissions, owner and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The low 12 bits of the mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
}

impl Attributes {
    /// Those of something the tool makes itself: root's, with a fixed time, so that images can be reproduced.
    pub fn made(mode: u16) -> Self {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
        let seconds = epoch.and_then(|v| v.parse().ok()).unwrap_or(EPOCH);
        Attributes {
            mode,
            uid: 0,
            gid: 0,
            mtime: (seconds, 0),
        }
    }

    /// Those of a file on the host. What belongs to the user at work belongs to root in the image: nobody else is there.
    pub fn of(metadata: &Metadata) -> Self {
        let owner = |id: u32, own: u32| if id == own { 0 } else { id };
        Attributes {
            mode: (metadata.mode() & 0o7777) as u16,
            uid: owner(metadata.uid(), rustix::process::getuid().as_raw()),
            gid: owner(metadata.gid(), rustix::process::getgid().as_raw()),
            mtime: (metadata.mtime(), metadata.mtime_nsec() as u32),
        }
    }
}

/// 1980-01-01: late enough for archives in formats that begin there.
const EPOCH: i64 = 315_532_800;

/// One file, folder or link.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Attributes,
}

/// The tree.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Host files with several names, by device and inode: they keep that in the image.
    linked: HashMap<(u64, u64), Id>,
    /// Folders made only to hold something; the first source that has such a folder says its attributes.
    implied: Vec<bool>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree {
            nodes: vec![Node {
                kind: Kind::Dir(BTreeMap::new()),
                attributes: Attributes::made(0o755),
            }],
            linked: HashMap::new(),
            implied: vec![true],
        }
    }
}

impl Tree {
    /// The node of this number.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The entries of a folder; none for anything else.
    pub fn entries(&self, id: Id) -> impl Iterator<Item = (&OsStr, Id)> {
        let map = match &self.nodes[id].kind {
            Kind::Dir(map) => Some(map),
            _ => None,
        };
        map.into_iter()
            .flatten()
            .map(|(name, id)| (name.as_os_str(), *id))
    }

    /// How many inodes the tree needs.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    fn add(&mut self, kind: Kind, attributes: Attributes, implied: bool) -> Id {
        self.nodes.push(Node { kind, attributes });
        self.implied.push(implied);
        self.nodes.len() - 1
    }

    /// The node at a path, links followed (the last one only when `follow`).
    pub fn find(&self, path: &Path, follow: bool) -> Option<Id> {
        self.walk(path, follow, 0).map(|(id, _)| id)
    }

    /// Walks a path; also gives the folder that the last step was in.
    fn walk(&self, path: &Path, follow: bool, links: u32) -> Option<(Id, PathBuf)> {
        let mut at = PathBuf::from("/");
        let mut id = ROOT;
        let parts: Vec<Component<'_>> = path.components().collect();
        for (index, part) in parts.iter().enumerate() {
            match part {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => {
                    at.pop();
                    id = self.walk(&at, true, links)?.0;
                    continue;
                }
                Component::Normal(name) => {
                    let Kind::Dir(map) = &self.nodes[id].kind else {
                        return None;
                    };
                    let next = *map.get(*name)?;
                    let last = index + 1 == parts.len();
                    if let Kind::Symlink(target) = &self.nodes[next].kind
                        && (!last || follow)
                    {
                        if links >= MAX_LINKS {
                            return None;
                        }
                        let mut full = at.join(target);
                        full.extend(&parts[index + 1..]);
                        return self.walk(&full, follow, links + 1);
                    }
                    at.push(name);
                    id = next;
                }
            }
        }
        Some((id, at))
    }

    /// The folder at a path, made where it is missing. Links on the way are followed, dangling ones are made good.
    pub fn make_dirs(&mut self, path: &Path) -> Result<Id> {
        self.make_dirs_from(path, 0)
    }

    fn make_dirs_from(&mut self, path: &Path, links: u32) -> Result<Id> {
        let mut at = PathBuf::from("/");
        let mut id = ROOT;
        let parts: Vec<Component<'_>> = path.components().collect();
        for (index, part) in parts.iter().enumerate() {
            let Component::Normal(name) = part else {
                if matches!(part, Component::ParentDir) {
                    at.pop();
                    id = self.make_dirs_from(&at, links)?;
                }
                continue;
            };
            let existing = match &self.nodes[id].kind {
                Kind::Dir(map) => map.get(*name).copied(),
                _ => bail!("{} is not a folder in the image", at.display()),
            };
            let next = match existing {
                Some(next) => next,
                None => {
                    let kind = Kind::Dir(BTreeMap::new());
                    let next = self.add(kind, Attributes::made(0o755), true);
                    self.insert(id, name, next);
                    next
                }
            };
            if let Kind::Symlink(target) = &self.nodes[next].kind {
                if links >= MAX_LINKS {
                    bail!("too many symbolic links on the way to {}", path.display());
                }
                let mut full = at.join(target);
                full.extend(&parts[index + 1..]);
                return self.make_dirs_from(&full, links + 1);
            }
            at.push(name);
            id = next;
        }
        match &self.nodes[id].kind {
            Kind::Dir(_) => Ok(id),
            _ => bail!("{} is not a folder in the image", path.display()),
        }
    }

    fn insert(&mut self, folder: Id, name: &OsStr, id: Id) {
        if let Kind::Dir(map) = &mut self.nodes[folder].kind {
            map.insert(name.to_os_string(), id);
        }
    }

    /// Puts a folder at a path, or gives an implied one there its attributes.
    pub fn put_dir(&mut self, path: &Path, attributes: Attributes) -> Result<Id> {
        let id = self.make_dirs(path)?;
        if std::mem::take(&mut self.implied[id]) {
            self.nodes[id].attributes = attributes;
        }
        Ok(id)
    }

    /// Puts a file or link at a path; replaces a file or link there. A folder there is an error.
    pub fn put(&mut self, path: &Path, kind: Kind, attributes: Attributes) -> Result<Id> {
        let id = self.add(kind, attributes, false);
        self.attach(path, id)?;
        Ok(id)
    }

    fn attach(&mut self, path: &Path, id: Id) -> Result<()> {
        let name = path
            .file_name()
            .with_context(|| format!("{} is no place for a file", path.display()))?;
        let folder = self.make_dirs(path.parent().unwrap_or(Path::new("/")))?;
        // What is put at a link to a file replaces the file, as it would on a running system.
        if let Some((old, _)) = self.walk(path, false, 0) {
            match &self.nodes[old].kind {
                Kind::Dir(_) => bail!(
                    "{}: a file can not take the place of a folder in the image",
                    path.display()
                ),
                Kind::Symlink(target) if !matches!(self.nodes[id].kind, Kind::Symlink(_)) => {
                    let target = path.parent().unwrap_or(Path::new("/")).join(target);
                    if self.walk(&target, true, 0).is_some_and(|(t, _)| t != old) {
                        return self.attach(&target, id);
                    }
                }
                _ => {}
            }
        }
        self.insert(folder, name, id);
        Ok(())
    }

    /// Puts a file made by the tool at a path, unless something is there.
    pub fn put_default(&mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Result<()> {
        if self.find(Path::new(path), false).is_none() {
            let attributes = Attributes::made(0o644);
            self.put(Path::new(path), Kind::Bytes(bytes.into()), attributes)?;
        }
        Ok(())
    }

    /// Puts a file of the host at a path, whatever it is: files, links as links, folders with all that is in them.
    /// Sockets, pipes and devices are passed over.
    pub fn put_host(&mut self, path: &Path, host: &Path) -> Result<()> {
        let context = || format!("cannot read {}", host.display());
        let metadata = host.symlink_metadata().with_context(context)?;
        let attributes = Attributes::of(&metadata);
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(host).with_context(context)?;
            self.put(path, Kind::Symlink(target), attributes)?;
        } else if kind.is_dir() {
            self.put_dir(path, attributes)?;
            let mut names: Vec<OsString> = fs::read_dir(host)
                .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect())
                .with_context(context)?;
            names.sort();
            for name in names {
                self.put_host(&path.join(&name), &host.join(&name))?;
            }
        } else if kind.is_file() {
            let key = (metadata.dev(), metadata.ino());
            if metadata.nlink() > 1
                && let Some(&id) = self.linked.get(&key)
            {
                return self.attach(path, id);
            }
            fs::File::open(host).with_context(context)?;
            let kind = Kind::HostFile(host.to_path_buf(), metadata.len());
            let id = self.put(path, kind, attributes)?;
            if metadata.nlink() > 1 {
                self.linked.insert(key, id);
            }
        }
        Ok(())
    }

    /// Lets everybody execute the file at a path.
    pub fn make_executable(&mut self, path: &Path) {
        if let Some(id) = self.find(path, true) {
            self.nodes[id].attributes.mode |= 0o111;
        }
    }

    /// Bytes of file contents in all, each file rounded up to a block.
    pub fn content_bytes(&self) -> u64 {
        self.nodes
            .iter()
            .map(|node| match &node.kind {
                Kind::HostFile(_, size) => *size,
                Kind::Bytes(bytes) => bytes.len() as u64,
                Kind::Dir(map) => map.keys().map(|k| k.len() as u64 + 16).sum::<u64>().max(1),
                Kind::Symlink(target) => {
                    let length = target.as_os_str().len() as u64;
                    if length < 60 { 0 } else { length }
                }
            })
            .map(|bytes| bytes.next_multiple_of(4096))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(tree: &Tree, path: &str) -> Option<Vec<u8>> {
        match &tree.node(tree.find(Path::new(path), true)?).kind {
            Kind::Bytes(b) => Some(b.clone()),
            _ => None,
        }
    }

    fn file(tree: &mut Tree, path: &str, text: &str) -> Result<Id> {
        let kind = Kind::Bytes(text.into());
        tree.put(Path::new(path), kind, Attributes::made(0o644))
    }

    fn link(tree: &mut Tree, path: &str, target: &str) {
        let kind = Kind::Symlink(target.into());
        tree.put(Path::new(path), kind, Attributes::made(0o777))
            .unwrap();
    }

    #[test]
    fn paths_go_through_links() {
        let mut tree = Tree::default();
        link(&mut tree, "/lib", "usr/lib");
        file(&mut tree, "/lib/x/a.so.1", "a").unwrap();
        link(&mut tree, "/lib/x/a.so", "a.so.1");
        assert_eq!(bytes(&tree, "/usr/lib/x/a.so").unwrap(), b"a");
        assert_eq!(bytes(&tree, "/usr/../lib/x/../x/a.so").unwrap(), b"a");
        assert!(tree.find(Path::new("/usr/lib/y"), true).is_none());
        file(&mut tree, "/lib/x/a.so", "b").unwrap();
        assert_eq!(bytes(&tree, "/lib/x/a.so.1").unwrap(), b"b");
        link(&mut tree, "/loop", "loop");
        assert!(tree.find(Path::new("/loop"), true).is_none());
        assert!(file(&mut tree, "/loop/x", "").is_err());
    }

    #[test]
    fn files_and_folders_do_not_mix() {
        let mut tree = Tree::default();
        file(&mut tree, "/a/b", "x").unwrap();
        assert!(file(&mut tree, "/a", "x").is_err());
        assert!(file(&mut tree, "/a/b/c", "x").is_err());
        assert!(file(&mut tree, "/", "x").is_err());
        tree.put_default("/a/b", "y").unwrap();
        assert_eq!(bytes(&tree, "/a/b").unwrap(), b"x");
    }

    #[test]
    fn host_folders_keep_modes_links_and_names() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir(at.join("empty dir")).unwrap();
        fs::write(at.join("one"), "1").unwrap();
        fs::hard_link(at.join("one"), at.join("two")).unwrap();
        symlink("gone", at.join("dangling")).unwrap();
        fs::set_permissions(at.join("one"), PermissionsExt::from_mode(0o4711)).unwrap();
        let mut tree = Tree::default();
        tree.put_host(Path::new("/d"), at).unwrap();
        let id = |p: &str| tree.find(Path::new(p), false).unwrap();
        assert_eq!(id("/d/one"), id("/d/two"));
        assert_eq!(tree.node(id("/d/one")).attributes.mode, 0o4711);
        assert_eq!(tree.node(id("/d/one")).attributes.uid, 0);
        assert!(
            matches!(&tree.node(id("/d/dangling")).kind, Kind::Symlink(t) if t == Path::new("gone"))
        );
        assert_eq!(tree.entries(id("/d/empty dir")).count(), 0);
        assert!(tree.put_host(Path::new("/x"), &at.join("none")).is_err());
    }
}
