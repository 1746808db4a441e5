//! A link that is as bad as it is told to be: what `tc netem` does, for kernels that are built without it.
//! Chances are frames in a million, for each direction; the dice are seeded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How bad: `NET_LOSS`, `NET_DUPLICATE`, `NET_REORDER`, `NET_CORRUPT` in a million, `NET_DELAY_MS`, `NET_SEED`.
#[derive(Clone, Copy)]
pub struct Weather {
    loss: u64,
    duplicate: u64,
    reorder: u64,
    corrupt: u64,
    delay: Duration,
    seed: u64,
}

impl Weather {
    pub fn from_environment() -> Weather {
        let number = |name: &str| {
            let value = std::env::var(name).ok();
            value.and_then(|v| v.parse().ok()).unwrap_or(0)
        };
        Weather {
            loss: number("NET_LOSS"),
            duplicate: number("NET_DUPLICATE"),
            reorder: number("NET_REORDER"),
            corrupt: number("NET_CORRUPT"),
            delay: Duration::from_millis(number("NET_DELAY_MS")),
            seed: number("NET_SEED"),
        }
    }
}

struct State {
    /// Frames by the time they are due; the number keeps those of one time in order.
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
    dice: u64,
}

/// One direction of a link.
pub struct Line {
    state: Mutex<State>,
    bell: Condvar,
    weather: Weather,
}

impl Line {
    pub fn new(weather: Weather, direction: u64) -> Arc<Line> {
        Arc::new(Line {
            state: Mutex::new(State {
                flying: BTreeMap::new(),
                number: 0,
                dice: weather.seed ^ direction << 32 ^ 0x5eed,
            }),
            bell: Condvar::new(),
            weather,
        })
    }

    /// A frame sets out.
    pub fn put(&self, mut frame: Vec<u8>) {
        let w = self.weather;
        let mut state = self.state.lock().unwrap();
        let mut roll = |below: u64| {
            state.dice = state
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1 << 32 | 1);
            (state.dice >> 33) % below
        };
        if roll(1_000_000) < w.loss {
            return;
        }
        // ARP has no checksum: a spoiled address in it would be believed for half a minute, by Linux too.
        let arp = frame.get(12..14) == Some(&[8, 6]);
        if roll(1_000_000) < w.corrupt && !arp && frame.len() > 14 {
            let at = 14 + roll(frame.len() as u64 - 14) as usize;
            frame[at] ^= 1 << roll(8);
        }
        let copies = 1 + u32::from(roll(1_000_000) < w.duplicate);
        let late = if roll(1_000_000) < w.reorder {
            1 + roll(8000)
        } else {
            0
        };
        let due = Instant::now() + w.delay + Duration::from_micros(late);
        for copy in 0..copies {
            state.number += 1;
            let key = (due + Duration::from_micros(300) * copy, state.number);
            state.flying.insert(key, frame.clone());
        }
        drop(state);
        self.bell.notify_all();
    }

    /// A frame that has arrived by now.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        let entry = state.flying.first_entry()?;
        (entry.key().0 <= Instant::now()).then(|| entry.remove())
    }

    /// Waits until `end`, or until a frame has arrived.
    pub fn wait(&self, end: Instant) {
        let mut state = self.state.lock().unwrap();
        loop {
            let first = state.flying.first_key_value().map(|((due, _), _)| *due);
            let until = first.map_or(end, |due| due.min(end));
            let Some(left) = until
                .checked_duration_since(Instant::now())
                .filter(|d| !d.is_zero())
            else {
                return;
            };
            state = self.bell.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Puts all that is read from `device` on the line, in a thread of its own.
    pub fn feed(self: &Arc<Line>, mut device: File) {
        let line = self.clone();
        std::thread::spawn(move || {
            let mut frame = [0; 2048];
            while let Ok(n) = device.read(&mut frame) {
                line.put(frame[..n].to_vec());
            }
        });
    }

    /// Writes what arrives to `device`, for ever.
    pub fn drain(&self, mut device: File) -> std::io::Result<()> {
        loop {
            self.wait(Instant::now() + Duration::from_secs(1));
            while let Some(frame) = self.take() {
                if let Err(error) = device.write(&frame) {
                    eprintln!("a frame of {} bytes is lost: {error}", frame.len());
                }
            }
        }
    }
}

/// Joins two devices by such a link.
pub fn bridge(a: File, b: File, weather: Weather) -> std::io::Result<()> {
    let (there, back) = (Line::new(weather, 0), Line::new(weather, 1));
    there.feed(a.try_clone()?);
    back.feed(b.try_clone()?);
    std::thread::spawn(move || there.drain(b));
    back.drain(a)
}
