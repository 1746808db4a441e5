//! The engine in the kernel: a thread for each queue of each card, woken by its interrupt, and a timer.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use machine::sync::Once;
use sched::{SpawnOptions, Timer, WaitQueue};

use crate::iface::Interface;
use crate::nic::Nic;
use crate::path::BUDGET;
use crate::stack::Stack;

static STACK: Once<Arc<Stack>> = Once::new();

/// The kernel's engine, once [`run`] was called.
pub fn stack() -> Option<&'static Arc<Stack>> {
    STACK.get()
}

/// What an interrupt leaves for the thread of its queue.
#[derive(Default)]
pub(crate) struct Doorbell {
    rung: AtomicBool,
    waiters: WaitQueue,
}

impl Doorbell {
    /// Legal in interrupt handlers.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waiters.wake_one();
        }
    }

    pub(crate) fn wait(&self) {
        self.waiters
            .wait(|| self.rung.swap(false, Ordering::AcqRel).then_some(()));
    }
}

/// Makes `stack` the kernel's engine and serves its interfaces from now on, also those added later.
///
/// # Errors
/// `ENOMEM` when a thread could not be started, `EBUSY` when there is an engine already.
pub fn run(stack: &Arc<Stack>) -> Result<()> {
    STACK.set(stack.clone()).map_err(|_| Errno::EBUSY)?;
    let weak = Arc::downgrade(stack);
    let timer = Timer::new(Box::new(move || {
        if let Some(stack) = weak.upgrade() {
            stack.run_timers();
        }
    }));
    *stack.arm_hook.write() = Some(Arc::new(move |at| timer.arm(at)));
    // Serves what is there and sets the timer for what has been asked for before there was a hook.
    stack.run_timers();
    stack.serve()
}

impl Stack {
    /// Starts the threads of interfaces that have none yet, if [`run`] was called for this engine.
    pub(crate) fn serve(&self) -> Result<()> {
        let Some(me) = STACK.get().filter(|s| core::ptr::eq(&***s, self)) else {
            return Ok(());
        };
        let ifaces: Vec<Arc<Interface>> = self.ifaces.read().clone();
        for iface in ifaces {
            let Some(nic) = &iface.nic else { continue };
            if iface.served.swap(true, Ordering::AcqRel) {
                continue;
            }
            for queue in 0..nic.queue_count() {
                spawn_poller(me.clone(), iface.clone(), queue)?;
            }
        }
        Ok(())
    }
}

/// A queue as idle CPUs look at it: an interrupt and its acknowledgement would cost more.
struct Queue {
    nic: Arc<dyn Nic>,
    queue: usize,
}

impl sched::idle::Watch for Queue {
    fn begin(&self) {
        self.nic.begin_looking(self.queue);
    }

    fn look(&self) -> bool {
        self.nic.look(self.queue)
    }

    fn end(&self) {
        self.nic.end_looking(self.queue);
    }
}

fn spawn_poller(stack: Arc<Stack>, iface: Arc<Interface>, queue: usize) -> Result<()> {
    let Some(nic) = iface.nic.clone() else {
        return Ok(());
    };
    let doorbell = Arc::new(Doorbell::default());
    let for_receive = doorbell.clone();
    nic.set_receive_handler(queue, Arc::new(move || for_receive.ring()));
    let for_transmit = doorbell.clone();
    nic.set_transmit_handler(queue, Arc::new(move || for_transmit.ring()));
    sched::idle::watch_when_idle(Arc::new(Queue {
        nic: nic.clone(),
        queue,
    }));
    let options = SpawnOptions::named(&format!("net/{}-{queue}", iface.name));
    sched::spawn(options, move || {
        loop {
            poll_until_quiet(&stack, &iface, queue);
            doorbell.wait();
        }
    })
    .map(|_| ())
    .map_err(|_| Errno::ENOMEM)
}

/// Takes packets while there are any, with the queue's interrupt off; then turns it on.
fn poll_until_quiet(stack: &Arc<Stack>, iface: &Arc<Interface>, queue: usize) {
    let Some(nic) = &iface.nic else { return };
    iface.flush(queue);
    loop {
        if stack.receive(iface, queue) >= BUDGET {
            // Under load, programs get their turn between budgets.
            sched::yield_now();
            continue;
        }
        if !nic.enable_interrupts(queue) {
            return;
        }
    }
}
