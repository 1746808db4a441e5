//! A made-up machine: a store with the names of a real one, and engines that make things up.

use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use console::{Console, Error, Hub, Piece, PowerAction, Query, Services, Setup, Stream};
use store::{Branch, By, Histogram, Leaf, Store, Value};

/// A console over the made-up machine.
pub fn console(token: &str, port: u16, read_only: bool) -> Arc<Console> {
    let lock = Mutex::new(());
    let exclusive = move |work: &mut dyn FnMut()| {
        let _held = lock.lock().unwrap();
        work();
    };
    let mut store = Store::new(root(), Box::new(exclusive));
    let hub = Hub::new();
    let announcing = hub.clone();
    store.observe(move |change, by| announcing.announce(change, by));
    Console::new(Setup {
        store: Arc::new(store),
        hub,
        services: Arc::new(Demo),
        token: token.into(),
        read_only,
        port,
        secure: false,
        random: |bytes| {
            let mut source = File::open("/dev/urandom").unwrap();
            source.read_exact(bytes).unwrap();
        },
    })
}

/// A number that grows with time, faster or slower.
fn grows(per_ms: u64) -> u64 {
    machine::time::now_ns() / 1_000_000 * per_ms
}

/// A number that goes up and down within `most`.
fn wave(most: u64, phase: u64) -> u64 {
    let turn = (machine::time::now_ns() / 10_000_000 + phase * 170) % 1000;
    most / 1000 * turn.min(1000 - turn) * 2
}

static LEVEL: Mutex<String> = Mutex::new(String::new());
static LIMIT: AtomicI64 = AtomicI64::new(1024);

fn root() -> Branch {
    *LEVEL.lock().unwrap() = "info".into();
    Branch::new("A made-up machine.")
        .with("cpu", cpu())
        .with(
            "memory",
            Branch::new("Memory by use.")
                .with("total", Leaf::size(|| 512_u64 << 20).help("All frames."))
                .with(
                    "free",
                    Leaf::size(|| (200 << 20) + wave(100 << 20, 3)).help("Free frames."),
                )
                .with(
                    "program",
                    Leaf::size(|| (100 << 20) - wave(50 << 20, 3)).help("The program's."),
                )
                .with("page_cache", Leaf::size(|| 60_u64 << 20).help("File data."))
                .with(
                    "kernel_heap",
                    Leaf::size(|| 8_u64 << 20).help("The kernel's heap."),
                )
                .with(
                    "page_tables",
                    Leaf::size(|| 1_u64 << 20).help("Page tables."),
                ),
        )
        .with("threads", threads())
        .with("syscalls", syscalls())
        .with("net", net())
        .with("files", files())
        .with(
            "devices",
            Branch::new("Devices.").with(
                "vda",
                Branch::new("A disk.")
                    .with(
                        "read_bytes",
                        Leaf::count(|| grows(900)).unit("bytes").help("Read."),
                    )
                    .with(
                        "written_bytes",
                        Leaf::count(|| grows(300)).unit("bytes").help("Written."),
                    ),
            ),
        )
        .with(
            "log",
            Branch::new("The log.").with(
                "level",
                Leaf::text(|| LEVEL.lock().unwrap().clone())
                    .help("The least important level that is kept.")
                    .choices(["error", "warn", "info", "debug", "trace"])
                    .writable(
                        |_| Ok(()),
                        |value| {
                            *LEVEL.lock().unwrap() = value.as_str().unwrap_or("info").into();
                            Ok(())
                        },
                    ),
            ),
        )
        .with(
            "limits",
            Branch::new("Limits.").with(
                "nofile",
                Leaf::gauge(|| LIMIT.load(Relaxed))
                    .help("Open files.")
                    .range(1, 65_536)
                    .writable(
                        |_| Ok(()),
                        |value| {
                            value
                                .as_integer()
                                .map(|limit| LIMIT.store(limit, Relaxed))
                                .ok_or("no number".into())
                        },
                    ),
            ),
        )
        .with(
            "time",
            Branch::new("Clocks.")
                .with(
                    "uptime",
                    Leaf::duration(machine::time::now_ns).help("Since boot."),
                )
                .with("clock_source", Leaf::text(|| "tsc").help("What is read.")),
        )
        .with(
            "build",
            Branch::new("The kernel.")
                .with("version", Leaf::text(|| "0.1.0-demo").help("Its version.")),
        )
        .with(
            "manifest",
            Branch::new("The manifest.").with("program", Leaf::text(|| "/demo").help("What runs.")),
        )
}

