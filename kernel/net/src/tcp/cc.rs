//! Congestion control: how the window grows and shrinks. Reno (RFC 5681) and CUBIC (RFC 9438), in whole
//! numbers: the kernel has no floating point. When to shrink is `loss`'s decision.

use crate::option::Congestion;

/// Segments of the first window (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// CUBIC's multiplicative decrease, 0.7, in 1024ths.
const BETA: u64 = 717;
/// CUBIC's C, 0.4, in 1024ths.
const C: u64 = 410;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Congest {
    pub kind: Congestion,
    /// Bytes.
    pub cwnd: u32,
    /// Bytes.
    pub ssthresh: u32,
    pub mss: u32,
    /// Acknowledged bytes that have not grown the window yet.
    credit: u64,
    /// Largest window; auto-tuned buffers never need more.
    max: u32,
    // CUBIC, windows in bytes, times in nanoseconds.
    w_max: u32,
    epoch: u64,
    /// From the epoch to where the curve is at its origin, in 1024ths of a second.
    k: u64,
    origin: u32,
    /// What Reno would have.
    w_est: u64,
    // HyStart (RFC 9406, its delay part): leave slow start before loss when the path begins to queue.
    round_end: u32,
    round_min: u64,
    last_min: u64,
    samples: u32,
}

impl Congest {
    pub fn new(kind: Congestion, mss: u32) -> Congest {
        let initial = (INITIAL_SEGMENTS * mss)
            .min((2 * mss).max(14_600))
            .max(2 * mss);
        Congest {
            kind,
            cwnd: initial,
            ssthresh: u32::MAX,
            mss,
            credit: 0,
            max: 64 << 20,
            w_max: 0,
            epoch: 0,
            k: 0,
            origin: 0,
            w_est: 0,
            round_end: 0,
            round_min: u64::MAX,
            last_min: u64::MAX,
            samples: 0,
        }
    }

    pub fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// `acked` new bytes were acknowledged while the window was in full use.
    pub fn on_ack(&mut self, mut acked: u32, srtt: u64, now: u64) {
        if self.in_slow_start() {
            let room = self.ssthresh - self.cwnd;
            let grow = acked.min(room);
            self.cwnd = self.cwnd.saturating_add(grow).min(self.max);
            acked -= grow;
            if acked == 0 {
                return;
            }
        }
        match self.kind {
            Congestion::Reno => self.reno(acked),
            Congestion::Cubic => self.cubic(acked, srtt, now),
        }
        self.cwnd = self.cwnd.min(self.max);
    }

    fn reno(&mut self, acked: u32) {
        self.credit += u64::from(acked);
        let window = u64::from(self.cwnd);
        if self.credit >= window {
            self.credit -= window;
            self.cwnd = self.cwnd.saturating_add(self.mss);
        }
    }

    fn cubic(&mut self, acked: u32, srtt: u64, now: u64) {
        if self.epoch == 0 {
            self.epoch = now;
            self.credit = 0;
            self.w_est = u64::from(self.cwnd);
            if self.cwnd < self.w_max {
                self.origin = self.w_max;
                // K = cbrt((w_max - cwnd) / C), in 1024ths of a second.
                let segments = u64::from(self.w_max - self.cwnd) * 1024 / u64::from(self.mss);
                self.k = cube_root((segments << 30) / C);
            } else {
                self.origin = self.cwnd;
                self.k = 0;
            }
        }
        // Where the curve will be one round trip from now.
        let t = ((now - self.epoch).saturating_add(srtt) >> 10) * 1024 / 976_563;
        let away = t.abs_diff(self.k).min(1 << 19);
        let cube = (u128::from(away).pow(3) * u128::from(C)) >> 40;
        let delta = (cube as u64)
            .saturating_mul(u64::from(self.mss))
            .min(1 << 31) as u32;
        let target = if t >= self.k {
            self.origin.saturating_add(delta)
        } else {
            self.origin.saturating_sub(delta)
        };
        let target = target.clamp(self.cwnd, self.cwnd.saturating_add(self.cwnd / 2));
        // The window Reno would have with this decrease factor: 3(1-b)/(1+b) of a segment for each window.
        self.w_est +=
            u64::from(acked) * u64::from(self.mss) * 542 / (1024 * u64::from(self.cwnd.max(1)));
        let gain = u64::from(target - self.cwnd) * u64::from(acked);
        self.credit += gain;
        let step = self.credit / u64::from(self.cwnd.max(1));
        if step > 0 {
            self.credit -= step * u64::from(self.cwnd);
            self.cwnd = self.cwnd.saturating_add(step as u32);
        }
        if u64::from(self.cwnd) < self.w_est {
            self.cwnd = self.w_est.min(u64::from(self.max)) as u32;
        }
    }

