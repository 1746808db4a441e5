//! JSON work that serde does not do: parsing with a place for the error, RFC 7396 merging, and finding the line and
//! column of a key.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use crate::error::Error;

/// How deep objects and arrays may nest: no manifest needs more, and a kernel stack is small.
pub const MAX_DEPTH: usize = 32;

/// Parses a JSON text.
///
/// # Errors
/// The text is not JSON, or nests deeper than [`MAX_DEPTH`]: the error carries line and column.
pub fn parse(text: &[u8]) -> Result<Value, Error> {
    if let Some(at) = too_deep(text) {
        let mut error = Error::at("", "the text nests too deep");
        error.position = position(text, at);
        return Err(error);
    }
    serde_json::from_slice(text).map_err(|e| {
        let full = e.to_string();
        let message = full
            .rsplit_once(" at line ")
            .map_or(full.as_str(), |(head, _)| head);
        let mut error = Error::at("", message);
        if e.line() > 0 {
            error.position = Some((e.line(), e.column().max(1)));
        }
        error
    })
}

/// Applies a merge patch (RFC 7396): objects merge key by key, `null` deletes, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge_patch(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Finds the value at `path` (`en1.mtu`, `arguments[2]`) in a JSON text: its line and column, both from 1.
///
/// The path is followed as far as it goes: the answer for a key that is absent is its parent. With `ignore_case`, key
/// names match whatever their case. `None` when the text is not JSON up to there.
#[must_use]
pub fn locate(text: &[u8], path: &str, ignore_case: bool) -> Option<(usize, usize)> {
    let mut scanner = Scanner { text, at: 0 };
    let offset = scanner.find(&steps(path), ignore_case)?;
    position(text, offset)
}

/// The offset of the first bracket beyond [`MAX_DEPTH`].
fn too_deep(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Line and column of a byte, both from 1.
fn position(text: &[u8], offset: usize) -> Option<(usize, usize)> {
    let before = text.get(..offset)?;
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count() + 1;
    Some((line, column))
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let (key, rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !key.is_empty() {
            out.push(Step::Key(key));
        }
        out.extend(
            rest.split(['[', ']'])
                .filter_map(|n| n.parse().ok().map(Step::Index)),
        );
    }
    out
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The offset of the value at `steps`, or of the deepest value on the way to it.
    fn find(&mut self, steps: &[Step<'_>], ignore_case: bool) -> Option<usize> {
        let opening = self.peek()?;
        let here = self.at;
        let Some((step, rest)) = steps.split_first() else {
            return Some(here);
        };
        let close = match (step, opening) {
            (Step::Key(_), b'{') => b'}',
            (Step::Index(_), b'[') => b']',
            _ => return Some(here),
        };
        self.at += 1;
        let mut index = 0;
        while self.peek()? != close {
            let found = match step {
                Step::Index(wanted) => *wanted == index,
                Step::Key(wanted) => {
                    let key_at = self.at;
                    let key = self.string()?;
                    self.eat(b':')?;
                    let same = if ignore_case {
                        key.eq_ignore_ascii_case(wanted)
                    } else {
                        key == *wanted
                    };
                    if same && rest.is_empty() {
                        return Some(key_at);
                    }
                    same
                }
            };
            if found {
                return self.find(rest, ignore_case);
            }
            self.skip()?;
            index += 1;
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
        Some(here)
    }

    fn string(&mut self) -> Option<String> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        serde_json::from_slice(self.text.get(start..self.at)?).ok()
    }

    /// Steps over one value, nested or not.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    while *self.text.get(self.at)? != b'"' {
                        self.at += 1 + usize::from(self.text[self.at] == b'\\');
                    }
                    self.at += 1;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    while self.text.get(self.at).is_some_and(|b| {
                        !b.is_ascii_whitespace() && !matches!(b, b',' | b']' | b'}' | b':')
                    }) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}
