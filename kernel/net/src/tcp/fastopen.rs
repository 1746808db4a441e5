//! Fast Open as a server (RFC 7413): a client that shows the cookie it got on an earlier visit is known to be
//! reachable at its address, so its data is taken from the SYN, and the program may answer before the
//! handshake is done. What such a connection does differently until then is in [`Early`].

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::IpAddr;

use super::header::Segment;
use super::listen::{Listener, Seed, publish};
use super::tcb::{State, Tcb};
use crate::flow::{Flow, FlowKey};
use crate::hash;
use crate::pkt::Payload;
use crate::stack::Stack;
use crate::sync::SpinLock;

/// A cookie, of the length Linux uses.
pub(crate) type Cookie = [u8; 8];

/// As it is sent.
pub(super) fn shown(cookie: Cookie) -> super::fastopen_client::Shown {
    let mut bytes = [0; 16];
    bytes[..cookie.len()].copy_from_slice(&cookie);
    (cookie.len() as u8, bytes)
}

/// How long a key makes cookies. It is good for as long again (RFC 7413 §4.1.2).
const KEY_NS: u64 = 3600 * 1_000_000_000;
/// A connection that was reset in its handshake keeps its place for so long: the SYN's address was forged, perhaps,
/// and whoever has it answers with a reset (RFC 7413 §5.1).
const RESET_NS: u64 = 60_000_000_000;

/// The cookie of a client under the key of one period.
fn cookie(stack: &Stack, client: IpAddr, period: u64) -> Cookie {
    let (high, low) = hash::halves(client);
    hash::sip24(stack.secret, &[high, low, period, 0x7f0_7f0]).to_le_bytes()
}

/// Connections of a listener that are open and not done with their handshake.
#[derive(Default)]
pub(crate) struct Pending {
    state: SpinLock<Counts>,
}

#[derive(Default)]
struct Counts {
    open: usize,
    /// When the places of those that were reset are free again.
    reset: VecDeque<u64>,
}

impl Pending {
    /// Takes one of `most` places.
    fn claim(&self, most: usize, now: u64) -> bool {
        let mut counts = self.state.lock();
        while counts.reset.front().is_some_and(|until| *until <= now) {
            counts.reset.pop_front();
        }
        if counts.open + counts.reset.len() >= most {
            return false;
        }
        counts.open += 1;
        true
    }
}

/// A connection whose program may send and receive though the handshake is not done.
pub(crate) struct Early {
    listener: Arc<Listener>,
    /// Goes with the SYN-ACK: the client's is of a key that expires.
    pub cookie: Option<Cookie>,
    /// When the SYN-ACK was first sent.
    started: u64,
}

impl Early {
    /// The peer broke it off.
    pub fn reset(&self, now: u64) {
        let mut counts = self.listener.early.state.lock();
        counts.reset.push_back(now + RESET_NS);
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        let mut counts = self.listener.early.state.lock();
        counts.open = counts.open.saturating_sub(1);
    }
}

/// What a SYN's Fast Open option comes to.
pub(super) enum Verdict {
    /// An ordinary handshake, perhaps with a cookie for the next time.
    Ordinary(Option<Cookie>),
    /// The connection is open; a cookie when the client's is old.
    Open(Option<Cookie>),
}

/// Looks at the option of a SYN to a listener that may have `most` such connections at a time.
pub(super) fn judge(
    stack: &Stack,
    listener: &Listener,
    key: &FlowKey,
    syn: &Segment,
    now: u64,
) -> Verdict {
    let most = listener.opts.lock().fast_open as usize;
    let Some((len, bytes)) = syn.fast_open.filter(|_| most > 0) else {
        return Verdict::Ordinary(None);
    };
    let counters = stack.counters();
    let period = now / KEY_NS;
    let current = cookie(stack, key.remote, period);
    if len == 0 {
        counters.fastopen_cookie_reqd.bump();
        return Verdict::Ordinary(Some(current));
    }
    let shown = |cookie: &Cookie| usize::from(len) == cookie.len() && bytes[..8] == cookie[..];
    let old = !shown(&current);
    if old && (period == 0 || !shown(&cookie(stack, key.remote, period - 1))) {
        counters.fastopen_passive_fail.bump();
        return Verdict::Ordinary(Some(current));
    }
    if !listener.early.claim(most, now) {
        counters.fastopen_listen_overflow.bump();
        return Verdict::Ordinary(None);
    }
    if old {
        counters.fastopen_passive_alt_key.bump();
    }
    Verdict::Open(old.then_some(current))
}

/// A connection at once, with the data of its SYN. [`judge`] has claimed its place.
pub(super) fn open(
    stack: &Stack,
    seed: Seed<'_>,
    payload: Payload,
    cookie: Option<Cookie>,
    now: u64,
) {
    let (key, listener, syn) = (seed.key, seed.listener.clone(), seed.syn);
    let early = Early {
        listener: listener.clone(),
        cookie,
        started: now,
    };
    let Some(socket) = seed.make(now) else {
        return;
    };
    let flow = Flow::Conn(socket.clone());
    if stack.flows.insert(key, flow).is_err() {
        socket.forget();
        return;
    }
    socket.with_tcb(now, |tcb| tcb.open_early(stack, early, &syn, payload, now));
    stack.counters().fastopen_passive.bump();
    publish(stack, &listener, socket, now);
}

impl Tcb {
    /// Whether the program may use it though the handshake is not done.
    #[inline]
    pub(super) fn is_early(&self) -> bool {
        self.state == State::SynReceived && self.early.is_some()
    }

    fn open_early(
        &mut self,
        stack: &Stack,
        early: Early,
        syn: &Segment,
        payload: Payload,
        now: u64,
    ) {
        self.set_state(stack, State::SynReceived);
        self.keep_at = u64::MAX;
        // Nothing is known to be lost: the usual first window.
        self.start_congestion();
        self.early = Some(early);
        if syn.len > 0 {
            self.recvq
                .push(payload, now, &stack.counters().rcv_coalesce);
            self.rcv_nxt = self.rcv_nxt.wrapping_add(syn.len);
            self.bytes_received += u64::from(syn.len);
            self.data_segs_in += 1;
            self.syn_data = true;
        }
        self.send_syn(stack, now);
        self.stalled_since = now;
        self.arm_rto(now);
        self.settle(stack);
    }

    /// The client has answered our SYN-ACK: the rest is an ordinary connection's.
    pub(super) fn early_done(&mut self, stack: &Stack, now: u64) {
        let Some(early) = self.early.take() else {
            return;
        };
        if self.retransmits == 0 {
            self.rtt.sample(now.saturating_sub(early.started), now);
        }
        self.enter_established(stack, now);
        if self.fin_wanted {
            self.set_state(stack, State::FinWait1);
        }
        self.arm_rto(now);
    }
}
