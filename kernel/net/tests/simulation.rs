//! The engine against itself over bad networks, under a virtual clock: every seed must deliver byte for
//! byte, end, and leave nothing behind.

mod common;

use std::sync::Arc;

use common::{MS, Rng, SECOND, Weather, World};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{MsgFlags, Opt, OptName, SendMeta, Shutdown, Socket};

fn byte(seed: u64, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed as u8 ^ (at >> 8) as u8
}

/// One direction of a transfer.
struct Flow {
    seed: u64,
    total: u64,
    sent: u64,
    received: u64,
    shut: bool,
    ended: bool,
}

impl Flow {
    fn new(seed: u64, total: u64) -> Flow {
        Flow {
            seed,
            total,
            sent: 0,
            received: 0,
            shut: false,
            ended: false,
        }
    }

    fn send(&mut self, socket: &Arc<dyn Socket>, rng: &mut Rng) {
        while self.sent < self.total {
            let n = (self.total - self.sent).min(1 + rng.below(40_000));
            let bytes: Vec<u8> = (self.sent..self.sent + n)
                .map(|i| byte(self.seed, i))
                .collect();
            match socket.send(&mut SliceSource::new(&bytes), &SendMeta::default()) {
                Ok(done) => self.sent += done as u64,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("send: {error:?} after {} of {}", self.sent, self.total),
            }
        }
        if !self.shut {
            self.shut = true;
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }

    fn receive(&mut self, socket: &Arc<dyn Socket>, rng: &mut Rng) {
        while !self.ended {
            let mut sink = VecSink::new(1 + rng.below(60_000) as usize);
            match socket.recv(&mut sink, MsgFlags::empty()) {
                Ok(meta) if meta.len == 0 => self.ended = true,
                Ok(_) => {
                    for b in sink.into_bytes() {
                        assert_eq!(b, byte(self.seed, self.received), "at {}", self.received);
                        self.received += 1;
                    }
                }
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("recv: {error:?} after {} of {}", self.received, self.total),
            }
        }
        assert_eq!(self.received, self.total);
    }
}

/// Both directions at once; returns the virtual time it took.
fn transfer(world: &mut World, there: u64, back: u64, limit_s: u64) -> u64 {
    let (client, server) = world.connect(7);
    let mut rng = Rng(world.rng.next());
    let mut a = Flow::new(1, there);
    let mut b = Flow::new(2, back);
    let start = world.now();
    let limit = start + limit_s * SECOND;
    loop {
        a.send(&client, &mut rng);
        b.send(&server, &mut rng);
        b.receive(&client, &mut rng);
        a.receive(&server, &mut rng);
        if a.ended && b.ended {
            break;
        }
        if !world.step(limit) {
            let info = |s: &Arc<dyn Socket>| s.option(OptName::Info);
            panic!(
                "stuck: {}/{} and {}/{} received\n{:#?}\n{:#?}",
                a.received,
                there,
                b.received,
                back,
                info(&client),
                info(&server)
            );
        }
    }
    let took = world.now() - start;
    client.close();
    server.close();
    drop((client, server));
    // Through TIME-WAIT, retransmitted FINs and all.
    world.run(200 * SECOND);
    for stack in &world.stacks {
        assert_eq!(stack.memory(), 0, "leaked buffers");
        assert_eq!(stack.flow_counts(), (0, 0), "leaked flows");
    }
    took
}

#[test]
fn a_clean_network_is_fast() {
    for offload in [[false, false], [true, true]] {
        let weather = Weather {
            delay_ns: MS,
            ..Weather::default()
        };
        let mut world = World::new(1, weather, offload);
        let took = transfer(&mut world, 10_000_000, 1_000_000, 60);
        assert!(took < SECOND, "took {} ms", took / MS);
        assert_eq!(
            world.nics[0]
                .offloads
                .load(std::sync::atomic::Ordering::Relaxed)
                > 0,
            offload[0]
        );
    }
}

#[test]
fn a_long_fat_pipe_is_filled() {
    // 100 Mbit/s and 50 ms: half a megabyte on the way.
    let weather = Weather {
        delay_ns: 25 * MS,
        ns_per_byte: 80,
        queue: 1_000_000,
        ..Weather::default()
    };
    let mut world = World::new(2, weather, [true, true]);
    let took = transfer(&mut world, 40_000_000, 0, 60);
    assert!(took < 5 * SECOND, "took {} ms of an ideal 3200", took / MS);
}

#[test]
fn loss_costs_little() {
    // 1 % and 5 % at 20 ms: not the rate of a network without loss, but far from a stall for each packet.
    for (loss, limit) in [(10_000, 20), (50_000, 60)] {
        let weather = Weather {
            loss,
            delay_ns: 10 * MS,
            ..Weather::default()
        };
        let mut world = World::new(3, weather, [false, false]);
        let took = transfer(&mut world, 4_000_000, 100_000, 300);
        assert!(took < limit * SECOND, "loss {loss}: took {} ms", took / MS);
    }
}

/// A different network for every seed.
fn bad_weather(rng: &mut Rng) -> Weather {
    let mut pick = |list: &[u64]| list[rng.below(list.len() as u64) as usize];
    Weather {
        loss: pick(&[0, 1000, 10_000, 50_000, 150_000]),
        duplicate: pick(&[0, 0, 10_000, 100_000]),
        reorder: pick(&[0, 10_000, 100_000, 500_000]),
        corrupt: pick(&[0, 0, 1000, 20_000]),
        delay_ns: pick(&[50_000, MS, 10 * MS, 100 * MS]),
        jitter_ns: pick(&[1, MS, 20 * MS, 80 * MS]),
        ns_per_byte: pick(&[0, 0, 80, 8000]),
        queue: pick(&[15_000, 60_000, 1_000_000]),
    }
}

fn run_seed(seed: u64) {
    let mut rng = Rng(seed ^ 0x5eed);
    let weather = bad_weather(&mut rng);
    let offload = [rng.chance(500_000), rng.chance(500_000)];
    let there = rng.below(200_000);
    let back = rng.below(60_000);
    let small = rng.chance(200_000);
    let mut world = World::with(seed, weather, offload, |config| {
        if small {
            config.limits.tcp_rmem = 16_384;
            config.limits.tcp_rmem_max = 16_384;
        }
    });
    if rng.chance(300_000) {
        // A peer that buffers in tiny windows.
        world.rng.next();
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        transfer(&mut world, there, back, 3600)
    }));
    if let Err(panic) = result {
        eprintln!("seed {seed}: {weather:?} offload {offload:?} {there} there {back} back");
        std::panic::resume_unwind(panic);
    }
}

