/* Socket filters (classic BPF): attaching, what is refused, cutting and dropping on UDP, raw and packet sockets, ancillary loads, the lock. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>

#define FILTER(name, ...) struct sock_filter name##_code[] = { __VA_ARGS__ }; \
    struct sock_fprog name = { sizeof name##_code / sizeof *name##_code, name##_code }
#define ATTACH(fd, program) T(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))
#define ABSOLUTE(size, k) BPF_STMT(BPF_LD | size | BPF_ABS, (unsigned)(k))
#define RET(k) BPF_STMT(BPF_RET | BPF_K, k)
#define RETA BPF_STMT(BPF_RET | BPF_A, 0)

static int out; static struct sockaddr_in to; static char b[4096];
static void patience(int fd) { struct timeval t = { 2, 0 }; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); }
static void datagram(const char *text) { sendto(out, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to); }

/* A datagram's length after a filter that keeps as much as a load tells, plus the header: the load's value. -1: dropped. */
static long load(int fd, unsigned short code, unsigned k) {
    FILTER(tell, { code, 0, 0, k }, BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 8), RETA);
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &tell, sizeof tell)) return -errno - 1;
    memset(b, 'x', 3000); b[3000] = 0; datagram(b); return recv(fd, b, sizeof b, MSG_DONTWAIT);
}

