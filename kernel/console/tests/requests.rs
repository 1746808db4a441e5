//! What each request answers, over sockets of the host.

mod common;

use common::{TOKEN, connect, start};
use console::Limits;
use serde_json::{Value, json};

#[test]
fn nothing_without_the_token() {
    let address = start(Limits::default(), false);
    let document = connect(address).get("/api/openapi.json").json();
    let mut asked = 0;
    let paths = document["paths"].as_object().unwrap();
    let known = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .keys()
            .map(move |method| (path.clone(), method.to_uppercase()))
    });
    for (path, method) in known.chain([
        ("/nothing".into(), "GET".into()),
        ("/".into(), "DELETE".into()),
    ]) {
        let path = path
            .replace("{path}", "log/level")
            .replace("{tid}", "1")
            .replace("{file}", "app.js");
        for line in [
            "",
            "Authorization: Bearer 0123456789abcdeF\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer 0123456789abcdef0\r\n",
            "Cookie: nanos_session=0123456789abcdef\r\n",
        ] {
            let mut client = connect(address);
            let body = "{\"token\":\"wrong\",\"action\":\"reboot\",\"value\":\"debug\"}";
            client.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: h\r\n{line}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            let reply = client.reply().unwrap();
            assert_eq!(reply.status, 401, "{method} {path} {line}: {reply:?}");
            assert_eq!(reply.json()["error"]["code"], "unauthorized");
            asked += 1;
        }
    }
    assert!(asked > 100);
    let level = connect(address).get("/api/store/log/level").json();
    assert_ne!(level["value"], "debug");
}

#[test]
fn a_session_begins_and_ends() {
    let address = start(Limits::default(), false);
    let mut client = connect(address);
    client.send(format!(
        "GET /login?token={TOKEN} HTTP/1.1\r\nHost: h:5\r\n\r\n"
    ));
    let reply = client.reply().unwrap();
    assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
    let cookie = reply
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_string();
    let mut ask = |method: &str, path: &str, more: &str| {
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: h:5\r\nCookie: {cookie}\r\n{more}\r\n"
        ));
        client.reply().unwrap()
    };
    let page = ask("GET", "/", "");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-encoding"), Some("gzip"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    let tag = page.header("etag").unwrap();
    assert_eq!(
        ask("GET", "/", &format!("If-None-Match: {tag}\r\n")).status,
        304
    );
    assert_eq!(ask("GET", "/", "Accept-Encoding: br\r\n").status, 406);
    assert_eq!(
        ask("GET", "/page/style.css", "Accept-Encoding: gzip, br\r\n").status,
        200
    );
    assert_eq!(
        ask("POST", "/api/logout", "Origin: http://evil\r\n").status,
        403
    );
    assert_eq!(
        ask("GET", "/healthz", "Origin: http://evil\r\n").status,
        200
    );
    assert_eq!(
        ask("GET", "/api/watch", "Origin: http://evil\r\n").json()["error"]["code"],
        "forbidden_origin"
    );
    assert_eq!(
        ask("POST", "/api/logout", "Origin: http://h:5\r\n").status,
        204
    );
    assert_eq!(ask("GET", "/healthz", "").status, 401);
    let mut client = connect(address);
    let body = json!({ "token": TOKEN }).to_string();
    client.send(format!(
        "POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(
        client
            .reply()
            .unwrap()
            .header("set-cookie")
            .unwrap()
            .starts_with("nanos_session=")
    );
}

#[test]
fn the_store_is_read_and_changed() {
    let address = start(Limits::default(), false);
    let mut client = connect(address);
    let root = client.get("/api/store").json();
    assert!(root["children"]["cpu"].get("children").is_none());
    let cpu = client.get("/api/store/cpu?depth=2").json();
    assert_eq!(cpu["children"]["0"]["children"]["user_ns"]["counter"], true);
    for (target, status) in [
        ("/api/store/none", 404),
        ("/api/store/cpu?depth=17", 400),
        ("/api/store/%", 400),
        ("/api/store?x=1", 400),
    ] {
        assert_eq!(client.get(target).status, status, "{target}");
    }
    let set = client.ask("PUT", "/api/store/limits/nofile", "", "{\"value\":99}");
    assert_eq!((set.status, &set.json()["value"]), (200, &json!(99)));
    for (path, body, status) in [
        ("/limits/nofile", "{\"value\":0}", 400),
        ("/limits/nofile", "{\"value\":\"x\"}", 400),
        ("/limits/nofile", "nonsense", 400),
        ("/cpu/count", "{\"value\":1}", 405),
        ("/none", "{\"value\":1}", 404),
    ] {
        let reply = client.ask("PUT", &format!("/api/store{path}"), "", body);
        assert_eq!(reply.status, status, "{path} {body}");
    }
    let both = |level: &str| {
        json!({"changes":[{"path":"/limits/nofile","value":7},{"path":"/log/level","value":level}]})
            .to_string()
    };
    assert_eq!(
        client.ask("PATCH", "/api/store", "", &both("loud")).status,
        400
    );
    assert_eq!(client.get("/api/store/limits/nofile").json()["value"], 99);
    assert_eq!(
        client.ask("PATCH", "/api/store", "", &both("warn")).json(),
        json!({"applied":2})
    );
    assert_eq!(client.get("/api/store/limits/nofile").json()["value"], 7);
    let schema = client.get("/api/schema").json();
    assert!(
        schema["children"]["log"]["children"]["level"]
            .get("value")
            .is_none()
    );
}

