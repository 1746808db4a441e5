//! The `net` room: protocols and sockets, from frame to byte stream.
//!
//! A [`Stack`] takes frames from network cards and a clock from outside, and gives [`Socket`]s. It knows
//! no descriptors, no system calls and no user memory: `linux` puts those on top.
//!
//! Nothing on the path of a packet is global: a connection is found by a keyed hash of its 4-tuple in a
//! table with many locks, and has a lock of its own. See `ARCHITECTURE.md` for the walk of a packet.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod arp;
pub mod bpf;
pub mod capture;
mod change;
mod checksum;
mod clock;
pub mod config;
mod dhcp;
mod dhcp6;
mod drops;
mod errqueue;
mod flow;
mod frag;
mod gro;
mod guard;
mod hash;
mod icmp;
mod icmp6;
mod iface;
mod ip;
mod ipopts;
mod loopback;
mod multicast;
mod ndisc;
mod neigh;
pub mod option;
mod path;
mod pkt;
mod ports;
pub mod query;
mod raw;
pub mod report;
mod route;
mod run;
mod seq;
pub mod socket;
mod stack;
pub mod stats;
mod sync;
pub mod tap;
pub mod tcp;
pub mod udp;
pub mod vsock;
mod wheel;

pub use drivers::nic;
pub use sched::poll;

pub use config::{Cidr, Config, IfConfig, Ipv4Config, Ipv6Config, Lease, Limits};
pub use guard::Guard;
pub use option::{
    Congestion, GroupFilter, Membership, MtuDiscover, Opt, OptName, SourceMembership,
};
pub use poll::{Events, Pollee};
pub use raw::RawSocket;
pub use run::{run, stack};
pub use socket::{
    Control, ExtendedError, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket,
};
pub use stack::Stack;
pub use tap::{FrameKind, Tap, TapConfig, TappedFrame};
pub use tcp::TcpSocket;
pub use udp::UdpSocket;