fn cpu() -> Branch {
    Branch::new("CPUs.")
        .with("count", Leaf::gauge(|| 2).help("How many."))
        .listed(
            "cpu",
            || vec!["0".into(), "1".into()],
            |name| {
                let number: u64 = name.parse().ok().filter(|number| *number < 2)?;
                let busy = move || grows(1_000_000) / (3 + number);
                Some(
                    Branch::new("A CPU.")
                        .with(
                            "user_ns",
                            Leaf::duration(busy).counter().help("In the program."),
                        )
                        .with(
                            "system_ns",
                            Leaf::duration(|| grows(100_000))
                                .counter()
                                .help("In the kernel."),
                        )
                        .with(
                            "idle_ns",
                            Leaf::duration(move || grows(900_000) - busy())
                                .counter()
                                .help("Idle."),
                        ),
                )
            },
        )
}

fn threads() -> Branch {
    let names = || (1..=5).map(|tid| tid.to_string()).collect::<Vec<_>>();
    Branch::new("Threads.")
        .with("count", Leaf::gauge(|| 5).help("How many."))
        .listed("thread", names, |name| {
            let tid: u64 = name.parse().ok().filter(|tid| (1..=5).contains(tid))?;
            Some(
                Branch::new("A thread.")
                    .with(
                        "name",
                        Leaf::text(move || format!("worker-{tid}")).help("Its name."),
                    )
                    .with(
                        "state",
                        Leaf::text(move || {
                            if wave(1000, tid) > 500 {
                                "running"
                            } else {
                                "waiting"
                            }
                        })
                        .help("Its state."),
                    )
                    .with(
                        "cpu_ns",
                        Leaf::duration(move || grows(tid * 50_000))
                            .counter()
                            .help("CPU time."),
                    )
                    .with(
                        "user_ns",
                        Leaf::duration(move || grows(tid * 30_000))
                            .counter()
                            .help("In the program."),
                    )
                    .with(
                        "system_ns",
                        Leaf::duration(move || grows(tid * 20_000))
                            .counter()
                            .help("In the kernel."),
                    )
                    .with("cpu", Leaf::gauge(move || tid % 2).help("Where."))
                    .with("wait", Leaf::text(|| "epoll").help("What for."))
                    .with(
                        "syscall",
                        Leaf::text(|| "epoll_wait").help("In which call."),
                    )
                    .with(
                        "kernel",
                        Leaf::bool(|| false).help("Whether it is the kernel's."),
                    ),
            )
        })
}

fn syscalls() -> Branch {
    let names = || {
        ["read", "write", "openat", "epoll_wait"]
            .map(String::from)
            .to_vec()
    };
    Branch::new("System calls.")
        .with("total", Leaf::count(|| grows(100)).help("All of them."))
        .with("errors", Leaf::count(|| grows(1)).help("That failed."))
        .with(
            "refused",
            Leaf::map(|| vec![("io_uring_setup".into(), Value::Integer(2))])
                .help("That do not exist."),
        )
        .listed("name", names, move |name| {
            let place = names().iter().position(|known| known == name)? as u64 + 1;
            Some(
                Branch::new("A call.")
                    .with(
                        "count",
                        Leaf::count(move || grows(40 / place)).help("How often."),
                    )
                    .with(
                        "errors",
                        Leaf::count(move || grows(place) / 10).help("How often it failed."),
                    )
                    .with(
                        "time_ns",
                        Leaf::duration(move || grows(place * 1000))
                            .counter()
                            .help("Time in it."),
                    )
                    .with(
                        "histogram",
                        Leaf::histogram(move || Histogram {
                            buckets: (8..20).map(|bit| (1 << bit, grows(20 - bit))).collect(),
                            sum: grows(place * 1000),
                        })
                        .help("How long it takes."),
                    ),
            )
        })
}

