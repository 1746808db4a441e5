//! The query of a request's target: names and values, percent-decoded (RFC 3986 §2.1; `+` is a space, as forms have it).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::error::Error;

/// The most parameters in one query.
pub const MAX_PARAMETERS: usize = 32;

/// The parameters of a request, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`.
    ///
    /// # Errors
    /// 400 for too many parameters, or escapes that are none or no UTF-8.
    pub fn parse(text: &str) -> Result<Query, Error> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(Error::invalid("too many parameters"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Query(pairs))
    }

    /// The value of a parameter; the last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All parameters.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// A whole number in `range`, if the parameter is there and not empty.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Error> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = range.into_inner();
            Error::invalid(format!(
                "{name} is to be a whole number from {least} to {most}"
            ))
        })
    }

    /// Whether the parameter is there and is neither `0` nor `false`.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(self.get(name), None | Some("0" | "false"))
    }
}

/// Decodes percent escapes, and `+` where `form` says so.
///
/// # Errors
/// 400 for escapes that are none, and for what is no UTF-8 afterwards.
pub fn decode(text: &str, form: bool) -> Result<String, Error> {
    let wrong = || Error::invalid("a percent escape is wrong");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || {
                    let digit = char::from(rest.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let (high, low) = digit().zip(digit()).ok_or_else(wrong)?;
                high << 4 | low
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        let query = Query::parse("a=b%20c&filter=tcp+port+80&a=2&flag&n=7&&zero=0").unwrap();
        assert_eq!(query.get("a"), Some("2"));
        assert_eq!(query.get("filter"), Some("tcp port 80"));
        assert!(query.flag("flag") && !query.flag("zero") && !query.flag("none"));
        assert_eq!(query.number("n", 1..=9).unwrap(), Some(7));
        assert_eq!(query.number("none", 1..=9).unwrap(), None);
        assert!(query.number("n", 8..=9).is_err() && query.number("a", 3..=4).is_err());
        assert_eq!(query.pairs().count(), 6);
        assert_eq!(decode("a+b%2b", false).unwrap(), "a+b+");
    }

    #[test]
    fn refuses() {
        for bad in ["%", "%4", "%zz=1", "a=%ff", "%C3%28"] {
            assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
        }
        assert!(Query::parse(&"a=1&".repeat(MAX_PARAMETERS)).is_ok());
        assert!(Query::parse(&"a=1&".repeat(MAX_PARAMETERS + 1)).is_err());
    }
}
