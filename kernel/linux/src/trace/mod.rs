//! The trace of system calls: who watches, and what happens around each call while somebody does.
//!
//! While nobody does, it costs a call one relaxed load ([`is_on`]). The arguments' text is made by [`decode`](self),
//! from the kinds in the one table; the line and the JSON by [`Event`]; counts and times by [`stats`].
//!
//! A call is shown when it ends, so a blocked one appears late but with its duration. One that had begun before the
//! watching did is shown as unfinished first.
mod decode;
mod event;
mod filter;
mod flags;
mod memory;
mod missing;
pub mod stats;
mod vectors;

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::sync::SpinLock;
use machine::user::Access;
use sched::WaitQueue;

pub use event::{Arg, Event, Outcome, json_string};
pub use filter::{CallSet, ErrnoFilter, Filter};
pub use missing::list as missing_files;

use crate::ctx::Ctx;
use crate::files::FsContext;
use crate::process::Process;
use crate::syscalls::{ArgKind, SyscallInfo, table};
use crate::thread::{LinuxThread, NO_SYSCALL};
use memory::Memory;

/// Somebody subscribed to events.
const EVENTS: u8 = 1;
/// Calls are counted and timed.
const STATS: u8 = 2;
/// Names that are not found are remembered.
const MISSING: u8 = 4;
/// Page faults are printed.
const FAULTS: u8 = 8;

/// What is being watched.
static WATCH: AtomicU8 = AtomicU8::new(0);
/// What the manifest wants at the program's end.
static AT_END: AtomicU8 = AtomicU8::new(0);

/// Events that a subscriber's queue keeps.
pub const QUEUE_LEN: usize = 4096;
/// The most subscribers at once.
pub const MAX_SUBSCRIBERS: usize = 16;

struct Queue {
    filter: Filter,
    waiting: SpinLock<VecDeque<Arc<Event>>>,
    dropped: AtomicU64,
    readers: WaitQueue,
}

static SUBSCRIBERS: SpinLock<Vec<Arc<Queue>>> = SpinLock::new(Vec::new());
/// The filters of the trace that goes to the console.
static PRINTED: SpinLock<Vec<Arc<Filter>>> = SpinLock::new(Vec::new());
/// How often somebody began to watch: a call during which that happened is looked at when it ends.
static BEGINNINGS: AtomicU32 = AtomicU32::new(0);
/// Events given to anyone, and events that a full queue lost.
static EVENTS_SEEN: AtomicU64 = AtomicU64::new(0);
static EVENTS_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Whether anything is being watched.
#[inline]
pub(crate) fn is_on() -> bool {
    WATCH.load(Ordering::Relaxed) != 0
}

