//! Explicit congestion notification (RFC 3168): both ends agree in the handshake, data carries ECT(0), a router
//! marks it CE instead of dropping it, the receiver echoes the mark until the sender says that it has
//! slowed down. As Linux does it: new data only is ECT, acknowledgements and retransmissions are not.

use super::header::{ACK, CWR, ECE, SYN, Segment};
use super::tcb::{Ca, Tcb};
use crate::stack::Stack;

/// Codepoints of the IP header's two ECN bits.
pub(crate) mod ip {
    pub const MASK: u8 = 3;
    pub const ECT_0: u8 = 2;
    pub const CE: u8 = 3;
}

/// What a connection knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ecn {
    /// Our SYN asked for it.
    pub asked: bool,
    /// Both ends do it.
    pub ok: bool,
    /// A segment of the peer came with an ECT or CE codepoint.
    pub seen: bool,
    /// A mark came; ECE goes out until the peer's CWR.
    echo: bool,
    /// The window was reduced: the next new data carries CWR.
    cwr_due: bool,
}

/// Whether a SYN asks for ECN and we agree. A SYN that is itself ECT comes from something else.
pub(super) fn agreed(stack: &Stack, syn: &Segment) -> bool {
    stack.config().limits.tcp_ecn != 0 && syn.has(ECE | CWR) && syn.ecn == 0
}

impl Tcb {
    /// Whether this SYN of ours asks for it: only the first, as some paths drop such SYNs (RFC 3168 §6.1.1.1).
    pub(super) fn ecn_syn_flags(&mut self, stack: &Stack, answering: bool) -> u8 {
        if answering {
            return if self.ecn.ok { ECE } else { 0 };
        }
        self.ecn.asked = stack.config().limits.tcp_ecn == 1 && self.retransmits == 0;
        if self.ecn.asked { ECE | CWR } else { 0 }
    }

    /// The answer to our SYN, or the peer's own SYN while ours is under way.
    pub(super) fn ecn_answer(&mut self, segment: &Segment) {
        self.ecn.ok = self.ecn.asked
            && match segment.has(ACK) {
                true => segment.flags & (ECE | CWR) == ECE,
                false => segment.has(ECE | CWR),
            };
    }

    /// The mark of a segment with data.
    pub(super) fn ecn_data(&mut self, segment: &Segment) {
        if !self.ecn.ok {
            return;
        }
        if segment.has(CWR) {
            self.ecn.echo = false;
            // Its window may be a single segment now: no delay.
            self.ack_now = true;
        }
        match segment.ecn {
            // Retransmissions are not ECT: the sender is in trouble, and waits for us.
            0 => self.ack_now |= self.ecn.seen,
            ip::CE => {
                self.ack_now |= !self.ecn.echo;
                self.ecn.echo = true;
                self.ecn.seen = true;
            }
            _ => self.ecn.seen = true,
        }
    }

    /// Whether an acknowledgement says that our data met congestion.
    pub(super) fn ecn_echoed(&self, segment: &Segment) -> bool {
        self.ecn.ok && segment.flags & (ECE | SYN) == ECE
    }

    /// The window goes down by one step, once a round trip (RFC 3168 §6.1.2).
    pub(super) fn ecn_reduce(&mut self) {
        // What was reduced for the network's own word is not given back.
        self.undo_retrans = None;
        if self.ca != Ca::Open {
            return;
        }
        self.ca = Ca::Cwr;
        let flight = self.in_flight();
        self.begin_reduction(flight);
    }

    /// The window was reduced: tell the peer with the next new data.
    pub(super) fn ecn_reduced(&mut self) {
        self.ecn.cwr_due = self.ecn.ok;
    }

    /// TCP flags and IP codepoint of a segment to send; `fresh`: it has data that was never sent.
    pub(super) fn ecn_marks(&mut self, fresh: bool) -> (u8, u8) {
        if !self.ecn.ok {
            return (0, 0);
        }
        let mut flags = if self.ecn.echo { ECE } else { 0 };
        if !fresh {
            return (flags, 0);
        }
        if core::mem::take(&mut self.ecn.cwr_due) {
            flags |= CWR;
        }
        (flags, ip::ECT_0)
    }

    /// Whether the next new data carries CWR, which belongs on one segment, not on each of a large
    /// packet that the card cuts.
    pub(super) fn ecn_cwr_due(&self) -> bool {
        self.ecn.cwr_due
    }
}
