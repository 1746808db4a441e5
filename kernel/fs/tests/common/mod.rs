//! What the tests of this room share: a name space over a tmpfs, and short calls.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use errno::Result;
use fs::{
    Credentials, LookupFlags, MountFlags, Namespace, OpenFile, OpenFlags, Path, Start,
    tmpfs::{Options, TmpFs},
};
use iobuf::{SliceSource, VecSink};

/// A name space and who works in it.
pub struct World {
    /// The tree.
    pub ns: Arc<Namespace>,
    /// Root directory of the process.
    pub root: Path,
    /// Working directory.
    pub cwd: Path,
    /// Ids.
    pub creds: Credentials,
}

impl World {
    /// A world over `fs`.
    pub fn over(fs: Arc<dyn fs::FileSystem>) -> World {
        let ns = Namespace::new(fs, MountFlags::RELATIME).unwrap();
        let root = ns.root().clone();
        World {
            ns,
            cwd: root.clone(),
            root,
            creds: Credentials::ROOT,
        }
    }

    /// A world over an empty tmpfs.
    pub fn new() -> World {
        World::over(TmpFs::new(&Options {
            max_pages: Some(4096),
            max_inodes: Some(100_000),
            permissions: 0o755,
            ..Options::default()
        }))
    }

    pub fn start(&self) -> Start<'_> {
        Start {
            root: &self.root,
            dir: &self.cwd,
            creds: &self.creds,
        }
    }

    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        self.open_how(path, flags, LookupFlags::empty())
    }

    pub fn open_how(
        &self,
        path: &str,
        flags: OpenFlags,
        how: LookupFlags,
    ) -> Result<Arc<OpenFile>> {
        self.ns
            .open(&self.start(), path.as_bytes(), flags, 0o644, how)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC;
        let file = self.open(path, flags)?;
        let mut source = SliceSource::new(bytes);
        assert_eq!(file.write(&mut source)?, bytes.len());
        Ok(())
    }

    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.open(path, OpenFlags::empty())?;
        read_all(&file)
    }

    pub fn mkdir(&self, path: &str) -> Result<()> {
        self.ns
            .mkdir(&self.start(), path.as_bytes(), 0o755)
            .map(drop)
    }

    pub fn symlink(&self, target: &str, path: &str) -> Result<()> {
        self.ns
            .symlink(&self.start(), target.as_bytes(), path.as_bytes())
            .map(drop)
    }

    pub fn unlink(&self, path: &str) -> Result<()> {
        self.ns.unlink(&self.start(), path.as_bytes())
    }

    pub fn rmdir(&self, path: &str) -> Result<()> {
        self.ns.rmdir(&self.start(), path.as_bytes())
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_how(from, to, fs::RenameFlags::empty())
    }

    pub fn rename_how(&self, from: &str, to: &str, how: fs::RenameFlags) -> Result<()> {
        let start = self.start();
        self.ns
            .rename(&start, from.as_bytes(), &start, to.as_bytes(), how)
    }

    pub fn resolve(&self, path: &str, flags: LookupFlags) -> Result<Path> {
        self.ns.resolve(&self.start(), path.as_bytes(), flags)
    }

    pub fn stat(&self, path: &str) -> Result<fs::Metadata> {
        self.resolve(path, LookupFlags::FOLLOW)?.inode().metadata()
    }

    pub fn lstat(&self, path: &str) -> Result<fs::Metadata> {
        self.resolve(path, LookupFlags::empty())?.inode().metadata()
    }

    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        let target = self.resolve(from, LookupFlags::empty())?;
        self.ns
            .link(&self.start(), &target, to.as_bytes())
            .map(drop)
    }

    pub fn names(&self, path: &str) -> Result<Vec<String>> {
        let dir = self.open(path, OpenFlags::DIRECTORY)?;
        let mut names = Vec::new();
        dir.readdir(&mut |entry| {
            names.push(String::from_utf8_lossy(entry.name).into_owned());
            true
        })?;
        names.sort();
        Ok(names)
    }

    pub fn name_of(&self, path: &Path) -> String {
        String::from_utf8(self.ns.path_name(path, &self.root).0).unwrap()
    }
}

/// Everything from the offset on.
pub fn read_all(file: &OpenFile) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut sink = VecSink::new(10_000);
        if file.read(&mut sink)? == 0 {
            return Ok(all);
        }
        all.extend(sink.into_bytes());
    }
}

pub fn write_at(file: &OpenFile, offset: u64, bytes: &[u8]) -> Result<usize> {
    file.write_at(offset, &mut SliceSource::new(bytes))
}

pub fn read_at(file: &OpenFile, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(len);
    file.read_at(offset, &mut sink)?;
    Ok(sink.into_bytes())
}
