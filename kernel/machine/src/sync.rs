//! Locks that spin, and things initialised once. Locks that sleep live in `sched`.
//!
//! Which lock: [`SpinLock`] for data that interrupt handlers never touch; [`IrqLock`] for data they do (it keeps
//! interrupts off while held). Never block and never touch user memory while holding either.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use crate::arch;

/// Panics in debug builds when the caller holds a spinning lock: call before blocking.
#[inline]
#[track_caller]
pub fn assert_may_block() {
    #[cfg(debug_assertions)]
    {
        let held = arch::held_locks().load(Ordering::Relaxed);
        assert!(held == 0, "blocking with {held} spin lock(s) held");
    }
}

#[inline]
fn note_held(_delta: i32) {
    #[cfg(debug_assertions)]
    arch::held_locks().fetch_add(_delta, Ordering::Relaxed);
}

/// The test-and-set word shared by the spinning locks.
struct RawSpin(AtomicBool);

impl RawSpin {
    #[inline]
    fn lock(&self) {
        while self
            .0
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.0.load(Ordering::Relaxed) {
                arch::relax();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[inline]
    fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Mutual exclusion by spinning, for data that no interrupt handler touches.
pub struct SpinLock<T: ?Sized> {
    raw: RawSpin,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out access to `value` to one holder at a time.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}
// SAFETY: as above; sharing the lock shares only the right to ask for exclusive access.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawSpin(AtomicBool::new(false)),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Spins until the lock is free and takes it.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.raw.lock();
        note_held(1);
        SpinGuard { lock: self }
    }

    /// Takes the lock if it is free now.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.raw.try_lock().then(|| {
            note_held(1);
            SpinGuard { lock: self }
        })
    }

    /// Access without locking, proven exclusive by the borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpinLock")
    }
}

/// Holds a [`SpinLock`]; releases it when dropped.
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
}

// SAFETY: a guard gives shared access to `T` only.
unsafe impl<T: ?Sized + Sync> Sync for SpinGuard<'_, T> {}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock is held, and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.unlock();
        note_held(-1);
    }
}

/// Mutual exclusion by spinning with this CPU's interrupts off: for data shared with interrupt handlers.
pub struct IrqLock<T: ?Sized> {
    raw: RawSpin,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out access to `value` to one holder at a time.
unsafe impl<T: ?Sized + Send> Send for IrqLock<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for IrqLock<T> {}

impl<T> IrqLock<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawSpin(AtomicBool::new(false)),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> IrqLock<T> {
    /// Turns interrupts off on this CPU, then spins until the lock is free and takes it.
    #[inline]
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let was_on = arch::irq_disable();
        self.raw.lock();
        note_held(1);
        IrqGuard {
            lock: self,
            was_on,
            _not_send: core::marker::PhantomData,
        }
    }

    /// Takes the lock if it is free now; interrupts stay as they were if it is not.
    #[inline]
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let was_on = arch::irq_disable();
        if self.raw.try_lock() {
            note_held(1);
            Some(IrqGuard {
                lock: self,
                was_on,
                _not_send: core::marker::PhantomData,
            })
        } else {
            arch::irq_restore(was_on);
            None
        }
    }

    /// Access without locking, proven exclusive by the borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for IrqLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for IrqLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqLock")
    }
}

/// Holds an [`IrqLock`]; releases it and restores the interrupt flag when dropped.
pub struct IrqGuard<'a, T: ?Sized> {
    lock: &'a IrqLock<T>,
    was_on: bool,
    /// The interrupt flag belongs to this CPU.
    _not_send: core::marker::PhantomData<*const ()>,
}

impl<T: ?Sized> Deref for IrqGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for IrqGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock is held, and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for IrqGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.raw.unlock();
        note_held(-1);
        arch::irq_restore(self.was_on);
    }
}

const WRITER: u32 = 1 << 31;

/// Many readers or one writer, by spinning. Not for interrupt handlers. A waiting writer holds back new readers.
pub struct RwSpinLock<T: ?Sized> {
    /// Number of readers, or [`WRITER`].
    state: AtomicU32,
    waiting_writers: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: readers share `&T`, a writer has it alone.
unsafe impl<T: ?Sized + Send> Send for RwSpinLock<T> {}
// SAFETY: as above; `T: Sync` because readers on several CPUs share `&T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwSpinLock<T> {}

impl<T> RwSpinLock<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(0),
            waiting_writers: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> RwSpinLock<T> {
    /// Spins until no writer holds or awaits the lock, and takes it shared. Not reentrant.
    #[inline]
    pub fn read(&self) -> RwReadGuard<'_, T> {
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & WRITER == 0
                && self.waiting_writers.load(Ordering::Relaxed) == 0
                && self
                    .state
                    .compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                note_held(1);
                return RwReadGuard { lock: self };
            }
            arch::relax();
        }
    }

    /// Spins until nobody holds the lock, and takes it alone.
    #[inline]
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        self.waiting_writers.fetch_add(1, Ordering::Relaxed);
        while self
            .state
            .compare_exchange_weak(0, WRITER, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            arch::relax();
        }
        self.waiting_writers.fetch_sub(1, Ordering::Relaxed);
        note_held(1);
        RwWriteGuard { lock: self }
    }
}

