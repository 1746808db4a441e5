//! What the process and each thread keep about signals: dispositions, masks, queues, stacks.
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::sync::SpinLock;
use sched::poll::Pollee;

use super::queue::SigQueue;
use super::{NSIG, SIGKILL, SIGSTOP, SigInfo, SigSet};

bitflags::bitflags! {
    /// `sa_flags` of `sigaction(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SaFlags: u64 {
        /// `SA_NOCLDSTOP`.
        const NOCLDSTOP = 1;
        /// `SA_NOCLDWAIT`.
        const NOCLDWAIT = 2;
        /// `SA_SIGINFO`.
        const SIGINFO = 4;
        /// `SA_RESTORER`.
        const RESTORER = 0x0400_0000;
        /// `SA_ONSTACK`.
        const ONSTACK = 0x0800_0000;
        /// `SA_RESTART`.
        const RESTART = 0x1000_0000;
        /// `SA_NODEFER`.
        const NODEFER = 0x4000_0000;
        /// `SA_RESETHAND`.
        const RESETHAND = 0x8000_0000;
        /// Bits without a meaning here are kept and given back, as Linux does.
        const _ = !0;
    }
}

/// The disposition of one signal (`struct sigaction` of the kernel's ABI).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SigAction {
    /// The address of the handler, or [`SIG_DFL`], [`SIG_IGN`].
    pub handler: u64,
    /// How to call it.
    pub flags: SaFlags,
    /// Where it returns to.
    pub restorer: u64,
    /// What is blocked while it runs.
    pub mask: SigSet,
}

/// The default action.
pub const SIG_DFL: u64 = 0;
/// Ignored.
pub const SIG_IGN: u64 = 1;

impl SigAction {
    /// Whether the program handles the signal itself.
    pub const fn is_caught(&self) -> bool {
        self.handler > SIG_IGN
    }
}

/// Signals as the process keeps them.
pub struct ProcessSignals {
    actions: SpinLock<[SigAction; NSIG as usize]>,
    /// Signals for the process as a whole.
    pub(super) shared: SpinLock<SigQueue>,
    /// Told when a signal was queued anywhere: `signalfd(2)` and `sigtimedwait(2)` look again.
    pub pollee: Pollee,
}

impl Default for ProcessSignals {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessSignals {
    /// Everything at its default.
    pub fn new() -> Self {
        ProcessSignals {
            actions: SpinLock::new([SigAction::default(); NSIG as usize]),
            shared: SpinLock::new(SigQueue::new()),
            pollee: Pollee::new(),
        }
    }

    /// The disposition of `signal` (1 to 64).
    pub fn action(&self, signal: i32) -> SigAction {
        match usize::try_from(signal - 1)
            .ok()
            .filter(|n| *n < NSIG as usize)
        {
            Some(n) => self.actions.lock()[n],
            None => SigAction::default(),
        }
    }

    /// Sets the disposition of `signal` (1 to 64) and returns the one before.
    pub fn set_action(&self, signal: i32, mut action: SigAction) -> SigAction {
        action.mask = action.mask.difference(SigSet::UNBLOCKABLE);
        match usize::try_from(signal - 1)
            .ok()
            .filter(|n| *n < NSIG as usize)
        {
            Some(n) if signal != SIGKILL && signal != SIGSTOP => {
                core::mem::replace(&mut self.actions.lock()[n], action)
            }
            _ => SigAction::default(),
        }
    }

    /// Signals with handlers and ignored ones, for `/proc/self/status` (`SigCgt`, `SigIgn`).
    pub fn caught_and_ignored(&self) -> (SigSet, SigSet) {
        let actions = self.actions.lock();
        let (mut caught, mut ignored) = (SigSet::EMPTY, SigSet::EMPTY);
        for (n, action) in actions.iter().enumerate() {
            let set = SigSet(1 << n);
            if action.is_caught() {
                caught = caught.union(set);
            } else if action.handler == SIG_IGN {
                ignored = ignored.union(set);
            }
        }
        (caught, ignored)
    }

    /// What is pending for the process as a whole (`ShdPnd`).
    pub fn pending(&self) -> SigSet {
        self.shared.lock().pending()
    }

    /// How many signals wait in the shared queue.
    pub fn queued(&self) -> usize {
        self.shared.lock().len()
    }
}

/// The alternate signal stack of a thread (`sigaltstack(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// `ss_sp`.
    pub base: usize,
    /// `ss_size`.
    pub size: usize,
    /// `ss_flags`: `SS_DISABLE` (2) and `SS_AUTODISARM` (bit 31).
    pub flags: u32,
}

/// `SS_ONSTACK`.
pub const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: u32 = 1 << 31;

impl AltStack {
    /// None.
    pub const DISABLED: AltStack = AltStack {
        base: 0,
        size: 0,
        flags: SS_DISABLE,
    };

    /// Whether the stack pointer `sp` is on it. One that disarms itself never counts as in use.
    pub const fn contains(&self, sp: usize) -> bool {
        self.flags & SS_AUTODISARM == 0 && sp > self.base && sp - self.base <= self.size
    }
}

/// Signals as a thread keeps them.
pub struct ThreadSignals {
    mask: AtomicU64,
    /// The mask changed since pending signals were looked for.
    look: AtomicBool,
    pub(super) queue: SpinLock<SigQueue>,
    altstack: SpinLock<AltStack>,
    /// The mask to go back to after `sigsuspend`, `ppoll` and the like (Linux's `saved_sigmask`).
    saved_mask: SpinLock<Option<SigSet>>,
    /// There may be one.
    has_saved: AtomicBool,
    /// What `sigtimedwait(2)` waits for, or nothing: such a signal wakes the thread though blocked.
    waiting_for: AtomicU64,
}

