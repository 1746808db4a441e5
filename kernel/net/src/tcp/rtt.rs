//! Round-trip time and the retransmission timeout (RFC 6298), and the least round trip of late.

/// `TCP_RTO_MIN`.
pub(crate) const RTO_MIN: u64 = 200_000_000;
/// `TCP_RTO_MAX`.
pub(crate) const RTO_MAX: u64 = 120_000_000_000;
/// `TCP_TIMEOUT_INIT`.
pub(crate) const RTO_INITIAL: u64 = 1_000_000_000;
/// How long a minimum is believed.
const MIN_WINDOW: u64 = 300_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Smoothed, 0 before the first sample.
    pub srtt: u64,
    pub var: u64,
    pub rto: u64,
    pub min: u64,
    min_at: u64,
    /// Doublings in force.
    pub backoff: u32,
}

impl Default for Rtt {
    fn default() -> Self {
        Rtt {
            srtt: 0,
            var: 0,
            rto: RTO_INITIAL,
            min: u64::MAX,
            min_at: 0,
            backoff: 0,
        }
    }
}

impl Rtt {
    /// A sample in nanoseconds of a segment that was sent once.
    pub fn sample(&mut self, rtt: u64, now: u64) {
        let rtt = rtt.clamp(1000, RTO_MAX);
        if rtt <= self.min || now.saturating_sub(self.min_at) > MIN_WINDOW {
            self.min = rtt;
            self.min_at = now;
        }
        if self.srtt == 0 {
            self.srtt = rtt;
            self.var = rtt / 2;
        } else {
            self.var = (3 * self.var + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
        // The least timeout guards against the peer's delayed acknowledgements.
        self.rto = (self.srtt + (4 * self.var).max(RTO_MIN)).min(RTO_MAX);
    }

    /// The timeout with its doublings.
    pub fn timeout(&self) -> u64 {
        self.rto
            .saturating_mul(1 << self.backoff.min(10))
            .clamp(RTO_MIN, RTO_MAX)
    }

    /// The smoothed value, or a guess before there is one.
    pub fn srtt_or(&self, guess: u64) -> u64 {
        if self.srtt == 0 { guess } else { self.srtt }
    }
}
