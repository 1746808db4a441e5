//! The table of all requests that there are. It drives dispatch, checking and the OpenAPI document.

use alloc::string::String;

use crate::error::Error;
use crate::http::Method;
use crate::query::{Query, decode};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The page.
    Index,
    /// A part of the page.
    PageFile,
    /// Logging in by a link.
    LoginLink,
    /// Logging in.
    Login,
    /// Ending the session.
    Logout,
    /// Whether it lives.
    Health,
    /// Metrics.
    Metrics,
    /// A node of the store.
    Read,
    /// Changing a leaf.
    Write,
    /// Changing several.
    WriteMany,
    /// The tree without values.
    Schema,
    /// Values as they change.
    Watch,
    /// The log.
    Log,
    /// System calls.
    Trace,
    /// Samples.
    Profile,
    /// Packets.
    Capture,
    /// A core file.
    Core,
    /// The address space.
    Maps,
    /// The threads.
    Threads,
    /// The stacks of one.
    Stack,
    /// The end.
    Power,
    /// The description of all this.
    OpenApi,
}

/// A parameter in the query.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it may be, as a JSON schema.
    pub schema: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// A kind of request.
#[derive(Debug)]
pub struct Route {
    /// The method; `HEAD` goes where `GET` goes.
    pub method: Method,
    /// The path; `{name}` stands for a segment, or for all that follows where it is `{path}`.
    pub path: &'static str,
    /// What answers it.
    pub endpoint: Endpoint,
    /// What it is for.
    pub help: &'static str,
    /// Its parameters.
    pub query: &'static [Parameter],
    /// The body's JSON schema, where there is a body.
    pub body: Option<&'static str>,
    /// The statuses of good answers with their media types; none for an answer without content.
    pub answers: &'static [(u16, Option<&'static str>)],
    /// The statuses of bad answers beyond 400, 401, 406, 429 and 503, which any may have.
    pub errors: &'static [u16],
    /// Whether something is changed by it, which a read-only console refuses.
    pub changes: bool,
    /// Whether it is there for those who have not shown a token yet.
    pub open: bool,
}

const INTEGER: &str = r#"{"type":"integer","minimum":0}"#;
const COUNT: &str = r#"{"type":"integer","minimum":1}"#;
const SECONDS: &str = r#"{"type":"integer","minimum":1,"maximum":86400}"#;
const STRING: &str = r#"{"type":"string"}"#;
const JSON: Option<&str> = Some("application/json");
const NDJSON: Option<&str> = Some("application/x-ndjson");

const fn parameter(name: &'static str, schema: &'static str, help: &'static str) -> Parameter {
    Parameter { name, schema, help }
}

