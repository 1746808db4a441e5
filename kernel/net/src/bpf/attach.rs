//! A program's place at a socket, and received packets as it sees them.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};

use super::{Packet, Program};
use crate::iface::ETH;
use crate::ip::IpMeta;
use crate::pkt::InPacket;
use crate::stack::Stack;
use crate::sync::SpinLock;
use crate::tap::{self, FrameKind};

/// Where a socket keeps its filter. Without one a packet pays a load of a flag.
#[derive(Default)]
pub(crate) struct Attached {
    any: AtomicBool,
    program: SpinLock<Option<Arc<Program>>>,
}

impl Attached {
    /// Puts one in the place of what was there, or takes it away.
    ///
    /// # Errors
    /// `ENOENT` when there is none to take away.
    pub fn set(&self, program: Option<Arc<Program>>) -> Result<()> {
        let mut own = self.program.lock();
        if program.is_none() && own.is_none() {
            return Err(Errno::ENOENT);
        }
        self.any.store(program.is_some(), Ordering::Release);
        *own = program;
        Ok(())
    }

    /// The filter, if there is one.
    #[inline]
    pub fn get(&self) -> Option<Arc<Program>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.program.lock().clone()
    }

    /// How much of a packet the filter keeps of what follows the frame's first `data` bytes, `least` at least; `None`: it drops it.
    /// All is kept without a filter.
    #[inline]
    pub fn keeps(
        &self,
        stack: &Stack,
        meta: &IpMeta,
        packet: &InPacket,
        data: usize,
        least: usize,
    ) -> Option<usize> {
        match self.get() {
            None => Some(usize::MAX),
            Some(program) => keeps(&program, stack, meta, packet, data, least),
        }
    }
}

#[cold]
fn keeps(
    program: &Program,
    stack: &Stack,
    meta: &IpMeta,
    packet: &InPacket,
    data: usize,
    least: usize,
) -> Option<usize> {
    let frame = match packet.head() {
        whole if whole.len() == packet.len() => Cow::Borrowed(whole),
        _ => Cow::Owned(packet.to_vec()),
    };
    let loopback = meta.iface.is_loopback();
    let keep = program.run(&Packet {
        frame: frame.get(..meta.l4 + meta.len).unwrap_or(&frame),
        data,
        network: ETH,
        protocol: if meta.dst.is_ipv4() { 0x0800 } else { 0x86dd },
        kind: FrameKind::of(&frame, loopback, meta.iface.mac) as u8,
        index: meta.iface.index,
        hardware: tap::hardware_type(loopback),
        random: &|| stack.random() as u32,
    });
    (keep != 0).then_some((keep as usize).max(least))
}
