/* The socket options that there are, on every kind of socket: what they are at first, what setting them says, and what
   they are then. Those whose answers depend on the machine are tried elsewhere. */
#include "abi.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/un.h>

struct option { int level, name; const char *text; };
#define O(level, name) { level, name, #name }
static const struct option options[] = {
    O(SOL_SOCKET, SO_DEBUG), O(SOL_SOCKET, SO_REUSEADDR), O(SOL_SOCKET, SO_TYPE), O(SOL_SOCKET, SO_ERROR), O(SOL_SOCKET, SO_DONTROUTE),
    O(SOL_SOCKET, SO_BROADCAST), O(SOL_SOCKET, SO_KEEPALIVE), O(SOL_SOCKET, SO_OOBINLINE), O(SOL_SOCKET, SO_NO_CHECK),
    O(SOL_SOCKET, SO_PRIORITY), O(SOL_SOCKET, SO_REUSEPORT), O(SOL_SOCKET, SO_PASSCRED),
    O(SOL_SOCKET, SO_SNDLOWAT), O(SOL_SOCKET, SO_TIMESTAMP), O(SOL_SOCKET, SO_TIMESTAMPNS),
    O(SOL_SOCKET, SO_ACCEPTCONN), O(SOL_SOCKET, SO_PASSSEC), O(SOL_SOCKET, SO_MARK), O(SOL_SOCKET, SO_PROTOCOL),
    O(SOL_SOCKET, SO_DOMAIN), O(SOL_SOCKET, SO_RXQ_OVFL), O(SOL_SOCKET, SO_NOFCS),
    O(SOL_SOCKET, SO_LOCK_FILTER), O(SOL_SOCKET, SO_SELECT_ERR_QUEUE), O(SOL_SOCKET, SO_BUSY_POLL),
    O(SOL_SOCKET, SO_ZEROCOPY), O(SOL_SOCKET, SO_PREFER_BUSY_POLL), O(SOL_SOCKET, SO_BUSY_POLL_BUDGET),
    O(SOL_SOCKET, SO_BUF_LOCK), O(SOL_SOCKET, SO_RESERVE_MEM), O(SOL_SOCKET, SO_TXREHASH), O(SOL_SOCKET, SO_RCVMARK),
    O(SOL_SOCKET, SO_PEERNAME), O(SOL_SOCKET, SO_DETACH_FILTER), O(SOL_SOCKET, SO_CNX_ADVICE),
    O(SOL_IP, IP_TOS), O(SOL_IP, IP_TTL), O(SOL_IP, IP_PKTINFO),
    O(SOL_IP, IP_MTU_DISCOVER), O(SOL_IP, IP_RECVERR), O(SOL_IP, IP_RECVTTL), O(SOL_IP, IP_RECVTOS), O(SOL_IP, IP_MTU),
    O(SOL_IP, IP_FREEBIND), O(SOL_IP, IP_PASSSEC), O(SOL_IP, IP_TRANSPARENT), O(SOL_IP, IP_RECVORIGDSTADDR),
    O(SOL_IP, IP_BIND_ADDRESS_NO_PORT),
    O(SOL_IP, IP_MULTICAST_LOOP),

    O(SOL_IPV6, IPV6_UNICAST_HOPS),
    O(SOL_IPV6, IPV6_MULTICAST_LOOP), O(SOL_IPV6, IPV6_MTU_DISCOVER),
    O(SOL_IPV6, IPV6_RECVERR), O(SOL_IPV6, IPV6_V6ONLY), O(SOL_IPV6, IPV6_RECVPKTINFO), O(SOL_IPV6, IPV6_RECVHOPLIMIT),

    O(SOL_IPV6, IPV6_DONTFRAG), O(SOL_IPV6, IPV6_RECVTCLASS), O(SOL_IPV6, IPV6_TCLASS),
    O(SOL_IPV6, 74 /* IPV6_ORIGDSTADDR */),
    O(SOL_IPV6, IPV6_TRANSPARENT), O(SOL_IPV6, IPV6_FREEBIND), O(SOL_IPV6, IPV6_MULTICAST_ALL),

    O(SOL_TCP, TCP_NODELAY), O(SOL_TCP, TCP_KEEPIDLE), O(SOL_TCP, 9999), O(SOL_UDP, UDP_CORK), O(SOL_UDP, UDP_SEGMENT), O(SOL_UDP, UDP_GRO),
    O(SOL_UDP, 9999), O(9999, 1), O(SOL_SOCKET, 9999),
};

static void show(int fd, const struct option *o) {
    unsigned char value[64] = { 0 };
    socklen_t len = sizeof value;
    errno = 0;
    if (getsockopt(fd, o->level, o->name, value, &len)) { printf(" %s", strerrorname_np(errno)); return; }
    int number = 0;
    memcpy(&number, value, len < 4 ? len : 4);
    printf(" %d/%u", number, len);
}

static void all(const char *kind, int fd) {
    printf("%s\n", kind);
    for (size_t n = 0; n < sizeof options / sizeof *options; n++) {
        const struct option *o = &options[n];
        printf("%s %s:", kind, o->text);
        show(fd, o);
        static const int values[] = { 1, -2, 300, 0 };
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            errno = 0;
            printf(" |%d", values[v]);
            if (setsockopt(fd, o->level, o->name, &values[v], sizeof(int))) printf(" %s", strerrorname_np(errno));
            else { printf(" ok"); show(fd, o); }
        }
        errno = 0;
        char byte = 1;
        int answer = setsockopt(fd, o->level, o->name, &byte, 1);
        printf(" |byte %s\n", answer ? strerrorname_np(errno) : "ok");
    }
    close(fd);
}

int main(void) {
    enter("sockopts");
    all("tcp4", socket(AF_INET, SOCK_STREAM, 0));
    all("udp4", socket(AF_INET, SOCK_DGRAM, 0));
    all("tcp6", socket(AF_INET6, SOCK_STREAM, 0));
    all("udp6", socket(AF_INET6, SOCK_DGRAM, 0));
    all("unix-stream", socket(AF_UNIX, SOCK_STREAM, 0));
    all("unix-dgram", socket(AF_UNIX, SOCK_DGRAM, 0));
    all("unix-seqpacket", socket(AF_UNIX, SOCK_SEQPACKET, 0));
    return leave();
}
