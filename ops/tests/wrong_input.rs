//! Wrong input of each kind: one clear line, exit code 1.

mod common;

use common::{Place, one_line, said};

#[test]
fn programs_that_are_none() {
    let place = Place::new();
    place.write("hello.py", "print(1)");
    place.executable("script.py", "#!/usr/bin/env python3\nprint(1)");
    place.write("text", "hello");
    for command in ["build", "run"] {
        let error = place.fails(&[command, "none"]);
        assert!(error.contains("there is no file none"), "{error}");
        let error = place.fails(&[command, "text"]);
        assert!(error.contains("text is not an ELF program"), "{error}");
        for script in ["hello.py", "script.py"] {
            let error = place.fails(&[command, script]);
            assert!(
                error.contains(&format!("ops pkg load python -a {script}")),
                "{error}"
            );
        }
    }
}

#[test]
fn another_architecture() {
    let place = Place::new();
    let mut bytes = std::fs::read(place.program("prog")).unwrap();
    bytes[18] = 183;
    place.executable("arm", bytes);
    let error = place.fails(&["build", "arm"]);
    assert!(error.contains("arm is a program for arm64"), "{error}");
    let error = place.fails(&["build", "prog", "--arch", "arm64"]);
    assert!(error.contains("arm64 is not supported"), "{error}");
    let error = place.fails(&["build", "prog", "--arch", "vax"]);
    assert!(error.contains("must be amd64 or arm64"), "{error}");
}

#[test]
fn a_missing_library() {
    let place = Place::new();
    place.write("l.c", "int f(void) { return 1; }");
    place.write("m.c", "int f(void); int main(void) { return f(); }");
    for words in [
        &["-shared", "-fPIC", "l.c", "-o", "libgone.so"][..],
        &["m.c", "-L.", "-lgone", "-o", "prog"],
    ] {
        let status = std::process::Command::new("cc")
            .current_dir(place.path(""))
            .args(words)
            .status();
        assert!(status.unwrap().success());
    }
    std::fs::remove_file(place.path("libgone.so")).unwrap();
    let error = place.fails(&["build", "prog"]);
    assert!(
        error.contains("prog needs the library libgone.so"),
        "{error}"
    );
    assert!(error.contains("/usr/lib/x86_64-linux-gnu"), "{error}");
}

#[test]
fn configuration_files() {
    let place = Place::new();
    place.program("prog");
    let config = |text: &str| {
        let path = place.write("my config/c.json", text);
        place.fails(&["build", "prog", "-c", path.to_str().unwrap()])
    };
    let error = config("{\n  \"Arsg\": []\n}");
    assert!(
        error.contains("c.json:2:3: key `Arsg`: unknown key, did you mean `Args`?"),
        "{error}"
    );
    let error = config("{\"Args\": [\"a\",}");
    assert!(error.contains("c.json:1:"), "{error}");
    let error = config("{\"Files\": [\"gone.txt\"]}");
    assert!(
        error.contains("Files: gone.txt") && error.contains("no such file"),
        "{error}"
    );
    let error = config("{\"CloudConfig\": {\"Platform\": \"aws\"}}");
    assert!(
        error.contains("target cloud `aws` is not supported"),
        "{error}"
    );
    let error = config("{\"RunConfig\": {\"IPAddress\": \"1.2.3\"}}");
    assert!(
        error.contains("en1.ipaddr") && error.contains("an IPv4 address"),
        "{error}"
    );
    let error = config("{\"BaseVolumeSz\": \"lots\"}");
    assert!(error.contains("BaseVolumeSz `lots`"), "{error}");
    let error = config("{\"NameServers\": [\"dns\"]}");
    assert!(error.contains("NameServers: `dns`"), "{error}");
    let error = place.fails(&["build", "prog", "-c", "none.json"]);
    assert!(error.contains("cannot read none.json"), "{error}");
}

#[test]
fn a_default_configuration_is_read_as_strictly() {
    let place = Place::new();
    place.program("prog");
    place.write(".opsrc", "{\"Nope\": 1}");
    let error = place.fails(&["build", "prog"]);
    assert!(error.contains(".opsrc:1:2: key `Nope`"), "{error}");
    let other = place.write("other.json", "{\"Env\": 1}");
    let output = place
        .ops(&["build", "prog"])
        .env("OPS_DEFAULT_CONFIG", other)
        .output();
    let error = one_line(said(output.unwrap()), &[]);
    assert!(error.contains("other.json:1:2: key `Env`"), "{error}");
}