/// 10,000 seeds in four parts that run side by side; `NET_SEEDS` is the size of a part.
fn seeds(part: u64) {
    let number = |name: &str, usual| {
        std::env::var(name)
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(usual)
    };
    let count: u64 = number("NET_SEEDS", 2500);
    let first: u64 = number("NET_SEED", 0) + part * count;
    for seed in first..first + count {
        run_seed(seed);
    }
}

#[test]
fn every_seed_delivers_1() {
    seeds(0);
}

#[test]
fn every_seed_delivers_2() {
    seeds(1);
}

#[test]
fn every_seed_delivers_3() {
    seeds(2);
}

#[test]
fn every_seed_delivers_4() {
    seeds(3);
}

#[test]
fn options_can_be_set_on_the_way() {
    let mut world = World::new(
        9,
        Weather {
            delay_ns: MS,
            ..Weather::default()
        },
        [false, false],
    );
    let (client, server) = world.connect(9);
    client.set_option(Opt::NoDelay(true)).unwrap();
    client.set_option(Opt::KeepAlive(true)).unwrap();
    assert_eq!(client.option(OptName::NoDelay), Ok(Opt::NoDelay(true)));
    assert_eq!(
        server.option(OptName::AcceptConn),
        Ok(Opt::AcceptConn(false))
    );
    client.close();
    server.close();
}
