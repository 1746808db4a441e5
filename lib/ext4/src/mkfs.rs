//! Making an empty file system: superblock and its copies, descriptors, bitmaps, journal, root and `lost+found`.
//!
//! The layout: tables of 16 groups together at the start of the first of them (flex_bg), the journal right behind the
//! first tables. Groups without anything in them are marked uninitialised, so little is written.

use crate::group::{
    BLOCK_UNINIT, Group, INODE_UNINIT, INODE_ZEROED, fresh_block_bitmap, fresh_inode_bitmap,
};
use crate::inode::{Node, flag};
use crate::le::{put16, put32};
use crate::superblock::{SUPER_SIZE, Super, compat, incompat, ro_compat};
use crate::{BlockDevice, Error, FileKind, ROOT_INO, Result, Timestamp};
use crate::{bitmap, dir, extent, journal};
use alloc::vec;
use alloc::vec::Vec;

/// What [`mkfs`] writes. The same options give the same bytes.
#[derive(Clone, Debug)]
pub struct MkfsOptions {
    /// UUID of the volume (and of its journal).
    pub uuid: [u8; 16],
    /// Label, padded with zeros.
    pub label: [u8; 16],
    /// Size in bytes; what does not fill a block is left unused. At most the device's size.
    pub size: u64,
    /// Block size: 1024, 2048 or 4096.
    pub block_size: u32,
    /// Length of the journal in blocks: 0 for none, otherwise at least 1,024.
    pub journal_blocks: u32,
    /// Number of inodes, rounded up to whole table blocks; `None` is one for each 16 KiB.
    pub inodes: Option<u32>,
    /// Time of creation.
    pub now: Timestamp,
    /// Seed of the directory hash.
    pub hash_seed: [u8; 16],
    /// Share of the blocks kept for the superuser, in percent (at most 50).
    pub reserved_percent: u8,
    /// The device is known to read as zeros: do not write zeros, so that an image stays sparse.
    pub zeroed: bool,
}

impl MkfsOptions {
    /// 4 KiB blocks, a journal of 1,024 blocks, one inode per 16 KiB, nothing reserved, no label, no assumption about
    /// the device.
    pub fn new(size: u64, uuid: [u8; 16], hash_seed: [u8; 16], now: Timestamp) -> MkfsOptions {
        MkfsOptions {
            uuid,
            label: [0; 16],
            size,
            block_size: 4096,
            journal_blocks: 1024,
            inodes: None,
            now,
            hash_seed,
            reserved_percent: 0,
            zeroed: false,
        }
    }
}

const LOG_FLEX: u8 = 4;
const INODE_SIZE: usize = 256;
const FIRST_INODE: u32 = 11;
const JOURNAL_INODE: u32 = 8;

