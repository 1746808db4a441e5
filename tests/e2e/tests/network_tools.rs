//! The distribution's own network tools, each as the one program: `ip` looks and changes, `ss` lists, `ping` is answered, `tcpdump`
//! captures.
#![forbid(unsafe_code)]

use anyhow::Result;
use e2e::Ops;

/// `ip` remembers the family of what it showed last: addresses come first.
const BATCH: &str = "addr add 10.9.9.9/24 dev en1
addr show dev en1
link set dev en1 mtu 1400
link show dev en1
route add 10.50.0.0/16 via 10.9.9.1
route show 10.50.0.0/16
neigh add 10.9.9.7 lladdr 02:00:00:00:00:07 dev en1
neigh show 10.9.9.7
route get 10.50.1.1
route del 10.50.0.0/16
addr del 10.9.9.9/24 dev en1
route show 10.50.0.0/16
link set en1 down
link show en1
";

#[test]
fn ip_looks_at_the_network_and_changes_it() -> Result<()> {
    let ops = Ops::new()?;
    let run = [
        "run",
        "/usr/sbin/ip",
        "--disable-args-copy",
        "-a",
        "-batch",
        "-a",
        "-",
    ];
    let output = ops.run_with_input(&run, BATCH.as_bytes())?;
    assert_eq!(output.code(), 0, "{output:?}");
    let told = output.stdout.replace("\r\n", "\n");
    for line in [
        "mtu 1400 qdisc fq_codel state UP",
        "10.50.0.0/16 via 10.9.9.1 dev en1",
        "10.9.9.7 dev en1 lladdr 02:00:00:00:00:07 PERMANENT",
        "    inet 10.9.9.9/24 brd 10.9.9.255 scope global en1",
        "10.50.1.1 via 10.9.9.1 dev en1 src 10.9.9.9",
        "en1: <BROADCAST,MULTICAST> mtu 1400",
    ] {
        assert!(told.contains(line), "{line}: {output:?}");
    }
    // Shown while it was there, and not after it went.
    assert_eq!(
        told.matches("10.50.0.0/16 via 10.9.9.1 dev en1 \n").count(),
        1,
        "{output:?}"
    );
    Ok(())
}

#[test]
fn ss_lists_its_own_socket() -> Result<()> {
    let run = ["run", "/usr/bin/ss", "--disable-args-copy", "-a", "-an"];
    let output = Ops::new()?.run(&run)?;
    assert_eq!(output.code(), 0, "{output:?}");
    let netlink = |line: &str| line.starts_with("nl ") && line.contains("UNCONN");
    assert!(output.stdout.lines().any(netlink), "{output:?}");
    assert!(!output.stdout.contains("answers:"), "{output:?}");
    assert!(!output.stderr.contains("answers:"), "{output:?}");
    Ok(())
}

#[test]
fn a_ping_is_answered_over_the_loopback_and_by_the_router() -> Result<()> {
    let ops = Ops::new()?;
    for to in ["127.0.0.1", "::1", "10.0.2.2"] {
        let run = [
            "run",
            "/usr/bin/ping",
            "--disable-args-copy",
            "-a",
            "-c",
            "-a",
            "2",
            "-a",
            to,
        ];
        let output = ops.run(&run)?;
        assert_eq!(output.code(), 0, "{to}: {output:?}");
        let all = "2 packets transmitted, 2 received, 0% packet loss";
        assert!(output.stdout.contains(all), "{to}: {output:?}");
    }
    Ok(())
}

/// Through libpcap: the mapped ring, and a filter in byte code.
#[test]
fn tcpdump_captures_what_its_filter_wants() -> Result<()> {
    let mut run = vec!["run", "/usr/bin/tcpdump", "--disable-args-copy"];
    for word in [
        "-Z",
        "root",
        "-c",
        "1",
        "-ni",
        "en1",
        "icmp6[icmp6type] == icmp6-routersolicit",
    ] {
        run.extend(["-a", word]);
    }
    let output = Ops::new()?.run(&run)?;
    assert_eq!(output.code(), 0, "{output:?}");
    let asked = "> ff02::2: ICMP6, router solicitation, length 16";
    assert!(output.stdout.contains(asked), "{output:?}");
    assert!(
        output.stdout.contains("0 packets dropped by kernel"),
        "{output:?}"
    );
    Ok(())
}
