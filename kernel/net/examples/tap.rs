//! The engine on a TAP device: an echo server (port 7), a sink that counts (9) and a source (19) at
//! 10.9.0.2. Standard input is the TAP device, opened by whoever starts this (`tests/tap.py` shows how).
//! `NET_LOSS` (frames in a million, each way) and `NET_DELAY_MS` (each way) make the network worse.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use iobuf::{SliceSource, VecSink};
use net::nic::{Handler, Nic, NicCaps, NicStats, RxBuffer, RxPacket, TxPacket};
use net::{Cidr, Config, Family, IfConfig, Ipv4Config, Kind, MsgFlags, SendMeta, Socket, Stack};

/// Frames with the time they are due, and a bell for when there are new ones.
#[derive(Default)]
struct Line {
    frames: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    bell: Condvar,
}

/// A TAP device as a card.
struct Tap {
    arrived: Arc<Line>,
    leaving: Arc<Line>,
    loss: u64,
    delay: Duration,
    dice: Mutex<u64>,
}

impl Tap {
    fn lost(&self) -> bool {
        let mut dice = self.dice.lock().unwrap();
        *dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % 1_000_000 < self.loss
    }
}

impl Line {
    fn put(&self, frame: Vec<u8>, delay: Duration) {
        self.frames
            .lock()
            .unwrap()
            .push_back((Instant::now() + delay, frame));
        self.bell.notify_all();
    }
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
        if !self.lost() {
            self.leaving.put(packet.to_vec(), self.delay);
        }
        Ok(())
    }
    fn reclaim(&self, _queue: usize) -> usize {
        0
    }
    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}
    fn receive(&self, _queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        for count in 0..budget {
            let mut frames = self.arrived.frames.lock().unwrap();
            match frames.front() {
                Some((due, _)) if *due <= Instant::now() => {}
                _ => return count,
            }
            let Some((_, frame)) = frames.pop_front() else {
                return count;
            };
            drop(frames);
            if !self.lost() {
                deliver(RxPacket::plain(RxBuffer::from(frame)));
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

fn number(name: &str) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

fn main() -> std::io::Result<()> {
    let mut reader = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut writer = reader.try_clone()?;
    let (arrived, leaving) = (Arc::<Line>::default(), Arc::<Line>::default());
    let delay = Duration::from_millis(number("NET_DELAY_MS"));
    let (line, out) = (arrived.clone(), leaving.clone());
    std::thread::spawn(move || {
        let mut frame = [0; 2048];
        while let Ok(n) = reader.read(&mut frame) {
            line.put(frame[..n].to_vec(), delay);
        }
    });
    let started = Instant::now();
    let clock = move || started.elapsed().as_nanos() as u64 + 1_000_000_000;
    let stack = Stack::new(Config::new(Arc::new(clock), [11, 22, 33, 44]));
    let tap = Tap {
        arrived: arrived.clone(),
        leaving,
        loss: number("NET_LOSS"),
        delay,
        dice: Mutex::new(5),
    };
    let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
    let addr = Cidr {
        addr: address,
        prefix: 24,
    };
    let config = IfConfig {
        ipv4: Ipv4Config::Static {
            addr,
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
            .socket(Family::Inet, Kind::Stream, 0)
            .expect("a TCP socket");
        socket
            .bind(SocketAddr::new(address, port))
            .expect("a free port");
        socket.listen(128).expect("nobody listens there");
        listeners.push((port, socket));
    }
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
        let mut due = next.map(|at| Duration::from_nanos(at.saturating_sub(clock())));
        let mut queue = out.frames.lock().unwrap();
        while queue.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            if let Some((_, frame)) = queue.pop_front() {
                writer.write_all(&frame)?;
            }
        }
        let soon = |line: &VecDeque<(Instant, Vec<u8>)>| {
            line.front()
                .map(|(at, _)| at.saturating_duration_since(Instant::now()))
        };
        due = due.into_iter().chain(soon(&queue)).min();
        drop(queue);
        let waiting = arrived.frames.lock().unwrap();
        due = due.into_iter().chain(soon(&waiting)).min();
        let _ = arrived.bell.wait_timeout(
            waiting,
            due.unwrap_or(Duration::from_secs(1))
                .min(Duration::from_secs(1)),
        );
    }
}
