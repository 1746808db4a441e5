//! Answers that come piece by piece: log, trace, profile, capture, core file.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use console::{Piece, Stream};
use linux::inspect::core_file::CoreFile;
use linux::inspect::profile::Session;
use linux::klog;
use linux::process::Process;
use linux::trace::{Subscription, json_string};
use log::LevelFilter;
use machine::time::now_ns;
use net::capture::Capture;

/// About how large a piece is.
const PIECE: usize = 32 << 10;

/// The kernel's log as NDJSON.
pub struct LogStream {
    next: u64,
    level: LevelFilter,
    follow: bool,
}

impl LogStream {
    pub fn new(since: u64, level: LevelFilter, follow: bool) -> LogStream {
        LogStream {
            next: since,
            level,
            follow,
        }
    }

    /// What there is from `next` on, about a piece of it.
    fn lines(&mut self) -> String {
        let mut out = String::new();
        for entry in klog::since(self.next) {
            if entry.seq > self.next && self.next > 0 {
                let _ = writeln!(out, "{{\"dropped\":{}}}", entry.seq - self.next);
            }
            self.next = entry.seq + 1;
            if entry.level > self.level {
                continue;
            }
            let level = entry.level.as_str().to_ascii_lowercase();
            let _ = write!(
                out,
                "{{\"seq\":{},\"time_ns\":{},\"level\":\"{level}\",\"target\":",
                entry.seq, entry.time_ns
            );
            json_string(&mut out, &entry.target);
            out.push_str(",\"message\":");
            json_string(&mut out, &entry.message);
            out.push_str("}\n");
            if out.len() >= PIECE {
                break;
            }
        }
        out
    }
}

impl Stream for LogStream {
    fn next(&mut self, deadline_ns: u64) -> Piece {
        loop {
            let before = self.next;
            let lines = self.lines();
            if !lines.is_empty() {
                return Piece::Bytes(lines.into_bytes());
            }
            if self.next != before {
                // Nothing of the level; there may be more behind it.
                continue;
            }
            if !self.follow {
                return Piece::End;
            }
            if klog::wait(self.next, Some(deadline_ns)).is_err() {
                return Piece::Nothing;
            }
        }
    }
}

/// System calls as NDJSON.
pub struct TraceStream {
    subscription: Subscription,
    end_ns: u64,
    left: u64,
}

impl TraceStream {
    pub fn new(subscription: Subscription, end_ns: u64, count: u64) -> TraceStream {
        TraceStream {
            subscription,
            end_ns,
            left: count,
        }
    }
}

impl Stream for TraceStream {
    fn next(&mut self, deadline_ns: u64) -> Piece {
        let mut out = String::new();
        let mut until = deadline_ns.min(self.end_ns);
        while self.left > 0 && out.len() < PIECE {
            let Some(item) = self.subscription.next(until) else {
                break;
            };
            if item.has_ended() {
                self.left -= 1;
            }
            out.push_str(&item.json());
            out.push('\n');
            // What waits already goes along; nothing is waited for any more.
            until = 0;
        }
        if !out.is_empty() {
            Piece::Bytes(out.into_bytes())
        } else if self.left == 0 || now_ns() >= self.end_ns {
            Piece::End
        } else {
            Piece::Nothing
        }
    }
}

/// What a profile is written as.
#[derive(Clone, Copy)]
pub enum Format {
    Folded,
    Json,
    Pprof,
}

/// A profile: nothing until it is over, then all of it.
pub struct ProfileStream {
    process: &'static Process,
    session: Option<Session>,
    format: Format,
    text: Vec<u8>,
    done: usize,
}

impl ProfileStream {
    pub fn new(process: &'static Process, session: Session, format: Format) -> ProfileStream {
        ProfileStream {
            process,
            session: Some(session),
            format,
            text: Vec::new(),
            done: 0,
        }
    }
}

impl Stream for ProfileStream {
    fn next(&mut self, deadline_ns: u64) -> Piece {
        if let Some(session) = &mut self.session {
            if !session.step(deadline_ns) {
                return Piece::Nothing;
            }
            if let Some(session) = self.session.take() {
                let profile = session.finish();
                self.text = match self.format {
                    Format::Folded => profile.folded(self.process).into_bytes(),
                    Format::Json => format!("{}\n", profile.json(self.process)).into_bytes(),
                    Format::Pprof => profile.pprof(self.process),
                };
            }
        }
        let rest = &self.text[self.done..];
        if rest.is_empty() {
            return Piece::End;
        }
        let piece = rest[..rest.len().min(PIECE)].to_vec();
        self.done += piece.len();
        Piece::Bytes(piece)
    }
}

/// Frames as pcapng.
pub struct CaptureStream {
    capture: Capture,
    end_ns: u64,
    count: u64,
    finished: bool,
}

impl CaptureStream {
    pub fn new(capture: Capture, end_ns: u64, count: u64) -> CaptureStream {
        CaptureStream {
            capture,
            end_ns,
            count,
            finished: false,
        }
    }
}

impl Stream for CaptureStream {
    fn next(&mut self, deadline_ns: u64) -> Piece {
        if self.finished {
            return Piece::End;
        }
        let until = deadline_ns.min(self.end_ns);
        loop {
            let left = self.count - self.capture.frames();
            let piece = self.capture.read(PIECE, left);
            if !piece.is_empty() {
                return Piece::Bytes(piece);
            }
            if left == 0 || now_ns() >= self.end_ns {
                self.finished = true;
                return Piece::Bytes(self.capture.finish());
            }
            if now_ns() >= until || !self.capture.wait(until) && now_ns() < self.end_ns {
                return Piece::Nothing;
            }
        }
    }
}

/// The core file.
pub struct CoreStream(pub CoreFile);

impl Stream for CoreStream {
    fn next(&mut self, _deadline_ns: u64) -> Piece {
        let mut piece = alloc::vec![0; PIECE];
        let len = self.0.read(&mut piece);
        piece.truncate(len);
        match len {
            0 => Piece::End,
            _ => Piece::Bytes(piece),
        }
    }
}
