/* Raw sockets, ping sockets and their options, over the loopback. */
#include "abi.h"
#include <net/if.h>
#include <sched.h>
#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>

/* linux/icmp.h and netinet/ip_icmp.h cannot both be had. */
#define ICMP_FILTER 1
struct icmp_filter { uint32_t data; };

static struct sockaddr_in lo(int port) { return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; }
static struct sockaddr_in6 lo6(int port) { return (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback }; }
static int sum(const void *p, int n) { const uint16_t *w = p; unsigned s = 0; for (; n > 1; n -= 2) s += *w++; s = (s >> 16) + (s & 0xffff); s += s >> 16; return (uint16_t)~s; }
static void patience(int fd) { struct timeval t = { 1, 0 }; setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); }

/* Sends with a whole address. */
#define TO(fd, data, len, addr) sendto(fd, data, len, 0, (struct sockaddr *)&addr, sizeof addr)

static void kinds(void) {
    TEXT("-- kinds");
    T(socket(AF_INET, SOCK_RAW, 0)); T(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6));
    T(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMP)); T(socket(AF_INET, SOCK_STREAM, IPPROTO_ICMP));
    int s = OK(socket(AF_INET, SOCK_RAW, 253)); int v; socklen_t n = sizeof v;
    T(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &n)); SHOW(v); T(getsockopt(s, SOL_SOCKET, SO_PROTOCOL, &v, &n)); SHOW(v);
    struct sockaddr_in a; n = sizeof a; T(getsockname(s, (struct sockaddr *)&a, &n)); SHOW(ntohs(a.sin_port)); SHOW(a.sin_addr.s_addr);
    T(listen(s, 1)); T(accept(s, 0, 0)); T(getpeername(s, (struct sockaddr *)&a, &n)); T(shutdown(s, SHUT_RD));
    T(send(s, "x", 1, 0)); a = lo(7); a.sin_family = AF_INET6; T(TO(s, "x", 1, a)); a.sin_family = AF_UNIX; T(TO(s, "x", 1, a));
    a = lo(0); T(connect(s, (struct sockaddr *)&a, sizeof a)); T(send(s, "y", 1, MSG_OOB));
    T(getpeername(s, (struct sockaddr *)&a, &n)); SHOW(ntohs(a.sin_port));
    close(s);
}

