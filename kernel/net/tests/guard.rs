//! A guarded port: its guard decides who may connect, and is told what it cost; other ports know nothing of it.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{MS, SECOND, Weather, World, host};
use errno::Errno;
use net::{Guard, Kind, Socket};

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    taken: AtomicUsize,
}

impl Guard for Gate {
    fn may_open(&self, remote: SocketAddr) -> bool {
        assert_eq!(remote.ip(), host(1));
        self.open.load(Ordering::Relaxed)
    }

    fn took(&self, remote: SocketAddr, _: u64) {
        assert_eq!(remote.ip(), host(1));
        self.taken.fetch_add(1, Ordering::Relaxed);
    }
}

fn dropped(world: &World) -> String {
    let branch = net::report::branch(&world.stacks[1]);
    let store = store::Store::new(branch, Box::new(|change| change()));
    let path = store::Path::parse("/drops/tcp_guarded_port").unwrap();
    store.get(&path, 0).unwrap()
}

#[test]
fn a_guard_decides_what_comes_to_its_port() {
    let weather = Weather {
        delay_ns: MS,
        ..Weather::default()
    };
    let mut world = World::new(3, weather, [false, false]);
    let gate = Arc::new(Gate::default());
    let stack = world.stacks[1].clone();
    stack.guard_port(80, gate.clone()).unwrap();
    assert_eq!(stack.guard_port(81, gate.clone()), Err(Errno::EBUSY));
    let guarded = world.listen(1, 80);
    let open = world.listen(1, 81);
    let connect = |port| {
        let client = world.stacks[0].socket(net::Family::Inet, Kind::Stream, 0);
        let client = client.unwrap();
        let to = SocketAddr::new(host(2).into(), port);
        assert_eq!(client.connect(Some(to)), Err(Errno::EINPROGRESS));
        client
    };
    let clients: [Arc<dyn Socket>; 2] = [connect(80), connect(81)];
    world.run(SECOND / 2);
    assert_eq!(guarded.accept().err(), Some(Errno::EAGAIN));
    assert!(open.accept().is_ok());
    assert_eq!(gate.taken.load(Ordering::Relaxed), 0);
    assert!(
        dropped(&world).contains("\"value\":1"),
        "{}",
        dropped(&world)
    );
    // TCP asks again after a second.
    gate.open.store(true, Ordering::Relaxed);
    world.run(SECOND);
    let server = guarded.accept();
    assert!(server.is_ok());
    let taken = gate.taken.load(Ordering::Relaxed);
    assert!(taken >= 2);
    // What is open is not asked for.
    gate.open.store(false, Ordering::Relaxed);
    clients[0].close();
    world.run(SECOND);
    assert!(gate.taken.load(Ordering::Relaxed) > taken);
    assert!(
        dropped(&world).contains("\"value\":1"),
        "{}",
        dropped(&world)
    );
}
