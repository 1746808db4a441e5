//! Tests of reading and merging as a whole.

use alloc::string::{String, ToString};
use alloc::vec;
use core::net::Ipv4Addr;

use super::*;

fn read(text: &str) -> Result<Manifest, Error> {
    Manifest::from_json(text.as_bytes())
}

fn message(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn defaults() {
    let m = read(r#"{"program":"/bin/x"}"#).unwrap();
    assert_eq!(m.arguments, ["/bin/x"]);
    assert_eq!(m.cwd, "/");
    assert!(m.transparent_hugepage && !m.noaslr && m.interfaces.is_empty());
    assert_eq!(m.netconsole, NetConsole::default());
    assert_eq!(m.coredumplimit, 0);
    assert!(m.expected_exit_code.is_none() && m.unknown.is_empty());
}

#[test]
fn everything() {
    let m = read(
        r#"{"program":"/p","arguments":["p","-x",3],"environment":{"A":"b=c","N":1},"cwd":"/w",
        "mounts":{"data":"/d:ro","%2":"/e","0fc63daf-8483-4772-8e79-3d69d8477de4":"/u"},
        "ipaddr":"10.0.0.2","netmask":"255.255.0.0","en1":{"gateway":"10.0.0.1","mtu":"1400"},
        "en2":{"ip6addr":"fd00::2/48","default":"t","exec_wait_for_ip4_secs":0,"io-queues":2},
        "expected_exit_code":["3","!7"],"reboot_on_exit":"t","idle_on_exit":"*","debug_exit":true,
        "noaslr":"t","exec_protection":"f","coredumplimit":"64m","uname":{"release":"6.1"},
        "log_level":"warn","trace":"t","notrace":"read,%net","tracelist":["open"],"consoles":["+net","-vga","serial"],
        "hostname":"h","nameservers":["1.1.1.1","::1"],"transparent_hugepage":"never","mmap_min_addr":"0x1000",
        "so_rcvbuf":"1m","klib_test":"t"}"#,
    )
    .unwrap();
    assert_eq!(m.arguments, ["p", "-x", "3"]);
    assert_eq!(m.environment["A"], "b=c");
    assert_eq!(m.environment["N"], "1");
    assert_eq!(m.mounts[0].source, MountSource::Attachment(2));
    assert!(matches!(m.mounts[1].source, MountSource::Uuid(u) if u[..2] == [0x0f, 0xc6]));
    assert_eq!(m.mounts[2].source, MountSource::Label("data".into()));
    assert!(m.mounts[2].read_only && m.mounts[2].target == "/d");
    let en1 = &m.interfaces[&1];
    assert_eq!(en1.ipaddr, Some(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(en1.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(en1.mtu, Some(1400));
    let en2 = &m.interfaces[&2];
    assert_eq!(en2.ip6addr.unwrap().1, 48);
    assert!(en2.default && en2.exec_wait_for_ip4_secs == Some(5));
    let expected = m.expected_exit_code.unwrap();
    assert!(expected.contains(3) && expected.contains(0) && !expected.contains(7));
    assert!(m.reboot_on_exit.as_ref().unwrap().contains(1));
    assert!(!m.reboot_on_exit.unwrap().contains(0));
    assert!(m.idle_on_exit.unwrap().contains(99));
    assert!(m.debug_exit && m.noaslr && !m.exec_protection && !m.transparent_hugepage);
    assert_eq!(m.coredumplimit, 64 << 20);
    assert_eq!(m.log_level, Some(LogLevel::Warn));
    assert_eq!(m.tracing.tags, ["all"]);
    assert_eq!(m.tracing.notrace, ["read", "%net"]);
    assert_eq!(
        m.consoles[1],
        Console {
            name: "vga".into(),
            on: false
        }
    );
    assert!(m.consoles[2].on);
    assert_eq!(m.nameservers.len(), 2);
    assert_eq!(m.mmap_min_addr, Some(4096));
    assert_eq!(m.unknown.keys().collect::<vec::Vec<_>>(), ["klib_test"]);
    assert_eq!(m.tree["hostname"], "h");
}

#[test]
fn arguments_as_an_old_tuple() {
    let m = read(r#"{"program":"/p","arguments":{"1":"b","0":"a"}}"#).unwrap();
    assert_eq!(m.arguments, ["a", "b"]);
    assert!(message(r#"{"program":"/p","arguments":{"1":"b"}}"#).contains("expected an array"));
}

#[test]
fn errors_say_where() {
    assert_eq!(
        message("{}"),
        "line 1, column 1, key `program`: the key is missing"
    );
    assert_eq!(
        message("{\n \"program\": \"/p\",\n  \"en1\": {\"mtu\": \"abc\"}}"),
        "line 3, column 11, key `en1.mtu`: expected a whole number from 68 to 65535, found \"abc\""
    );
    assert_eq!(
        message("{\"program\":\"/p\",\n\"arguments\":[\"a\", [1]]}"),
        "line 2, column 19, key `arguments[1]`: expected a string, found an array"
    );
    assert!(message("{\"program\":\n \"/p\",,}").starts_with("line 2, column 7: "));
    assert!(message("[]").contains("expected an object"));
    for bad in [
        r#""program":"x""#,
        r#""cwd":"tmp""#,
        r#""noaslr":"maybe""#,
        r#""environment":["A=b"]"#,
        r#""environment":{"A":{}}"#,
        r#""mounts":{"a":"b"}"#,
        r#""mounts":{"%x":"/b"}"#,
        r#""en1":{"ipaddr":"300.1.1.1"}"#,
        r#""en1":{"netmask":"255.0.255.0"}"#,
        r#""en1":{"ip6addr":"::1/200"}"#,
        r#""en1":7"#,
        r#""expected_exit_code":"x""#,
        r#""coredumplimit":"12q""#,
        r#""log_level":"loud""#,
        r#""nameservers":["dns"]"#,
        r#""uname":{"release":{}}"#,
        r#""netconsole_port":0"#,
        r#""console":true"#,
        r#""console":{}"#,
        r#""console":{"port":80}"#,
        r#""console":{"token":"0123456789abcdef"}"#,
        r#""console":{"port":0,"token":"0123456789abcdef"}"#,
        r#""console":{"port":80,"token":"0123456789abcde"}"#,
        r#""console":{"port":80,"token":"0123456789 bcdef"}"#,
        r#""console":{"port":80,"token":"0123456789abcdef","readonly":true}"#,
        r#""console":{"port":80,"token":"0123456789abcdef","read_only":"maybe"}"#,
        r#""console":{"port":80,"token":"0123456789abcdef","address":"en1"}"#,
        r#""console":{"port":80,"token":"0123456789abcdef","key":"k"}"#,
    ] {
        let text = alloc::format!("{{\"program\":\"/p\",{bad}}}");
        // A second `program` replaces the first, so that entry is tested like the others.
        assert!(read(&text).is_err(), "{bad}");
    }
}

#[test]
fn layers_merge_in_order() {
    let disk = br#"{"program":"/p","arguments":["p","a"],"environment":{"A":"1","B":"2"},"noaslr":"t","hostname":"disk"}"#;
    let patch = br#"{"environment":{"A":"9","B":null},"noaslr":null,"hostname":"fw"}"#;
    let m = parse_layers(
        disk,
        Some(patch),
        "virtio_mmio.device=512@0xfeb00e00:12 quiet en1.ipaddr=10.1.1.1 environment.X.Y=\"a b\" arguments.1=z arguments.2=w hostname=cmd",
    )
    .unwrap();
    assert_eq!(m.arguments, ["p", "z", "w"]);
    assert_eq!(m.environment["A"], "9");
    assert!(!m.environment.contains_key("B") && !m.noaslr);
    assert_eq!(m.environment["X.Y"], "a b");
    assert_eq!(m.interfaces[&1].ipaddr, Some(Ipv4Addr::new(10, 1, 1, 1)));
    assert_eq!(m.hostname.as_deref(), Some("cmd"));
    assert!(m.unknown.is_empty());
}

#[test]
fn the_console_may_come_in_layers() {
    let disk = br#"{"program":"/p","console":{"port":80,"interface":"en1","certificate":"/c","key":"/k"}}"#;
    let patch = br#"{"console":{"token":"0123456789abcdef","read_only":true}}"#;
    let m = parse_layers(disk, Some(patch), "console.port=81").unwrap();
    let console = m.console.unwrap();
    assert_eq!((console.port, &*console.token), (81, "0123456789abcdef"));
    assert!(console.read_only && !console.insecure);
    assert_eq!(console.tls, Some(("/c".into(), "/k".into())));
    assert_eq!(console.interface.as_deref(), Some("en1"));
    assert!(!alloc::format!("{console:?}").contains("0123456789abcdef"));
    let e = parse_layers(disk, None, "").unwrap_err().to_string();
    assert!(e.contains("console.token") && e.contains("missing"), "{e}");
    let m = parse_layers(disk, Some(br#"{"console":null}"#), "").unwrap();
    assert_eq!(m.console, None);
    let secret = message(r#"{"program":"/p","console":{"port":1,"token":"hush hush hush hush"}}"#);
    assert!(!secret.contains("hush"), "{secret}");
}

#[test]
fn an_error_names_its_layer() {
    let disk = br#"{"program":"/p"}"#;
    let text = |r: Result<Manifest, Error>| r.unwrap_err().to_string();
    assert!(text(parse_layers(b"{", None, "")).starts_with("manifest on the disk, line 1"));
    let e = text(parse_layers(disk, Some(b"{\"en1\":{\"mtu\":1}}"), ""));
    assert!(
        e.starts_with("manifest from fw_cfg, line 1, column 9, key `en1.mtu`"),
        "{e}"
    );
    let e = text(parse_layers(disk, None, "en1.mtu=1"));
    assert!(e.starts_with("kernel command line, key `en1.mtu`"), "{e}");
    let e = text(parse_layers(
        br#"{"program":"/p","arguments":["p"]}"#,
        None,
        "arguments.7=x",
    ));
    assert!(e.contains("only 1 elements"), "{e}");
}

#[test]
fn merge_patch_as_in_the_rfc() {
    // The examples of RFC 7396, appendix A.
    for (original, patch, result) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":{"b":"d","c":null}}"#,
            r#"{"a":{"b":"d"}}"#,
        ),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ] {
        let mut value = json::parse(original.as_bytes()).unwrap();
        json::merge_patch(&mut value, json::parse(patch.as_bytes()).unwrap());
        assert_eq!(
            value,
            json::parse(result.as_bytes()).unwrap(),
            "{original} + {patch}"
        );
    }
}

#[test]
fn locating_keys() {
    let text = br#"{"a": {"x\"]": [1, {"Key": true}]},
  "b": [[], {}, "s,t", null], "c": 1}"#;
    assert_eq!(json::locate(text, "c", false), Some((2, 31)));
    assert_eq!(json::locate(text, "b[2]", false), Some((2, 17)));
    assert_eq!(json::locate(text, "B[3]", true), Some((2, 24)));
    assert_eq!(json::locate(text, "", false), Some((1, 1)));
    assert_eq!(json::locate(text, "zzz", false), Some((1, 1)));
    assert_eq!(json::locate(b"{\"a\":", "b", false), None);
    assert_eq!(json::locate(b"{\"a\": \"", "b", false), None);
}

#[test]
fn nesting_is_bounded() {
    let deep = |n: usize| alloc::format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(json::parse(deep(json::MAX_DEPTH).as_bytes()).is_ok());
    let e = json::parse(deep(100_000).as_bytes()).unwrap_err();
    assert_eq!(e.position, Some((1, json::MAX_DEPTH + 1)));
    assert!(json::parse(br#"["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[[["]"#).is_ok());
    assert!(parse_overrides(&alloc::format!("{}=1", "a.".repeat(5000))).is_empty());
    assert!(parse_overrides("a.b.c.d.e.f.g.h.i=1").is_empty());
}

#[test]
fn sizes() {
    assert_eq!(parse_size("2G"), Some(2 << 30));
    assert_eq!(parse_size("512k"), Some(512 << 10));
    assert_eq!(parse_size("7"), Some(7));
    for bad in ["", "k", "1kb", "-1", "1.5g", "99999999999t", "１k"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    // Every truncation and every one-byte change of a manifest must give a value or an error.
    let text = br#"{"program":"/p","arguments":["a\u0041"],"en1":{"mtu":1400},"x":[1,{"y":null}]}"#;
    for end in 0..text.len() {
        let _ = parse_layers(&text[..end], Some(text), "a.b=c");
        let _ = json::locate(&text[..end], "x[1].y", true);
    }
    for at in 0..text.len() {
        for byte in [0, b'"', b'{', b']', b'\\', 0xff] {
            let mut copy = text.to_vec();
            copy[at] = byte;
            let _ = Manifest::from_json(&copy);
            let _ = json::locate(&copy, "x[1].y", true);
        }
    }
}
