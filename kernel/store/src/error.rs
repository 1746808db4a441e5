//! What can go wrong with a request to the store, as a value that becomes a status and a line of JSON.

use alloc::string::String;
use core::fmt;

use crate::json::write_string;

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// There is no node of that path.
    NotFound,
    /// The node has no writer.
    NotWritable,
    /// A path, a value or a request that cannot be.
    Invalid,
    /// More than the store gives or takes at once.
    TooLarge,
    /// What was asked for could not be done.
    Internal,
}

impl ErrorCode {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::NotFound => "not_found",
            ErrorCode::NotWritable => "not_writable",
            ErrorCode::Invalid => "invalid",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::Internal => "internal",
        }
    }

    /// Its HTTP status (RFC 9110 §15).
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::NotFound => 404,
            ErrorCode::NotWritable => 405,
            ErrorCode::Invalid => 400,
            ErrorCode::TooLarge => 413,
            ErrorCode::Internal => 500,
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: String,
    /// The path it is about, where there is one.
    pub path: Option<String>,
}

impl Error {
    /// An error that is about no path.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            path: None,
        }
    }

    /// The same error, about `path`.
    pub fn at(mut self, path: impl fmt::Display) -> Error {
        self.path = Some(alloc::format!("{path}"));
        self
    }

    /// Appends `{"code":..,"message":..,"path":..}`.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"code\":\"");
        out.push_str(self.code.name());
        out.push_str("\",\"message\":");
        write_string(out, &self.message);
        if let Some(path) = &self.path {
            out.push_str(",\"path\":");
            write_string(out, path);
        }
        out.push('}');
    }

    /// The body of an HTTP answer: `{"error":{..}}`.
    pub fn body(&self) -> String {
        let mut out = String::from("{\"error\":");
        self.write_json(&mut out);
        out.push('}');
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl core::error::Error for Error {}
