//! The console: a web page and an HTTP and WebSocket interface to a running machine, over the information store.
//!
//! Nothing of it exists unless the manifest turns it on. Then one thread accepts, and each client has a thread of its
//! own, few of them and at the lowest priority. What the console cannot know itself comes through [`Services`].
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod query;
mod services;

pub use error::Error;
pub use query::Query;
pub use services::{Piece, PowerAction, Services, Stream};