/// Writes an empty file system with a root directory and `lost+found`.
///
/// Fails with `Invalid` for options that make no sense, `NoSpace` if the size does not hold what is asked for.
pub fn mkfs<D: BlockDevice>(device: &D, options: &MkfsOptions) -> Result<()> {
    let plan = Plan::new(device, options)?;
    let mut groups = plan.groups.clone();
    let mut sb = plan.sb.clone();
    let mut image = Image {
        device,
        size: sb.block_size as usize,
    };

    let mut used: Vec<(u64, u64)> = Vec::new();
    for number in 0..sb.groups {
        used.push((sb.group_start(number), u64::from(sb.super_overhead(number))));
    }
    for group in &groups {
        used.push((group.block_bitmap, 1));
        used.push((group.inode_bitmap, 1));
        used.push((group.inode_table, u64::from(sb.itable_blocks())));
    }
    used.push((plan.root, 1));
    used.push((plan.root + 1, 1));
    used.push((plan.journal, u64::from(options.journal_blocks)));

    // Which blocks each group has in use, and so which groups need a bitmap on disk.
    let mut free_blocks = 0;
    let mut free_inodes = 0;
    for number in 0..sb.groups {
        let start = sb.group_start(number);
        let len = sb.blocks_in_group(number);
        let mut bits = vec![0u8; image.size];
        for &(first, count) in &used {
            let (from, to) = (
                first.max(start),
                (first + count).min(start + u64::from(len)),
            );
            if from < to {
                bitmap::set(&mut bits, (from - start) as u32, (to - from) as u32);
            }
        }
        let busy: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        bitmap::set(&mut bits, len, sb.block_size * 8 - len);
        let group = &mut groups[number as usize];
        group.free_blocks = len - busy;
        free_blocks += u64::from(group.free_blocks);
        let mut plain = vec![0; image.size];
        fresh_block_bitmap(&sb, number, group, &mut plain);
        if number == 0 || number + 1 == sb.groups || plain != bits {
            group.sum_block_bitmap(&sb, &bits);
            image.put(group.block_bitmap, &bits)?;
        } else {
            group.flags |= BLOCK_UNINIT;
        }
        let mut bits = vec![0; image.size];
        fresh_inode_bitmap(&sb, &mut bits);
        group.free_inodes = sb.inodes_per_group;
        if number == 0 {
            bitmap::set(&mut bits, 0, FIRST_INODE);
            group.free_inodes -= FIRST_INODE;
            group.used_dirs = 2;
            group.sum_inode_bitmap(&sb, &bits);
            image.put(group.inode_bitmap, &bits)?;
        } else {
            group.flags |= INODE_UNINIT;
        }
        group.itable_unused = group.free_inodes;
        free_inodes += group.free_inodes;
        if options.zeroed {
            group.flags |= INODE_ZEROED;
        }
    }

    image.first_inodes(&sb, &plan, options, groups[0].inode_table)?;
    image.directories(&sb, plan.root)?;
    if options.journal_blocks > 0 {
        let mut raw = vec![0; image.size];
        journal::format_super(
            &mut raw,
            sb.block_size,
            options.journal_blocks,
            &options.uuid,
        );
        image.put(plan.journal, &raw)?;
        if !options.zeroed {
            // What is left of an older journal with the same UUID must never look like this one's.
            image.zero(plan.journal + 1, u64::from(options.journal_blocks) - 1)?;
        }
    }
    let mut table = vec![0; sb.gdt_blocks() as usize * image.size];
    for (number, group) in groups.iter().enumerate() {
        let at = number * sb.desc_size;
        group.store(&sb, number as u32, &mut table[at..at + sb.desc_size]);
    }
    sb.live.free_blocks = free_blocks;
    sb.live.free_inodes = free_inodes;
    for number in (0..sb.groups).rev() {
        if sb.has_super(number) {
            image.supers(&sb, &plan.raw, number, &table, options)?;
        }
    }
    device.flush()?;
    Ok(())
}

/// Where everything goes.
struct Plan {
    sb: Super,
    raw: [u8; SUPER_SIZE],
    groups: Vec<Group>,
    /// The root directory's block; `lost+found` has the next one.
    root: u64,
    /// First block of the journal.
    journal: u64,
}

impl Plan {
    fn new<D: BlockDevice>(device: &D, options: &MkfsOptions) -> Result<Plan> {
        if ![1024, 2048, 4096].contains(&options.block_size)
            || options.size > device.size_bytes()
            || options.reserved_percent > 50
            || (options.journal_blocks != 0 && options.journal_blocks < journal::MIN_BLOCKS)
        {
            return Err(Error::Invalid);
        }
        let block_size = u64::from(options.block_size);
        let first_data = u64::from(options.block_size == 1024);
        let mut blocks = options.size / block_size;
        if blocks < 64 {
            return Err(Error::NoSpace);
        }
        loop {
            let raw = raw_super(options, blocks)?;
            let sb = Super::parse(&raw, device.size_bytes())?;
            let last = sb.groups - 1;
            // A last group that can hardly hold its own copy of the descriptors is not worth having.
            if last > 0 && sb.blocks_in_group(last) < sb.super_overhead(last) + 50 {
                blocks = first_data + u64::from(last) * u64::from(sb.blocks_per_group);
                continue;
            }
            return Plan::place(sb, raw, options);
        }
    }

