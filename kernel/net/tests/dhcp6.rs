//! DHCPv6 by script: a router says how, a server of the test answers.

mod common;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use common::{SECOND, SimNic, Weather, World, fold};
use net::nic::RxChecksum;
use net::{IfConfig, Ipv6Config, Stack};

struct Net {
    world: World,
    stack: Arc<Stack>,
    nic: Arc<SimNic>,
    index: u32,
}

fn addr(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A frame with an IPv6 packet whose checksum lies at `sum` of the payload.
fn frame(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8], sum: usize) -> Vec<u8> {
    let mut f = vec![
        2, 0, 0, 0, 0, 0x55, 2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0,
    ];
    f.extend((payload.len() as u16).to_be_bytes());
    f.extend([next, hops]);
    f.extend(from.octets());
    f.extend(to.octets());
    f.extend(payload);
    let pseudo = u32::from(fold(&f[22..54], u32::from(next) + payload.len() as u32));
    let value = !fold(&f[54..], pseudo);
    f[54 + sum..56 + sum].copy_from_slice(&value.to_be_bytes());
    f
}

fn option(kind: u16, body: &[u8]) -> Vec<u8> {
    [
        &kind.to_be_bytes()[..],
        &(body.len() as u16).to_be_bytes(),
        body,
    ]
    .concat()
}

/// The body of an option in a message of the client.
fn find(message: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut rest = &message[4..];
    while rest.len() >= 4 {
        let kind = u16::from_be_bytes([rest[0], rest[1]]);
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if kind == wanted {
            return Some(rest[4..4 + len].to_vec());
        }
        rest = &rest[4 + len..];
    }
    None
}

fn association(address: &str, t1: u32, t2: u32, preferred: u32, valid: u32) -> Vec<u8> {
    let mut body = 2u32.to_be_bytes().to_vec();
    body.extend(t1.to_be_bytes());
    body.extend(t2.to_be_bytes());
    let mut inner = addr(address).octets().to_vec();
    inner.extend(preferred.to_be_bytes());
    inner.extend(valid.to_be_bytes());
    body.extend(option(5, &inner));
    option(3, &body)
}