int main(void) {
    enter("filters");
    int in = OK(socket(AF_INET, SOCK_DGRAM, 0)); out = socket(AF_INET, SOCK_DGRAM, 0); patience(in);
    to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; bind(in, (struct sockaddr *)&to, sizeof to);
    socklen_t n = sizeof to; getsockname(in, (struct sockaddr *)&to, &n);

    TEXT("-- what is refused");
    FILTER(all, RET(-1)); FILTER(none, RET(0)); FILTER(few, RET(11)); FILTER(least, RET(1));
    FILTER(endless, BPF_STMT(BPF_LD | BPF_IMM, 1)); FILTER(beyond, BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), RET(1)); FILTER(unknown, ABSOLUTE(BPF_W, SKF_AD_OFF + 2), RET(1));
    FILTER(zero, BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RET(1)); FILTER(cell, BPF_STMT(BPF_LD | BPF_MEM, 1), RET(1)); struct sock_fprog bad = all; int one = 1, v = 7;
    T(setsockopt(in, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one)); T(getsockopt(in, SOL_SOCKET, SO_GET_FILTER, b, (n = 64, &n))); SHOW(n);
    ATTACH(in, endless); ATTACH(in, beyond); ATTACH(in, unknown); ATTACH(in, zero); ATTACH(in, cell);
    bad.len = 0; ATTACH(in, bad); bad.len = 4097; ATTACH(in, bad); bad.len = 1; bad.filter = NULL; ATTACH(in, bad); bad.filter = (void *)8; ATTACH(in, bad);
    T(setsockopt(in, SOL_SOCKET, SO_ATTACH_FILTER, &all, 8)); T(setsockopt(in, SOL_SOCKET, SO_ATTACH_FILTER, &all, 2)); T(setsockopt(in, SOL_SOCKET, SO_DETACH_FILTER, &one, 2));
    T(setsockopt(in, SOL_SOCKET, SO_ATTACH_BPF, &one, 2));

    TEXT("-- UDP");
    ATTACH(in, few); datagram("datagram"); T(recv(in, b, sizeof b, 0)); T(recv(in, b, sizeof b, MSG_DONTWAIT)); datagram("da"); T(recv(in, b, sizeof b, 0));
    ATTACH(in, least); datagram("datagram"); T(recv(in, b, sizeof b, 0)); ATTACH(in, none); datagram("dropped"); T(recv(in, b, sizeof b, MSG_DONTWAIT));
    ATTACH(in, all); datagram("datagram"); T(recv(in, b, sizeof b, 0));
    T(getsockopt(in, SOL_SOCKET, SO_GET_FILTER, NULL, (n = 0, &n))); SHOW(n); struct sock_filter got[2] = { 0 };
    T(getsockopt(in, SOL_SOCKET, SO_GET_FILTER, got, (n = 1, &n))); SHOW(n); SHOW(got[0].code); SHOW(got[0].k);
    FILTER(first, ABSOLUTE(BPF_B, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1), RET(-1), RET(0)); ATTACH(in, first);
    T(getsockopt(in, SOL_SOCKET, SO_GET_FILTER, got, (n = 2, &n)));
    datagram("no"); datagram("yes"); datagram(""); datagram("you"); T(recv(in, b, sizeof b, 0)); TEXT("%.3s", b); T(recv(in, b, sizeof b, 0)); TEXT("%.3s", b); T(recv(in, b, sizeof b, MSG_DONTWAIT));

    TEXT("-- what loads tell");
    SHOW(load(in, BPF_LD | BPF_W | BPF_LEN, 0)); SHOW(load(in, BPF_LD | BPF_H | BPF_ABS, 4)); SHOW(load(in, BPF_LD | BPF_B | BPF_ABS, SKF_NET_OFF + 9)); SHOW(load(in, BPF_LD | BPF_H | BPF_ABS, SKF_LL_OFF + 12));
    SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL)); SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE)); SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_IFINDEX));
    SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_HATYPE)); SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PAY_OFFSET)); SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT));
    SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_ALU_XOR_X)); SHOW(load(in, BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_MARK)); SHOW(load(in, BPF_LD | BPF_B | BPF_ABS, 3008)); SHOW(load(in, BPF_LD | BPF_B | BPF_ABS, 3007) == 'x');
    T(setsockopt(in, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one)); datagram("all of it"); T(recv(in, b, sizeof b, 0));

    TEXT("-- the lock");
    T(getsockopt(in, SOL_SOCKET, SO_LOCK_FILTER, &v, (n = sizeof v, &n))); SHOW(v); ATTACH(in, few); T(setsockopt(in, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof one));
    ATTACH(in, all); T(setsockopt(in, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one)); v = 0; T(setsockopt(in, SOL_SOCKET, SO_LOCK_FILTER, &v, sizeof v)); T(setsockopt(in, SOL_SOCKET, SO_ATTACH_BPF, &one, sizeof one));
    T(getsockopt(in, SOL_SOCKET, SO_LOCK_FILTER, &v, (n = sizeof v, &n))); SHOW(v); datagram("datagram"); T(recv(in, b, sizeof b, 0)); close(in);

    TEXT("-- packet and raw sockets");
    in = socket(AF_INET, SOCK_DGRAM, 0); bind(in, (struct sockaddr *)&to, sizeof to); unsigned port = ntohs(to.sin_port);
    int raw = OK(socket(AF_PACKET, SOCK_RAW, 0)), dgram = OK(socket(AF_PACKET, SOCK_DGRAM, 0)), udp = OK(socket(AF_INET, SOCK_RAW, IPPROTO_UDP)); patience(raw); patience(dgram); patience(udp);
    /* As tcpdump makes them: this port of UDP over IPv4, 50 bytes of it; incoming only, for the loopback shows both. */
    FILTER(link, ABSOLUTE(BPF_H, 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 8), ABSOLUTE(BPF_B, 23), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 6),
        ABSOLUTE(BPF_W, SKF_AD_OFF + SKF_AD_PKTTYPE), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 4, 0), BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14), BPF_STMT(BPF_LD | BPF_H | BPF_IND, 16), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1), RET(50), RET(0));
    FILTER(net, BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1), RET(32), RET(0));
    FILTER(mac, ABSOLUTE(BPF_H, SKF_LL_OFF + 12), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 4), BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1), RET(30), RET(0));
    ATTACH(raw, link); ATTACH(dgram, mac); ATTACH(udp, net); struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1 };
    T(bind(raw, (struct sockaddr *)&a, sizeof a)); a.sll_protocol = htons(ETH_P_IP); T(bind(dgram, (struct sockaddr *)&a, sizeof a));
    datagram("sixteen bytes..."); T(recv(raw, b, sizeof b, MSG_TRUNC)); TEXT("%.8s", b + 42); T(recv(raw, b, sizeof b, MSG_DONTWAIT)); T(recv(dgram, b, sizeof b, MSG_TRUNC)); TEXT("%.2s", b + 28); T(recv(udp, b, sizeof b, 0)); TEXT("%.4s", b + 28);
    T(getsockopt(raw, SOL_SOCKET, SO_GET_FILTER, NULL, (n = 0, &n))); SHOW(n);
    ATTACH(raw, none); ATTACH(udp, none); datagram("dropped"); T(recv(raw, b, sizeof b, MSG_DONTWAIT)); T(recv(udp, b, sizeof b, MSG_DONTWAIT)); SHOW(recv(in, b, sizeof b, MSG_DONTWAIT));
    T(setsockopt(raw, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one)); T(setsockopt(raw, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one)); T(setsockopt(udp, SOL_SOCKET, SO_DETACH_FILTER, &one, sizeof one));
    close(raw); close(dgram); close(udp); close(in); close(out);
    return leave();
}