    fn place(sb: Super, raw: [u8; SUPER_SIZE], options: &MkfsOptions) -> Result<Plan> {
        let mut groups = Vec::new();
        let mut behind = 0;
        for first in (0..sb.groups).step_by(1 << LOG_FLEX) {
            let count = u64::from((sb.groups - first).min(1 << LOG_FLEX));
            // Block bitmaps of the flex group, then inode bitmaps, then tables; they may run on into its next groups
            // but must keep off those groups' own descriptor copies.
            let total = count * (2 + u64::from(sb.itable_blocks()));
            let start = free_stretch(&sb, sb.group_start(first), total).ok_or(Error::NoSpace)?;
            for index in 0..count {
                groups.push(Group {
                    block_bitmap: start + index,
                    inode_bitmap: start + count + index,
                    inode_table: start + 2 * count + index * u64::from(sb.itable_blocks()),
                    free_blocks: 0,
                    free_inodes: 0,
                    used_dirs: 0,
                    flags: 0,
                    itable_unused: 0,
                    block_bitmap_csum: 0,
                    inode_bitmap_csum: 0,
                });
            }
            if first == 0 {
                behind = start + total;
            }
        }
        let root = free_stretch(&sb, behind, 2).ok_or(Error::NoSpace)?;
        let journal =
            free_stretch(&sb, root + 2, u64::from(options.journal_blocks)).ok_or(Error::NoSpace)?;
        // The journal must not run into the tables of the next flex group.
        let end = journal + u64::from(options.journal_blocks);
        if groups
            .get(1 << LOG_FLEX)
            .is_some_and(|next| end > next.block_bitmap)
        {
            return Err(Error::NoSpace);
        }
        Ok(Plan {
            sb,
            raw,
            groups,
            root,
            journal,
        })
    }
}

/// The first stretch of `len` blocks at or after `from` without copies of the superblock and descriptors.
fn free_stretch(sb: &Super, from: u64, len: u64) -> Option<u64> {
    let mut start = from;
    loop {
        let end = start.checked_add(len)?;
        if end > sb.blocks {
            return None;
        }
        let (first, _) = sb.group_of(start);
        let (last, _) = sb.group_of(end.max(start + 1) - 1);
        let clash = (first..=last)
            .map(|number| (sb.group_start(number), u64::from(sb.super_overhead(number))))
            .find(|&(copy, overhead)| {
                overhead > 0 && copy < end.max(start + 1) && start < copy + overhead
            });
        match clash {
            Some((copy, overhead)) => start = copy + overhead,
            None => return Some(start),
        }
    }
}

