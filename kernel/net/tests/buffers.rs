//! The buffers of connections: how far they grow, what they are charged to, and that all of it comes back.

mod common;

use std::sync::Arc;

use common::{MS, SECOND, Weather, World};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{MsgFlags, Opt, OptName, SendMeta, Socket};

const LARGEST: usize = 6 << 20;

/// A link of a gigabit a second; the round trip without queues.
fn link(rtt_ms: u64) -> Weather {
    Weather {
        delay_ns: rtt_ms * MS / 2,
        ns_per_byte: 8,
        // What is on its way in a few milliseconds, as routers have it.
        queue: 64 << 10 | rtt_ms << 13,
        ..Weather::default()
    }
}

fn info(socket: &Arc<dyn Socket>) -> net::tcp::info::TcpInfo {
    match socket.option(OptName::Info) {
        Ok(Opt::Info(info)) => *info,
        other => panic!("{other:?}"),
    }
}

fn send_buffer(socket: &Arc<dyn Socket>) -> usize {
    match socket.option(OptName::SndBuf) {
        Ok(Opt::SndBuf(bytes)) => bytes as usize,
        other => panic!("{other:?}"),
    }
}

fn write_all_there_is_room_for(socket: &Arc<dyn Socket>) -> usize {
    let data = vec![7; 256 << 10];
    let mut total = 0;
    loop {
        match socket.send(&mut SliceSource::new(&data), &SendMeta::default()) {
            Ok(n) => total += n,
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                return total;
            }
        }
    }
}

fn read_all_there_is(socket: &Arc<dyn Socket>) -> usize {
    let mut total = 0;
    loop {
        let mut sink = VecSink::new(1 << 20);
        match socket.recv(&mut sink, MsgFlags::empty()) {
            Ok(meta) if meta.len > 0 => total += meta.len,
            _ => return total,
        }
    }
}

/// The most that was held during a transfer.
#[derive(Debug, Default)]
struct Held {
    sender: usize,
    receiver: usize,
}

/// Sends for `ns` as fast as buffers allow; everything arrives and is read.
fn transfer(
    w: &mut World,
    client: &Arc<dyn Socket>,
    server: &Arc<dyn Socket>,
    ns: u64,
) -> (usize, Held) {
    let (mut sent, mut got) = (0, 0);
    let mut held = Held::default();
    let end = w.now() + ns;
    let limit = end + 60 * SECOND;
    while w.now() < end || got < sent {
        if w.now() < end {
            sent += write_all_there_is_room_for(client);
        }
        held.sender = held.sender.max(w.stacks[0].memory());
        held.receiver = held.receiver.max(w.stacks[1].memory());
        got += read_all_there_is(server);
        assert!(w.step(limit), "stuck at {got} of {sent}");
    }
    assert_eq!(got, sent);
    (got, held)
}

#[test]
fn buffers_grow_with_what_the_path_holds_and_no_further() {
    // What the path holds (and its router's queue) decides, until it is more than a buffer may be.
    for (rtt_ms, least, most) in [
        (1, 100_000, 4_500_000),
        (20, 2_500_000, LARGEST),
        (200, LARGEST, LARGEST),
    ] {
        let mut w = World::new(rtt_ms, link(rtt_ms), [true, true]);
        let (client, server) = w.connect(80);
        let first = (info(&server).rcv_ssthresh, send_buffer(&client));
        assert!(first.0 <= 65_535 && first.1 <= 87_040, "{first:?}");
        let seconds = 2 + rtt_ms / 50;
        let (_, held) = transfer(&mut w, &client, &server, seconds * SECOND);
        let window = info(&server).rcv_ssthresh as usize;
        let buffer = send_buffer(&client);
        for size in [window, buffer] {
            assert!(
                (least..=most).contains(&size),
                "{rtt_ms} ms: {window} {buffer}"
            );
        }
        // It is charged for the memory that it holds: what is on its way at least, at most twice the bytes.
        assert!(held.sender >= least / 2, "{held:?}");
        let most = 2 * buffer + (128 << 10);
        assert!(held.sender <= most, "{held:?} {most}");
        // Nothing waits now; open connections hold nothing for it.
        w.run(SECOND);
        for stack in &w.stacks {
            assert!(stack.memory() <= 8192, "{}", stack.memory());
        }
        client.close();
        server.close();
        w.run(200 * SECOND);
        for stack in &w.stacks {
            assert_eq!((stack.memory(), stack.flow_counts()), (0, (0, 0)));
        }
    }
}

