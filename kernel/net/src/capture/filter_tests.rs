//! The filter language on made-up frames, and on noise.
use alloc::vec;

use super::*;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn over_ipv4(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0];
    ip.extend(offset.to_be_bytes());
    ip.extend([64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    ip.extend(payload);
    ethernet(IPV4, &ip)
}

fn over_ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    ip.extend(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0x15).octets());
    ip.extend(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2).octets());
    ip.extend(payload);
    ethernet(IPV6, &ip)
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut head = source.to_be_bytes().to_vec();
    head.extend(destination.to_be_bytes());
    head.extend([0; 16]);
    head
}

fn http() -> Vec<u8> {
    over_ipv4(TCP, 0, &ports(40000, 80))
}

fn dns6() -> Vec<u8> {
    // Behind a hop-by-hop header of eight bytes.
    let mut payload = vec![UDP, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(ports(53, 5000));
    over_ipv6(0, &payload)
}

fn who_has() -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([0; 6]);
    arp.extend([10, 0, 2, 15]);
    arp.extend([0; 6]);
    arp.extend([10, 0, 2, 3]);
    ethernet(ARP, &arp)
}

fn matches(text: &str, frame: &[u8]) -> bool {
    Filter::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .matches(frame, frame.len())
}

#[test]
fn protocols_addresses_and_ports() {
    let frame = http();
    for yes in [
        "",
        "ip",
        "tcp",
        "tcp port 80",
        "port 80",
        "dst port 80",
        "src port 40000",
        "host 10.0.2.2",
        "src host 10.0.2.15",
        "dst 10.0.2.2",
        "ip host 10.0.2.15",
        "net 10.0.0.0/8",
        "src net 10.0.2.15/32",
        "net 0.0.0.0/0",
        "portrange 79-81",
        "src or dst port 80",
        "src and dst net 10.0.2.0/24",
        "port 22 or 80",
        "tcp port 22 or 80",
        "not udp and not arp",
        "!(udp || arp)&&tcp",
        "host 10.0.2.2 and (port 80 or port 443)",
        "less 100 and greater 20",
        "10.0.2.2",
    ] {
        assert!(matches(yes, &frame), "{yes}");
    }
    for no in [
        "ip6",
        "udp",
        "icmp",
        "arp",
        "src port 80",
        "udp port 80",
        "src host 10.0.2.2",
        "net 192.168.0.0/16",
        "ip6 host 10.0.2.2",
        "arp host 10.0.2.2",
        "not tcp",
        "port 22 or 443",
        "src and dst host 10.0.2.2",
        "less 10",
        "net ::/0",
        "src port 80 or src port 81",
        // From left to right: (tcp or udp) and udp.
        "tcp or udp and udp",
    ] {
        assert!(!matches(no, &frame), "{no}");
    }
}

#[test]
fn the_ports_of_an_expression_are_known() {
    let names = |text: &str, port| Filter::parse(text).unwrap().names_port(port);
    assert!(names("tcp and not (host 10.0.0.1 or port 9090)", 9090));
    assert!(names("portrange 9000-9100", 9090));
    assert!(!names("tcp port 80", 9090) && !names("", 9090));
    assert!(Filter::is_tcp_port(&http(), 80) && Filter::is_tcp_port(&http(), 40000));
    assert!(!Filter::is_tcp_port(&http(), 81) && !Filter::is_tcp_port(&dns6(), 53));
}

#[test]
fn ipv6_behind_extension_headers_arp_and_vlans() {
    let frame = dns6();
    assert!(matches("ip6 and udp and src port 53", &frame));
    assert!(matches("net fec0::/16 and host fec0::2", &frame));
    assert!(!matches("icmp6", &frame) && !matches("tcp", &frame));
    assert!(matches("icmp6", &over_ipv6(58, &[128, 0])));
    assert!(matches("arp and host 10.0.2.3", &who_has()));
    assert!(matches("src 10.0.2.15", &who_has()));
    assert!(!matches("ip host 10.0.2.3", &who_has()));
    let mut tagged = http();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert!(matches("tcp port 80", &tagged));
}

#[test]
fn a_later_fragment_has_no_ports() {
    assert!(!matches("port 80", &over_ipv4(TCP, 100, &ports(1, 80))));
    assert!(matches("tcp", &over_ipv4(TCP, 100, &ports(1, 80))));
    // A fragment header of the first and of a later fragment.
    let fragment = |offset: u8| {
        let mut payload = vec![TCP, 0, 0, offset, 0, 0, 0, 0];
        payload.extend(ports(1, 80));
        over_ipv6(44, &payload)
    };
    assert!(matches("tcp port 80", &fragment(1)));
    assert!(matches("tcp and not port 80", &fragment(8)));
}

#[test]
fn what_is_wrong_is_said() {
    for wrong in [
        "tcp port",
        "port http",
        "port 70000",
        "host 10.0.2",
        "net 10.0.0.0",
        "net 10.0.0.0/33",
        "(tcp",
        "tcp)",
        "tcp and",
        "not",
        "arp port 80",
        "frobnicate",
        "portrange 9-1",
        "less x",
        "| tcp",
        "tcp & udp",
        "é",
    ] {
        assert!(Filter::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Filter::parse(&"(".repeat(1000)).is_err());
    assert!(Filter::parse(&"not ".repeat(500)).is_err());
    assert!(Filter::parse(&"tcp or ".repeat(290)).is_err());
    assert!(Filter::parse(&"x".repeat(MAX_TEXT + 1)).is_err());
}

/// Frames that are cut anywhere, or have any byte changed, match or do not; nothing else happens.
#[test]
fn noise_is_only_noise() {
    let filter = Filter::parse(
        "tcp port 80 or udp portrange 1-9 or host 10.0.2.2 or net fec0::/10 or arp or icmp6",
    )
    .unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for frame in [http(), dns6(), who_has()] {
        for cut in 0..=frame.len() {
            filter.matches(&frame[..cut], frame.len());
        }
        for _ in 0..20_000 {
            let mut changed = frame.clone();
            for _ in 0..1 + random() % 4 {
                let at = (random() % changed.len() as u64) as usize;
                changed[at] = random() as u8;
            }
            changed.truncate((random() % 80) as usize);
            filter.matches(&changed, changed.len());
        }
    }
    // Expressions out of its own words.
    let words = [
        "tcp",
        "ip6",
        "host",
        "10.0.0.1",
        "::1",
        "port",
        "80",
        "(",
        ")",
        "not",
        "and",
        "or",
        "src",
        "dst",
        "net",
        "10.0.0.0/8",
        "!",
        "&&",
        "portrange",
        "1-2",
        "less",
    ];
    for _ in 0..20_000 {
        let text: Vec<&str> = (0..random() % 12)
            .map(|_| words[(random() % words.len() as u64) as usize])
            .collect();
        if let Ok(filter) = Filter::parse(&text.join(" ")) {
            filter.matches(&http(), 60);
        }
    }
}
