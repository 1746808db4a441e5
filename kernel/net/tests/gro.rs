//! `UDP_GRO` and `UDP_SEGMENT` against a model, with random sizes: however datagrams are cut for sending and merged for receiving,
//! the same ones come out, in order. Seeded: `NET_SEED=n NET_SEEDS=1 cargo test -p net --test gro`.

mod common;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::Rng;
use common::script::*;
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{Control, Kind, MsgFlags, Opt, SendMeta, Socket};

/// A datagram that was sent: from which port, its bytes.
type Sent = (u16, Vec<u8>);

/// Sends something, and notes the datagrams that it is.
fn send(rng: &mut Rng, sender: &Arc<dyn Socket>, to: SocketAddr, model: &mut VecDeque<Sent>) {
    let len = [0, 1, 7, 100, 1000, 1472, 3000, 20_000][rng.below(8) as usize];
    let len = (len + rng.below(3)) as usize;
    let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
    let size = [1u16, 7, 100, 1000, 1472][rng.below(5) as usize];
    let cut = [Control::UdpSegment(size)];
    let segments = rng.chance(500_000);
    let meta = SendMeta {
        to: Some(to),
        control: if segments { &cut } else { &[] },
        ..SendMeta::default()
    };
    let port = sender.local_addr().unwrap().port();
    match sender.send(&mut SliceSource::new(&bytes), &meta) {
        Ok(n) => {
            assert_eq!(n, len);
            let size = if segments { usize::from(size) } else { len };
            if len == 0 {
                model.push_back((port, Vec::new()));
            }
            model.extend(bytes.chunks(size.max(1)).map(|part| (port, part.to_vec())));
        }
        // More datagrams than one call may make.
        Err(error) => assert!(
            segments && matches!(error, Errno::EINVAL | Errno::EMSGSIZE),
            "{error:?}"
        ),
    }
}

/// Receives once; the datagrams must be the next that were sent. False when there was none.
fn receive(
    rng: &mut Rng,
    receiver: &Arc<dyn Socket>,
    model: &mut VecDeque<Sent>,
    seed: u64,
) -> bool {
    let peek = rng.chance(200_000);
    let flags = if peek {
        MsgFlags::PEEK
    } else {
        MsgFlags::empty()
    };
    let mut sink = VecSink::new(70_000);
    let meta = match receiver.recv(&mut sink, flags) {
        Err(error) => {
            assert_eq!(error, Errno::EAGAIN);
            return false;
        }
        Ok(meta) => meta,
    };
    let bytes = sink.into_bytes();
    assert_eq!(
        (meta.len, meta.full_len),
        (bytes.len(), bytes.len()),
        "seed {seed}"
    );
    let size = meta.control.iter().find_map(|one| match one {
        Control::UdpSegment(size) => Some(usize::from(*size)),
        _ => None,
    });
    let port = meta.from.unwrap().port();
    let parts: Vec<&[u8]> = match size {
        Some(size) => bytes.chunks(size).collect(),
        None => vec![&bytes],
    };
    for (at, part) in parts.iter().enumerate() {
        let (from, sent) = &model[at];
        assert_eq!((*from, sent.len()), (port, part.len()), "seed {seed}");
        assert!(sent == part, "seed {seed}");
    }
    if !peek {
        model.drain(..parts.len());
    }
    true
}

#[test]
fn what_is_cut_and_merged_is_what_was_sent() {
    let number = |name: &str, usual: u64| {
        let told = std::env::var(name).ok();
        told.and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let first = number("NET_SEED", 1);
    let mut merged = 0;
    for seed in first..first + number("NET_SEEDS", 60) {
        let mut rng = Rng(seed);
        let s = Script::new();
        let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let receiver = s.socket(Kind::Dgram);
        receiver.bind(local(53)).unwrap();
        receiver.set_option(Opt::RcvBufForce(64 << 20)).unwrap();
        let senders = [s.socket(Kind::Dgram), s.socket(Kind::Dgram)];
        for (sender, port) in senders.iter().zip([100, 101]) {
            sender.bind(local(port)).unwrap();
        }
        let mut model = VecDeque::new();
        for _ in 0..100 {
            // What is merged already is told only to who asks for it then.
            if model.is_empty() {
                let on = rng.chance(800_000);
                receiver.set_option(Opt::UdpGro(on)).unwrap();
            }
            for _ in 0..rng.below(4) {
                let sender = &senders[usize::from(rng.chance(200_000))];
                send(&mut rng, sender, local(53), &mut model);
            }
            let before = model.len();
            if rng.chance(500_000) {
                receive(&mut rng, &receiver, &mut model, seed);
            }
            merged += u32::from(before > model.len() + 1);
        }
        while receive(&mut rng, &receiver, &mut model, seed) {}
        assert!(model.is_empty(), "seed {seed}: {} lost", model.len());
        receiver.close();
        senders.iter().for_each(|sender| sender.close());
        assert_eq!(s.stack.memory(), 0, "seed {seed}");
    }
    assert!(merged > 100 || first != 1, "{merged} merged");
}
