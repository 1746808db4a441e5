//! Debian's binary packages: an `ar` archive with a compressed tar archive of the files (`deb(5)`).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Opens the file archive of a package and hands it to `each`.
pub fn with_files<T>(
    path: &Path,
    each: impl FnOnce(&mut tar::Archive<&mut dyn Read>) -> Result<T>,
) -> Result<T> {
    let context = || format!("cannot read the package {}", path.display());
    let file = File::open(path).with_context(context)?;
    let mut members = ar::Archive::new(BufReader::new(file));
    while let Some(member) = members.next_entry() {
        let member = member.with_context(context)?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let Some(compression) = name.strip_prefix("data.tar") else {
            continue;
        };
        let mut reader: Box<dyn Read> = match compression {
            "" => Box::new(member),
            ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
            ".xz" => Box::new(lzma_rust2::XzReader::new(member, true)),
            ".zst" => Box::new(
                ruzstd::decoding::StreamingDecoder::new(member)
                    .map_err(|e| anyhow::anyhow!("{e}"))
                    .with_context(context)?,
            ),
            other => bail!("{}: unknown compression {other}", path.display()),
        };
        let reader: &mut dyn Read = &mut reader;
        return each(&mut tar::Archive::new(reader)).with_context(context);
    }
    bail!(
        "{} is not a Debian package: it has no data.tar",
        path.display()
    )
}
