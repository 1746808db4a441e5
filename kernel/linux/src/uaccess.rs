//! Typed access to the program's memory: [`UserPtr`], [`UserSlice`] and vectors of slices.
//!
//! Nothing here trusts an address: every access goes through `machine::user`, which checks the
//! range and turns a fault into `EFAULT`. What the bytes mean is for the system calls to say.
use alloc::vec::Vec;
use core::marker::PhantomData;

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::user;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The longest path name the kernel accepts, its terminating zero included (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// The first address above the program's half of the address space.
pub const USER_END: usize = 0x7fff_ffff_f000;

/// The address of a `T` in the program's memory. It may be null, unmapped or misaligned.
pub struct UserPtr<T> {
    addr: usize,
    _points_to: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> core::fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.addr)
    }
}

impl<T> UserPtr<T> {
    /// The pointer with that address.
    pub const fn new(addr: usize) -> Self {
        UserPtr {
            addr,
            _points_to: PhantomData,
        }
    }

    /// The address.
    pub const fn addr(self) -> usize {
        self.addr
    }

    /// Whether it is the null pointer, which many calls take as "none".
    pub const fn is_null(self) -> bool {
        self.addr == 0
    }

    /// The same address, pointing to something else.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }

    /// The pointer to the `n`th `T` after this one.
    pub const fn add(self, n: usize) -> Self {
        UserPtr::new(self.addr.wrapping_add(n.wrapping_mul(size_of::<T>())))
    }

    /// The pointer `bytes` further.
    pub const fn byte_add(self, bytes: usize) -> Self {
        UserPtr::new(self.addr.wrapping_add(bytes))
    }
}

impl<T: FromBytes + IntoBytes> UserPtr<T> {
    /// Copies the value in.
    ///
    /// # Errors
    /// `EFAULT` where it is not readable.
    pub fn read(self) -> Result<T> {
        let mut value = T::new_zeroed();
        user::copy_from_user(self.addr, value.as_mut_bytes()).map_err(|_| Errno::EFAULT)?;
        Ok(value)
    }

    /// Copies the value in, or answers `None` for the null pointer.
    ///
    /// # Errors
    /// As [`UserPtr::read`].
    pub fn read_opt(self) -> Result<Option<T>> {
        if self.is_null() {
            return Ok(None);
        }
        self.read().map(Some)
    }

    /// Copies `count` consecutive values in.
    ///
    /// # Errors
    /// `EFAULT` where they are not readable, `ENOMEM` where there is no room for the copy.
    pub fn read_vec(self, count: usize) -> Result<Vec<T>> {
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        for n in 0..count {
            values.push(self.add(n).read()?);
        }
        Ok(values)
    }
}

impl<T: IntoBytes + Immutable> UserPtr<T> {
    /// Copies `value` out.
    ///
    /// # Errors
    /// `EFAULT` where it is not writable.
    pub fn write(self, value: &T) -> Result<()> {
        user::copy_to_user(self.addr, value.as_bytes()).map_err(|_| Errno::EFAULT)
    }

    /// Copies `value` out unless the pointer is null.
    ///
    /// # Errors
    /// As [`UserPtr::write`].
    pub fn write_opt(self, value: &T) -> Result<()> {
        if self.is_null() {
            return Ok(());
        }
        self.write(value)
    }
}

