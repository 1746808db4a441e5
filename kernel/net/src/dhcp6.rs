//! The DHCPv6 client (RFC 8415): addresses with the other configuration when routers say "managed", the other
//! configuration alone when they say "other". From solicitation through renewal and rebinding to the end of each
//! address; an address that somebody else has is declined; what is held can be released.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::checksum::Sum;
use crate::config::Cidr;
use crate::iface::Interface;
use crate::ip::{IpOut, proto};
use crate::query::Change;
use crate::stack::{Chore, Stack};

/// Where servers send to.
pub(crate) const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const SECOND: u64 = 1_000_000_000;
/// Addresses of one lease that are taken.
const MOST: usize = 8;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION: u8 = 11;

const OPT_CLIENT: u16 = 1;
const OPT_SERVER: u16 = 2;
const OPT_IA: u16 = 3;
const OPT_ADDRESS: u16 = 5;
const OPT_WANTED: u16 = 6;
const OPT_PREFERENCE: u16 = 7;
const OPT_ELAPSED: u16 = 8;
const OPT_STATUS: u16 = 13;
const OPT_RAPID: u16 = 14;
const OPT_DNS: u16 = 23;
const OPT_SEARCH: u16 = 24;
const OPT_REFRESH: u16 = 32;
const OPT_SOL_MAX: u16 = 82;

/// What routers ask for (RFC 4861 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// The "other" flag: no addresses.
    Other,
    /// The "managed" flag.
    Managed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Soliciting,
    Requesting,
    Bound,
    Renewing,
    Rebinding,
    /// Asking for information alone, and having it.
    Asking,
    Informed,
}

/// Retransmission of one kind of message (RFC 8415 §7.6, §15): first and largest time, how often, how long.
struct Pace {
    first: u64,
    most: u64,
    count: u32,
}

impl State {
    fn message(self) -> Option<(u8, Pace)> {
        let pace = |first, most, count| Pace {
            first: first * SECOND,
            most: most * SECOND,
            count,
        };
        Some(match self {
            State::Soliciting => (SOLICIT, pace(1, 3600, u32::MAX)),
            State::Requesting => (REQUEST, pace(1, 30, 10)),
            State::Renewing => (RENEW, pace(10, 600, u32::MAX)),
            State::Rebinding => (REBIND, pace(10, 600, u32::MAX)),
            State::Asking => (INFORMATION, pace(1, 3600, u32::MAX)),
            State::Bound | State::Informed => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    addr: Ipv6Addr,
    preferred_s: u32,
    valid_s: u32,
    valid_until: u64,
}

/// The client of one interface.
pub(crate) struct Dhcp6 {
    index: u32,
    mac: [u8; 6],
    mode: Mode,
    state: State,
    xid: u32,
    started: u64,
    tries: u32,
    wait: u64,
    due: u64,
    /// The server's identifier, once one is chosen.
    server: Vec<u8>,
    preference: u8,
    held: Vec<Held>,
    renew_at: u64,
    rebind_at: u64,
    random: u64,
}

/// What the engine is to do after the client's turn.
enum Action {
    Send(Vec<u8>),
    Put(Held),
    Lose(Ipv6Addr),
    Learn {
        dns: Vec<IpAddr>,
        search: Vec<String>,
    },
}

/// The options in `bytes`, up to one that does not fit.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let [k0, k1, l0, l1, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        if len > rest.len() || all.len() >= 64 {
            break;
        }
        all.push((u16::from_be_bytes([*k0, *k1]), &rest[..len]));
        bytes = &rest[len..];
    }
    all
}

fn find<'a>(all: &[(u16, &'a [u8])], kind: u16) -> Option<&'a [u8]> {
    all.iter().find(|(k, _)| *k == kind).map(|(_, body)| *body)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// A status code; none is success.