fn watch(bit: u8, on: bool) {
    if on {
        WATCH.fetch_or(bit, Ordering::Relaxed);
    } else {
        WATCH.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Follows from who is there. With the two locks in this order.
fn update_events(subscribers: &[Arc<Queue>]) {
    let printed = !PRINTED.lock().is_empty();
    BEGINNINGS.fetch_add(1, Ordering::Relaxed);
    watch(EVENTS, printed || !subscribers.is_empty());
}

/// Counts and times every call from now on; see [`stats`].
pub fn enable_stats() {
    watch(STATS, true);
}

/// Starts what the manifest's tracing keys ask for.
pub fn configure(tracing: &manifest::Tracing) {
    let tag = |name: &str| tracing.tags.iter().any(|tag| tag == name || tag == "all");
    let set = |key: &str, names: &[String], none: CallSet| {
        CallSet::parse(names.iter().map(String::as_str)).map_or_else(
            |error| {
                log::warn!("the manifest's {key}: {error}");
                none
            },
            |calls| if names.is_empty() { none } else { calls },
        )
    };
    let mut printed = Vec::new();
    let left_out = set("notrace", &tracing.notrace, CallSet::NONE);
    if tracing.debugsyscalls || tag("syscall") {
        let calls = set("tracelist", &tracing.tracelist, CallSet::ALL).without(&left_out);
        printed.push(Filter {
            calls,
            ..Filter::default()
        });
    } else if tracing.futex_trace || tag("futex") {
        let calls = CallSet::parse(["%futex"]).unwrap_or(CallSet::NONE);
        printed.push(Filter {
            calls: calls.without(&left_out),
            ..Filter::default()
        });
    }
    if !printed.is_empty() {
        print_to_console(printed);
    }
    for tag in &tracing.tags {
        if !matches!(tag.as_str(), "all" | "syscall" | "futex" | "pf" | "fault") {
            log::warn!("the manifest's trace: there is no tag {tag:?} (syscall, futex, pf, all)");
        }
    }
    watch(FAULTS, tracing.fault || tag("pf") || tag("fault"));
    if tracing.syscall_summary {
        watch(STATS, true);
        AT_END.fetch_or(STATS, Ordering::Relaxed);
    }
    if tracing.missing_files {
        watch(MISSING, true);
        AT_END.fetch_or(MISSING, Ordering::Relaxed);
    }
}

/// Has the calls that one of `filters` wants printed on the console; none ends that.
pub fn print_to_console(filters: Vec<Filter>) {
    let subscribers = SUBSCRIBERS.lock();
    let filters = filters.into_iter().map(Arc::new).collect();
    let old = core::mem::replace(&mut *PRINTED.lock(), filters);
    update_events(&subscribers);
    drop(subscribers);
    drop(old);
}

/// The filters of what is printed on the console.
pub fn printed() -> Vec<Filter> {
    PRINTED.lock().iter().map(|f| f.as_ref().clone()).collect()
}

/// Prints what the manifest asked for at the program's end.
pub fn program_ended() {
    let wanted = AT_END.swap(0, Ordering::Relaxed);
    if wanted & STATS != 0 {
        print(&stats::summary());
    }
    if wanted & MISSING != 0 {
        print(&missing::report());
    }
}

fn print(text: &str) {
    machine::console::write(text.replace('\n', "\r\n").as_bytes());
}

/// Sums for the information store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Subscribers now.
    pub subscribers: usize,
    /// Events given out so far.
    pub events: u64,
    /// Events that full queues lost so far.
    pub dropped: u64,
}

/// Sums for the information store.
pub fn totals() -> Totals {
    Totals {
        subscribers: SUBSCRIBERS.lock().len(),
        events: EVENTS_SEEN.load(Ordering::Relaxed),
        dropped: EVENTS_DROPPED.load(Ordering::Relaxed),
    }
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// A call that has ended.
    Event(Arc<Event>),
    /// So many were lost here because the queue was full.
    Dropped(u64),
}

impl Item {
    /// Whether it is a call that has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self, Item::Event(event) if event.outcome != Outcome::Unfinished)
    }

    /// One line of JSON, without its end.
    pub fn json(&self) -> String {
        match self {
            Item::Event(event) => event.json(),
            Item::Dropped(count) => format!("{{\"dropped\":{count}}}"),
        }
    }
}

/// A trace that runs until it is dropped.
pub struct Subscription {
    queue: Arc<Queue>,
}

/// Starts a trace of the calls that `filter` wants.
///
/// # Errors
/// `EBUSY` when there are [`MAX_SUBSCRIBERS`] already.
pub fn subscribe(filter: Filter) -> Result<Subscription> {
    let queue = Arc::new(Queue {
        filter,
        waiting: SpinLock::new(VecDeque::new()),
        dropped: AtomicU64::new(0),
        readers: WaitQueue::new(),
    });
    let mut subscribers = SUBSCRIBERS.lock();
    if subscribers.len() >= MAX_SUBSCRIBERS {
        return Err(Errno::EBUSY);
    }
    subscribers.push(queue.clone());
    update_events(&subscribers);
    Ok(Subscription { queue })
}

