/* Time stamps of datagrams that were sent, on the error queue: which, with which numbers, with or without the packet, and polling. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>

static struct sockaddr_storage to; static socklen_t to_len; static int v6;
static void stamping(int fd, int bits) { int v = bits; socklen_t n = sizeof v; T(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, sizeof v)); v = 77; T(getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &v, &n)); SHOW(v); }
static void out(int fd, const char *text) { T(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, to_len)); }

static void take(int fd, int flags) {
    unsigned char b[4000]; char control[512]; struct sockaddr_storage from; struct iovec iov = { b, sizeof b };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control, .msg_name = &from, .msg_namelen = sizeof from };
    errno = 0; long r = recvmsg(fd, &m, flags | MSG_DONTWAIT); TEXT("took %ld %s flags %x", r, r < 0 ? strerrorname_np(errno) : "", r < 0 ? 0 : m.msg_flags); if (r < 0) return;
    if (flags & MSG_ERRQUEUE) SHOW(m.msg_namelen);
    if (flags & MSG_ERRQUEUE && r > 42) TEXT("  type %x%02x version %d data %.3s", b[12], b[13], b[14] >> 4, b + r - 3);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        TEXT("  level %d type %d len %d", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) { struct scm_timestamping *t = (void *)CMSG_DATA(c); struct timespec now; clock_gettime(CLOCK_REALTIME, &now); SHOW(now.tv_sec - t->ts[0].tv_sec < 5 && t->ts[0].tv_sec <= now.tv_sec); SHOW(t->ts[2].tv_sec); }
        if (c->cmsg_level == (v6 ? SOL_IPV6 : SOL_IP)) { struct sock_extended_err *e = (void *)CMSG_DATA(c); TEXT("  errno %d origin %d type %d code %d info %u data %u", e->ee_errno, e->ee_origin, e->ee_type, e->ee_code, e->ee_info, e->ee_data); }
    }
}

static void conversation(int family) {
    TEXT("-- family %d", family); v6 = family == AF_INET6; int in = OK(socket(family, SOCK_DGRAM, 0)), s = OK(socket(family, SOCK_DGRAM, 0)); memset(&to, 0, sizeof to); to.ss_family = family; to_len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (v6) ((struct sockaddr_in6 *)&to)->sin6_addr = in6addr_loopback; else ((struct sockaddr_in *)&to)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T(bind(in, (struct sockaddr *)&to, to_len)); getsockname(in, (struct sockaddr *)&to, &to_len); struct pollfd p = { s, POLLIN | POLLOUT, 0 };
    /* Linux begins to stamp what arrives a moment after it is asked. */
    stamping(in, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE); sleep_ms(100);
    stamping(s, SOF_TIMESTAMPING_OPT_STATS); stamping(s, 1 << 30); stamping(s, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY);
    out(s, "one"); p.revents = 0; T(poll(&p, 1, 1000)); SHOW(p.revents); take(s, 0); take(s, MSG_ERRQUEUE); take(s, MSG_ERRQUEUE); p.revents = 0; T(poll(&p, 1, 0)); SHOW(p.revents); int e = 9; socklen_t n = sizeof e; T(getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &n)); SHOW(e);
    stamping(s, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_TX_SCHED); out(s, "two"); out(s, "three");
    for (int i = 0; i < 5; i++) take(s, MSG_ERRQUEUE);
    stamping(s, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY); out(s, "unreported"); take(s, MSG_ERRQUEUE);
    stamping(s, 0); out(s, "none"); take(s, MSG_ERRQUEUE); stamping(s, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY); out(s, "anew"); take(s, MSG_ERRQUEUE);
    out(s, "seen"); for (int i = 0; i < 6; i++) recv(in, &e, 4, MSG_DONTWAIT); take(in, 0); take(in, 0); close(in); close(s);
}

int main(void) {
    enter("timestamps"); conversation(AF_INET); conversation(AF_INET6);
    int u = socket(AF_UNIX, SOCK_DGRAM, 0); stamping(u, SOF_TIMESTAMPING_TX_SOFTWARE); close(u);
    return leave();
}
