//! Which system calls a trace shows: by name or `%class`, thread, path, error, duration.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use errno::Errno;

use super::event::{Event, Outcome};
use crate::syscalls::table;

/// Numbers above the highest call there is.
const NUMBERS: usize = 512;

/// A set of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSet([u64; NUMBERS / 64]);

impl CallSet {
    /// No call.
    pub const NONE: CallSet = CallSet([0; NUMBERS / 64]);
    /// Every call, unknown ones too.
    pub const ALL: CallSet = CallSet([!0; NUMBERS / 64]);

    /// Whether it has the call `number`; those beyond the table are in when the set is everything.
    pub fn contains(&self, number: u64) -> bool {
        match self.0.get(number as usize / 64) {
            Some(word) => word >> (number % 64) & 1 == 1,
            None => *self == CallSet::ALL,
        }
    }

    fn change(&mut self, number: u32, member: bool) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            let bit = 1 << (number % 64);
            *word = if member { *word | bit } else { *word & !bit };
        }
    }

    /// The calls of a list of names and `%class`es (as `strace -e trace=`); `!` before one takes it out, and a list
    /// that begins so starts from everything.
    ///
    /// # Errors
    /// A message that names the word that is neither.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<CallSet, String> {
        let mut set = None;
        for word in words {
            let word = word.trim();
            if word.is_empty() {
                continue;
            }
            let (name, member) = match word.strip_prefix('!') {
                Some(name) => (name, false),
                None => (word, true),
            };
            let set = set.get_or_insert(if member { CallSet::NONE } else { CallSet::ALL });
            if name == "all" {
                *set = if member { CallSet::ALL } else { CallSet::NONE };
                continue;
            }
            let mut found = false;
            for info in table::TABLE {
                let wanted = match name.strip_prefix('%') {
                    Some(class) => in_class(class, info.name),
                    None => info.name == name,
                };
                if wanted {
                    set.change(info.number, member);
                    found = true;
                }
            }
            if !found {
                return Err(format!("{name:?} is neither a system call nor a %class"));
            }
        }
        Ok(set.unwrap_or(CallSet::ALL))
    }

    /// The same without the calls of `other`.
    #[must_use]
    pub fn without(mut self, other: &CallSet) -> CallSet {
        for (word, gone) in self.0.iter_mut().zip(&other.0) {
            *word &= !gone;
        }
        self
    }
}

/// Whether strace puts the call `name` into `class` (strace(1), `-e trace=`).
fn in_class(class: &str, name: &str) -> bool {
    let list: &[&str] = match class {
        "file" => FILE,
        "network" | "net" => NETWORK,
        "memory" => MEMORY,
        "process" => PROCESS,
        "signal" => SIGNAL,
        "desc" => return is_descriptor_call(name),
        "stat" => &["stat"],
        "lstat" => &["lstat"],
        "fstat" => &["fstat", "newfstatat"],
        "clock" => &[
            "clock_adjtime",
            "clock_getres",
            "clock_gettime",
            "clock_settime",
            "adjtimex",
            "gettimeofday",
            "settimeofday",
            "time",
        ],
        "creds" => CREDS,
        "futex" => &["futex", "futex_waitv"],
        _ => return false,
    };
    list.contains(&name)
}

const FILE: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "creat",
    "execve",
    "faccessat",
    "faccessat2",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "futimesat",
    "getcwd",
    "getxattr",
    "inotify_add_watch",
    "lchown",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "llistxattr",
    "lremovexattr",
    "lsetxattr",
    "lstat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "readlink",
    "readlinkat",
    "removexattr",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "setxattr",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "truncate",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
];
const NETWORK: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketpair",
];
const MEMORY: &[&str] = &[
    "brk",
    "madvise",
    "membarrier",
    "memfd_create",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_mprotect",
];
const PROCESS: &[&str] = &[
    "arch_prctl",
    "clone",
    "clone3",
    "execve",
    "exit",
    "exit_group",
    "fork",
    "kill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "tgkill",
    "tkill",
    "vfork",
    "wait4",
    "waitid",
];
const SIGNAL: &[&str] = &[
    "kill",
    "pause",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "tgkill",
    "tkill",
];
const CREDS: &[&str] = &[
    "capget",
    "capset",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getresgid",
    "getresuid",
    "getuid",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setuid",
];

/// `%desc`: what takes or makes a descriptor, as the table says.
fn is_descriptor_call(name: &str) -> bool {
    use crate::syscalls::ArgKind;
    const MAKES: &[&str] = &[
        "open",
        "openat2",
        "creat",
        "pipe",
        "pipe2",
        "epoll_create",
        "epoll_create1",
        "eventfd",
        "eventfd2",
        "memfd_create",
        "inotify_init",
        "inotify_init1",
        "timerfd_create",
        "socket",
        "socketpair",
        "poll",
        "ppoll",
        "select",
        "pselect6",
    ];
    let takes = |info: &crate::syscalls::SyscallInfo| {
        info.args
            .iter()
            .any(|(_, kind)| matches!(kind, ArgKind::Fd | ArgKind::DirFd))
    };
    MAKES.contains(&name)
        || table::TABLE
            .iter()
            .any(|info| info.name == name && takes(info))
}

/// What a subscriber wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Which calls.
    pub calls: CallSet,
    /// Which threads; all when empty.
    pub threads: Vec<i32>,
    /// A part of a path among the arguments, or of a descriptor's file.
    pub path: Option<String>,
    /// The error they end with.
    pub errno: Option<ErrnoFilter>,
    /// The least duration in nanoseconds.
    pub min_ns: u64,
}

