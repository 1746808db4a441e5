//! The smallest host program that drives the engine: it gives it frames and the time, and takes frames. Two
//! engines on one cable, in virtual time; one asks, the other answers. `drive` is all there is to it, and
//! `Cable` is what a card has to do.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use iobuf::{SliceSource, VecSink};
use net::nic::{Handler, Nic, NicCaps, NicStats, RxBuffer, RxPacket, TxPacket};
use net::{Cidr, Config, Family, IfConfig, Ipv4Config, Kind, MsgFlags, SendMeta, Stack};

type Frames = Arc<Mutex<VecDeque<Vec<u8>>>>;

/// One end of a cable: frames to us, frames from us.
struct Cable(u8, Frames, Frames);

impl Nic for Cable {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.0]
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn caps(&self) -> NicCaps {
        NicCaps::default()
    }
    fn queue_count(&self) -> usize {
        1
    }
    fn transmit(&self, _queue: usize, packet: TxPacket) -> Result<(), TxPacket> {
        self.2.lock().unwrap().push_back(packet.to_vec());
        Ok(())
    }
    fn reclaim(&self, _queue: usize) -> usize {
        0
    }
    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}
    fn receive(&self, _queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        for count in 0..budget {
            let Some(frame) = self.1.lock().unwrap().pop_front() else {
                return count;
            };
            deliver(RxPacket::plain(RxBuffer::copy_of(&frame)));
        }
        budget
    }
    fn set_receive_handler(&self, _queue: usize, _handler: Handler) {}
    fn enable_interrupts(&self, _queue: usize) -> bool {
        !self.1.lock().unwrap().is_empty()
    }
    fn stats(&self) -> NicStats {
        NicStats::default()
    }
}

/// An engine at 10.0.0.`host` that reads this clock.
fn engine(host: u8, clock: &Arc<AtomicU64>, to: &Frames, from: &Frames) -> Arc<Stack> {
    let clock = clock.clone();
    let secret = [1, 2, 3, u64::from(host)];
    let stack = Stack::new(Config::new(
        Arc::new(move || clock.load(Ordering::Relaxed)),
        secret,
    ));
    let addr = Cidr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 24).unwrap();
    let config = IfConfig {
        ipv4: Ipv4Config::Static {
            addr,
            gateway: None,
        },
        ..IfConfig::default()
    };
    let card = Arc::new(Cable(host, to.clone(), from.clone()));
    stack.add_interface("en1", card, config).unwrap();
    stack
}

/// Lets the engines work until neither has a frame to take, then moves the clock to what is due next.
fn drive(stacks: &[Arc<Stack>], cable: &[Frames], clock: &AtomicU64) {
    let next = loop {
        let due = stacks.iter().filter_map(|stack| stack.poll()).min();
        if cable.iter().all(|end| end.lock().unwrap().is_empty()) {
            break due.unwrap_or(0);
        }
    };
    clock.fetch_max(next, Ordering::Relaxed);
}

fn main() {
    let clock = Arc::new(AtomicU64::new(1_000_000_000));
    let cable = [Frames::default(), Frames::default()];
    let stacks = [
        engine(1, &clock, &cable[0], &cable[1]),
        engine(2, &clock, &cable[1], &cable[0]),
    ];
    let place = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), 7);
    let listener = stacks[1].socket(Family::Inet, Kind::Stream, 0).unwrap();
    listener.bind(place).unwrap();
    listener.listen(1).unwrap();
    let client = stacks[0].socket(Family::Inet, Kind::Stream, 0).unwrap();
    let _ = client.connect(Some(place));
    let mut server = None;
    let mut answer = VecSink::new(100);
    while client.recv(&mut answer, MsgFlags::empty()).is_err() {
        drive(&stacks, &cable, &clock);
        if server.is_none() {
            server = listener.accept().ok();
            let _ = client.send(&mut SliceSource::new(b"hello"), &SendMeta::default());
        }
        let mut asked = VecSink::new(100);
        if let Some(server) = &server
            && server.recv(&mut asked, MsgFlags::empty()).is_ok()
        {
            let upper = asked.into_bytes().to_ascii_uppercase();
            let _ = server.send(&mut SliceSource::new(&upper), &SendMeta::default());
        }
    }
    let answer = answer.into_bytes();
    println!("{}", String::from_utf8_lossy(&answer));
    assert_eq!(answer, b"HELLO");
}
