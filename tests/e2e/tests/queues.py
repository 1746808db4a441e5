"""The host's side of the test of several queues (tap.rs): makes a tap device, starts the tool with the words given, echoes
over 24 connections, and looks at QEMU's queues. Run inside a fresh network namespace: unshare -n python3 queues.py QUEUES
ops run ... The device has several queues if QUEUES is not 0; that many the machine must have put to use, and all of them
must have received; with 0, the one there is."""
import json, re, socket, subprocess, sys, threading, time

queues = int(sys.argv[1])
kind = ["multi_queue"] if queues else []
for words in (
    "link set lo up".split(),
    "tuntap add dev tap0 mode tap".split() + kind,
    "addr add 10.8.0.1/24 dev tap0".split(),
    "link set tap0 up".split(),
):
    subprocess.run(["ip"] + words, check=True)

tool = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
said = []

def listen():
    for line in tool.stdout:
        said.append(line)

threading.Thread(target=listen, daemon=True).start()

def until(what, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        if tool.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit("the tool said:\n" + "".join(said))

try:
    until(lambda: len(re.findall(r"CPU \d+ listens", "".join(said))) >= max(queues, 1))
    port = int(until(lambda: re.search(r"QMP listens on 127.0.0.1:(\d+)", "".join(said)))[1])
    peers = [socket.create_connection(("10.8.0.2", 7), 10) for _ in range(24)]
    for round in range(20):
        for at, peer in enumerate(peers):
            peer.settimeout(10)
            peer.sendall(bytes((at + round + i) & 255 for i in range(3000)))
        for at, peer in enumerate(peers):
            data = b""
            while len(data) < 3000:
                part = peer.recv(65536)
                assert part, "the machine hung up"
                data += part
            assert data == bytes((at + round + i) & 255 for i in range(3000)), "other bytes came back"

    qmp = socket.create_connection(("127.0.0.1", port), 10).makefile("rw")
    qmp.readline()

    def ask(what, **arguments):
        qmp.write(json.dumps({"execute": what, "arguments": arguments}) + "\n")
        qmp.flush()
        while True:
            answer = json.loads(qmp.readline())
            if "event" not in answer:
                return answer

    ask("qmp_capabilities")
    card = next(d["path"] for d in ask("x-query-virtio")["return"] if d["name"] == "virtio-net")
    used = []
    for queue in range(max(queues, 1)):
        # A receive queue and a send queue for each pair.
        status = ask("x-query-virtio-queue-status", path=card, queue=2 * queue)
        used.append(status["return"]["used-idx"] if "return" in status else 0)
    link = subprocess.run(["ip", "-d", "link", "show", "tap0"], check=True, capture_output=True, text=True).stdout
    attached = re.search(r"numqueues (\d+)", link)
    print("received on each queue:", used, "attached:", attached and attached[1])
    # 24 connections over a hash: that one queue gets fewer than 2 of 480 messages does not happen.
    assert all(count > 40 for count in used), "a queue was not used"
    if queues:
        assert attached and int(attached[1]) == queues, link
finally:
    tool.terminate()
    try:
        tool.wait(10)
    except subprocess.TimeoutExpired:
        tool.kill()
