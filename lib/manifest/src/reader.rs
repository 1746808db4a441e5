//! A JSON value that knows its path, read leniently: the old tuples held nothing but strings, so `"t"` is true and
//! `"42"` a number here too.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::FromStr;

use serde_json::{Map, Value};

use crate::error::Error;

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> Item<'a> {
    pub fn root(value: &'a Value) -> Self {
        Item {
            value,
            path: String::new(),
        }
    }

    /// The member `key`, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<Item<'a>> {
        let value = self.value.get(key)?;
        (!value.is_null()).then(|| Item {
            value,
            path: join(&self.path, key),
        })
    }

    pub fn wrong(&self, wanted: &str) -> Error {
        let shown = match self.value {
            Value::Object(_) => "an object".into(),
            Value::Array(_) => "an array".into(),
            other => other.to_string(),
        };
        Error::at(
            self.path.clone(),
            format!("expected {wanted}, found {shown}"),
        )
    }

    pub fn object(&self) -> Result<&'a Map<String, Value>, Error> {
        self.value
            .as_object()
            .ok_or_else(|| self.wrong("an object"))
    }

    /// A string; numbers and booleans are taken as they are written.
    pub fn string(&self) -> Result<String, Error> {
        match self.value {
            Value::String(s) => Ok(s.clone()),
            Value::Number(n) => Ok(n.to_string()),
            Value::Bool(b) => Ok(b.to_string()),
            _ => Err(self.wrong("a string")),
        }
    }

    /// An absolute path name.
    pub fn absolute_path(&self) -> Result<String, Error> {
        let path = self.string()?;
        if path.starts_with('/') && !path.contains('\0') {
            return Ok(path);
        }
        Err(self.wrong("an absolute path"))
    }

    pub fn flag(&self) -> Result<bool, Error> {
        match self.value {
            Value::Bool(b) => Ok(*b),
            Value::Number(n) if n.as_u64() == Some(0) => Ok(false),
            Value::Number(n) if n.as_u64() == Some(1) => Ok(true),
            Value::String(s) => match s.as_str() {
                "t" | "true" | "1" | "yes" | "on" => Ok(true),
                "" | "f" | "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(self.wrong("true or false")),
            },
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A whole number in `min..=max`.
    pub fn number(&self, min: u64, max: u64) -> Result<u64, Error> {
        let number = match self.value {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => match s.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => s.parse().ok(),
            },
            _ => None,
        };
        number
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| self.wrong(&format!("a whole number from {min} to {max}")))
    }

    /// A number of bytes, with k, m, g or t for powers of 1024.
    pub fn size(&self) -> Result<u64, Error> {
        match self.value {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => parse_size(s),
            _ => None,
        }
        .ok_or_else(|| self.wrong("a size such as 512k, 64m or 2g"))
    }

    /// Anything that its type reads from a string.
    pub fn parse<T: FromStr>(&self, wanted: &str) -> Result<T, Error> {
        self.value
            .as_str()
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| self.wrong(wanted))
    }

    /// The elements of an array, or of a tuple whose keys are `0`, `1`, ... as the old format wrote arrays.
    pub fn elements(&self) -> Result<Vec<Item<'a>>, Error> {
        match self.value {
            Value::Array(values) => Ok(values
                .iter()
                .enumerate()
                .map(|(i, value)| Item {
                    value,
                    path: format!("{}[{i}]", self.path),
                })
                .collect()),
            Value::Object(map) => (0..map.len())
                .map(|i| {
                    map.get(&i.to_string())
                        .map(|value| Item {
                            value,
                            path: format!("{}.{i}", self.path),
                        })
                        .ok_or_else(|| self.wrong("an array"))
                })
                .collect(),
            _ => Err(self.wrong("an array")),
        }
    }

    /// An array of strings, or one string with commas.
    pub fn strings(&self) -> Result<Vec<String>, Error> {
        match self.value {
            Value::String(s) => Ok(s
                .split(',')
                .map(str::trim)
                .filter(|s| !s.is_empty())
                .map(ToString::to_string)
                .collect()),
            _ => self.elements()?.iter().map(Item::string).collect(),
        }
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.into()
    } else {
        format!("{path}.{key}")
    }
}

/// Reads a number of bytes: digits and at most one letter k, m, g or t of either case, for powers of 1024.
///
/// `None` when the text is anything else or the number does not fit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
