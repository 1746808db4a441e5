/* UDP over loopback, IPv4 and IPv6, control messages. */
#include "abi.h"
#include <netinet/in.h>
#include <arpa/inet.h>
int main(void) {
    enter("udp");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, f; socklen_t l = sizeof a, fl = sizeof f;
    char b[64] = { 0 };
    int x = OK(socket(AF_INET, SOCK_DGRAM, 0)), y = OK(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    T(bind(x, (void *)&a, sizeof a)); T(getsockname(x, (void *)&a, &l));
    T(send(y, "x", 1, 0)); T(recv(y, b, 1, 0));
    T(sendto(y, "one", 3, 0, (void *)&a, sizeof a)); T(sendto(y, "", 0, 0, (void *)&a, sizeof a)); T(sendto(y, "three", 5, 0, (void *)&a, sizeof a));
    int k; T(ioctl(x, FIONREAD, &k)); SHOW(k);
    T(recvfrom(x, b, 2, MSG_TRUNC, (void *)&f, &fl)); SHOW(f.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    T(recv(x, b, sizeof b, 0));
    T(sendto(x, "back", 4, 0, (void *)&f, sizeof f));
    struct pollfd pf = { y, POLLIN, 0 }; T(poll(&pf, 1, 5000)); T(recv(y, b, sizeof b, 0));
    int on = 1; T(setsockopt(x, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)); T(setsockopt(x, IPPROTO_IP, IP_RECVTTL, &on, sizeof on));
    T(recv(x, b, sizeof b, MSG_DONTWAIT));
    T(connect(y, (void *)&a, sizeof a)); T(send(y, "meta", 4, 0));
    char cb[256]; struct iovec io = { b, sizeof b }; struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = sizeof cb };
    T(recvmsg(x, &m, 0));
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_type == IP_PKTINFO) { struct in_pktinfo i; memcpy(&i, CMSG_DATA(h), sizeof i); printf("pktinfo %d %x\n", i.ipi_ifindex, ntohl(i.ipi_addr.s_addr)); }
        if (h->cmsg_type == IP_TTL) { int t; memcpy(&t, CMSG_DATA(h), sizeof t); printf("ttl %d\n", t); }
    }
    static char big[70000]; T(send(y, big, sizeof big, 0)); T(send(y, big, 60000, 0));
    T(recv(x, big, sizeof big, 0));
    close(x);
    T(send(y, "gone", 4, 0)); pf.events = POLLIN; T(poll(&pf, 1, 2000)); printf("%x\n", pf.revents);
    T(recv(y, b, 1, 0)); T(recv(y, b, 1, 0));
    struct sockaddr un = { .sa_family = AF_UNSPEC }; T(connect(y, &un, sizeof un)); T(send(y, "x", 1, 0));
    T(listen(y, 1)); T(accept(y, NULL, NULL));
    struct sockaddr_in6 s6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT }; l = sizeof s6;
    int z = OK(socket(AF_INET6, SOCK_DGRAM, 0)); T(bind(z, (void *)&s6, sizeof s6)); T(getsockname(z, (void *)&s6, &l)); SHOW(l);
    T(sendto(z, "six", 3, 0, (void *)&s6, sizeof s6)); T(recv(z, b, sizeof b, 0)); TEXT("[%.3s]", b);
    T(sendto(y, "x", 1, 0, (void *)&s6, sizeof s6));
    T(bind(y, (void *)&(struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x01020304) }, sizeof a));
    return leave();
}
