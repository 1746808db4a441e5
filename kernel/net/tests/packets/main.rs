//! Packet scripts: inject a segment, make a call, expect a segment, at exact virtual times. A module a topic.

#[path = "../common/mod.rs"]
mod common;

mod counted;
mod defence;
mod ecn;
mod ending;
mod fastopen;
mod fastopen_client;
mod flow;
mod handshake;
mod loss;
mod mtu;
mod options;
mod recovery;
mod scaling;
mod told;
mod twice;
mod urgent;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::script::*;
use common::{MS, SECOND, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{Events, Kind, MsgFlags, Opt, OptName, SendMeta, Shutdown, Socket};

/// MSS 1460, SACK permitted, timestamps, window scale 7.
const FULL: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
const PLAIN: [u8; 4] = [2, 4, 5, 180];
const SACK: [u8; 8] = [2, 4, 5, 180, 1, 1, 4, 2];

fn write(socket: &Arc<dyn Socket>, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut SliceSource::new(bytes), &SendMeta::default())
}

fn read(socket: &Arc<dyn Socket>, most: usize) -> Result<Vec<u8>, Errno> {
    let mut sink = VecSink::new(most);
    socket.recv(&mut sink, MsgFlags::empty())?;
    Ok(sink.into_bytes())
}

fn seg(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Seg {
    Seg {
        sport: 5000,
        dport: 80,
        seq,
        ack,
        flags,
        window: 65_535,
        data: data.to_vec(),
        ..Seg::default()
    }
}

fn info(socket: &Arc<dyn Socket>) -> net::tcp::info::TcpInfo {
    match socket.option(OptName::Info) {
        Ok(Opt::Info(info)) => *info,
        other => panic!("{other:?}"),
    }
}

/// An established connection without timestamps (options as given), from peer port 5000.
fn connection(s: &mut Script, options: &[u8]) -> (Arc<dyn Socket>, u32, u32) {
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: options.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert!(answer.is(SYN | ACK));
    let iss = answer.seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    let server = listener.accept().unwrap();
    listener.close();
    (server, 1001, iss)
}

/// A connection whose handshake took `rtt_ms`.
fn slow(s: &mut Script, options: &[u8], rtt_ms: u64) -> (Arc<dyn Socket>, u32, u32) {
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: options.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let iss = s.expect("SYN-ACK").seq.wrapping_add(1);
    s.advance(rtt_ms * MS);
    s.send(&seg(1001, iss, ACK, b""));
    let server = listener.accept().unwrap();
    listener.close();
    (server, 1001, iss)
}
