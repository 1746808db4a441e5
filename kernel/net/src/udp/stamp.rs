//! When a datagram was sent, told through the error queue (`SO_TIMESTAMPING`, `Documentation/networking/timestamping.rst` of
//! Linux): the times of software alone.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use errno::Errno;

use super::UdpSocket;
use crate::errqueue::ErrorEntry;
use crate::nic::{TxPacket, TxSegment};
use crate::poll::Events;
use crate::socket::ExtendedError;

/// `SO_EE_ORIGIN_TIMESTAMPING`.
pub(super) const ORIGIN: u8 = 4;
/// `SCM_TSTAMP_SND` and `SCM_TSTAMP_SCHED`.
const SENT: u32 = 0;
const QUEUED: u32 = 1;

/// Which times a program wants to hear of what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxStamps {
    /// When it went to the card (`SOF_TIMESTAMPING_TX_SOFTWARE`).
    pub sent: bool,
    /// When it came to the queue before the card (`SOF_TIMESTAMPING_TX_SCHED`).
    pub queued: bool,
    /// With the number of the datagram (`SOF_TIMESTAMPING_OPT_ID`).
    pub numbered: bool,
    /// Without the packet (`SOF_TIMESTAMPING_OPT_TSONLY`).
    pub bare: bool,
}

impl TxStamps {
    /// Those that bits of `SO_TIMESTAMPING` ask for.
    pub const fn from_bits(bits: u32) -> TxStamps {
        TxStamps {
            sent: bits & 1 << 1 != 0,
            queued: bits & 1 << 8 != 0,
            numbered: bits & 1 << 7 != 0,
            bare: bits & 1 << 11 != 0,
        }
    }

    /// Whether any time is wanted.
    pub const fn any(self) -> bool {
        self.sent || self.queued
    }
}

impl UdpSocket {
    /// Sets which times are wanted. Numbers begin anew with the wish for them.
    pub(super) fn set_stamps(&self, stamps: TxStamps) {
        let mut inner = self.inner.lock();
        if stamps.numbered && !inner.opts.stamps.numbered {
            self.sent_number.store(0, Ordering::Relaxed);
        }
        inner.opts.stamps = stamps;
    }

    /// A datagram leaves, in `packet` or in fragments of it.
    #[cold]
    pub(super) fn stamp(&self, stamps: TxStamps, to: super::Endpoint, packet: &TxPacket, now: u64) {
        let number = if stamps.numbered {
            self.sent_number.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        };
        let data = if stamps.bare {
            Vec::new()
        } else {
            bytes(packet)
        };
        {
            let mut inner = self.inner.lock();
            for (wanted, which) in [(stamps.queued, QUEUED), (stamps.sent, SENT)] {
                if wanted {
                    inner.errors.push(|| ErrorEntry {
                        error: ExtendedError {
                            errno: Errno::ENOMSG,
                            origin: ORIGIN,
                            icmp_type: 0,
                            icmp_code: 0,
                            info: which,
                            data: number,
                            offender: None,
                        },
                        to,
                        data: data.clone(),
                        at: Some(now),
                    });
                }
            }
        }
        self.pollee.notify(Events::ERR);
    }
}

fn bytes(packet: &TxPacket) -> Vec<u8> {
    let mut bytes = packet.header.to_vec();
    for segment in &packet.segments {
        // A datagram is copied from the program: no pages of others.
        if let TxSegment::Bytes(data, range) = segment {
            bytes.extend_from_slice(data.get(range.clone()).unwrap_or(&[]));
        }
    }
    bytes
}
