//! Who may ask: the token, the sessions of those who logged in with it, and where a browser's request comes from.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use sched::Mutex;
use subtle::ConstantTimeEq;

use crate::http::Head;

/// The most sessions; the one not used for longest goes first.
const MAX_SESSIONS: usize = 32;
/// How long a session lasts after its last use.
const SESSION_NS: u64 = 12 * 3600 * 1_000_000_000;
/// What the session's cookie is called.
const COOKIE: &str = "nanos_session";

/// Fills a slice with random bytes that nobody can guess.
pub type Random = fn(&mut [u8]);

struct Session {
    id: String,
    used_ns: u64,
}

/// Decides about requests.
pub struct Gate {
    token: String,
    random: Random,
    secure: bool,
    /// The one used last stands last.
    sessions: Mutex<VecDeque<Session>>,
}

impl Gate {
    /// Lets in whoever knows `token`. `secure` says that all goes through TLS.
    pub fn new(token: String, random: Random, secure: bool) -> Gate {
        Gate {
            token,
            random,
            secure,
            sessions: Mutex::new(VecDeque::new()),
        }
    }

    /// Whether `token` is the right one. Takes the same time for all of one length.
    pub fn knows(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// Whether the request shows the token or a session.
    pub fn admits(&self, head: &Head, now_ns: u64) -> bool {
        if let Some(value) = head.header("authorization") {
            let scheme = value.split_at_checked(7);
            let bearer = scheme.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer "));
            return bearer.is_some_and(|(_, token)| self.knows(token.trim()));
        }
        self.session(head).is_some_and(|id| self.touch(id, now_ns))
    }

    /// What [`Gate::holds`] is to be asked for what goes on after the answer's beginning: the session by which the request
    /// was admitted; `None` if it showed the token itself.
    pub fn pass(&self, head: &Head) -> Option<String> {
        match head.header("authorization") {
            Some(_) => None,
            None => self.session(head).map(Into::into),
        }
    }

    /// Whether what was begun with that pass may go on: that it goes on is no use of the session.
    pub fn holds(&self, pass: Option<&str>, now_ns: u64) -> bool {
        let Some(id) = pass else {
            return true;
        };
        let sessions = self.sessions.lock();
        sessions.iter().any(|session| {
            bool::from(session.id.as_bytes().ct_eq(id.as_bytes()))
                && now_ns.saturating_sub(session.used_ns) < SESSION_NS
        })
    }

    fn session<'a>(&self, head: &'a Head) -> Option<&'a str> {
        let name = cookie_name(head);
        let cookies = head.header("cookie")?.split(';');
        let mut pairs = cookies.filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, id)| id)
    }

    fn touch(&self, id: &str, now_ns: u64) -> bool {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| now_ns.saturating_sub(session.used_ns) < SESSION_NS);
        // All are compared, so that the time tells nothing of which one it is.
        let mut found = None;
        for (place, session) in sessions.iter().enumerate() {
            if bool::from(session.id.as_bytes().ct_eq(id.as_bytes())) {
                found = Some(place);
            }
        }
        let Some(mut session) = found.and_then(|place| sessions.remove(place)) else {
            return false;
        };
        session.used_ns = now_ns;
        sessions.push_back(session);
        true
    }

    /// Begins a session; returns the value of `Set-Cookie`.
    pub fn log_in(&self, head: &Head, now_ns: u64) -> String {
        let mut bytes = [0; 32];
        (self.random)(&mut bytes);
        let mut id = String::with_capacity(64);
        for byte in bytes {
            let _ = write!(id, "{byte:02x}");
        }
        let cookie = self.cookie(head, &id);
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            sessions.pop_front();
        }
        let used_ns = now_ns;
        sessions.push_back(Session { id, used_ns });
        cookie
    }

    /// Ends the request's session; returns the value of `Set-Cookie` that makes the browser forget it.
    pub fn log_out(&self, head: &Head) -> String {
        if let Some(id) = self.session(head) {
            let mut sessions = self.sessions.lock();
            sessions.retain(|session| !bool::from(session.id.as_bytes().ct_eq(id.as_bytes())));
        }
        format!("{}; Max-Age=0", self.cookie(head, ""))
    }

    fn cookie(&self, head: &Head, id: &str) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = cookie_name(head);
        format!("{name}={id}; HttpOnly; SameSite=Strict; Path=/{secure}")
    }
}

/// Cookies do not know ports (RFC 6265 §8.5), and the consoles of two machines may differ in nothing else: the port is
/// a part of the name.
fn cookie_name(head: &Head) -> String {
    let host = head.header("host").unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) => format!("{COOKIE}_{port}"),
        None => COOKIE.into(),
    }
}

