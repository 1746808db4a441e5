//! Fast Open as a client (RFC 7413 §4.2): data goes with the SYN to a server that gave a cookie on an earlier visit;
//! else the SYN asks for one. The server's end is `fastopen`.

use alloc::boxed::Box;
use core::net::IpAddr;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::header::{Emit, Segment};
use super::tcb::{Sent, State, Tcb};
use crate::flow::KeyedState;
use crate::ip::IpOut;
use crate::nic::{Header, TxPacket, TxSegment};
use crate::stack::Stack;
use crate::sync::SpinLock;

/// A cookie with its length: 4 to 16 bytes, or none, which asks for one.
pub(crate) type Shown = (u8, [u8; 16]);

/// Servers of which a cookie is remembered; those not visited for longest make way.
const SERVERS: usize = 1024;
/// What the options of a SYN may take of a segment (`MAX_TCP_OPTION_SPACE`).
const OPTIONS: u32 = 40;
/// `TFO_COOKIE_UNAVAILABLE`, `TFO_DATA_NOT_ACKED` and `TFO_SYN_RETRANSMITTED` of `TCP_INFO`.
const NO_COOKIE: u8 = 1;
const NOT_TAKEN: u8 = 2;
const SYN_AGAIN: u8 = 3;

struct Known {
    cookie: Shown,
    mss: u32,
    used_ns: u64,
}

/// The cookies of servers.
pub(crate) struct Jar(SpinLock<HashMap<IpAddr, Known, KeyedState>>);

impl Jar {
    pub fn new(hasher: KeyedState) -> Jar {
        Jar(SpinLock::new(HashMap::with_hasher(hasher)))
    }

    fn get(&self, server: IpAddr, now: u64) -> Option<(Shown, u32)> {
        let mut jar = self.0.lock();
        let known = jar.get_mut(&server)?;
        known.used_ns = now;
        Some((known.cookie, known.mss))
    }

    fn put(&self, server: IpAddr, cookie: Shown, mss: u32, now: u64) {
        let mut jar = self.0.lock();
        if jar.len() >= SERVERS && !jar.contains_key(&server) {
            let oldest = jar.iter().min_by_key(|(_, known)| known.used_ns);
            if let Some(oldest) = oldest.map(|(server, _)| *server) {
                jar.remove(&oldest);
            }
        }
        let known = Known {
            cookie,
            mss,
            used_ns: now,
        };
        jar.insert(server, known);
    }

    fn forget(&self, server: IpAddr) {
        self.0.lock().remove(&server);
    }
}

/// A connection attempt with Fast Open.
pub(crate) struct Opening {
    cookie: Shown,
    /// The server's MSS on the last visit.
    mss: u32,
    /// The SYN waits for the program's data.
    deferred: bool,
    /// It carried data.
    carried: bool,
}

impl Tcb {
    /// This attempt uses Fast Open. True when the SYN is to wait for the program's first data.
    pub(super) fn open_fast(&mut self, stack: &Stack, now: u64) -> bool {
        let known = stack.cookies.get(self.key.remote, now);
        let (cookie, mss) = known.unwrap_or_default();
        self.opening = Some(Box::new(Opening {
            cookie,
            mss,
            deferred: known.is_some(),
            carried: false,
        }));
        known.is_some()
    }

    /// Whether the SYN waits for the program's first data.
    #[inline]
    pub(super) fn is_deferred(&self) -> bool {
        self.state == State::SynSent && self.opening.as_ref().is_some_and(|o| o.deferred)
    }

    /// How much data the SYN takes.
    pub(super) fn syn_room(&self) -> usize {
        let known = self.opening.as_ref().map_or(0, |o| o.mss).max(536);
        let path = u32::from(self.advertised_mss());
        known.min(path).saturating_sub(OPTIONS) as usize
    }

    /// Sends the SYN that waited, with what the program has written.
    pub(super) fn send_deferred(&mut self, stack: &Stack, now: u64) {
        if let Some(opening) = &mut self.opening {
            opening.deferred = false;
        }
        self.send_syn(stack, now);
        self.stalled_since = now;
        self.arm_rto(now);
    }

    /// What the first SYN shows. One that is sent again is an ordinary one: the option may be why it was lost.
    pub(super) fn shown(&self) -> Option<Shown> {
        let opening = self.opening.as_ref()?;
        (self.state == State::SynSent && self.retransmits == 0).then_some(opening.cookie)
    }

    /// Sends a SYN with the data there is, up to `most` bytes.
    pub(super) fn send_syn_data(
        &mut self,
        stack: &Stack,
        out: &IpOut,
        emit: &Emit,
        most: usize,
        now: u64,
    ) {
        let pieces = match self.dst.iface.caps.max_segments {
            0 => usize::MAX,
            n => n.saturating_sub(1).max(1),
        };
        let mut segments: SmallVec<[TxSegment; 2]> = SmallVec::new();
        let sent = self.sendq.gather(0, most, pieces, &mut segments);
        let tcp_len = emit.len() + sent;
        let mut header = Header::new();
        out.emit(&mut header, tcp_len);
        emit.emit(&mut header);
        let mut packet = TxPacket {
            header,
            segments,
            offload: None,
        };
        super::output::fill_checksum(&self.dst, out, &mut packet, tcp_len, None);
        stack.counters().tcp_out_segs.bump();
        stack.output(&self.dst, packet, now);
        let first = self.iss.wrapping_add(1);
        let end = first.wrapping_add(sent as u32);
        if sent > 0 && self.sent.is_empty() {
            self.sent.push_back(Sent {
                seq: first,
                end,
                at: now,
                flags: 0,
            });
            self.snd_nxt = end;
            self.bytes_sent += sent as u64;
            self.data_segs_out = self.data_segs_out.wrapping_add(1);
            if let Some(opening) = &mut self.opening {
                opening.carried = true;
            }
        }
    }

    /// What went with the SYN and is not known to be there goes again as any data.
    pub(super) fn take_back_syn_data(&mut self) {
        self.sent.clear();
        (self.sacked, self.lost, self.retrans) = (0, 0, 0);
        self.snd_nxt = self.snd_una;
    }

    /// The SYN was not answered: perhaps because of what was in it.
    pub(super) fn opening_lost(&mut self, stack: &Stack) {
        if self.opening.as_ref().is_some_and(|o| o.carried) {
            stack.cookies.forget(self.key.remote);
        }
    }

    /// The SYN-ACK is here: `snd_una` says how much of the data was taken.
    pub(super) fn opened(&mut self, stack: &Stack, answer: &Segment, now: u64) {
        let Some(opening) = self.opening.take() else {
            return;
        };
        let taken = self.snd_una.wrapping_sub(self.iss.wrapping_add(1));
        if opening.carried {
            self.take_back_syn_data();
            self.sendq_advance(self.snd_una, stack);
            if taken > 0 {
                self.bytes_acked += u64::from(taken);
                self.syn_data = true;
                stack.counters().fastopen_active.bump();
            } else {
                stack.counters().fastopen_active_fail.bump();
                self.open_fail = if self.total_retrans > 0 {
                    SYN_AGAIN
                } else {
                    NOT_TAKEN
                };
            }
        }
        match answer.fast_open {
            Some((len @ 4..=16, cookie)) if len % 2 == 0 => {
                let mss = self.peer_mss;
                stack.cookies.put(self.key.remote, (len, cookie), mss, now);
            }
            _ if opening.cookie.0 == 0 => self.open_fail = NO_COOKIE,
            _ => {}
        }
    }
}