    /// Loss or an ECN mark: the window to shrink to. Also starts a new epoch.
    pub fn reduce(&mut self, in_flight: u32) -> u32 {
        self.epoch = 0;
        self.credit = 0;
        let (window, least) = (self.cwnd, 2 * self.mss);
        match self.kind {
            Congestion::Reno => (in_flight.min(window) / 2).max(least),
            Congestion::Cubic => {
                // Fast convergence: a shrinking share makes room faster.
                self.w_max = if window < self.w_max {
                    (u64::from(window) * (1024 + BETA) / 2048) as u32
                } else {
                    window
                };
                ((u64::from(window) * BETA / 1024) as u32).max(least)
            }
        }
    }

    /// A new round-trip sample in slow start.
    pub fn delay(&mut self, rtt: u64, snd_una: u32, snd_nxt: u32) {
        if !self.in_slow_start() || self.kind != Congestion::Cubic {
            return;
        }
        if crate::seq::ge(snd_una, self.round_end) {
            self.last_min = self.round_min;
            self.round_min = u64::MAX;
            self.samples = 0;
            self.round_end = snd_nxt;
        }
        self.round_min = self.round_min.min(rtt);
        self.samples += 1;
        if self.samples >= 8 && self.last_min != u64::MAX && self.cwnd >= 16 * self.mss {
            let threshold = (self.last_min / 8).clamp(4_000_000, 16_000_000);
            if self.round_min >= self.last_min + threshold {
                self.ssthresh = self.cwnd;
            }
        }
    }

    /// After a silence the path is not known any more: start over, but no higher (RFC 9293 §3.8.6, RFC 5681 §4.1).
    pub fn restart(&mut self, idle_rtos: u64) {
        let initial = Congest::new(self.kind, self.mss).cwnd;
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        let shift = idle_rtos.min(16) as u32;
        self.cwnd = (self.cwnd >> shift).max(initial.min(self.cwnd));
        self.epoch = 0;
    }

    /// The segment size changed.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(2 * mss);
    }

    /// Does away with a reduction that was for nothing.
    pub fn undo(&mut self, cwnd: u32, ssthresh: u32) {
        self.cwnd = self.cwnd.max(cwnd);
        self.ssthresh = self.ssthresh.max(ssthresh);
        self.w_max = self.w_max.max(cwnd);
        self.epoch = 0;
    }
}

/// The integer cube root.
fn cube_root(value: u64) -> u64 {
    let mut root = 0u64;
    let mut bit = 1u64 << 21;
    while bit > 0 {
        let candidate = root | bit;
        if u128::from(candidate).pow(3) <= u128::from(value) {
            root = candidate;
        }
        bit >>= 1;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cube_roots() {
        for n in [0u64, 1, 7, 8, 26, 27, 1_000_000, u64::MAX] {
            let r = cube_root(n);
            assert!(u128::from(r).pow(3) <= u128::from(n));
            assert!(u128::from(r + 1).pow(3) > u128::from(n));
        }
    }

    #[test]
    fn cubic_is_back_at_its_old_window_after_k() {
        let mss = 1000;
        let mut cc = Congest::new(Congestion::Cubic, mss);
        cc.cwnd = 1_000_000;
        cc.ssthresh = 1;
        let reduced = cc.reduce(1_000_000);
        assert_eq!(reduced, 700_195);
        cc.cwnd = reduced;
        // K = cbrt(300 segments / 0.4) = 9.08 s.
        let (mut now, rtt) = (1_000_000_000u64, 100_000_000u64);
        let start = now;
        while cc.cwnd < 990_000 {
            now += rtt;
            let window = cc.cwnd;
            for _ in 0..window / mss {
                cc.on_ack(mss, rtt, now);
            }
            assert!(now < 60_000_000_000, "never got there");
        }
        let took = now - start;
        assert!((5_000_000_000..10_000_000_000).contains(&took), "{took}");
    }

    #[test]
    fn reno_adds_one_segment_for_each_window() {
        let mut cc = Congest::new(Congestion::Reno, 1000);
        cc.ssthresh = cc.cwnd;
        let before = cc.cwnd;
        for _ in 0..before / 1000 + 1 {
            cc.on_ack(1000, 1, 1);
        }
        assert_eq!(cc.cwnd, before + 1000);
    }
}
