//! The filter language of captures, a part of `pcap-filter(7)`.
//!
//! `ip`, `ip6`, `arp`, `tcp`, `udp`, `icmp`, `icmp6`; `host A`, `net A/N`, `port N`, `portrange N-M`, each with `src` or
//! `dst` and with a protocol before it; `less N`, `greater N`; `and`, `or`, `not` (`&&`, `||`, `!`) and parentheses. As
//! there, `and` and `or` bind alike, from left to right, and a value without a keyword has the one before it
//! (`port 80 or 443`). Frames are hostile: whatever does not fit does not match.
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest expression, in bytes.
const MAX_TEXT: usize = 2048;
/// The most conditions and operators.
const MAX_NODES: usize = 256;
/// How deep parentheses and negations may nest.
const MAX_DEPTH: usize = 32;

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    All,
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Protocol(Protocol),
    Host(Option<Protocol>, Direction, Net),
    Ports(Option<Protocol>, Direction, u16, u16),
    Shorter(usize),
    Longer(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Ip,
    Ip6,
    Arp,
    Tcp,
    Udp,
    Icmp,
    Icmp6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Either,
    Source,
    Destination,
    Both,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    addr: IpAddr,
    len: u8,
}

impl Net {
    fn contains(&self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.len.min(32));
                (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.len.min(128));
                (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// What a filter looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct View {
    ethertype: u16,
    addresses: Option<(IpAddr, IpAddr)>,
    protocol: Option<u8>,
    ports: Option<(u16, u16)>,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn ipv4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let b = bytes.get(at..at + 4)?;
    Some(Ipv4Addr::new(b[0], b[1], b[2], b[3]).into())
}

fn ipv6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let b: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(b).into())
}

impl View {
    /// Reads the headers of an Ethernet frame as far as they are there.
    fn of(frame: &[u8]) -> View {
        let mut view = View::default();
        let mut at = 12;
        let mut ethertype = half(frame, at);
        // Up to two VLAN tags.
        for _ in 0..2 {
            if matches!(ethertype, Some(0x8100 | 0x88a8)) {
                at += 4;
                ethertype = half(frame, at);
            }
        }
        let Some(ethertype) = ethertype else {
            return view;
        };
        view.ethertype = ethertype;
        let payload = frame.get(at + 2..).unwrap_or(&[]);
        let _ = match ethertype {
            IPV4 => view.read_ipv4(payload),
            IPV6 => view.read_ipv6(payload),
            ARP => view.read_arp(payload),
            _ => None,
        };
        view
    }

    fn read_ipv4(&mut self, ip: &[u8]) -> Option<()> {
        let first = *ip.first()?;
        if first >> 4 != 4 {
            return None;
        }
        self.addresses = Some((ipv4(ip, 12)?, ipv4(ip, 16)?));
        let protocol = *ip.get(9)?;
        self.protocol = Some(protocol);
        // Ports are in the first fragment only.
        if half(ip, 6)? & 0x1fff == 0 {
            self.read_ports(protocol, ip.get(usize::from(first & 15) * 4..)?);
        }
        Some(())
    }

    fn read_ipv6(&mut self, ip: &[u8]) -> Option<()> {
        if *ip.first()? >> 4 != 6 {
            return None;
        }
        self.addresses = Some((ipv6(ip, 8)?, ipv6(ip, 24)?));
        let mut next = *ip.get(6)?;
        let mut at = 40;
        for _ in 0..8 {
            self.protocol = Some(next);
            match next {
                // Hop-by-hop, routing, destination options.
                0 | 43 | 60 => {
                    let len = usize::from(*ip.get(at + 1)?);
                    next = *ip.get(at)?;
                    at += 8 + len * 8;
                }
                // Fragment.
                44 => {
                    let later = half(ip, at + 2)? & 0xfff8 != 0;
                    next = *ip.get(at)?;
                    at += 8;
                    if later {
                        self.protocol = Some(next);
                        return Some(());
                    }
                }
                protocol => {
                    self.read_ports(protocol, ip.get(at..)?);
                    return Some(());
                }
            }
        }
        Some(())
    }

    fn read_ports(&mut self, protocol: u8, segment: &[u8]) {
        // 132 is SCTP, 136 UDP-Lite.
        if matches!(protocol, TCP | UDP | 132 | 136) {
            self.ports = half(segment, 0).zip(half(segment, 2));
        }
    }

    fn read_arp(&mut self, arp: &[u8]) -> Option<()> {
        // Ethernet and IPv4 addresses.
        if half(arp, 0)? == 1 && half(arp, 2)? == IPV4 && arp.get(4..6)? == [6, 4] {
            self.addresses = Some((ipv4(arp, 14)?, ipv4(arp, 24)?));
        }
        Some(())
    }

