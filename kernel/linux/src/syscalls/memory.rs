//! Memory: `mmap(2)` and its kin. What the flags mean is here; what happens is `mm`'s.
use alloc::sync::Arc;

use errno::{Errno, Result};

use crate::ctx::Ctx;
use crate::limits::{RLIM_INFINITY, Resource};
use crate::mm::file;
use crate::mm::map::{MapRequest, Placement, Remap, page_len, page_range};
use crate::mm::pager::{Pager, SharedMemory};
use crate::mm::vma::{Backing, PAGE, VmFlags, VmName, VmProt};
use crate::uaccess::UserPtr;

/// `PROT_SEM`, which means nothing on x86.
const PROT_SEM: u32 = 8;
const PROT_GROWSDOWN: u32 = 0x0100_0000;
const PROT_GROWSUP: u32 = 0x0200_0000;

const MAP_SHARED: u32 = 1;
const MAP_PRIVATE: u32 = 2;
const MAP_SHARED_VALIDATE: u32 = 3;
const MAP_TYPE: u32 = 15;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_32BIT: u32 = 0x40;
const MAP_GROWSDOWN: u32 = 0x100;
const MAP_LOCKED: u32 = 0x2000;
const MAP_NORESERVE: u32 = 0x4000;
const MAP_POPULATE: u32 = 0x8000;
const MAP_NONBLOCK: u32 = 0x1_0000;
const MAP_STACK: u32 = 0x2_0000;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_SYNC: u32 = 0x8_0000;
const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;

/// The rights in the bits of `PROT_*`. A page that can be written or executed can be read on x86.
fn prot_of(prot: u32) -> VmProt {
    VmProt::from_bits_truncate((prot & 7) as u8)
}

pub(super) fn sys_mmap(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    prot: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> Result<usize> {
    if !offset.is_multiple_of(PAGE as u64) || len == 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = page_len(len)?;
    let shared = match flags & MAP_TYPE {
        MAP_PRIVATE => false,
        MAP_SHARED => true,
        // Its point is to refuse flags that are not known; `MAP_SYNC` needs persistent memory.
        MAP_SHARED_VALIDATE if flags & MAP_SYNC != 0 => return Err(Errno::EOPNOTSUPP),
        MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if flags & MAP_HUGETLB != 0 {
        // There is no pool of reserved huge pages, as on a Linux machine without one.
        return Err(Errno::ENOMEM);
    }
    let mut vm = VmFlags::empty();
    vm.set(VmFlags::SHARED, shared);
    vm.set(VmFlags::GROWSDOWN, flags & MAP_GROWSDOWN != 0);
    vm.set(VmFlags::NORESERVE, flags & MAP_NORESERVE != 0);
    vm.set(VmFlags::NOHUGE, flags & MAP_STACK != 0);
    if flags & MAP_LOCKED != 0 || ctx.process.mm.locks_future() {
        check_memlock(ctx, bytes, Errno::EAGAIN)?;
        vm |= VmFlags::LOCKED;
    }
    let (backing, max_prot) = if flags & MAP_ANONYMOUS != 0 {
        let backing = if shared {
            shared_memory(bytes)
        } else {
            Backing::Anonymous
        };
        (backing, VmProt::all())
    } else {
        if flags & MAP_GROWSDOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if offset
            .checked_add(bytes as u64)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(Errno::EOVERFLOW);
        }
        file::backing(
            &ctx.process.files.get(fd)?,
            offset,
            bytes,
            shared,
            prot_of(prot),
        )?
    };
    let placement = match flags {
        _ if flags & MAP_FIXED_NOREPLACE != 0 => Placement::FixedNoReplace(addr),
        _ if flags & MAP_FIXED != 0 => Placement::Fixed(addr),
        _ if flags & MAP_32BIT != 0 => Placement::Low,
        _ => Placement::Anywhere(addr),
    };
    ctx.process.mm.map(MapRequest {
        placement,
        len: bytes,
        prot: prot_of(prot),
        max_prot,
        flags: vm,
        backing,
        name: VmName::None,
        populate: vm.contains(VmFlags::LOCKED)
            || flags & MAP_POPULATE != 0 && flags & MAP_NONBLOCK == 0,
    })
}

fn shared_memory(bytes: usize) -> Backing {
    let pager: Arc<dyn Pager> = Arc::new(SharedMemory::new((bytes / PAGE) as u64));
    Backing::Object { pager, offset: 0 }
}

/// Refuses to lock more than `RLIMIT_MEMLOCK`; a program with `CAP_IPC_LOCK`, as here, has no limit.
fn check_memlock(ctx: &Ctx<'_>, more: usize, error: Errno) -> Result<()> {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    if ctx.process.credentials.lock().caps[0] & CAP_IPC_LOCK != 0 {
        return Ok(());
    }
    let limit = ctx.process.limits.soft(Resource::Memlock);
    if limit != RLIM_INFINITY && (ctx.process.mm.locked_bytes() + more) as u64 > limit {
        return Err(error);
    }
    Ok(())
}

