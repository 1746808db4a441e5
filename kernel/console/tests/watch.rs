//! The WebSocket: subscriptions, deltas, announcements, and clients that break the rules.

mod common;

use common::fuzz::Seed;
use common::{Client, TOKEN, connect, start, watch};
use console::Limits;
use serde_json::json;

#[test]
fn values_come_whole_and_then_as_deltas() {
    let address = start(Limits::default(), false);
    let mut client = watch(address);
    client.say("{\"op\":\"subscribe\",\"id\":1,\"path\":\"/time\",\"depth\":1,\"period_ms\":100}");
    let first = client.hear_json();
    assert_eq!((&first["id"], &first["full"]), (&json!(1), &json!(true)));
    assert_eq!(first["values"]["/time/clock_source"], "tsc");
    let second = client.hear_json();
    assert_eq!(second["full"], false);
    assert!(second["time_ms"].as_u64() >= first["time_ms"].as_u64());
    let values = second["values"].as_object().unwrap();
    assert!(values.contains_key("/time/uptime") && !values.contains_key("/time/clock_source"));
    client.say("{\"op\":\"unsubscribe\",\"id\":1}");
    client.say(
        "{\"op\":\"subscribe\",\"id\":2,\"path\":\"/limits/nofile\",\"depth\":0,\"on\":\"change\"}",
    );
    let full = loop {
        let message = client.hear_json();
        if message["id"] == 2 {
            break message;
        }
    };
    assert_eq!(full["full"], true);
    let was = full["values"]["/limits/nofile"].as_i64().unwrap();
    let mut other = connect(address);
    let body = json!({ "value": was % 1000 + 1 }).to_string();
    assert_eq!(
        other
            .ask("PUT", "/api/store/limits/nofile", "", &body)
            .status,
        200
    );
    let event = client.hear_json();
    assert_eq!(
        (&event["event"], &event["path"]),
        (&json!("changed"), &json!("/limits/nofile"))
    );
    assert!(
        event["by"]
            .as_str()
            .unwrap()
            .starts_with("console 127.0.0.1:")
    );
    let delta = client.hear_json();
    assert_eq!(delta["values"]["/limits/nofile"], was % 1000 + 1);
    client.frame(0x89, b"hello");
    assert_eq!(client.hear(), Some((0x8a, b"hello".to_vec())));
    client.frame(0x88, &1000_u16.to_be_bytes());
    assert_eq!(client.hear(), Some((0x88, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(client.hear(), None);
}

#[test]
fn wrong_requests_get_an_error_and_no_more() {
    let address = start(Limits::default(), false);
    let mut client = watch(address);
    for (text, code) in [
        ("nonsense", "invalid"),
        ("[]", "invalid"),
        ("{\"op\":\"subscribe\"}", "invalid"),
        ("{\"op\":\"dance\",\"id\":1}", "invalid"),
        ("{\"op\":\"subscribe\",\"id\":1}", "invalid"),
        (
            "{\"op\":\"subscribe\",\"id\":1,\"path\":\"x\"}",
            "not_found",
        ),
        (
            "{\"op\":\"subscribe\",\"id\":1,\"path\":\"/none\"}",
            "not_found",
        ),
        (
            "{\"op\":\"subscribe\",\"id\":1,\"path\":\"/cpu\",\"depth\":17}",
            "invalid",
        ),
        (
            "{\"op\":\"subscribe\",\"id\":1,\"path\":\"/cpu\",\"period_ms\":1}",
            "invalid",
        ),
        (
            "{\"op\":\"subscribe\",\"id\":1,\"path\":\"/cpu\",\"on\":\"fire\"}",
            "invalid",
        ),
    ] {
        client.say(text);
        assert_eq!(client.hear_json()["error"]["code"], code, "{text}");
    }
    for id in 0..65 {
        client.say(&format!(
            "{{\"op\":\"subscribe\",\"id\":{id},\"path\":\"/cpu/count\",\"depth\":0,\"period_ms\":3600000}}"
        ));
        let answer = client.hear_json();
        assert_eq!(answer.get("error").is_some(), id == 64, "{answer}");
    }
    client.frame(0x82, b"bytes");
    assert_eq!(client.hear(), Some((0x88, 1003_u16.to_be_bytes().to_vec())));
}

#[test]
fn who_does_not_read_is_dropped_and_disturbs_nobody() {
    let address = start(Limits::default(), false);
    let mut deaf = watch(address);
    for id in 0..60 {
        deaf.say(&format!(
            "{{\"op\":\"subscribe\",\"id\":{id},\"path\":\"/\",\"depth\":9,\"period_ms\":100}}"
        ));
    }
    let mut client = watch(address);
    client.say("{\"op\":\"subscribe\",\"id\":1,\"path\":\"/time\",\"period_ms\":100}");
    for _ in 0..10 {
        assert_eq!(client.hear_json()["id"], 1);
    }
}

#[test]
fn any_frames_leave_the_console_alive() {
    let address = start(Limits::default(), false);
    let mut seed = Seed(0x1234_5678_9abc_def1);
    for _ in 0..60 {
        let mut client = watch(address);
        let length = seed.below(300);
        let mut bytes: Vec<u8> = (0..length).map(|_| seed.below(256) as u8).collect();
        // Half of them begin as a frame should, so that more than the first check is tried.
        if length > 2 && seed.below(2) == 0 {
            bytes[0] = seed
                .pick(&[&0x81_u8, &0x01, &0x80, &0x89, &0x88])
                .to_owned();
            bytes[1] |= 0x80;
        }
        client.send(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        client.read_all();
    }
    assert_eq!(connect(address).get("/healthz").status, 200);
}

#[test]
fn a_websocket_ends_with_its_session() {
    let address = start(Limits::default(), false);
    let token = format!("{{\"token\":\"{TOKEN}\"}}");
    let reply = connect(address).ask("POST", "/api/login", "", &token);
    let cookie = reply
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let mut watching = Client::new(address, "");
    watching.send(format!(
        "GET /api/watch HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert_eq!(watching.head().unwrap().status, 101);
    watching.say(r#"{"op":"subscribe","id":1,"path":"/log/level","depth":0,"on":"change"}"#);
    assert_eq!(watching.hear_json()["full"], true);
    let mut leaving = Client::new(address, "");
    leaving.send(format!(
        "POST /api/logout HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\n\r\n"
    ));
    assert_eq!(leaving.reply().unwrap().status, 204);
    // A policy violation (RFC 6455 section 7.4.1), at once: not when the next ping is due.
    let (first, payload) = watching.hear().unwrap();
    assert_eq!((first, &payload[..]), (0x88, &1008u16.to_be_bytes()[..]));
}
