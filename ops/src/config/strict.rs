//! A serde deserializer over parsed JSON that is strict about unknown keys, matches key names whatever their case, and
//! remembers the path of what was wrong.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What was wrong and at which key.
#[derive(Debug)]
pub struct PathError {
    /// From the innermost part outwards.
    parts: Vec<String>,
    /// What was wrong.
    pub message: String,
}

impl PathError {
    fn new(message: impl Into<String>) -> Self {
        PathError {
            parts: Vec::new(),
            message: message.into(),
        }
    }

    fn under(mut self, part: impl Into<String>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// The path as `RunConfig.Ports[1]`.
    pub fn path(&self) -> String {
        let mut out = String::new();
        for part in self.parts.iter().rev() {
            if !out.is_empty() && !part.starts_with('[') {
                out.push('.');
            }
            out.push_str(part);
        }
        out
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PathError {}

impl de::Error for PathError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        PathError::new(message.to_string())
    }
}

/// The deserializer.
pub struct Strict<'a>(pub &'a Value);

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = PathError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(Members::new(map, None)),
            Value::Array(items) => visitor.visit_seq(Elements(items.iter().enumerate())),
            scalar => scalar
                .deserialize_any(visitor)
                .map_err(|e| PathError::new(e.to_string())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(Members::new(map, Some(fields))),
            // Left alone, serde would take an array for the fields in their order.
            Value::Array(_) => Err(PathError::new("invalid type: array, expected an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Members<'a> {
    entries: serde_json::map::Iter<'a>,
    fields: Option<&'static [&'static str]>,
    current: Option<(&'a str, &'a Value)>,
}

impl<'a> Members<'a> {
    fn new(map: &'a Map<String, Value>, fields: Option<&'static [&'static str]>) -> Self {
        Members {
            entries: map.iter(),
            fields,
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = PathError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, PathError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let name = match self.fields {
            None => key.as_str(),
            Some(fields) => fields
                .iter()
                .find(|field| field.eq_ignore_ascii_case(key))
                .ok_or_else(|| unknown(key, fields).under(key.as_str()))?,
        };
        self.current = Some((key, value));
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, PathError> {
        let (key, value) = self
            .current
            .take()
            .ok_or_else(|| PathError::new("a value was asked for before its key"))?;
        seed.deserialize(Strict(value)).map_err(|e| e.under(key))
    }
}

struct Elements<'a>(std::iter::Enumerate<std::slice::Iter<'a, Value>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = PathError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, PathError> {
        match self.0.next() {
            None => Ok(None),
            Some((index, value)) => seed
                .deserialize(Strict(value))
                .map(Some)
                .map_err(|e| e.under(format!("[{index}]"))),
        }
    }
}

fn unknown(key: &str, fields: &[&str]) -> PathError {
    let lower = key.to_lowercase();
    let nearest = fields
        .iter()
        .map(|f| (strsim::damerau_levenshtein(&f.to_lowercase(), &lower), f))
        .min()
        .filter(|(distance, _)| *distance <= 1 + lower.len() / 4);
    PathError::new(match nearest {
        Some((_, name)) => format!("unknown key, did you mean `{name}`?"),
        None => "unknown key".to_string(),
    })
}