fn net() -> Branch {
    let interface = |per_ms: u64| {
        Branch::new("An interface.")
            .with(
                "mac",
                Leaf::text(|| "52:54:00:12:34:56").help("Its address."),
            )
            .with(
                "mtu",
                Leaf::gauge(|| 1500)
                    .unit("bytes")
                    .help("The largest packet."),
            )
            .with("up", Leaf::bool(|| true).help("Whether it is up."))
            .with(
                "rx_bytes",
                Leaf::count(move || grows(per_ms))
                    .unit("bytes")
                    .help("Received."),
            )
            .with(
                "tx_bytes",
                Leaf::count(move || grows(per_ms * 3))
                    .unit("bytes")
                    .help("Sent."),
            )
    };
    Branch::new("The network.")
        .with(
            "hostname",
            Leaf::text(|| "demo").help("The machine's name."),
        )
        .with(
            "interfaces",
            Branch::new("Interfaces.")
                .with("lo", interface(1))
                .with("en1", interface(40)),
        )
        .with(
            "drops",
            Branch::new("Packets dropped.").with(
                "no_listener",
                Leaf::count(|| grows(1) / 50).help("Nobody listened."),
            ),
        )
        .listed("names", Vec::new, |_| None::<Branch>)
}

fn files() -> Branch {
    Branch::new("Files.")
        .with(
            "descriptors",
            Branch::new("Open files.").listed(
                "fd",
                || vec!["0".into(), "3".into()],
                |name| {
                    ["0", "3"].contains(&name).then(|| {
                        Branch::new("A descriptor.")
                            .with("kind", Leaf::text(|| "file").help("What it is."))
                            .with("path", Leaf::text(|| "/etc/hosts").help("Its path."))
                    })
                },
            ),
        )
        .with(
            "page_cache",
            Branch::new("The page cache.")
                .with("pages", Leaf::gauge(|| wave(10_000, 1)).help("Pages.")),
        )
}

struct Demo;

/// Lines made by a closure, one each `every_ns`, `left` of them.
struct Lines<F> {
    make: F,
    number: u64,
    left: u64,
    every_ns: u64,
    next_ns: u64,
}

impl<F: FnMut(u64) -> String + Send> Stream for Lines<F> {
    fn next(&mut self, deadline_ns: u64) -> Piece {
        if self.left == 0 {
            return Piece::End;
        }
        let now = machine::time::now_ns();
        let until = self.next_ns.min(deadline_ns);
        std::thread::sleep(std::time::Duration::from_nanos(until.saturating_sub(now)));
        if self.next_ns > deadline_ns {
            return Piece::Nothing;
        }
        self.next_ns = machine::time::now_ns() + self.every_ns;
        self.left -= 1;
        self.number += 1;
        Piece::Bytes((self.make)(self.number).into_bytes())
    }
}

fn lines(
    query: &Query,
    every_ns: u64,
    make: impl FnMut(u64) -> String + Send + 'static,
) -> Result<Box<dyn Stream>, Error> {
    let seconds = query
        .get("seconds")
        .and_then(|seconds| seconds.parse::<f64>().ok());
    let by_time = seconds.map(|seconds| (seconds * 1e9) as u64 / every_ns.max(1));
    let by_count = query.number("count", 1..=u64::MAX)?;
    let left = by_time
        .unwrap_or(u64::MAX)
        .min(by_count.unwrap_or(u64::MAX));
    Ok(Box::new(Lines {
        make,
        number: 0,
        left,
        every_ns,
        next_ns: 0,
    }))
}

/// One piece, and the end.
fn whole(bytes: Vec<u8>) -> Box<dyn Stream> {
    struct Whole(Option<Vec<u8>>);
    impl Stream for Whole {
        fn next(&mut self, _deadline_ns: u64) -> Piece {
            self.0.take().map_or(Piece::End, Piece::Bytes)
        }
    }
    Box::new(Whole(Some(bytes)))
}

static POWER: AtomicU64 = AtomicU64::new(0);

