"""The host's side of the card's offload test (kernel/drivertest/src/offload.rs): a TAP device with MTU 9000, a UDP echo on
port 7, a TCP sink on port 9. Run inside a fresh network namespace: unshare -n python3 offload.py <qemu and its arguments>;
the card's network is to be `-netdev tap,id=net,ifname=tap0,...`. Fails unless the machine passes and the sink got it all."""
import socket, subprocess, sys, threading

for words in (
    "link set lo up",
    "tuntap add dev tap0 mode tap vnet_hdr",
    "addr add 10.0.2.2/24 dev tap0",
    "link set tap0 mtu 9000 up",
):
    subprocess.run(["ip"] + words.split(), check=True)

udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("10.0.2.2", 7))
tcp = socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
tcp.bind(("10.0.2.2", 9))
tcp.listen(1)
tcp.settimeout(100)

def echo():
    while True:
        data, sender = udp.recvfrom(65536)
        udp.sendto(data, sender)

received = bytearray()

def sink():
    peer, _ = tcp.accept()
    peer.settimeout(20)
    while part := peer.recv(65536):
        received.extend(part)

threading.Thread(target=echo, daemon=True).start()
sinking = threading.Thread(target=sink, daemon=True)
sinking.start()
code = subprocess.run(sys.argv[1:], timeout=110).returncode
sinking.join(20)
expected = bytes(((i * 31) >> 3) & 255 for i in range(50000))
assert bytes(received) == expected, "the sink got %d other bytes" % len(received)
# The exit device turns code 0 into status 1.
sys.exit(0 if code == 1 else "the machine ended with %d" % code)
