//! The console over a made-up machine, on 127.0.0.1 and without one: for work on the page and for tests of clients.
//! Arguments: port [9090], token [0123456789abcdef], `read-only`.

mod demo;

use std::net::TcpListener;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments
        .next()
        .map_or(9090, |port| port.parse().expect("a port"));
    let token = arguments
        .next()
        .unwrap_or_else(|| "0123456789abcdef".into());
    let read_only = arguments.next().is_some_and(|word| word == "read-only");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let port = listener.local_addr().expect("it is bound").port();
    println!("http://127.0.0.1:{port}/login?token={token}");
    if let Ok(now) = std::time::UNIX_EPOCH.elapsed() {
        machine::time::set_wall(now.as_nanos() as u64);
    }
    let console = demo::console(&token, port, read_only);
    let listener = console::hosted::StdListener(listener);
    console::serve(&console, listener, console::Limits::default());
}
