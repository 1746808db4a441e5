//! The console over TLS, as curl and OpenSSL meet it, and without TLS on a way in that the host does not forward.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::{Ops, RUN_LIMIT, Running, free_port, programs};
use serde_json::{Value, json};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Makes a key of that kind and a certificate for `localhost`.
fn certificate(folder: &Path, kind: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "30", "-subj"])
        .args(["/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-newkey")
        .args(kind)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("openssl: `cargo xtask test` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok((certificate, key))
}

/// A machine whose console listens on port 9090 of its own, and that port of the host.
fn start(ops: &Ops, manifest: &Value, more: &Value) -> Result<(Running, u16)> {
    let program = programs::c("told", &["-static"])?;
    let program = program.to_str().context("a path in UTF-8")?;
    let mut config = json!({ "ManifestPassthrough": manifest });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    ops.write("config.json", &config.to_string())?;
    let port = free_port()?;
    let forward = format!("{port}-9090");
    let mut running = ops.start(&["run", "-c", "config.json", "-p", &forward, program])?;
    running.wait_for("greeting=none", RUN_LIMIT)?;
    Ok((running, port))
}

/// What curl answered: its exit code and what it printed.
fn curl(arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(arguments)
        .output()
        .context("curl: `cargo xtask test` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Ok((code, text + &String::from_utf8_lossy(&output.stderr)))
}

/// What `openssl s_client` says of one connection.
fn s_client(port: u16, arguments: &[&str]) -> Result<String> {
    let output = Command::new("timeout")
        .args(["30", "openssl", "s_client", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text + &String::from_utf8_lossy(&output.stderr))
}

/// Takes one connection in the clear and passes it on through TLS.
struct Tunnel {
    address: SocketAddr,
    openssl: Child,
}

impl Tunnel {
    fn new(port: u16, authority: &Path) -> Result<Tunnel> {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-CAfile"])
            .arg(authority)
            .args(["-servername", "localhost", "-connect"])
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut to = openssl.stdin.take().context("it is piped")?;
        let mut from = openssl.stdout.take().context("it is piped")?;
        std::thread::spawn(move || -> Result<()> {
            let (stream, _) = listener.accept()?;
            let mut back = stream.try_clone()?;
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            let mut stream = stream;
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => to.write_all(&buffer[..count])?,
                }
            }
        });
        Ok(Tunnel { address, openssl })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

#[test]
fn curl_and_openssl_meet_the_console_over_tls() -> Result<()> {
    let ops = Ops::new()?;
    let (authority, key) =
        certificate(ops.folder(), &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    let console = json!({"port": 9090, "token": TOKEN, "certificate": "/tls/cert.pem", "key": "/tls/key.pem"});
    let files = json!({"MapDirs": {"*.pem": "/tls"}});
    let (_running, port) = start(&ops, &json!({ "console": console }), &files)?;
    ensure!(key.exists());
    let authority = authority.to_str().context("a path in UTF-8")?;
    let url = format!("https://localhost:{port}/healthz");
    let at = format!("localhost:{port}:127.0.0.1");
    let verified = ["--cacert", authority, "--resolve", &at];

    // Two requests over one connection, whose certificate is verified.
    let count = ["-w", " connects=%{num_connects}\n", &url, &url];
    let (code, said) = curl(&[&verified[..], &count].concat())?;
    let expected = "{\"status\":\"ok\"} connects=1\n{\"status\":\"ok\"} connects=0\n";
    ensure!(code == 0 && said == expected, "{code}: {said}");
    // An answer of many records.
    let schema = format!("https://localhost:{port}/api/schema");
    let (code, said) = curl(&[&verified[..], &[&schema]].concat())?;
    ensure!(
        code == 0 && said.len() > 40_000,
        "{code}: {} bytes",
        said.len()
    );
    ensure!(serde_json::from_str::<Value>(&said).is_ok(), "{said}");
    // The cookie is for TLS only.
    let login = format!("https://localhost:{port}/login?token={TOKEN}");
    let (_, said) = curl(&[&verified[..], &["-i", &login]].concat())?;
    ensure!(said.contains("; Secure"), "{said}");
    // Nobody vouches for it without the certificate (curl's exit code 60).
    let (code, said) = curl(&["--resolve", &at, &url])?;
    ensure!(code == 60, "{code}: {said}");
    // A name that the certificate has not: the client decides.
    let other = format!("https://other.example:{port}/healthz");
    let at_other = format!("other.example:{port}:127.0.0.1");
    let (code, said) = curl(&["--cacert", authority, "--resolve", &at_other, &other])?;
    ensure!(code == 60, "{code}: {said}");
    let (code, said) = curl(&["-k", "--resolve", &at_other, &other])?;
    ensure!(code == 0 && said == "{\"status\":\"ok\"}", "{code}: {said}");

    let said = s_client(port, &["-tls1_3", "-CAfile", authority])?;
    ensure!(
        said.contains("TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256")
            && said.contains("Verify return code: 0 (ok)"),
        "{said}"
    );
    let said = s_client(port, &["-tls1_2"])?;
    ensure!(
        said.contains("protocol version") && said.contains("(NONE)"),
        "{said}"
    );

    // HTTP in the clear gets an alert (RFC 8446 section 6) and nothing else.
    let mut plain = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    plain.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        plain,
        "GET /healthz HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    // What was sent and not read may reset the connection behind the alert.
    let _ = plain.read_to_end(&mut answer);
    ensure!(
        answer.len() <= 16 && answer.first().is_none_or(|kind| *kind == 21),
        "{answer:?}"
    );

    // A WebSocket inside.
    let tunnel = Tunnel::new(port, Path::new(authority))?;
    let mut watching = Client::watch(tunnel.address, TOKEN);
    watching.say(r#"{"op":"subscribe","id":1,"path":"/time/uptime","depth":0,"period_ms":200}"#);
    let uptime = |message: &Value| message["values"]["/time/uptime"].as_u64();
    let (first, second) = (watching.hear_json(), watching.hear_json());
    ensure!(
        uptime(&first).is_some() && uptime(&first) < uptime(&second),
        "{first} {second}"
    );
    Ok(())
}

#[test]
fn a_key_may_be_ed25519_in_the_manifest_and_one_of_rsa_is_refused() -> Result<()> {
    let ops = Ops::new()?;
    let console = |kind: &[&str]| -> Result<Value> {
        let (certificate, key) = certificate(ops.folder(), kind)?;
        let (certificate, key) = (
            std::fs::read_to_string(certificate)?,
            std::fs::read_to_string(key)?,
        );
        Ok(
            json!({"console": {"port": 9090, "token": TOKEN, "certificate": certificate, "key": key}}),
        )
    };
    let (running, port) = start(&ops, &console(&["ed25519"])?, &json!({}))?;
    let authority = ops.folder().join("cert.pem");
    let authority = authority.to_str().context("a path in UTF-8")?;
    let at = format!("localhost:{port}:127.0.0.1");
    let url = format!("https://localhost:{port}/api/store/manifest/console/key");
    let (code, said) = curl(&["--cacert", authority, "--resolve", &at, &url])?;
    ensure!(
        code == 0 && said.contains("<hidden>") && !said.contains("PRIVATE"),
        "{code}: {said}"
    );
    drop(running);

    // Nothing is served, not even without TLS, and the program runs all the same.
    let (running, port) = start(&ops, &console(&["rsa:2048"])?, &json!({}))?;
    let answer = answer_of(port)?;
    ensure!(answer.is_empty(), "{answer}");
    running.signal("TERM")?;
    let output = running.wait(RUN_LIMIT)?;
    let said = output.stdout + &output.stderr;
    ensure!(said.contains("neither ECDSA P-256 nor Ed25519"), "{said}");
    Ok(())
}

/// What a request in the clear is answered; nothing if the connection is refused or reset.
fn answer_of(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!(
        "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn without_tls_only_the_gateway_is_served_unless_insecure() -> Result<()> {
    let ops = Ops::new()?;
    // QEMU forwards from 10.0.2.2, which is not the gateway here: it is one of the network's other machines.
    let manifest = |insecure: bool| {
        json!({
            "console": {"port": 9090, "token": TOKEN, "insecure": insecure},
            "en1": {"ipaddr": "10.0.2.15", "netmask": "255.255.255.0", "gateway": "10.0.2.99"}
        })
    };
    let (running, port) = start(&ops, &manifest(false), &json!({}))?;
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let answer = answer_of(port)?;
        ensure!(answer.is_empty(), "{answer}");
        std::thread::sleep(Duration::from_millis(500));
    }
    running.signal("TERM")?;
    let output = running.wait(RUN_LIMIT)?;
    let said = output.stdout + &output.stderr;
    ensure!(said.contains("the console refused 10.0.2.2"), "{said}");

    let (running, port) = start(&ops, &manifest(true), &json!({}))?;
    let end = Instant::now() + RUN_LIMIT;
    let answer = loop {
        let answer = answer_of(port)?;
        if !answer.is_empty() || Instant::now() > end {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    ensure!(answer.contains("{\"status\":\"ok\"}"), "{answer}");
    running.signal("TERM")?;
    let output = running.wait(RUN_LIMIT)?;
    let said = output.stdout + &output.stderr;
    ensure!(said.contains("the console is insecure"), "{said}");
    Ok(())
}
