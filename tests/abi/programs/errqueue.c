/* The error queue, zero-copy notifications, datagrams in parts, time stamps, peeking from an offset. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/un.h>

static char buffer[70000];

static void receive(int fd, int flags) {
    char control[512];
    struct sockaddr_storage from;
    struct iovec io = { buffer, 100 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control, .msg_name = &from, .msg_namelen = sizeof from };
    memset(&from, 0, sizeof from);
    int n = T(recvmsg(fd, &m, flags));
    if (n < 0) return;
    printf("flags %x, name %d of family %d\n", m.msg_flags, m.msg_namelen, from.ss_family);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        int len = h->cmsg_len - CMSG_LEN(0);
        printf("cmsg %d/%d %d:", h->cmsg_level, h->cmsg_type, len);
        if ((h->cmsg_level == SOL_IP && h->cmsg_type == IP_RECVERR) || (h->cmsg_level == SOL_IPV6 && h->cmsg_type == IPV6_RECVERR)) {
            struct sock_extended_err e;
            memcpy(&e, CMSG_DATA(h), sizeof e);
            struct sockaddr_storage o = { 0 };
            memcpy(&o, CMSG_DATA(h) + sizeof e, len - sizeof e);
            printf(" %s origin %d type %d code %d info %u data %u offender %d", e.ee_errno ? strerrorname_np(e.ee_errno) : "0", e.ee_origin, e.ee_type, e.ee_code, e.ee_info, e.ee_data, o.ss_family);
        } else if (h->cmsg_level == SOL_SOCKET) {
            long t[6] = { 0 };
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            memcpy(t, CMSG_DATA(h), len);
            printf(" %s", labs(now.tv_sec - t[0]) < 100 ? "now" : t[0] ? "another time" : "0");
        } else if (len == 4) {
            int v;
            memcpy(&v, CMSG_DATA(h), 4);
            printf(" %d", v);
        }
        printf("\n");
    }
}

static int udp_pair(int family, int *to, struct sockaddr_in6 *addr) {
    struct sockaddr_in *v4 = (void *)addr;
    socklen_t len = family == AF_INET ? sizeof *v4 : sizeof *addr;
    memset(addr, 0, sizeof *addr);
    addr->sin6_family = family;
    if (family == AF_INET) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else addr->sin6_addr = in6addr_loopback;
    *to = socket(family, SOCK_DGRAM, 0);
    bind(*to, (void *)addr, len);
    getsockname(*to, (void *)addr, &len);
    int from = socket(family, SOCK_DGRAM, 0);
    connect(from, (void *)addr, len);
    return from;
}

static void udp(int family) {
    printf("udp %d\n", family);
    struct sockaddr_in6 addr;
    int to, from = udp_pair(family, &to, &addr), on = 1, off = 0;
    struct timeval t = { 5, 0 };
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    /* In parts. */
    T(send(from, "one ", 4, MSG_MORE)); T(send(from, "two", 3, 0)); receive(to, 0);
    T(setsockopt(from, SOL_UDP, UDP_CORK, &on, sizeof on)); T(send(from, "a", 1, 0)); T(send(from, "b", 1, 0)); T(recv(to, buffer, 10, MSG_DONTWAIT));
    T(setsockopt(from, SOL_UDP, UDP_CORK, &off, sizeof off)); receive(to, 0);
    /* When it came. */
    T(setsockopt(to, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on)); T(send(from, "t", 1, 0)); receive(to, 0);
    T(setsockopt(to, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on)); T(send(from, "t", 1, 0)); receive(to, 0);
    int software = 1 << 3 | 1 << 4;
    /* Linux begins to stamp a little after it was asked to. */
    T(setsockopt(to, SOL_SOCKET, SO_TIMESTAMPING, &software, sizeof software)); sleep_ms(50); T(send(from, "t", 1, 0)); receive(to, 0);
    T(setsockopt(to, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof off)); T(send(from, "t", 1, 0)); receive(to, 0);
    T(setsockopt(to, SOL_SOCKET, SO_TIMESTAMPING, &off, sizeof off)); T(send(from, "t", 1, 0)); receive(to, 0);
    /* Merged again on the way. */
    T(setsockopt(to, SOL_UDP, UDP_GRO, &on, sizeof on));
    int size = 10;
    T(setsockopt(from, SOL_UDP, UDP_SEGMENT, &size, sizeof size)); T(send(from, buffer, 35, 0)); receive(to, 0);
    T(setsockopt(from, SOL_UDP, UDP_SEGMENT, &off, sizeof off)); T(send(from, buffer, 35, 0)); receive(to, 0);
    /* Zero copy. */
    T(setsockopt(from, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on));
    T(send(from, "z", 1, MSG_ZEROCOPY)); receive(to, 0); receive(from, MSG_ERRQUEUE); receive(from, MSG_ERRQUEUE);
    /* Nobody there. */
    receive(from, MSG_ERRQUEUE);
    if (family == AF_INET) T(setsockopt(from, SOL_IP, IP_RECVERR, &on, sizeof on));
    else T(setsockopt(from, SOL_IPV6, IPV6_RECVERR, &on, sizeof on));
    close(to);
    T(send(from, "lost", 4, 0));
    struct pollfd p = { from, 0, 0 };
    T(poll(&p, 1, 5000)); printf("%x\n", p.revents);
    receive(from, MSG_ERRQUEUE); TEXT("[%.4s]", buffer);
    receive(from, MSG_ERRQUEUE | MSG_DONTWAIT);
    T(getsockopt(from, SOL_SOCKET, SO_ERROR, &off, &(socklen_t){ sizeof off })); SHOW(off);
    close(from);
}

