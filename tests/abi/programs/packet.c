/* Packet sockets on the loopback: bind, addresses, both kinds, statistics, auxiliary data, memberships. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>

static int udp_out, udp_in; static struct sockaddr_in to;
static void datagram(const char *text) { sendto(udp_out, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to); }
static void patience(int fd) { struct timeval t = { 1, 0 }; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); }

/* The next frame of our own datagrams; others may pass on a machine that is in use. */
static long ours(int fd, unsigned char *b, int skip, struct sockaddr_ll *from, socklen_t *n) {
    for (int i = 0; i < 1000; i++) {
        *n = sizeof *from; long r = recvfrom(fd, b, 2000, 0, (struct sockaddr *)from, n);
        if (r < 0) return r;
        if (r >= skip + 28 && b[skip + 9] == 17 && !memcmp(b + skip + 22, &to.sin_port, 2)) return r;
    }
    return -2;
}

int main(void) {
    enter("packet");
    udp_in = socket(AF_INET, SOCK_DGRAM, 0); udp_out = socket(AF_INET, SOCK_DGRAM, 0);
    to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; bind(udp_in, (struct sockaddr *)&to, sizeof to);
    socklen_t n = sizeof to; getsockname(udp_in, (struct sockaddr *)&to, &n);
    T(socket(AF_PACKET, SOCK_STREAM, 0)); T(socket(AF_PACKET, SOCK_SEQPACKET, 0));
    int raw = OK(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP))), dgram = OK(socket(AF_PACKET, SOCK_DGRAM, 0)); patience(raw); patience(dgram);
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1 }, from; unsigned char b[2000];
    T(getsockname(dgram, (struct sockaddr *)&from, (n = sizeof from, &n))); SHOW(n); SHOW(from.sll_ifindex); SHOW(from.sll_halen);
    T(bind(dgram, (struct sockaddr *)&a, 10)); a.sll_ifindex = 9999; T(bind(dgram, (struct sockaddr *)&a, sizeof a)); a.sll_ifindex = 1; T(bind(dgram, (struct sockaddr *)&a, sizeof a));
    a.sll_protocol = 0; T(bind(raw, (struct sockaddr *)&a, sizeof a));
    T(getsockname(dgram, (struct sockaddr *)&from, (n = sizeof from, &n))); SHOW(n); SHOW(from.sll_ifindex); SHOW(from.sll_hatype); SHOW(ntohs(from.sll_protocol)); SHOW(from.sll_halen);
    T(getpeername(raw, (struct sockaddr *)&from, &n)); T(connect(raw, (struct sockaddr *)&a, sizeof a)); T(listen(raw, 1)); T(shutdown(raw, SHUT_RD));

    TEXT("-- receiving");
    datagram("data"); T(ours(raw, b, 14, &from, &n)); SHOW(n); SHOW(from.sll_pkttype); SHOW(ntohs(from.sll_protocol)); SHOW(from.sll_hatype); SHOW(from.sll_halen); SHOW(b[12] << 8 | b[13]); TEXT("%.4s", b + 42);
    T(ours(dgram, b, 0, &from, &n)); SHOW(from.sll_pkttype); TEXT("%.4s", b + 28); T(ours(dgram, b, 0, &from, &n)); SHOW(from.sll_pkttype);
    datagram("longer data"); struct pollfd p = { raw, POLLIN | POLLOUT, 0 }; T(poll(&p, 1, 1000)); SHOW(p.revents);
    T(recv(raw, b, 10, MSG_PEEK) == 10); T(recv(raw, b, 10, MSG_TRUNC) >= 28);

    TEXT("-- options");
    int v = 1; T(setsockopt(raw, SOL_PACKET, PACKET_AUXDATA, &v, sizeof v)); T(setsockopt(raw, SOL_PACKET, 99, &v, sizeof v)); T(setsockopt(raw, SOL_PACKET, PACKET_AUXDATA, &v, 1));
    struct tpacket_stats st; n = sizeof st; T(getsockopt(raw, SOL_PACKET, PACKET_STATISTICS, &st, &n)); SHOW(n); SHOW(st.tp_packets >= 2); SHOW(st.tp_drops);
    T(getsockopt(raw, SOL_PACKET, PACKET_AUXDATA, &v, (n = sizeof v, &n))); SHOW(v);
    datagram("aux"); char control[256]; struct iovec iov = { b, sizeof b }; struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    T(recvmsg(raw, &m, 0) >= 42);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct tpacket_auxdata *x = (void *)CMSG_DATA(c);
        TEXT("level %d type %d len %d", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len); SHOW(x->tp_len == x->tp_snaplen); SHOW(x->tp_mac); SHOW(x->tp_net); SHOW(x->tp_status & 1); SHOW(x->tp_vlan_tci);
    }
    struct packet_mreq r = { .mr_ifindex = 1, .mr_type = PACKET_MR_PROMISC };
    T(setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &r, sizeof r)); T(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &r, sizeof r)); T(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &r, 4));
    r.mr_ifindex = 9999; T(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &r, sizeof r)); r.mr_ifindex = 1; T(setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &r, sizeof r));

    TEXT("-- sending");
    int in = OK(socket(AF_PACKET, SOCK_RAW, htons(0x88b5))); patience(in); a.sll_protocol = htons(0x88b5); a.sll_halen = 6; T(bind(in, (struct sockaddr *)&a, sizeof a));
    unsigned char f[64] = { 0 }; f[12] = 0x88; f[13] = 0xb5; memcpy(f + 14, "frame", 5);
    T(send(raw, f, 10, 0)); T(send(raw, f, 60, 0)); T(recvfrom(in, b, sizeof b, 0, (struct sockaddr *)&from, (n = sizeof from, &n))); SHOW(from.sll_pkttype); TEXT("%.5s", b + 14); SHOW(ntohs(from.sll_protocol));
    T(sendto(dgram, "payload", 7, 0, (struct sockaddr *)&a, sizeof a)); T(recv(in, b, sizeof b, 0)); TEXT("%.7s", b + 14); SHOW(b[12] << 8 | b[13]);
    a.sll_ifindex = 9999; T(sendto(raw, f, 60, 0, (struct sockaddr *)&a, sizeof a)); a.sll_ifindex = 1; T(sendto(raw, f, 60, 0, (struct sockaddr *)&a, 10));
    int loose = OK(socket(AF_PACKET, SOCK_RAW, 0)); T(send(loose, f, 60, 0)); T(recv(loose, b, sizeof b, MSG_DONTWAIT));
    close(raw); close(dgram); close(in); close(loose); close(udp_in); close(udp_out);
    return leave();
}
