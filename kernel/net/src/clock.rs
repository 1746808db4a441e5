//! The engine's clock: timers of connections, chores of the engine as a whole, and when it wants to be
//! called next.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use crate::iface::Interface;
use crate::path::BUDGET;
use crate::query::Change;
use crate::stack::{CHORES, Chore, Stack, Timer, WHEELS};
use crate::tcp;

impl Stack {
    /// Takes in what the cards have, runs what is due, sends what can be sent, and returns when it
    /// wants to run again, in nanoseconds of its clock. For tests and single-threaded hosts.
    pub fn poll(&self) -> Option<u64> {
        let ifaces: Vec<Arc<Interface>> = self.ifaces.read().clone();
        for iface in &ifaces {
            let Some(nic) = &iface.nic else { continue };
            for queue in 0..nic.queue_count() {
                while self.receive(iface, queue) == BUDGET {}
            }
        }
        self.drain_loopback();
        let next = self.run_timers();
        for iface in &ifaces {
            if let Some(nic) = &iface.nic {
                for queue in 0..nic.queue_count() {
                    iface.flush(queue);
                }
            }
        }
        next
    }

    /// Arms a timer of a connection.
    pub(crate) fn schedule(&self, spread: u64, at: u64, timer: Timer) {
        self.wheels[spread as usize % WHEELS]
            .lock()
            .insert(at, timer);
        self.ask_for_call(at);
    }

    /// Makes a chore due at `at` or before.
    pub(crate) fn arm_chore(&self, chore: Chore, at: u64) {
        self.chores[chore as usize].fetch_min(at, Ordering::AcqRel);
        self.ask_for_call(at);
    }

    pub(crate) fn arm_neighbours(&self, now: u64) {
        if self.chores[Chore::Neighbours as usize].load(Ordering::Acquire) == u64::MAX {
            self.arm_chore(Chore::Neighbours, now + crate::neigh::PROBE_NS);
        }
    }

    /// Sees to it that [`Stack::run_timers`] is called at `at` or before.
    fn ask_for_call(&self, at: u64) {
        if at < self.armed.load(Ordering::Acquire) {
            self.armed.fetch_min(at, Ordering::AcqRel);
            let hook = self.arm_hook.read().clone();
            if let Some(hook) = hook {
                hook(at);
            }
        }
    }

    /// Runs what is due; returns when the next is.
    pub(crate) fn run_timers(&self) -> Option<u64> {
        let now = self.now();
        self.armed.store(u64::MAX, Ordering::Release);
        let mut due = Vec::new();
        for wheel in &self.wheels {
            wheel.lock().advance(now, &mut due);
        }
        for timer in due {
            match timer {
                Timer::Conn(conn) => {
                    if let Some(conn) = conn.upgrade() {
                        conn.on_timer(now);
                    }
                }
                Timer::Half(half) => {
                    if let Some(half) = half.upgrade() {
                        tcp::listen::on_timer(self, &half, now);
                    }
                }
            }
        }
        for chore in 0..CHORES {
            let at = &self.chores[chore];
            if at.load(Ordering::Acquire) <= now {
                at.store(u64::MAX, Ordering::Release);
                self.run_chore(chore, now);
            }
        }
        self.drain_loopback();
        let mut next = u64::MAX;
        for wheel in &self.wheels {
            next = next.min(wheel.lock().next_ns().unwrap_or(u64::MAX));
        }
        for chore in &self.chores {
            next = next.min(chore.load(Ordering::Acquire));
        }
        if next == u64::MAX {
            return None;
        }
        self.ask_for_call(next);
        Some(next)
    }

    fn run_chore(&self, chore: usize, now: u64) {
        const NEIGHBOURS: usize = Chore::Neighbours as usize;
        const TIME_WAIT: usize = Chore::TimeWait as usize;
        const DHCP: usize = Chore::Dhcp as usize;
        const DISCOVERY: usize = Chore::Discovery as usize;
        const MULTICAST: usize = Chore::Multicast as usize;
        const DHCP6: usize = Chore::Dhcp6 as usize;
        const PATH_MTU: usize = Chore::PathMtu as usize;
        match chore {
            NEIGHBOURS => {
                let aged = self.neighbour_cache.age(now);
                for (neighbour, probe) in aged.probes {
                    if let Some(iface) = self.interface(neighbour.index) {
                        self.probe(&iface, neighbour.addr, probe, now);
                    }
                }
                for (neighbour, packets) in aged.given_up {
                    self.tell(&Change::Neighbour(neighbour.info(), true));
                    self.unreachable(packets, now);
                }
                if aged.again {
                    self.arm_chore(Chore::Neighbours, now + crate::neigh::PROBE_NS);
                }
            }
            TIME_WAIT => {
                let next = self.flows.expire(now, |key, wait| {
                    self.tcp_ports.release(key.lport, &wait.binding);
                });
                if let Some(next) = next {
                    self.arm_chore(Chore::TimeWait, next);
                }
            }
            DHCP => self.run_dhcp(now),
            DISCOVERY => self.run_discovery(now),
            MULTICAST => self.run_multicast(now),
            DHCP6 => self.run_dhcp6(now),
            PATH_MTU => {
                if let Some(next) = self.routes.expire_pmtu(now) {
                    self.arm_chore(Chore::PathMtu, next);
                }
            }
            _ => {
                let (failed, next) = self.fragments.lock().expire(now);
                let counters = self.counters();
                let [v4, v6] = failed.map(|n| n as u64);
                counters.ip_reasm_timeout.add(v4);
                counters.ip_reasm_fails.add(v4);
                counters.ip6_reasm_timeout.add(v6);
                counters.ip6_reasm_fails.add(v6);
                if let Some(next) = next {
                    self.arm_chore(Chore::Fragments, next);
                }
            }
        }
    }
}
