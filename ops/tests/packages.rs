//! Packages: those added by the user, and one made from the distribution's packages.

mod common;

use std::fs;
use std::process::Command;

use common::{Place, said};

fn local_package(place: &Place, folder: &str) {
    place.program(&format!("{folder}/hello"));
    place.write(&format!("{folder}/sysroot/etc/hello.conf"), "conf");
    place.write(&format!("{folder}/README.md"), "# Hello\n");
    place.write(
        &format!("{folder}/package.manifest"),
        r#"{"Program": "hello_1.0/hello", "Args": ["hello", "--base"], "Version": "1.0", "Language": "c", "Description": "says hello",
           "Env": {"A": "1"}}"#,
    );
}

#[test]
fn local_packages_from_folder_and_archive() {
    let place = Place::new();
    local_package(&place, "src/hello_1.0");
    assert_eq!(
        place.ok(&["pkg", "add", "src/hello_1.0", "--name", "hello_1.0"]),
        "hello_1.0\n"
    );
    let tar = Command::new("tar")
        .args(["czf", "h.tar.gz", "-C", "src", "hello_1.0"])
        .current_dir(place.path(""))
        .status();
    assert!(tar.unwrap().success());
    assert_eq!(
        place.ok(&["pkg", "add", "h.tar.gz", "--name", "hello_2.0"]),
        "hello_2.0\n"
    );
    let random = place.ok(&["pkg", "add", "h.tar.gz"]);
    assert!(random.trim().len() == 16 && random.trim().bytes().all(|b| b.is_ascii_hexdigit()));
    let error = place.fails(&["pkg", "add", "src", "--name", "x"]);
    assert!(error.contains("has no package.manifest"), "{error}");
    let error = place.fails(&["pkg", "add", "h.tar.gz", "--name", "hello_1.0"]);
    assert!(error.contains("already"), "{error}");

    let list: serde_json::Value =
        serde_json::from_str(&place.ok(&["pkg", "list", "-l", "-j"])).unwrap();
    let mut keys: Vec<&String> = list[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "arch",
            "description",
            "language",
            "name",
            "namespace",
            "sha256",
            "version"
        ]
    );
    assert_eq!(list.as_array().unwrap().len(), 3);
    let none = place.ok(&["pkg", "list", "-l", "-j", "-s", "^zz"]);
    assert_eq!(none, "[]\n");
    assert!(
        place
            .ok(&["pkg", "list", "-l", "-s", "HELLO"])
            .contains("says hello")
    );
    assert_eq!(
        place.ok(&["pkg", "describe", "-l", "hello_1.0"]),
        "# Hello\n"
    );
    let contents: serde_json::Value =
        serde_json::from_str(&place.ok(&["pkg", "contents", "-l", "-j", "hello"])).unwrap();
    assert!(
        contents
            .as_array()
            .unwrap()
            .contains(&serde_json::json!({"Name": "hello.conf", "Dir": "/sysroot/etc"}))
    );

    place.ok(&["pkg", "delete", "-l", "hello_2.0"]);
    assert!(
        place
            .fails(&["pkg", "describe", "-l", "hello_2.0"])
            .contains("did you mean `hello_1.0`?")
    );
}

