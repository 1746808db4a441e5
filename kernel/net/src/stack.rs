//! The engine as its users hold it: what it is made of, interfaces, addresses, and questions about it.
//! The way of a packet through it is in `path`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use errno::{Errno, Result};
use hashbrown::HashMap;

use crate::config::{Cidr, Config, IfConfig, Ipv4Config, Lease};
use crate::dhcp::Dhcp;
use crate::dhcp6::Dhcp6;
use crate::flow::{FlowTable, Found, KeyedState};
use crate::guard::Guarded;
use crate::hash::Key;
use crate::iface::{IfAddr, Interface};
use crate::loopback::Loopback;
use crate::multicast::Groups;
use crate::ndisc::Discovery;
use crate::neigh::Neighbours;
use crate::nic::Nic;
use crate::ports::Ports;
use crate::query::{AddrInfo, Change, LinkInfo, NeighbourInfo, RouteInfo, SocketInfo};
use crate::raw::{RawSocket, RawTable};
use crate::route::Routes;
use crate::socket::{Family, Kind, Socket};
use crate::stats::{Counters, IcmpCounts};
use crate::sync::{RwSpinLock, SpinLock};
use crate::tap::TapList;
use crate::tcp::defaults::TcpDefaults;
use crate::tcp::fastopen_client::Jar;
use crate::tcp::listen::{HalfOpen, Listeners};
use crate::tcp::sendq::ChunkPool;
use crate::tcp::socket::TcpSocket;
use crate::udp::{UdpSocket, UdpTable};
use crate::wheel::Wheel;

/// What a timer wheel holds. Weak: a timer keeps nothing alive.
pub(crate) enum Timer {
    Conn(Weak<TcpSocket>),
    Half(Weak<HalfOpen>),
}

/// Things done now and then for the engine as a whole; each has the time it is due next.
#[derive(Clone, Copy)]
pub(crate) enum Chore {
    Neighbours,
    TimeWait,
    Dhcp,
    Fragments,
    Discovery,
    Multicast,
    Dhcp6,
    PathMtu,
}

pub(crate) const CHORES: usize = 8;
/// Timer wheels: connections are spread over them.
pub(crate) const WHEELS: usize = 4;

type Observers = RwSpinLock<Vec<Arc<dyn Fn(&Change) + Send + Sync>>>;
type ArmHook = RwSpinLock<Option<Arc<dyn Fn(u64) + Send + Sync>>>;

/// A network engine: interfaces, addresses, routes, connections. A kernel has one; tests make many.
pub struct Stack {
    config: Config,
    counters: Counters,
    observers: Observers,
    pub(crate) ifaces: RwSpinLock<Vec<Arc<Interface>>>,
    /// Those who see the frames of all interfaces.
    pub(crate) taps: TapList,
    /// Every address of this machine, and the interface it is on.
    pub(crate) local: RwSpinLock<HashMap<IpAddr, u32, KeyedState>>,
    pub(crate) routes: Routes,
    pub(crate) neighbour_cache: Neighbours,
    pub(crate) flows: FlowTable,
    pub(crate) listeners: Listeners,
    pub(crate) guarded: Guarded,
    pub(crate) tcp_ports: Ports,
    pub(crate) tcp_defaults: TcpDefaults,
    /// Of servers, for Fast Open.
    pub(crate) cookies: Jar,
    pub(crate) udp: UdpTable,
    pub(crate) raws: RawTable,
    pub(crate) groups: Groups,
    pub(crate) loopback: Loopback,
    pub(crate) chunks: ChunkPool,
    pub(crate) wheels: [SpinLock<Wheel<Timer>>; WHEELS],
    pub(crate) chores: [AtomicU64; CHORES],
    /// The time the outside was last asked to call at.
    pub(crate) armed: AtomicU64,
    pub(crate) arm_hook: ArmHook,
    pub(crate) dhcp: SpinLock<Vec<Dhcp>>,
    pub(crate) dhcp6: SpinLock<Vec<Dhcp6>>,
    pub(crate) discovery: SpinLock<Vec<Discovery>>,
    pub(crate) leases: RwSpinLock<Vec<Lease>>,
    pub(crate) fragments: SpinLock<crate::frag::Fragments>,
    /// Tokens for ICMP errors and echoes: the time up to which they are spent.
    pub(crate) icmp_spent: AtomicU64,
    pub(crate) icmp_counts: IcmpCounts,
    /// Bytes held in socket buffers.
    memory: AtomicUsize,
    /// Whether the time of pressure that `TCPMemoryPressures` counted last goes on.
    pressed: AtomicBool,
    ident: AtomicU16,
    random: AtomicU64,
    /// For sequence numbers, ports and cookies.
    pub(crate) secret: Key,
}