const fn get(
    path: &'static str,
    endpoint: Endpoint,
    answers: &'static [(u16, Option<&'static str>)],
    help: &'static str,
) -> Route {
    Route {
        method: Method::Get,
        path,
        endpoint,
        help,
        query: &[],
        body: None,
        answers,
        errors: &[],
        changes: false,
        open: false,
    }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    get(
        "/",
        Endpoint::Index,
        &[(200, Some("text/html")), (304, None)],
        "The page.",
    ),
    Route {
        errors: &[404],
        ..get(
            "/page/{file}",
            Endpoint::PageFile,
            &[(200, Some("*/*")), (304, None)],
            "A part of the page, gzip-encoded.",
        )
    },
    Route {
        query: &[parameter("token", STRING, "The console's token.")],
        open: true,
        ..get(
            "/login",
            Endpoint::LoginLink,
            &[(303, None)],
            "Begins a session and leads to the page.",
        )
    },
    Route {
        method: Method::Post,
        body: Some(
            r#"{"type":"object","required":["token"],"properties":{"token":{"type":"string"}}}"#,
        ),
        errors: &[403, 413],
        open: true,
        ..get(
            "/api/login",
            Endpoint::Login,
            &[(204, None)],
            "Begins a session.",
        )
    },
    Route {
        method: Method::Post,
        errors: &[403],
        ..get(
            "/api/logout",
            Endpoint::Logout,
            &[(204, None)],
            "Ends the session.",
        )
    },
    get(
        "/healthz",
        Endpoint::Health,
        &[(200, JSON)],
        "Whether the machine lives.",
    ),
    get(
        "/metrics",
        Endpoint::Metrics,
        &[
            (200, Some("text/plain")),
            (200, Some("application/openmetrics-text")),
        ],
        "The store's numbers for Prometheus: OpenMetrics where Accept names it, else the older text format.",
    ),
    Route {
        query: &[DEPTH],
        errors: &[404, 413],
        ..get(
            "/api/store",
            Endpoint::Read,
            &[(200, JSON)],
            "The root of the store.",
        )
    },
    Route {
        query: &[DEPTH],
        errors: &[404, 413],
        ..get(
            "/api/store/{path}",
            Endpoint::Read,
            &[(200, JSON)],
            "A node of the store: a value with its type, unit and help, or a branch. The path is percent-encoded by segment.",
        )
    },
    Route {
        method: Method::Put,
        body: Some(r#"{"type":"object","required":["value"],"properties":{"value":{}}}"#),
        errors: &[403, 404, 405, 413],
        changes: true,
        ..get(
            "/api/store/{path}",
            Endpoint::Write,
            &[(200, JSON)],
            "Changes a value; answers as it is then.",
        )
    },
    Route {
        method: Method::Patch,
        body: Some(
            r#"{"type":"object","required":["changes"],"properties":{"changes":{"type":"array","maxItems":256,"items":{"type":"object","required":["path","value"],"properties":{"path":{"type":"string"},"value":{}}}}}}"#,
        ),
        errors: &[403, 404, 405, 413],
        changes: true,
        ..get(
            "/api/store",
            Endpoint::WriteMany,
            &[(200, JSON)],
            "Changes several values, all or none.",
        )
    },
    Route {
        errors: &[413],
        ..get(
            "/api/schema",
            Endpoint::Schema,
            &[(200, JSON)],
            "The tree without values.",
        )
    },
    Route {
        errors: &[403, 426],
        ..get(
            "/api/watch",
            Endpoint::Watch,
            &[(101, None)],
            "A WebSocket: values as they change.",
        )
    },
    Route {
        query: &[
            parameter("follow", r#"{"enum":["0","1"]}"#, "Go on with what comes."),
            parameter("level", STRING, "The least important level wanted."),
            parameter("since", INTEGER, "The first number wanted."),
        ],
        ..get(
            "/api/log",
            Endpoint::Log,
            &[(200, NDJSON)],
            "The kernel's log.",
        )
    },
    Route {
        query: &[
            parameter("name", STRING, "Calls, or classes as %network, by comma."),
            parameter("thread", STRING, "Threads, by comma."),
            parameter("path", STRING, "A part of a path among the arguments."),
            parameter("errno", STRING, "An error's name, or any."),
            parameter("min_us", INTEGER, "The least duration in microseconds."),
            parameter("seconds", SECONDS, "How long."),
            parameter("count", COUNT, "How many."),
        ],
        ..get(
            "/api/trace",
            Endpoint::Trace,
            &[(200, NDJSON)],
            "System calls as they end.",
        )
    },
    Route {
        query: &[
            parameter(
                "seconds",
                r#"{"type":"integer","minimum":1,"maximum":600}"#,
                "How long.",
            ),
            parameter(
                "hz",
                r#"{"type":"integer","minimum":1,"maximum":1000}"#,
                "Samples a second.",
            ),
            parameter(
                "format",
                r#"{"enum":["folded","pprof","json"]}"#,
                "The answer's form.",
            ),
        ],
        ..get(
            "/api/profile",
            Endpoint::Profile,
            &[
                (200, Some("text/plain")),
                (200, Some("application/octet-stream")),
                (200, JSON),
            ],
            "Samples of all CPUs.",
        )
    },
    Route {
        query: &[
            parameter(
                "interface",
                STRING,
                "The interface; all of them unless given.",
            ),
            parameter("filter", STRING, "A part of pcap-filter(7)."),
            parameter(
                "snaplen",
                r#"{"type":"integer","minimum":0,"maximum":262144}"#,
                "Bytes of each packet.",
            ),
            parameter("count", COUNT, "How many."),
            parameter("seconds", SECONDS, "How long."),
        ],
        errors: &[404],
        ..get(
            "/api/capture",
            Endpoint::Capture,
            &[(200, Some("application/x-pcapng"))],
            "Packets, live.",
        )
    },
    Route {
        errors: &[404],
        ..get(
            "/api/core",
            Endpoint::Core,
            &[(200, Some("application/x-core"))],
            "An ELF core file of the program, which goes on.",
        )
    },
    Route {
        errors: &[404],
        ..get(
            "/api/maps",
            Endpoint::Maps,
            &[(200, JSON)],
            "The address space.",
        )
    },
    Route {
        errors: &[404],
        ..get(
            "/api/threads",
            Endpoint::Threads,
            &[(200, JSON)],
            "The threads.",
        )
    },
    Route {
        errors: &[404],
        ..get(
            "/api/threads/{tid}/stack",
            Endpoint::Stack,
            &[(200, JSON)],
            "The stacks of a thread.",
        )
    },
    Route {
        method: Method::Post,
        body: Some(
            r#"{"type":"object","required":["action"],"properties":{"action":{"enum":["shutdown","reboot"]}}}"#,
        ),
        errors: &[403, 413],
        changes: true,
        ..get(
            "/api/power",
            Endpoint::Power,
            &[(202, None)],
            "Ends or restarts the machine; the program gets SIGTERM first.",
        )
    },
    get(
        "/api/openapi.json",
        Endpoint::OpenApi,
        &[(200, JSON)],
        "This document.",
    ),
];

const DEPTH: Parameter = parameter(
    "depth",
    r#"{"type":"integer","minimum":0,"maximum":16,"default":1}"#,
    "How many levels below it.",
);

/// Where a request goes.
#[derive(Debug)]
pub struct Found {
    /// The kind of request.
    pub route: &'static Route,
    /// What stands for the name in braces, still encoded.
    pub rest: String,
}

/// Finds the kind of request.
///
/// # Errors
/// 404, or 405 with the methods there are.
pub fn find(method: Method, path: &str) -> Result<Found, (Error, String)> {
    let method = match method {
        Method::Head => Method::Get,
        method => method,
    };
    let mut allowed = String::new();
    for route in ROUTES {
        let Some(rest) = matches(route.path, path) else {
            continue;
        };
        if route.method == method {
            let rest = rest.into();
            return Ok(Found { route, rest });
        }
        let head = (route.method == Method::Get).then_some("HEAD");
        for name in route.method.name().into_iter().chain(head) {
            if !allowed.is_empty() {
                allowed.push_str(", ");
            }
            allowed.push_str(name);
        }
    }
    Err(match allowed.is_empty() {
        true => (Error::not_found("there is no such request"), allowed),
        false => {
            let error = Error::new(405, "not_allowed", "this cannot be asked for this way");
            (error, allowed)
        }
    })
}

/// What stands for the name in braces, if the path is of the pattern.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (name, after) = rest.split_once('}')?;
    let middle = path.strip_prefix(before)?.strip_suffix(after)?;
    // An empty store path is the root's, with or without the slash.
    let fits = name == "path" || (!middle.is_empty() && !middle.contains('/'));
    fits.then_some(middle)
}

impl Route {
    /// Refuses parameters that the table does not know: a misspelt filter must not show everything.
    ///
    /// # Errors
    /// 400.
    pub fn check(&self, query: &Query) -> Result<(), Error> {
        for (name, _) in query.pairs() {
            if !self.query.iter().any(|known| known.name == name) {
                let message = alloc::format!("there is no parameter {name:?} here");
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }
}

impl Found {
    /// What stands for the name in braces, decoded.
    ///
    /// # Errors
    /// 400.
    pub fn decoded(&self) -> Result<String, Error> {
        decode(&self.rest, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds() {
        let go = |method, path| find(method, path).map(|found| (found.route.endpoint, found.rest));
        assert_eq!(go(Method::Get, "/").unwrap().0, Endpoint::Index);
        assert_eq!(go(Method::Head, "/healthz").unwrap().0, Endpoint::Health);
        assert_eq!(
            go(Method::Get, "/api/store/a/b").unwrap(),
            (Endpoint::Read, "a/b".into())
        );
        assert_eq!(
            go(Method::Get, "/api/store/").unwrap(),
            (Endpoint::Read, "".into())
        );
        assert_eq!(
            go(Method::Get, "/api/threads/7/stack").unwrap(),
            (Endpoint::Stack, "7".into())
        );
        for path in [
            "/x",
            "/page/",
            "/page/a/b",
            "/api/threads//stack",
            "/api/store2",
            "",
        ] {
            assert_eq!(go(Method::Get, path).unwrap_err().0.status, 404, "{path}");
        }
        let (error, allowed) = go(Method::Post, "/api/store").unwrap_err();
        assert_eq!((error.status, &*allowed), (405, "GET, HEAD, PATCH"));
        assert_eq!(go(Method::Other, "/").unwrap_err().0.status, 405);
    }

    #[test]
    fn refuses_unknown_parameters() {
        let found = find(Method::Get, "/api/trace").unwrap();
        assert!(
            found
                .route
                .check(&Query::parse("name=read&count=1").unwrap())
                .is_ok()
        );
        assert!(
            found
                .route
                .check(&Query::parse("nane=read").unwrap())
                .is_err()
        );
    }
}
