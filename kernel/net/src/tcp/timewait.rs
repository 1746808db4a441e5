//! TIME-WAIT (RFC 9293 §3.6.1) as a small record in the flow table: the connection's socket and buffers
//! are gone. A new SYN that cannot be an old duplicate takes the port over at once (RFC 6191, RFC 1122 §4.2.2.13).

use super::header::{ACK, Emit, FIN, RST, SYN, Segment};
use super::output::send_header;
use super::tcb::Tcb;
use crate::flow::FlowKey;
use crate::ip::{DEFAULT_TTL, IpOut, proto};
use crate::ports::Binding;
use crate::seq;
use crate::stack::Stack;

/// Acknowledgements to strangers' segments are at least this far apart.
const ACK_NS: u64 = 500_000_000;

/// What is kept of a connection.
pub(crate) struct TimeWait {
    pub binding: Binding,
    pub expires_ns: u64,
    /// Where it stands in the queue of those that end.
    pub queued_ns: u64,
    snd_nxt: u32,
    rcv_nxt: u32,
    window: u16,
    ts_recent: Option<u32>,
    ts_offset: u32,
    acked_at: u64,
}

impl TimeWait {
    /// One of no connection, for tests.
    #[cfg(test)]
    pub fn until(expires_ns: u64) -> TimeWait {
        TimeWait {
            binding: Binding::any(),
            expires_ns,
            queued_ns: expires_ns,
            snd_nxt: 0,
            rcv_nxt: 0,
            window: 0,
            ts_recent: None,
            ts_offset: 0,
            acked_at: 0,
        }
    }

    pub fn of(tcb: &Tcb, binding: Binding, length_ns: u64, now: u64) -> TimeWait {
        TimeWait {
            binding,
            expires_ns: now + length_ns,
            queued_ns: now + length_ns,
            snd_nxt: tcb.snd_nxt,
            rcv_nxt: tcb.rcv_nxt,
            window: (tcb.rcv_wnd >> if tcb.wscale_ok { tcb.rcv_wscale } else { 0 }) as u16,
            ts_recent: tcb.ts_ok.then_some(tcb.ts_recent),
            ts_offset: tcb.ts_offset,
            acked_at: 0,
        }
    }
}

enum Answer {
    Nothing,
    Ack(Emit),
    /// The record is gone: the segment opens a new connection, which starts after that sequence number.
    Reopen(Binding, u32),
}

/// What a segment for a record comes to.
pub(crate) enum Outcome {
    Done,
    /// It opens a new connection. Our first sequence number lies after the old connection's last (RFC 1122
    /// §4.2.2.13), if there still was one.
    Opens {
        after: Option<u32>,
    },
}

/// A segment for a record.
pub(crate) fn input(stack: &Stack, key: &FlowKey, segment: &Segment, now: u64) -> Outcome {
    let length = stack.config().limits.time_wait_ns;
    let answer = stack.flows.with_wait(key, |wait| {
        if segment.has(RST) {
            // RFC 1337: a reset does not end it.
            return (Answer::Nothing, false);
        }
        // An older timestamp is an old duplicate's, whatever its sequence number (RFC 6191 §2).
        let fresh = match (segment.ts, wait.ts_recent) {
            (Some((value, _)), Some(recent)) if value != recent => seq::gt(value, recent),
            _ => seq::gt(segment.seq, wait.rcv_nxt),
        };
        if segment.has(SYN) && !segment.has(ACK) && fresh {
            return (Answer::Reopen(wait.binding, wait.snd_nxt), true);
        }
        if segment.has(FIN) {
            wait.expires_ns = now + length;
        } else if segment.len == 0
            && segment.has(ACK)
            && !segment.has(SYN)
            && segment.seq == wait.rcv_nxt
        {
            return (Answer::Nothing, false);
        }
        if now.saturating_sub(wait.acked_at) < ACK_NS && wait.acked_at != 0 && !segment.has(FIN) {
            return (Answer::Nothing, false);
        }
        wait.acked_at = now.max(1);
        let emit = Emit {
            lport: key.lport,
            rport: key.rport,
            seq: wait.snd_nxt,
            ack: wait.rcv_nxt,
            flags: ACK,
            window: wait.window,
            ts: wait.ts_recent.map(|recent| {
                (
                    ((now / 1_000_000) as u32).wrapping_add(wait.ts_offset),
                    recent,
                )
            }),
            ..Emit::default()
        };
        (Answer::Ack(emit), false)
    });
    match answer {
        Some(Answer::Ack(emit)) => {
            if let Ok(dst) = stack.route(key.remote, Some(key.local), 0) {
                let out = IpOut {
                    src: key.local,
                    dst: key.remote,
                    proto: proto::TCP,
                    ttl: DEFAULT_TTL,
                    tos: 0,
                    df: true,
                    ident: 0,
                };
                send_header(stack, &dst, &out, &emit, now);
            }
            Outcome::Done
        }
        Some(Answer::Reopen(binding, after)) => {
            stack.counters().tw_recycled.bump();
            stack.tcp_ports.release(key.lport, &binding);
            Outcome::Opens { after: Some(after) }
        }
        Some(Answer::Nothing) => Outcome::Done,
        // It expired meanwhile.
        None => Outcome::Opens { after: None },
    }
}