impl Subscription {
    /// Shows the calls that threads are blocked in now, unfinished, as `strace -p` does.
    pub fn show_blocked(&self, process: &Process) {
        let filter = &self.queue.filter;
        if filter.min_ns > 0 || filter.errno.is_some() {
            return;
        }
        let now = machine::time::now_ns();
        for thread in process.threads() {
            let blocked = |thread: Arc<sched::Thread>| thread.state() == sched::State::Parked;
            let (number, args) = thread.syscall();
            if number == NO_SYSCALL
                || !filter.may_want(number, thread.tid)
                || !thread.sched().is_some_and(blocked)
            {
                continue;
            }
            let memory = Memory::Peek(&process.mm);
            let paths = filter.path.is_some();
            let mut event = draft(process, &thread, memory, now, number, &args, paths).event;
            event.outcome = Outcome::Unfinished;
            if filter.wants(&event) {
                EVENTS_SEEN.fetch_add(1, Ordering::Relaxed);
                self.queue.push(&Arc::new(event));
            }
        }
    }

    /// The next item, or `None` when there is none until `deadline_ns` of the monotonic clock (0: do not wait).
    pub fn next(&self, deadline_ns: u64) -> Option<Item> {
        let take = || {
            let queue = &self.queue;
            match queue.dropped.swap(0, Ordering::Relaxed) {
                0 => queue.waiting.lock().pop_front().map(Item::Event),
                lost => Some(Item::Dropped(lost)),
            }
        };
        take().or_else(|| {
            if deadline_ns == 0 {
                return None;
            }
            self.queue.readers.wait_until(Some(deadline_ns), take).ok()
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = SUBSCRIBERS.lock();
        subscribers.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        update_events(&subscribers);
    }
}

impl Queue {
    fn push(&self, event: &Arc<Event>) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= QUEUE_LEN || waiting.try_reserve(1).is_err() {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            EVENTS_DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(event.clone());
        drop(waiting);
        self.readers.wake_one();
    }
}

/// A call that has begun.
struct Draft {
    event: Event,
    kinds: Vec<(usize, ArgKind)>,
}

/// Runs the call with what watches it around it.
#[cold]
pub(crate) fn watched(ctx: &mut Ctx<'_>, number: u64, args: [u64; 6]) -> Result<usize> {
    let watch = WATCH.load(Ordering::Relaxed);
    let beginnings = BEGINNINGS.load(Ordering::Relaxed);
    let start = machine::time::now_ns();
    let mut draft = if watch & EVENTS != 0 {
        begin(ctx, start, number, &args)
    } else {
        None
    };
    // `exit` and `exit_group` do not come back.
    if matches!(number, 60 | 231) {
        if watch & STATS != 0 {
            stats::count(number, false, 0);
        }
        if let Some(draft) = draft.take() {
            publish(draft.event);
        }
    }
    let sought = (watch & MISSING != 0).then(|| sought(ctx, number, &args));
    let result = table::call(ctx, number, args);
    let duration_ns = machine::time::now_ns().saturating_sub(start);
    if watch & STATS != 0 {
        stats::count(number, result.is_err(), duration_ns);
    }
    if result == Err(Errno::ENOENT)
        && let Some(Some(path)) = sought
    {
        missing::record(path);
    }
    if BEGINNINGS.load(Ordering::Relaxed) != beginnings && draft.is_none() {
        draft = begin(ctx, start, number, &args);
    }
    if let Some(draft) = draft {
        finish(draft, &args, &result, duration_ns);
    }
    result
}

fn begin(ctx: &Ctx<'_>, start: u64, number: u64, args: &[u64; 6]) -> Option<Draft> {
    let tid = ctx.thread.tid;
    let (mut wanted, mut paths_wanted) = (false, false);
    let mut ask = |filter: &Filter| {
        if filter.may_want(number, tid) {
            wanted = true;
            paths_wanted |= filter.path.is_some();
        }
    };
    SUBSCRIBERS
        .lock()
        .iter()
        .for_each(|queue| ask(&queue.filter));
    PRINTED.lock().iter().for_each(|filter| ask(filter));
    wanted.then(|| {
        let Ctx {
            process, thread, ..
        } = ctx;
        draft(
            process,
            thread,
            Memory::Own,
            start,
            number,
            args,
            paths_wanted,
        )
    })
}

/// What is known of a call before it ends. The paths of descriptors are looked up only if they are wanted.
fn draft(
    process: &Process,
    thread: &LinuxThread,
    memory: Memory<'_>,
    start: u64,
    number: u64,
    args: &[u64; 6],
    paths_wanted: bool,
) -> Draft {
    let mut event = Event {
        time_ns: start,
        tid: thread.tid,
        thread: thread.comm_text(),
        number,
        name: Cow::Borrowed(""),
        args: Vec::new(),
        paths: Vec::new(),
        outcome: Outcome::None,
        duration_ns: 0,
    };
    let mut kinds = Vec::new();
    let Some(info) = u32::try_from(number).ok().and_then(table::info) else {
        event.name = Cow::Owned(format!("syscall_{number:#x}"));
        event.args = decode::unknown(args);
        return Draft { event, kinds };
    };
    event.name = Cow::Borrowed(info.name);
    for (n, (name, kind)) in info.args.iter().enumerate() {
        let next = args.get(n + 1).copied().unwrap_or(0);
        if *kind == ArgKind::Mode && makes_nothing(info, args, n) {
            break;
        }
        let (value, cut) = if decode::is_output(*kind) {
            kinds.push((n, *kind));
            (format!("{:#x}", args[n]), false)
        } else {
            decode::value(*kind, memory, args[n], next, 0)
        };
        if *kind == ArgKind::Path {
            event.paths.push(value.clone());
        }
        if paths_wanted && matches!(kind, ArgKind::Fd | ArgKind::DirFd) {
            let open = process.files.get(args[n] as i32);
            let path = open.map(|open| crate::mm::file::path_of(&open));
            let path = path.map(|path| String::from_utf8_lossy(&path).into_owned());
            event.paths.extend(path);
        }
        event.args.push(Arg {
            name,
            kind: decode::word(*kind),
            value,
            cut,
        });
    }
    Draft { event, kinds }
}

/// Whether argument `n`, the mode of an `open`, means nothing because its flags make no file.
fn makes_nothing(info: &SyscallInfo, args: &[u64; 6], n: usize) -> bool {
    /// `O_CREAT`, and `__O_TMPFILE`.
    const MAKES: u64 = 0o100 | 0o20000000;
    let before = n.checked_sub(1).and_then(|before| info.args.get(before));
    matches!(before, Some((_, ArgKind::OpenFlags))) && args[n - 1] & MAKES == 0
}

fn finish(draft: Draft, args: &[u64; 6], result: &Result<usize>, duration_ns: u64) {
    let Draft { mut event, kinds } = draft;
    let value = result.as_ref().ok().map(|value| *value as u64);
    for (n, kind) in kinds {
        let next = args.get(n + 1).copied().unwrap_or(0);
        // What a call that failed would have written is not there.
        if let Some(value) = value {
            (event.args[n].value, event.args[n].cut) =
                decode::value(kind, Memory::Own, args[n], next, value);
        } else if args[n] == 0 {
            event.args[n].value = "NULL".into();
        }
        // A pointer is not text.
        if event.args[n].value.starts_with("0x") && value.is_none() {
            event.args[n].kind = "pointer";
        }
    }
    event.outcome = match result {
        Ok(value) => Outcome::Value(*value as u64),
        Err(errno) => Outcome::Error(*errno),
    };
    event.duration_ns = duration_ns;
    publish(event);
}

fn publish(event: Event) {
    EVENTS_SEEN.fetch_add(1, Ordering::Relaxed);
    let event = Arc::new(event);
    for queue in SUBSCRIBERS.lock().iter() {
        if queue.filter.wants(&event) {
            queue.push(&event);
        }
    }
    let printed = PRINTED.lock().iter().any(|filter| filter.wants(&event));
    if printed {
        print(&format!("{event}\n"));
    }
}

/// The path that a call looks for, as seen from the root, if it is one that looks for a file.
fn sought(ctx: &Ctx<'_>, number: u64, args: &[u64; 6]) -> Option<Vec<u8>> {
    let info = table::info(u32::try_from(number).ok()?)?;
    let looks = matches!(
        info.name,
        "open"
            | "openat"
            | "openat2"
            | "stat"
            | "lstat"
            | "newfstatat"
            | "statx"
            | "access"
            | "faccessat"
            | "faccessat2"
            | "execve"
            | "chdir"
            | "readlink"
            | "readlinkat"
            | "truncate"
            | "statfs"
    );
    let at = info
        .args
        .iter()
        .position(|(_, kind)| *kind == ArgKind::Path);
    let (path, _) = Memory::Own.path(args[at.filter(|_| looks)?])?;
    if path.first() == Some(&b'/') || path.is_empty() {
        return Some(path).filter(|path| !path.is_empty());
    }
    let mut whole = match info.args.first() {
        Some((_, ArgKind::DirFd)) if args[0] as i32 != -100 => {
            let open = ctx.process.files.get(args[0] as i32).ok()?;
            crate::mm::file::path_of(&open)
        }
        _ => working_directory(ctx.process, &ctx.process.fs),
    };
    if whole.last() != Some(&b'/') {
        whole.push(b'/');
    }
    whole.extend_from_slice(&path);
    Some(whole)
}

fn working_directory(process: &Process, fs: &FsContext) -> Vec<u8> {
    process.namespace.path_name(&fs.cwd(), &fs.root()).0
}

/// Prints a page fault of the program that has been dealt with, if that is asked for.
#[inline]
pub(crate) fn page_fault(tid: i32, addr: usize, access: Access, ip: usize, resolved: bool) {
    if WATCH.load(Ordering::Relaxed) & FAULTS != 0 {
        let how = match access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Exec => "execute",
        };
        let end = if resolved { "" } else { ": not resolved" };
        print(&format!(
            "[pid {tid:5}] page fault at {addr:#x} ({how}) from {ip:#x}{end}\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &'static str) -> Event {
        let info = table::TABLE.iter().find(|info| info.name == name).unwrap();
        Event {
            time_ns: 1,
            tid: 2,
            thread: "t".into(),
            number: info.number.into(),
            name: name.into(),
            args: Vec::new(),
            paths: Vec::new(),
            outcome: Outcome::Value(0),
            duration_ns: 1,
        }
    }

    /// One test: the subscribers are a global.
    #[test]
    fn subscribers_get_what_they_want_and_a_full_queue_counts_its_loss() {
        assert!(!is_on());
        let reads = subscribe(Filter::parse("name=read").unwrap()).unwrap();
        let all = subscribe(Filter::default()).unwrap();
        assert!(is_on());
        publish(event("write"));
        publish(event("read"));
        let name = |item| match item {
            Some(Item::Event(event)) => event.name.clone().into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(reads.next(0)), "read");
        assert!(reads.next(0).is_none());
        assert_eq!(name(all.next(0)), "write");
        assert_eq!(name(all.next(0)), "read");
        for _ in 0..QUEUE_LEN + 3 {
            publish(event("read"));
        }
        assert!(matches!(all.next(0), Some(Item::Dropped(3))));
        assert_eq!(all.next(0).unwrap().json(), event("read").json());
        assert_eq!(Item::Dropped(3).json(), "{\"dropped\":3}");
        assert_eq!(totals().subscribers, 2);

        // A reader that waits is woken; one with a deadline gives up.
        let waiting = subscribe(Filter::parse("name=close").unwrap()).unwrap();
        let now = machine::time::now_ns();
        assert!(waiting.next(now + 5_000_000).is_none());
        let thread = std::thread::spawn(move || {
            let reader = sched::spawn(sched::SpawnOptions::named("reader"), move || {
                let deadline = machine::time::now_ns() + 10_000_000_000;
                assert!(waiting.next(deadline).is_some());
            });
            reader.unwrap().join();
        });
        while !thread.is_finished() {
            publish(event("close"));
            std::thread::yield_now();
        }
        thread.join().unwrap();

        let mut many = Vec::new();
        while let Ok(one) = subscribe(Filter::default()) {
            many.push(one);
        }
        assert_eq!(many.len() + 2, MAX_SUBSCRIBERS);
        drop((many, reads, all));
        assert!(!is_on());
    }
}
