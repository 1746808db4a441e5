//! A traced system call as `strace(1)` writes it.

use std::fmt::Write;

use serde::Deserialize;

/// A line of the trace.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The reader was too slow: so many calls are missing here.
    Dropped {
        /// How many.
        dropped: u64,
    },
    /// A call.
    Call(Call),
}

/// A system call that has ended.
#[derive(Debug, Deserialize)]
pub struct Call {
    /// When it began, in nanoseconds since the machine's boot.
    pub time_ns: u64,
    /// The thread.
    pub tid: u64,
    /// The call's name.
    pub name: String,
    /// Its arguments, ready to be shown.
    pub args: Vec<Argument>,
    /// What it returned; nothing for one that does not return, such as `exit_group`.
    pub result: Option<i64>,
    /// The error's name.
    pub errno: Option<String>,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// A thread was blocked in it when the trace began.
    #[serde(default)]
    pub unfinished: bool,
}

/// An argument.
#[derive(Debug, Deserialize)]
pub struct Argument {
    /// `path`, `string`, `fd`, ...
    pub kind: String,
    /// As it is shown.
    pub value: String,
}

impl Call {
    /// `[pid 5] 12.345678 openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3 <0.000012>`
    pub fn text(&self) -> String {
        let mut out = format!(
            "[pid {:>3}] {}.{:06} {}(",
            self.tid,
            self.time_ns / 1_000_000_000,
            self.time_ns / 1_000 % 1_000_000,
            self.name
        );
        for (n, argument) in self.args.iter().enumerate() {
            if n > 0 {
                out.push_str(", ");
            }
            // The values come from the program: nothing in them may reach the terminal as a command.
            let value = printable(&argument.value);
            if matches!(argument.kind.as_str(), "path" | "string") {
                let _ = write!(out, "\"{value}\"");
            } else {
                out.push_str(&value);
            }
        }
        if self.unfinished {
            out.push_str(" <unfinished ...>");
            return out;
        }
        out.push_str(") = ");
        let Some(result) = self.result else {
            out.push('?');
            return out;
        };
        match &self.errno {
            Some(errno) => {
                let _ = write!(out, "-1 {errno}");
                let text = i32::try_from(-result)
                    .ok()
                    .filter(|n| (1..4096).contains(n))
                    .map(|n| std::io::Error::from_raw_os_error(n).to_string());
                if let Some(text) = text.as_deref().and_then(|t| t.split(" (os error").next()) {
                    let _ = write!(out, " ({text})");
                }
            }
            None if result > 0xffff_ffff => {
                let _ = write!(out, "{result:#x}");
            }
            None => {
                let _ = write!(out, "{result}");
            }
        }
        let _ = write!(
            out,
            " <{}.{:06}>",
            self.duration_ns / 1_000_000_000,
            self.duration_ns / 1_000 % 1_000_000
        );
        out
    }
}

/// Text in which control characters are escaped.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        match serde_json::from_str(json).unwrap() {
            Line::Call(call) => call.text(),
            Line::Dropped { dropped } => format!("dropped {dropped}"),
        }
    }

    #[test]
    fn as_strace_has_it() {
        assert_eq!(
            text(
                r#"{"time_ns":12345678900,"tid":5,"thread":"x","name":"openat","number":257,"args":[{"name":"fd","kind":"fd","value":"AT_FDCWD"},
                {"name":"path","kind":"path","value":"/etc/\u001b[2Jx"}],"result":-2,"errno":"ENOENT","duration_ns":12000}"#
            ),
            "[pid   5] 12.345678 openat(AT_FDCWD, \"/etc/\\u{1b}[2Jx\") = -1 ENOENT (No such file or directory) <0.000012>"
        );
        assert_eq!(
            text(
                r#"{"time_ns":1,"tid":12,"thread":"x","name":"mmap","number":9,"args":[],"result":139637976727552,"errno":null,"duration_ns":1500000000}"#
            ),
            "[pid  12] 0.000000 mmap() = 0x7f0000000000 <1.500000>"
        );
        assert_eq!(
            text(
                r#"{"time_ns":1,"tid":2,"thread":"x","name":"exit_group","number":231,"args":[{"name":"status","kind":"number","value":"0"}],"result":null,"errno":null,"duration_ns":0}"#
            ),
            "[pid   2] 0.000000 exit_group(0) = ?"
        );
        assert_eq!(text(r#"{"dropped":7}"#), "dropped 7");
    }
}
