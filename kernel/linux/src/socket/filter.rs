//! `struct sock_fprog`: how a program hands over a socket filter (`SO_ATTACH_FILTER`) and is told it again. What a filter is
//! lies in `net::bpf`.

use alloc::vec::Vec;

use errno::{Errno, Result};
use net::bpf::{INSTRUCTION, MAX_LEN};

use crate::uaccess::UserPtr;

/// The instructions that `value`, a `struct sock_fprog`, points to.
///
/// # Errors
/// `EINVAL` for another size, no or too many instructions; `EFAULT`.
pub fn read(value: &[u8]) -> Result<Vec<u8>> {
    let value: &[u8; 16] = value.try_into().map_err(|_| Errno::EINVAL)?;
    let count = usize::from(u16::from_ne_bytes([value[0], value[1]]));
    let [.., a, b, c, d, e, f, g, h] = *value;
    let at = usize::from_ne_bytes([a, b, c, d, e, f, g, h]);
    if at == 0 || count == 0 || count > MAX_LEN {
        return Err(Errno::EINVAL);
    }
    let mut bytes = alloc::vec![0; count * INSTRUCTION];
    UserPtr::<u8>::new(at).read_bytes(&mut bytes)?;
    Ok(bytes)
}

/// Tells the instructions `bytes` (`SO_GET_FILTER`): lengths are counted in instructions, and without room the number is told alone.
///
/// # Errors
/// `EINVAL` when there is too little room, `EFAULT`.
pub fn tell(bytes: &[u8], value: UserPtr<u8>, len: UserPtr<i32>) -> Result<()> {
    let count = bytes.len() / INSTRUCTION;
    match usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)? {
        0 => {}
        room if room < count => return Err(Errno::EINVAL),
        _ => value.write_bytes(bytes)?,
    }
    len.write(&(count as i32))
}