impl Stack {
    /// An engine with `lo` up and nothing else.
    pub fn new(config: Config) -> Arc<Stack> {
        let table_key = Key(config.secret[0], config.secret[1]);
        let secret = Key(config.secret[2], config.secret[3]);
        let keyed = KeyedState(table_key);
        let now = (config.clock)();
        let stack = Stack {
            counters: Counters::default(),
            observers: RwSpinLock::new(Vec::new()),
            ifaces: RwSpinLock::new(Vec::new()),
            taps: TapList::default(),
            local: RwSpinLock::new(HashMap::with_hasher(keyed)),
            routes: Routes::new(keyed),
            neighbour_cache: Neighbours::new(config.limits.neighbours, keyed),
            flows: FlowTable::new(table_key),
            listeners: Listeners::default(),
            guarded: Guarded::default(),
            tcp_ports: Ports::new(keyed),
            tcp_defaults: TcpDefaults::new(&config.limits),
            cookies: Jar::new(keyed),
            udp: UdpTable::new(table_key),
            raws: RawTable::default(),
            groups: Groups::new(keyed),
            loopback: Loopback::default(),
            chunks: ChunkPool::default(),
            wheels: core::array::from_fn(|_| SpinLock::new(Wheel::new(now))),
            chores: core::array::from_fn(|_| AtomicU64::new(u64::MAX)),
            armed: AtomicU64::new(u64::MAX),
            arm_hook: RwSpinLock::new(None),
            dhcp: SpinLock::new(Vec::new()),
            dhcp6: SpinLock::new(Vec::new()),
            discovery: SpinLock::new(Vec::new()),
            leases: RwSpinLock::new(Vec::new()),
            fragments: SpinLock::new(crate::frag::Fragments::new(config.limits.fragments, keyed)),
            icmp_spent: AtomicU64::new(0),
            icmp_counts: IcmpCounts::default(),
            memory: AtomicUsize::new(0),
            pressed: AtomicBool::new(false),
            ident: AtomicU16::new(config.secret[2] as u16),
            random: AtomicU64::new(config.secret[3] ^ now),
            secret,
            config,
        };
        stack.ifaces.write().push(Arc::new(Interface::loopback(1)));
        for (addr, prefix) in [
            (IpAddr::V4(Ipv4Addr::LOCALHOST), 8),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ] {
            stack.put_address(1, Cidr { addr, prefix }, u64::MAX, u64::MAX);
        }
        Arc::new(stack)
    }

