//! Paths of nodes: `/net/interfaces/en1`. A name holds anything but a slash and control characters.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Error, ErrorCode};

/// The most names in a path.
pub const MAX_DEPTH: usize = 16;
/// The longest name in bytes.
pub const MAX_NAME: usize = 255;

/// A path whose names are all possible ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    names: Vec<String>,
}

/// Whether a child may have that name.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c == '/' || c.is_control())
}

impl Path {
    /// The root.
    pub fn root() -> Path {
        Path::default()
    }

    /// Parses `/a/b`, `a/b` or `` and `/` for the root. A slash at the end does no harm.
    ///
    /// # Errors
    /// `Invalid` for empty names, `.` and `..`, control characters, and more than [`MAX_DEPTH`] or [`MAX_NAME`].
    pub fn parse(text: &str) -> Result<Path, Error> {
        Path::split(text, |name| Some(name.to_owned()))
    }

    /// Parses a path of a URL, whose names are percent-encoded (RFC 3986 §2.1) one by one.
    ///
    /// # Errors
    /// As [`Path::parse`], and for what is not UTF-8 or not percent-encoding.
    pub fn parse_encoded(text: &str) -> Result<Path, Error> {
        Path::split(text, decode)
    }

    fn split(text: &str, decode: impl Fn(&str) -> Option<String>) -> Result<Path, Error> {
        let invalid = |message: &str| Error::new(ErrorCode::Invalid, message);
        let text = text.strip_prefix('/').unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let mut path = Path::root();
        if text.is_empty() {
            return Ok(path);
        }
        for name in text.split('/') {
            if path.names.len() == MAX_DEPTH {
                return Err(invalid("the path is too deep"));
            }
            // Three bytes at most stand for one.
            if name.len() > 3 * MAX_NAME {
                return Err(invalid("a name in the path is too long"));
            }
            let name =
                decode(name).ok_or_else(|| invalid("the path is not percent-encoded UTF-8"))?;
            if !is_name(&name) {
                return Err(invalid("the path has a name that cannot be"));
            }
            path.names.push(name);
        }
        Ok(path)
    }

    /// The names from the root on.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether `other` is this node or one below it.
    pub fn contains(&self, other: &Path) -> bool {
        other.names.starts_with(&self.names)
    }

    /// The path of a child. The name must be a possible one ([`is_name`]), or nobody finds the child.
    pub fn child(&self, name: &str) -> Path {
        let mut path = self.clone();
        path.names.push(name.to_owned());
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("/");
        }
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

/// Takes percent-encoding away.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (hex(rest.next())? << 4 | hex(rest.next())?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path() {
        for root in ["", "/", "//"] {
            assert!(Path::parse(root).unwrap().is_root(), "{root:?}");
        }
        for (text, shown) in [
            ("/net", "/net"),
            ("net/en1/", "/net/en1"),
            ("/a b/é", "/a b/é"),
        ] {
            assert_eq!(alloc::format!("{}", Path::parse(text).unwrap()), shown);
        }
        assert_eq!(
            Path::parse_encoded("/a%20b/%c3%A9").unwrap(),
            Path::parse("/a b/é").unwrap()
        );
    }

    #[test]
    fn what_is_none() {
        for text in ["a//b", "///", "/../etc", "/.", "/a\nb", "/a\0"] {
            assert_eq!(
                Path::parse(text).unwrap_err().code,
                ErrorCode::Invalid,
                "{text:?}"
            );
        }
        for text in [
            "/%", "/%4", "/%zz", "/%ff", "/a%2fb", "/%2e%2e", "/%00", "/%+1",
        ] {
            assert!(Path::parse_encoded(text).is_err(), "{text:?}");
        }
        assert!(Path::parse(&"/a".repeat(MAX_DEPTH)).is_ok());
        assert!(Path::parse(&"/a".repeat(MAX_DEPTH + 1)).is_err());
        assert!(Path::parse(&"/a".repeat(1 << 20)).is_err());
        assert!(Path::parse(&"a".repeat(MAX_NAME)).is_ok());
        assert!(Path::parse(&"a".repeat(MAX_NAME + 1)).is_err());
        assert!(Path::parse_encoded(&"%61".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn one_holds_another() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("/").contains(&path("/net")));
        assert!(path("/net").contains(&path("/net")));
        assert!(path("/net").contains(&path("/net/en1")));
        assert!(!path("/net").contains(&path("/network")));
        assert!(!path("/net/en1").contains(&path("/net")));
    }
}
