"""SYNs from everywhere, as fast as the machine takes them, while clients ask. Run inside a fresh network namespace:
unshare -n python3 synflood.py <seconds> <the tool and its arguments>; the machine's network is to be the TAP device tap0, its address
10.9.0.2, its router 10.9.0.1. Fails unless the clients were served all the time, by handshakes without state."""
import fcntl, random, socket, struct, subprocess, sys, threading, time

seconds, tool = float(sys.argv[1]), sys.argv[2:]

for words in ("link set lo up", "tuntap add dev tap0 mode tap", "addr add 10.9.0.1/24 dev tap0", "link set tap0 up"):
    subprocess.run(["ip"] + words.split(), check=True)

def ask(line, patience=10):
    with socket.create_connection(("10.9.0.2", 80), timeout=patience) as s:
        s.sendall(line + b"\n")
        return b"".join(iter(lambda: s.recv(65536), b""))

def folded(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def syn(mac, own):
    """One from somewhere in 198.18.0.0/15 (RFC 2544), with the options that Linux sends."""
    source = struct.pack("!I", 0xC6120000 | random.getrandbits(17))
    to = socket.inet_aton("10.9.0.2")
    tcp = struct.pack("!HHIIBBHHH", random.randrange(1024, 65536), 80, random.getrandbits(32), 0, 0xA0, 2, 64240, 0, 0)
    tcp += bytes.fromhex("020405b40402080a") + random.randbytes(4) + bytes(4) + bytes.fromhex("01030307")
    total = folded(source + to + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), random.getrandbits(16), 0x4000, 60, 6, 0) + source + to
    ip = ip[:10] + struct.pack("!H", folded(ip)) + ip[12:]
    return mac + own + b"\x08\x00" + ip + tcp

def flood(frames, stop, count):
    """Slows down for a moment when the card's queue is full: as fast as the machine takes them, and no faster."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("tap0", 0))
    devices, dropped, pause = open("/proc/self/net/dev"), 0, 0.0
    while not stop.is_set():
        for start in range(0, len(frames), 32):
            for frame in frames[start:start + 32]:
                s.send(frame)
            count[0] += 32
            devices.seek(0)
            # Bytes, packets, errors and drops: eight columns of what came, then those of what went.
            now = int(next(row for row in devices if "tap0" in row).split()[12])
            pause = min(pause * 1.5 + 0.0002, 0.01) if now > dropped else pause * 0.8
            dropped = now
            if pause > 0.0001:
                time.sleep(pause)
            if stop.is_set():
                break
    count[1] = dropped

machine = subprocess.Popen(tool, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
try:
    line = next((line for line in machine.stdout if "ready" in line), None)
    assert line, "the machine ended early"
    assert ask(b"hello") == b"served\n"
    with socket.socket() as s:
        own = fcntl.ioctl(s, 0x8927, struct.pack("40s", b"tap0"))[18:24]  # SIOCGIFHWADDR
    told = subprocess.run(["ip", "neigh", "show", "10.9.0.2"], capture_output=True, text=True, check=True).stdout.split()
    mac = bytes.fromhex(told[told.index("lladdr") + 1].replace(":", ""))
    frames = [syn(mac, own) for _ in range(16384)]
    stop, count = threading.Event(), [0, 0]
    sender = threading.Thread(target=flood, args=(frames, stop, count), daemon=True)
    sender.start()
    time.sleep(0.3)
    waits, wrong, end = [], [], time.monotonic() + seconds
    def client():
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                assert ask(b"hello") == b"served\n"
                waits.append(time.monotonic() - start)
            except Exception as error:
                wrong.append(error)
    # Several, for who loses its first SYN on the way to the machine asks again only after a second.
    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    stop.set()
    assert not wrong, wrong
    sender.join(10)
    rows = ask(b"counts").decode().splitlines()
    counts = dict(zip(rows[0].split()[1:], map(int, rows[1].split()[1:])))
    cookies = counts["SyncookiesSent"]
    waits.sort()
    print("%d SYNs (%.0f/s), %d lost before the machine, %d cookies sent; %d clients served, half of them within %.0f ms, the last within %.0f ms"
          % (count[0], count[0] / (seconds + 0.3), count[1], cookies, len(waits), waits[len(waits) // 2] * 1000, waits[-1] * 1000))
    assert cookies > 1000, "hardly a flood: %d cookies" % cookies
    assert counts["SyncookiesRecv"] > 0 and counts["ListenOverflows"] == 0, counts
    assert len(waits) >= 4 * seconds, "only %d clients" % len(waits)
    # The flood is over: served at once, and by a machine that still ends as it should.
    start = time.monotonic()
    assert ask(b"hello") == b"served\n" and time.monotonic() - start < 2
    ask(b"end")
    sys.exit(machine.wait(30))
finally:
    machine.kill()
