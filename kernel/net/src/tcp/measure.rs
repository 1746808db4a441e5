//! What a connection measures of itself for `TCP_INFO`: what it spends its time on while it has something to send, and
//! how fast that is delivered. Both cost a few instructions for each send or acknowledgement.

use super::tcb::Tcb;
use crate::stack::Stack;

/// What holds the data that a connection has to send (Linux's `enum tcp_chrono`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Held {
    /// There is none.
    #[default]
    Idle,
    /// The network: it is on its way, or waits for the congestion window.
    Busy,
    /// The peer's window.
    Window,
    /// Our send buffer: the program would write more, and all that is there was sent.
    Buffer,
}

/// Time spent in each [`Held`] but the first, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    held: Held,
    since: u64,
    total: [u64; 3],
}

impl Spent {
    fn enter(&mut self, held: Held, now: u64) {
        if held == self.held {
            return;
        }
        self.total = self.until(now);
        self.held = held;
        self.since = now;
    }

    /// Up to `now`: busy with the network, held by the peer's window, held by the buffer.
    pub fn until(&self, now: u64) -> [u64; 3] {
        let mut total = self.total;
        if let Some(of) = (self.held as usize)
            .checked_sub(1)
            .and_then(|i| total.get_mut(i))
        {
            *of += now.saturating_sub(self.since);
        }
        total
    }
}

/// A segment whose way there and back is a sample.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u32,
    sent_at: u64,
    /// What was delivered, and when, as it was sent.
    delivered: u64,
    delivered_at: u64,
    /// When the segment was sent that was the last delivered then.
    first_sent: u64,
    app_limited: bool,
}

/// The rate of delivery (draft-cheng-iccrg-delivery-rate-estimation), of which one segment of each round trip is a sample.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// Bytes the peer is known to have.
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
    mark: Option<Mark>,
    /// The program did not fill the window until so much was delivered.
    app_limited_until: u64,
    /// The sample in force: bytes, nanoseconds, and whether the program was what limited it.
    bytes: u64,
    interval: u64,
    app_limited: bool,
}

impl Rate {
    /// `end` is the end of new data that goes out, the `first` after none was on the way.
    #[inline]
    pub fn on_send(&mut self, end: u32, first: bool, now: u64) {
        if first {
            self.delivered_at = now;
            self.first_sent = now;
        }
        if self.mark.is_none() {
            self.mark = Some(Mark {
                end,
                sent_at: now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                first_sent: self.first_sent,
                app_limited: self.delivered < self.app_limited_until,
            });
        }
    }

    /// An acknowledgement up to `ack` told of `bytes` more. Samples shorter than `min_rtt` are none: acknowledgements
    /// were held up and came together.
    #[inline]
    pub fn on_ack(&mut self, ack: u32, bytes: u32, min_rtt: u64, now: u64) {
        if bytes == 0 {
            return;
        }
        self.delivered += u64::from(bytes);
        self.delivered_at = now;
        let Some(mark) = self.mark.filter(|mark| crate::seq::ge(ack, mark.end)) else {
            return;
        };
        self.mark = None;
        self.first_sent = mark.sent_at;
        let sending = mark.sent_at.saturating_sub(mark.first_sent);
        let interval = sending.max(now.saturating_sub(mark.delivered_at));
        if interval == 0 || min_rtt == u64::MAX || interval < min_rtt {
            return;
        }
        let bytes = self.delivered - mark.delivered;
        let faster = u128::from(bytes) * u128::from(self.interval)
            >= u128::from(self.bytes) * u128::from(interval);
        if !mark.app_limited || faster {
            (self.bytes, self.interval) = (bytes, interval);
            self.app_limited = mark.app_limited;
        }
    }

