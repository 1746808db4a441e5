//! What a program set on a TCP socket; connections inherit it from their listener.

use core::time::Duration;

use super::defaults::TcpDefaults;
use crate::option::{Congestion, MtuDiscover};

/// What the program set on the socket.
#[derive(Clone, Debug)]
pub(crate) struct TcpOpts {
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub broadcast: bool,
    pub dont_route: bool,
    pub timestamp: bool,
    pub keepalive: bool,
    pub keep_idle_s: u32,
    pub keep_intvl_s: u32,
    pub keep_cnt: u32,
    pub linger: Option<Duration>,
    pub linger2: i32,
    pub nodelay: bool,
    pub cork: bool,
    pub quickack: bool,
    pub maxseg: u32,
    pub syn_cnt: u32,
    pub defer_accept_s: u32,
    pub user_timeout_ms: u32,
    pub congestion: Congestion,
    /// As asked for, doubled; 0 is auto-tuned.
    pub rcvbuf: usize,
    pub sndbuf: usize,
    pub rcv_lowat: u32,
    pub notsent_lowat: u32,
    pub window_clamp: u32,
    pub fast_open: u32,
    pub fast_open_connect: bool,
    pub oob_inline: bool,
    pub tos: u8,
    pub tclass: u8,
    pub ttl: u8,
    pub min_ttl: u8,
    pub min_hops: u8,
    pub hops: Option<u8>,
    pub mtu_discover: MtuDiscover,
    pub mtu_discover6: MtuDiscover,
    pub v6only: bool,
    pub device: u32,
    pub free_bind: bool,
    pub transparent: bool,
    pub bind_no_port: bool,
    pub pacing: u64,
    /// `IP_LOCAL_PORT_RANGE`.
    pub port_range: u32,
}

impl TcpOpts {
    pub fn new(defaults: &TcpDefaults) -> TcpOpts {
        let (keep_idle_s, keep_intvl_s, keep_cnt) = defaults.keepalive();
        TcpOpts {
            reuse_addr: false,
            reuse_port: false,
            broadcast: false,
            dont_route: false,
            timestamp: false,
            keepalive: false,
            keep_idle_s,
            keep_intvl_s,
            keep_cnt,
            linger: None,
            linger2: 0,
            nodelay: false,
            cork: false,
            quickack: true,
            maxseg: 0,
            syn_cnt: 6,
            defer_accept_s: 0,
            user_timeout_ms: 0,
            congestion: defaults.congestion(),
            rcvbuf: 0,
            sndbuf: 0,
            rcv_lowat: 1,
            notsent_lowat: 0,
            window_clamp: 0,
            fast_open: 0,
            fast_open_connect: false,
            oob_inline: false,
            tos: 0,
            tclass: 0,
            ttl: crate::ip::DEFAULT_TTL,
            min_ttl: 0,
            min_hops: 0,
            hops: None,
            mtu_discover: MtuDiscover::Want,
            mtu_discover6: MtuDiscover::Want,
            v6only: false,
            device: 0,
            free_bind: false,
            transparent: false,
            bind_no_port: false,
            pacing: u64::MAX,
            port_range: 0,
        }
    }

    /// Whether a segment came too far (`IP_MINTTL`, `IPV6_MINHOPCOUNT`).
    #[inline]
    pub fn too_far(&self, ipv4: bool, ttl: u8) -> bool {
        ttl < if ipv4 { self.min_ttl } else { self.min_hops }
    }

    /// The don't-fragment bit of what is sent.
    pub fn df(&self) -> bool {
        matches!(
            self.mtu_discover,
            MtuDiscover::Want | MtuDiscover::Do | MtuDiscover::Probe
        )
    }
}
