//! What the engine shows in the information store: `/net`, but for the host's names, which are the program's.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use store::{Branch, Leaf, Value};

use crate::drops;
use crate::flow::Found;
use crate::option::{Congestion, Opt, OptName};
use crate::query::{LinkInfo, NeighbourState, RouteInfo, SocketInfo};
use crate::socket::Socket;
use crate::stack::Stack;
use crate::tcp::defaults::{BUFFER_RANGE, TcpDefaults};
use crate::tcp::info::TcpInfo;

/// The most connections in one listing.
const MAX_CONNECTIONS: usize = 1000;

/// What counters go up and down, by name.
const GAUGES: &[&str] = &["CurrEstab"];

/// The network.
pub fn branch(stack: &Arc<Stack>) -> Branch {
    let with = |look: fn(&Stack) -> Vec<Value>| {
        let stack = stack.clone();
        Leaf::list(move || look(&stack))
    };
    let of = |look: fn(&Arc<Stack>) -> u64| {
        let stack = stack.clone();
        Leaf::gauge(move || look(&stack))
    };
    let (links, sockets, lossy) = (stack.clone(), stack.clone(), stack.clone());
    Branch::new("The network.")
        .with(
            "interfaces",
            Branch::new("Network interfaces.")
                .metric("")
                .listed_at_once("interface", move || interfaces(&links)),
        )
        .with(
            "routes",
            with(routes).help("Routes, with the network, the next hop and the interface."),
        )
        .with(
            "neighbours",
            with(neighbours).help("Addresses on the link, their hardware addresses and states."),
        )
        .with(
            "connections",
            Branch::new("TCP connections and listeners and UDP sockets, the first 1000.")
                .no_metrics()
                .listed_at_once("connection", move || connections(&sockets)),
        )
        .with(
            "flows",
            of(|stack| stack.flow_counts().0 as u64)
                .unit("flows")
                .help("TCP connections of any state, half-open ones and TIME-WAIT included."),
        )
        .with(
            "time_wait",
            of(|stack| stack.flow_counts().1 as u64)
                .unit("flows")
                .help("Connections in TIME-WAIT."),
        )
        .with(
            "established",
            of(|stack| stack.counters().sum(|set| &set.tcp_curr_estab))
                .unit("connections")
                .help("Established TCP connections."),
        )
        .with(
            "buffers",
            of(|stack| stack.memory() as u64)
                .unit("bytes")
                .help("Memory in socket buffers."),
        )
        .with(
            "drops",
            Branch::new("Dropped packets by reason.")
                .listed_at_once("reason", move || drops::by_reason(&lossy)),
        )
        .with("tcp", tcp_defaults(stack))
        .with("counters", counters(stack))
}