static void tcp(void) {
    printf("tcp\n");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    bind(l, (void *)&a, len); listen(l, 1); getsockname(l, (void *)&a, &len);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    T(connect(c, (void *)&a, len));
    int s = OK(accept(l, NULL, NULL));
    T(send(c, "plain", 5, MSG_ZEROCOPY)); T(recv(s, buffer, 5, MSG_WAITALL)); receive(c, MSG_ERRQUEUE);
    T(setsockopt(c, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on));
    for (int n = 0; n < 3; n++) { T(send(c, buffer, 20000, MSG_ZEROCOPY)); T(recv(s, buffer, 20000, MSG_WAITALL)); }
    struct pollfd p = { c, POLLOUT, 0 };
    T(poll(&p, 1, 5000)); printf("%x\n", p.revents);
    sleep_ms(50);
    receive(c, MSG_ERRQUEUE); receive(c, MSG_ERRQUEUE);
    p.revents = 0; T(poll(&p, 1, 0)); printf("%x\n", p.revents);
    T(getsockopt(c, SOL_SOCKET, SO_ERROR, &on, &(socklen_t){ sizeof on })); SHOW(on);
    int low = 6;
    T(setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low));
    T(send(c, "abc", 3, 0)); T(recv(s, buffer, 10, MSG_DONTWAIT));
    T(send(c, "abc", 3, 0)); sleep_ms(20); T(send(c, "defghi", 6, 0)); sleep_ms(20); T(recv(s, buffer, 20, 0));
    close(c); close(s); close(l);
}

static void peek(void) {
    printf("peek\n");
    int s[2], off = 0;
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(setsockopt(s[1], SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off));
    T(send(s[0], "abcdefgh", 8, 0));
    T(recv(s[1], buffer, 3, MSG_PEEK)); TEXT("[%.3s]", buffer);
    T(recv(s[1], buffer, 3, MSG_PEEK)); TEXT("[%.3s]", buffer);
    T(recv(s[1], buffer, 2, 0)); TEXT("[%.2s]", buffer);
    T(getsockopt(s[1], SOL_SOCKET, SO_PEEK_OFF, &off, &(socklen_t){ sizeof off })); SHOW(off);
    T(recv(s[1], buffer, 10, MSG_PEEK)); TEXT("[%.2s]", buffer);
    T(recv(s[1], buffer, 10, MSG_PEEK | MSG_DONTWAIT));
    T(recv(s[1], buffer, 10, 0)); TEXT("[%.6s]", buffer);
    int low = 4;
    T(setsockopt(s[1], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low));
    T(send(s[0], "xy", 2, 0)); T(recv(s[1], buffer, 10, MSG_DONTWAIT));
    close(s[0]); close(s[1]);
    int on = 1;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    T(setsockopt(s[1], SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on)); T(send(s[0], "t", 1, 0)); receive(s[1], 0);
    T(send(s[0], "t", 1, MSG_ZEROCOPY)); T(recv(s[1], buffer, 1, 0));
    close(s[0]); close(s[1]);
}

int main(void) {
    enter("errqueue");
    udp(AF_INET);
    udp(AF_INET6);
    tcp();
    peek();
    return leave();
}
