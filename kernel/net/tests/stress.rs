//! Real threads on one engine: what two CPUs may do at the same time to the flow table, the queues of
//! listeners, the ports and the connections. What each thread sees is checked as it goes; at the end nothing
//! may be left. Time is real here, so no two runs are alike.

mod common;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Rng, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::nic::{Handler, Nic, NicCaps, NicStats, RxBuffer, RxPacket, TxPacket};
use net::{
    Cidr, Config, Family, IfConfig, Ipv4Config, Kind, MsgFlags, Opt, SendMeta, Shutdown, Socket,
    Stack,
};

/// However busy the machine is, no step of a conversation takes longer.
const PATIENCE: Duration = Duration::from_secs(40);
const MS: u64 = 1_000_000;

fn engine(change: impl Fn(&mut Config)) -> Arc<Stack> {
    let start = Instant::now();
    let clock = move || start.elapsed().as_nanos() as u64 + 1_000_000_000;
    let mut config = Config::new(Arc::new(clock), [1, 2, 3, 4]);
    config.limits.time_wait_ns = 20 * MS;
    config.limits.fin_timeout_ns = 100 * MS;
    change(&mut config);
    Stack::new(config)
}

fn stream(stack: &Arc<Stack>) -> Arc<dyn Socket> {
    stack.socket(Family::Inet, Kind::Stream, 0).unwrap()
}

/// Tries until there is an answer.
fn patiently<T>(what: &str, mut f: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let end = Instant::now() + PATIENCE;
    loop {
        match f() {
            Err(Errno::EAGAIN | Errno::EINPROGRESS) => {}
            other => return other,
        }
        assert!(Instant::now() < end, "{what} takes too long");
        thread::yield_now();
    }
}

