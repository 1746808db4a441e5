//! What each request does.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::Value as Json;
use store::metrics::{self, Format};
use store::{By, Path, Store, Wish};

use crate::auth::{Gate, Random, is_own_origin};
use crate::error::Error;
use crate::http::{Answer, Content, Head, Method};
use crate::hub::Hub;
use crate::query::Query;
use crate::route::{self, Endpoint, Found};
use crate::services::{PowerAction, Services};
use crate::{openapi, page, websocket};

/// The longest body where the store does not say otherwise, in bytes.
const MAX_SMALL_BODY: usize = 4096;

/// What the console serves, and to whom.
pub struct Setup {
    /// The tree.
    pub store: Arc<Store>,
    /// Where changes of the tree are announced: see [`Hub::announce`].
    pub hub: Arc<Hub>,
    /// What is not in the tree.
    pub services: Arc<dyn Services>,
    /// What every request must show.
    pub token: String,
    /// Whether changes are refused.
    pub read_only: bool,
    /// The port it listens on.
    pub port: u16,
    /// Whether all goes through TLS.
    pub secure: bool,
    /// Random bytes for sessions.
    pub random: Random,
}

/// The console, apart from connections.
pub struct Console {
    pub(crate) store: Arc<Store>,
    pub(crate) hub: Arc<Hub>,
    services: Arc<dyn Services>,
    gate: Gate,
    read_only: bool,
    port: u16,
}

/// A request that was let in, before its body has come.
#[derive(Debug)]
pub struct Admitted {
    found: Found,
    query: Query,
    /// The most bytes of body that it may have.
    pub body_limit: usize,
}

impl Admitted {
    /// Whether whoever asked has shown the token. What is open to all may yet show it, in its body.
    pub fn has_token(&self) -> bool {
        !self.found.route.open
    }
}

/// A refusal, and whether whoever asked has shown the token.
pub struct Refused {
    /// What to answer.
    pub answer: Answer,
    /// Whether it is nobody known.
    pub stranger: bool,
}

impl Console {
    /// A console.
    pub fn new(setup: Setup) -> Arc<Console> {
        Arc::new(Console {
            store: setup.store,
            hub: setup.hub,
            services: setup.services,
            gate: Gate::new(setup.token, setup.random, setup.secure),
            read_only: setup.read_only,
            port: setup.port,
        })
    }

    /// Looks whether a request may be made, before anything of its body is read. Who has not shown the token learns
    /// nothing of what there is.
    ///
    /// # Errors
    /// The answer to send instead.
    pub fn admit(&self, head: &Head, now_ns: u64) -> Result<Admitted, Refused> {
        let found = route::find(head.method, &head.path);
        let open = found.as_ref().is_ok_and(|found| found.route.open);
        if !open && !self.gate.admits(head, now_ns) {
            let answer = Error::unauthorized().into();
            return Err(Refused {
                answer,
                stranger: true,
            });
        }
        self.check(head, found).map_err(|answer| Refused {
            answer,
            stranger: open,
        })
    }

    fn check(
        &self,
        head: &Head,
        found: Result<Found, (Error, String)>,
    ) -> Result<Admitted, Answer> {
        let found = found.map_err(|(error, allowed)| {
            let answer: Answer = error.into();
            match allowed.is_empty() {
                true => answer,
                false => answer.with("Allow", allowed),
            }
        })?;
        let route = found.route;
        let reads = matches!(head.method, Method::Get | Method::Head);
        if (!reads || route.endpoint == Endpoint::Watch) && !is_own_origin(head) {
            return Err(Error::forbidden_origin().into());
        }
        if route.changes && self.read_only {
            return Err(Error::read_only().into());
        }
        let query = Query::parse(&head.query)?;
        route.check(&query)?;
        let body_limit = match route.endpoint {
            Endpoint::Write | Endpoint::WriteMany => store::MAX_BODY,
            _ => MAX_SMALL_BODY,
        };
        Ok(Admitted {
            found,
            query,
            body_limit,
        })
    }

    /// By what the request was admitted, for [`Console::holds`].
    pub(crate) fn pass(&self, head: &Head) -> Option<String> {
        self.gate.pass(head)
    }

    /// Whether an answer that goes on and on may go on: not after the session by which it was asked for has ended.
    pub(crate) fn holds(&self, pass: Option<&str>) -> bool {
        self.gate.holds(pass, machine::time::now_ns())
    }

    /// Does what the request asks for.
    pub fn answer(&self, head: &Head, request: &Admitted, body: &[u8], peer: &str) -> Answer {
        self.try_answer(head, request, body, peer)
            .unwrap_or_else(Answer::from)
    }

