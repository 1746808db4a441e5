//! The engine on a TAP device: an echo server (port 7), a sink that counts (9) and a source (19) at
//! 10.9.0.2 and fd09::2. Standard input is the TAP device, opened by whoever starts this (`tests/tap.py`
//! shows how). `link` makes the network as bad as the environment says. Called as `tap bridge`, it joins
//! the devices on standard input and output by such a link instead, so that Linux can be measured against Linux.

mod link;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iobuf::{SliceSource, VecSink};
use link::{Line, Weather};
use net::nic::{Handler, Nic, NicCaps, NicStats, RxBuffer, RxPacket, TxPacket};
use net::{
    Cidr, Config, Family, IfConfig, Ipv4Config, Ipv6Config, Kind, MsgFlags, SendMeta, Socket, Stack,
};

/// A TAP device as a card.
struct Tap {
    arriving: Arc<Line>,
    leaving: Arc<Line>,
}

impl Nic for Tap {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 9, 0, 2]
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn caps(&self) -> NicCaps {
        NicCaps {
            max_segments: 16,
            ..NicCaps::default()
        }
    }
    fn queue_count(&self) -> usize {
        1
    }
    fn transmit(&self, _queue: usize, packet: TxPacket) -> Result<(), TxPacket> {
        self.leaving.put(packet.to_vec());
        Ok(())
    }
    fn reclaim(&self, _queue: usize) -> usize {
        0
    }
    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}
    fn receive(&self, _queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        for count in 0..budget {
            match self.arriving.take() {
                Some(frame) => deliver(RxPacket::plain(RxBuffer::from(frame))),
                None => return count,
            }
        }
        budget
    }
    fn set_receive_handler(&self, _queue: usize, _handler: Handler) {}
    fn enable_interrupts(&self, _queue: usize) -> bool {
        false
    }
    fn stats(&self) -> NicStats {
        NicStats::default()
    }
}

/// One connection of one of the services.
struct Client {
    socket: Arc<dyn Socket>,
    port: u16,
    out: Vec<u8>,
    counted: u64,
    wanted: Option<u64>,
    ended: bool,
}

impl Client {
    /// What can be done now; false when the connection is over.
    fn serve(&mut self) -> bool {
        while !self.ended && self.out.len() < 1 << 20 {
            let mut sink = VecSink::new(1 << 16);
            match self.socket.recv(&mut sink, MsgFlags::empty()) {
                Ok(meta) if meta.len == 0 => self.ended = true,
                Ok(_) => self.input(&sink.into_bytes()),
                Err(errno::Errno::EAGAIN) => break,
                Err(_) => return false,
            }
        }
        if self.ended && self.port == 9 && self.wanted.is_none() {
            self.wanted = Some(0);
            self.out = format!("{}\n", self.counted).into_bytes();
        }
        while self.port == 19 && self.out.len() < 1 << 18 && self.wanted.is_some_and(|n| n > 0) {
            let n = self.wanted.unwrap_or(0).min(1 << 16);
            self.out
                .extend((0..n).map(|i| ((self.counted + i) % 251) as u8));
            self.counted += n;
            self.wanted = self.wanted.map(|w| w - n);
        }
        while !self.out.is_empty() {
            match self
                .socket
                .send(&mut SliceSource::new(&self.out), &SendMeta::default())
            {
                Ok(n) => drop(self.out.drain(..n)),
                Err(errno::Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        !(self.ended || self.port == 19 && self.wanted == Some(0))
    }

    fn input(&mut self, bytes: &[u8]) {
        match self.port {
            7 => self.out.extend_from_slice(bytes),
            9 => {
                for byte in bytes {
                    assert_eq!(u64::from(*byte), self.counted % 251, "at {}", self.counted);
                    self.counted += 1;
                }
            }
            _ => {
                let text = String::from_utf8_lossy(bytes);
                self.wanted = text.trim().parse().ok();
            }
        }
    }
}

fn main() -> std::io::Result<()> {
    let weather = Weather::from_environment();
    let device = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    if std::env::args().nth(1).is_some_and(|mode| mode == "bridge") {
        let other = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        return link::bridge(device, other, weather);
    }
    let (arriving, leaving) = (Line::new(weather, 0), Line::new(weather, 1));
    arriving.feed(device.try_clone()?);
    let started = Instant::now();
    let clock = move || started.elapsed().as_nanos() as u64 + 1_000_000_000;
    let stack = Stack::new(Config::new(Arc::new(clock), [11, 22, 33, 44]));
    let tap = Tap {
        arriving: arriving.clone(),
        leaving: leaving.clone(),
    };
    let config = IfConfig {
        ipv4: Ipv4Config::Static {
            addr: Cidr {
                addr: Ipv4Addr::new(10, 9, 0, 2).into(),
                prefix: 24,
            },
            gateway: None,
        },
        ipv6: Ipv6Config::Static {
            addr: Cidr {
                addr: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2).into(),
                prefix: 64,
            },
            gateway: None,
        },
        ..IfConfig::default()
    };
    stack
        .add_interface("en1", Arc::new(tap), config)
        .expect("a new name");
    let mut listeners = Vec::new();
    for port in [7, 9, 19] {
        let socket = stack
            .socket(Family::Inet6, Kind::Stream, 0)
            .expect("a TCP socket");
        socket
            .bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
            .expect("a free port");
        socket.listen(128).expect("nobody listens there");
        listeners.push((port, socket));
    }
    // In a thread of its own: a write to the device may block.
    let out = leaving.clone();
    let to = device.try_clone()?;
    std::thread::spawn(move || out.drain(to));
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let next = stack.poll();
        for (port, listener) in &listeners {
            while let Ok(socket) = listener.accept() {
                clients.push(Client {
                    socket,
                    port: *port,
                    out: Vec::new(),
                    counted: 0,
                    wanted: None,
                    ended: false,
                });
            }
        }
        clients.retain_mut(|client| {
            let goes_on = client.serve();
            if !goes_on {
                client.socket.close();
            }
            goes_on
        });
        let due = next.map_or(u64::MAX, |at| at.saturating_sub(clock()));
        arriving.wait(Instant::now() + Duration::from_nanos(due.min(1_000_000_000)));
    }
}
