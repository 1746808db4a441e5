//! Extended attributes: in the inode behind its fields, and in one block of their own.

use crate::cache::Kind;
use crate::inode::Node;
use crate::le::{get16, get32, put16, put32};
use crate::{BlockDevice, Error, Ext4, Ino, Result, XattrMode};
use alloc::vec::Vec;

const MAGIC: u32 = 0xea02_0000;
/// Length of the header of an attribute block; the one in an inode is only the magic.
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;

/// Name spaces: the index on disk and the prefix. The POSIX ACLs are whole names.
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

/// One attribute: name-space index, name without prefix, value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn entry_len(&self) -> usize {
        (ENTRY + self.name.len() + 3) & !3
    }

    fn value_len(&self) -> usize {
        (self.value.len() + 3) & !3
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value_len()
    }
}

/// The index and the rest of a full name.
fn split_name(name: &[u8]) -> Result<(u8, &[u8])> {
    for (index, prefix) in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            let whole = !prefix.ends_with(b".");
            if whole != rest.is_empty() {
                continue;
            }
            return if rest.len() > 255 {
                Err(Error::Range)
            } else {
                Ok((index, rest))
            };
        }
    }
    Err(Error::NotSupported)
}

/// Reads the entries of an area whose first entry is at `first`; value offsets count from `base`.
fn parse(area: &[u8], first: usize, base: usize, out: &mut Vec<Attribute>) -> Result<()> {
    let bad = Error::corrupt("extended attributes");
    let mut at = first;
    loop {
        match area.get(at..at + 4) {
            Some([0, 0, 0, 0]) => return Ok(()),
            Some(_) => {}
            None => return if at == area.len() { Ok(()) } else { Err(bad) },
        }
        let entry = area.get(at..at + ENTRY).ok_or(bad)?;
        let (name_len, offset, len) = (
            usize::from(entry[0]),
            usize::from(get16(entry, 2)),
            get32(entry, 8) as usize,
        );
        if get32(entry, 4) != 0 {
            return Err(Error::Unsupported {
                what: "attribute values in inodes",
            });
        }
        let name = area.get(at + ENTRY..at + ENTRY + name_len).ok_or(bad)?;
        let start = base + offset;
        let value = match len {
            0 => &[][..],
            _ => area
                .get(start..start.checked_add(len).ok_or(bad)?)
                .ok_or(bad)?,
        };
        out.push(Attribute {
            index: entry[1],
            name: name.to_vec(),
            value: value.to_vec(),
        });
        at += (ENTRY + name_len + 3) & !3;
    }
}

