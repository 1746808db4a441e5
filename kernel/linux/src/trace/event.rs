//! One system call as a trace shows it, as a line of strace's form and as JSON.
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use errno::Errno;

/// One argument, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name in the manual.
    pub name: &'static str,
    /// What it is: `fd`, `path`, `string`, `flags`, `pointer`, `number`...
    pub kind: &'static str,
    /// Its value, without quotes. The bytes of a `string` are escaped as in a C string.
    pub value: String,
    /// The value is only the beginning.
    pub cut: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does not return (`exit`).
    None,
    /// It is still going on.
    Unfinished,
    /// With that value.
    Value(u64),
    /// With that error; restart codes of the kernel are among them.
    Error(Errno),
}

/// One system call of the program that has ended, or in which a thread was blocked when the trace began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it began, in nanoseconds since boot.
    pub time_ns: u64,
    /// The thread's id.
    pub tid: i32,
    /// The thread's name.
    pub thread: String,
    /// Its number.
    pub number: u64,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// The paths in it, those of descriptors too where a filter asks for paths.
    pub(super) paths: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
}

impl fmt::Display for Event {
    /// As `strace -f -T` writes it: `[pid 5] openat(AT_FDCWD, "/x", O_RDONLY) = 3 <0.000012>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[pid {:5}] {}(", self.tid, self.name)?;
        for (n, arg) in self.args.iter().enumerate() {
            if n > 0 {
                f.write_str(", ")?;
            }
            match arg.kind {
                "path" => write!(f, "{:?}", arg.value)?,
                // It is escaped already.
                "string" => write!(f, "\"{}\"", arg.value)?,
                _ => f.write_str(&arg.value)?,
            }
            if arg.cut {
                f.write_str("...")?;
            }
        }
        match self.outcome {
            Outcome::None => return f.write_str(") = ?"),
            Outcome::Unfinished => return f.write_str(" <unfinished ...>"),
            Outcome::Value(value) if value > 0xffff_ffff => write!(f, ") = {value:#x}")?,
            Outcome::Value(value) => write!(f, ") = {value}")?,
            Outcome::Error(errno) if errno.is_restart() => {
                write!(f, ") = ? {} (to be restarted)", errno.name())?;
            }
            Outcome::Error(errno) => {
                write!(f, ") = -1 {} ({})", errno.name(), errno.description())?;
            }
        }
        let us = self.duration_ns / 1000;
        write!(f, " <{}.{:06}>", us / 1_000_000, us % 1_000_000)
    }
}

/// Writes `text` as a JSON string (RFC 8259).
pub fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => write!(out, "\\u{:04x}", c as u32),
            c => out.write_char(c),
        };
    }
    out.push('"');
}

impl Event {
    /// One line of JSON, without its end. A call that failed has what the kernel answers as `result`: the negative
    /// number of the error; one that does not return has `null`, and so has one that goes on, with `unfinished`.
    pub fn json(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\"time_ns\":{},\"tid\":{},\"thread\":",
            self.time_ns, self.tid
        );
        json_string(&mut out, &self.thread);
        out.push_str(",\"name\":");
        json_string(&mut out, &self.name);
        let _ = write!(out, ",\"number\":{},\"args\":[", self.number);
        for (n, arg) in self.args.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{{\"name\":\"{}\",\"kind\":\"{}\",\"value\":",
                arg.name, arg.kind
            );
            json_string(&mut out, &arg.value);
            if arg.cut {
                out.push_str(",\"cut\":true");
            }
            out.push('}');
        }
        let _ = match self.outcome {
            Outcome::None => write!(out, "],\"result\":null,\"errno\":null"),
            Outcome::Unfinished => {
                write!(out, "],\"result\":null,\"errno\":null,\"unfinished\":true")
            }
            Outcome::Value(value) => {
                write!(out, "],\"result\":{},\"errno\":null", value as i64)
            }
            Outcome::Error(errno) => {
                let raw = errno.raw();
                write!(out, "],\"result\":-{raw},\"errno\":\"{}\"", errno.name())
            }
        };
        let _ = write!(out, ",\"duration_ns\":{}}}", self.duration_ns);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(outcome: Outcome) -> Event {
        let arg = |name, kind, value: &str| Arg {
            name,
            kind,
            value: value.into(),
            cut: false,
        };
        Event {
            time_ns: 7,
            tid: 5,
            thread: "wor\"ker".into(),
            number: 257,
            name: "openat".into(),
            args: vec![
                arg("dirfd", "fd", "AT_FDCWD"),
                Arg {
                    cut: true,
                    ..arg("path", "path", "/a\"b")
                },
                arg("flags", "flags", "O_RDONLY"),
            ],
            paths: Vec::new(),
            outcome,
            duration_ns: 1_234_567,
        }
    }

    #[test]
    fn a_line_is_like_straces() {
        assert_eq!(
            event(Outcome::Value(3)).to_string(),
            "[pid     5] openat(AT_FDCWD, \"/a\\\"b\"..., O_RDONLY) = 3 <0.001234>"
        );
        assert!(
            event(Outcome::Error(Errno::ENOENT))
                .to_string()
                .contains(") = -1 ENOENT (")
        );
        assert!(event(Outcome::None).to_string().ends_with(") = ?"));
        let unfinished = event(Outcome::Unfinished).to_string();
        assert!(unfinished.ends_with("O_RDONLY <unfinished ...>"));
    }

    #[test]
    fn json_is_the_contracts() {
        assert_eq!(
            event(Outcome::Value(3)).json(),
            "{\"time_ns\":7,\"tid\":5,\"thread\":\"wor\\\"ker\",\"name\":\"openat\",\"number\":257,\"args\":[\
             {\"name\":\"dirfd\",\"kind\":\"fd\",\"value\":\"AT_FDCWD\"},\
             {\"name\":\"path\",\"kind\":\"path\",\"value\":\"/a\\\"b\",\"cut\":true},\
             {\"name\":\"flags\",\"kind\":\"flags\",\"value\":\"O_RDONLY\"}],\
             \"result\":3,\"errno\":null,\"duration_ns\":1234567}"
        );
        assert!(
            event(Outcome::Error(Errno::ENOENT))
                .json()
                .contains("\"result\":-2,\"errno\":\"ENOENT\"")
        );
        assert!(event(Outcome::None).json().contains("\"result\":null"));
        let unfinished = event(Outcome::Unfinished).json();
        assert!(unfinished.contains("\"errno\":null,\"unfinished\":true,"));
    }
}
