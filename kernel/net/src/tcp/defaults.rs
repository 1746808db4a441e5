//! What a new TCP socket starts with, as far as the operator may change it while the machine runs: Linux's `sysctl`s
//! `net.ipv4.tcp_{congestion_control,keepalive_time,keepalive_intvl,keepalive_probes,rmem,wmem}`.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::config::Limits;
use crate::option::Congestion;

/// The bounds of the two greatest sizes that buffers grow to, in bytes.
pub const BUFFER_RANGE: core::ops::RangeInclusive<usize> = 64 << 10..=1 << 30;

/// The defaults. A change holds for sockets made after it; the sizes hold for all.
#[derive(Debug)]
pub struct TcpDefaults {
    /// Index in [`Congestion::ALL`].
    congestion: AtomicUsize,
    pub(crate) keep_idle_s: AtomicU32,
    pub(crate) keep_intvl_s: AtomicU32,
    pub(crate) keep_cnt: AtomicU32,
    rmem_max: AtomicUsize,
    wmem_max: AtomicUsize,
}

impl TcpDefaults {
    pub(crate) fn new(limits: &Limits) -> TcpDefaults {
        let defaults = TcpDefaults {
            congestion: AtomicUsize::new(0),
            keep_idle_s: AtomicU32::new(7200),
            keep_intvl_s: AtomicU32::new(75),
            keep_cnt: AtomicU32::new(9),
            rmem_max: AtomicUsize::new(limits.tcp_rmem_max),
            wmem_max: AtomicUsize::new(limits.tcp_wmem_max),
        };
        defaults.set_congestion(limits.congestion);
        defaults
    }

    /// Which algorithm drives a new connection.
    pub fn congestion(&self) -> Congestion {
        Congestion::ALL[self.congestion.load(Relaxed) % Congestion::ALL.len()]
    }

    /// Chooses it.
    pub fn set_congestion(&self, congestion: Congestion) {
        let index = Congestion::ALL
            .iter()
            .position(|known| *known == congestion);
        self.congestion.store(index.unwrap_or(0), Relaxed);
    }

    /// Seconds without traffic before the first probe, seconds between probes, and how many go unanswered before the
    /// connection is given up; of sockets with `SO_KEEPALIVE`.
    pub fn keepalive(&self) -> (u32, u32, u32) {
        (
            self.keep_idle_s.load(Relaxed),
            self.keep_intvl_s.load(Relaxed),
            self.keep_cnt.load(Relaxed),
        )
    }

    /// The greatest sizes in bytes that receive and send buffers grow to by themselves.
    pub fn buffers(&self) -> (usize, usize) {
        (self.rmem_max(), self.wmem_max())
    }

    #[inline]
    pub(crate) fn rmem_max(&self) -> usize {
        self.rmem_max.load(Relaxed)
    }

    #[inline]
    pub(crate) fn wmem_max(&self) -> usize {
        self.wmem_max.load(Relaxed)
    }

    pub(crate) fn set_rmem_max(&self, bytes: usize) {
        self.rmem_max.store(
            bytes.clamp(*BUFFER_RANGE.start(), *BUFFER_RANGE.end()),
            Relaxed,
        );
    }

    pub(crate) fn set_wmem_max(&self, bytes: usize) {
        self.wmem_max.store(
            bytes.clamp(*BUFFER_RANGE.start(), *BUFFER_RANGE.end()),
            Relaxed,
        );
    }
}
