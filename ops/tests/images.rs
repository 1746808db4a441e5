//! Images as a whole: what is put in comes out, the same inputs give the same bytes, e2fsck agrees.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use common::Place;

/// A program and files of every kind, and a configuration that takes them in.
fn prepared(place: &Place) {
    place.program("dir with space/my prog");
    place.write("data/one.txt", "one");
    place.write("data/sub/two.bin", vec![7; 3_000_000]);
    place.executable("data/run.sh", "#!/bin/sh\n");
    place.write("data/sparse", "");
    let sparse = fs::File::options()
        .write(true)
        .open(place.path("data/sparse"));
    sparse.unwrap().set_len(64 << 20).unwrap();
    symlink("one.txt", place.path("data/link")).unwrap();
    fs::create_dir(place.path("data/empty")).unwrap();
    fs::set_permissions(place.path("data/one.txt"), PermissionsExt::from_mode(0o640)).unwrap();
    place.write(
        "config.json",
        r#"{"Dirs": ["data"], "Env": {"KEY": "a=b c"}, "Args": ["first", "se cond"], "ManifestPassthrough": {"cwd": "/data"}}"#,
    );
}

fn build(place: &Place, name: &str) {
    let out = place.ok(&[
        "build",
        "dir with space/my prog",
        "-c",
        "config.json",
        "-i",
        name,
    ]);
    assert!(out.starts_with("Bootable image file:"), "{out}");
    assert!(
        out.trim_end().ends_with(&format!(".ops/images/{name}")),
        "{out}"
    );
}