impl<T: Default> Default for RwSpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Holds a [`RwSpinLock`] shared.
pub struct RwReadGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
}

impl<T: ?Sized> Deref for RwReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: no writer exists while a read guard does.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.fetch_sub(1, Ordering::Release);
        note_held(-1);
    }
}

/// Holds a [`RwSpinLock`] alone.
pub struct RwWriteGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
}

impl<T: ?Sized> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the writer has the value alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the writer has the value alone.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.store(0, Ordering::Release);
        note_held(-1);
    }
}

const EMPTY: u8 = 0;
const RUNNING: u8 = 1;
const READY: u8 = 2;

/// A cell that is written once, by whoever comes first; others spin while it is being written.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by one caller and only shared afterwards.
unsafe impl<T: Send> Send for Once<T> {}
// SAFETY: as above; readers on several CPUs share `&T`.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it has been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) == READY {
            // SAFETY: READY is stored after the value was written, and the value is never written again.
            Some(unsafe { (*self.value.get()).assume_init_ref() })
        } else {
            None
        }
    }

    /// The value, set from `make` if the cell is empty. If another CPU is making it, waits for that.
    pub fn call_once(&self, make: impl FnOnce() -> T) -> &T {
        let mut make = Some(make);
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            if self
                .state
                .compare_exchange(EMPTY, RUNNING, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                if let Some(make) = make.take() {
                    let value = make();
                    // SAFETY: RUNNING makes this caller the only one to touch the cell until READY.
                    unsafe { (*self.value.get()).write(value) };
                    self.state.store(READY, Ordering::Release);
                }
            } else {
                arch::relax();
            }
        }
    }

    /// Sets the value; gives it back if the cell was set already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.call_once(|| value.take().expect("the closure runs at most once"));
        match value {
            None => Ok(()),
            Some(value) => Err(value),
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == READY {
            // SAFETY: READY means initialised; `&mut self` means nobody else looks.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

/// A value made at first use.
pub struct Lazy<T, F = fn() -> T> {
    once: Once<T>,
    make: F,
}

impl<T, F: Fn() -> T> Lazy<T, F> {
    /// A value to be made by `make` when first looked at.
    pub const fn new(make: F) -> Self {
        Self {
            once: Once::new(),
            make,
        }
    }
}

impl<T, F: Fn() -> T> Deref for Lazy<T, F> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.once.call_once(&self.make)
    }
}

/// `N` words that are read often and written rarely: readers never wait for each other and retry around a write.
pub struct SeqLock<const N: usize> {
    sequence: AtomicU32,
    words: [AtomicU64; N],
    writer: IrqLock<()>,
}

impl<const N: usize> SeqLock<N> {
    /// A new lock around `words`.
    pub const fn new(words: [u64; N]) -> Self {
        let mut cells = [const { AtomicU64::new(0) }; N];
        let mut i = 0;
        while i < N {
            cells[i] = AtomicU64::new(words[i]);
            i += 1;
        }
        Self {
            sequence: AtomicU32::new(0),
            words: cells,
            writer: IrqLock::new(()),
        }
    }

    /// A consistent copy of the words.
    #[inline]
    pub fn read(&self) -> [u64; N] {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let copy = core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return copy;
            }
            arch::relax();
        }
    }

    /// Replaces the words by what `change` makes of them.
    pub fn update(&self, change: impl FnOnce(&mut [u64; N])) {
        let _writer = self.writer.lock();
        let mut copy = core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
        change(&mut copy);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(copy) {
            cell.store(word, Ordering::Relaxed);
        }
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn spin_lock_excludes() {
        let lock = Arc::new(SpinLock::new(0u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lock = lock.clone();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        *lock.lock() += 1;
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*lock.lock(), 40_000);
    }

    #[test]
    fn once_is_made_once() {
        static ONCE: Once<u32> = Once::new();
        assert!(ONCE.get().is_none());
        assert_eq!(*ONCE.call_once(|| 7), 7);
        assert_eq!(*ONCE.call_once(|| 8), 7);
        assert_eq!(ONCE.set(9), Err(9));
    }

    #[test]
    fn seq_lock_never_shows_a_torn_pair() {
        let lock = Arc::new(SeqLock::new([0, 0]));
        let writer = {
            let lock = lock.clone();
            std::thread::spawn(move || {
                for i in 1..20_000u64 {
                    lock.update(|w| *w = [i, i * 3]);
                }
            })
        };
        while !writer.is_finished() {
            let [a, b] = lock.read();
            assert_eq!(a * 3, b);
        }
        writer.join().unwrap();
    }

    #[test]
    fn readers_and_writers() {
        let lock = RwSpinLock::new(1);
        {
            let a = lock.read();
            let b = lock.read();
            assert_eq!(*a + *b, 2);
        }
        *lock.write() = 5;
        assert_eq!(*lock.read(), 5);
    }
}
