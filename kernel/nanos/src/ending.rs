//! How the machine ends: the program's end, the power button, a start that failed.

use alloc::sync::Arc;
use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};

use drivers::power::Power;
use fs::Namespace;
use linux::process::ExitStatus;
use machine::power::{ExitReason, exit as power_off};
use machine::sync::Once;
use manifest::{ExitSet, Manifest};
use sched::{SpawnError, SpawnOptions, WaitQueue};

/// What is needed at the end.
struct Ending {
    namespace: Arc<Namespace>,
    expected: Option<ExitSet>,
    reboot: Option<ExitSet>,
    idle: Option<ExitSet>,
}

static ENDING: Once<Ending> = Once::new();

/// Remembers what is to be flushed, and what the manifest says of exit codes.
pub fn prepare(manifest: &Manifest, namespace: Arc<Namespace>) {
    ENDING.call_once(|| Ending {
        namespace,
        expected: manifest.expected_exit_code.clone(),
        reboot: manifest.reboot_on_exit.clone(),
        idle: manifest.idle_on_exit.clone(),
    });
}

/// Says why the start failed, and ends the machine.
pub fn fail(error: &dyn Display) -> ! {
    let line = alloc::format!("nanos: {error}\r\n");
    machine::console::write(line.as_bytes());
    power_off(ExitReason::Exit(1))
}

/// The program has ended: makes everything durable, and ends the machine with its status, or as the manifest says.
pub fn exit(status: ExitStatus) -> ! {
    linux::trace::program_ended();
    let code = i32::from(status.code());
    let holds = |set: &Option<ExitSet>| set.as_ref().is_some_and(|set| set.contains(code));
    if let Some(ending) = ENDING.get() {
        if let Err(error) = ending.namespace.unmount_all() {
            log::error!("what was written last may be lost: {error}");
        }
        if RESTART.load(Ordering::SeqCst) || holds(&ending.reboot) {
            power_off(ExitReason::Reboot);
        }
        if holds(&ending.idle) {
            WaitQueue::new().wait(|| None)
        }
        if holds(&ending.expected) {
            power_off(ExitReason::Exit(0));
        }
    }
    power_off(match status {
        ExitStatus::Code(code) => ExitReason::Exit(code),
        ExitStatus::Signal(signal) => ExitReason::Signal(signal as u8),
    })
}

static PRESSED: AtomicBool = AtomicBool::new(false);
static BUTTON: WaitQueue = WaitQueue::new();

/// Turns the power button into SIGTERM for the program. One that ignores it is ended.
pub fn watch_power(power: Arc<Power>) {
    let press = || {
        PRESSED.store(true, Ordering::SeqCst);
        BUTTON.wake_one();
    };
    let watched = power
        .watch_button(Arc::new(press))
        .map_err(|error| alloc::format!("{error}"));
    // The button's handler runs in an interrupt, where signals cannot be sent. The thread keeps the button watched.
    let serve = move || {
        let _power = power;
        loop {
            BUTTON.wait(|| PRESSED.swap(false, Ordering::SeqCst).then_some(()));
            ask_to_end();
        }
    };
    let served = sched::spawn(SpawnOptions::named("power"), serve);
    if let Err(error) = watched.and_then(|()| served.map_err(|error| alloc::format!("{error}"))) {
        log::warn!("the power button: {error}");
    }
}

/// SIGTERM for the program. One that ignores it is ended.
fn ask_to_end() {
    if !linux::signal::send::terminate() {
        match linux::process::get() {
            Some(process) => process.exit(ExitStatus::Signal(linux::signal::SIGTERM)),
            None => exit(ExitStatus::Signal(linux::signal::SIGTERM)),
        }
    }
}

/// Somebody asked for a restart: whatever the program's end is, the machine starts again.
static RESTART: AtomicBool = AtomicBool::new(false);
/// Who asked is to get an answer before the machine goes.
const ANSWER_NS: u64 = 200_000_000;

/// Ends the program as the power button does, a moment from now; then the machine ends, or starts again with `restart`.
///
/// # Errors
/// There is no memory for a thread.
pub fn end_program(restart: bool) -> Result<(), SpawnError> {
    RESTART.store(restart, Ordering::SeqCst);
    let end = || {
        let _ = sched::sleep_until_ns(machine::time::now_ns() + ANSWER_NS);
        ask_to_end();
    };
    sched::spawn(SpawnOptions::named("power"), end).map(drop)
}