fn status(all: &[(u16, &[u8])]) -> u16 {
    match find(all, OPT_STATUS) {
        Some([a, b, ..]) => u16::from_be_bytes([*a, *b]),
        _ => 0,
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, body: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(body);
}

/// An IA_NA's addresses that are valid, its times, and whether the server has none for us.
struct Offer {
    addresses: Vec<(Ipv6Addr, u32, u32)>,
    t1: u32,
    t2: u32,
}

fn offer(all: &[(u16, &[u8])]) -> Option<Offer> {
    let body = find(all, OPT_IA)?;
    let (t1, t2) = (word(body, 4)?, word(body, 8)?);
    let inner = options(body.get(12..)?);
    if status(&inner) != 0 || t1 > t2 && t2 != 0 {
        return None;
    }
    let mut addresses = Vec::new();
    for (_, address) in inner
        .iter()
        .filter(|(kind, _)| *kind == OPT_ADDRESS)
        .take(MOST)
    {
        let octets: [u8; 16] = address.get(..16)?.try_into().ok()?;
        let addr = Ipv6Addr::from(octets);
        let (preferred, valid) = (word(address, 16)?, word(address, 20)?);
        let usable = !addr.is_multicast() && !addr.is_unspecified() && !addr.is_loopback();
        if preferred <= valid && usable && status(&options(&address[24..])) == 0 {
            addresses.push((addr, preferred, valid));
        }
    }
    Some(Offer { addresses, t1, t2 })
}

impl Dhcp6 {
    pub fn new(iface: &Interface, mode: Mode, random: u64, now: u64) -> Dhcp6 {
        let mut client = Dhcp6 {
            index: iface.index,
            mac: iface.mac,
            mode,
            state: State::Soliciting,
            xid: 0,
            started: now,
            tries: 0,
            wait: 0,
            due: now,
            server: Vec::new(),
            preference: 0,
            held: Vec::new(),
            renew_at: u64::MAX,
            rebind_at: u64::MAX,
            random,
        };
        client.restart(now);
        client
    }

    fn next_random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        self.xid = (self.next_random() & 0xff_ffff) as u32;
        self.started = now;
        self.tries = 0;
        self.wait = 0;
        self.due = match state {
            State::Bound => self.renew_at,
            State::Informed => u64::MAX,
            // RFC 8415 §18.2.1: not all at once.
            _ => now + self.next_random() % (SECOND / 4),
        };
    }

    fn restart(&mut self, now: u64) {
        self.server.clear();
        self.preference = 0;
        self.renew_at = u64::MAX;
        self.rebind_at = u64::MAX;
        let first = match self.mode {
            Mode::Managed => State::Soliciting,
            Mode::Other => State::Asking,
        };
        self.enter(first, now);
    }

    /// A message with what all of them carry.
    fn message(&self, kind: u8, addresses: &[Ipv6Addr], now: u64) -> Vec<u8> {
        let mut bytes = alloc::vec![kind];
        bytes.extend_from_slice(&self.xid.to_be_bytes()[1..]);
        // A DUID of the hardware address (DUID-LL): the same after each start.
        let mut duid = alloc::vec![0, 3, 0, 1];
        duid.extend_from_slice(&self.mac);
        put(&mut bytes, OPT_CLIENT, &duid);
        if matches!(kind, REQUEST | RENEW | RELEASE | DECLINE) {
            put(&mut bytes, OPT_SERVER, &self.server);
        }
        let elapsed = (now.saturating_sub(self.started) / (SECOND / 100)).min(0xffff) as u16;
        put(&mut bytes, OPT_ELAPSED, &elapsed.to_be_bytes());
        if kind != INFORMATION {
            // The interface identifies the association; the server chooses the times.
            let mut association = self.index.to_be_bytes().to_vec();
            association.extend_from_slice(&[0; 8]);
            for addr in addresses {
                let mut body = addr.octets().to_vec();
                body.extend_from_slice(&[0; 8]);
                put(&mut association, OPT_ADDRESS, &body);
            }
            put(&mut bytes, OPT_IA, &association);
        }
        if kind == SOLICIT {
            put(&mut bytes, OPT_RAPID, &[]);
        }
        if !matches!(kind, RELEASE | DECLINE) {
            let mut wanted = Vec::new();
            for option in [OPT_DNS, OPT_SEARCH, OPT_REFRESH, OPT_SOL_MAX] {
                wanted.extend_from_slice(&option.to_be_bytes());
            }
            put(&mut bytes, OPT_WANTED, &wanted);
        }
        bytes
    }

    /// What is due now.
    fn turn(&mut self, now: u64, actions: &mut Vec<Action>) {
        let ended: Vec<Held> = (self.held.iter())
            .filter(|h| h.valid_until <= now)
            .copied()
            .collect();
        self.held.retain(|h| h.valid_until > now);
        actions.extend(ended.iter().map(|h| Action::Lose(h.addr)));
        let had = !ended.is_empty();
        if had && self.held.is_empty() {
            self.restart(now);
        } else if now >= self.rebind_at && matches!(self.state, State::Bound | State::Renewing) {
            self.enter(State::Rebinding, now);
        } else if now >= self.renew_at && self.state == State::Bound {
            self.enter(State::Renewing, now);
        } else if self.state == State::Informed && now >= self.renew_at {
            self.restart(now);
        }
        if now < self.due {
            return;
        }
        let Some((kind, pace)) = self.state.message() else {
            self.due = self.renew_at;
            return;
        };
        if self.tries >= pace.count {
            self.restart(now);
            return;
        }
        // RFC 8415 §15: each wait about twice the last, a tenth more or less.
        self.wait = match self.wait {
            0 => pace.first,
            last => (last * 2).min(pace.most),
        };
        let tenth = self.wait / 10;
        self.wait = self.wait - tenth + self.next_random() % (2 * tenth);
        self.tries += 1;
        self.due = now + self.wait;
        let addresses: Vec<Ipv6Addr> = self.held.iter().map(|h| h.addr).collect();
        actions.push(Action::Send(self.message(kind, &addresses, now)));
    }

    /// A received message; false when it is not for this client.
    fn input(&mut self, bytes: &[u8], now: u64, actions: &mut Vec<Action>) -> bool {
        let [kind, x0, x1, x2, rest @ ..] = bytes else {
            return false;
        };
        let all = options(rest);
        let ours = find(&all, OPT_CLIENT).is_some_and(|id| id.get(4..) == Some(&self.mac[..]));
        let Some(server) = find(&all, OPT_SERVER).filter(|id| (3..=130).contains(&id.len())) else {
            return false;
        };
        if !ours || u32::from_be_bytes([0, *x0, *x1, *x2]) != self.xid {
            return false;
        }
        match (*kind, self.state) {
            (ADVERTISE, State::Soliciting) => {
                let Some(offer) =
                    offer(&all).filter(|o| status(&all) == 0 && !o.addresses.is_empty())
                else {
                    return true;
                };
                let preference = find(&all, OPT_PREFERENCE).and_then(|p| p.first()).copied();
                let preference = preference.unwrap_or(0);
                if self.server.is_empty() || preference > self.preference {
                    self.server = server.to_vec();
                    self.preference = preference;
                    self.held.clear();
                    for (addr, _, _) in offer.addresses {
                        // Wished for; nothing is put on the interface before the reply.
                        self.held.push(Held {
                            addr,
                            preferred_s: 0,
                            valid_s: 0,
                            valid_until: u64::MAX,
                        });
                    }
                }
                self.enter(State::Requesting, now);
                self.due = now;
            }
            (REPLY, State::Soliciting) if find(&all, OPT_RAPID).is_none() => {}
            (REPLY, State::Soliciting | State::Requesting | State::Renewing | State::Rebinding) => {
                self.reply(&all, server, now, actions);
            }
            (REPLY, State::Asking) => {
                self.learn(&all, actions);
                // RFC 8415 §21.23: a day, unless the server says another time, at least ten minutes.
                let refresh = find(&all, OPT_REFRESH)
                    .and_then(|r| word(r, 0))
                    .unwrap_or(86_400);
                self.renew_at = match refresh {
                    u32::MAX => u64::MAX,
                    seconds => now + u64::from(seconds.max(600)) * SECOND,
                };
                self.enter(State::Informed, now);
            }
            _ => {}
        }
        true
    }

    fn reply(&mut self, all: &[(u16, &[u8])], server: &[u8], now: u64, actions: &mut Vec<Action>) {
        let renews = matches!(self.state, State::Renewing | State::Rebinding);
        let Some(offer) = offer(all).filter(|_| status(all) == 0) else {
            // No addresses, or no such binding: what is held lasts as long as it does.
            if !renews {
                self.held.clear();
                self.restart(now);
                self.due = now + SECOND;
            }
            return;
        };
        if !renews {
            self.held.clear();
        }
        let mut shortest = u32::MAX;
        for (addr, preferred, valid) in offer.addresses {
            self.held.retain(|h| h.addr != addr);
            if valid == 0 {
                actions.push(Action::Lose(addr));
                continue;
            }
            shortest = shortest.min(preferred.max(1));
            let held = Held {
                addr,
                preferred_s: preferred,
                valid_s: valid,
                valid_until: match valid {
                    u32::MAX => u64::MAX,
                    seconds => now + u64::from(seconds) * SECOND,
                },
            };
            self.held.push(held);
            actions.push(Action::Put(held));
        }
        if self.held.is_empty() {
            self.restart(now);
            self.due = now + SECOND;
            return;
        }
        self.server = server.to_vec();
        // Where the server leaves the times to us: half and four fifths of the shortest preference.
        let share = |given: u32, tenths: u64| match (given, shortest) {
            (0, u32::MAX) | (u32::MAX, _) => u64::MAX,
            (0, shortest) => now + u64::from(shortest) * SECOND * tenths / 10,
            (given, _) => now + u64::from(given) * SECOND,
        };
        self.renew_at = share(offer.t1, 5);
        self.rebind_at = share(offer.t2, 8).max(self.renew_at);
        self.learn(all, actions);
        self.enter(State::Bound, now);
    }

    fn learn(&self, all: &[(u16, &[u8])], actions: &mut Vec<Action>) {
        let mut dns = Vec::new();
        for octets in find(all, OPT_DNS).unwrap_or(&[]).chunks_exact(16).take(8) {
            let mut addr = [0; 16];
            addr.copy_from_slice(octets);
            dns.push(IpAddr::V6(addr.into()));
        }
        let search = crate::dhcp::domains(find(all, OPT_SEARCH).unwrap_or(&[]));
        if !dns.is_empty() || !search.is_empty() {
            actions.push(Action::Learn { dns, search });
        }
    }

    /// When it wants its next turn.
    fn next(&self) -> u64 {
        let ends = self
            .held
            .iter()
            .map(|h| h.valid_until)
            .min()
            .unwrap_or(u64::MAX);
        let turn = match self.state {
            State::Bound | State::Informed => self.renew_at,
            State::Renewing => self.due.min(self.rebind_at),
            _ => self.due,
        };
        turn.min(ends)
    }
}

