//! Values: their types, and how they look in JSON on the way out and on the way in.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use serde_json::Value as Json;

use crate::json::write_string;
use crate::{base64, rfc3339};

/// The longest string and the most bytes that a change may carry.
const MAX_TEXT: usize = 64 * 1024;
/// The most elements of a list or a map that a change may carry.
const MAX_ELEMENTS: usize = 4096;
/// How deep lists and maps may hold each other in a change.
const MAX_NESTING: usize = 8;

/// The type of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// Text.
    String,
    /// Bytes; base64 in JSON (RFC 4648 §4).
    Bytes,
    /// Values in a row.
    List,
    /// Values by name.
    Map,
    /// A moment: nanoseconds since 1970, RFC 3339 in JSON.
    Time,
    /// Nanoseconds.
    Duration,
    /// Bytes of memory, of a file, of a buffer.
    Size,
}

impl Kind {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Integer => "integer",
            Kind::Float => "float",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Map => "map",
            Kind::Time => "time",
            Kind::Duration => "duration",
            Kind::Size => "size",
        }
    }
}

/// A value of a leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in a row.
    List(Vec<Value>),
    /// Values by name, in the order of showing.
    Map(Vec<(String, Value)>),
    /// Nanoseconds since 1970.
    Time(u64),
    /// Nanoseconds.
    Duration(u64),
    /// Bytes.
    Size(u64),
}

impl Value {
    /// How many values it is made of, itself among them; long texts count as several.
    pub(crate) fn weight(&self) -> usize {
        /// Bytes of text that one counts for.
        const TEXT: usize = 128;
        match self {
            Value::String(text) => 1 + text.len() / TEXT,
            Value::Bytes(bytes) => 1 + bytes.len() / TEXT,
            Value::List(items) => 1 + items.iter().map(Value::weight).sum::<usize>(),
            Value::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|(_, value)| value.weight())
                    .sum::<usize>()
            }
            _ => 1,
        }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Bool(_) => Kind::Bool,
            Value::Integer(_) => Kind::Integer,
            Value::Float(_) => Kind::Float,
            Value::String(_) => Kind::String,
            Value::Bytes(_) => Kind::Bytes,
            Value::List(_) => Kind::List,
            Value::Map(_) => Kind::Map,
            Value::Time(_) => Kind::Time,
            Value::Duration(_) => Kind::Duration,
            Value::Size(_) => Kind::Size,
        }
    }

    /// A whole number; what is greater than the greatest is the greatest.
    pub fn integer(number: impl TryInto<i64>) -> Value {
        Value::Integer(number.try_into().unwrap_or(i64::MAX))
    }

    /// Text.
    pub fn text(text: impl fmt::Display) -> Value {
        Value::String(format!("{text}"))
    }

    /// The number of an integer, a size, a duration or a time.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Value::Integer(number) => Some(number),
            Value::Time(number) | Value::Duration(number) | Value::Size(number) => {
                Some(i64::try_from(number).unwrap_or(i64::MAX))
            }
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Integer(number) => _ = write!(out, "{number}"),
            // JSON has no infinities.
            Value::Float(number) if !number.is_finite() => out.push_str("null"),
            Value::Float(number) => _ = write!(out, "{number}"),
            Value::String(text) => write_string(out, text),
            Value::Bytes(bytes) => {
                out.push('"');
                base64::encode(out, bytes);
                out.push('"');
            }
            Value::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write_json(out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                out.push('{');
                for (index, (name, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_string(out, name);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
            Value::Time(ns) => {
                out.push('"');
                rfc3339::write(out, *ns);
                out.push('"');
            }
            Value::Duration(number) | Value::Size(number) => _ = write!(out, "{number}"),
        }
    }

    /// It as JSON.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    /// The value of type `kind` that a JSON value stands for.
    ///
    /// # Errors
    /// One sentence on why it stands for none.
    pub fn from_json(kind: Kind, json: &Json) -> Result<Value, String> {
        let wrong = || format!("it is to be {}", wanted(kind));
        Ok(match kind {
            Kind::Bool => Value::Bool(json.as_bool().ok_or_else(wrong)?),
            Kind::Integer => Value::Integer(json.as_i64().ok_or_else(wrong)?),
            Kind::Float => Value::Float(json.as_f64().ok_or_else(wrong)?),
            Kind::String => Value::String(text(json).ok_or_else(wrong)??.to_owned()),
            Kind::Bytes => {
                Value::Bytes(base64::decode(text(json).ok_or_else(wrong)??).ok_or_else(wrong)?)
            }
            Kind::Time => {
                Value::Time(rfc3339::parse(text(json).ok_or_else(wrong)??).ok_or_else(wrong)?)
            }
            Kind::Duration => Value::Duration(json.as_u64().ok_or_else(wrong)?),
            Kind::Size => Value::Size(json.as_u64().ok_or_else(wrong)?),
            Kind::List if json.is_array() => plain(json, MAX_NESTING)?,
            Kind::Map if json.is_object() => plain(json, MAX_NESTING)?,
            Kind::List | Kind::Map => return Err(wrong()),
        })
    }

    /// The value that JSON from a trusted place stands for; `None` for `null`.
    pub fn from_plain_json(json: &Json) -> Option<Value> {
        plain(json, usize::MAX).ok()
    }
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Integer => "a whole number",
        Kind::Float => "a number",
        Kind::String => "a string",
        Kind::Bytes => "a string in base64",
        Kind::List => "an array",
        Kind::Map => "an object",
        Kind::Time => "a moment as in RFC 3339",
        Kind::Duration => "a number of nanoseconds",
        Kind::Size => "a number of bytes",
    }
}

