//! A console over the made-up machine, and a client of it.
#![allow(dead_code, reason = "each test uses a part")]

mod client;
#[path = "../../examples/demo/mod.rs"]
pub mod demo;
pub mod fuzz;

use std::net::{SocketAddr, TcpListener};

pub use client::Client;
use console::Limits;
use console::hosted::StdListener;

pub const TOKEN: &str = "0123456789abcdef";

/// Starts a console; it lives as long as the test's process.
pub fn start(limits: Limits, read_only: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let console = demo::console(TOKEN, address.port(), read_only);
    std::thread::spawn(move || console::serve(&console, StdListener(listener), limits));
    address
}

/// A connection of one who knows the token.
pub fn connect(address: SocketAddr) -> Client {
    Client::new(address, TOKEN)
}

/// The same, as a WebSocket.
pub fn watch(address: SocketAddr) -> Client {
    Client::watch(address, TOKEN)
}