pub(super) fn sys_munmap(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> Result<usize> {
    ctx.process.mm.unmap(addr, len)?;
    Ok(0)
}

pub(super) fn sys_mprotect(ctx: &mut Ctx<'_>, addr: usize, len: usize, prot: u32) -> Result<usize> {
    let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
    if grows == PROT_GROWSDOWN | PROT_GROWSUP || grows == PROT_GROWSUP {
        return Err(Errno::EINVAL);
    }
    if prot & !(7 | PROT_SEM | PROT_GROWSDOWN) != 0 || !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let range = page_range(addr, len).map_err(|_| Errno::ENOMEM)?;
    ctx.process.mm.protect(range, prot_of(prot), grows != 0)?;
    Ok(0)
}

/// `pkey_mprotect(2)`: without protection keys only the key -1, which means none, exists.
pub(super) fn sys_pkey_mprotect(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    prot: u32,
    key: i32,
) -> Result<usize> {
    if key != -1 {
        return Err(Errno::EINVAL);
    }
    sys_mprotect(ctx, addr, len, prot)
}

pub(super) fn sys_brk(ctx: &mut Ctx<'_>, addr: usize) -> Result<usize> {
    Ok(ctx.process.mm.set_brk(addr))
}

const MREMAP_MAYMOVE: u32 = 1;
const MREMAP_FIXED: u32 = 2;
const MREMAP_DONTUNMAP: u32 = 4;

pub(super) fn sys_mremap(
    ctx: &mut Ctx<'_>,
    old: usize,
    old_len: usize,
    new_len: usize,
    flags: u32,
    to: usize,
) -> Result<usize> {
    let may_move = flags & MREMAP_MAYMOVE != 0;
    let keep_old = flags & MREMAP_DONTUNMAP != 0;
    let fixed = flags & MREMAP_FIXED != 0;
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) != 0
        || (fixed || keep_old) && !may_move
    {
        return Err(Errno::EINVAL);
    }
    let how = match (may_move, fixed) {
        (_, true) => Remap::Fixed { to, keep_old },
        (true, _) => Remap::MayMove { keep_old },
        _ => Remap::InPlace,
    };
    ctx.process.mm.remap(old, old_len, new_len, how)
}

