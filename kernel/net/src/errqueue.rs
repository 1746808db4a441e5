//! The error queue of a socket (`MSG_ERRQUEUE`, `ip(7)`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use errno::{Errno, Result};
use iobuf::Sink;

use crate::icmp::IcmpError;
use crate::socket::{Control, ExtendedError, MsgFlags, RecvMeta};

/// The most entries of a queue.
const ENTRIES: usize = 64;
/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6`.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// An entry.
pub(crate) struct ErrorEntry {
    pub error: ExtendedError,
    /// The destination of the packet concerned, and its port.
    pub to: (IpAddr, u16),
    /// That packet's data.
    pub data: Vec<u8>,
    /// When something was sent, in nanoseconds of the clock, if that is what it tells.
    pub at: Option<u64>,
}

impl ErrorEntry {
    /// What ICMP tells of a packet to `to` with `data`.
    pub fn icmp(error: &IcmpError, to: (IpAddr, u16), data: &[u8]) -> ErrorEntry {
        ErrorEntry {
            error: ExtendedError {
                errno: error.errno,
                origin: if to.0.is_ipv4() {
                    ORIGIN_ICMP
                } else {
                    ORIGIN_ICMP6
                },
                icmp_type: error.kind,
                icmp_code: error.code,
                info: error.mtu.unwrap_or(0),
                data: 0,
                offender: Some(error.offender),
            },
            to,
            data: data.to_vec(),
            at: None,
        }
    }

    /// Gives the packet's data to `sink`, and what `recvmsg` says beside it; `to` is as the socket shows it.
    ///
    /// # Errors
    /// The sink's.
    pub fn receive(self, sink: &mut dyn Sink, to: SocketAddr) -> Result<RecvMeta> {
        let len = sink.put(&self.data)?;
        let cut = if len < self.data.len() {
            MsgFlags::TRUNC
        } else {
            MsgFlags::empty()
        };
        Ok(RecvMeta {
            len,
            full_len: self.data.len(),
            from: self.at.is_none().then_some(to),
            flags: MsgFlags::ERRQUEUE | cut,
            control: (self.at.map(Control::Timestamp).into_iter())
                .chain([Control::RecvErr(self.error)])
                .collect(),
        })
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct ErrorQueue(VecDeque<ErrorEntry>);

impl ErrorQueue {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an entry that is made only if there is room.
    pub fn push(&mut self, entry: impl FnOnce() -> ErrorEntry) {
        if self.0.len() < ENTRIES {
            self.0.push_back(entry());
        }
    }

    /// Takes the oldest entry. `pending`, the socket's error, becomes that of the next one.
    pub fn take(&mut self, pending: &mut Option<Errno>) -> Option<ErrorEntry> {
        let entry = self.0.pop_front()?;
        // What is pending is told by ICMP.
        let told = |e: &ErrorEntry| {
            matches!(e.error.origin, ORIGIN_ICMP | ORIGIN_ICMP6).then_some(e.error.errno)
        };
        let next = self.0.front().and_then(told);
        if next.is_some() || entry.at.is_none() {
            *pending = next;
        }
        Some(entry)
    }
}
