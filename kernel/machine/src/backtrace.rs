//! Walking the kernel's stack by frame pointers, and naming what is found.

use core::fmt;

use crate::arch;
use crate::symbols;

/// The most return addresses kept.
pub const DEPTH: usize = 32;

/// Return addresses, innermost first.
#[derive(Clone, Debug)]
pub struct Backtrace {
    addresses: [usize; DEPTH],
    len: usize,
}

impl Backtrace {
    /// The callers of the code that calls this.
    #[inline(never)]
    pub fn capture() -> Self {
        Self::from_frame(arch::frame_pointer())
    }

    /// The callers of the function whose frame pointer (RBP) is `frame`. A wild pointer ends the walk, no more.
    pub fn from_frame(mut frame: usize) -> Self {
        let mut trace = Self {
            addresses: [0; DEPTH],
            len: 0,
        };
        while trace.len < DEPTH {
            let Some((caller, address)) = arch::read_frame(frame) else {
                break;
            };
            if address == 0 {
                break;
            }
            trace.addresses[trace.len] = address;
            trace.len += 1;
            // Stacks grow down: each caller's frame lies above.
            if caller <= frame {
                break;
            }
            frame = caller;
        }
        trace
    }

    /// As [`Backtrace::from_frame`], behind the innermost address `ip`, and only with frames within `stack`.
    pub fn within(ip: usize, mut frame: usize, stack: core::ops::Range<usize>) -> Self {
        let mut trace = Self {
            addresses: [0; DEPTH],
            len: 1,
        };
        trace.addresses[0] = ip;
        while trace.len < DEPTH && stack.contains(&frame) && stack.contains(&(frame + 15)) {
            let Some((caller, address)) = arch::read_frame(frame).filter(|&(_, at)| at != 0) else {
                break;
            };
            trace.addresses[trace.len] = address;
            trace.len += 1;
            if caller <= frame {
                break;
            }
            frame = caller;
        }
        trace
    }

    /// The addresses.
    pub fn addresses(&self) -> &[usize] {
        &self.addresses[..self.len]
    }
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &address) in self.addresses().iter().enumerate() {
            // The call is before the return address, which may be in the next function.
            writeln!(f, "  #{i:<2} {address:#018x} {}", Symbol(address - 1))?;
        }
        Ok(())
    }
}

/// Prints the function and offset of an address of the kernel, as far as known.
#[derive(Clone, Copy, Debug)]
pub struct Symbol(pub usize);

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match symbols::lookup(self.0) {
            Some((name, offset)) => write!(f, "{name}+{offset:#x}"),
            None => f.write_str("?"),
        }
    }
}
