//! Changes: what a request wants to change, and what observers are told.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde_json::Value as Json;

use crate::{Error, ErrorCode, Path, Value};

/// The most changes in one request.
pub const MAX_CHANGES: usize = 256;
/// The longest body of a request in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// Who asks for a change, as the log and the watchers are to read it: `console 10.0.2.2:5555`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By(pub String);

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request wants a leaf to be, before its type is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The leaf.
    pub path: Path,
    /// The value, as it came.
    pub value: Json,
}

impl Wish {
    /// Reads the body of a PUT: `{"value":V}`.
    ///
    /// # Errors
    /// `Invalid` and `TooLarge`.
    pub fn parse_one(path: Path, body: &[u8]) -> Result<Wish, Error> {
        let mut body = parse(body)?;
        let value = body.get_mut("value").map(Json::take);
        let value = value.ok_or_else(|| invalid("the body is to be {\"value\":V}").at(&path))?;
        Ok(Wish { path, value })
    }

    /// Reads the body of a PATCH: `{"changes":[{"path":P,"value":V},..]}`.
    ///
    /// # Errors
    /// `Invalid` and `TooLarge`.
    pub fn parse_many(body: &[u8]) -> Result<Vec<Wish>, Error> {
        let wanted = "the body is to be {\"changes\":[{\"path\":P,\"value\":V},..]}";
        let mut body = parse(body)?;
        let changes = body.get_mut("changes").and_then(Json::as_array_mut);
        let changes = changes.ok_or_else(|| invalid(wanted))?;
        if changes.len() > MAX_CHANGES {
            let message = alloc::format!("there are more than {MAX_CHANGES} changes");
            return Err(Error::new(ErrorCode::TooLarge, message));
        }
        let wish = |change: &mut Json| {
            let value = change.get_mut("value").map(Json::take);
            let path = change.get("path").and_then(Json::as_str);
            let (path, value) = path.zip(value).ok_or_else(|| invalid(wanted))?;
            let path = Path::parse(path)?;
            Ok(Wish { path, value })
        };
        changes.iter_mut().map(wish).collect()
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorCode::Invalid, message)
}

fn parse(body: &[u8]) -> Result<Json, Error> {
    if body.len() > MAX_BODY {
        let message = alloc::format!("the body is longer than {MAX_BODY} bytes");
        return Err(Error::new(ErrorCode::TooLarge, message));
    }
    serde_json::from_slice(body)
        .map_err(|error| invalid(&alloc::format!("the body is not JSON: {error}")))
}

/// A change that was asked for or was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The leaf.
    pub path: Path,
    /// What it is to be, or is now.
    pub value: Value,
}

/// All changes of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(pub(crate) Vec<Change>);

impl Changes {
    /// What the request wants the leaf at `path` to be.
    pub fn get(&self, path: &Path) -> Option<&Value> {
        let change = self.0.iter().find(|change| change.path == *path);
        change.map(|change| &change.value)
    }
}

/// Told of each change after it holds. It must not block for long, and must not change the store.
pub type Observer = Box<dyn Fn(&Change, &By) + Send + Sync>;