/// What new TCP sockets start with, to be changed.
fn tcp_defaults(stack: &Arc<Stack>) -> Branch {
    let number =
        |read: fn(&TcpDefaults) -> u32, apply: fn(&TcpDefaults, u32), greatest: i64, unit, help| {
            let (shown, changed) = (stack.clone(), stack.clone());
            Leaf::gauge(move || read(shown.tcp_defaults()))
                .unit(unit)
                .help(help)
                .range(1, greatest)
                .writable(
                    |_| Ok(()),
                    move |value| {
                        let number = value
                            .as_integer()
                            .and_then(|number| u32::try_from(number).ok());
                        apply(changed.tcp_defaults(), number.ok_or("it is too great")?);
                        Ok(())
                    },
                )
        };
    let size = |read: fn(&TcpDefaults) -> usize, apply: fn(&TcpDefaults, usize), help| {
        let (shown, changed) = (stack.clone(), stack.clone());
        Leaf::size(move || read(shown.tcp_defaults()))
            .help(help)
            .range(*BUFFER_RANGE.start() as i64, *BUFFER_RANGE.end() as i64)
            .writable(
                |_| Ok(()),
                move |value| {
                    let bytes = value
                        .as_integer()
                        .and_then(|bytes| usize::try_from(bytes).ok());
                    apply(changed.tcp_defaults(), bytes.ok_or("it is too great")?);
                    Ok(())
                },
            )
    };
    let (shown, changed) = (stack.clone(), stack.clone());
    let by_name = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        Congestion::by_name(name.as_bytes()).ok_or_else(|| format!("there is no {name:?}"))
    };
    let congestion = Leaf::text(move || shown.tcp_defaults().congestion().name())
        .help("The congestion control of new connections.")
        .choices(Congestion::ALL.map(Congestion::name))
        .writable(
            move |value| by_name(value).map(|_| ()),
            move |value| {
                changed.tcp_defaults().set_congestion(by_name(value)?);
                Ok(())
            },
        );
    Branch::new("What new TCP sockets start with.")
        .no_metrics()
        .with("congestion", congestion)
        .with(
            "keepalive_idle",
            number(
                |of| of.keepalive().0,
                |of, s| of.keep_idle_s.store(s, Relaxed),
                32_767,
                "seconds",
                "Time without traffic before SO_KEEPALIVE probes.",
            ),
        )
        .with(
            "keepalive_interval",
            number(
                |of| of.keepalive().1,
                |of, s| of.keep_intvl_s.store(s, Relaxed),
                32_767,
                "seconds",
                "Time between probes.",
            ),
        )
        .with(
            "keepalive_probes",
            number(
                |of| of.keepalive().2,
                |of, n| of.keep_cnt.store(n, Relaxed),
                127,
                "probes",
                "Unanswered probes after which a connection is given up.",
            ),
        )
        .with(
            "receive_buffer",
            size(
                TcpDefaults::rmem_max,
                TcpDefaults::set_rmem_max,
                "The size that receive buffers grow to by themselves.",
            ),
        )
        .with(
            "send_buffer",
            size(
                TcpDefaults::wmem_max,
                TcpDefaults::set_wmem_max,
                "The size that send buffers grow to by themselves.",
            ),
        )
}

/// All of Linux's counters, a map for each group of `/proc/net/snmp` and `netstat`.
fn counters(stack: &Arc<Stack>) -> Branch {
    let branch = Branch::new("The counters of /proc/net/snmp and /proc/net/netstat.").metric("");
    ["Ip", "Icmp", "Tcp", "Udp", "Udp6", "TcpExt", "IpExt", "Ip6"]
        .into_iter()
        .fold(branch, |branch, group| {
            let stack = stack.clone();
            let read = move || {
                let mut entries = Vec::new();
                stack.counters().for_each(|of, name, value| {
                    if of == group && !GAUGES.contains(&name) {
                        entries.push((name.into(), Value::integer(value)));
                    }
                });
                entries
            };
            let leaf = Leaf::map(read)
                .counter()
                .label("counter")
                .help("Events, by their names in Linux.");
            branch.with(group.to_lowercase(), leaf)
        })
}

fn text(value: impl core::fmt::Display) -> Leaf {
    Leaf::fixed(Value::text(value))
}

