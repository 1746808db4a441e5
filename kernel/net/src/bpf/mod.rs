//! Classic BPF (`Documentation/networking/filter.rst` of Linux): the programs that `SO_ATTACH_FILTER` hands over. Checked
//! once, then interpreted for each packet. Jumps only go forward, so a run takes no more steps than the program has.
//!
//! What a socket does with the answer is the socket's; eBPF is not here.

mod attach;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;

use errno::{Errno, Result};

pub(crate) use attach::Attached;

/// The longest program, in instructions (`BPF_MAXINSNS`).
pub const MAX_LEN: usize = 4096;
/// Bytes of an instruction as programs hand it over (`struct sock_filter`).
pub const INSTRUCTION: usize = 8;

/// Offsets from which loads mean something else than the packet's data (`linux/filter.h`).
const ANCILLARY: i32 = -0x1000;
const NETWORK: i32 = -0x10_0000;
const LINK: i32 = -0x20_0000;
/// Words of scratch memory.
const CELLS: usize = 16;
/// Bytes of a `struct nlattr`.
const ATTRIBUTE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    /// How far to jump if the comparison holds, and if not.
    jt: u8,
    jf: u8,
    k: u32,
}

/// A program that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Instruction]>);

/// A packet as a program sees it.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// The frame from its link-layer header on.
    pub frame: &'a [u8],
    /// Where the data begins that offset 0 names.
    pub data: usize,
    /// Where the network header begins.
    pub network: usize,
    /// The EtherType.
    pub protocol: u16,
    /// Whom it is for (`PACKET_HOST` and so on).
    pub kind: u8,
    /// The interface.
    pub index: u32,
    /// The kind of interface (`ARPHRD_*`).
    pub hardware: u16,
    /// Random numbers.
    pub random: &'a dyn Fn() -> u32,
}

impl Program {
    /// Checks a program that lies in memory as an array of `struct sock_filter`.
    ///
    /// # Errors
    /// `EINVAL` for one that Linux does not take: an unknown instruction, a jump beyond the end, a division by the constant 0, a
    /// load of scratch memory that was never written, no `ret` at the end, too long or empty.
    pub fn new(bytes: &[u8]) -> Result<Program> {
        let code: Vec<Instruction> = bytes.chunks_exact(INSTRUCTION).map(decode).collect();
        if code.is_empty() || code.len() > MAX_LEN || !bytes.len().is_multiple_of(INSTRUCTION) {
            return Err(Errno::EINVAL);
        }
        for (at, one) in code.iter().enumerate() {
            check(*one, code.len() - at - 1)?;
        }
        if !matches!(code.last(), Some(last) if matches!(last.code, 0x06 | 0x16)) {
            return Err(Errno::EINVAL);
        }
        check_cells(&code)?;
        Ok(Program(code.into()))
    }

