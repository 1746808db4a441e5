//! Copies between the kernel and the program's memory. Every address is checked; a fault in between is given to the
//! fault handler, which may bring the page in (and sleep); if it cannot, the copy fails.

use core::mem::size_of;

use crate::arch;
use crate::sync::Once;

/// First address beyond the program's: 2^47 less one page, as on Linux.
pub const USER_END: usize = 0x7fff_ffff_f000;

/// The program's memory cannot be accessed so at the address given.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Fault;

/// What an access wanted to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Fetch an instruction.
    Exec,
}

/// Makes the page of `addr` accessible as asked, or fails. Called by the thread that touched it; may sleep.
pub type FaultHandler = fn(addr: usize, access: Access) -> Result<(), Fault>;

static FAULT_HANDLER: Once<FaultHandler> = Once::new();

/// Sets the function that resolves faults of kernel copies. The first caller wins.
pub fn set_fault_handler(handler: FaultHandler) {
    let _ = FAULT_HANDLER.set(handler);
}

pub(crate) fn resolve_fault(addr: usize, access: Access) -> Result<(), Fault> {
    if addr >= USER_END {
        return Err(Fault);
    }
    FAULT_HANDLER.get().ok_or(Fault)?(addr, access)
}

/// Whether `addr` can be the program's.
#[inline]
pub fn is_user_address(addr: usize) -> bool {
    addr < USER_END
}

/// Whether all of `len` bytes from `addr` can be the program's.
#[inline]
pub fn is_user_range(addr: usize, len: usize) -> bool {
    addr <= USER_END && len <= USER_END - addr
}

#[inline]
fn check(addr: usize, len: usize) -> Result<(), Fault> {
    if is_user_range(addr, len) {
        Ok(())
    } else {
        Err(Fault)
    }
}

/// Copies `into.len()` bytes of the program's memory.
#[inline]
pub fn copy_from_user(from: usize, into: &mut [u8]) -> Result<(), Fault> {
    // SAFETY: `into` is a valid destination of its length; the source address is checked inside.
    unsafe { arch::copy_from_user(from, into.as_mut_ptr(), into.len()) }
}

/// Copies `from` into the program's memory. On failure, a leading part may have been written.
#[inline]
pub fn copy_to_user(into: usize, from: &[u8]) -> Result<(), Fault> {
    // SAFETY: `from` is a valid source of its length; the destination address is checked inside.
    unsafe { arch::copy_to_user(into, from.as_ptr(), from.len()) }
}

/// Writes `len` zeroes into the program's memory.
pub fn zero_user(into: usize, len: usize) -> Result<(), Fault> {
    check(into, len)?;
    static ZEROES: [u8; 1024] = [0; 1024];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(ZEROES.len());
        copy_to_user(into + done, &ZEROES[..n])?;
        done += n;
    }
    Ok(())
}

macro_rules! accessors {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// Reads one value of the program's memory, at any alignment.
        #[inline]
        pub fn $read(addr: usize) -> Result<$type, Fault> {
            let mut bytes = [0; size_of::<$type>()];
            copy_from_user(addr, &mut bytes)?;
            Ok(<$type>::from_ne_bytes(bytes))
        }

        /// Writes one value to the program's memory, at any alignment.
        #[inline]
        pub fn $write(addr: usize, value: $type) -> Result<(), Fault> {
            copy_to_user(addr, &value.to_ne_bytes())
        }
    )*};
}

accessors!(read_u8 write_u8 u8, read_u16 write_u16 u16, read_u32 write_u32 u32, read_u64 write_u64 u64, read_usize write_usize usize);

/// Atomically reads an aligned word. Fails if `addr` is not a multiple of 4.
pub fn load_u32(addr: usize) -> Result<u32, Fault> {
    check(addr, 4)?;
    if !addr.is_multiple_of(4) {
        return Err(Fault);
    }
    arch::user_load_u32(addr)
}

/// Atomically replaces the aligned word at `addr` by `new` if it is `old`. `Ok(Ok(old))` if it was, `Ok(Err(is))` if
/// it held something else. Fails if `addr` is not a multiple of 4.
pub fn cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<Result<u32, u32>, Fault> {
    check(addr, 4)?;
    if !addr.is_multiple_of(4) {
        return Err(Fault);
    }
    let was = arch::user_cmpxchg_u32(addr, old, new)?;
    Ok(if was == old { Ok(was) } else { Err(was) })
}

/// Atomically replaces the aligned word at `addr` by `change` of it, and returns what it was.
pub fn fetch_update_u32(addr: usize, mut change: impl FnMut(u32) -> u32) -> Result<u32, Fault> {
    let mut old = load_u32(addr)?;
    loop {
        match cmpxchg_u32(addr, old, change(old))? {
            Ok(was) => return Ok(was),
            Err(is) => old = is,
        }
    }
}

/// Copies a zero-terminated string of the program's. Returns its length without the zero; a string that fills `into`
/// without a zero returns `into.len()`.
pub fn strncpy_from_user(from: usize, into: &mut [u8]) -> Result<usize, Fault> {
    let mut done = 0;
    while done < into.len() {
        let addr = from.checked_add(done).ok_or(Fault)?;
        // Never past the page: the next one may not exist although the string ends before it.
        let n = (into.len() - done)
            .min(crate::mem::PAGE_SIZE - addr % crate::mem::PAGE_SIZE)
            .min(64);
        copy_from_user(addr, &mut into[done..done + n])?;
        if let Some(zero) = into[done..done + n].iter().position(|&b| b == 0) {
            return Ok(done + zero);
        }
        done += n;
    }
    Ok(done)
}