/// The superblock without its counters.
fn raw_super(options: &MkfsOptions, blocks: u64) -> Result<[u8; SUPER_SIZE]> {
    let mut raw = [0; SUPER_SIZE];
    let block_size = options.block_size;
    let log_block = block_size.trailing_zeros() - 10;
    let first_data = u64::from(block_size == 1024);
    let bits = u64::from(block_size) * 8;
    let wanted = options
        .inodes
        .map_or(blocks * u64::from(block_size) / 16384, u64::from)
        .max(u64::from(FIRST_INODE) + 5);
    let per_block = u64::from(block_size) / INODE_SIZE as u64;
    // Whole table blocks, and a multiple of eight for the bitmap's checksum.
    let unit = per_block.max(8);
    let mut per_group = bits;
    let (groups, per_group_inodes) = loop {
        let groups = (blocks - first_data).div_ceil(per_group);
        let inodes = wanted.div_ceil(groups).next_multiple_of(unit).max(16);
        if inodes <= bits {
            break (groups, inodes);
        }
        // One bitmap block cannot count so many inodes: more, smaller groups.
        per_group = ((blocks - first_data) / (groups + 1)) & !7;
        if per_group < 256 {
            return Err(Error::NoSpace);
        }
    };
    if groups * per_group_inodes > u64::from(u32::MAX) {
        return Err(Error::Invalid);
    }
    let per_group = per_group as u32;
    let reserved = blocks * u64::from(options.reserved_percent) / 100;
    put32(&mut raw, 0, (groups * per_group_inodes) as u32);
    put32(&mut raw, 4, blocks as u32);
    put32(&mut raw, 8, reserved as u32);
    put32(&mut raw, 20, first_data as u32);
    put32(&mut raw, 24, log_block);
    put32(&mut raw, 28, log_block);
    put32(&mut raw, 32, per_group);
    put32(&mut raw, 36, per_group);
    put32(&mut raw, 40, per_group_inodes as u32);
    put32(&mut raw, 48, options.now.sec as u32);
    put16(&mut raw, 54, u16::MAX);
    put16(&mut raw, 56, 0xef53);
    put16(&mut raw, 58, crate::superblock::STATE_VALID);
    put16(&mut raw, 60, 1);
    put32(&mut raw, 64, options.now.sec as u32);
    put32(&mut raw, 76, 1);
    put32(&mut raw, 84, FIRST_INODE);
    put16(&mut raw, 88, INODE_SIZE as u16);
    let has_journal = options.journal_blocks > 0;
    let journal_bit = if has_journal { compat::HAS_JOURNAL } else { 0 };
    put32(
        &mut raw,
        92,
        journal_bit | compat::EXT_ATTR | compat::DIR_INDEX,
    );
    put32(
        &mut raw,
        96,
        incompat::FILETYPE | incompat::EXTENTS | incompat::SIXTY_FOUR_BIT | incompat::FLEX_BG,
    );
    put32(
        &mut raw,
        100,
        ro_compat::KNOWN & !(ro_compat::GDT_CSUM | ro_compat::BTREE_DIR),
    );
    raw[104..120].copy_from_slice(&options.uuid);
    raw[120..136].copy_from_slice(&options.label);
    if has_journal {
        put32(&mut raw, 224, JOURNAL_INODE);
        raw[253] = 1;
    }
    raw[236..252].copy_from_slice(&options.hash_seed);
    raw[252] = 1;
    put16(&mut raw, 254, 64);
    // Default mount options: user_xattr and acl, as mke2fs.
    put32(&mut raw, 256, 0xc);
    put32(&mut raw, 264, options.now.sec as u32);
    put32(&mut raw, 336, (blocks >> 32) as u32);
    put32(&mut raw, 340, (reserved >> 32) as u32);
    put16(&mut raw, 348, 32);
    put16(&mut raw, 350, 32);
    // Signed characters in hashes.
    put32(&mut raw, 352, 1);
    raw[372] = LOG_FLEX;
    raw[373] = 1;
    let sum = crate::crc::crc32c(!0, &raw[..1020]);
    put32(&mut raw, 1020, sum);
    Ok(raw)
}

/// A name and its inode.
type Entry = (&'static [u8], u32);

/// The device, written by whole blocks.
struct Image<'a, D> {
    device: &'a D,
    size: usize,
}