    fn try_answer(
        &self,
        head: &Head,
        request: &Admitted,
        body: &[u8],
        peer: &str,
    ) -> Result<Answer, Error> {
        let Admitted { found, query, .. } = request;
        let by = || By(format!("console {peer}"));
        let now_ns = machine::time::now_ns();
        Ok(match found.route.endpoint {
            Endpoint::Index => file(head, "index.html")?,
            Endpoint::PageFile => file(head, &found.decoded()?)?,
            Endpoint::LoginLink => {
                self.expect_token(query.get("token"), peer)?;
                Answer::empty(303)
                    .with("Location", "/")
                    .with("Set-Cookie", self.gate.log_in(head, now_ns))
            }
            Endpoint::Login => {
                let body = json(body)?;
                self.expect_token(body.get("token").and_then(Json::as_str), peer)?;
                Answer::empty(204).with("Set-Cookie", self.gate.log_in(head, now_ns))
            }
            Endpoint::Logout => {
                let forgotten = self.gate.log_out(head);
                // The session's WebSockets end now.
                self.hub.wake_all();
                Answer::empty(204).with("Set-Cookie", forgotten)
            }
            Endpoint::Health => Answer::json("{\"status\":\"ok\"}".into()),
            Endpoint::Metrics => {
                let format = Format::accepted(head.header("accept"));
                let text = metrics::render(&self.store, format)?;
                Answer::ok(format.content_type(), text.into_bytes())
            }
            Endpoint::Read => {
                let depth = query.number("depth", 0..=store::MAX_DEPTH as u64)?;
                let path = Path::parse_encoded(&found.rest)?;
                Answer::json(self.store.get(&path, depth.unwrap_or(1) as usize)?)
            }
            Endpoint::Write => {
                let path = Path::parse_encoded(&found.rest)?;
                let wish = Wish::parse_one(path.clone(), body)?;
                self.store.grant(Vec::from([wish]), &by())?;
                Answer::json(self.store.get(&path, 1)?)
            }
            Endpoint::WriteMany => {
                let applied = self.store.grant(Wish::parse_many(body)?, &by())?;
                Answer::json(format!("{{\"applied\":{applied}}}"))
            }
            Endpoint::Schema => Answer::json(self.store.schema()?),
            Endpoint::Watch => websocket::accept(head)?,
            Endpoint::Log => {
                query.number("since", 0..=u64::MAX)?;
                Answer::stream(NDJSON, self.services.log(query)?)
            }
            Endpoint::Trace => {
                bounded(query)?;
                Answer::stream(NDJSON, self.services.trace(query)?)
            }
            Endpoint::Profile => self.profile(query)?,
            Endpoint::Capture => {
                bounded(query)?;
                query.number("snaplen", 0..=262_144)?;
                let stream = self.services.capture(query, self.port)?;
                attachment(
                    Answer::stream("application/x-pcapng", stream),
                    "capture.pcapng",
                )
            }
            Endpoint::Core => {
                let stream = self.services.core()?;
                attachment(Answer::stream("application/x-core", stream), "core")
            }
            Endpoint::Maps => Answer::json(self.services.maps()?),
            Endpoint::Threads => Answer::json(self.services.threads()?),
            Endpoint::Stack => {
                let thread = found.decoded()?.parse().ok();
                let thread = thread.ok_or_else(|| Error::invalid("a thread is a whole number"))?;
                Answer::json(self.services.stack(thread)?)
            }
            Endpoint::Power => {
                let action = json(body)?;
                let action = match action.get("action").and_then(Json::as_str) {
                    Some("shutdown") => PowerAction::Shutdown,
                    Some("reboot") => PowerAction::Reboot,
                    _ => {
                        let message = "action is to be \"shutdown\" or \"reboot\"";
                        return Err(Error::invalid(message));
                    }
                };
                self.services.power(action, &by())?;
                Answer::empty(202)
            }
            Endpoint::OpenApi => Answer::json(openapi::document()),
        })
    }

    fn profile(&self, query: &Query) -> Result<Answer, Error> {
        query.number("seconds", 1..=600)?;
        query.number("hz", 1..=1000)?;
        let kind = match query.get("format") {
            None | Some("folded") => "text/plain; charset=utf-8",
            Some("pprof") => "application/octet-stream",
            Some("json") => "application/json",
            Some(_) => return Err(Error::invalid("format is to be folded, pprof or json")),
        };
        Ok(Answer::stream(kind, self.services.profile(query)?))
    }

    fn expect_token(&self, token: Option<&str>, peer: &str) -> Result<(), Error> {
        if token.is_some_and(|token| self.gate.knows(token)) {
            return Ok(());
        }
        log::debug!("a wrong token from {peer}");
        let message = "the token is wrong";
        Err(Error::new(401, "unauthorized", message))
    }
}

const NDJSON: &str = "application/x-ndjson";

/// Checks what bounds a stream.
fn bounded(query: &Query) -> Result<(), Error> {
    query.number("count", 1..=u64::MAX)?;
    query.number("min_us", 0..=u64::MAX)?;
    query.number("seconds", 1..=86_400)?;
    Ok(())
}

fn attachment(answer: Answer, name: &str) -> Answer {
    answer.with(
        "Content-Disposition",
        format!("attachment; filename=\"{name}\""),
    )
}

fn json(body: &[u8]) -> Result<Json, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("the body is not JSON: {error}")))
}

/// A file of the page, as it lies in the kernel: packed.
fn file(head: &Head, name: &str) -> Result<Answer, Error> {
    let file = page::find(name).ok_or_else(|| Error::not_found("the page has no such part"))?;
    // They change with the kernel, and a session may end: kept, but asked about each time.
    let answer = |answer: Answer| {
        answer
            .with("Cache-Control", "private, no-cache")
            .with("ETag", file.tag)
            .with("Vary", "Accept-Encoding")
    };
    if head.has_token("if-none-match", file.tag) || head.has_token("if-none-match", "*") {
        return Ok(answer(Answer::empty(304)));
    }
    if !accepts_gzip(head) {
        let message = "the page is there with Content-Encoding: gzip only";
        return Err(Error::new(406, "not_acceptable", message));
    }
    let mut whole = Answer::ok(file.kind, &[][..]).with("Content-Encoding", "gzip");
    whole.content = Content::Whole(file.bytes.into());
    Ok(answer(whole))
}

/// RFC 9110 §12.5.3: without the header, anything goes.
fn accepts_gzip(head: &Head) -> bool {
    let Some(accepted) = head.header("accept-encoding") else {
        return true;
    };
    accepted.split(',').any(|part| {
        let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
        let zero = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.parse::<f32>().ok())
            == Some(0.0);
        let coding = coding.trim();
        !zero && (coding == "*" || coding.eq_ignore_ascii_case("gzip") || coding == "x-gzip")
    })
}
