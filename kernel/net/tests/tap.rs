//! The engine against Linux's own stack, through a TAP device in a network namespace of the test's own.
//! The network's loss, delay, reordering, repetition and corruption are made by the example `tap` between
//! device and engine: not every kernel has `tc netem`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Where cargo puts examples, beside the folder of this test.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/tap")
}

fn possible() -> bool {
    let can = std::path::Path::new("/dev/net/tun").exists();
    if !can {
        eprintln!("not run: this machine has no /dev/net/tun");
    }
    can
}

/// `NET_*` of `examples/tap/link.rs`.
type Weather<'a> = &'a [(&'a str, u32)];

/// Starts `tests/tap.py` in a namespace: which peer, family, what, how many bytes.
fn start(peer: &str, family: u8, what: &str, bytes: u32, weather: Weather) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tap.py");
    let unshare = [
        "--kill-after=5",
        "120",
        "unshare",
        "--net",
        "--map-root-user",
        "python3",
    ];
    Command::new("timeout")
        .args(unshare)
        .arg(script)
        .arg(example())
        .args([peer, &family.to_string(), what, &bytes.to_string()])
        .envs(
            weather
                .iter()
                .map(|(name, value)| (name, value.to_string())),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

#[test]
fn clean() {
    if possible() {
        for family in [4, 6] {
            print!(
                "{}",
                finish(start("engine", family, "all", 30_000_000, &[]))
            );
        }
    }
}

#[test]
fn delayed() {
    if possible() {
        for family in [4, 6] {
            let delay = &[("NET_DELAY_MS", 25)];
            print!(
                "{}",
                finish(start("engine", family, "all", 10_000_000, delay))
            );
        }
    }
}

/// All kinds of bad networks at once: each of them mostly waits.
#[test]
fn bad_networks() {
    if !possible() {
        return;
    }
    let bad = [
        (2_000_000, [10_000, 0, 0, 0]),
        (500_000, [50_000, 0, 0, 0]),
        (1_000_000, [0, 20_000, 50_000, 0]),
        (500_000, [10_000, 10_000, 20_000, 5000]),
    ];
    let mut running = Vec::new();
    for (bytes, [loss, duplicate, reorder, corrupt]) in bad {
        for family in [4, 6] {
            let weather = [
                ("NET_LOSS", loss),
                ("NET_DUPLICATE", duplicate),
                ("NET_REORDER", reorder),
                ("NET_CORRUPT", corrupt),
                ("NET_DELAY_MS", 25),
                ("NET_SEED", u32::from(family)),
            ];
            let child = start("engine", family, "all", bytes, &weather);
            running.push((weather, child));
        }
    }
    for (weather, child) in running {
        print!("{weather:?}: {}", finish(child));
    }
}

/// At 1 % loss and 50 ms the engine is about as fast as Linux is with Linux over the same link.
#[test]
fn loss_costs_what_it_costs_linux() {
    if !possible() {
        return;
    }
    let seconds = |peer: &str| {
        let running: Vec<Child> = (0..2)
            .map(|seed| {
                let weather = [
                    ("NET_LOSS", 10_000),
                    ("NET_DELAY_MS", 25),
                    ("NET_SEED", seed),
                ];
                start(peer, 4, "rate", 1_000_000, &weather)
            })
            .collect();
        let mut sum = [0.0, 0.0];
        for child in running {
            let text = finish(child);
            for (sum, word) in sum.iter_mut().zip(text.split_whitespace()) {
                *sum += word.parse::<f64>().unwrap();
            }
        }
        sum
    };
    let (own, linux) = std::thread::scope(|scope| {
        let own = scope.spawn(|| seconds("engine"));
        let linux = scope.spawn(|| seconds("linux"));
        (own.join().unwrap(), linux.join().unwrap())
    });
    for (way, own, linux) in [("towards", own[0], linux[0]), ("from", own[1], linux[1])] {
        let ratio = linux / own;
        println!("{way} the engine: {own:.1} s, Linux {linux:.1} s: {ratio:.2} of its rate");
        assert!(ratio > 0.4, "{way}: {ratio}");
    }
}
