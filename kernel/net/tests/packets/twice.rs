//! What a receiver tells of data that came twice (RFC 2883), whole segments and parts of them.

use super::*;

/// The SACK blocks of the acknowledgement that follows, relative to `seq`, and what it acknowledges.
fn told(s: &mut Script, seq: u32) -> (u32, Vec<(u32, u32)>) {
    let ack = s.expect("acknowledgement");
    s.silence();
    let mut blocks = vec![];
    if let Some(option) = find(&ack.options, 5) {
        for block in option[2..].chunks(8) {
            let edge = |at: usize| {
                u32::from_be_bytes(block[at..at + 4].try_into().unwrap()).wrapping_sub(seq)
            };
            blocks.push((edge(0), edge(4)));
        }
    }
    (ack.ack.wrapping_sub(seq), blocks)
}

/// Each line: what arrives, what is acknowledged then, and the blocks that are told.
type Lines<'a> = &'a [((u32, u32), u32, &'a [(u32, u32)])];

fn run(options: &[u8], lines: Lines<'_>) -> Script {
    let mut s = Script::new();
    let listener = s.listen(80, 16);
    let (_server, seq, iss) = s.establish(&listener, 5000, options);
    // Each at once, not with the next.
    s.advance(50 * MS);
    for ((start, end), ack, blocks) in lines {
        let data = vec![1; (end - start) as usize];
        s.send(&seg(seq + start, iss, ACK, &data));
        s.advance(50 * MS);
        assert_eq!(
            told(&mut s, seq),
            (*ack, blocks.to_vec()),
            "{start}..{end} of {lines:?}"
        );
    }
    s
}

fn counted(s: &Script) -> [u64; 2] {
    let counters = s.stack.counters();
    [
        counters.sum(|c| &c.dsack_old_sent),
        counters.sum(|c| &c.dsack_ofo_sent),
    ]
}

#[test]
fn part_of_a_segment_was_acknowledged_already() {
    let s = run(
        &SACK,
        &[
            ((0, 500), 500, &[]),
            ((0, 1000), 1000, &[(0, 500)]),
            ((500, 700), 1000, &[(500, 700)]),
            ((1000, 1100), 1100, &[]),
        ],
    );
    assert_eq!(counted(&s), [2, 0]);
}

#[test]
fn part_of_a_segment_lies_beyond_a_gap_already() {
    // The duplicate part first, then the block that holds it.
    let s = run(
        &SACK,
        &[
            ((0, 500), 500, &[]),
            ((1000, 1500), 500, &[(1000, 1500)]),
            ((1200, 2000), 500, &[(1200, 1500), (1000, 2000)]),
            ((800, 1100), 500, &[(1000, 1100), (800, 2000)]),
            ((3000, 3500), 500, &[(3000, 3500), (800, 2000)]),
            // It bridges two: the first range that was there is told.
            ((1900, 3100), 500, &[(1900, 2000), (800, 3500)]),
            ((2000, 2500), 500, &[(2000, 2500), (800, 3500)]),
        ],
    );
    assert_eq!(counted(&s), [0, 4]);
}

#[test]
fn what_fills_a_gap_reaches_into_what_lies_beyond() {
    let s = run(
        &SACK,
        &[
            ((500, 1000), 0, &[(500, 1000)]),
            ((2000, 2500), 0, &[(2000, 2500), (500, 1000)]),
            ((0, 700), 1000, &[(500, 700), (2000, 2500)]),
            // Old at its beginning, and beyond the gap at its end: the first is told.
            ((900, 2100), 2500, &[(900, 1000)]),
        ],
    );
    assert_eq!(counted(&s), [2, 0]);
}

#[test]
fn nothing_is_told_to_who_does_not_ask() {
    let s = run(
        &PLAIN,
        &[
            ((500, 1000), 0, &[]),
            ((700, 1200), 0, &[]),
            ((0, 600), 1200, &[]),
        ],
    );
    assert_eq!(counted(&s), [0, 0]);
}