impl<D: BlockDevice> Image<'_, D> {
    fn put(&mut self, nr: u64, data: &[u8]) -> Result<()> {
        Ok(self.device.write(nr * self.size as u64, data)?)
    }

    fn zero(&mut self, start: u64, count: u64) -> Result<()> {
        let zeros = vec![0; self.size * 64];
        let mut at = start;
        while at < start + count {
            let n = (start + count - at).min(64);
            self.put(at, &zeros[..n as usize * self.size])?;
            at += n;
        }
        Ok(())
    }

    /// The reserved inodes, the root and `lost+found`, in the first blocks of the first table.
    fn first_inodes(
        &mut self,
        sb: &Super,
        plan: &Plan,
        options: &MkfsOptions,
        table: u64,
    ) -> Result<()> {
        let now = options.now;
        let sectors = u64::from(sb.block_size / 512);
        let mut inodes = vec![0; (FIRST_INODE as usize * INODE_SIZE).next_multiple_of(self.size)];
        for ino in 1..=FIRST_INODE {
            let mut node = Node {
                ino,
                mode: 0,
                uid: 0,
                gid: 0,
                size: 0,
                nlink: 0,
                blocks: 0,
                atime: now,
                mtime: now,
                ctime: now,
                crtime: now,
                dtime: 0,
                flags: 0,
                generation: 0,
                acl_block: 0,
                block: [0; 60],
                extra_isize: 32,
            };
            let extents = |node: &mut Node, physical: u64, count: u32| {
                node.flags = flag::EXTENTS;
                extent::init_root(&mut node.block);
                let longest = extent::Ext::max_len(false);
                for (at, logical) in (0..count).step_by(longest as usize).enumerate() {
                    extent::node::open_gap(&mut node.block, at);
                    let len = longest.min(count - logical);
                    let ext = extent::Ext {
                        logical,
                        len,
                        physical: physical + u64::from(logical),
                        unwritten: false,
                    };
                    extent::node::set_extent(&mut node.block, at, &ext);
                }
                node.blocks = u64::from(count) * sectors;
                node.size = u64::from(count) * u64::from(sb.block_size);
            };
            match ino {
                ROOT_INO => {
                    (node.mode, node.nlink) = (0o040755, 3);
                    extents(&mut node, plan.root, 1);
                }
                FIRST_INODE => {
                    (node.mode, node.nlink) = (0o040700, 2);
                    extents(&mut node, plan.root + 1, 1);
                }
                JOURNAL_INODE if options.journal_blocks > 0 => {
                    if options.journal_blocks.div_ceil(extent::Ext::max_len(false)) > 4 {
                        return Err(Error::Invalid);
                    }
                    (node.mode, node.nlink) = (0o100600, 1);
                    extents(&mut node, plan.journal, options.journal_blocks);
                }
                _ => {}
            }
            let at = (ino - 1) as usize * INODE_SIZE;
            node.store(sb, &mut inodes[at..at + INODE_SIZE]);
        }
        self.put(table, &inodes)
    }

    fn directories(&mut self, sb: &Super, root: u64) -> Result<()> {
        let end = self.size - sb.leaf_tail();
        let file_type = FileKind::Directory.entry_type();
        let entries: [(&[Entry], u32); 2] = [
            (
                &[
                    (b".", ROOT_INO),
                    (b"..", ROOT_INO),
                    (b"lost+found", FIRST_INODE),
                ],
                ROOT_INO,
            ),
            (&[(b".", FIRST_INODE), (b"..", ROOT_INO)], FIRST_INODE),
        ];
        for (nr, (names, owner)) in (root..).zip(entries) {
            let mut block = vec![0; self.size];
            dir::leaf::init(&mut block, sb.leaf_tail());
            let mut slot = 0;
            for &(name, ino) in names {
                dir::leaf::put(
                    &mut block[..end],
                    slot,
                    &dir::leaf::New {
                        name,
                        ino,
                        file_type,
                    },
                );
                slot = dir::leaf::room(&block[..end], 0)?.ok_or(Error::NoSpace)?;
            }
            let seed = crate::sums::inode_seed(sb, owner, 0);
            crate::sums::stamp(sb, nr, crate::cache::Kind::DirLeaf(seed), &mut block)?;
            self.put(nr, &block)?;
        }
        Ok(())
    }

    /// One copy of superblock and descriptors.
    fn supers(
        &mut self,
        sb: &Super,
        raw: &[u8; SUPER_SIZE],
        number: u32,
        table: &[u8],
        options: &MkfsOptions,
    ) -> Result<()> {
        let mut copy = *raw;
        put16(&mut copy, 90, number as u16);
        if options.journal_blocks > 0 {
            // A backup of the journal inode's block map, size high and size low.
            let mut block = [0; 60];
            let journal = self.journal_block(sb, table, &mut block)?;
            copy[268..328].copy_from_slice(&block);
            put32(&mut copy, 328, (journal >> 32) as u32);
            put32(&mut copy, 332, journal as u32);
        }
        sb.store(&mut copy, options.now.sec);
        let start = sb.group_start(number);
        let mut block = vec![0; self.size];
        // Only the first copy leaves room for a boot sector before it.
        let at = if number == 0 && self.size > 1024 {
            1024
        } else {
            0
        };
        block[at..at + SUPER_SIZE].copy_from_slice(&copy);
        self.put(start, &block)?;
        self.put(start + 1, table)
    }

    /// The block map and size of the journal inode as just written.
    fn journal_block(&mut self, sb: &Super, table: &[u8], block: &mut [u8; 60]) -> Result<u64> {
        let group = Group::parse(sb, &table[..sb.desc_size]);
        let at = u64::from(JOURNAL_INODE - 1) * INODE_SIZE as u64;
        let mut data = vec![0; self.size];
        let nr = group.inode_table + at / self.size as u64;
        self.device.read(nr * self.size as u64, &mut data)?;
        let at = (at % self.size as u64) as usize;
        let node = Node::parse(sb, JOURNAL_INODE, &data[at..at + INODE_SIZE])?;
        block.copy_from_slice(&node.block);
        Ok(node.size)
    }
}
