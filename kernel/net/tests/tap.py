"""Linux's own stack against the engine, through a TAP device. Run inside a fresh network namespace:
unshare -n python3 tap.py <the example `tap`> <loss in a million> <delay each way in ms> <bytes>."""
import fcntl, os, socket, struct, subprocess, sys, threading, time

program, loss, delay, total = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", b"tap0", 0x0002 | 0x1000))
for words in ("link set lo up", "link set tap0 up", "addr add 10.9.0.1/24 dev tap0"):
    subprocess.run(["ip"] + words.split(), check=True)
env = dict(os.environ, NET_LOSS=loss, NET_DELAY_MS=delay)
engine = subprocess.Popen([program], stdin=tap, env=env)
pattern = bytes(range(251))

def connect(port):
    for _ in range(50):
        try:
            s = socket.create_connection(("10.9.0.2", port), timeout=120)
            s.settimeout(120)
            return s
        except (ConnectionRefusedError, OSError):
            time.sleep(0.1)
    raise SystemExit("no connection to port %d" % port)

def stream(n):
    return (pattern * (n // 251 + 1))[:n]

try:
    data = stream(total)
    # Towards the engine.
    s = connect(9)
    start = time.time()
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    answer = s.makefile().readline().strip()
    assert answer == str(total), answer
    up = time.time() - start
    s.close()
    # From the engine.
    s = connect(19)
    start = time.time()
    s.sendall(b"%d\n" % total)
    got = bytearray()
    while len(got) < total:
        part = s.recv(1 << 18)
        assert part, "ended after %d" % len(got)
        got += part
    assert s.recv(1) == b"", "more than asked for"
    assert got == data, "not what was sent"
    down = time.time() - start
    s.close()
    # Both ways at once, on several connections.
    def both(n):
        s = connect(7)
        mine = stream(total // 8)
        back = bytearray()
        def reader():
            while len(back) < len(mine):
                part = s.recv(65536)
                if not part:
                    return
                back.extend(part)
        t = threading.Thread(target=reader)
        t.start()
        s.sendall(mine)
        t.join(100)
        s.close()
        assert back == mine, "echo %d: %d of %d" % (n, len(back), len(mine))
    failed = []
    def guarded(n):
        try:
            both(n)
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failed, failed
    # Many short ones.
    start = time.time()
    for n in range(50):
        s = connect(7)
        s.sendall(b"ping %d" % n)
        assert s.recv(100) == b"ping %d" % n
        s.close()
    print("loss %s delay %s: up %.1f MB/s, down %.1f MB/s, short ones %.1f ms" % (
        loss, delay, total / up / 1e6, total / down / 1e6, (time.time() - start) * 20))
    assert engine.poll() is None, "the engine ended"
finally:
    engine.kill()
    engine.wait()