    fn is(&self, protocol: Protocol) -> bool {
        let over = |ethertype: u16, number: u8| {
            self.ethertype == ethertype && self.protocol == Some(number)
        };
        match protocol {
            Protocol::Ip => self.ethertype == IPV4,
            Protocol::Ip6 => self.ethertype == IPV6,
            Protocol::Arp => self.ethertype == ARP,
            Protocol::Tcp => over(IPV4, TCP) || over(IPV6, TCP),
            Protocol::Udp => over(IPV4, UDP) || over(IPV6, UDP),
            Protocol::Icmp => over(IPV4, 1),
            Protocol::Icmp6 => over(IPV6, 58),
        }
    }
}

impl Direction {
    fn holds<T: Copy>(self, pair: Option<(T, T)>, test: impl Fn(T) -> bool) -> bool {
        pair.is_some_and(|(source, destination)| match self {
            Direction::Either => test(source) || test(destination),
            Direction::Source => test(source),
            Direction::Destination => test(destination),
            Direction::Both => test(source) && test(destination),
        })
    }
}

impl Expr {
    fn matches(&self, view: &View, len: usize) -> bool {
        let is = |protocol: &Option<Protocol>| protocol.is_none_or(|p| view.is(p));
        match self {
            Expr::All => true,
            Expr::Not(inner) => !inner.matches(view, len),
            Expr::And(a, b) => a.matches(view, len) && b.matches(view, len),
            Expr::Or(a, b) => a.matches(view, len) || b.matches(view, len),
            Expr::Protocol(protocol) => view.is(*protocol),
            Expr::Host(protocol, direction, net) => {
                is(protocol) && direction.holds(view.addresses, |addr| net.contains(addr))
            }
            Expr::Ports(protocol, direction, low, high) => {
                is(protocol) && direction.holds(view.ports, |port| (*low..=*high).contains(&port))
            }
            Expr::Shorter(limit) => len <= *limit,
            Expr::Longer(limit) => len >= *limit,
        }
    }
}

impl Filter {
    /// Compiles an expression; an empty one lets everything through.
    ///
    /// # Errors
    /// A message for the one who wrote it.
    pub fn parse(text: &str) -> Result<Filter, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("the filter is longer than {MAX_TEXT} bytes"));
        }
        let mut parser = Parser {
            words: words(text),
            at: 0,
            nodes: 0,
            last: None,
        };
        if parser.words.is_empty() {
            return Ok(Filter(Expr::All));
        }
        let expr = parser.expression(0)?;
        match parser.peek() {
            None => Ok(Filter(expr)),
            Some(word) => Err(format!("{word:?} was not expected")),
        }
    }

    /// Whether the expression asks about `port`.
    pub fn names_port(&self, port: u16) -> bool {
        fn within(expr: &Expr, port: u16) -> bool {
            match expr {
                Expr::Ports(_, _, low, high) => (*low..=*high).contains(&port),
                Expr::Not(inner) => within(inner, port),
                Expr::And(a, b) | Expr::Or(a, b) => within(a, port) || within(b, port),
                _ => false,
            }
        }
        within(&self.0, port)
    }

    /// Whether a frame is of a TCP connection with `port` at one end.
    pub fn is_tcp_port(frame: &[u8], port: u16) -> bool {
        let view = View::of(frame);
        view.is(Protocol::Tcp) && Direction::Either.holds(view.ports, |p| p == port)
    }

    /// Whether a frame is wanted: its beginning, from the Ethernet header on, and its whole length.
    pub fn matches(&self, frame: &[u8], len: usize) -> bool {
        match &self.0 {
            Expr::All => true,
            expr => expr.matches(&View::of(frame), len),
        }
    }
}

/// Words; parentheses and operators of signs are words of their own.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '(' | ')' | '!' => 1,
            '&' | '|' => rest.find(|c: char| c != first).unwrap_or(rest.len()).min(2),
            _ => rest
                .find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '!' | '&' | '|'))
                .unwrap_or(rest.len()),
        };
        words.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    words
}

