//! Compresses the page's files into the kernel's image: `page/*` becomes a table of names, media types, tags and gzip'd bytes.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

fn main() {
    println!("cargo::rerun-if-changed=page");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut names: Vec<PathBuf> = fs::read_dir("page")
        .expect("the page lies beside the sources")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.is_file())
        .collect();
    names.sort();
    let mut table = String::from("const FILES: &[File] = &[\n");
    for path in &names {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("names are UTF-8");
        let plain = fs::read(path).expect("it can be read");
        let packed = out.join(format!("{name}.gz"));
        fs::write(&packed, gzip(&plain)).expect("it can be written");
        writeln!(
            table,
            "File {{ name: {name:?}, kind: {:?}, tag: \"\\\"{:016x}\\\"\", bytes: include_bytes!({packed:?}) }},",
            media_type(path),
            fnv1a(&plain),
        )
        .expect("a string takes it");
    }
    table.push_str("];\n");
    fs::write(out.join("page.rs"), table).expect("it can be written");
}

/// Without a name and a time, so that the same page gives the same bytes.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(plain).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

/// Tells one version of a file from another; nobody gains by two that are alike.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}