#[test]
fn a_read_only_console_changes_nothing() {
    let address = start(Limits::default(), true);
    let mut client = connect(address);
    for (method, path, body) in [
        ("PUT", "/api/store/limits/nofile", "{\"value\":5}"),
        ("PATCH", "/api/store", "{\"changes\":[]}"),
        ("POST", "/api/power", "{\"action\":\"reboot\"}"),
    ] {
        let mut client = connect(address);
        let reply = client.ask(method, path, "", body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (403, &json!("read_only"))
        );
    }
    for path in [
        "/api/trace?count=1",
        "/api/profile?seconds=1",
        "/api/capture?count=1",
        "/api/maps",
    ] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
}

#[test]
fn streams_end_where_they_are_to() {
    let address = start(Limits::default(), false);
    let mut client = connect(address);
    let trace = client.get("/api/trace?count=3&name=openat&min_us=");
    assert_eq!(trace.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = trace
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    for bad in [
        "count=0",
        "count=x",
        "seconds=-1",
        "seconds=90000",
        "min_us=1.5",
        "nam=read",
        "%zz",
    ] {
        assert_eq!(
            client.get(&format!("/api/trace?{bad}")).status,
            400,
            "{bad}"
        );
    }
    assert_eq!(client.get("/api/profile?format=svg").status, 400);
    assert_eq!(client.get("/api/capture?interface=en9").status, 404);
    assert!(
        client
            .get("/api/capture")
            .body
            .starts_with(&[0x0a, 0x0d, 0x0d, 0x0a])
    );
    assert_eq!(client.get("/api/core").body.len(), 64 << 20);
    // For HTTP/1.0 the end of the connection is the end of the answer.
    let mut old = connect(address);
    old.send(format!(
        "GET /api/log HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nConnection: keep-alive\r\n\r\n"
    ));
    let all = String::from_utf8(old.read_all()).unwrap();
    assert!(all.contains("Connection: close") && all.ends_with("}\n") && !all.contains("chunked"));
    let metrics = client.ask(
        "GET",
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
        "",
    );
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.text().ends_with("# EOF\n"));
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let address = start(Limits::default(), false);
    let mut client = connect(address);
    let line = format!("Host: h\r\nAuthorization: Bearer {TOKEN}\r\n");
    client.send(format!(
        "HEAD /healthz HTTP/1.1\r\n{line}\r\nPUT /api/store/limits/nofile HTTP/1.1\r\n{line}Transfer-Encoding: chunked\r\n\r\n\
         5\r\n{{\"val\r\n6\r\nue\":3}}\r\n0\r\n\r\nGET /nothing HTTP/1.1\r\n{line}\r\n\
         DELETE /api/store HTTP/1.1\r\n{line}\r\nGET /healthz HTTP/1.1\r\n{line}Connection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    ));
    let head = client.head().unwrap();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("15"))
    );
    assert_eq!(client.reply().unwrap().json()["value"], 3);
    assert_eq!(client.reply().unwrap().status, 404);
    let refused = client.reply().unwrap();
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD, PATCH"))
    );
    assert_eq!(client.reply().unwrap().text(), "{\"status\":\"ok\"}");
    assert!(client.read_all().is_empty());
    let mut waiting = connect(address);
    waiting.send(format!(
        "PUT /api/store/limits/nofile HTTP/1.1\r\n{line}Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"
    ));
    assert_eq!(waiting.head().unwrap().status, 100);
    waiting.send("{\"value\":8}");
    assert_eq!(waiting.reply().unwrap().json()["value"], 8);
}
