//! The console of the manifest's key `console`: where it listens, and its thread. Without the key there is neither.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use console::{Console, Hub, Limits, Place, SecureListener, Setup, SocketListener};
use fs::Namespace;
use manifest::ConsoleServer;
use store::{Observer, Store};
use tls::{Acceptor, Sources};

use crate::files;
use crate::services::Engines;

/// The largest file with a certificate or key, in bytes.
const MAX_PEM: usize = 64 << 10;

/// Where the host's forwarded connections come in.
const FIRST_CARD: &str = "en1";

/// Starts the console; `build` makes the store, whose changes the observer is to be told.
pub fn start(
    config: &ConsoleServer,
    namespace: &Namespace,
    build: impl FnOnce(Observer) -> Option<Arc<Store>>,
) {
    if let Err(error) = try_start(config, namespace, build) {
        log::error!("the console is not served: {error}");
    }
}

fn try_start(
    config: &ConsoleServer,
    namespace: &Namespace,
    build: impl FnOnce(Observer) -> Option<Arc<Store>>,
) -> Result<(), String> {
    let tls = match &config.tls {
        None => None,
        Some((certificate, key)) => {
            let certificate = pem(namespace, "certificate", certificate)?;
            let key = pem(namespace, "key", key)?;
            let sources = Sources {
                random: drivers::random::fill,
                now: || machine::time::wall_ns() / 1_000_000_000,
            };
            let acceptor = Acceptor::new(&certificate, &key, sources);
            Some(acceptor.map_err(|error| format!("{error}"))?)
        }
    };
    let secure = tls.is_some();
    if config.insecure && !secure {
        log::warn!(
            "the console is insecure: its token and all that it shows cross the network as they are"
        );
    }
    let stack = linux::socket::stack().map_err(|_| "there is no network")?;
    // Without TLS the only way in is the one that the host forwards.
    let forwarded_only = !config.insecure && !secure;
    let interface = config.interface.clone();
    let place = Place {
        port: config.port,
        interface: match forwarded_only {
            true => Some(interface.unwrap_or_else(|| FIRST_CARD.into())),
            false => interface,
        },
        address: config.address,
        gateway_only: forwarded_only,
    };
    let listener = SocketListener::open(stack, place)?;
    let hub = Hub::new();
    let announcing = hub.clone();
    let observer = Box::new(move |change: &store::Change, by: &store::By| {
        announcing.announce(change, by);
    });
    let store = build(observer).ok_or("there is no information store")?;
    let console = Console::new(Setup {
        store,
        hub,
        services: Arc::new(Engines),
        token: config.token.clone(),
        read_only: config.read_only,
        port: config.port,
        secure,
        random: drivers::random::fill,
    });
    let serve = move || match tls {
        None => console::serve(&console, listener, Limits::default()),
        Some(acceptor) => {
            let listener = SecureListener::new(listener, acceptor);
            console::serve(&console, listener, Limits::default());
        }
    };
    sched::spawn(console::thread("console"), serve)
        .map(drop)
        .map_err(|error| format!("{error}"))
}

/// PEM as the manifest has it, or from the file that it names.
fn pem(namespace: &Namespace, key: &str, text: &str) -> Result<Vec<u8>, String> {
    if text.contains("-----BEGIN") {
        return Ok(text.into());
    }
    files::read(namespace, text, MAX_PEM).map_err(|error| format!("{key}: {text}: {error}"))
}