#[test]
fn flags_of_what_is_not_there_fail() {
    let place = Place::new();
    place.program("prog");
    for words in [
        &["build", "prog", "-t", "gcp"][..],
        &["build", "prog", "--zone", "x"],
        &["build", "prog", "--type", "gen2"],
        &["build", "prog", "-4"],
        &["build", "prog", "--mounts", "a:/b"],
        &["build", "prog", "--nanos-version", "9.9"],
        &["run", "prog", "-n"],
        &["run", "prog", "-b"],
        &["run", "prog", "--bridgename", "br0"],
        &["image", "ls", "x", "--bootfs"],
        &["image", "list", "-t", "aws"],
        &["pkg", "list", "--nightly"],
    ] {
        let error = place.fails(words);
        assert!(error.contains("not supported"), "{words:?}: {error}");
    }
}

#[test]
fn wrong_values_of_flags() {
    let place = Place::new();
    place.program("prog");
    for (words, wanted) in [
        (&["run", "prog", "-p", "x"][..], "`x` is not a port"),
        (&["run", "prog", "-p", "70000"], "`70000` is not a port"),
        (&["run", "prog", "--udp", "0"], "`0` is not a port"),
        (&["run", "prog", "-m", "much"], "memory `much`"),
        (&["run", "prog", "--smp", "17"], "17 CPUs"),
        (&["run", "prog", "--machine", "pc"], "machine `pc`"),
        (&["run", "prog", "-e", "NOVALUE"], "NAME=value"),
        (
            &["run", "prog", "surplus"],
            "give arguments to the program with -a surplus",
        ),
        (&["build", "prog", "-i", ".."], "not a name for an image"),
        (&["run", "prog", "--kernel", "none"], "kernel none"),
        (&["run", "prog", "--kernel", "c/main.c"], "kernel c/main.c"),
    ] {
        let error = place.fails(words);
        assert!(error.contains(wanted), "{words:?}: {error}");
    }
}

#[test]
fn ports_in_use() {
    let place = Place::new();
    place.program("prog");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = place.fails(&["run", "prog", "-p", &port]);
    assert!(
        error.contains(&format!("tcp port {port} is in use")),
        "{error}"
    );
    let config = place.write(
        "c.json",
        format!("{{\"RunConfig\": {{\"Ports\": [\"{port}\"]}}}}"),
    );
    let error = place.fails(&["run", "prog", "-c", config.to_str().unwrap()]);
    assert!(error.contains("is in use"), "{error}");
}

#[test]
fn a_missing_qemu_says_how_to_get_it() {
    let place = Place::new();
    place.program("prog");
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = place.ops(&["run", "prog"]).env("PATH", empty).output();
    let error = one_line(said(output.unwrap()), &[]);
    assert!(
        error.contains("sudo apt-get install qemu-system-x86"),
        "{error}"
    );
}

#[test]
fn names_that_do_not_exist_suggest_near_ones() {
    let place = Place::new();
    let error = place.fails(&["pkg", "load", "pyhton"]);
    assert!(error.contains("did you mean `python`?"), "{error}");
    let error = place.fails(&["pkg", "load", "a/b/c"]);
    assert!(error.contains("is not a package name"), "{error}");
    let error = place.fails(&["pkg", "load", "-l", "mine"]);
    assert!(
        error.contains("there is no local package `mine`"),
        "{error}"
    );
    place.program("server");
    place.ok(&["build", "server"]);
    for words in [&["image", "ls", "sever"][..], &["image", "delete", "sever"]] {
        let error = place.fails(words);
        assert!(error.contains("did you mean `server`?"), "{error}");
    }
    let error = place.fails(&["image", "cat", "server", "/none"]);
    assert!(
        error.contains("/none in the image: no such file"),
        "{error}"
    );
    let error = place.fails(&["image", "cat", "server", "/etc"]);
    assert!(error.contains("/etc is a folder"), "{error}");
}

#[test]
fn images_that_are_none() {
    let place = Place::new();
    place.write(".ops/images/junk", "hello");
    place.write(".ops/images/zeros", vec![0; 1 << 20]);
    for (name, wanted) in [
        ("junk", "too short"),
        ("zeros", "not an image of this tool"),
    ] {
        let error = place.fails(&["image", "ls", name]);
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn unknown_flags_and_commands() {
    let place = Place::new();
    for words in [
        &["frobnicate"][..],
        &["run"],
        &["run", "x", "--nope"],
        &["image"],
    ] {
        assert_eq!(place.run(words).code, 1, "{words:?}");
    }
    assert_eq!(place.run(&["--help"]).code, 0);
    assert!(place.ok(&["run", "--help"]).contains("--skipbuild"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.ops(&["version"]).stdout(writer).output().unwrap();
    // As the shell reports of a program that SIGPIPE ends.
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{output:?}");
}