/// What a value means: the qualifiers before it.
#[derive(Clone, Copy)]
struct Qualifiers {
    protocol: Option<Protocol>,
    direction: Direction,
    kind: ValueKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Host,
    Net,
    Port,
    PortRange,
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    nodes: usize,
    last: Option<Qualifiers>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Result<&'a str, String> {
        let word = self.peek().ok_or("the filter ends too early")?;
        self.at += 1;
        Ok(word)
    }

    fn eat(&mut self, wanted: &[&str]) -> bool {
        let found = self.peek().is_some_and(|word| wanted.contains(&word));
        self.at += usize::from(found);
        found
    }

    fn count(&mut self) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("the filter has more than {MAX_NODES} conditions"));
        }
        Ok(())
    }

    fn expression(&mut self, depth: usize) -> Result<Expr, String> {
        let mut left = self.term(depth)?;
        loop {
            let and = self.eat(&["and", "&&"]);
            if !and && !self.eat(&["or", "||"]) {
                return Ok(left);
            }
            self.count()?;
            let right = Box::new(self.term(depth)?);
            left = if and {
                Expr::And(Box::new(left), right)
            } else {
                Expr::Or(Box::new(left), right)
            };
        }
    }

    fn term(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > MAX_DEPTH {
            return Err("the filter is nested too deeply".into());
        }
        self.count()?;
        if self.eat(&["not", "!"]) {
            return Ok(Expr::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.eat(&["("]) {
            let inner = self.expression(depth + 1)?;
            return if self.eat(&[")"]) {
                Ok(inner)
            } else {
                Err("a parenthesis is not closed".into())
            };
        }
        self.primitive()
    }

    fn primitive(&mut self) -> Result<Expr, String> {
        if self.eat(&["less"]) {
            return Ok(Expr::Shorter(number(self.next()?)?));
        }
        if self.eat(&["greater"]) {
            return Ok(Expr::Longer(number(self.next()?)?));
        }
        let protocol = self.peek().and_then(protocol);
        self.at += usize::from(protocol.is_some());
        let direction = self.direction()?;
        let kind = match self.peek() {
            Some("host") => Some(ValueKind::Host),
            Some("net") => Some(ValueKind::Net),
            Some("port") => Some(ValueKind::Port),
            Some("portrange") => Some(ValueKind::PortRange),
            _ => None,
        };
        self.at += usize::from(kind.is_some());
        let qualifiers = match (protocol, direction, kind) {
            (Some(protocol), None, None) => return Ok(Expr::Protocol(protocol)),
            (protocol, direction, Some(kind)) => Qualifiers {
                protocol,
                direction: direction.unwrap_or(Direction::Either),
                kind,
            },
            // `src A` is `src host A`.
            (protocol, Some(direction), None) => Qualifiers {
                protocol,
                direction,
                kind: ValueKind::Host,
            },
            (None, None, None) => self.last.unwrap_or(Qualifiers {
                protocol: None,
                direction: Direction::Either,
                kind: ValueKind::Host,
            }),
        };
        let word = self.next()?;
        let expr = value(qualifiers, word)?;
        self.last = Some(qualifiers);
        Ok(expr)
    }

    fn direction(&mut self) -> Result<Option<Direction>, String> {
        let first = match self.peek() {
            Some("src") => Direction::Source,
            Some("dst") => Direction::Destination,
            _ => return Ok(None),
        };
        self.at += 1;
        // `src or dst`, `src and dst`.
        let both = match self.words.get(self.at..self.at + 2) {
            Some(["or", "dst" | "src"]) => Some(Direction::Either),
            Some(["and", "dst" | "src"]) => Some(Direction::Both),
            _ => None,
        };
        let kind = self.words.get(self.at + 2).copied();
        if let Some(both) = both
            && first == Direction::Source
            && !matches!(kind, None | Some("and" | "or"))
            && self.words[self.at + 1] == "dst"
        {
            self.at += 2;
            return Ok(Some(both));
        }
        Ok(Some(first))
    }
}

fn protocol(word: &str) -> Option<Protocol> {
    Some(match word {
        "ip" => Protocol::Ip,
        "ip6" => Protocol::Ip6,
        "arp" => Protocol::Arp,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "icmp6" => Protocol::Icmp6,
        _ => return None,
    })
}

fn number<T: core::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

fn port(word: &str) -> Result<u16, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is no port number"))
}

fn value(qualifiers: Qualifiers, word: &str) -> Result<Expr, String> {
    let Qualifiers {
        protocol,
        direction,
        kind,
    } = qualifiers;
    match kind {
        ValueKind::Host => {
            let addr: IpAddr = word
                .parse()
                .map_err(|_| format!("{word:?} is no address"))?;
            let len = if addr.is_ipv4() { 32 } else { 128 };
            Ok(Expr::Host(protocol, direction, Net { addr, len }))
        }
        ValueKind::Net => {
            let wrong = || format!("{word:?} is no network: write ADDRESS/LENGTH");
            let (addr, len) = word.split_once('/').ok_or_else(wrong)?;
            let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
            let len: u8 = len.parse().map_err(|_| wrong())?;
            if len > if addr.is_ipv4() { 32 } else { 128 } {
                return Err(wrong());
            }
            Ok(Expr::Host(protocol, direction, Net { addr, len }))
        }
        ValueKind::Port | ValueKind::PortRange => {
            let over = [None, Some(Protocol::Tcp), Some(Protocol::Udp)];
            let over_ip = [Some(Protocol::Ip), Some(Protocol::Ip6)];
            if !over.contains(&protocol) && !over_ip.contains(&protocol) {
                return Err("only tcp and udp have ports".into());
            }
            let (low, high) = match (kind, word.split_once('-')) {
                (ValueKind::PortRange, Some((low, high))) => (port(low)?, port(high)?),
                _ => (port(word)?, port(word)?),
            };
            if low > high {
                return Err(format!("{word:?} ends before it begins"));
            }
            Ok(Expr::Ports(protocol, direction, low, high))
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
