use std::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use errno::{Errno, Result};
use iobuf::{SliceSource, VecSink};
use machine::sync::SpinLock;

use super::{Dir, Dynamic, Node, Tree};
use crate::{FileSystem, FileType, Inode, OpenFlags};

fn read(inode: &Arc<dyn Inode>) -> Result<Vec<u8>> {
    let file = inode.open(OpenFlags::empty())?.ok_or(Errno::EISDIR)?;
    let mut sink = VecSink::new(1000);
    let mut offset = 0;
    loop {
        let n = file.read_at(offset, &mut sink, OpenFlags::empty())?;
        if n == 0 {
            return Ok(sink.into_bytes());
        }
        offset += n as u64;
    }
}

fn names(inode: &Arc<dyn Inode>) -> Vec<String> {
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        // One entry for each call: the cookie has to carry the whole state.
        let mut taken = 0;
        let next = inode
            .readdir(cookie, &mut |entry| {
                taken += 1;
                if taken == 1 {
                    names.push(String::from_utf8_lossy(entry.name).into_owned());
                }
                taken == 1
            })
            .unwrap();
        if taken == 0 {
            return names;
        }
        cookie = next;
    }
}

#[test]
fn text_is_made_when_read_and_settings_can_be_written() {
    let tree = Tree::new("test", 7);
    let value = Arc::new(SpinLock::new(5_u32));
    let (get, set) = (value.clone(), value.clone());
    tree.dir().dir("sub").setting(
        "value",
        move || get.lock().to_string(),
        move |bytes| {
            let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
            *set.lock() = text.trim().parse().map_err(|_| Errno::EINVAL)?;
            Ok(())
        },
    );
    tree.dir().text("fixed", || "abc\n".into());
    let root = tree.root();
    let inode = root.lookup(b"sub").unwrap().lookup(b"value").unwrap();
    assert_eq!(read(&inode).unwrap(), b"5");
    let file = inode.open(OpenFlags::RDWR).unwrap().unwrap();
    assert_eq!(
        file.write_at(0, &mut SliceSource::new(b"17\n"), OpenFlags::RDWR),
        Ok((3, 3))
    );
    assert_eq!(
        file.write_at(0, &mut SliceSource::new(b"x"), OpenFlags::RDWR),
        Err(Errno::EINVAL)
    );
    assert_eq!(read(&inode).unwrap(), b"17");
    let fixed = root.lookup(b"fixed").unwrap();
    assert_eq!(fixed.open(OpenFlags::RDWR).err(), Some(Errno::EACCES));
    assert_eq!(root.lookup(b"none").err(), Some(Errno::ENOENT));
    assert_eq!(names(&root), ["fixed", "sub"]);
    let again = root.lookup(b"fixed").unwrap();
    assert_eq!(again.metadata().unwrap().ino, fixed.metadata().unwrap().ino);
}

struct Numbers(SpinLock<Vec<u64>>);

impl Dynamic for Arc<Numbers> {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let number: u64 = core::str::from_utf8(name).ok()?.parse().ok()?;
        let known = self.0.lock().contains(&number);
        known.then(|| Node::text(move || Ok(number.to_string().into_bytes())))
    }

    fn next(&self, cookie: u64) -> Option<(u64, Vec<u8>, FileType)> {
        let number = self
            .0
            .lock()
            .iter()
            .copied()
            .filter(|number| *number >= cookie)
            .min()?;
        Some((
            number + 1,
            number.to_string().into_bytes(),
            FileType::Regular,
        ))
    }
}

#[test]
fn children_come_and_go_while_they_are_listed() {
    let numbers = Arc::new(Numbers(SpinLock::new((0..10).collect())));
    let dir = Dir::dynamic(0o555, Box::new(numbers.clone()));
    dir.text("zero", || "0".into());
    let tree = Tree::new("test", 7);
    tree.dir().add("numbers", Node::Dir(dir));
    let inode = tree.root().lookup(b"numbers").unwrap();
    assert_eq!(names(&inode).len(), 11);
    let mut seen = Vec::new();
    let mut cookie = 0;
    // Remove each as it is listed: nothing else may be skipped, as when a program closes all its descriptors.
    loop {
        let mut name = Vec::new();
        cookie = inode
            .readdir(cookie, &mut |entry| {
                let first = name.is_empty();
                if first {
                    name = entry.name.to_vec();
                }
                first
            })
            .unwrap();
        if name.is_empty() {
            break;
        }
        if let Some(number) = core::str::from_utf8(&name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
        {
            numbers.0.lock().retain(|other| *other != number);
            seen.push(number);
        }
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    assert_eq!(inode.lookup(b"3").err(), Some(Errno::ENOENT));
}