fn send_all(socket: &Arc<dyn Socket>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = patiently("send", || {
            socket.send(&mut SliceSource::new(bytes), &SendMeta::default())
        })?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Up to `most` bytes; empty at the end.
fn read(socket: &Arc<dyn Socket>, most: usize) -> Result<Vec<u8>, Errno> {
    patiently("recv", || {
        let mut sink = VecSink::new(most);
        socket.recv(&mut sink, MsgFlags::empty())?;
        Ok(sink.into_bytes())
    })
}

/// What every connection is about: a few bytes there, the same back, and one of many ways to end. `Err` is
/// the other side's doing.
fn converse(stack: &Arc<Stack>, to: SocketAddr, rng: &mut Rng) -> Result<(), Errno> {
    let socket = stream(stack);
    let result = (|| {
        match socket.connect(Some(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        patiently("connect", || {
            socket.connect_result().unwrap_or(Err(Errno::EAGAIN))
        })?;
        let bytes: Vec<u8> = (0..1 + rng.below(6000)).map(|_| rng.next() as u8).collect();
        send_all(&socket, &bytes)?;
        if rng.chance(100_000) {
            // Gone without a word, with unread data perhaps, or with a reset.
            if rng.chance(500_000) {
                socket.set_option(Opt::Linger(Some(Duration::ZERO)))?;
            }
            return Ok(());
        }
        if rng.chance(500_000) {
            socket.shutdown(Shutdown::Write)?;
        }
        let mut back = Vec::new();
        while back.len() < bytes.len() {
            let more = read(&socket, 1 + rng.below(3000) as usize)?;
            assert!(
                !more.is_empty(),
                "ended after {} of {}",
                back.len(),
                bytes.len()
            );
            back.extend(more);
        }
        assert!(back == bytes, "not what was sent");
        Ok(())
    })();
    socket.close();
    result
}

/// Accepts and echoes until told to stop; several threads do so on one listener.
fn serve(listener: &Arc<dyn Socket>, stop: &AtomicBool, served: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(socket) = listener.accept() else {
            thread::yield_now();
            continue;
        };
        served.fetch_add(1, Ordering::Relaxed);
        // The reset of a client that went without a word may be lost.
        for option in [Opt::KeepAlive(true), Opt::KeepIdle(1), Opt::KeepIntvl(1)] {
            socket.set_option(option).unwrap();
        }
        // An error is the client's reset.
        let heard = || {
            patiently("recv", || {
                if stop.load(Ordering::Relaxed) {
                    return Err(Errno::ECONNABORTED);
                }
                let mut sink = VecSink::new(4000);
                socket.recv(&mut sink, MsgFlags::empty())?;
                Ok(sink.into_bytes())
            })
        };
        while let Ok(bytes) = heard()
            && !bytes.is_empty()
            && send_all(&socket, &bytes).is_ok()
        {}
        socket.close();
    }
}

/// Calls that look at everything or change what others use, all the while.
fn meddle(stack: &Arc<Stack>, rng: &mut Rng) {
    match rng.below(6) {
        0 => drop(stack.tcp_sockets()),
        1 => {
            let other = stream(stack);
            let port = 5000 + rng.below(4) as u16;
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            other.set_option(Opt::ReuseAddr(true)).unwrap();
            if other.bind(at).is_ok() && other.listen(1).is_ok() {
                // Somebody is in its queue when it closes.
                let client = stream(stack);
                let _ = client.connect(Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
                other.close();
                client.close();
            } else {
                other.close();
            }
        }
        2 => {
            let addr = Cidr::new(IpAddr::from([10, 77, 0, 1]), 24).unwrap();
            let _ = stack.add_address(1, addr);
            let _ = stack.remove_address(1, addr);
        }
        3 => drop((stack.neighbours(), stack.routes(), stack.flow_counts())),
        _ => thread::yield_now(),
    }
}

/// Waits until the connections' ends are over, turning the engines' clocks, then looks for what is left.
fn nothing_left(stacks: Vec<Arc<Stack>>) {
    let end = Instant::now() + PATIENCE;
    while stacks.iter().any(|s| s.flow_counts() != (0, 0)) {
        for stack in &stacks {
            stack.poll();
        }
        for stack in &stacks {
            assert!(Instant::now() < end, "left: {:#?}", stack.tcp_sockets());
        }
        thread::sleep(Duration::from_millis(1));
    }
    for stack in &stacks {
        assert_eq!(stack.memory(), 0);
        assert_eq!(stack.counters().sum(|c| &c.tcp_curr_estab), 0, "CurrEstab");
    }
    let gone: Vec<_> = stacks.iter().map(Arc::downgrade).collect();
    drop(stacks);
    assert!(
        gone.iter().all(|s| s.upgrade().is_none()),
        "kept by somebody"
    );
}

#[test]
fn everybody_at_once_over_the_loopback() {
    const EACH: usize = 400;
    let stack = engine(|c| c.limits.syn_backlog = 4);
    let listener = stream(&stack);
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    listener.bind(at).unwrap();
    listener.listen(4).unwrap();
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| serve(&listener, &stop, &served));
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                stack.poll();
                thread::sleep(Duration::from_micros(300));
            }
        });
        scope.spawn(|| {
            let mut rng = Rng(99);
            while !stop.load(Ordering::Relaxed) {
                meddle(&stack, &mut rng);
            }
        });
        let clients: Vec<_> = (0..3)
            .map(|n| {
                let stack = &stack;
                scope.spawn(move || {
                    let mut rng = Rng(n);
                    for _ in 0..EACH {
                        // Nobody resets what the client did not give up: over `lo` nothing is lost.
                        converse(stack, at, &mut rng).unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.expect("a client");
        }
    });
    assert!(served.load(Ordering::Relaxed) > 3 * EACH * 8 / 10);
    listener.close();
    drop(listener);
    nothing_left(vec![stack]);
}

/// A card with several queues, each frame in one of them by chance: segments of one connection meet on
/// several CPUs at once, out of order, some twice, some never.
struct Wild {
    last: u8,
    arrived: [Mutex<VecDeque<Vec<u8>>>; 3],
    other: Mutex<Option<std::sync::Weak<Wild>>>,
    dice: AtomicU64,
}

impl Nic for Wild {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.last]
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
        self.arrived.len()
    }
    fn transmit(&self, _queue: usize, packet: TxPacket) -> Result<(), TxPacket> {
        let mut rng = Rng(self.dice.fetch_add(1, Ordering::Relaxed));
        let Some(other) = self
            .other
            .lock()
            .unwrap()
            .as_ref()
            .and_then(|o| o.upgrade())
        else {
            return Ok(());
        };
        let copies = match rng.below(100) {
            0 => 0,
            1..=5 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let queue = rng.below(other.arrived.len() as u64) as usize;
            let frame = packet.to_vec();
            other.arrived[queue].lock().unwrap().push_back(frame);
        }
        Ok(())
    }
    fn reclaim(&self, _queue: usize) -> usize {
        0
    }
    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}
    fn receive(&self, queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        for count in 0..budget {
            let frame = self.arrived[queue].lock().unwrap().pop_front();
            match frame {
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

#[test]
fn one_connection_on_several_cpus() {
    const EACH: usize = 120;
    let stacks = [1, 2].map(|_| engine(|c| c.limits.syn_backlog = 2));
    let nics = [1, 2].map(|last| {
        Arc::new(Wild {
            last,
            arrived: Default::default(),
            other: Mutex::new(None),
            dice: AtomicU64::new(u64::from(last) << 40),
        })
    });
    for (i, stack) in stacks.iter().enumerate() {
        *nics[i].other.lock().unwrap() = Some(Arc::downgrade(&nics[1 - i]));
        let config = IfConfig {
            ipv4: Ipv4Config::Static {
                addr: Cidr::new(host(i as u8 + 1).into(), 24).unwrap(),
                gateway: None,
            },
            ..IfConfig::default()
        };
        stack.add_interface("en1", nics[i].clone(), config).unwrap();
    }
    let listener = stream(&stacks[1]);
    let at = SocketAddr::new(host(2).into(), 80);
    listener.bind(at).unwrap();
    listener.listen(8).unwrap();
    let (stop, served, refused) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| serve(&listener, &stop, &served));
        }
        // Two for each engine.
        for stack in stacks.iter().chain(&stacks) {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    stack.poll();
                    thread::yield_now();
                }
            });
        }
        let clients: Vec<_> = (0..6)
            .map(|n| {
                let (stack, refused) = (&stacks[0], &refused);
                scope.spawn(move || {
                    let mut rng = Rng(n + 10);
                    for _ in 0..EACH {
                        // A handshake whose end is lost may be forgotten by the server: then it says so.
                        if let Err(error) = converse(stack, at, &mut rng) {
                            assert_eq!(error, Errno::ECONNRESET);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results {
            result.expect("a client");
        }
    });
    println!("{served:?} served, {refused:?} refused");
    assert!(refused.load(Ordering::Relaxed) < 6 * EACH / 20);
    assert!(served.load(Ordering::Relaxed) > 6 * EACH * 8 / 10);
    listener.close();
    drop(listener);
    nothing_left(stacks.into());
}
