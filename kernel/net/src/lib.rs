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

pub mod config;
pub mod nic;
pub mod option;
pub mod poll;
pub mod query;
pub mod socket;
mod stack;
pub mod stats;
mod sync;
pub mod tcp;

pub use config::{Cidr, Config, IfConfig, Ipv4Config, Ipv6Config, Lease, Limits};
pub use option::{Congestion, Membership, MtuDiscover, Opt, OptName};
pub use poll::{Events, Pollee};
pub use socket::{
    Control, ExtendedError, Family, Kind, MsgFlags, RecvMeta, SendMeta, Shutdown, Socket,
};
pub use stack::Stack;