    /// Bytes a second, 0 before there is a sample; and whether the program was what limited it.
    pub fn told(&self) -> (u64, bool) {
        let rate = (u128::from(self.bytes) * 1_000_000_000)
            .checked_div(u128::from(self.interval))
            .unwrap_or(0);
        (rate.min(u128::from(u64::MAX)) as u64, self.app_limited)
    }
}

impl Tcb {
    /// The program is about to write: where the network had nothing to do, what is sent now tells nothing of it.
    #[inline]
    pub fn note_app_limited(&mut self) {
        let pipe = self.pipe();
        if pipe < self.cc.cwnd && self.lost <= self.retrans && self.unsent() < self.mss {
            self.rate.app_limited_until = self.rate.delivered + u64::from(pipe.max(1));
        }
    }

    /// Finds what holds our data now.
    #[inline]
    pub fn keep_time(&mut self, now: u64) {
        let unsent = self.unsent();
        let held = if self.in_flight() == 0 && unsent == 0 && !self.fin_due() {
            Held::Idle
        } else if unsent == 0 {
            if self.want_write && !self.cwnd_limited {
                Held::Buffer
            } else {
                Held::Busy
            }
        } else {
            let closed = self.usable_window() < unsent.min(self.mss);
            if closed && self.pipe() < self.cc.cwnd {
                Held::Window
            } else {
                Held::Busy
            }
        };
        self.spent.enter(held, now);
    }

    /// The connection is over.
    pub fn stop_time(&mut self, stack: &Stack) {
        self.spent.enter(Held::Idle, stack.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn time_is_spent_on_one_thing_at_once() {
        let mut spent = Spent::default();
        assert_eq!(spent.until(99), [0; 3]);
        spent.enter(Held::Busy, 100);
        spent.enter(Held::Busy, 150);
        assert_eq!(spent.until(160), [60, 0, 0]);
        spent.enter(Held::Window, 200);
        spent.enter(Held::Buffer, 230);
        spent.enter(Held::Idle, 235);
        assert_eq!(spent.until(1000), [100, 30, 5]);
        spent.enter(Held::Window, 1000);
        assert_eq!(spent.until(1001), [100, 31, 5]);
    }

    #[test]
    fn the_rate_is_what_came_between_a_segments_sending_and_its_acknowledgement() {
        let mut rate = Rate::default();
        // Ten segments at once, acknowledged one each millisecond after 10 ms; as each comes another goes out.
        let mut end = 0u32;
        for i in 0..10 {
            end += 1000;
            rate.on_send(end, i == 0, 0);
        }
        let mut ack = 0;
        for i in 0..100 {
            let now = (10 + i) * MS;
            ack += 1000;
            rate.on_ack(ack, 1000, 10 * MS, now);
            end += 1000;
            rate.on_send(end, false, now);
        }
        let (told, limited) = rate.told();
        assert!((900_000..=1_000_000).contains(&told), "{told}");
        assert!(!limited);
    }

    #[test]
    fn a_program_with_little_to_say_does_not_lower_it() {
        let mut rate = Rate::default();
        rate.on_send(100_000, true, 0);
        rate.on_ack(100_000, 100_000, 10 * MS, 10 * MS);
        assert_eq!(rate.told(), (10_000_000, false));
        rate.app_limited_until = rate.delivered + 1;
        rate.on_send(100_010, true, 20 * MS);
        rate.on_ack(100_010, 10, 10 * MS, 30 * MS);
        assert_eq!(rate.told(), (10_000_000, false));
        // Unless it is faster still.
        rate.app_limited_until = rate.delivered + 1;
        rate.on_send(300_010, true, 40 * MS);
        rate.on_ack(300_010, 200_000, 10 * MS, 50 * MS);
        assert_eq!(rate.told(), (20_000_000, true));
        // And what comes sooner than any round trip is no sample.
        rate.on_send(300_020, true, 60 * MS);
        rate.on_ack(300_020, 10, 10 * MS, 61 * MS);
        assert_eq!(rate.told(), (20_000_000, true));
    }
}
