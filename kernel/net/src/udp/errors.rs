//! The error queue of a UDP socket (`MSG_ERRQUEUE`, `ip(7)`): what ICMP tells of its datagrams, and when they were sent.

use errno::{Errno, Result};
use iobuf::Sink;

use super::{Endpoint, UdpSocket};
use crate::errqueue::ErrorEntry;
use crate::icmp::IcmpError;
use crate::poll::Events;
use crate::socket::RecvMeta;

impl UdpSocket {
    /// An ICMP error about one of this socket's datagrams.
    pub(super) fn on_error(&self, error: &IcmpError, to: Endpoint, data: &[u8]) {
        let mut events = Events::ERR;
        {
            let mut inner = self.inner.lock();
            let wants = if to.0.is_ipv4() {
                inner.opts.ip.recv_err
            } else {
                inner.opts.ip.recv_err6
            };
            if wants {
                inner.errors.push(|| ErrorEntry::icmp(error, to, data));
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
            let inner = &mut *self.inner.lock();
            let entry = inner.errors.take(&mut inner.error).ok_or(Errno::EAGAIN)?;
            (entry, !inner.errors.is_empty())
        };
        let from = self.show(entry.to.0, entry.to.1);
        let told = entry.receive(sink, from)?;
        if more {
            self.pollee.notify(Events::ERR);
        }
        Ok(told)
    }
}
