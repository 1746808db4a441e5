//! Robust futexes: when a thread ends, the locks it held are marked and a waiter of each is woken
//! (`set_robust_list(2)`, `Documentation/robust-futexes.rst` of Linux).
use errno::Result;
use machine::user;

use super::pi::{OWNER_DIED, TID_MASK, WAITERS};
use super::{BITSET_ANY, FutexTable, Key};
use crate::mm::AddressSpace;

/// The most entries that are followed, since the list is the program's and may be a circle.
const LIMIT: usize = 2048;

/// Size of `struct robust_list_head`: list, offset of the word from an entry, pending entry.
pub const HEAD_SIZE: usize = 24;

/// Marks every lock in the list at `head` that thread `tid` holds. A list that cannot be read ends there.
pub fn release(table: &FutexTable, mm: &AddressSpace, head: usize, tid: i32) {
    let read = |addr: usize| user::read_u64(addr).ok();
    let (Some(mut entry), Some(offset), Some(pending)) = (
        read(head),
        read(head.wrapping_add(8)),
        read(head.wrapping_add(16)),
    ) else {
        return;
    };
    // The lowest bit says that the lock has an owner the kernel hands it to.
    let word_of = |entry: u64| (entry & !1).wrapping_add(offset) as usize;
    for _ in 0..LIMIT {
        if (entry & !1) as usize == head {
            break;
        }
        let next = read((entry & !1) as usize);
        if entry & !1 != pending & !1
            && mark(table, mm, word_of(entry), tid, entry & 1 != 0, false).is_err()
        {
            return;
        }
        match next {
            Some(next) => entry = next,
            None => break,
        }
    }
    if pending & !1 != 0 {
        // The word may not be locked yet, or not any more: an error changes nothing.
        let _ = mark(table, mm, word_of(pending), tid, pending & 1 != 0, true);
    }
}

fn mark(
    table: &FutexTable,
    mm: &AddressSpace,
    addr: usize,
    tid: i32,
    has_owner: bool,
    pending: bool,
) -> Result<()> {
    let key = Key::of(mm, addr, false)?;
    loop {
        let word = user::load_u32(addr).map_err(|_| errno::Errno::EFAULT)?;
        if pending && !has_owner && word == 0 {
            // It was unlocked, and the wake that follows never came.
            table.wake(key, 1, BITSET_ANY);
            return Ok(());
        }
        if word & TID_MASK != tid as u32 {
            return Ok(());
        }
        if has_owner {
            return table.hand_over(key, addr, OWNER_DIED);
        }
        let dead = word & WAITERS | OWNER_DIED;
        match user::cmpxchg_u32(addr, word, dead).map_err(|_| errno::Errno::EFAULT)? {
            Ok(_) => {
                if word & WAITERS != 0 {
                    table.wake(key, 1, BITSET_ANY);
                    // A private lock is waited for under its address.
                    let private = Key::of(mm, addr, true)?;
                    if private != key {
                        table.wake(private, 1, BITSET_ANY);
                    }
                }
                return Ok(());
            }
            Err(_) => continue,
        }
    }
}