/// Writes entries from `first` up and values from the end down; value offsets count from `base`.
fn write(area: &mut [u8], first: usize, base: usize, attributes: &[Attribute], in_block: bool) {
    area[first..].fill(0);
    let (mut at, mut end) = (first, area.len());
    for attribute in attributes {
        end -= attribute.value_len();
        area[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        let entry = &mut area[at..at + attribute.entry_len()];
        entry[0] = attribute.name.len() as u8;
        entry[1] = attribute.index;
        put16(
            entry,
            2,
            if attribute.value.is_empty() {
                0
            } else {
                (end - base) as u16
            },
        );
        put32(entry, 8, attribute.value.len() as u32);
        entry[ENTRY..ENTRY + attribute.name.len()].copy_from_slice(&attribute.name);
        if in_block {
            put32(entry, 12, entry_hash(attribute));
        }
        at += attribute.entry_len();
    }
}

fn entry_hash(attribute: &Attribute) -> u32 {
    let mut hash = 0u32;
    for &byte in &attribute.name {
        hash = hash.rotate_left(5) ^ u32::from(byte);
    }
    for word in attribute.value.chunks(4) {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
    }
    hash
}

/// Whether attributes fit an area with `room` bytes for entries and values; four zero bytes end the entries.
fn fits(attributes: &[Attribute], room: usize) -> bool {
    attributes.iter().map(Attribute::len).sum::<usize>() + 4 <= room
}

impl<D: BlockDevice> Ext4<D> {
    /// The attributes in the inode and those in the block.
    fn read_xattrs(&mut self, node: &Node) -> Result<(Vec<Attribute>, Vec<Attribute>)> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        if let Some((start, len)) = self.inode_extra(node) {
            let (id, at) = self.inode_slot(node.ino)?;
            let area = &self.data(id)[at + start..at + start + len];
            if get32(area, 0) == MAGIC {
                parse(area, 4, 4, &mut inside)?;
            }
        }
        if node.acl_block != 0 {
            let id = self.block(node.acl_block, Kind::Xattr)?;
            let area = self.data(id);
            if get32(area, 0) != MAGIC || get32(area, 8) != 1 {
                return Err(Error::corrupt("extended attribute block"));
            }
            parse(area, BLOCK_HEADER, 0, &mut outside)?;
        }
        Ok((inside, outside))
    }

    /// The value of an extended attribute, by its full name (`user.x`).
    pub fn get_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.cache.trim();
        let (index, name) = split_name(name)?;
        let node = self.node(ino)?;
        let (inside, outside) = self.read_xattrs(&node)?;
        let found = inside
            .into_iter()
            .chain(outside)
            .find(|a| a.index == index && a.name == name);
        found.map(|attribute| attribute.value).ok_or(Error::NoData)
    }

    /// The full names of all extended attributes, each ended by a zero byte, as `listxattr`.
    pub fn list_xattrs(&mut self, ino: Ino) -> Result<Vec<u8>> {
        self.cache.trim();
        let node = self.node(ino)?;
        let (inside, outside) = self.read_xattrs(&node)?;
        let mut out = Vec::new();
        for attribute in inside.iter().chain(&outside) {
            let Some((_, prefix)) = PREFIXES.iter().find(|(index, _)| *index == attribute.index)
            else {
                continue;
            };
            out.extend_from_slice(prefix);
            out.extend_from_slice(&attribute.name);
            out.push(0);
        }
        Ok(out)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        let (index, name) = split_name(name)?;
        if value.len() > usize::from(u16::MAX) {
            return Err(Error::Range);
        }
        self.change(|fs| {
            let mut node = fs.node(ino)?;
            let (inside, outside) = fs.read_xattrs(&node)?;
            let mut all: Vec<Attribute> = inside.into_iter().chain(outside).collect();
            let before = all.len();
            all.retain(|a| a.index != index || a.name != name);
            match (all.len() < before, mode) {
                (true, XattrMode::Create) => return Err(Error::Exists),
                (false, XattrMode::Replace) => return Err(Error::NoData),
                _ => {}
            }
            all.push(Attribute {
                index,
                name: name.to_vec(),
                value: value.to_vec(),
            });
            fs.write_xattrs(&mut node, all)
        })
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        let (index, name) = split_name(name)?;
        self.change(|fs| {
            let mut node = fs.node(ino)?;
            let (inside, outside) = fs.read_xattrs(&node)?;
            let mut all: Vec<Attribute> = inside.into_iter().chain(outside).collect();
            let before = all.len();
            all.retain(|a| a.index != index || a.name != name);
            if all.len() == before {
                return Err(Error::NoData);
            }
            fs.write_xattrs(&mut node, all)
        })
    }

    /// Places all attributes anew: the small ones in the inode, the rest in the block.
    fn write_xattrs(&mut self, node: &mut Node, mut all: Vec<Attribute>) -> Result<()> {
        // Blocks keep their entries ordered; smaller ones first fills the inode best.
        all.sort_by(|a, b| (a.len(), a.index, &a.name).cmp(&(b.len(), b.index, &b.name)));
        let extra = self.inode_extra(node);
        let room = extra.map_or(0, |(_, len)| len.saturating_sub(4));
        let mut inside = 0;
        while inside < all.len() && fits(&all[..inside + 1], room) {
            inside += 1;
        }
        let mut outside = all.split_off(inside);
        if !fits(&outside, self.sb.block_size as usize - BLOCK_HEADER) {
            return Err(Error::NoSpace);
        }
        if let Some((start, len)) = extra {
            let (id, at) = self.inode_slot(node.ino)?;
            let area = &mut self.edit(id)[at + start..at + start + len];
            area.fill(0);
            if !all.is_empty() {
                put32(area, 0, MAGIC);
                write(area, 4, 4, &all, false);
            }
        }
        outside.sort_by(|a, b| {
            (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name))
        });
        if outside.is_empty() {
            self.drop_xattr_block(node)?;
        } else {
            self.put_xattr_block(node, &outside)?;
        }
        node.ctime = self.now();
        self.store_node(node, false)
    }

    fn put_xattr_block(&mut self, node: &mut Node, attributes: &[Attribute]) -> Result<()> {
        let own = match node.acl_block {
            0 => None,
            nr => {
                let id = self.block(nr, Kind::Xattr)?;
                (get32(self.data(id), 4) == 1).then_some(id)
            }
        };
        let id = match own {
            Some(id) => id,
            None => {
                // None yet, or one shared with other inodes (as Linux may leave them): take one for this inode.
                self.drop_xattr_block(node)?;
                let goal = self.inode_goal(node.ino);
                let nr = self.alloc_meta(goal)?;
                node.acl_block = nr;
                node.blocks += u64::from(self.sb.block_size / 512);
                self.sb.live.ext_attr = true;
                self.cache.fresh(nr, Kind::Xattr)?
            }
        };
        let mut hash = 0u32;
        for attribute in attributes {
            hash = hash.rotate_left(16) ^ entry_hash(attribute);
        }
        let area = self.edit(id);
        area[..BLOCK_HEADER].fill(0);
        put32(area, 0, MAGIC);
        put32(area, 4, 1);
        put32(area, 8, 1);
        put32(area, 12, hash);
        write(area, BLOCK_HEADER, 0, attributes, true);
        Ok(())
    }

    /// Gives up an inode's attribute block. The caller stores the inode.
    pub(crate) fn drop_xattr_block(&mut self, node: &mut Node) -> Result<()> {
        let nr = node.acl_block;
        if nr == 0 {
            return Ok(());
        }
        let id = self.block(nr, Kind::Xattr)?;
        let refs = get32(self.data(id), 4);
        if refs > 1 {
            put32(self.edit(id), 4, refs - 1);
        } else {
            self.free_run(nr, 1, true)?;
        }
        node.acl_block = 0;
        node.blocks = node
            .blocks
            .saturating_sub(u64::from(self.sb.block_size / 512));
        Ok(())
    }
}
