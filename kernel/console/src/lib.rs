//! The console: a web page and an HTTP and WebSocket interface to a running machine, over the information store.
//!
//! Nothing of it exists unless the manifest turns it on. Then one thread accepts, and each client has a thread of its
//! own, few of them and at the lowest priority. What the console cannot know itself comes through [`Services`].
//!
//! `http` and `websocket` are bytes in and bytes out; [`Console`] answers requests; `server` and `watch` hold the
//! conversations over a [`Transport`], which is a socket of the kernel ([`SocketListener`]) or, on the
//! host, of `std`, and may have TLS in it ([`SecureListener`]).
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod allowance;
mod auth;
mod error;
mod guard;
mod handle;
#[cfg(not(target_os = "none"))]
pub mod hosted;
mod http;
mod hub;
mod line;
mod openapi;
mod page;
mod query;
mod route;
mod secure;
mod server;
mod services;
mod socket;
mod transport;
mod turn;
mod watch;
mod websocket;

pub use auth::Random;
pub use error::Error;
pub use handle::{Console, Setup};
pub use hub::Hub;
pub use query::Query;
pub use secure::SecureListener;
pub use server::{Limits, serve, thread};
pub use services::{Piece, PowerAction, Services, Stream};
pub use socket::{Place, SocketListener};
pub use transport::{Gone, Incoming, Listener, Received, Remote, Transport};