impl ThreadSignals {
    /// With `mask` blocked.
    pub fn new(mask: SigSet) -> Self {
        ThreadSignals {
            mask: AtomicU64::new(mask.0),
            look: AtomicBool::new(true),
            queue: SpinLock::new(SigQueue::new()),
            altstack: SpinLock::new(AltStack::DISABLED),
            saved_mask: SpinLock::new(None),
            has_saved: AtomicBool::new(false),
            waiting_for: AtomicU64::new(0),
        }
    }

    /// What is blocked.
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }

    /// Blocks exactly `mask` (without the two that cannot be). The caller is the thread itself;
    /// it looks for newly deliverable signals before it returns to the program.
    pub fn set_mask(&self, mask: SigSet) -> SigSet {
        self.look.store(true, Ordering::Relaxed);
        SigSet(
            self.mask
                .swap(mask.difference(SigSet::UNBLOCKABLE).0, Ordering::SeqCst),
        )
    }

    /// Blocks exactly `mask` until the system call ends (`ppoll(2)`, `pselect(2)`, `epoll_pwait(2)`,
    /// `rt_sigsuspend(2)`). A handler that interrupts the call still runs with `mask`; the mask from
    /// before comes back when it returns, or, without a handler, through
    /// [`ThreadSignals::restore_saved_mask`], which delivery calls.
    pub fn set_temporary_mask(&self, mask: SigSet) {
        let before = self.set_mask(mask);
        self.saved_mask.lock().get_or_insert(before);
        self.has_saved.store(true, Ordering::Relaxed);
    }

    /// Goes back to the mask from before [`ThreadSignals::set_temporary_mask`].
    ///
    /// Answers whether there was one.
    pub fn restore_saved_mask(&self) -> bool {
        if !self.has_saved.swap(false, Ordering::Relaxed) {
            return false;
        }
        let saved = self.saved_mask.lock().take();
        match saved {
            Some(mask) => {
                self.set_mask(mask);
                true
            }
            None => false,
        }
    }

    /// Whether the mask changed since [`ThreadSignals::take_look`].
    pub(crate) fn wants_look(&self) -> bool {
        self.look.load(Ordering::Relaxed)
    }

    /// Has pending signals looked for before the program goes on.
    pub(crate) fn want_look(&self) {
        self.look.store(true, Ordering::Relaxed);
    }

    /// Pending signals are being looked for.
    pub(crate) fn take_look(&self) {
        self.look.store(false, Ordering::Relaxed);
    }

    /// The mask a handler's return goes back to: the saved one if there is one.
    pub(super) fn take_mask_for_frame(&self) -> SigSet {
        self.saved_mask.lock().take().unwrap_or_else(|| self.mask())
    }

    /// What is pending for this thread alone (`SigPnd`).
    pub fn pending(&self) -> SigSet {
        self.queue.lock().pending()
    }

    /// The alternate stack.
    pub fn altstack(&self) -> AltStack {
        *self.altstack.lock()
    }

    /// Sets the alternate stack.
    pub fn set_altstack(&self, stack: AltStack) {
        *self.altstack.lock() = stack;
    }

    /// What `sigtimedwait(2)` waits for.
    pub(super) fn waiting_for(&self) -> SigSet {
        SigSet(self.waiting_for.load(Ordering::SeqCst))
    }

    /// Says what `sigtimedwait(2)` waits for, or that it waits no longer.
    pub(crate) fn set_waiting_for(&self, set: SigSet) {
        self.waiting_for.store(set.0, Ordering::SeqCst);
    }

    /// Takes the next pending signal of `wanted`, the thread's own before the process's.
    pub fn take(&self, process: &ProcessSignals, wanted: SigSet) -> Option<SigInfo> {
        if let Some(info) = self.queue.lock().take(wanted) {
            return Some(info);
        }
        process.shared.lock().take(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{SIGTERM, SIGUSR1};

    #[test]
    fn the_unblockable_stay_unblocked() {
        let signals = ThreadSignals::new(SigSet::EMPTY);
        signals.set_mask(SigSet(!0));
        assert!(!signals.mask().contains(SIGKILL) && !signals.mask().contains(SIGSTOP));
        let process = ProcessSignals::new();
        process.set_action(
            SIGKILL,
            SigAction {
                handler: SIG_IGN,
                ..SigAction::default()
            },
        );
        assert_eq!(process.action(SIGKILL).handler, SIG_DFL);
    }

    #[test]
    fn a_temporary_mask_gives_way_to_the_first_one() {
        let signals = ThreadSignals::new(SigSet::of(SIGTERM));
        signals.set_temporary_mask(SigSet::EMPTY);
        signals.set_temporary_mask(SigSet::of(SIGUSR1));
        signals.restore_saved_mask();
        assert_eq!(signals.mask(), SigSet::of(SIGTERM));
        signals.restore_saved_mask();
        assert_eq!(signals.mask(), SigSet::of(SIGTERM));
    }

    #[test]
    fn a_stack_holds_its_top_but_not_its_bottom() {
        let stack = AltStack {
            base: 0x1000,
            size: 0x1000,
            flags: 0,
        };
        assert!(stack.contains(0x2000) && !stack.contains(0x1000) && !stack.contains(0x2001));
    }
}
