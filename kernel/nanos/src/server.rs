//! The console of the manifest's key `console`: where it listens, and its thread. Without the key there is neither.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use console::{Console, Hub, Limits, Place, Setup, SocketListener};
use manifest::ConsoleServer;
use store::{Observer, Store};

use crate::services::Engines;

/// Where the host's forwarded connections come in.
const FIRST_CARD: &str = "en1";

/// Starts the console; `build` makes the store, whose changes the observer is to be told.
pub fn start(config: &ConsoleServer, build: impl FnOnce(Observer) -> Option<Arc<Store>>) {
    if let Err(error) = try_start(config, build) {
        log::error!("the console is not served: {error}");
    }
}

fn try_start(
    config: &ConsoleServer,
    build: impl FnOnce(Observer) -> Option<Arc<Store>>,
) -> Result<(), String> {
    if config.tls.is_some() {
        return Err("this kernel has no TLS for it yet: leave out certificate and key".into());
    }
    if config.insecure {
        log::warn!(
            "the console is insecure: its token and all that it shows cross the network as they are"
        );
    }
    let stack = linux::socket::stack().map_err(|_| "there is no network")?;
    // Without TLS the only way in is the one that the host forwards.
    let forwarded_only = !config.insecure;
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
        secure: false,
        random: drivers::random::fill,
    });
    let serve = move || console::serve(&console, listener, Limits::default());
    sched::spawn(console::thread("console"), serve)
        .map(drop)
        .map_err(|error| alloc::format!("{error}"))
}
