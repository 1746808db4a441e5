//! Writing pcapng (draft-ietf-opsawg-pcapng): one section, interfaces of link type Ethernet, times in nanoseconds.
use alloc::vec::Vec;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u32 = 1;

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in.
    Inbound,
    /// It left.
    Outbound,
}

/// A block that is being written; its length stands at both ends.
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Block {
        let mut block = Block(Vec::new());
        block.word(kind);
        block.word(0);
        block
    }

    fn word(&mut self, word: u32) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    /// A time as two halves, the upper first.
    fn time(&mut self, ns: u64) {
        self.word((ns >> 32) as u32);
        self.word(ns as u32);
    }

    /// Bytes, filled up to four.
    fn padded(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// An option; one that is longer than the format can say is cut.
    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.word(u32::from(code) | (value.len() as u32) << 16);
        self.padded(value);
    }

    fn finish(mut self, options: bool) -> Vec<u8> {
        if options {
            // opt_endofopt
            self.word(0);
        }
        let len = self.0.len() as u32 + 4;
        self.word(len);
        self.0[4..8].copy_from_slice(&len.to_le_bytes());
        self.0
    }
}

/// The section header with which a file begins. `system` and `program` say what wrote it.
pub fn section(system: &str, program: &str) -> Vec<u8> {
    let mut block = Block::new(SECTION_HEADER);
    block.word(0x1A2B_3C4D);
    // Version 1.0, and a section of unknown length.
    block.word(1);
    block.word(u32::MAX);
    block.word(u32::MAX);
    block.option(3, system.as_bytes());
    block.option(4, program.as_bytes());
    block.finish(true)
}

/// Describes the next interface, numbered from 0: its name, how many bytes of a frame are kept at most, and the filter's
/// text where there is one.
pub fn interface(name: &str, snaplen: u32, filter: Option<&str>) -> Vec<u8> {
    let mut block = Block::new(INTERFACE_DESCRIPTION);
    block.word(LINKTYPE_ETHERNET);
    block.word(snaplen);
    block.option(2, name.as_bytes());
    // Times in units of 10^-9 s.
    block.option(9, &[9]);
    if let Some(filter) = filter {
        let mut value = alloc::vec![0];
        value.extend_from_slice(filter.as_bytes());
        block.option(11, &value);
    }
    block.finish(true)
}

/// A frame of interface `id` at `time_ns` since 1970: the bytes kept, and how many it had.
pub fn packet(id: u32, time_ns: u64, kept: &[u8], len: usize, direction: Direction) -> Vec<u8> {
    let mut block = Block::new(ENHANCED_PACKET);
    block.word(id);
    block.time(time_ns);
    block.word(kept.len() as u32);
    block.word(u32::try_from(len).unwrap_or(u32::MAX));
    block.padded(kept);
    let flags: u32 = match direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    block.option(2, &flags.to_le_bytes());
    block.finish(true)
}

/// What interface `id` had seen at `time_ns` since 1970: frames for this capture, and those of them that were dropped.
pub fn statistics(id: u32, time_ns: u64, received: u64, dropped: u64) -> Vec<u8> {
    let mut block = Block::new(INTERFACE_STATISTICS);
    block.word(id);
    block.time(time_ns);
    block.option(4, &received.to_le_bytes());
    block.option(5, &dropped.to_le_bytes());
    block.finish(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the blocks by their lengths, both of which must agree.
    fn kinds(mut file: &[u8]) -> Vec<(u32, usize)> {
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut kinds = Vec::new();
        while !file.is_empty() {
            let len = word(file, 4) as usize;
            assert!(len.is_multiple_of(4) && len >= 12, "{len}");
            assert_eq!(word(file, len - 4) as usize, len);
            kinds.push((word(file, 0), len));
            file = &file[len..];
        }
        kinds
    }

    #[test]
    fn every_block_says_its_length_twice() {
        let mut file = section("nanos", "console");
        file.extend(interface("en1", 262_144, Some("tcp port 80")));
        for len in 0..9 {
            file.extend(packet(0, 1, &alloc::vec![7; len], 1500, Direction::Inbound));
        }
        file.extend(statistics(0, 2, 9, 1));
        let kinds = kinds(&file);
        assert_eq!(kinds.len(), 12);
        assert_eq!(kinds[0].0, SECTION_HEADER);
        assert_eq!((kinds[1].0, kinds[2].0, kinds[11].0), (1, 6, 5));
    }

    #[test]
    fn a_packet_has_its_time_lengths_and_direction() {
        let block = packet(3, 0x1122_3344_5566_7788, b"abcde", 77, Direction::Outbound);
        let words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words[2..7], [3, 0x1122_3344, 0x5566_7788, 5, 77]);
        assert_eq!(&block[28..36], b"abcde\0\0\0");
        assert_eq!(words[9..12], [2 | 4 << 16, 2, 0]);
    }

    #[test]
    fn a_long_option_is_cut() {
        let name = "x".repeat(100_000);
        assert_eq!(kinds(&interface(&name, 1, None)).len(), 1);
    }
}