#[test]
fn loading_merges_the_packages_manifest() {
    let place = Place::new();
    local_package(&place, "hello_1.0");
    place.ok(&["pkg", "add", "hello_1.0", "--name", "hello_1.0"]);
    place.write("data.txt", "data");
    let words = [
        "pkg",
        "load",
        "-l",
        "hello_1.0",
        "-a",
        "data.txt",
        "-e",
        "B=2",
    ];
    let s = said(place.fake("exit 5", &words).output().unwrap());
    assert_eq!(s.code, 5, "{}", s.err);
    let env = place.ok(&["image", "env", "hello"]);
    assert!(env.contains("A: 1\n") && env.contains("B: 2\n"), "{env}");
    assert_eq!(
        place.ok(&["image", "cat", "hello", "/etc/hello.conf"]),
        "conf"
    );
    assert!(
        place
            .ok(&["image", "ls", "hello"])
            .lines()
            .any(|l| l == "hello")
    );
    // The second argument of all is the package's own, so this file is not copied.
    let error = place.fails(&["image", "cat", "hello", "/data.txt"]);
    assert!(error.contains("no such file"), "{error}");

    let words = ["pkg", "load", "-s", "-l", "hello_1.0", "-a", "again"];
    place.fake("exit 0", &words).output().unwrap();
    let record = place.record();
    assert!(
        record.contains(r#"PATCH {"arguments":["hello","--base","again"]}"#),
        "{record}"
    );
}

#[test]
fn the_catalogue() {
    let place = Place::new();
    let table = place.ok(&["pkg", "list"]);
    for word in [
        "NAMESPACE",
        "PACKAGENAME",
        "VERSION",
        "LANGUAGE",
        "CPU ARCH",
        "DESCRIPTION",
        "python",
        "busybox",
    ] {
        assert!(table.contains(word), "{word} in {table}");
    }
    let found: serde_json::Value =
        serde_json::from_str(&place.ok(&["pkg", "search", "PYTHON", "-j"])).unwrap();
    assert_eq!(found[0]["name"], "python");
    assert_eq!(
        place.ok(&["pkg", "search", "nothing-like-it", "-j"]),
        "[]\n"
    );
}

#[test]
fn a_recipe_is_made_the_same_twice() {
    let place = Place::new();
    let folder = place.ok(&["pkg", "get", "nanos/busybox:latest"]);
    let folder = std::path::PathBuf::from(folder.trim());
    let version = folder.file_name().unwrap().to_str().unwrap().to_string();
    assert!(folder.ends_with(format!(".ops/packages/amd64/nanos/{version}")));
    let state = || {
        let script = "find . -printf '%p %y %m %T@ %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum";
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = state();
    assert!(first.contains("./sysroot/usr/bin/busybox"), "{first}");
    assert!(!first.contains("usr/share/doc"), "{first}");
    assert!(
        place
            .ok(&["pkg", "describe", "busybox"])
            .contains("busybox-static")
    );
    // By its version too, and without making it again.
    place.ok(&["pkg", "get", &version]);
    let error = place.fails(&["pkg", "get", "busybox_9.9"]);
    assert!(error.contains("the distribution has version"), "{error}");
    place.ok(&["pkg", "delete", "busybox"]);
    assert!(!folder.exists());
    place.ok(&["pkg", "get", "busybox"]);
    assert_eq!(first, state());

    let s = said(
        place
            .fake("exit 0", &["pkg", "load", "busybox", "-a", "ls"])
            .output()
            .unwrap(),
    );
    assert_eq!(s.code, 0, "{}", s.err);
    let bytes = fs::read(place.path(".ops/images/busybox")).unwrap();
    place
        .fake("exit 0", &["pkg", "load", "busybox", "-a", "ls"])
        .output()
        .unwrap();
    assert!(bytes == fs::read(place.path(".ops/images/busybox")).unwrap());
}

#[test]
fn python_with_its_library_compiled() {
    let place = Place::new();
    place.write("server.py", "print('hello')\n");
    let s = said(
        place
            .fake("exit 0", &["pkg", "load", "python", "-a", "server.py"])
            .output()
            .unwrap(),
    );
    assert_eq!(s.code, 0, "{}", s.err);
    assert_eq!(s.out, "guest output\n");
    let listing = place.ok(&["image", "ls", "python3"]);
    let names: Vec<&str> = listing
        .lines()
        .map(|l| l.split(" -> ").next().unwrap())
        .collect();
    for name in [
        "dev",
        "etc",
        "lib",
        "lib64",
        "proc",
        "server.py",
        "sys",
        "usr",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let flat: Vec<String> =
        serde_json::from_str(&place.ok(&["image", "tree", "-j", "python3"])).unwrap();
    let has = |end: &str| flat.iter().any(|p| p.ends_with(end));
    assert!(has("/os.py") && has("/http/server.py") && has("/libssl.so.3"));
    assert!(flat.iter().any(|p| p.contains("/__pycache__/os.cpython-")));
    for unwanted in [
        "/usr/bin/dpkg",
        "/usr/bin/perl",
        "/usr/share/doc",
        "/usr/share/man",
    ] {
        assert!(!flat.iter().any(|p| p == unwanted), "{unwanted}");
    }
    let cache = flat
        .iter()
        .find(|p| p.contains("/__pycache__/os.cpython-"))
        .unwrap();
    place.ok(&["image", "cp", "python3", cache, "os.pyc"]);
    let pyc = fs::read(place.path("os.pyc")).unwrap();
    // PEP 552: hash-based and unchecked.
    assert_eq!(pyc[4..8], [1, 0, 0, 0]);
    // No trace of where it was made.
    let place_name = place.path("").to_string_lossy().into_owned();
    assert!(!String::from_utf8_lossy(&pyc).contains(place_name.trim_end_matches('/')));
}

#[test]
fn completion_and_version() {
    let place = Place::new();
    assert!(place.ok(&["version"]).starts_with("Ops version: "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            place.ok(&["completion", shell]).contains("skipbuild"),
            "{shell}"
        );
    }
    assert!(place.ok(&["profile"]).contains("Qemu version: "));
    assert!(place.path(".ops/profile").exists());
}
