//! Nodes as JSON, with values or (for the schema) without.

use alloc::string::String;
use core::fmt::Write;

use crate::{Branch, Error, ErrorCode, Leaf, Node, Path};

/// The most nodes in one answer.
pub const MAX_NODES: usize = 50_000;

/// The most bytes of one answer, but for its last value. A string that grows takes up to twice its length, and the kernel's
/// heap gives 4 MiB at once and no more.
pub const MAX_BYTES: usize = 2 << 20;

/// That an answer would be longer than [`MAX_BYTES`], if so.
///
/// # Errors
/// `TooLarge`.
pub fn check_length(out: &str) -> Result<(), Error> {
    match out.len() <= MAX_BYTES {
        true => Ok(()),
        false => {
            let message = "this is too long for one answer; ask for less";
            Err(Error::new(ErrorCode::TooLarge, message))
        }
    }
}

/// Appends `text` as a JSON string (RFC 8259 §7).
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\') || c < ' ') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte => _ = write!(out, "\\u{byte:04x}"),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Writes nodes one into the other.
pub(crate) struct Writer {
    pub(crate) out: String,
    values: bool,
    left: usize,
    pause: fn(),
}

impl Writer {
    pub(crate) fn new(values: bool, pause: fn()) -> Writer {
        Writer {
            out: String::new(),
            values,
            left: MAX_NODES,
            pause,
        }
    }

    /// Writes the node at `path` with `depth` levels below it.
    pub(crate) fn top(&mut self, path: &Path, node: &Node, depth: usize) -> Result<(), Error> {
        self.out.push_str("{\"path\":");
        write_string(&mut self.out, &alloc::format!("{path}"));
        self.out.push(',');
        self.rest(node, depth)
    }

    /// Writes what follows in a node's object, and its end.
    fn rest(&mut self, node: &Node, depth: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            let message = "there are too many nodes for one answer; ask for less depth";
            Error::new(ErrorCode::TooLarge, message)
        })?;
        check_length(&self.out)?;
        (self.pause)();
        match node {
            Node::Leaf(leaf) => self.leaf(leaf),
            Node::Branch(branch) => self.branch(branch, depth)?,
        }
        self.out.push('}');
        Ok(())
    }

    fn leaf(&mut self, leaf: &Leaf) {
        let out = &mut self.out;
        let _ = write!(out, "\"type\":\"{}\"", leaf.kind.name());
        if let Some(unit) = leaf.unit {
            out.push_str(",\"unit\":");
            write_string(out, unit);
        }
        out.push_str(",\"help\":");
        write_string(out, leaf.help);
        let _ = write!(
            out,
            ",\"writable\":{},\"counter\":{}",
            leaf.is_writable(),
            leaf.counter
        );
        if !leaf.choices.is_empty() {
            out.push_str(",\"choices\":[");
            for (index, choice) in leaf.choices.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, choice);
            }
            out.push(']');
        }
        if let Some((least, greatest)) = leaf.range {
            let _ = write!(out, ",\"range\":[{least},{greatest}]");
        }
        if self.values {
            out.push_str(",\"value\":");
            leaf.read().write_json(out);
        }
    }

    fn branch(&mut self, branch: &Branch, depth: usize) -> Result<(), Error> {
        self.out.push_str("\"type\":\"branch\",\"help\":");
        write_string(&mut self.out, branch.help);
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(());
        };
        self.out.push_str(",\"children\":{");
        let mut first = true;
        let mut result = Ok(());
        branch.visit(|name, node| {
            if !first {
                self.out.push(',');
            }
            first = false;
            write_string(&mut self.out, name);
            self.out.push_str(":{");
            result = self.rest(node, depth);
            result.is_ok()
        });
        self.out.push('}');
        result
    }
}