    /// How many instructions it has.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The program as it was handed over.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * INSTRUCTION);
        for one in &self.0 {
            bytes.extend(one.code.to_ne_bytes());
            bytes.extend([one.jt, one.jf]);
            bytes.extend(one.k.to_ne_bytes());
        }
        bytes
    }

    /// How many bytes of the packet to keep, counted from its data; 0 is to drop it. A load beyond the packet's end drops it.
    pub fn run(&self, packet: &Packet<'_>) -> u32 {
        self.interpret(packet).unwrap_or(0)
    }

    fn interpret(&self, packet: &Packet<'_>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut cells = [0u32; CELLS];
        let mut at = 0;
        loop {
            let Instruction { code, jt, jf, k } = *self.0.get(at)?;
            at += 1;
            let cell = k as usize % CELLS;
            match code {
                0x00 => a = k,
                0x01 => x = k,
                0x20 | 0x28 | 0x30 if k as i32 >= ANCILLARY && (k as i32) < 0 => {
                    let place = k as i32 - ANCILLARY;
                    // Linux ends here, with what is in A, where there is no interface.
                    if packet.index == 0 && matches!(place, 8 | 28) {
                        return Some(a);
                    }
                    a = packet.ancillary(place, a, x);
                }
                0x20 | 0x28 | 0x30 => a = packet.load(k, size(code))?,
                0x40 | 0x48 | 0x50 => a = packet.load(k.wrapping_add(x), size(code))?,
                0xb1 => x = (packet.load(k, 1)? & 0xf) << 2,
                0x60 => a = cells[cell],
                0x61 => x = cells[cell],
                0x80 => a = packet.len(),
                0x81 => x = packet.len(),
                0x02 => cells[cell] = a,
                0x03 => cells[cell] = x,
                0x07 => x = a,
                0x87 => a = x,
                0x06 => return Some(k),
                0x16 => return Some(a),
                0x05 => at += k as usize,
                _ => {
                    let operand = if code & 8 == 0 { k } else { x };
                    if code & 7 == 5 {
                        let holds = match code & 0xf0 {
                            0x10 => a == operand,
                            0x20 => a > operand,
                            0x30 => a >= operand,
                            _ => a & operand != 0,
                        };
                        at += usize::from(if holds { jt } else { jf });
                    } else {
                        a = calculate(code, a, operand)?;
                    }
                }
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Instruction {
    Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

/// Bytes that a load of packet data takes.
fn size(code: u16) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        _ => 1,
    }
}

/// An arithmetic instruction; `None` for a division by zero.
fn calculate(code: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match code & 0xf0 {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        // Shifts count modulo 32.
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(operand)?,
        _ => a ^ operand,
    })
}

/// Whether an instruction is one, with `after` more behind it.
fn check(one: Instruction, after: usize) -> Result<()> {
    let k = one.k as usize;
    let valid = match one.code {
        // ld and ldx of constants and of the length, tax, txa, ret, and loads from X on.
        0x00 | 0x01 | 0x80 | 0x81 | 0x07 | 0x87 | 0x06 | 0x16 | 0x40 | 0x48 | 0x50 | 0xb1 => true,
        // The odd ones of the last page are ancillary data, which must be known.
        0x20 | 0x28 | 0x30 => {
            let place = one.k.wrapping_sub(ANCILLARY as u32);
            one.k < ANCILLARY as u32 || place <= 60 && place.is_multiple_of(4)
        }
        0x60 | 0x61 | 0x02 | 0x03 => k < CELLS,
        // add sub mul or and xor, by constant and by X; neg.
        0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x44 | 0x4c | 0x54 | 0x5c | 0xa4 | 0xac
        | 0x84 => true,
        // div and mod.
        0x34 | 0x94 => k != 0,
        0x3c | 0x9c => true,
        // Shifts.
        0x64 | 0x74 => k < 32,
        0x6c | 0x7c => true,
        0x05 => k < after,
        // jeq jgt jge jset.
        0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
            usize::from(one.jt) < after && usize::from(one.jf) < after
        }
        _ => false,
    };
    valid.then_some(()).ok_or(Errno::EINVAL)
}

