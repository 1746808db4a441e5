//! A card on a TAP device with checksum and segmentation offload, MTU 9000; on the other side a Linux host with a UDP
//! echo server on port 7 and a TCP sink on port 9. Just enough of the protocols to make the card do its work.

use alloc::{sync::Arc, vec::Vec};

use drivers::nic::{
    Gso, GsoKind, Header, Nic, RxChecksum, RxPacket, TxOffload, TxPacket, TxSegment,
};
use machine::{mem::Frame, println};

use crate::network::{GATEWAY, OWN, Poller};

const UDP: u8 = 17;
const TCP: u8 = 6;

/// A packet of Ethernet, IPv4 and transport header, and what follows by reference. The card fills in the checksum.
fn packet(
    nic: &dyn Nic,
    host: [u8; 6],
    protocol: u8,
    transport: &[u8],
    data: &Arc<[u8]>,
) -> TxPacket {
    let mut header = Header::new();
    header.extend_from_slice(&host);
    header.extend_from_slice(&nic.mac());
    header.extend_from_slice(&[8, 0]);
    let len = (20 + transport.len() + data.len()) as u16;
    let [high, low] = len.to_be_bytes();
    let mut ip = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&OWN);
    ip[16..20].copy_from_slice(&GATEWAY);
    let sum = !fold(words(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend_from_slice(&ip);
    let mut transport = transport.to_vec();
    let at = if protocol == TCP { 16 } else { 6 };
    let pseudo = words(&OWN) + words(&GATEWAY) + u32::from(protocol) + u32::from(len - 20);
    transport[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
    header.extend_from_slice(&transport);
    // The data in pieces: bytes, a page, bytes.
    let cut = data.len().min(1000);
    let end = data.len().min(4000);
    let frame = Frame::alloc_zeroed().expect("a frame");
    frame.write(96, &data[cut..end]);
    let mut packet = TxPacket::from_header(header);
    packet.segments.push(TxSegment::Bytes(data.clone(), 0..cut));
    packet.segments.push(TxSegment::Frame {
        frame,
        offset: 96,
        len: (end - cut) as u32,
    });
    packet
        .segments
        .push(TxSegment::Bytes(data.clone(), end..data.len()));
    packet.offload = Some(TxOffload {
        csum_start: 34,
        csum_offset: at as u16,
        gso: None,
    });
    packet
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| (u32::from(pair[0]) << 8) | pair.get(1).map_or(0, |&b| u32::from(b)))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The first packet of a protocol from the host.
fn answer(poller: &Poller, protocol: u8) -> (RxPacket, Vec<u8>) {
    loop {
        for packet in poller.packets() {
            let bytes = packet.to_vec();
            if bytes.len() > 42
                && bytes[12..14] == [8, 0]
                && bytes[23] == protocol
                && bytes[30..34] == OWN
            {
                return (packet, bytes);
            }
        }
    }
}

/// Echoes of datagrams from one byte to nearly the MTU, and 50,000 bytes of TCP in one packet.
pub fn test(nic: &Arc<dyn Nic>, poller: &Poller, host: [u8; 6]) {
    let caps = nic.caps();
    assert!(
        caps.tx_csum && caps.rx_csum && caps.tso4 && caps.rx_gro,
        "{caps:?}"
    );
    for len in [1usize, 60, 999, 1001, 1472, 4001, 8900] {
        let data: Arc<[u8]> = (0..len).map(|i| (i * 13 + len) as u8).collect();
        let [high, low] = (8 + len as u16).to_be_bytes();
        let udp = [0x30, 0x39, 0, 7, high, low, 0, 0];
        assert!(
            nic.transmit(0, packet(&**nic, host, UDP, &udp, &data))
                .is_ok()
        );
        let (received, bytes) = answer(poller, UDP);
        assert!(
            bytes[42..42 + len] == data[..],
            "the echo of {len} bytes differs"
        );
        println!(
            "  echo of {len}: {} buffers, {:?}",
            received.rest.len() + 1,
            received.checksum
        );
        assert!(received.checksum != RxChecksum::Unknown);
    }
    let segment = |seq: u32, ack: u32, flags: u8| {
        let mut tcp = [
            0x30, 0x39, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0,
        ];
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&ack.to_be_bytes());
        tcp
    };
    let nothing: Arc<[u8]> = Arc::from([]);
    let syn = packet(&**nic, host, TCP, &segment(1000, 0, 2), &nothing);
    assert!(nic.transmit(0, syn).is_ok());
    let (_, bytes) = answer(poller, TCP);
    assert_eq!(bytes[47] & 0x3f, 0x12, "no SYN-ACK");
    let theirs = u32::from_be_bytes([bytes[38], bytes[39], bytes[40], bytes[41]]);
    let data: Arc<[u8]> = (0..50_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut big = packet(&**nic, host, TCP, &segment(1001, theirs + 1, 0x18), &data);
    if let Some(offload) = &mut big.offload {
        offload.gso = Some(Gso {
            kind: GsoKind::Tcp4,
            segment_size: 1448,
            header_len: 54,
            ecn: false,
        });
    }
    assert!(nic.transmit(0, big).is_ok());
    loop {
        let (_, bytes) = answer(poller, TCP);
        let acked = u32::from_be_bytes([bytes[42], bytes[43], bytes[44], bytes[45]]);
        if acked == 1001 + 50_000 {
            break;
        }
    }
    let fin = packet(
        &**nic,
        host,
        TCP,
        &segment(51_001, theirs + 1, 0x11),
        &nothing,
    );
    assert!(nic.transmit(0, fin).is_ok());
    println!("  50000 bytes of TCP in one packet, acknowledged");
}