impl UserPtr<u8> {
    /// Copies bytes in, as many as `bytes` has room for.
    ///
    /// # Errors
    /// `EFAULT` where they are not readable.
    pub fn read_bytes(self, bytes: &mut [u8]) -> Result<()> {
        user::copy_from_user(self.addr, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Copies `bytes` out.
    ///
    /// # Errors
    /// `EFAULT` where they are not writable.
    pub fn write_bytes(self, bytes: &[u8]) -> Result<()> {
        user::copy_to_user(self.addr, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Copies in a string up to its terminating zero, which is not part of the answer.
    ///
    /// # Errors
    /// `EFAULT`, or `too_long` where no zero is found within `limit` bytes.
    pub fn read_cstr(self, limit: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunk = [0u8; 256];
        while bytes.len() < limit {
            let addr = self.addr.wrapping_add(bytes.len());
            // Never past the end of a page in one go: the next one may not be there.
            let in_page = 4096 - addr % 4096;
            let len = chunk.len().min(in_page).min(limit - bytes.len());
            let n = user::strncpy_from_user(addr, &mut chunk[..len]).map_err(|_| Errno::EFAULT)?;
            bytes.try_reserve(n).map_err(|_| Errno::ENOMEM)?;
            bytes.extend_from_slice(&chunk[..n]);
            if n < len {
                return Ok(bytes);
            }
        }
        Err(too_long)
    }

    /// Copies in a path name (`ENAMETOOLONG` from [`PATH_MAX`] on).
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`.
    pub fn read_path(self) -> Result<Vec<u8>> {
        self.read_cstr(PATH_MAX, Errno::ENAMETOOLONG)
    }
}

/// A range of the program's memory that is read or written from the front.
///
/// As a [`Sink`] or [`Source`] it shrinks with every transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserSlice {
    addr: usize,
    len: usize,
}

impl UserSlice {
    /// The range of `len` bytes at `addr`.
    ///
    /// # Errors
    /// `EFAULT` when it leaves the program's half of the address space.
    pub fn new(addr: usize, len: usize) -> Result<Self> {
        match addr.checked_add(len) {
            Some(end) if end <= USER_END || len == 0 => Ok(UserSlice { addr, len }),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Where it starts.
    pub const fn addr(&self) -> usize {
        self.addr
    }

    /// How many bytes are left.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The front of it, at most `len` bytes.
    pub fn first(&self, len: usize) -> UserSlice {
        UserSlice {
            addr: self.addr,
            len: self.len.min(len),
        }
    }

    fn advance(&mut self, n: usize) {
        self.addr += n;
        self.len -= n;
    }

    /// Moves `len` bytes, page by page when the whole does not go: what lies before the fault counts.
    fn transfer(
        &mut self,
        len: usize,
        mut copy: impl FnMut(usize, usize, usize) -> bool,
    ) -> Result<usize> {
        let len = len.min(self.len);
        if len == 0 {
            return Ok(0);
        }
        if copy(self.addr, 0, len) {
            self.advance(len);
            return Ok(len);
        }
        let mut done = 0;
        while done < len {
            let part = (4096 - self.addr % 4096).min(len - done);
            if !copy(self.addr, done, part) {
                break;
            }
            self.advance(part);
            done += part;
        }
        if done == 0 {
            Err(Errno::EFAULT)
        } else {
            Ok(done)
        }
    }

    fn transfer_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        let n = copy(self.addr, len.min(self.len))?.min(self.len);
        self.advance(n);
        Ok(n)
    }
}

impl Sink for UserSlice {
    fn remaining(&self) -> usize {
        self.len
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        self.transfer(bytes.len(), |addr, from, len| {
            user::copy_to_user(addr, &bytes[from..from + len]).is_ok()
        })
    }

    fn put_zeros(&mut self, len: usize) -> Result<usize> {
        self.transfer(len, |addr, _, len| user::zero_user(addr, len).is_ok())
    }

    fn put_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        Some(self.transfer_with(len, copy))
    }
}

impl Source for UserSlice {
    fn remaining(&self) -> usize {
        self.len
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.transfer(bytes.len(), |addr, from, len| {
            user::copy_from_user(addr, &mut bytes[from..from + len]).is_ok()
        })
    }

    fn take_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        Some(self.transfer_with(len, copy))
    }
}

/// The most segments one vectored call may have (`UIO_MAXIOV`).
pub const IOV_MAX: usize = 1024;

/// The most bytes one read or write moves (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Several ranges as one [`Sink`] or [`Source`], in order: the `iovec`s of `readv(2)` or a `msghdr`.
#[derive(Clone, Debug)]
pub struct UserVec {
    slices: Vec<UserSlice>,
    at: usize,
}

impl UserVec {
    /// Reads `count` `struct iovec`s at `iov`.
    ///
    /// The total is cut to [`MAX_RW_COUNT`], as Linux has it.
    ///
    /// # Errors
    /// `EINVAL` for too many or a length that is negative as `ssize_t`, `EFAULT`.
    pub fn read(iov: UserPtr<[u64; 2]>, count: usize) -> Result<Self> {
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let mut slices = Vec::new();
        slices.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        let mut room = MAX_RW_COUNT;
        for n in 0..count {
            let [base, len] = iov.add(n).read()?;
            if len > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            let slice = UserSlice::new(base as usize, len as usize)?.first(room);
            room -= slice.len();
            slices.push(slice);
        }
        Ok(UserVec { slices, at: 0 })
    }

    /// The ranges that are left, in order.
    pub fn slices(&self) -> &[UserSlice] {
        &self.slices[self.at..]
    }

    fn left(&self) -> usize {
        self.slices().iter().map(UserSlice::len).sum()
    }

    /// Runs `step` on one segment after the other until it moves less than it could.
    fn each(
        &mut self,
        mut step: impl FnMut(&mut UserSlice, usize) -> Result<Option<usize>>,
    ) -> Result<usize> {
        let mut done = 0;
        while let Some(slice) = self.slices.get_mut(self.at) {
            if slice.is_empty() {
                self.at += 1;
                continue;
            }
            let before = slice.len();
            match step(slice, done) {
                Ok(None) => break,
                Ok(Some(n)) => {
                    done += n;
                    if n < before {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

impl Sink for UserVec {
    fn remaining(&self) -> usize {
        self.left()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        self.each(|slice, done| {
            if done == bytes.len() {
                return Ok(None);
            }
            slice.put(&bytes[done..]).map(Some)
        })
    }

    fn put_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        Some(self.each(|slice, done| {
            if done == len {
                return Ok(None);
            }
            slice.transfer_with(len - done, copy).map(Some)
        }))
    }
}

impl Source for UserVec {
    fn remaining(&self) -> usize {
        self.left()
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.each(|slice, done| {
            if done == bytes.len() {
                return Ok(None);
            }
            slice.take(&mut bytes[done..]).map(Some)
        })
    }

    fn take_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        Some(self.each(|slice, done| {
            if done == len {
                return Ok(None);
            }
            slice.transfer_with(len - done, copy).map(Some)
        }))
    }
}

/// What a register of a system call becomes in its handler.
pub trait FromArg {
    /// The argument out of the 64-bit register; narrower kinds take the low bits, as in Linux.
    fn from_arg(register: u64) -> Self;
}

macro_rules! from_arg {
    ($($kind:ty)*) => { $(impl FromArg for $kind {
        fn from_arg(register: u64) -> Self { register as $kind }
    })* };
}
from_arg!(i32 u32 i64 u64 isize usize u16);

impl<T> FromArg for UserPtr<T> {
    fn from_arg(register: u64) -> Self {
        UserPtr::new(register as usize)
    }
}
