//! The receive ring of a packet socket (`PACKET_RX_RING`, `Documentation/networking/packet_mmap.rst` of Linux), in version 2
//! of its format (`TPACKET_V2`): memory that the program maps, in which each frame that passes is put into the next slot. The
//! slot's first word says whose it is. libpcap reads in no other way.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use machine::mem::Frame;
use machine::sync::SpinLock;
use net::TappedFrame;

use crate::mm::pager::{Description, Pager};

/// `TPACKET_V2` as `PACKET_VERSION` names it.
pub const VERSION: i32 = 1;
/// `sizeof(struct tpacket2_hdr)`.
const HEADER: usize = 32;
/// `TPACKET2_HDRLEN`: with the `struct sockaddr_ll` behind it.
const HEADER_AND_ADDRESS: usize = HEADER + 20;
const ALIGN: usize = 16;
const PAGE: usize = 4096;
/// Bytes that all rings of a socket may take; more is `ENOMEM`, as where Linux finds no memory.
const MOST: usize = 64 << 20;
/// `TP_STATUS_LOSING`: frames were dropped since the program asked how many.
const LOSING: u32 = 4;

/// The bytes of a header that programs of this version of the format are to expect (`PACKET_HDRLEN`).
///
/// # Errors
/// `EINVAL` for a version that is not provided.
pub fn header_len(version: i32) -> Result<i32> {
    match version {
        VERSION => Ok(HEADER as i32),
        _ => Err(Errno::EINVAL),
    }
}

/// The ring.
pub struct Ring {
    pages: Vec<Frame>,
    /// Bytes of a block and of a slot, slots of a block, slots in all.
    block: usize,
    slot: usize,
    in_block: usize,
    count: usize,
    /// Bytes left free before each frame (`PACKET_RESERVE`).
    reserve: usize,
    /// The slot for the next frame.
    next: SpinLock<usize>,
    losing: AtomicBool,
}

impl Ring {
    /// A ring as `wanted`, a `struct tpacket_req`, has it.
    ///
    /// # Errors
    /// `EINVAL` for sizes that do not fit together, `ENOMEM`.
    pub fn new(wanted: &[u8], reserve: u32) -> Result<Arc<Ring>> {
        let [block, blocks, slot, count] = request(wanted)?;
        let reserve = reserve as usize;
        let in_block = block.checked_div(slot).unwrap_or(0);
        if block == 0
            || block % PAGE != 0
            || slot < HEADER_AND_ADDRESS.saturating_add(reserve)
            || slot % ALIGN != 0
            || in_block == 0
            || in_block.checked_mul(blocks) != Some(count)
        {
            return Err(Errno::EINVAL);
        }
        let bytes = block.checked_mul(blocks).filter(|bytes| *bytes <= MOST);
        let pages = (0..bytes.ok_or(Errno::ENOMEM)? / PAGE)
            .map(|_| Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM))
            .collect::<Result<Vec<Frame>>>()?;
        Ok(Arc::new(Ring {
            pages,
            block,
            slot,
            in_block,
            count,
            reserve,
            next: SpinLock::new(0),
            losing: AtomicBool::new(false),
        }))
    }

    /// Whether a `struct tpacket_req` asks for a ring's end.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn ends(wanted: &[u8]) -> Result<bool> {
        match request(wanted)? {
            [_, 0, _, 0] => Ok(true),
            [_, 0, _, _] => Err(Errno::EINVAL),
            _ => Ok(false),
        }
    }

    /// Bytes to map, all of them at once.
    pub fn bytes(&self) -> usize {
        self.pages.len() * PAGE
    }

    fn place(&self, slot: usize) -> usize {
        slot / self.in_block * self.block + slot % self.in_block * self.slot
    }

    fn write(&self, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE - at % PAGE));
            if let Some(page) = self.pages.get(at / PAGE) {
                page.write(at % PAGE, part);
            }
            at += part.len();
            bytes = rest;
        }
    }

    /// The first word of a slot: 0 while it is the kernel's.
    fn status(&self, slot: usize) -> u32 {
        let at = self.place(slot);
        let mut word = [0; 4];
        if let Some(page) = self.pages.get(at / PAGE) {
            page.read(at % PAGE, &mut word);
        }
        u32::from_ne_bytes(word)
    }

    /// Puts a frame into the next slot, without its first `skip` bytes, with the socket address `address` and `status`. False:
    /// the program has not given that slot back.
    pub fn put(&self, frame: &TappedFrame, skip: usize, address: &[u8], mut status: u32) -> bool {
        let mut next = self.next.lock();
        if self.status(*next) != 0 {
            self.losing.store(true, Ordering::Relaxed);
            return false;
        }
        let at = self.place(*next);
        // The network header is aligned; what is before it ends there.
        let net = (HEADER_AND_ADDRESS + 16).next_multiple_of(ALIGN) + self.reserve;
        let mac = if skip == 0 { net - 14 } else { net };
        let bytes = frame.bytes.get(skip..).unwrap_or(&[]);
        let bytes = &bytes[..bytes.len().min(self.slot.saturating_sub(mac))];
        if self.losing.load(Ordering::Relaxed) {
            status |= LOSING;
        }
        let when = machine::time::wall_offset_ns().wrapping_add(frame.at_ns);
        let mut header = Vec::with_capacity(HEADER_AND_ADDRESS);
        for word in [(frame.len - skip.min(frame.len)) as u32, bytes.len() as u32] {
            header.extend(word.to_ne_bytes());
        }
        header.extend((mac as u16).to_ne_bytes());
        header.extend((net as u16).to_ne_bytes());
        header.extend(((when / 1_000_000_000) as u32).to_ne_bytes());
        header.extend(((when % 1_000_000_000) as u32).to_ne_bytes());
        // No VLAN.
        header.extend([0; 8]);
        header.extend(address);
        self.write(at + 4, &header);
        self.write(at + mac, bytes);
        // Last, for it gives the slot to the program.
        self.write(at, &status.to_ne_bytes());
        *next = (*next + 1) % self.count;
        true
    }

    /// The program was told how many frames were dropped.
    pub fn told(&self) {
        self.losing.store(false, Ordering::Relaxed);
    }

    /// Whether the last frame put in is not given back: there is something to read.
    pub fn ready(&self) -> bool {
        let next = self.next.lock();
        self.status((*next + self.count - 1) % self.count) != 0
    }
}

/// The four words of a `struct tpacket_req`: block size, blocks, frame size, frames.
fn request(wanted: &[u8]) -> Result<[usize; 4]> {
    let bytes = wanted.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let mut words = [0; 4];
    for (word, part) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = super::option::parse_int(part)? as u32 as usize;
    }
    // Signed on Linux, where it is a size.
    if words[0] > i32::MAX as usize {
        return Err(Errno::EINVAL);
    }
    Ok(words)
}

impl Pager for Ring {
    fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn page(&self, index: u64) -> Result<Frame> {
        self.cached(index).ok_or(Errno::EFAULT)
    }

    fn cached(&self, index: u64) -> Option<Frame> {
        self.pages.get(usize::try_from(index).ok()?).cloned()
    }

    fn describe(&self) -> Description {
        Description {
            path: b"socket:[packet]".to_vec(),
            ..Description::default()
        }
    }

    fn is_file(&self) -> bool {
        false
    }
}
