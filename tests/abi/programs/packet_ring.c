/* The receive ring of packet sockets, version 2: what is refused, where things lie in a slot, a full ring, giving slots back, polling. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>

static int out, in; static struct sockaddr_in to; static char b[4096];
static void datagram(const char *text) { sendto(out, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to); recv(in, b, sizeof b, 0); }
static struct pollfd p;
static int ready(int fd) { p = (struct pollfd){ fd, POLLIN, 0 }; return poll(&p, 1, 0); }

static void slot(struct tpacket2_hdr *h, int shown) {
    struct sockaddr_ll *a = (void *)((char *)h + TPACKET_ALIGN(sizeof *h)); TEXT("status %x len %u snaplen %u mac %u net %u vlan %u", h->tp_status & (TP_STATUS_USER | TP_STATUS_LOSING), h->tp_len, h->tp_snaplen, h->tp_mac, h->tp_net, h->tp_vlan_tci);
    TEXT("  family %d protocol %x index %d hardware %d kind %d address %d, time %d: %.*s", a->sll_family, ntohs(a->sll_protocol), a->sll_ifindex, a->sll_hatype, a->sll_pkttype, a->sll_halen, h->tp_sec > 1000000000 && h->tp_nsec < 1000000000, shown, (char *)h + h->tp_net + 28);
}

static void conversation(int kind) {
    TEXT("-- kind %d", kind); int s = OK(socket(AF_PACKET, kind, 0)), v = TPACKET_V2, r = 32; socklen_t n;
    struct tpacket_req q = { 4096, 2, 1024, 8 }, wrong; T(setsockopt(s, SOL_PACKET, PACKET_VERSION, &v, sizeof v)); T(setsockopt(s, SOL_PACKET, PACKET_RESERVE, &r, sizeof r));
    v = 99; T(setsockopt(s, SOL_PACKET, PACKET_VERSION, &v, sizeof v)); T(getsockopt(s, SOL_PACKET, PACKET_VERSION, &v, (n = sizeof v, &n))); SHOW(v); T(getsockopt(s, SOL_PACKET, PACKET_RESERVE, &v, (n = sizeof v, &n))); SHOW(v);
    v = TPACKET_V2; T(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &v, (n = sizeof v, &n))); SHOW(v); v = 77; T(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &v, (n = sizeof v, &n))); T(getsockopt(s, SOL_PACKET, PACKET_HDRLEN, &v, (n = 2, &n)));
    T(mmap(NULL, 8192, PROT_READ, MAP_SHARED, s, 0));
    wrong = q; wrong.tp_block_size = 1000; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong)); wrong = q; wrong.tp_frame_nr = 7; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong));
    wrong = q; wrong.tp_frame_size = 64; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong)); wrong = q; wrong.tp_frame_size = 1000; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong)); T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &q, 8));
    wrong = q; wrong.tp_frame_size = 8192; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong)); wrong = q; wrong.tp_block_nr = 0; T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong));
    T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &q, sizeof q)); T(setsockopt(s, SOL_PACKET, PACKET_RESERVE, &r, sizeof r)); v = TPACKET_V1; T(setsockopt(s, SOL_PACKET, PACKET_VERSION, &v, sizeof v));
    T(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0)); T(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, s, 4096));
    char *ring = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0); SHOW(ring != MAP_FAILED); if (ring == MAP_FAILED) { close(s); return; }
    memset(&wrong, 0, sizeof wrong); T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong));
    /* Our own datagrams, as they come in. */
    unsigned off = kind == SOCK_RAW ? 14 : 0; struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + SKF_AD_PKTTYPE)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 5, 0), BPF_STMT(BPF_LD | BPF_B | BPF_ABS, off + 9), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 3),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, off + 22), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(to.sin_port), 0, 1), BPF_STMT(BPF_RET | BPF_K, 0x40000), BPF_STMT(BPF_RET | BPF_K, 0) };
    struct sock_fprog f = { sizeof code / sizeof *code, code }; T(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &f, sizeof f));
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = 1 }; T(bind(s, (struct sockaddr *)&a, sizeof a));
    SHOW(ready(s)); datagram("first"); SHOW(ready(s)); SHOW(p.revents); struct tpacket2_hdr *h = (void *)ring; slot(h, 5); T(recv(s, b, sizeof b, MSG_DONTWAIT));
    h->tp_status = TP_STATUS_KERNEL; SHOW(ready(s)); memset(b, 'x', 2000); b[2000] = 0; char big[2001]; memcpy(big, b, 2001); datagram(big); h = (void *)(ring + 1024); slot(h, 3); h->tp_status = TP_STATUS_KERNEL;
    for (int i = 0; i < 10; i++) { char t[2] = { '0' + i, 0 }; datagram(t); }
    SHOW(ready(s)); for (int i = 0; i < 8; i++) { h = (void *)(ring + (i + 2) % 8 * 1024); slot(h, 1); }
    struct tpacket_stats st; T(getsockopt(s, SOL_PACKET, PACKET_STATISTICS, &st, (n = sizeof st, &n))); SHOW(st.tp_packets); SHOW(st.tp_drops);
    for (int i = 0; i < 8; i++) ((struct tpacket2_hdr *)(ring + i * 1024))->tp_status = TP_STATUS_KERNEL;
    SHOW(ready(s)); datagram("after"); SHOW(ready(s)); int found = 0; for (int i = 0; i < 8; i++) { h = (void *)(ring + i * 1024); if (h->tp_status) { SHOW(i); slot(h, 5); found++; } } SHOW(found);
    T(munmap(ring, 8192)); T(setsockopt(s, SOL_PACKET, PACKET_RX_RING, &wrong, sizeof wrong)); datagram("queued"); T(recv(s, b, sizeof b, 0)); close(s);
}

int main(void) {
    enter("packet_ring");
    in = socket(AF_INET, SOCK_DGRAM, 0); out = socket(AF_INET, SOCK_DGRAM, 0); struct timeval patience = { 2, 0 }; setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; bind(in, (struct sockaddr *)&to, sizeof to); socklen_t n = sizeof to; getsockname(in, (struct sockaddr *)&to, &n);
    conversation(SOCK_RAW); conversation(SOCK_DGRAM); close(in); close(out);
    return leave();
}
