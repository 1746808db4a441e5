//! Connections over sockets of `std`, for tests and for work on the page without a machine.

use std::boxed::Box;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::string::ToString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::transport::{Gone, Incoming, Listener, Received, Remote, Transport};

/// How long a wait may miss that it was ended.
const TICK: Duration = Duration::from_millis(10);

/// A listening socket of the host.
#[derive(Debug)]
pub struct StdListener(pub TcpListener);

impl Listener for StdListener {
    fn accept(&mut self) -> Option<Incoming> {
        loop {
            let Ok((stream, peer)) = self.0.accept() else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let Ok(other) = stream.try_clone() else {
                continue;
            };
            let shared = Arc::new(Shared {
                stream: other,
                woken: AtomicBool::new(false),
            });
            return Some(Incoming {
                transport: Box::new(StdTransport { stream, shared }),
                peer: peer.to_string(),
            });
        }
    }
}

struct Shared {
    stream: TcpStream,
    woken: AtomicBool,
}

impl Remote for Shared {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
    }

    fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

struct StdTransport {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Transport for StdTransport {
    fn receive(&mut self, into: &mut [u8], deadline_ns: u64) -> Received {
        loop {
            if self.shared.woken.swap(false, Ordering::SeqCst) {
                return Received::Woken;
            }
            let left = deadline_ns.saturating_sub(machine::time::now_ns());
            if left == 0 {
                return Received::TimedOut;
            }
            let wait = Duration::from_nanos(left).clamp(Duration::from_micros(100), TICK);
            let _ = self.stream.set_read_timeout(Some(wait));
            match self.stream.read(into) {
                Ok(0) => return Received::Closed,
                Ok(count) => return Received::Bytes(count),
                Err(error) if again(&error) => {}
                Err(_) => return Received::Closed,
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<(), Gone> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = deadline_ns.saturating_sub(machine::time::now_ns());
            let wait = Duration::from_nanos(left).max(Duration::from_millis(1));
            let _ = self.stream.set_write_timeout(Some(wait));
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if again(&error) && left > 0 => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn is_closed(&mut self) -> bool {
        let _ = self
            .stream
            .set_read_timeout(Some(Duration::from_micros(100)));
        match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !again(&error),
        }
    }

    fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn remote(&self) -> Arc<dyn Remote> {
        self.shared.clone()
    }
}

fn again(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