impl Stack {
    /// A router said how addresses are to be had: starts the client, or makes it ask for more.
    pub(crate) fn want_dhcp6(&self, iface: &Interface, mode: Mode, now: u64) {
        {
            let mut all = self.dhcp6.lock();
            match all.iter_mut().find(|client| client.index == iface.index) {
                Some(client) if client.mode >= mode => return,
                Some(client) => {
                    client.mode = mode;
                    client.restart(now);
                }
                None => all.push(Dhcp6::new(iface, mode, self.random(), now)),
            }
        }
        self.run_dhcp6(now);
    }

    /// Gives every client its turn.
    pub(crate) fn run_dhcp6(&self, now: u64) {
        self.dhcp6_turn(now, |client, actions| {
            client.turn(now, actions);
            true
        });
    }

    /// A datagram to the client's port; false when no client wants it.
    pub(crate) fn dhcp6_input(&self, index: u32, bytes: &[u8], now: u64) -> bool {
        self.dhcp6_turn(now, |client, actions| {
            let taken = client.index == index && client.input(bytes, now, actions);
            if taken {
                client.turn(now, actions);
            }
            taken
        })
    }

    /// Somebody else has an address that a server gave us: the server is told, and gives another.
    pub(crate) fn dhcp6_decline(&self, index: u32, addr: Ipv6Addr, now: u64) {
        self.dhcp6_turn(now, |client, actions| {
            let mine = client.index == index && client.held.iter().any(|h| h.addr == addr);
            if mine {
                client.xid = (client.next_random() & 0xff_ffff) as u32;
                actions.push(Action::Send(client.message(DECLINE, &[addr], now)));
                client.held.retain(|h| h.addr != addr);
                if client.held.is_empty() {
                    client.restart(now);
                    client.due = now + SECOND;
                }
            }
            mine
        });
    }

