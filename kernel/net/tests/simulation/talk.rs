//! A connection between two machines, from its handshake to its end, in one of the many ways programs have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use errno::Errno;
use net::{Family, Kind, Opt, OptName, Socket};

use crate::common::{self, Rng, SECOND, World};
use crate::flow::Flow;

/// One of the connections of a seed's network.
pub struct Talk {
    pub port: u16,
    pub v6: bool,
    /// Both ends call `connect` at once.
    pub both_open: bool,
    /// Ends by `close` alone, as soon as all is sent and received, instead of `shutdown` behind the data.
    pub abrupt: bool,
    /// Readers sleep up to this long between reads, so that windows close.
    pub nap_ns: u64,
    pub wake: u64,
    pub listener: Option<Arc<dyn Socket>>,
    pub client: Arc<dyn Socket>,
    pub server: Option<Arc<dyn Socket>>,
    pub patience: u64,
    pub flows: [Flow; 2],
    /// The client sends data with its SYN, if the server takes it.
    pub fast: bool,
    /// What each end sets as its largest segment, 0 for nothing.
    pub maxseg: [u32; 2],
    pub over: bool,
}

pub fn address(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)).into()
    } else {
        common::host(n).into()
    }
}

/// How long a handshake is waited for: its segments are sent again for about two minutes.
pub const PATIENCE: u64 = 200 * SECOND;

impl Talk {
    pub fn new(world: &World, rng: &mut Rng, port: u16, bytes: [u64; 2]) -> Talk {
        let v6 = rng.chance(400_000);
        let family = if v6 { Family::Inet6 } else { Family::Inet };
        let both_open = rng.chance(100_000);
        let listener = (!both_open).then(|| {
            let listener = world.stacks[1].socket(family, Kind::Stream, 0).unwrap();
            listener
                .bind(SocketAddr::new(address(v6, 2), port))
                .unwrap();
            listener.listen(8).unwrap();
            listener
        });
        let client = world.stacks[0].socket(family, Kind::Stream, 0).unwrap();
        let mut flows = [Flow::new(1, bytes[0]), Flow::new(2, bytes[1])];
        if rng.chance(200_000) {
            let often = [20_000, 300_000][rng.below(2) as usize];
            let inline = rng.chance(500_000);
            for flow in &mut flows {
                (flow.urge, flow.inline) = (often, inline);
            }
        }
        let mut maxseg = || match rng.chance(150_000) {
            true => 88 + rng.below(1400) as u32,
            false => 0,
        };
        let maxseg = [maxseg(), maxseg()];
        let fast = !both_open && rng.chance(250_000);
        if let Some(listener) = &listener {
            listener.set_option(Opt::MaxSeg(maxseg[1])).unwrap();
            listener.set_option(Opt::FastOpen(4)).unwrap();
        }
        Talk {
            maxseg,
            fast,
            port,
            v6,
            both_open,
            abrupt: rng.chance(300_000),
            nap_ns: if rng.chance(250_000) {
                rng.below(4 * SECOND)
            } else {
                0
            },
            wake: 0,
            listener,
            client,
            server: None,
            patience: 0,
            flows,
            over: false,
        }
    }

    /// Starts a handshake, the first or after one that was given up.
    pub fn open(&mut self, world: &World) {
        let family = if self.v6 { Family::Inet6 } else { Family::Inet };
        self.client.close();
        self.client = world.stacks[0].socket(family, Kind::Stream, 0).unwrap();
        self.client.set_option(Opt::MaxSeg(self.maxseg[0])).unwrap();
        self.patience = world.now() + PATIENCE;
        let (here, there) = (address(self.v6, 1), address(self.v6, 2));
        if self.both_open {
            if let Some(old) = self.server.take() {
                old.close();
            }
            // Not the ports of an attempt that may still be in somebody's memory.
            self.port += 100;
            let server = world.stacks[1].socket(family, Kind::Stream, 0).unwrap();
            server.set_option(Opt::MaxSeg(self.maxseg[1])).unwrap();
            self.client.bind(SocketAddr::new(here, self.port)).unwrap();
            server.bind(SocketAddr::new(there, self.port)).unwrap();
            let to = Some(SocketAddr::new(here, self.port));
            assert_eq!(server.connect(to), Err(Errno::EINPROGRESS));
            self.server = Some(server);
        }
        let to = Some(SocketAddr::new(there, self.port));
        if self.fast {
            self.client.set_option(Opt::FastOpenConnect(true)).unwrap();
            // What an attempt that was given up took along is lost.
            self.flows[0].begin_again();
        }
        match self.client.connect(to) {
            Err(Errno::EINPROGRESS) => {}
            Ok(()) if self.fast => {}
            other => panic!("connect: {other:?}"),
        }
    }

    /// Whether the client's SYN waits for data, or was sent and not answered.
    pub fn opening(&self) -> bool {
        let told = self.client.option(OptName::Info);
        matches!(told, Ok(Opt::Info(info)) if info.state == 2)
    }

    /// Whether both ends know that they are connected.
    pub fn ready(&mut self, world: &World, rng: &mut Rng) -> bool {
        let result = self.client.connect_result();
        if self.patience == 0 || world.now() > self.patience || matches!(result, Some(Err(_))) {
            self.open(world);
            return false;
        }
        if self.both_open {
            let server = self.server.as_ref().unwrap().connect_result();
            if let Some(Err(_)) = server {
                self.open(world);
                return false;
            }
            return result.is_some() && server.is_some();
        }
        if self.fast && self.opening() {
            if result.is_some() {
                // The SYN waits for this.
                let inline = self.flows[0].inline && self.flows[0].urge > 0;
                self.client.set_option(Opt::OobInline(inline)).unwrap();
                self.flows[0].early = true;
                self.flows[0].send(&self.client, rng);
                self.flows[0].early = false;
            }
            return false;
        }
        while let Some(listener) = &self.listener
            && let Ok(server) = listener.accept()
        {
            // From an attempt that was given up, perhaps.
            if server.peer_addr() == self.client.local_addr() {
                listener.close();
                (self.server, self.listener) = (Some(server), None);
            } else {
                server.close();
            }
        }
        result.is_some() && self.server.is_some()
    }

    pub fn act(&mut self, world: &World, rng: &mut Rng, connected: &mut bool) {
        if !*connected {
            *connected = self.ready(world, rng);
            if !*connected {
                return;
            }
            for end in [&self.client, self.server.as_ref().unwrap()] {
                let inline = self.flows[0].inline && self.flows[0].urge > 0;
                end.set_option(Opt::OobInline(inline)).unwrap();
            }
        }
        let (client, server) = (self.client.clone(), self.server.clone().unwrap());
        let [there, back] = &mut self.flows;
        (there.no_shutdown, back.no_shutdown) = (self.abrupt, self.abrupt);
        there.send(&client, rng);
        back.send(&server, rng);
        if world.now() >= self.wake {
            back.receive(&client, rng);
            there.receive(&server, rng);
            self.wake = world.now() + rng.below(self.nap_ns + 1);
        }
        let done = |flow: &Flow| flow.received == flow.total;
        self.over = if self.abrupt {
            done(there) && done(back)
        } else {
            there.ended && back.ended
        };
        if self.over {
            client.close();
            server.close();
        }
    }
}
