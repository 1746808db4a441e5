//! The engine as its users hold it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};

use crate::config::{Cidr, Config, IfConfig};
use crate::nic::Nic;
use crate::query::{AddrInfo, Change, LinkInfo, NeighbourInfo, RouteInfo, SocketInfo};
use crate::socket::{Family, Kind, Socket};
use crate::stats::Counters;

/// A network engine: interfaces, addresses, routes, connections. A kernel has one; tests make many.
pub struct Stack {
    config: Config,
    counters: Counters,
}

impl Stack {
    /// An engine with `lo` up and nothing else.
    pub fn new(config: Config) -> Arc<Stack> {
        Arc::new(Stack {
            config,
            counters: Counters::default(),
        })
    }

    /// Adds an interface and starts its configuration; returns its index.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub fn add_interface(&self, name: &str, nic: Arc<dyn Nic>, config: IfConfig) -> Result<u32> {
        let _ = (name, nic, config);
        Err(Errno::ENOSYS)
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
        let _ = (family, kind, protocol);
        Err(Errno::EPROTONOSUPPORT)
    }

    /// Takes in what the cards have, runs what is due, sends what can be sent, and returns when it
    /// wants to run again, in nanoseconds of its clock. For tests and single-threaded hosts.
    pub fn poll(&self) -> Option<u64> {
        None
    }

    /// Calls `observer` on every change of links, addresses, routes, neighbours and leases. It is
    /// called without a lock held.
    pub fn observe(&self, observer: Box<dyn Fn(&Change) + Send + Sync>) {
        let _ = observer;
    }

    /// All interfaces.
    pub fn links(&self) -> Vec<LinkInfo> {
        Vec::new()
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<AddrInfo> {
        Vec::new()
    }

    /// All routes.
    pub fn routes(&self) -> Vec<RouteInfo> {
        Vec::new()
    }

    /// The neighbour cache.
    pub fn neighbours(&self) -> Vec<NeighbourInfo> {
        Vec::new()
    }

    /// Adds an address.
    ///
    /// # Errors
    /// `EEXIST`, `ENODEV`.
    pub fn add_address(&self, index: u32, addr: Cidr) -> Result<()> {
        let _ = (index, addr);
        Err(Errno::ENODEV)
    }

    /// Removes an address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`, `ENODEV`.
    pub fn remove_address(&self, index: u32, addr: Cidr) -> Result<()> {
        let _ = (index, addr);
        Err(Errno::ENODEV)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// `EEXIST`, `ENODEV`, `ENETUNREACH` when the gateway is not on a link.
    pub fn add_route(&self, route: RouteInfo) -> Result<()> {
        let _ = route;
        Err(Errno::ENODEV)
    }

    /// Removes a route.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn remove_route(&self, route: &RouteInfo) -> Result<()> {
        let _ = route;
        Err(Errno::ESRCH)
    }

    /// Every TCP socket that has a local port.
    pub fn tcp_sockets(&self) -> Vec<SocketInfo> {
        Vec::new()
    }

    /// Every UDP socket that has a local port.
    pub fn udp_sockets(&self) -> Vec<SocketInfo> {
        Vec::new()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the engine was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