#[test]
fn what_goes_in_comes_out() {
    let place = Place::new();
    prepared(&place);
    build(&place, "img");
    let listing = place.ok(&["image", "ls", "img", "/"]);
    let names: Vec<&str> = listing
        .lines()
        .map(|l| l.split(" -> ").next().unwrap())
        .collect();
    for name in [
        "data",
        "dev",
        "dir with space",
        "etc",
        "lib64",
        "proc",
        "sys",
        "tmp",
        "usr",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(place.ok(&["image", "cat", "img", "/data/link"]), "one");
    assert_eq!(
        place.ok(&["image", "cat", "img", "data/../data/./one.txt"]),
        "one"
    );
    let long = place.ok(&["image", "ls", "-l", "img", "/data"]);
    assert!(
        long.contains("-rw-r-----") && long.contains("link -> one.txt"),
        "{long}"
    );
    let tree = place.ok(&["image", "tree", "img"]);
    assert!(
        tree.starts_with("/\n") && tree.contains("|   |   |   two.bin"),
        "{tree}"
    );
    let flat: Vec<String> =
        serde_json::from_str(&place.ok(&["image", "tree", "-j", "img"])).unwrap();
    assert!(flat.contains(&"/data/sub/two.bin".to_string()));
    let env = place.ok(&["image", "env", "img"]);
    assert!(
        env.contains("KEY: a=b c\n") && env.contains("IMAGE_NAME: img\n"),
        "{env}"
    );
    let env: serde_json::Value =
        serde_json::from_str(&place.ok(&["image", "env", "img", "-j"])).unwrap();
    assert_eq!(env["KEY"], "a=b c");

    place.ok(&["image", "cp", "img", "/data/one.txt", "out one"]);
    let copy = fs::metadata(place.path("out one")).unwrap();
    let original = fs::metadata(place.path("data/one.txt")).unwrap();
    assert_eq!(copy.mode(), original.mode());
    assert_eq!(
        (copy.mtime(), copy.mtime_nsec()),
        (original.mtime(), original.mtime_nsec())
    );
    let error = place.fails(&["image", "cp", "img", "/data", "out"]);
    assert!(error.contains("-r copies it"), "{error}");
    place.ok(&["image", "cp", "-r", "img", "/data", "out"]);
    let same = Command::new("diff")
        .arg("-r")
        .args(["data", "out"])
        .current_dir(place.path(""))
        .status();
    assert!(same.unwrap().success());
    assert!(place.path("out/link").is_symlink());
    place.ok(&[
        "image",
        "cp",
        "-r",
        "-L",
        "img",
        "/data/link",
        "/data/sub",
        "out/empty",
    ]);
    assert!(!place.path("out/empty/link").is_symlink());
    assert!(place.path("out/empty/sub/two.bin").exists());
}

#[test]
fn same_inputs_same_bytes_and_sparse() {
    let place = Place::new();
    prepared(&place);
    build(&place, "img");
    let path = place.path(".ops/images/img");
    let first = fs::read(&path).unwrap();
    build(&place, "img");
    assert!(first == fs::read(&path).unwrap(), "two builds differ");
    let metadata = fs::metadata(&path).unwrap();
    assert!(
        metadata.blocks() * 512 < metadata.len() / 4,
        "{} of {}",
        metadata.blocks() * 512,
        metadata.len()
    );
    assert_eq!(metadata.mode() & 0o777, 0o644);
}

#[test]
fn e2fsck_finds_nothing_wrong() {
    let place = Place::new();
    prepared(&place);
    build(&place, "img");
    place.ok(&["build", "/bin/ls", "-i", "small"]);
    for name in ["img", "small"] {
        let image = fs::read(place.path(&format!(".ops/images/{name}"))).unwrap();
        // The partition table's second entry, as any tool would read it.
        let entry = &image[2 * 512 + 128..2 * 512 + 256];
        let sector = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap()) as usize;
        let root = &image[sector(32) * 512..(sector(40) + 1) * 512];
        let file = place.write("root.ext4", root);
        let output = Command::new("/usr/sbin/e2fsck")
            .arg("-fn")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn listing_and_deleting() {
    let place = Place::new();
    assert_eq!(place.ok(&["image", "list", "-j"]), "[]\n");
    place.program("prog");
    place.ok(&["build", "prog"]);
    place.ok(&["build", "prog", "-i", "second"]);
    let table = place.ok(&["image", "list"]);
    for word in ["NAME", "PATH", "SIZE", "CREATEDAT", "prog", "second", "MB"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&place.ok(&["image", "list", "--json"])).unwrap();
    let mut keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "Created", "ID", "Labels", "Name", "Path", "Size", "Status", "Tag"
        ]
    );
    assert_eq!(json[0]["Name"], "prog");
    assert!(json[0]["Size"].as_u64().unwrap() > 1 << 20);
    assert!(json[0]["Created"].as_str().unwrap().ends_with('Z'));

    // Standard input is empty: that is no yes.
    place.run(&["image", "delete", "prog"]);
    assert!(place.path(".ops/images/prog").exists());
    let _open = fs::File::open(place.path(".ops/images/prog")).unwrap();
    let error = place.fails(&["image", "delete", "prog", "--assume-yes"]);
    assert!(error.contains("is in use by process"), "{error}");
    place.ok(&["image", "delete", "prog", "--assume-yes", "--force"]);
    assert!(!place.path(".ops/images/prog").exists());
    place.ok(&["image", "delete", "--lru", "1d", "--assume-yes"]);
    assert!(place.path(".ops/images/second").exists());
    let file = fs::File::options()
        .write(true)
        .open(place.path(".ops/images/second"))
        .unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
    file.set_modified(old).unwrap();
    drop(file);
    place.ok(&["image", "delete", "--lru", "2d", "--assume-yes"]);
    assert!(!place.path(".ops/images/second").exists());
}

#[test]
fn the_file_of_the_first_argument_comes_along() {
    let place = Place::new();
    place.program("prog");
    place.write("conf.txt", "x");
    place.ok(&["build", "prog", "-a", "conf.txt"]);
    assert_eq!(place.ok(&["image", "cat", "prog", "/conf.txt"]), "x");
    place.ok(&["build", "prog", "-a", "conf.txt", "--disable-args-copy"]);
    assert!(
        place
            .fails(&["image", "cat", "prog", "/conf.txt"])
            .contains("no such file")
    );
}

#[test]
fn a_system_program_keeps_its_place() {
    let place = Place::new();
    place.ok(&["build", "/bin/ls"]);
    let listing = place.ok(&["image", "ls", "ls"]);
    let link = std::path::Path::new("/bin").is_symlink();
    assert_eq!(
        listing.lines().any(|l| l == "bin -> usr/bin"),
        link,
        "{listing}"
    );
    place.ok(&["image", "cp", "ls", "/bin/ls", "copy"]);
    assert!(fs::read(place.path("copy")).unwrap() == fs::read("/bin/ls").unwrap());
}

#[test]
fn base_volume_size_is_a_minimum() {
    let place = Place::new();
    place.program("prog");
    place.write("c.json", r#"{"BaseVolumeSz": "300m"}"#);
    place.ok(&["build", "prog", "-c", "c.json"]);
    assert!(fs::metadata(place.path(".ops/images/prog")).unwrap().len() >= 300 << 20);
}