/// The text of a JSON string, unless it is too long.
fn text(json: &Json) -> Option<Result<&str, String>> {
    let text = json.as_str()?;
    Some(if text.len() > MAX_TEXT {
        Err(format!("it is longer than {MAX_TEXT} bytes"))
    } else {
        Ok(text)
    })
}

/// What JSON without a known type stands for.
fn plain(json: &Json, nesting: usize) -> Result<Value, String> {
    let limited = nesting <= MAX_NESTING;
    let fits = |count: usize| {
        if limited && count > MAX_ELEMENTS {
            return Err(format!("it has more than {MAX_ELEMENTS} elements"));
        }
        nesting
            .checked_sub(1)
            .ok_or_else(|| String::from("it is nested too deeply"))
    };
    Ok(match json {
        Json::Null => return Err("it may not be null".into()),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(string) if limited && string.len() > MAX_TEXT => {
            return Err(format!("it is longer than {MAX_TEXT} bytes"));
        }
        Json::String(string) => Value::String(string.clone()),
        Json::Array(values) => {
            let nesting = fits(values.len())?;
            Value::List(
                values
                    .iter()
                    .map(|value| plain(value, nesting))
                    .collect::<Result<_, _>>()?,
            )
        }
        Json::Object(entries) => {
            let nesting = fits(entries.len())?;
            let entry = |(name, value): (&String, &Json)| {
                plain(value, nesting).map(|value| (name.clone(), value))
            };
            Value::Map(entries.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn parse(kind: Kind, json: &str) -> Result<Value, String> {
        Value::from_json(kind, &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn each_type_goes_out_and_comes_back() {
        let values = [
            (Value::Bool(true), "true"),
            (Value::Integer(-5), "-5"),
            (Value::Float(0.5), "0.5"),
            (Value::text("a\"\\\n\u{1}é"), "\"a\\\"\\\\\\n\\u0001é\""),
            (Value::Bytes(vec![0, 255, 16]), "\"AP8Q\""),
            (
                Value::List(vec![Value::Integer(1), "x".into()]),
                "[1,\"x\"]",
            ),
            (Value::Map(vec![("a".into(), true.into())]), "{\"a\":true}"),
            (Value::Time(1), "\"1970-01-01T00:00:00.000000001Z\""),
            (Value::Duration(u64::MAX), "18446744073709551615"),
            (Value::Size(4096), "4096"),
        ];
        for (value, json) in values {
            assert_eq!(value.to_json(), json);
            assert_eq!(parse(value.kind(), json).unwrap(), value);
        }
        assert_eq!(Value::Float(f64::NAN).to_json(), "null");
        assert_eq!(Value::integer(u64::MAX), Value::Integer(i64::MAX));
    }

    #[test]
    fn what_has_another_type_is_refused() {
        for (kind, json) in [
            (Kind::Bool, "1"),
            (Kind::Integer, "1.5"),
            (Kind::Integer, "9223372036854775808"),
            (Kind::Integer, "\"1\""),
            (Kind::Float, "\"1\""),
            (Kind::String, "1"),
            (Kind::Bytes, "\"a\""),
            (Kind::List, "{}"),
            (Kind::List, "[null]"),
            (Kind::Map, "[]"),
            (Kind::Time, "\"yesterday\""),
            (Kind::Duration, "-1"),
            (Kind::Size, "1e30"),
        ] {
            assert!(parse(kind, json).is_err(), "{kind:?} {json}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let long = format!("\"{}\"", "a".repeat(MAX_TEXT + 1));
        assert!(parse(Kind::String, &long).is_err());
        assert!(parse(Kind::List, &format!("[{long}]")).is_err());
        assert!(parse(Kind::List, &format!("[0{}]", ",0".repeat(MAX_ELEMENTS))).is_err());
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(Kind::List, &deep(MAX_NESTING)).is_ok());
        assert!(parse(Kind::List, &deep(MAX_NESTING + 1)).is_err());
    }
}