    /// Gives back what servers gave. For the end of the machine: no answer is waited for.
    pub fn release_leases(&self) {
        let now = self.now();
        self.dhcp6_turn(now, |client, actions| {
            let bound = matches!(
                client.state,
                State::Bound | State::Renewing | State::Rebinding
            );
            if bound && !client.held.is_empty() {
                let addresses: Vec<Ipv6Addr> = client.held.iter().map(|h| h.addr).collect();
                client.xid = (client.next_random() & 0xff_ffff) as u32;
                actions.push(Action::Send(client.message(RELEASE, &addresses, now)));
                // The message goes out before the address does.
                actions.extend(addresses.into_iter().map(Action::Lose));
                client.held.clear();
                client.mode = Mode::Other;
                client.enter(State::Informed, now);
                client.renew_at = u64::MAX;
            }
            bound
        });
    }

    fn dhcp6_turn(
        &self,
        now: u64,
        mut f: impl FnMut(&mut Dhcp6, &mut Vec<Action>) -> bool,
    ) -> bool {
        let mut all: Vec<(u32, Action)> = Vec::new();
        let mut any = false;
        let mut next = u64::MAX;
        for client in self.dhcp6.lock().iter_mut() {
            let mut actions = Vec::new();
            any |= f(client, &mut actions);
            next = next.min(client.next());
            all.extend(actions.into_iter().map(|a| (client.index, a)));
        }
        for (index, action) in all {
            self.dhcp6_action(index, action, now);
        }
        if next != u64::MAX {
            self.arm_chore(Chore::Dhcp6, next);
        }
        any
    }