impl Net {
    fn new(flags: u8) -> Net {
        let mut world = World::new(1, Weather::default(), [false, false]);
        let stack = world.stacks[0].clone();
        let nic = SimNic::new(0x55, 1500, false);
        let config = IfConfig {
            ipv6: Ipv6Config::Auto,
            ..IfConfig::default()
        };
        let index = stack.add_interface("en2", nic.clone(), config).unwrap();
        world.run(3 * SECOND);
        nic.take_sent();
        let advert = [134, 0, 0, 0, 64, flags, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        let advert = frame(addr("fe80::1"), addr("ff02::1"), 58, 255, &advert, 2);
        nic.inject(&advert, RxChecksum::Unknown);
        world.run(SECOND / 2);
        Net {
            world,
            stack,
            nic,
            index,
        }
    }

    /// The messages the client sent.
    fn sent(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for f in self.nic.take_sent() {
            if f[12..14] == [0x86, 0xdd] && f[20] == 17 && f[56..58] == 547u16.to_be_bytes() {
                assert_eq!(f[..6], [0x33, 0x33, 0, 1, 0, 2]);
                assert_eq!(f[38..54], addr("ff02::1:2").octets());
                let pseudo = u32::from(fold(&f[22..54], 17 + (f.len() - 54) as u32));
                assert_eq!(fold(&f[54..], pseudo), 0xffff);
                all.push(f[62..].to_vec());
            }
        }
        all
    }

    fn one(&self, kind: u8) -> Vec<u8> {
        let mut all = self.sent();
        assert_eq!(all.iter().map(|m| m[0]).collect::<Vec<_>>(), [kind]);
        all.remove(0)
    }

    fn answer(&mut self, kind: u8, to: &[u8], options: &[Vec<u8>]) {
        let mut message = vec![kind, to[1], to[2], to[3]];
        message.extend(option(1, &find(to, 1).unwrap()));
        message.extend(option(2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9]));
        message.extend(options.concat());
        let mut udp = vec![2, 0x23, 2, 0x22];
        udp.extend(((message.len() + 8) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(message);
        let own = addr("fe80::ff:fe00:55");
        let f = frame(addr("fe80::1"), own, 17, 64, &udp, 6);
        self.nic.inject(&f, RxChecksum::Unknown);
        self.world.run(SECOND / 100);
    }

    fn has(&self, text: &str) -> bool {
        let wanted: IpAddr = text.parse().unwrap();
        self.stack
            .addresses()
            .iter()
            .any(|a| a.index == self.index && a.addr.addr == wanted)
    }

    /// From solicitation to a lease of 1000 seconds, renewed after 100, rebound after 200.
    fn bind(&mut self) {
        let solicit = self.one(1);
        self.answer(
            2,
            &solicit,
            &[association("2001:db8::77", 100, 200, 500, 1000)],
        );
        let request = self.one(3);
        assert_eq!(find(&request, 2).unwrap(), [0, 3, 0, 1, 2, 0, 0, 0, 0, 9]);
        let dns = option(23, &addr("2001:db8::53").octets());
        let search = option(24, b"\x03lan\x04test\x00");
        let given = association("2001:db8::77", 100, 200, 500, 1000);
        self.answer(7, &request, &[given, dns, search]);
        assert!(self.has("2001:db8::77"));
    }
}

#[test]
fn an_address_is_had_renewed_rebound_and_lost() {
    let mut n = Net::new(0x80);
    n.bind();
    let lease = n
        .stack
        .leases()
        .into_iter()
        .find(|l| l.index == n.index)
        .unwrap();
    assert_eq!(lease.dns, [IpAddr::V6(addr("2001:db8::53"))]);
    assert_eq!(lease.search, ["lan.test"]);
    n.world.run(99 * SECOND);
    assert!(n.sent().is_empty());
    n.world.run(2 * SECOND);
    let renew = n.one(5);
    assert_eq!(
        find(&renew, 3).unwrap()[16..32],
        addr("2001:db8::77").octets()
    );
    n.answer(
        7,
        &renew,
        &[association("2001:db8::77", 100, 200, 500, 1000)],
    );
    // Nobody answers: renewals to the server, then to all, then the end.
    n.world.run(101 * SECOND);
    assert!(n.sent().iter().all(|m| m[0] == 5 && find(m, 2).is_some()));
    n.world.run(100 * SECOND);
    assert_eq!(
        n.sent().last().map(|m| (m[0], find(m, 2).is_some())),
        Some((6, false))
    );
    assert!(n.has("2001:db8::77"));
    n.world.run(800 * SECOND);
    assert!(!n.has("2001:db8::77"));
    assert_eq!(n.sent().last().map(|m| m[0]), Some(1));
}

#[test]
fn solicitations_are_repeated_more_and_more_slowly() {
    let mut n = Net::new(0x80);
    n.world.run(100 * SECOND);
    let all = n.sent();
    assert!((6..=8).contains(&all.len()), "{}", all.len());
    assert!(all.iter().all(|m| m[0] == 1));
    // An answer to somebody else, one of no addresses, a malformed one.
    let last = all.last().unwrap().clone();
    let mut other = last.clone();
    other[3] ^= 1;
    n.answer(2, &other, &[association("2001:db8::77", 0, 0, 500, 1000)]);
    let nothing = option(
        3,
        &[
            &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &option(13, &[0, 2]),
        ]
        .concat(),
    );
    n.answer(2, &last, &[nothing]);
    n.answer(2, &last, &[option(3, &[0, 0, 0, 2])]);
    n.answer(2, &last, &[association("2001:db8::77", 0, 0, 2000, 1000)]);
    assert!(n.sent().iter().all(|m| m[0] == 1));
}

#[test]
fn only_what_else_there_is_is_asked_for() {
    let mut n = Net::new(0x40);
    let ask = n.one(11);
    assert_eq!(find(&ask, 3), None);
    let dns = option(23, &addr("2001:db8::53").octets());
    n.answer(7, &ask, &[dns, option(32, &700u32.to_be_bytes())]);
    assert_eq!(n.stack.leases()[0].dns, [IpAddr::V6(addr("2001:db8::53"))]);
    n.world.run(690 * SECOND);
    assert!(n.sent().is_empty());
    n.world.run(10 * SECOND + SECOND / 2);
    assert_eq!(n.one(11)[0], 11);
}

#[test]
fn nothing_is_asked_without_the_router_saying_so() {
    let mut n = Net::new(0);
    n.world.run(20 * SECOND);
    assert!(n.sent().is_empty());
}

#[test]
fn an_address_that_is_taken_is_declined() {
    let mut n = Net::new(0x80);
    n.bind();
    // Its owner answers the check.
    let mut advert = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    advert.extend(addr("2001:db8::77").octets());
    let f = frame(addr("2001:db8::77"), addr("ff02::1"), 58, 255, &advert, 2);
    n.nic.inject(&f, RxChecksum::Unknown);
    n.world.run(SECOND / 10);
    assert!(!n.has("2001:db8::77"));
    let decline = n.one(9);
    assert_eq!(
        find(&decline, 3).unwrap()[16..32],
        addr("2001:db8::77").octets()
    );
    n.world.run(SECOND + SECOND / 2);
    assert_eq!(n.one(1)[0], 1);
}

#[test]
fn what_is_held_is_given_back() {
    let mut n = Net::new(0x80);
    n.bind();
    n.world.run(2 * SECOND);
    n.stack.release_leases();
    n.world.run(SECOND / 10);
    let release = n.one(8);
    assert_eq!(
        find(&release, 3).unwrap()[16..32],
        addr("2001:db8::77").octets()
    );
    assert!(!n.has("2001:db8::77"));
    n.world.run(2000 * SECOND);
    assert!(n.sent().is_empty());
}
