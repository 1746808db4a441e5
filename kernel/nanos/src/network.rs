//! The network at start: the stack, and each card configured as the manifest says. Nothing waits for an address
//! unless the manifest asks for it.

use alloc::format;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};
use drivers::nic::Nic;
use manifest::{Interface, Manifest};
use net::{Cidr, Config, IfConfig, Ipv4Config, Ipv6Config, Limits, Stack};

/// The mask of a static address that comes without one: /24, as the existing system has it.
const DEFAULT_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// Starts the stack and brings the cards up as `en1`, `en2` and so on.
pub fn start(manifest: &Manifest, nics: &[Arc<dyn Nic>]) {
    let secret = core::array::from_fn(|_| drivers::random::word());
    let mut config = Config::new(Arc::new(machine::time::now_ns), secret);
    config.host_name = manifest.hostname.clone();
    config.limits = Limits::for_ram(machine::mem::stats().total * machine::mem::PAGE_SIZE);
    let stack = Stack::new(config);
    for (number, nic) in (1..).zip(nics) {
        let wanted = manifest
            .interfaces
            .get(&number)
            .cloned()
            .unwrap_or_default();
        let name = format!("en{number}");
        match interface(&wanted).and_then(|config| {
            stack
                .add_interface(&name, nic.clone(), config)
                .map_err(|error| format!("{error}"))
        }) {
            Ok(_) => {}
            Err(error) => log::error!("{name}: {error}"),
        }
    }
    if let Err(error) = net::run(&stack) {
        log::error!("the network does not run: {error}");
    }
    linux::socket::set_stack(stack);
}

fn interface(wanted: &Interface) -> Result<IfConfig, alloc::string::String> {
    let ipv4 = match wanted.ipaddr {
        None => Ipv4Config::Dhcp,
        Some(address) => {
            let mask = wanted.netmask.unwrap_or(DEFAULT_MASK);
            let addr =
                Cidr::from_netmask(address, mask).ok_or_else(|| format!("{mask} is no netmask"))?;
            // Without a gateway the first host of the network is one, as in the existing system.
            let first = Ipv4Addr::from_bits((address.to_bits() & mask.to_bits()) | 1);
            Ipv4Config::Static {
                addr,
                gateway: wanted.gateway.or((first != address).then_some(first)),
            }
        }
    };
    let ipv6 = match wanted.ip6addr {
        None => Ipv6Config::Auto,
        Some((address, prefix)) => Ipv6Config::Static {
            addr: Cidr::new(IpAddr::V6(address), prefix)
                .ok_or_else(|| format!("/{prefix} is no prefix"))?,
            gateway: None,
        },
    };
    Ok(IfConfig {
        ipv4,
        ipv6,
        mtu: wanted.mtu,
    })
}
