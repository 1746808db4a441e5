//! TCP (RFC 9293 and its extensions).

mod black_hole;
mod calls;
pub(crate) mod cc;
mod cookie;
mod data;
pub mod defaults;
mod ecn;
mod fastopen;
pub(crate) mod fastopen_client;
pub(crate) mod header;
pub mod info;
pub(crate) mod input;
pub(crate) mod listen;
mod loss;
mod measure;
mod opts;
pub(crate) mod output;
pub(crate) mod recvq;
mod rtt;
pub(crate) mod sendq;
pub(crate) mod socket;
mod sockopt;
pub(crate) mod tcb;
mod timer;
pub(crate) mod timewait;
mod transfer;
mod urgent;
mod window;

pub use socket::TcpSocket;