/// Which errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrnoFilter {
    /// Any error.
    Any,
    /// That one.
    Is(Errno),
}

impl Default for Filter {
    fn default() -> Self {
        Filter {
            calls: CallSet::ALL,
            threads: Vec::new(),
            path: None,
            errno: None,
            min_ns: 0,
        }
    }
}

impl Filter {
    /// The filter that pairs of key and value describe: `name`, `thread` (lists with commas), `path`, `errno` (a name, or
    /// `any`), `min_us`. A pair with an empty value says nothing.
    ///
    /// # Errors
    /// A message that names what is wrong.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Filter, String> {
        let mut filter = Filter::default();
        for (key, value) in pairs {
            if value.is_empty() {
                continue;
            }
            match key {
                "name" => filter.calls = CallSet::parse(value.split(','))?,
                "thread" => {
                    for tid in value.split(',') {
                        let tid = tid.trim().parse();
                        filter
                            .threads
                            .push(tid.map_err(|_| format!("{value:?} is no list of thread ids"))?);
                    }
                }
                "path" => filter.path = Some(value.into()),
                "errno" => filter.errno = Some(errno(value)?),
                "min_us" => {
                    let us: u64 = value
                        .parse()
                        .map_err(|_| format!("{value:?} is no number of microseconds"))?;
                    filter.min_ns = us.saturating_mul(1000);
                }
                _ => return Err(format!("a trace has no filter {key:?}")),
            }
        }
        Ok(filter)
    }

    /// The filter written as `name=read,write path=/etc`.
    ///
    /// # Errors
    /// As [`Filter::from_pairs`].
    pub fn parse(text: &str) -> Result<Filter, String> {
        let mut pairs = Vec::new();
        for word in text.split_whitespace() {
            let pair = word.split_once('=');
            pairs.push(pair.ok_or_else(|| format!("{word:?} is not KEY=VALUE"))?);
        }
        Filter::from_pairs(pairs)
    }

    /// Whether a call that begins may be wanted.
    pub fn may_want(&self, number: u64, tid: i32) -> bool {
        self.calls.contains(number) && (self.threads.is_empty() || self.threads.contains(&tid))
    }

    /// Whether a call that has ended is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        self.may_want(event.number, event.tid)
            && event.duration_ns >= self.min_ns
            && match (self.errno, event.outcome) {
                (None, _) => true,
                (Some(ErrnoFilter::Any), Outcome::Error(_)) => true,
                (Some(ErrnoFilter::Is(wanted)), Outcome::Error(errno)) => wanted == errno,
                _ => false,
            }
            && self
                .path
                .as_ref()
                .is_none_or(|part| event.paths.iter().any(|path| path.contains(part.as_str())))
    }
}

fn errno(text: &str) -> Result<ErrnoFilter, String> {
    if text == "any" {
        return Ok(ErrnoFilter::Any);
    }
    let found = match text.parse() {
        Ok(number) => Errno::from_raw(number),
        Err(_) => (1..1024)
            .filter_map(Errno::from_raw)
            .find(|errno| errno.name() == text),
    };
    found
        .map(ErrnoFilter::Is)
        .ok_or_else(|| format!("{text:?} is no error"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str) -> u64 {
        let info = table::TABLE.iter().find(|info| info.name == name).unwrap();
        u64::from(info.number)
    }

    fn set(text: &str) -> CallSet {
        CallSet::parse(text.split(',')).unwrap()
    }

    #[test]
    fn names_and_classes_make_a_set() {
        let some = set("read,%network");
        assert!(some.contains(number("read")) && some.contains(number("accept4")));
        assert!(!some.contains(number("write")) && !some.contains(9999));
        let most = set("!futex,!%memory");
        assert!(most.contains(number("read")));
        assert!(!most.contains(number("futex")) && !most.contains(number("mmap")));
        assert_eq!(set(""), CallSet::ALL);
        assert!(CallSet::ALL.contains(9999));
        assert!(set("%desc").contains(number("read")) && !set("%desc").contains(number("brk")));
        assert!(set("%file").contains(number("openat")));
        assert!(CallSet::parse(["raed"]).unwrap_err().contains("raed"));
        assert!(CallSet::parse(["%nothing"]).is_err());
    }

    #[test]
    fn every_name_in_a_class_is_a_call() {
        for list in [FILE, NETWORK, MEMORY, PROCESS, SIGNAL, CREDS] {
            for name in list {
                assert!(table::TABLE.iter().any(|info| info.name == *name), "{name}");
            }
        }
    }

    fn event() -> Event {
        Event {
            time_ns: 1,
            tid: 5,
            thread: "worker".into(),
            number: number("openat"),
            name: "openat".into(),
            args: Vec::new(),
            paths: vec!["/etc/passwd".into()],
            outcome: Outcome::Error(Errno::ENOENT),
            duration_ns: 150_000,
        }
    }

    #[test]
    fn each_condition_counts() {
        let wants = |text: &str| Filter::parse(text).unwrap().wants(&event());
        assert!(wants("") && wants("name=openat") && wants("thread=3,5") && wants("path=/etc"));
        assert!(wants("errno=ENOENT") && wants("errno=any") && wants("errno=2"));
        assert!(wants(
            "min_us=150 name=%file thread=5 path=pass errno=ENOENT"
        ));
        assert!(!wants("name=read") && !wants("thread=6") && !wants("path=/var"));
        assert!(!wants("errno=EACCES") && !wants("min_us=151"));
        for wrong in [
            "errno=EWHAT",
            "min_us=x",
            "thread=a",
            "nonsense",
            "colour=red",
        ] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
