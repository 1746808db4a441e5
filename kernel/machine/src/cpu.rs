//! The CPUs: which one this is, data for each of them, what they can do, waking and stopping them.

use core::ops::Deref;

use crate::arch;
pub use crate::arch::features::{Features, features};
use crate::sync::Once;

/// The most CPUs this kernel runs on.
pub const MAX_CPUS: usize = 16;

/// Number of the CPU that runs this code, from 0. Without a lock or with interrupts on, code that blocks may find
/// itself on another CPU afterwards.
#[inline]
pub fn id() -> usize {
    arch::cpu_id()
}

/// Number of CPUs that the machine has and this kernel uses. Those with a number below it may still be starting.
pub fn count() -> usize {
    arch::cpu_count()
}

/// Whether CPU `cpu` has started and takes threads.
pub fn is_online(cpu: usize) -> bool {
    arch::cpu_online(cpu)
}

/// Hint to the CPU that this is a spinning loop.
#[inline]
pub fn relax() {
    arch::relax();
}

/// Turns interrupts on and stops this CPU until its next one; no interrupt can slip in between. Call with interrupts
/// off, after a last look at what there is to do. Returns at once if [`Ipi::Reschedule`] has come since the last
/// return to user mode or halt.
pub fn halt() {
    arch::halt()
}

/// What one CPU can ask of another.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ipi {
    /// Leave user mode or the idle halt and look at the run queue; sticks until the next return to user mode.
    Reschedule,
}

/// Sends `ipi` to CPU `cpu`. Does nothing if there is no such CPU online.
pub fn send_ipi(cpu: usize, ipi: Ipi) {
    if cpu < MAX_CPUS {
        arch::send_ipi(cpu, ipi)
    }
}

static IPI_HANDLER: Once<fn()> = Once::new();

/// Sets the function called, in interrupt context, on a CPU that gets [`Ipi::Reschedule`]. The first caller wins.
pub fn set_ipi_handler(handler: fn()) {
    let _ = IPI_HANDLER.set(handler);
}

#[cfg(target_os = "none")]
pub(crate) fn ipi_arrived() {
    if let Some(handler) = IPI_HANDLER.get() {
        handler();
    }
}

/// Makes this CPU's next attempt to enter user mode return [`crate::context::Trap::Interrupt`] at once.
#[inline]
pub fn kick_self() {
    arch::kick_self()
}

/// Whether QEMU's emulation runs this machine: see [`refresh_tlb`] for what that changes.
#[inline]
pub fn is_emulated() -> bool {
    arch::is_emulated()
}

/// Forgets all translations of this CPU. QEMU's emulation keeps translations of 4 KiB in a table of 256 entries that it
/// only ever resizes when it is flushed: without this, whatever touches more than a megabyte pays for a walk of the
/// page tables, in software, at every other access.
pub fn refresh_tlb() {
    arch::refresh_tlb();
}

/// Runs `work` with this CPU's interrupts off.
#[inline]
pub fn without_interrupts<R>(work: impl FnOnce() -> R) -> R {
    let was_on = arch::irq_disable();
    let result = work();
    arch::irq_restore(was_on);
    result
}

/// Whether interrupts are on for this CPU.
pub fn interrupts_enabled() -> bool {
    arch::irqs_enabled()
}

/// Turns interrupts on. `main` calls this when it is ready for them.
pub fn enable_interrupts() {
    arch::irq_restore(true)
}

/// Keeps neighbours in an array from sharing a cache line.
#[repr(align(128))]
struct Padded<T>(T);

/// One `T` for each CPU.
pub struct PerCpu<T> {
    slots: [Padded<T>; MAX_CPUS],
}

impl<T> PerCpu<T> {
    /// From one value for each CPU.
    pub const fn new(values: [T; MAX_CPUS]) -> Self {
        // Moves the array into padded cells; in a `const fn` that goes through `MaybeUninit`.
        let mut slots: [core::mem::MaybeUninit<Padded<T>>; MAX_CPUS] =
            [const { core::mem::MaybeUninit::uninit() }; MAX_CPUS];
        let values = core::mem::ManuallyDrop::new(values);
        let from = (&raw const values).cast::<T>();
        let mut i = 0;
        while i < MAX_CPUS {
            // SAFETY: `ManuallyDrop<[T; N]>` has the layout of `[T; N]`; each element is moved out once.
            slots[i].write(Padded(unsafe { from.add(i).read() }));
            i += 1;
        }
        Self {
            // SAFETY: all elements are initialised, and `MaybeUninit<X>` has the layout of `X`.
            slots: unsafe { (&raw const slots).cast::<[Padded<T>; MAX_CPUS]>().read() },
        }
    }

    /// From one closure call for each CPU.
    pub fn from_fn(mut make: impl FnMut(usize) -> T) -> Self {
        Self {
            slots: core::array::from_fn(|i| Padded(make(i))),
        }
    }

    /// This CPU's value.
    #[inline]
    pub fn get(&self) -> &T {
        &self.slots[id()].0
    }

    /// The value of CPU `cpu`. Panics if `cpu` is not below [`MAX_CPUS`].
    #[inline]
    pub fn on(&self, cpu: usize) -> &T {
        &self.slots[cpu].0
    }

    /// All values, in order of CPU number.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|slot| &slot.0)
    }
}

impl<T> Deref for PerCpu<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.get()
    }
}
