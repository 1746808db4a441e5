//! The kernel command line as the manifest's last layer: `a.b=value` words.
//!
//! Words without `=` and `virtio_mmio.*` (device descriptions for the drivers) are not overrides and are left alone.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use serde_json::{Map, Value};

use crate::error::Error;

/// Words whose key has more parts than this are left alone: no key is that deep.
const MAX_PARTS: usize = 8;

/// One `a.b=value` word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key's parts: `["en1", "ipaddr"]`.
    pub path: Vec<String>,
    /// The value, as written, without its quotes.
    pub value: String,
}

/// Splits a command line into its override words.
///
/// Words end at white space outside double quotes, as in Linux; the first `=` ends the key. Everything after the first
/// part of `environment` is one name, dots included.
#[must_use]
pub fn parse_overrides(cmdline: &str) -> Vec<Override> {
    split(cmdline)
        .into_iter()
        .filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            if key.is_empty() || key.starts_with("virtio_mmio.") {
                return None;
            }
            let path: Vec<String> = match key.split_once('.') {
                Some(("environment", name)) => vec!["environment".into(), name.into()],
                _ => key.split('.').map(ToString::to_string).collect(),
            };
            (path.len() <= MAX_PARTS && path.iter().all(|part| !part.is_empty())).then(|| {
                Override {
                    path,
                    value: value.into(),
                }
            })
        })
        .collect()
}

/// Sets each override in `tree`. Objects are made where they are missing; `arguments.N` sets an element of the array, or
/// appends one when N is its length.
///
/// # Errors
/// An index that leaves a gap in an array.
pub fn apply_overrides(tree: &mut Value, overrides: &mut [Override]) -> Result<(), Error> {
    for item in overrides {
        let mut place = &mut *tree;
        for (depth, part) in item.path.iter().enumerate() {
            let name = || item.path[..=depth].join(".");
            if let Value::Array(items) = place {
                let index: usize = part
                    .parse()
                    .map_err(|_| Error::at(name(), "an array needs a number as index"))?;
                if index > items.len() {
                    let message = format!("the array has only {} elements", items.len());
                    return Err(Error::at(name(), message));
                }
                if index == items.len() {
                    items.push(Value::Null);
                }
                place = &mut items[index];
            } else {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                let Value::Object(map) = place else {
                    return Err(Error::at(name(), "not an object"));
                };
                place = map.entry(part.clone()).or_insert(Value::Null);
            }
        }
        *place = Value::String(item.value.clone());
    }
    Ok(())
}

fn split(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for c in cmdline.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            c if c.is_whitespace() && !quoted => {
                if any {
                    words.push(core::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}