fn hardware(mac: &[u8; 6]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn interfaces(stack: &Stack) -> Vec<(String, Branch)> {
    let addresses = stack.addresses();
    let interface = |link: LinkInfo| {
        let own = addresses
            .iter()
            .filter(|address| address.index == link.index);
        let own = own.map(|address| {
            Value::text(format_args!(
                "{}/{}",
                address.addr.addr, address.addr.prefix
            ))
        });
        let counters = link.counters;
        let flag = |value: bool, help| Leaf::fixed(value.into()).help(help);
        let count = |value: u64, unit, help| {
            Leaf::fixed(Value::integer(value))
                .counter()
                .unit(unit)
                .help(help)
        };
        let branch = Branch::new("A network interface.")
            .with(
                "mac",
                text(hardware(&link.mac)).help("Its hardware address."),
            )
            .with(
                "mtu",
                Leaf::fixed(Value::integer(link.mtu))
                    .unit("bytes")
                    .help("The largest IP packet."),
            )
            .with("up", flag(link.up, "Whether it is up."))
            .with("carrier", flag(link.carrier, "Whether the link is there."))
            .with(
                "promiscuous",
                flag(link.promiscuous, "Whether all packets are received."),
            )
            .with(
                "addresses",
                Leaf::fixed(Value::List(own.collect()))
                    .help("Its addresses, with the lengths of their prefixes."),
            )
            .with(
                "rx_bytes",
                count(counters.rx_bytes, "bytes", "Bytes received."),
            )
            .with("tx_bytes", count(counters.tx_bytes, "bytes", "Bytes sent."))
            .with(
                "rx_packets",
                count(counters.rx_packets, "packets", "Packets received."),
            )
            .with(
                "tx_packets",
                count(counters.tx_packets, "packets", "Packets sent."),
            )
            .with(
                "rx_errors",
                count(counters.rx_errors, "packets", "Damaged packets received."),
            )
            .with(
                "tx_errors",
                count(
                    counters.tx_errors,
                    "packets",
                    "Packets that could not be sent.",
                ),
            )
            .with(
                "rx_drops",
                count(
                    counters.rx_dropped,
                    "packets",
                    "Received packets for which there was no room.",
                ),
            )
            .with(
                "tx_drops",
                count(
                    counters.tx_dropped,
                    "packets",
                    "Packets to send for which there was no room.",
                ),
            );
        (link.name, branch)
    };
    stack.links().into_iter().map(interface).collect()
}

fn name_of(links: &[LinkInfo], index: u32) -> Value {
    let link = links.iter().find(|link| link.index == index);
    link.map_or_else(|| Value::text(index), |link| Value::text(&link.name))
}

fn routes(stack: &Stack) -> Vec<Value> {
    let links = stack.links();
    let route = |route: RouteInfo| {
        let mut entries = Vec::from([
            (
                "to".into(),
                Value::text(format_args!("{}/{}", route.dst.addr, route.dst.prefix)),
            ),
            ("interface".into(), name_of(&links, route.index)),
        ]);
        if let Some(gateway) = route.gateway {
            entries.push(("via".into(), Value::text(gateway)));
        }
        if let Some(source) = route.source {
            entries.push(("source".into(), Value::text(source)));
        }
        entries.push(("metric".into(), Value::integer(route.metric)));
        Value::Map(entries)
    };
    stack.routes().into_iter().map(route).collect()
}

fn neighbours(stack: &Stack) -> Vec<Value> {
    let links = stack.links();
    let state = |state| match state {
        NeighbourState::Incomplete => "incomplete",
        NeighbourState::Reachable => "reachable",
        NeighbourState::Stale => "stale",
        NeighbourState::Delay => "delay",
        NeighbourState::Probe => "probe",
        NeighbourState::Failed => "failed",
        NeighbourState::Permanent => "permanent",
    };
    let neighbours = stack.neighbours().into_iter();
    neighbours
        .map(|neighbour| {
            Value::Map(Vec::from([
                ("address".into(), Value::text(neighbour.addr)),
                ("interface".into(), name_of(&links, neighbour.index)),
                (
                    "mac".into(),
                    neighbour
                        .mac
                        .as_ref()
                        .map_or_else(String::new, hardware)
                        .into(),
                ),
                ("state".into(), state(neighbour.state).into()),
            ]))
        })
        .collect()
}

/// The names of the states, by Linux's numbers (`net/tcp_states.h`).
const STATES: [&str; 13] = [
    "unknown",
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "syn-received",
];

fn connections(stack: &Stack) -> Vec<(String, Branch)> {
    let mut all: Vec<(&str, SocketInfo, Option<TcpInfo>)> = Vec::new();
    all.extend(
        stack
            .listeners
            .list()
            .into_iter()
            .map(|info| ("tcp", info, None)),
    );
    all.extend(
        stack
            .udp_sockets()
            .into_iter()
            .map(|info| ("udp", info, None)),
    );
    for (key, found) in stack.flows.list().into_iter().take(MAX_CONNECTIONS) {
        let mut info = SocketInfo {
            ipv6: key.local.is_ipv6(),
            local: (key.local, key.lport).into(),
            remote: (key.remote, key.rport).into(),
            state: 6,
            send_queue: 0,
            recv_queue: 0,
            drops: 0,
            retransmits: 0,
        };
        let mut tcp = None;
        match found {
            Found::Conn(conn) => {
                conn.describe(&mut info);
                if let Ok(Opt::Info(read)) = conn.option(OptName::Info) {
                    tcp = Some(*read);
                }
            }
            Found::Half(_) => info.state = 3,
            Found::Wait => {}
        }
        all.push(("tcp", info, tcp));
    }
    all.truncate(MAX_CONNECTIONS);
    let connection = |(protocol, info, tcp): (&str, SocketInfo, Option<TcpInfo>)| {
        let state = match protocol {
            "udp" => "open",
            _ => STATES.get(usize::from(info.state)).unwrap_or(&"unknown"),
        };
        let size = |bytes: usize, help| Leaf::fixed(Value::Size(bytes as u64)).help(help);
        let mut branch = Branch::new("A connection or a socket.")
            .with("protocol", text(protocol).help("tcp or udp."))
            .with("state", text(state).help("Its state, as ss(8) names it."))
            .with(
                "local",
                text(info.local).help("The local address and port."),
            )
            .with(
                "remote",
                text(info.remote).help("The peer's address and port."),
            )
            .with(
                "rx_queue",
                size(
                    info.recv_queue,
                    "Bytes to read; of a listener, connections to accept.",
                ),
            )
            .with(
                "tx_queue",
                size(
                    info.send_queue,
                    "Bytes not yet acknowledged; of a listener, the backlog's limit.",
                ),
            );
        if protocol == "udp" {
            branch = branch.with(
                "drops",
                Leaf::fixed(Value::integer(info.drops))
                    .counter()
                    .unit("packets")
                    .help("Datagrams for which there was no room."),
            );
        }
        if let Some(tcp) = tcp {
            branch = branch.with(
                "info",
                Leaf::fixed(Value::Map(tcp_info(&tcp)))
                    .help("TCP_INFO, as struct tcp_info of linux/tcp.h."),
            );
        }
        (format!("{protocol}-{}-{}", info.local, info.remote), branch)
    };
    all.into_iter().map(connection).collect()
}

/// The fields of `struct tcp_info`; those in microseconds say so.
fn tcp_info(info: &TcpInfo) -> Vec<(String, Value)> {
    let numbers = [
        ("ca_state", info.ca_state.into()),
        ("retransmits", info.retransmits.into()),
        ("backoff", info.backoff.into()),
        ("options", info.options.into()),
        ("snd_wscale", info.snd_wscale.into()),
        ("rcv_wscale", info.rcv_wscale.into()),
        ("rto_us", info.rto.into()),
        ("rtt_us", info.rtt.into()),
        ("rttvar_us", info.rttvar.into()),
        ("min_rtt_us", info.min_rtt.into()),
        ("rcv_rtt_us", info.rcv_rtt.into()),
        ("snd_mss", info.snd_mss.into()),
        ("rcv_mss", info.rcv_mss.into()),
        ("advmss", info.advmss.into()),
        ("pmtu", info.pmtu.into()),
        ("snd_cwnd", info.snd_cwnd.into()),
        ("snd_ssthresh", info.snd_ssthresh.into()),
        ("rcv_ssthresh", info.rcv_ssthresh.into()),
        ("rcv_space", info.rcv_space.into()),
        ("snd_wnd", info.snd_wnd.into()),
        ("rcv_wnd", info.rcv_wnd.into()),
        ("unacked", info.unacked.into()),
        ("sacked", info.sacked.into()),
        ("lost", info.lost.into()),
        ("retrans", info.retrans.into()),
        ("reordering", info.reordering.into()),
        ("total_retrans", info.total_retrans.into()),
        ("bytes_acked", info.bytes_acked),
        ("bytes_received", info.bytes_received),
        ("bytes_sent", info.bytes_sent),
        ("bytes_retrans", info.bytes_retrans),
        ("segs_out", info.segs_out.into()),
        ("segs_in", info.segs_in.into()),
        ("data_segs_out", info.data_segs_out.into()),
        ("data_segs_in", info.data_segs_in.into()),
        ("notsent_bytes", info.notsent_bytes.into()),
        ("delivered", info.delivered.into()),
        ("delivery_rate", info.delivery_rate),
        ("pacing_rate", info.pacing_rate),
        ("busy_time_us", info.busy_time),
        ("rwnd_limited_us", info.rwnd_limited),
        ("sndbuf_limited_us", info.sndbuf_limited),
        ("last_data_sent_ms", info.last_data_sent.into()),
        ("last_data_recv_ms", info.last_data_recv.into()),
    ];
    numbers
        .map(|(name, value): (&str, u64)| (name.into(), Value::integer(value)))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::socket::{Family, Kind};
    use store::{Path, Store};

    #[test]
    fn what_is_open_is_shown() {
        let stack = Stack::new(Config::new(Arc::new(|| 1), [1, 2, 3, 4]));
        let socket = stack.socket(Family::Inet, Kind::Stream, 0).unwrap();
        socket.bind("127.0.0.1:8000".parse().unwrap()).unwrap();
        socket.listen(5).unwrap();
        let client = stack.socket(Family::Inet, Kind::Stream, 0).unwrap();
        let _ = client.connect(Some("127.0.0.1:8000".parse().unwrap()));
        let store = Store::unshared(Branch::new("").with("net", branch(&stack)));
        let read = |text: &str| {
            store
                .read(&Path::parse(text).unwrap())
                .map(|value| value.to_json())
        };
        assert_eq!(read("/net/interfaces/lo/up").unwrap(), "true");
        assert_eq!(
            read("/net/interfaces/lo/addresses").unwrap(),
            r#"["127.0.0.1/8","::1/128"]"#
        );
        assert_eq!(
            read("/net/connections/tcp-127.0.0.1:8000-0.0.0.0:0/state").unwrap(),
            "\"listen\""
        );
        let connections = store
            .get(&Path::parse("/net/connections").unwrap(), 3)
            .unwrap();
        assert!(
            connections.contains("\"rtt_us\"") && connections.contains("\"info\""),
            "{connections}"
        );
        assert_eq!(read("/net/drops/tcp_checksum").unwrap(), "0");
        let metrics = store::metrics::render(&store, store::metrics::Format::OpenMetrics).unwrap();
        for line in [
            "nanos_net_rx_bytes_total{interface=\"lo\"} ",
            "nanos_net_drops_total{reason=\"udp_no_listener\"} 0",
            "nanos_net_tcp_total{counter=\"ActiveOpens\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}\n{metrics}");
        }
    }

    #[test]
    fn new_sockets_start_with_what_was_set() {
        let stack = Stack::new(Config::new(Arc::new(|| 1), [1, 2, 3, 4]));
        let store = Store::unshared(Branch::new("").with("net", branch(&stack)));
        let set = |name: &str, value: Value| {
            let path = Path::parse(&format!("/net/tcp/{name}")).unwrap();
            store
                .set(&path, value.clone(), &store::By("a test".into()))
                .map(|()| assert_eq!(store.read(&path).unwrap(), value))
        };
        set("congestion", "reno".into()).unwrap();
        assert!(set("congestion", "vegas".into()).is_err());
        set("keepalive_idle", Value::Integer(60)).unwrap();
        assert!(set("keepalive_idle", Value::Integer(0)).is_err());
        set("receive_buffer", Value::Size(1 << 20)).unwrap();
        assert!(set("receive_buffer", Value::Size(1)).is_err());
        let socket = stack.socket(Family::Inet, Kind::Stream, 0).unwrap();
        assert_eq!(socket.option(OptName::KeepIdle), Ok(Opt::KeepIdle(60)));
        assert_eq!(
            socket.option(OptName::Congestion),
            Ok(Opt::Congestion(Congestion::Reno))
        );
        assert_eq!(stack.tcp_defaults().rmem_max(), 1 << 20);
    }
}
