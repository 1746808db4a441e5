//! The disk: what a program writes is there in its next run, and `e2fsck` has nothing to say.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use e2e::{Ops, programs};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

/// Copies the root partition out of an image and lets `e2fsck` look at it.
fn fsck(image: &Path) -> Result<()> {
    let mut disk = std::fs::File::open(image)?;
    let mut entry = [0; 128];
    // The second entry of the partition table (UEFI 2.10, §5.3.3): first and last block at 32 and 40.
    disk.seek(SeekFrom::Start(1024 + 128))?;
    disk.read_exact(&mut entry)?;
    let number = |at: usize| -> Result<u64> {
        Ok(u64::from_le_bytes(
            entry[at..at + 8].try_into().context("eight bytes")?,
        ))
    };
    let (first, last) = (number(32)?, number(40)?);
    let mut root = tempfile::NamedTempFile::new()?;
    let mut left = (last - first + 1) * 512;
    disk.seek(SeekFrom::Start(first * 512))?;
    root.as_file().set_len(left)?;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let part = buffer.len().min(usize::try_from(left)?);
        disk.read_exact(&mut buffer[..part])?;
        if buffer[..part].iter().any(|byte| *byte != 0) {
            root.write_all(&buffer[..part])?;
        } else {
            root.seek(SeekFrom::Current(i64::try_from(part)?))?;
        }
        left -= part as u64;
    }
    let output = Command::new("/sbin/e2fsck")
        .args(["-f", "-n"])
        .arg(root.path())
        .output()?;
    assert!(
        output.status.success(),
        "e2fsck of {}:\n{}{}",
        image.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn files_persist_and_the_file_system_stays_clean() -> Result<()> {
    let files = programs::c("files", &["-static"])?;
    let files = files.to_str().context("a path in UTF-8")?;
    let ops = Ops::new()?;
    let output = ops.run(&["build", files, "-i", "files"])?;
    assert_eq!(output.code(), 0, "{output:?}");
    let image = std::fs::read_dir(ops.tree().join("images"))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_stem().is_some_and(|name| name == "files"))
        .context("the image is in ~/.ops/images")?;
    fsck(&image)?;
    for run in 1..=3 {
        let output = ops.run(&["run", files, "-s", "-i", "files"])?;
        assert_eq!(
            (output.code(), output.stdout),
            (0, format!("run {run}\r\n"))
        );
        fsck(&image)?;
    }
    let output = ops.run(&["image", "cat", "files", "/var/runs"])?;
    assert_eq!(output.stdout, "3\n");
    Ok(())
}