impl Services for Demo {
    fn log(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        let since = query.number("since", 0..=u64::MAX)?.unwrap_or(0);
        if let Some(level) = query.get("level")
            && !["error", "warn", "info", "debug", "trace"].contains(&level)
        {
            return Err(Error::invalid("there is no such level"));
        }
        let line = move |number: u64| {
            format!(
                "{{\"seq\":{},\"time_ns\":{},\"level\":\"{}\",\"target\":\"demo\",\"message\":\"line {number}\"}}\n",
                since.saturating_add(number),
                machine::time::now_ns(),
                ["info", "warn", "debug"][number as usize % 3],
            )
        };
        if query.flag("follow") {
            return lines(&Query::default(), 500_000_000, line);
        }
        Ok(whole((1..=20).map(line).collect::<String>().into_bytes()))
    }

    fn trace(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        lines(query, 100_000_000, |number| {
            format!(
                "{{\"time_ns\":{},\"tid\":{},\"thread\":\"worker\",\"name\":\"openat\",\"number\":257,\"args\":[{{\"name\":\"fd\",\"kind\":\"fd\",\"value\":\"AT_FDCWD\"}},{{\"name\":\"path\",\"kind\":\"path\",\"value\":\"/etc/x{number}\"}}],\"result\":{},\"errno\":{},\"duration_ns\":{}}}\n",
                machine::time::now_ns(),
                number % 5 + 1,
                if number.is_multiple_of(7) { -2 } else { 3 },
                if number.is_multiple_of(7) {
                    "\"ENOENT\""
                } else {
                    "null"
                },
                900 + number * 37 % 5000,
            )
        })
    }

    fn profile(&self, query: &Query) -> Result<Box<dyn Stream>, Error> {
        let (folded, json) = (
            "worker-1;main;serve;read_[k] 12\nworker-1;main;serve;parse 30\n",
            "[]",
        );
        let text = if query.get("format") == Some("json") {
            json
        } else {
            folded
        };
        Ok(whole(text.into()))
    }

    fn capture(&self, query: &Query, _own_port: u16) -> Result<Box<dyn Stream>, Error> {
        if query
            .get("interface")
            .is_some_and(|name| name != "en1" && name != "lo")
        {
            return Err(Error::not_found("there is no such interface"));
        }
        let mut header = vec![
            0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
        ];
        header.extend([0xff; 8]);
        header.extend([28, 0, 0, 0]);
        Ok(whole(header))
    }

    fn core(&self) -> Result<Box<dyn Stream>, Error> {
        // Large enough that a slow reader shows.
        struct Zeros(usize);
        impl Stream for Zeros {
            fn next(&mut self, _deadline_ns: u64) -> Piece {
                match self.0.checked_sub(1) {
                    None => Piece::End,
                    Some(left) => {
                        self.0 = left;
                        Piece::Bytes(vec![0; 64 << 10])
                    }
                }
            }
        }
        Ok(Box::new(Zeros(1024)))
    }

    fn maps(&self) -> Result<String, Error> {
        Ok("[{\"start\":\"0x400000\",\"end\":\"0x401000\",\"permissions\":\"r-xp\",\"offset\":0,\"path\":\"/demo\",\"resident\":4096,\"dirty\":0}]".into())
    }

    fn threads(&self) -> Result<String, Error> {
        Ok("[{\"tid\":1,\"name\":\"worker-1\",\"state\":\"running\"}]".into())
    }

    fn stack(&self, thread: u64) -> Result<String, Error> {
        match thread {
            1..=5 => Ok(format!(
                "{{\"tid\":{thread},\"kernel\":[{{\"address\":\"0xffffffff80001000\",\"symbol\":\"sched::wait\",\"offset\":12}}],\"program\":[{{\"address\":\"0x400123\",\"file\":\"/demo\",\"offset\":291,\"symbol\":\"main\"}}]}}"
            )),
            _ => Err(Error::not_found("there is no such thread")),
        }
    }

    fn power(&self, action: PowerAction, by: &By) -> Result<(), Error> {
        POWER.fetch_add(1, Relaxed);
        println!("{action:?} asked for by {by}");
        Ok(())
    }
}