/// Whether the request comes from the console's own page, or from no page at all: a browser says where from.
pub fn is_own_origin(head: &Head) -> bool {
    match (head.header("origin"), head.header("host")) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;
    use core::sync::atomic::{AtomicU8, Ordering};

    const TOKEN: &str = "0123456789abcdef";

    fn head(lines: &str) -> Head {
        let text = format!("GET / HTTP/1.1\r\nHost: h:90\r\n{lines}\r\n");
        HeadReader::default()
            .take(&mut text.into_bytes())
            .unwrap()
            .unwrap()
    }

    fn gate() -> Gate {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let random: Random = |bytes| bytes.fill(NEXT.fetch_add(1, Ordering::Relaxed));
        Gate::new(TOKEN.into(), random, false)
    }

    #[test]
    fn wants_the_token_whole() {
        let gate = gate();
        assert!(gate.admits(&head("Authorization: Bearer 0123456789abcdef\r\n"), 0));
        assert!(gate.admits(&head("Authorization: bearer 0123456789abcdef \r\n"), 0));
        for bad in [
            "",
            "Authorization: Bearer 0123456789abcde\r\n",
            "Authorization: Bearer 0123456789abcdeg\r\n",
            "Authorization: Bearer 0123456789abcdef0\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Basic 0123456789abcdef\r\n",
            "Authorization: B\u{e9}arer 0123456789abcdef\r\n",
            "Cookie: nanos_session_90=\r\n",
            "Cookie: nanos_session_90=0123456789abcdef\r\n",
        ] {
            assert!(!gate.admits(&head(bad), 0), "{bad}");
        }
    }

    #[test]
    fn sessions_begin_and_end() {
        let gate = gate();
        let cookie = gate.log_in(&head(""), 0);
        assert!(
            cookie.starts_with("nanos_session_90=") && cookie.contains("HttpOnly; SameSite=Strict")
        );
        let pair = cookie.split(';').next().unwrap();
        let with = head(&format!("Cookie: a=b; {pair}; c=d\r\n"));
        assert!(gate.admits(&with, SESSION_NS - 1));
        assert!(gate.admits(&with, 2 * SESSION_NS - 2));
        // A wrong token is no better for a right cookie.
        let both = head(&format!("Cookie: {pair}\r\nAuthorization: Bearer x\r\n"));
        assert!(!gate.admits(&both, 2 * SESSION_NS - 2));
        assert!(!gate.admits(&with, 4 * SESSION_NS));
        let cookie = gate.log_in(&head(""), 0);
        let with = head(&format!(
            "Cookie: {}\r\n",
            cookie.split(';').next().unwrap()
        ));
        assert!(gate.admits(&with, 0));
        let pass = gate.pass(&with);
        assert!(pass.is_some() && gate.holds(pass.as_deref(), SESSION_NS - 1));
        assert!(!gate.holds(pass.as_deref(), SESSION_NS));
        assert!(gate.log_out(&with).contains("Max-Age=0"));
        assert!(!gate.admits(&with, 0));
        assert!(!gate.holds(pass.as_deref(), 0));
        let token =
            head("Authorization: Bearer 0123456789abcdef\r\nCookie: nanos_session_90=x\r\n");
        assert_eq!(gate.pass(&token), None);
        assert!(gate.holds(None, u64::MAX));
    }

    #[test]
    fn sessions_are_bounded() {
        let gate = gate();
        let first = gate.log_in(&head(""), 0);
        let with = head(&format!("Cookie: {}\r\n", first.split(';').next().unwrap()));
        (1..MAX_SESSIONS).for_each(|_| _ = gate.log_in(&head(""), 0));
        assert!(gate.admits(&with, 0));
        // It was used last, so others go before it.
        (1..MAX_SESSIONS).for_each(|_| _ = gate.log_in(&head(""), 0));
        assert!(gate.admits(&with, 0));
        (0..MAX_SESSIONS).for_each(|_| _ = gate.log_in(&head(""), 0));
        assert!(!gate.admits(&with, 0));
        assert_eq!(gate.sessions.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn origins() {
        assert!(is_own_origin(&head("")));
        assert!(is_own_origin(&head("Origin: http://h:90\r\n")));
        for bad in ["http://h", "http://h:91", "http://evil", "null", "h:90", ""] {
            assert!(
                !is_own_origin(&head(&format!("Origin: {bad}\r\n"))),
                "{bad}"
            );
        }
    }
}