/// Whether no cell is read that was not written on each way there. Nothing is said of what no way leads to.
fn check_cells(code: &[Instruction]) -> Result<()> {
    let mut masks = alloc::vec![u16::MAX; code.len()];
    let mut written = 0u16;
    for (at, one) in code.iter().enumerate() {
        written &= masks[at];
        let mut reach = |far: usize| {
            // `check` has seen that it is not beyond the end.
            if let Some(mask) = masks.get_mut(at + 1 + far) {
                *mask &= written;
            }
        };
        match one.code {
            0x02 | 0x03 => written |= 1 << (one.k & 15),
            0x60 | 0x61 if written >> (one.k & 15) & 1 == 0 => return Err(Errno::EINVAL),
            0x05 => {
                reach(one.k as usize);
                written = u16::MAX;
            }
            code if code & 7 == 5 => {
                reach(usize::from(one.jt));
                reach(usize::from(one.jf));
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

impl Packet<'_> {
    fn bytes(&self) -> &[u8] {
        self.frame.get(self.data..).unwrap_or(&[])
    }

    fn len(&self) -> u32 {
        self.bytes().len() as u32
    }

    /// A number in network byte order; `None` where the packet has none.
    fn load(&self, offset: u32, size: usize) -> Option<u32> {
        let offset = offset as i32;
        let start = match offset {
            0.. => self.data.checked_add(offset as usize)?,
            NETWORK.. => self.network + (offset - NETWORK) as usize,
            LINK.. => (offset - LINK) as usize,
            _ => return None,
        };
        let bytes = self.frame.get(start..start.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b)))
    }

    /// What a load from `SKF_AD_OFF` on tells.
    fn ancillary(&self, place: i32, a: u32, x: u32) -> u32 {
        match place {
            0 => u32::from(self.protocol),
            4 => u32::from(self.kind),
            8 => self.index,
            12 => attribute(self.bytes(), a as usize, x),
            16 => self.nested(a as usize, x),
            28 => u32::from(self.hardware),
            36 => crate::sync::cpu_id() as u32,
            40 => a ^ x,
            52 => self.payload(),
            56 => (self.random)(),
            // The mark, the queue, the flow's hash, and VLAN tags: there are none.
            _ => 0,
        }
    }

    /// The attribute of type `x` within the one at `a`.
    fn nested(&self, a: usize, x: u32) -> u32 {
        let bytes = self.bytes();
        let Some(outer) = attribute_len(bytes, a) else {
            return 0;
        };
        match bytes.get(..a + outer) {
            Some(within) => attribute(within, a + ATTRIBUTE, x),
            None => 0,
        }
    }

    /// Where the transport's payload begins, counted from the data; 0 if that cannot be told.
    fn payload(&self) -> u32 {
        match self.transport() {
            Some(at) => (at as u32).wrapping_sub(self.data as u32),
            None => 0,
        }
    }

    fn transport(&self) -> Option<usize> {
        let byte = |at: usize| self.frame.get(at).copied();
        let base = self.network;
        let (mut at, mut protocol) = match self.protocol {
            0x0800 => {
                let header = usize::from(byte(base)? & 0xf) * 4;
                let fragment = u16::from_be_bytes([byte(base + 6)?, byte(base + 7)?]);
                if header < 20 {
                    return None;
                }
                if fragment & 0x1fff != 0 {
                    return Some(base + header);
                }
                (base + header, byte(base + 9)?)
            }
            0x86dd => (base + 40, byte(base + 6)?),
            _ => return None,
        };
        if self.protocol == 0x86dd {
            // Hop-by-hop, routing and destination options.
            while matches!(protocol, 0 | 43 | 60) {
                protocol = byte(at)?;
                at += 8 + usize::from(byte(at + 1)?) * 8;
            }
        }
        Some(match protocol {
            6 => at + usize::from(byte(at + 12)? >> 4).max(5) * 4,
            // ICMP, IGMP, UDP, ICMPv6, UDP-Lite.
            1 | 2 | 17 | 58 | 136 => at + 8,
            _ => at,
        })
    }
}

/// The length that the netlink attribute at `at` says it has, if it lies within `bytes`.
fn attribute_len(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..at.checked_add(ATTRIBUTE)?)?;
    let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
    (len >= ATTRIBUTE && len <= bytes.len() - at).then_some(len)
}

/// Where from `at` on there is a netlink attribute of type `kind` (`nla_find`); 0 if there is none.
fn attribute(bytes: &[u8], mut at: usize, kind: u32) -> u32 {
    while let Some(len) = attribute_len(bytes, at) {
        // The two bits on top are flags.
        if u32::from(u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]) & 0x3fff) == kind {
            return at as u32;
        }
        at += len.next_multiple_of(4);
    }
    0
}