static void packets(void) {
    TEXT("-- packets");
    int in = OK(socket(AF_INET, SOCK_RAW, 253)), out = OK(socket(AF_INET, SOCK_RAW, 253)); patience(in); patience(out);
    struct sockaddr_in a = lo(0), from; socklen_t n = sizeof from; unsigned char b[3000];
    T(bind(in, (struct sockaddr *)&a, sizeof a)); a.sin_addr.s_addr = htonl(0x0a000001); T(bind(out, (struct sockaddr *)&a, sizeof a));
    a = lo(99); T(TO(out, "hello", 5, a)); T(recvfrom(in, b, sizeof b, 0, (struct sockaddr *)&from, &n));
    SHOW(n); SHOW(from.sin_port); SHOW(from.sin_addr.s_addr == a.sin_addr.s_addr);
    struct iphdr *ip = (void *)b; SHOW(ip->version); SHOW(ip->ihl); SHOW(ntohs(ip->tot_len)); SHOW(ip->protocol); SHOW(ip->ttl); SHOW(sum(b, 20)); TEXT("%.5s", b + 20);
    T(recv(out, b, sizeof b, 0)); TEXT("own socket sees it too: %.5s", b + 20);
    /* Peek, truncation, queues. */
    T(TO(out, "0123456789", 10, a)); int q; T(ioctl(in, FIONREAD, &q)); SHOW(q); T(recv(in, b, 4, MSG_PEEK)); T(recv(in, b, 4, MSG_TRUNC)); T(recv(in, b, 4, MSG_DONTWAIT));
    T(recv(out, b, sizeof b, 0));
    /* Options of every packet. */
    int v = 17; T(setsockopt(out, IPPROTO_IP, IP_TTL, &v, sizeof v)); v = 0x10; T(setsockopt(out, IPPROTO_IP, IP_TOS, &v, sizeof v));
    v = 1; T(setsockopt(in, IPPROTO_IP, IP_RECVTTL, &v, sizeof v)); T(setsockopt(in, IPPROTO_IP, IP_PKTINFO, &v, sizeof v)); T(setsockopt(in, IPPROTO_IP, IP_RECVTOS, &v, sizeof v));
    T(TO(out, "ttl", 3, a)); char control[256]; struct iovec iov = { b, sizeof b }; struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    T(recvmsg(in, &m, 0)); SHOW(b[8]); SHOW(b[1]);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_type == IP_TTL) TEXT("ttl %d", *(int *)CMSG_DATA(c));
        if (c->cmsg_type == IP_TOS) TEXT("tos %d", *(unsigned char *)CMSG_DATA(c));
        if (c->cmsg_type == IP_PKTINFO) { struct in_pktinfo *p = (void *)CMSG_DATA(c); TEXT("index %d, spec %s", p->ipi_ifindex, inet_ntoa(p->ipi_spec_dst)); }
    }
    while (recv(out, b, sizeof b, MSG_DONTWAIT) > 0) {}
    /* The header made by hand. */
    v = 1; T(setsockopt(out, IPPROTO_IP, IP_HDRINCL, &v, sizeof v)); memset(b, 0, 24); ip->version = 4; ip->ihl = 5; ip->ttl = 3; ip->protocol = 253; ip->daddr = a.sin_addr.s_addr; memcpy(b + 20, "hand", 4);
    T(TO(out, b, 24, a)); T(recv(in, b, sizeof b, 0)); SHOW(ip->ttl); SHOW(ntohs(ip->tot_len)); SHOW(sum(b, 20)); SHOW(ip->saddr == a.sin_addr.s_addr); SHOW(ip->id != 0); TEXT("%.4s", b + 20);
    T(TO(out, b, 19, a)); ip->ihl = 15; T(TO(out, b, 24, a));
    /* A filter of addresses: connected sockets hear their peer only. */
    struct sockaddr_in other = lo(0); other.sin_addr.s_addr = htonl(0x7f000009); T(connect(in, (struct sockaddr *)&other, sizeof other));
    ip->ihl = 5; T(TO(out, b, 24, a)); T(recv(in, b, sizeof b, MSG_DONTWAIT));
    close(in); close(out);
}

static void icmp_filter(void) {
    TEXT("-- icmp filter");
    int s = OK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); patience(s); struct icmp_filter f = { ~(1u << ICMP_ECHOREPLY) }, g; socklen_t n = sizeof g;
    T(setsockopt(s, SOL_RAW, ICMP_FILTER, &f, sizeof f)); T(getsockopt(s, SOL_RAW, ICMP_FILTER, &g, &n)); SHOW(g.data == f.data); SHOW(n);
    unsigned char p[8] = { ICMP_ECHO, 0, 0, 0, 0x12, 0x34, 0, 1 }, b[100]; int c = sum(p, 8); memcpy(p + 2, &c, 2); struct sockaddr_in a = lo(0);
    T(TO(s, p, 8, a)); T(recv(s, b, sizeof b, 0)); SHOW(b[20]); SHOW(b[24]); T(recv(s, b, sizeof b, MSG_DONTWAIT)); close(s);
    s = OK(socket(AF_INET, SOCK_RAW, IPPROTO_UDP)); T(setsockopt(s, SOL_RAW, ICMP_FILTER, &f, sizeof f)); T(getsockopt(s, SOL_RAW, ICMP_FILTER, &g, &n)); close(s);
}

/* Linux allows ping sockets to some groups only: a network of our own lets us choose which. */
static void allow_ping(void) {
    int s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (s >= 0) { close(s); return; }
    if (unshare(CLONE_NEWNET)) return;
    int f = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY); dprintf(f, "0 2147483647"); close(f);
    s = socket(AF_INET, SOCK_DGRAM, 0); struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP }; ioctl(s, SIOCSIFFLAGS, &r); close(s);
}