#[test]
fn what_nobody_reads_is_held_up_to_the_buffer_and_comes_back() {
    let mut w = World::new(1, link(200), [true, true]);
    let (client, server) = w.connect(80);
    transfer(&mut w, &client, &server, 6 * SECOND);
    assert_eq!(info(&server).rcv_ssthresh as usize, LARGEST);
    let mut sent = 0;
    for _ in 0..100 {
        sent += write_all_there_is_room_for(&client);
        w.run(50 * MS);
    }
    // Both buffers are full.
    let queued = server.input_queued();
    assert!(
        (LARGEST - 65_536..=LARGEST + 256).contains(&queued),
        "{queued} of {LARGEST}, in units of 128"
    );
    assert!(sent - queued <= send_buffer(&client) + 65_536);
    let held = w.stacks[1].memory();
    assert!(
        (queued..=2 * LARGEST + (128 << 10)).contains(&held),
        "{held}"
    );
    // The program that leaves gives all of it back at once, and the other side's is gone when it hears of it.
    server.close();
    assert_eq!(w.stacks[1].memory(), 0);
    w.run(SECOND);
    assert_eq!(w.stacks[0].memory(), 0);
    client.close();
}

#[test]
fn who_asks_for_a_size_gets_that() {
    let mut w = World::new(1, link(40), [true, true]);
    let (client, server) = w.connect(80);
    server.set_option(Opt::RcvBuf(100_000)).unwrap();
    client.set_option(Opt::SndBuf(100_000)).unwrap();
    let (before, asked) = (info(&server).rcv_ssthresh, send_buffer(&client));
    transfer(&mut w, &client, &server, 2 * SECOND);
    assert_eq!(info(&server).rcv_ssthresh, before);
    assert_eq!(send_buffer(&client), asked);
}

#[test]
fn without_memory_buffers_stop_growing_and_the_newest_data_waits() {
    const MEMORY: usize = 2 << 20;
    let mut w = World::with(1, link(100), [true, true], |c| c.limits.memory = MEMORY);
    let (old, old_server) = w.connect(80);
    write_all_there_is_room_for(&old);
    w.run(SECOND);
    let first = old_server.input_queued();
    assert!(first > 40_000);
    let mut all = vec![];
    for port in 81..121 {
        all.push(w.connect(port));
    }
    let mut sent = 0;
    for _ in 0..50 {
        for (client, _) in &all {
            sent += write_all_there_is_room_for(client);
        }
        w.run(50 * MS);
        for stack in &w.stacks {
            assert!(stack.memory() <= MEMORY + (1 << 20), "{}", stack.memory());
        }
    }
    let counted = |name: fn(&net::stats::CounterSet) -> &net::stats::Counter| {
        let [a, b] = [0, 1].map(|i: usize| w.stacks[i].counters().sum(name));
        a + b
    };
    assert!(counted(|c| &c.memory_pressures) > 0);
    // What was there stays; what is new is refused to the programs that write, or dropped and counted.
    let refused = all
        .iter()
        .filter(|(client, _)| !client.poll().contains(net::Events::OUT))
        .count();
    assert!(refused > 0 || counted(|c| &c.rcv_q_drop) > 0);
    assert_eq!(old_server.input_queued(), first);
    for (_, server) in &all {
        assert!((info(server).rcv_ssthresh as usize) < MEMORY / 4);
    }
    // Nothing is lost of what was taken.
    let mut got = 0;
    let limit = w.now() + 600 * SECOND;
    while got < sent {
        for (_, server) in &all {
            got += read_all_there_is(server);
        }
        assert!(w.step(limit), "stuck at {got} of {sent}");
    }
    assert_eq!(got, sent);
}
