//! The page's files, as `build.rs` packed them.

/// One file of the page.
pub struct File {
    /// Its name below `/page/`.
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its entity tag (RFC 9110 §8.8.3), in quotes.
    pub tag: &'static str,
    /// Its bytes, gzip'd.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The file of that name.
pub fn find(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_whole_and_small() {
        assert!(find("index.html").is_some_and(|file| file.kind.starts_with("text/html")));
        assert!(find("app.js").is_some() && find("../build.rs").is_none());
        assert!(
            FILES
                .iter()
                .all(|file| file.bytes.starts_with(&[0x1f, 0x8b]))
        );
        let size: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(size < 100 << 10, "the page takes {size} bytes");
    }
}