    fn dhcp6_action(&self, index: u32, action: Action, now: u64) {
        let Some(iface) = self.interface(index) else {
            return;
        };
        let cidr = |addr: Ipv6Addr| Cidr {
            addr: addr.into(),
            prefix: 128,
        };
        match action {
            Action::Send(bytes) => self.dhcp6_send(&iface, &bytes, now),
            Action::Put(held) => {
                let (valid, preferred) = (held.valid_s, held.preferred_s);
                let known = self.set_lifetimes(index, cidr(held.addr), valid, preferred);
                if known.is_err() {
                    // Another address of the interface may be the same: it stays as it is.
                    let _ = self.add_address_for(index, cidr(held.addr), valid, preferred);
                }
            }
            Action::Lose(addr) => {
                let _ = self.remove_address(index, cidr(addr));
            }
            Action::Learn { dns, search } => {
                self.take_servers(index, dns);
                let told = {
                    let mut leases = self.leases.write();
                    let lease = leases.iter_mut().find(|l| l.index == index);
                    lease
                        .filter(|l| !search.is_empty() && l.search != search)
                        .map(|lease| {
                            lease.search = search;
                            lease.clone()
                        })
                };
                if let Some(lease) = told {
                    self.tell(&Change::Lease(lease));
                }
            }
        }
    }

    fn dhcp6_send(&self, iface: &Interface, bytes: &[u8], now: u64) {
        let Some(src) = iface.link_local() else {
            return;
        };
        let len = bytes.len() + 8;
        let mut udp = Vec::with_capacity(len);
        udp.extend_from_slice(&CLIENT_PORT.to_be_bytes());
        udp.extend_from_slice(&SERVER_PORT.to_be_bytes());
        udp.extend_from_slice(&(len as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(bytes);
        let sum = Sum::pseudo(src.into(), SERVERS.into(), proto::UDP, len)
            .bytes(&udp)
            .finish();
        udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        let out = IpOut {
            src: src.into(),
            dst: SERVERS.into(),
            proto: proto::UDP,
            ttl: 1,
            tos: 0,
            df: false,
            ident: 0,
        };
        self.send_datagram(&out, &udp, iface.index, now);
    }
}
