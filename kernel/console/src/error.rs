//! What the console answers when it does not do what it was asked for: a status and a line of JSON.

use alloc::string::String;

use store::json::write_string;

/// An error as the client sees it: `{"error":{"code":"not_found","message":"...","path":"/x"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// HTTP status (RFC 9110 §15).
    pub status: u16,
    /// A name for machines.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The path of the store that it is about, where it is about one.
    pub path: Option<String>,
}

impl Error {
    /// An error of that status, name and sentence.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Error {
        Error {
            status,
            code,
            message: message.into(),
            path: None,
        }
    }

    /// 400: the request cannot be.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(400, "invalid", message)
    }

    /// 401: without telling what exists.
    pub fn unauthorized() -> Error {
        let message = "a token is needed: Authorization: Bearer TOKEN, or /login?token=TOKEN";
        Error::new(401, "unauthorized", message)
    }

    /// 403: nothing may be changed here.
    pub fn read_only() -> Error {
        Error::new(403, "read_only", "this console is read-only")
    }

    /// 403: a browser's page from elsewhere asks.
    pub fn forbidden_origin() -> Error {
        let message = "the request comes from a page of another origin";
        Error::new(403, "forbidden_origin", message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(404, "not_found", message)
    }

    /// 413: the request is larger than it may be.
    pub fn too_large(message: impl Into<String>) -> Error {
        Error::new(413, "too_large", message)
    }

    /// 429: others use it already; later it may work.
    pub fn too_many(message: impl Into<String>) -> Error {
        Error::new(429, "too_many", message)
    }

    /// 501: this machine cannot do it.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(501, "unsupported", message)
    }

    /// 500: it should have worked.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(500, "internal", message)
    }

    /// Appends `{"code":..,"message":..,"path":..}`.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"code\":");
        write_string(out, self.code);
        out.push_str(",\"message\":");
        write_string(out, &self.message);
        if let Some(path) = &self.path {
            out.push_str(",\"path\":");
            write_string(out, path);
        }
        out.push('}');
    }

    /// The body of the answer.
    pub fn body(&self) -> String {
        let mut out = String::from("{\"error\":");
        self.write_json(&mut out);
        out.push('}');
        out
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Error {
            status: error.code.status(),
            code: error.code.name(),
            message: error.message,
            path: error.path,
        }
    }
}
