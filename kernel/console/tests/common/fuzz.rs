//! Requests made of what `/api/openapi.json` says: such that fit its schemas and such that do not. The answers must be of
//! the kinds that it names. The end-to-end tests use it as well, against a booted kernel.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Client, Reply};

/// Numbers that look random and are the same each time.
pub struct Seed(pub u64);

impl Seed {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// A fuzzer of one console.
pub struct Fuzz {
    address: SocketAddr,
    token: String,
    seed: Seed,
    /// What stands for a path of the store, besides what is none.
    pub paths: Vec<String>,
    /// Whether the machine may be asked to end.
    pub power: bool,
}

impl Fuzz {
    pub fn new(address: SocketAddr, token: &str, seed: u64) -> Fuzz {
        let paths = [
            "cpu",
            "log/level",
            "limits/nofile",
            "cpu/0/user_ns",
            "cpu/count",
        ];
        Fuzz {
            address,
            token: token.into(),
            seed: Seed(seed),
            paths: paths.map(String::from).to_vec(),
            power: true,
        }
    }

    /// Makes each request of the document `rounds` times; gives the statuses that came.
    pub fn run(&mut self, rounds: usize) -> BTreeSet<u16> {
        let document = Client::new(self.address, &self.token)
            .get("/api/openapi.json")
            .json();
        let mut seen = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for _ in 0..rounds {
                    seen.insert(self.request(path, &method.to_uppercase(), operation));
                }
            }
        }
        seen
    }

    fn request(&mut self, path: &str, method: &str, operation: &Value) -> u16 {
        let mut target = path.to_owned();
        let mut query = Vec::new();
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "path" {
                target = target.replace(&format!("{{{name}}}"), &self.path());
            } else if self.seed.below(2) == 0 {
                query.push(format!("{name}={}", self.parameter(&parameter["schema"])));
            }
        }
        if self.seed.below(8) == 0 {
            query.push("extra=1".into());
        }
        let body = match operation.get("requestBody") {
            Some(body) => self.body(&body["content"]["application/json"]["schema"]),
            None => String::new(),
        };
        let mut client = Client::new(self.address, &self.token);
        client.send(format!(
            "{method} {target}?{} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            query.join("&"),
            self.token,
            body.len()
        ));
        let asked = format!("{method} {target} {query:?} {body}");
        let reply = client
            .head()
            .unwrap_or_else(|| panic!("no answer to {asked}"));
        check(operation, reply, &mut client, &asked)
    }

    fn path(&mut self) -> String {
        let none = [
            "1",
            "app.js",
            "%2e%2e",
            "%00",
            "%ff",
            "a%2Fb",
            "..",
            "99999999999999999999",
            "-1",
            "x",
        ];
        match self.seed.below(2) {
            0 => self.seed.pick(&none).into(),
            _ => self.paths[self.seed.below(self.paths.len())].clone(),
        }
    }

    fn parameter(&mut self, schema: &Value) -> String {
        let mut values: Vec<String> = [
            "",
            "0",
            "1",
            "7",
            "-1",
            "x",
            "1e9",
            "%ff",
            "%20",
            "nan",
            "18446744073709551616",
            "read,write",
            "en1",
            "tcp+port+80",
            "info",
            "ENOENT",
        ]
        .map(String::from)
        .to_vec();
        values.push(self.token.clone());
        for bound in ["minimum", "maximum"] {
            values.extend(schema.get(bound).map(Value::to_string));
        }
        let words = schema.get("enum").and_then(Value::as_array);
        values.extend(
            words
                .into_iter()
                .flatten()
                .filter_map(|word| word.as_str().map(String::from)),
        );
        values.swap_remove(self.seed.below(values.len()))
    }

    fn leaf(&mut self) -> String {
        let mut values = vec![
            "1",
            "null",
            "\"debug\"",
            "true",
            "[]",
            "{}",
            "1e999",
            "\"\\ud800\"",
            "-5",
            "\"0123456789abcdef\"",
        ];
        if self.power {
            values.push("\"reboot\"");
        }
        self.seed.pick(&values).into()
    }

    fn body(&mut self, schema: &Value) -> String {
        match self.seed.below(6) {
            0 => self
                .seed
                .pick(&["", "nonsense", "[]", "{}", "\"x\"", "{\"value\":", "null"])
                .into(),
            1 => "[".repeat(5000),
            _ => {
                let mut members = Vec::new();
                for name in schema["properties"].as_object().unwrap().keys() {
                    let value = match name.as_str() {
                        "changes" => {
                            let path = self.path();
                            format!("[{{\"path\":\"/{path}\",\"value\":{}}}]", self.leaf())
                        }
                        _ => self.leaf(),
                    };
                    members.push(format!("\"{name}\":{value}"));
                }
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// The answer is one that the document names: its status, its kind, and what is in it where that is JSON.
fn check(operation: &Value, mut reply: Reply, client: &mut Client, asked: &str) -> u16 {
    let status = reply.status;
    let named = operation["responses"].get(status.to_string());
    let named = named.unwrap_or_else(|| panic!("{status} to {asked} is not in the document"));
    assert!(status < 500, "{status} to {asked}");
    let kind = reply.header("content-type").map(str::to_owned);
    let essence = kind
        .as_deref()
        .map(|kind| kind.split(';').next().unwrap().trim());
    let is_error = named.get("$ref").is_some();
    match named.get("content").and_then(Value::as_object) {
        Some(kinds) => assert!(
            essence.is_some_and(|kind| kinds.contains_key(kind) || kinds.contains_key("*/*")),
            "{kind:?} for {asked}, not of {kinds:?}"
        ),
        None if is_error => assert_eq!(essence, Some("application/json"), "{asked}"),
        None => {}
    }
    let Some(length) = reply.header("content-length").map(|n| n.parse().unwrap()) else {
        return status;
    };
    reply.body = client
        .take(length)
        .unwrap_or_else(|| panic!("the answer to {asked} breaks off"));
    if essence == Some("application/json")
        && length > 0
        && reply.header("content-encoding").is_none()
    {
        let json: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|error| panic!("{asked}: {error}: {reply:?}"));
        match is_error {
            true => assert!(
                json["error"]["code"].is_string() && json["error"]["message"].is_string(),
                "{asked}: {json}"
            ),
            false if asked.contains(" /api/store/") => node(&json, asked),
            false => {}
        }
    }
    status
}

/// A node of the store, and those below it: what docs/console.md says of them.
fn node(node: &Value, asked: &str) {
    let good = match node["type"].as_str() {
        Some("branch") => {
            let children = node.get("children").and_then(Value::as_object);
            children
                .into_iter()
                .flat_map(|children| children.values())
                .for_each(|child| self::node(child, asked));
            node.get("value").is_none()
        }
        Some("bool") => node["value"].is_boolean(),
        Some("integer" | "size" | "duration") => node["value"].is_i64() || node["value"].is_u64(),
        // What is no number of JSON is null.
        Some("float") => node["value"].is_number() || node["value"].is_null(),
        Some("string" | "bytes" | "time") => node["value"].is_string(),
        Some("list") => node["value"].is_array(),
        Some("map") => node["value"].is_object(),
        _ => false,
    };
    let described =
        node["help"].is_string() && (node["type"] == "branch" || node["writable"].is_boolean());
    assert!(good && described, "{asked}: {node}");
}
