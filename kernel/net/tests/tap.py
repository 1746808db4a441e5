"""Linux's own stack against the engine, through a TAP device. Run inside a fresh network namespace:
unshare -n python3 tap.py <the example `tap`> <engine|linux> <4|6> <what> <bytes>
The environment says how bad the network is (NET_LOSS, NET_DELAY_MS, ... see examples/tap/link.rs). With `linux`
the other end is a second namespace's stack behind the same link, to compare. What: `all` (towards it,
from it, echoes at once, short ones) or `rate` (four connections each way, prints seconds)."""
import ctypes, fcntl, os, signal, socket, struct, subprocess, sys, threading, time

program, peer, family, what, total = sys.argv[1:5] + [int(sys.argv[5])]
v6 = family == "6"
PATTERN = bytes(range(251))

def device(name, last):
    """A TAP device with its addresses, up. The link alone delays: no offload is asked of Linux."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", name.encode(), 0x0002 | 0x1000))
    for words in ("link set lo up", "link set %s up" % name, "addr add 10.9.0.%d/24 dev %s" % (last, name),
                  "addr add fd09::%d/64 dev %s nodad" % (last, name)):
        subprocess.run(["ip"] + words.split(), check=True)
    return tap

def usual(s):
    try:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    except OSError:
        pass  # built without: what it has will do
    s.settimeout(120)
    return s

def connect(port):
    for _ in range(100):
        s = usual(socket.socket(socket.AF_INET6 if v6 else socket.AF_INET))
        try:
            s.connect(("fd09::2" if v6 else "10.9.0.2", port))
            return s
        except OSError:
            s.close()
            time.sleep(0.1)
    raise SystemExit("no connection to port %d" % port)

def stream(n):
    return (PATTERN * (n // 251 + 1))[:n]

def serve(s, port):
    """What examples/tap does, on Linux."""
    count = 0
    if port == 19:
        s.sendall(stream(int(s.makefile().readline())))
    while port != 19:
        data = s.recv(1 << 16)
        if not data:
            break
        count += len(data)
        if port == 7:
            s.sendall(data)
    if port == 9:
        s.sendall(b"%d\n" % count)
    s.close()

def linux_peer(channel):
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        os._exit(3)
    tap = device("tap1", 2)
    socket.send_fds(channel, [b"x"], [tap])
    for port in (7, 9, 19):
        listener = usual(socket.socket(socket.AF_INET6))
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        listener.listen(64)
        listener.settimeout(None)
        def accept(listener=listener, port=port):
            while True:
                s = usual(listener.accept()[0])
                threading.Thread(target=serve, args=(s, port), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
    signal.pause()

def towards(n):
    s = connect(9)
    s.sendall(stream(n))
    s.shutdown(socket.SHUT_WR)
    answer = s.makefile().readline().strip()
    assert answer == str(n), answer
    s.close()

def back(n):
    s = connect(19)
    s.sendall(b"%d\n" % n)
    got = bytearray()
    while len(got) < n:
        part = s.recv(1 << 18)
        assert part, "ended after %d" % len(got)
        got += part
    assert s.recv(1) == b"", "more than asked for"
    assert got == stream(n), "not what was sent"
    s.close()

def echo(n):
    s = connect(7)
    mine, got = stream(n), bytearray()
    def reader():
        while len(got) < len(mine):
            part = s.recv(65536)
            if not part:
                return
            got.extend(part)
    t = threading.Thread(target=reader)
    t.start()
    s.sendall(mine)
    t.join(100)
    s.close()
    assert got == mine, "echo: %d of %d" % (len(got), len(mine))

def at_once(count, job, n):
    failed = []
    def guarded():
        try:
            job(n)
        except BaseException as error:
            failed.append(error)
    start = time.time()
    threads = [threading.Thread(target=guarded) for _ in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failed, failed
    return time.time() - start

children = []
try:
    tap = device("tap0", 1)
    if peer == "linux":
        here, there = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            linux_peer(there)
        children.append(pid)
        _, fds, _, _ = socket.recv_fds(here, 1, 1)
        engine = subprocess.Popen([program, "bridge"], stdin=tap, stdout=fds[0])
    else:
        engine = subprocess.Popen([program], stdin=tap)
    children.append(engine.pid)
    echo(10)
    if what == "rate":
        print("%.3f %.3f" % (at_once(4, towards, total), at_once(4, back, total)))
    else:
        up = at_once(1, towards, total)
        down = at_once(1, back, total)
        at_once(4, echo, total // 8)
        start = time.time()
        for n in range(20):
            echo(10 + n)
        print("IPv%s: up %.2f MB/s, down %.2f MB/s, short ones %.1f ms" % (
            family, total / up / 1e6, total / down / 1e6, (time.time() - start) * 50))
    assert engine.poll() is None, "the engine ended"
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