pub(super) fn sys_madvise(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    advice: i32,
) -> Result<usize> {
    let range = page_range(addr, len)?;
    let mm = &ctx.process.mm;
    let none = VmFlags::empty();
    let change = |set, clear| mm.change_flags(range.clone(), set, clear);
    if range.is_empty() && (0..=25).contains(&advice) {
        return Ok(0);
    }
    match advice {
        0 => change(none, VmFlags::RANDOM | VmFlags::SEQUENTIAL)?,
        1 => change(VmFlags::RANDOM, VmFlags::SEQUENTIAL)?,
        2 => change(VmFlags::SEQUENTIAL, VmFlags::RANDOM)?,
        3 => mm.will_need(range)?,
        // DONTNEED; DONTNEED_LOCKED differs only for locked memory.
        4 => mm.discard(range, false)?,
        8 => mm.discard(range, true)?,
        10 => change(VmFlags::DONTFORK, none)?,
        11 => change(none, VmFlags::DONTFORK)?,
        14 => change(VmFlags::HUGE, VmFlags::NOHUGE)?,
        15 => change(VmFlags::NOHUGE, VmFlags::HUGE)?,
        16 => change(VmFlags::DONTDUMP, none)?,
        17 => change(none, VmFlags::DONTDUMP)?,
        18 => change(VmFlags::WIPEONFORK, none)?,
        19 => change(none, VmFlags::WIPEONFORK)?,
        // COLD and PAGEOUT ask for reclaim earlier than needed; there is nowhere to page out to.
        20 | 21 => mm.covered(range)?,
        22 => mm.populate_checked(range, false)?,
        23 => mm.populate_checked(range, true)?,
        // REMOVE, MERGEABLE, poisoning, COLLAPSE: not provided.
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

const MS_ASYNC: u32 = 1;
const MS_INVALIDATE: u32 = 2;
const MS_SYNC: u32 = 4;

pub(super) fn sys_msync(ctx: &mut Ctx<'_>, addr: usize, len: usize, flags: u32) -> Result<usize> {
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0
        || flags & MS_ASYNC != 0 && flags & MS_SYNC != 0
    {
        return Err(Errno::EINVAL);
    }
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let range = page_range(addr, len).map_err(|_| Errno::ENOMEM)?;
    ctx.process
        .mm
        .sync(range, flags & MS_SYNC != 0, flags & MS_INVALIDATE != 0)?;
    Ok(0)
}

pub(super) fn sys_mincore(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    vector: UserPtr<u8>,
) -> Result<usize> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let range = page_range(addr, len).map_err(|_| Errno::ENOMEM)?;
    let pages = ctx.process.mm.in_core(range)?;
    vector.write_bytes(&pages)?;
    Ok(0)
}

/// The pages that hold any byte of `addr` and `len`.
fn enclosing(addr: usize, len: usize) -> Result<core::ops::Range<usize>> {
    let start = addr / PAGE * PAGE;
    let end = addr
        .checked_add(len)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .ok_or(Errno::EINVAL)?;
    page_range(start, end - start).map_err(|_| Errno::ENOMEM)
}

pub(super) fn sys_mlock(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> Result<usize> {
    check_memlock(ctx, len, Errno::ENOMEM)?;
    ctx.process.mm.lock(enclosing(addr, len)?, true)?;
    Ok(0)
}

pub(super) fn sys_mlock2(ctx: &mut Ctx<'_>, addr: usize, len: usize, flags: u32) -> Result<usize> {
    const MLOCK_ONFAULT: u32 = 1;
    if flags & !MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    check_memlock(ctx, len, Errno::ENOMEM)?;
    ctx.process.mm.lock(enclosing(addr, len)?, flags == 0)?;
    Ok(0)
}

pub(super) fn sys_munlock(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> Result<usize> {
    ctx.process
        .mm
        .change_flags(enclosing(addr, len)?, VmFlags::empty(), VmFlags::LOCKED)?;
    Ok(0)
}

pub(super) fn sys_mlockall(ctx: &mut Ctx<'_>, flags: u32) -> Result<usize> {
    const MCL_CURRENT: u32 = 1;
    const MCL_FUTURE: u32 = 2;
    const MCL_ONFAULT: u32 = 4;
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT
    {
        return Err(Errno::EINVAL);
    }
    ctx.process
        .mm
        .set_locks_future(flags & MCL_FUTURE != 0 && flags & MCL_ONFAULT == 0);
    if flags & MCL_CURRENT != 0 {
        ctx.process.mm.lock_all(true, flags & MCL_ONFAULT == 0);
    }
    Ok(0)
}

pub(super) fn sys_munlockall(ctx: &mut Ctx<'_>) -> Result<usize> {
    ctx.process.mm.set_locks_future(false);
    ctx.process.mm.lock_all(false, false);
    Ok(0)
}
