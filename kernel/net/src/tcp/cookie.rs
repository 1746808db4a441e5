//! SYN cookies (RFC 4987 §3.6): when a listener has as many half-open connections as it may have, the
//! handshake's state travels in its own sequence number and timestamp.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::header::{CWR, ECE, SYN, Segment};
use super::listen::{Listener, Seed, ip_out, open, syn_ack};
use super::output::send_header;
use crate::flow::{Flow, FlowKey};
use crate::hash;
use crate::ip::IpMeta;
use crate::pkt::Payload;
use crate::route::Dst;
use crate::stack::Stack;

/// A cookie counts time in these units, and is good for this one and the next.
const COOKIE_NS: u64 = 64_000_000_000;
/// Segment sizes a cookie can carry.
const COOKIE_MSS: [u16; 8] = [536, 1220, 1300, 1360, 1400, 1440, 1460, 8960];

/// The number a cookie is: time, segment size, and a keyed hash that nobody else can make.
fn cookie(stack: &Stack, key: &FlowKey, irs: u32, count: u64, mss_index: u32) -> u32 {
    let salt = u64::from(irs) << 32 | count << 8 | u64::from(mss_index) | 1 << 31;
    let hash = hash::sip24(stack.secret, &[key.secret(stack.secret, salt), salt]);
    (count as u32 & 0x1f) << 27 | mss_index << 24 | hash as u32 & 0xff_ffff
}

pub(super) fn send_cookie(
    stack: &Stack,
    key: &FlowKey,
    listener: &Listener,
    syn: &Segment,
    dst: &Dst,
    now: u64,
) {
    let mss = syn.mss.unwrap_or(536);
    let index = COOKIE_MSS.iter().rposition(|m| *m <= mss).unwrap_or(0) as u32;
    let iss = cookie(stack, key, syn.seq, now / COOKIE_NS, index);
    let (mut emit, out) = {
        let opts = listener.opts.lock();
        (
            syn_ack(stack, key, &opts, syn, dst, iss),
            ip_out(key, &opts),
        )
    };
    match syn.ts {
        // The echo of our timestamp brings the other options back: scale in four bits, SACK and ECN in one each.
        Some((value, _)) => {
            let options = u32::from(syn.wscale.unwrap_or(15))
                | u32::from(syn.sack_permitted) << 4
                | u32::from(super::ecn::agreed(stack, syn)) << 5;
            let stamp = (((now / 1_000_000) as u32).wrapping_sub(64) & !0x3f) | options;
            emit.ts = Some((stamp, value));
        }
        None => {
            emit.wscale = None;
            emit.sack_permitted = false;
            emit.flags &= !ECE;
        }
    }
    listener.cookie_at.store(now.max(1), Ordering::Relaxed);
    stack.counters().syncookies_sent.bump();
    send_header(stack, dst, &out, &emit, now);
}

/// An acknowledgement without a flow: perhaps of a cookie. False when it is not.
pub(super) fn accept_cookie(
    stack: &Stack,
    meta: &IpMeta,
    key: &FlowKey,
    listener: &Arc<Listener>,
    segment: &Segment,
    payload: Payload,
    now: u64,
) -> bool {
    let sent_at = listener.cookie_at.load(Ordering::Relaxed);
    if sent_at == 0 || now.saturating_sub(sent_at) > 2 * COOKIE_NS {
        return false;
    }
    let _ = meta;
    let counters = stack.counters();
    let iss = segment.ack.wrapping_sub(1);
    let irs = segment.seq.wrapping_sub(1);
    let index = iss >> 24 & 7;
    let count = now / COOKIE_NS;
    let valid = [count, count.wrapping_sub(1)]
        .into_iter()
        .any(|c| cookie(stack, key, irs, c, index) == iss);
    if !valid {
        counters.syncookies_failed.bump();
        return false;
    }
    counters.syncookies_recv.bump();
    if listener.full() {
        counters.listen_overflows.bump();
        counters.listen_drops.bump();
        return true;
    }
    // Cookies make room for more handshakes, not for more connections.
    if stack.flows.len() >= stack.config().limits.connections {
        counters.listen_drops.bump();
        return true;
    }
    let Ok(dst) = stack.route(key.remote, Some(key.local), listener.binding.device) else {
        return true;
    };
    let mut syn = Segment {
        seq: irs,
        lport: key.lport,
        rport: key.rport,
        window: segment.window,
        flags: SYN,
        mss: Some(COOKIE_MSS[index as usize]),
        ..Segment::default()
    };
    if let Some((value, echo)) = segment.ts {
        syn.ts = Some((value, 0));
        syn.sack_permitted = echo & 0x10 != 0;
        if echo & 0x20 != 0 {
            syn.flags |= ECE | CWR;
        }
        syn.wscale = match echo & 0xf {
            15 => None,
            shift => Some((shift as u8).min(14)),
        };
    }
    let seed = Seed {
        key: *key,
        listener,
        syn,
        iss,
        dst,
        rtt: None,
    };
    let Some(socket) = seed.make(now) else {
        return true;
    };
    // Timestamps of the handshake had no offset.
    socket.without_ts_offset();
    if stack
        .flows
        .insert(*key, Flow::Conn(socket.clone()))
        .is_err()
    {
        socket.forget();
        return true;
    }
    open(stack, listener, socket, segment, payload, now);
    true
}
