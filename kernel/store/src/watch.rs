//! Watching: all values of a branch at one moment, and what changed from one moment to the next.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::json::{MAX_NODES, check_length, write_string};
use crate::path::MAX_DEPTH;
use crate::{Error, ErrorCode, Node, Path, Store, Value};

/// The values of the leaves of a branch at one moment, by path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// In the order of the paths.
    values: Vec<(String, Value)>,
}

/// What changed between two snapshots.
#[derive(Debug, PartialEq)]
pub struct Delta<'a> {
    /// New values and changed ones.
    pub values: Vec<(&'a str, &'a Value)>,
    /// The paths that are no more.
    pub gone: Vec<&'a str>,
}

impl Snapshot {
    /// Reads the leaf at `path`, or those of the branch down to `depth` levels.
    ///
    /// # Errors
    /// `NotFound`; `TooLarge` for more than [`MAX_NODES`].
    pub fn take(store: &Store, path: &Path, depth: usize) -> Result<Snapshot, Error> {
        let node = store.node(path)?;
        let mut snapshot = Snapshot::default();
        let mut left = MAX_NODES;
        let name = match path.is_root() {
            true => String::new(),
            false => format!("{path}"),
        };
        snapshot
            .add(store, name, &node, depth.min(MAX_DEPTH), &mut left)
            .map_err(|error| error.at(path))?;
        snapshot.values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        snapshot.values.shrink_to_fit();
        Ok(snapshot)
    }

    fn add(
        &mut self,
        store: &Store,
        path: String,
        node: &Node,
        depth: usize,
        left: &mut usize,
    ) -> Result<(), Error> {
        *left = left.checked_sub(1).ok_or_else(|| {
            Error::new(
                ErrorCode::TooLarge,
                "there are too many nodes; watch less depth",
            )
        })?;
        store.pause();
        match node {
            Node::Leaf(leaf) => self.values.push((path, leaf.read())),
            Node::Branch(branch) => {
                let mut result = Ok(());
                if let Some(depth) = depth.checked_sub(1) {
                    branch.visit(|name, node| {
                        // Just as long as it is: many are kept.
                        let mut below = String::with_capacity(path.len() + 1 + name.len());
                        below.push_str(&path);
                        below.push('/');
                        below.push_str(name);
                        result = self.add(store, below, node, depth, left);
                        result.is_ok()
                    });
                }
                result?;
            }
        }
        Ok(())
    }

    /// All values by path, in the order of the paths.
    pub fn values(&self) -> &[(String, Value)] {
        &self.values
    }

    /// How much memory it takes, in units of some 150 bytes: one for each value, and for each entry of maps and lists.
    pub fn weight(&self) -> usize {
        self.values.iter().map(|(_, value)| value.weight()).sum()
    }

    /// All of it, as a delta to nothing.
    pub fn full(&self) -> Delta<'_> {
        Delta {
            values: self
                .values
                .iter()
                .map(|(path, value)| (&**path, value))
                .collect(),
            gone: Vec::new(),
        }
    }

    /// What is different from the earlier snapshot `before`. A client that missed some snapshots gets the delta to the
    /// last it saw.
    pub fn since<'a>(&'a self, before: &'a Snapshot) -> Delta<'a> {
        let mut delta = Delta {
            values: Vec::new(),
            gone: Vec::new(),
        };
        let mut old = before.values.iter().peekable();
        for (path, value) in &self.values {
            let same = loop {
                match old.peek().map(|(known, _)| known.cmp(path)) {
                    Some(Ordering::Less) => {
                        delta.gone.extend(old.next().map(|(known, _)| &**known));
                    }
                    Some(Ordering::Equal) => {
                        break old.next().is_some_and(|(_, known)| known == value);
                    }
                    Some(Ordering::Greater) | None => break false,
                }
            };
            if !same {
                delta.values.push((path, value));
            }
        }
        delta.gone.extend(old.map(|(known, _)| &**known));
        delta
    }
}

impl Delta<'_> {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.gone.is_empty()
    }

    /// Appends the members `"values":{..}` and, if there is any, `"gone":[..]`.
    ///
    /// # Errors
    /// `TooLarge` where `out` would be longer than [`crate::json::MAX_BYTES`].
    pub fn write_json(&self, out: &mut String) -> Result<(), Error> {
        out.push_str("\"values\":{");
        for (index, (path, value)) in self.values.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            check_length(out)?;
            write_string(out, path);
            out.push(':');
            value.write_json(out);
        }
        out.push('}');
        if !self.gone.is_empty() {
            out.push_str(",\"gone\":[");
            for (index, path) in self.gone.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                check_length(out)?;
                write_string(out, path);
            }
            out.push(']');
        }
        Ok(())
    }
}