static void ping(void) {
    TEXT("-- ping sockets");
    int s = OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); patience(s);
    struct sockaddr_in a = lo(0), me; socklen_t n = sizeof me; unsigned char p[16] = { ICMP_ECHO, 0, 0, 0, 1, 1, 0, 7 }, b[100]; memcpy(p + 8, "pingdata", 8);
    T(TO(s, p, 16, a)); n = sizeof me; T(getsockname(s, (struct sockaddr *)&me, &n)); SHOW(me.sin_port != 0);
    T(recvfrom(s, b, sizeof b, 0, (struct sockaddr *)&me, &n)); SHOW(b[0]); SHOW(b[7]); TEXT("%.8s", b + 8); SHOW(me.sin_port); SHOW(me.sin_addr.s_addr == a.sin_addr.s_addr);
    p[0] = ICMP_ECHOREPLY; T(TO(s, p, 16, a)); p[0] = ICMP_ECHO; p[1] = 3; T(TO(s, p, 16, a)); p[1] = 0; T(TO(s, p, 7, a));
    T(send(s, p, 16, 0)); close(s);
    s = OK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)); patience(s); me = lo(4242); T(bind(s, (struct sockaddr *)&me, sizeof me)); T(bind(s, (struct sockaddr *)&me, sizeof me));
    T(connect(s, (struct sockaddr *)&a, sizeof a)); T(send(s, p, 16, 0)); T(recv(s, b, sizeof b, 0)); SHOW(b[4] << 8 | b[5]);
    int v; n = sizeof v; T(getsockopt(s, SOL_SOCKET, SO_TYPE, &v, &n)); SHOW(v); T(getsockopt(s, SOL_SOCKET, SO_PROTOCOL, &v, &n)); SHOW(v); close(s);
}

static void ipv6(void) {
    TEXT("-- ipv6");
    int s = socket(AF_INET6, SOCK_RAW, 253); if (s < 0) { SHOW(errno); return; } patience(s);
    struct sockaddr_in6 a = lo6(0), from; socklen_t n = sizeof from; unsigned char b[100]; int v; socklen_t l = sizeof v;
    T(getsockopt(s, IPPROTO_IPV6, IPV6_CHECKSUM, &v, &l)); SHOW(v); v = 3; T(setsockopt(s, IPPROTO_IPV6, IPV6_CHECKSUM, &v, sizeof v));
    T(TO(s, "plain", 5, a)); T(recvfrom(s, b, sizeof b, 0, (struct sockaddr *)&from, &n)); SHOW(n); TEXT("%.5s", b); SHOW(from.sin6_port);
    v = 2; T(setsockopt(s, IPPROTO_IPV6, IPV6_CHECKSUM, &v, sizeof v)); unsigned char p[6] = { 1, 2, 9, 9, 5, 6 }; T(TO(s, p, 6, a)); T(recv(s, b, sizeof b, 0)); printf("%02x%02x\n", b[2], b[3]); T(TO(s, p, 3, a));
    a = lo6(7); T(TO(s, p, 6, a)); a = lo6(253); T(TO(s, p, 6, a)); close(s);
    s = OK(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)); patience(s); v = 2; T(setsockopt(s, IPPROTO_IPV6, IPV6_CHECKSUM, &v, sizeof v));
    struct icmp6_filter f; ICMP6_FILTER_SETBLOCKALL(&f); ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f); T(setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f));
    v = 1; T(setsockopt(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &v, sizeof v));
    unsigned char e[8] = { ICMP6_ECHO_REQUEST, 0, 0, 0, 0, 9, 0, 1 }; a = lo6(0); T(TO(s, e, 8, a)); T(recv(s, b, sizeof b, 0)); SHOW(b[0]); T(recv(s, b, sizeof b, MSG_DONTWAIT)); close(s);
    s = OK(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)); patience(s); T(TO(s, e, 8, a)); T(recv(s, b, sizeof b, 0)); SHOW(b[0]); SHOW(b[7]); close(s);
}

int main(void) {
    enter("raw");
    allow_ping(); kinds(); packets(); icmp_filter(); ping(); ipv6();
    return leave();
}
