//! The error queue of a UDP socket (`MSG_ERRQUEUE`, `ip(7)`): what ICMP tells of its datagrams, and when they were sent.

use alloc::vec::Vec;

use errno::{Errno, Result};
use iobuf::Sink;

use super::{Endpoint, UdpSocket};
use crate::icmp::IcmpError;
use crate::poll::Events;
use crate::socket::{Control, ExtendedError, MsgFlags, RecvMeta};

/// Entries of an error queue.
pub(super) const ERRORS: usize = 64;

/// An entry of the error queue: what, the destination of the packet concerned, its data.
pub(crate) struct ErrorEntry {
    pub error: ExtendedError,
    pub to: Endpoint,
    pub data: Vec<u8>,
    /// When something was sent, in nanoseconds of the clock, if that is what it tells.
    pub at: Option<u64>,
}

impl UdpSocket {
    /// An ICMP error about one of this socket's datagrams.
    pub(super) fn on_error(&self, error: &IcmpError, to: Endpoint, data: &[u8]) {
        let mut events = Events::ERR;
        {
            let mut inner = self.inner.lock();
            let (wants, origin) = if to.0.is_ipv4() {
                (inner.opts.recv_err, 2)
            } else {
                (inner.opts.recv_err6, 3)
            };
            if wants && inner.errors.len() < ERRORS {
                inner.errors.push_back(ErrorEntry {
                    error: ExtendedError {
                        errno: error.errno,
                        origin,
                        icmp_type: error.kind,
                        icmp_code: error.code,
                        info: error.mtu.unwrap_or(0),
                        data: 0,
                        offender: Some(error.offender),
                    },
                    to,
                    data: data.to_vec(),
                    at: None,
                });
            }
            // Without IP_RECVERR only hard errors of connected sockets are told (udp(7)).
            let told = wants || inner.remote.is_some() && error.fatal;
            if told && error.mtu.is_none() || wants {
                inner.error = Some(error.errno);
            } else {
                events = Events::empty();
            }
        }
        if !events.is_empty() {
            self.pollee.notify(events | Events::IN | Events::OUT);
        }
    }

    /// The oldest entry.
    pub(super) fn recv_error(&self, sink: &mut dyn Sink) -> Result<RecvMeta> {
        let (entry, more) = {
            let mut inner = self.inner.lock();
            let entry = inner.errors.pop_front().ok_or(Errno::EAGAIN)?;
            let more = !inner.errors.is_empty();
            // What is pending is told by ICMP.
            let told = |e: &ErrorEntry| matches!(e.error.origin, 2 | 3).then_some(e.error.errno);
            let next = inner.errors.front().and_then(told);
            if next.is_some() || entry.at.is_none() {
                inner.error = next;
            }
            (entry, more)
        };
        let len = sink.put(&entry.data)?;
        if more {
            self.pollee.notify(Events::ERR);
        }
        Ok(RecvMeta {
            len,
            full_len: entry.data.len(),
            from: (entry.at.is_none()).then(|| self.show(entry.to.0, entry.to.1)),
            flags: if len < entry.data.len() {
                MsgFlags::ERRQUEUE | MsgFlags::TRUNC
            } else {
                MsgFlags::ERRQUEUE
            },
            control: (entry.at.map(Control::Timestamp).into_iter())
                .chain([Control::RecvErr(entry.error)])
                .collect(),
        })
    }
}