    /// Adds an interface and starts its configuration; returns its index.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub fn add_interface(&self, name: &str, nic: Arc<dyn Nic>, config: IfConfig) -> Result<u32> {
        let now = self.now();
        let iface = {
            let mut ifaces = self.ifaces.write();
            if ifaces.iter().any(|i| i.name == name) {
                return Err(Errno::EEXIST);
            }
            let index = ifaces.len() as u32 + 1;
            let iface = Arc::new(Interface::ethernet(index, name, nic, config.mtu));
            ifaces.push(iface.clone());
            self.tap_new(&iface);
            iface
        };
        self.tell(&Change::Link(iface.info()));
        self.serve()?;
        match config.ipv4 {
            Ipv4Config::None => {}
            Ipv4Config::Dhcp => {
                let client =
                    Dhcp::new(&iface, self.config.host_name.as_deref(), self.random(), now);
                self.dhcp.lock().push(client);
                self.arm_chore(Chore::Dhcp, now);
                self.run_dhcp(now);
            }
            Ipv4Config::Static { addr, gateway } => {
                self.add_address(iface.index, addr)?;
                if let Some(gateway) = gateway {
                    self.add_route(RouteInfo {
                        dst: Cidr {
                            addr: Ipv4Addr::UNSPECIFIED.into(),
                            prefix: 0,
                        },
                        gateway: Some(gateway.into()),
                        index: iface.index,
                        source: Some(addr.addr),
                        metric: 0,
                        protocol: 3,
                    })?;
                }
            }
        }
        self.start_ipv6(&iface, &config.ipv6, now);
        Ok(iface.index)
    }

    /// Makes a socket; `protocol` 0 is the kind's usual one.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`, `EAFNOSUPPORT`.
    pub fn socket(
        self: &Arc<Self>,
        family: Family,
        kind: Kind,
        protocol: u8,
    ) -> Result<Arc<dyn Socket>> {
        use crate::ip::proto;
        match (kind, protocol) {
            (Kind::Stream, 0 | proto::TCP) => Ok(TcpSocket::new(self, family)),
            (Kind::Dgram, 0 | proto::UDP) => Ok(UdpSocket::new(self, family)),
            (Kind::Dgram, proto::ICMP | proto::ICMP6) => {
                Ok(RawSocket::new(self, family, protocol, true)?)
            }
            (Kind::Stream | Kind::Dgram, _) => Err(Errno::EPROTONOSUPPORT),
            (Kind::Raw, _) => Ok(RawSocket::new(self, family, protocol, false)?),
        }
    }

    /// Calls `observer` on every change of links, addresses, routes, neighbours and leases. It is
    /// called without a lock held.
    pub fn observe(&self, observer: Box<dyn Fn(&Change) + Send + Sync>) {
        self.observers.write().push(Arc::from(observer));
    }

    pub(crate) fn tell(&self, change: &Change) {
        let observers: Vec<_> = self.observers.read().clone();
        for observer in observers {
            observer(change);
        }
    }

    /// All interfaces.
    pub fn links(&self) -> Vec<LinkInfo> {
        self.ifaces.read().iter().map(|i| i.info()).collect()
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<AddrInfo> {
        let now = self.now();
        let mut all = Vec::new();
        for iface in self.ifaces.read().iter() {
            for addr in iface.addrs.read().iter() {
                all.push(addr_info(iface.index, addr, now));
            }
        }
        // Linux asks one family after the other.
        all.sort_by_key(|one| one.addr.addr.is_ipv6());
        all
    }

    /// All routes.
    pub fn routes(&self) -> Vec<RouteInfo> {
        self.routes.list()
    }

    /// The neighbour cache.
    pub fn neighbours(&self) -> Vec<NeighbourInfo> {
        self.neighbour_cache.list()
    }

    /// What automatic configuration holds now, one for each interface that has a lease.
    pub fn leases(&self) -> Vec<Lease> {
        self.leases.read().clone()
    }

    /// Adds an address, and the route to its network.
    ///
    /// # Errors
    /// `EEXIST`, `ENODEV`.
    pub fn add_address(&self, index: u32, addr: Cidr) -> Result<()> {
        self.add_address_until(index, addr, u64::MAX, u64::MAX)
    }

    /// As [`Stack::add_address`], with an end of its validity and preference in nanoseconds of the clock.
    pub(crate) fn add_address_until(
        &self,
        index: u32,
        addr: Cidr,
        valid_ns: u64,
        preferred_ns: u64,
    ) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if self.is_own(addr.addr, index) {
            let mut addrs = iface.addrs.write();
            if let Some(known) = addrs.iter_mut().find(|a| a.cidr.addr == addr.addr)
                && known.valid_ns != u64::MAX
                && valid_ns != u64::MAX
            {
                known.valid_ns = valid_ns;
                known.preferred_ns = preferred_ns;
                return Ok(());
            }
            return Err(Errno::EEXIST);
        }
        self.put_address(index, addr, valid_ns, preferred_ns);
        if !iface.is_loopback() && iface.is_up() {
            self.add_link_route(&iface, addr);
            if let IpAddr::V4(v4) = addr.addr {
                crate::arp::announce(&iface, v4);
            }
        }
        if let Some(info) = self.address(index, addr) {
            self.tell(&Change::Addr(info, true));
        }
        Ok(())
    }

    /// What there is to say of an address of an interface.
    pub(crate) fn address(&self, index: u32, addr: Cidr) -> Option<AddrInfo> {
        let iface = self.interface(index)?;
        let addrs = iface.addrs.read();
        let known = addrs.iter().find(|a| a.cidr == addr)?;
        Some(addr_info(index, known, self.now()))
    }

    fn put_address(&self, index: u32, cidr: Cidr, valid_ns: u64, preferred_ns: u64) {
        if let Some(iface) = self.interface(index) {
            iface.addrs.write().push(IfAddr {
                cidr,
                valid_ns,
                preferred_ns,
                tentative: false,
            });
        }
        self.local.write().insert(cidr.addr, index);
        self.routes.changed();
    }

    /// Removes an address, with the routes that lead out from it.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`, `ENODEV`.
    pub fn remove_address(&self, index: u32, addr: Cidr) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        let gone = {
            let mut addrs = iface.addrs.write();
            let at = addrs
                .iter()
                .position(|a| a.cidr == addr)
                .ok_or(Errno::EADDRNOTAVAIL)?;
            addrs.remove(at)
        };
        self.local.write().remove(&addr.addr);
        if let IpAddr::V6(own) = addr.addr {
            self.listen_for(index, own, false);
        }
        self.routes.changed();
        let routes = self
            .routes
            .remove(|r| r.index == index && r.source == Some(addr.addr));
        for route in routes {
            self.tell(&Change::Route(route, false));
        }
        self.tell(&Change::Addr(addr_info(index, &gone, self.now()), false));
        Ok(())
    }

    /// Adds a route.
    ///
    /// # Errors
    /// `EEXIST`, `ENODEV`, `ENETUNREACH` when the gateway is not on a link.
    pub fn add_route(&self, route: RouteInfo) -> Result<()> {
        if self.interface(route.index).is_none() {
            return Err(Errno::ENODEV);
        }
        if let Some(gateway) = route.gateway {
            let direct = self
                .routes
                .lookup(gateway, route.index)
                .is_some_and(|r| r.gateway.is_none());
            // A link-local router needs no route, and DHCP may name one outside the network (RFC 3442).
            let link_local = matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local());
            if !direct && !link_local && route.protocol != 16 {
                return Err(Errno::ENETUNREACH);
            }
        }
        self.routes.add(route.clone())?;
        self.tell(&Change::Route(route, true));
        Ok(())
    }

    /// Removes a route.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn remove_route(&self, route: &RouteInfo) -> Result<()> {
        let gone = self.routes.remove(|r| {
            r.dst == route.dst
                && r.metric == route.metric
                && (route.index == 0 || r.index == route.index)
                && (route.gateway.is_none() || r.gateway == route.gateway)
        });
        if gone.is_empty() {
            return Err(Errno::ESRCH);
        }
        for route in gone {
            self.tell(&Change::Route(route, false));
        }
        Ok(())
    }

    /// Sets a neighbour by hand.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn set_neighbour(&self, index: u32, addr: IpAddr, mac: [u8; 6]) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        let waiting = self
            .neighbour_cache
            .set_permanent(index, addr, mac, self.now());
        self.send_waiting(&iface, mac, waiting);
        Ok(())
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove_neighbour(&self, index: u32, addr: IpAddr) -> Result<()> {
        if self.neighbour_cache.remove(index, addr) {
            Ok(())
        } else {
            Err(Errno::ENOENT)
        }
    }

    /// Every TCP socket that has a peer or listens, TIME-WAIT included.
    pub fn tcp_sockets(&self) -> Vec<SocketInfo> {
        let mut all = self.listeners.list();
        for (key, found) in self.flows.list() {
            let mut info = SocketInfo {
                ipv6: key.local.is_ipv6(),
                local: SocketAddr::new(key.local, key.lport),
                remote: SocketAddr::new(key.remote, key.rport),
                state: 6,
                send_queue: 0,
                recv_queue: 0,
                drops: 0,
                retransmits: 0,
            };
            match found {
                Found::Conn(conn) => conn.describe(&mut info),
                Found::Half(_) => info.state = 3,
                Found::Wait => {}
            }
            all.push(info);
        }
        all
    }

    /// Every UDP socket that has a local port.
    pub fn udp_sockets(&self) -> Vec<SocketInfo> {
        self.udp.list()
    }

    /// Every raw socket.
    pub fn raw_sockets(&self) -> Vec<SocketInfo> {
        self.raws.list(false)
    }

    /// Every ping socket; its port is its identifier.
    pub fn ping_sockets(&self) -> Vec<SocketInfo> {
        self.raws.list(true)
    }

    /// Datagrams of which fragments wait for others, and the bytes they take.
    pub fn fragments_held(&self) -> (usize, usize) {
        self.fragments.lock().counts()
    }

    /// ICMP messages by type, those that were seen: whether they went out, the type, how many. ICMPv6's with `v6`.
    pub fn icmp_types(&self, v6: bool) -> Vec<(bool, u8, u64)> {
        self.icmp_counts.list(v6)
    }

    /// Bytes held in socket buffers.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Bytes held for reassembly of fragments (the `FRAG` line of `/proc/net/sockstat`).
    pub fn fragment_memory(&self) -> usize {
        self.fragments.lock().held()
    }

    /// Flows in the table (connections, half-open ones, TIME-WAIT), and of these in TIME-WAIT.
    pub fn flow_counts(&self) -> (usize, usize) {
        (self.flows.len(), self.flows.waits())
    }

    /// The counters.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What new TCP sockets start with.
    pub fn tcp_defaults(&self) -> &TcpDefaults {
        &self.tcp_defaults
    }

    /// What the engine was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The time.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        (self.config.clock)()
    }

    pub(crate) fn interface(&self, index: u32) -> Option<Arc<Interface>> {
        self.ifaces
            .read()
            .iter()
            .find(|i| i.index == index)
            .cloned()
    }

    /// Whether `addr` is one of interface `index`'s.
    pub(crate) fn is_own(&self, addr: IpAddr, index: u32) -> bool {
        self.local.read().get(&addr) == Some(&index)
    }

    /// Whether `addr` is this machine.
    pub(crate) fn is_local(&self, addr: IpAddr) -> bool {
        addr.is_loopback() || self.local.read().contains_key(&addr)
    }

    /// Takes `bytes` from the global limit; false when they are not there and this is not a least share.
    pub(crate) fn charge(&self, bytes: usize, least: bool) -> bool {
        self.charge_anyway(bytes);
        if self.exhausted() && !least {
            self.discharge(bytes);
            return false;
        }
        true
    }

    /// As [`Stack::charge`], for what is there already and cannot be refused.
    pub(crate) fn charge_anyway(&self, bytes: usize) {
        let before = self.memory.fetch_add(bytes, Ordering::Relaxed);
        let pressure = self.config.limits.memory / 2;
        if before <= pressure
            && before + bytes > pressure
            && !self.pressed.swap(true, Ordering::Relaxed)
        {
            self.counters.memory_pressures.bump();
        }
    }

    pub(crate) fn discharge(&self, bytes: usize) {
        let before = self.memory.fetch_sub(bytes, Ordering::Relaxed);
        // Somewhat below where it began, so that a value that wavers is one time of pressure, not many.
        let relief = self.config.limits.memory / 8 * 3;
        if before > relief && before - bytes <= relief {
            self.pressed.store(false, Ordering::Relaxed);
        }
    }

    /// Whether half of the limit is used: windows stop growing.
    pub(crate) fn under_pressure(&self) -> bool {
        self.memory() > self.config.limits.memory / 2
    }

    /// Whether all of it is used: new data is dropped, and what lies beyond gaps, and nobody queues more
    /// than a least share. What is queued already stays.
    pub(crate) fn exhausted(&self) -> bool {
        self.memory() > self.config.limits.memory
    }

    pub(crate) fn next_ident(&self) -> u16 {
        self.ident.fetch_add(1, Ordering::Relaxed)
    }

    /// A number no peer can foresee.
    pub(crate) fn random(&self) -> u64 {
        let count = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        crate::hash::sip24(self.secret, &[count, 0x72616e64])
    }
}

fn addr_info(index: u32, addr: &IfAddr, now: u64) -> AddrInfo {
    let left = |end: u64| match end {
        // DHCP's endless lease ends one nanosecond before eternity.
        0xffff_ffff_ffff_fffe.. => u32::MAX,
        at => (at.saturating_sub(now) / 1_000_000_000) as u32,
    };
    AddrInfo {
        index,
        addr: addr.cidr,
        valid_s: left(addr.valid_ns),
        preferred_s: left(addr.preferred_ns),
        permanent: addr.valid_ns == u64::MAX,
        tentative: addr.tentative,
    }
}
