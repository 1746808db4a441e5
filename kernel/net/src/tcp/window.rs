//! The two windows of flow control (RFC 9293 §3.8.6): what the peer has room for, and the one we tell it.

use super::tcb::Tcb;
use crate::seq;
use crate::stack::Stack;

impl Tcb {
    /// What the peer has room for beyond what was sent; 0 when it has taken room back.
    #[inline]
    pub(super) fn usable_window(&self) -> u32 {
        let window = self
            .snd_una
            .wrapping_add(self.snd_wnd)
            .wrapping_sub(self.snd_nxt);
        if (window as i32) < 0 { 0 } else { window }
    }

    /// The window to tell, as it goes into the header. Never takes back what was told (RFC 9293 §3.8.6.2.1).
    pub(super) fn select_window(&mut self, stack: &Stack) -> u16 {
        let told = self
            .rcv_wup
            .wrapping_add(self.rcv_wnd)
            .wrapping_sub(self.rcv_nxt);
        let told = if (told as i32) < 0 { 0 } else { told };
        let mut window = self.free_window(stack);
        if window < told {
            if window == 0 {
                stack.counters().want_zero_window.bump();
            }
            window = told;
        }
        let most = if self.wscale_ok {
            65_535u32 << self.rcv_wscale
        } else {
            65_535
        };
        window = window.min(most);
        let shift = if self.wscale_ok { self.rcv_wscale } else { 0 };
        let unit = 1 << shift;
        // Rounded up, so that what was told is not taken back by the scale. But not again and again, by a little with each
        // acknowledgement: it would in the end be far more than there is room for.
        let mut scaled = (window + unit - 1) >> shift;
        if scaled << shift > self.receive_room() + unit {
            scaled = window >> shift;
        }
        let scaled = scaled.min(65_535);
        if scaled == 0 {
            if self.rcv_wnd != 0 {
                stack.counters().to_zero_window.bump();
            }
        } else if self.rcv_wnd == 0 {
            stack.counters().from_zero_window.bump();
        }
        let accepted = self.receive_edge();
        self.rcv_wup = self.rcv_nxt;
        self.rcv_wnd = scaled << shift;
        let told = self.rcv_wup.wrapping_add(self.rcv_wnd);
        self.rcv_slack = accepted.wrapping_sub(seq::min(told, accepted));
        scaled as u16
    }

    /// The sequence number behind the last that is accepted.
    pub(super) fn receive_edge(&self) -> u32 {
        self.rcv_wup
            .wrapping_add(self.rcv_wnd)
            .wrapping_add(self.rcv_slack)
    }

    /// The most that may wait to be read.
    fn receive_limit(&self) -> u32 {
        match self.opts.window_clamp {
            0 => self.rcv_limit,
            clamp => self.rcv_limit.min(clamp),
        }
    }

    /// What of that nothing waits in.
    fn receive_room(&self) -> u32 {
        self.receive_limit().saturating_sub(self.recvq.len() as u32)
    }

    /// Room for the peer's data.
    pub fn free_window(&self, stack: &Stack) -> u32 {
        let limit = self.receive_limit();
        let free = self.receive_room();
        let free = if stack.under_pressure() {
            free.min(4 * self.rcv_mss)
        } else {
            free
        };
        // A sliver of a window makes for slivers of segments.
        if free < self.rcv_mss.min(limit / 2) {
            return 0;
        }
        free
    }
}
