/* rtnetlink: links, addresses, routes and neighbours of the loopback changed, looked at, and told of; sock_diag. */
#include "abi.h"
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <net/route.h>
#include <sched.h>

static int nl, news, seq;
static struct { struct nlmsghdr h; char body[512]; } q;

static void start(int type, int flags, const void *fixed, int len) {
    memset(&q, 0, sizeof q); q.h.nlmsg_type = type; q.h.nlmsg_flags = NLM_F_REQUEST | flags; q.h.nlmsg_seq = ++seq;
    q.h.nlmsg_len = NLMSG_LENGTH(len); memcpy(NLMSG_DATA(&q.h), fixed, len);
}
static void attr(int type, const void *data, int len) {
    struct rtattr *a = (void *)((char *)&q + NLMSG_ALIGN(q.h.nlmsg_len)); a->rta_type = type; a->rta_len = RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len); q.h.nlmsg_len = NLMSG_ALIGN(q.h.nlmsg_len) + RTA_SPACE(len);
}
static void number(int type, int v) { attr(type, &v, 4); }
static void inet(int type, const char *text) { struct in_addr a; inet_pton(AF_INET, text, &a); attr(type, &a, 4); }

static const struct rtattr *find(const struct nlmsghdr *h, int fixed, int type) {
    const struct rtattr *a = (void *)((char *)NLMSG_DATA(h) + NLMSG_ALIGN(fixed)); int left = h->nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(fixed));
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) if (a->rta_type == type) return a;
    return NULL;
}
static void show_ip(const char *what, const struct nlmsghdr *h, int fixed, int type) {
    const struct rtattr *a = find(h, fixed, type); char b[64];
    if (a) TEXT("  %s %s", what, inet_ntop(RTA_PAYLOAD(a) == 4 ? AF_INET : AF_INET6, RTA_DATA(a), b, sizeof b));
}
static void show(const struct nlmsghdr *h) {
    const struct rtattr *a;
    switch (h->nlmsg_type) {
    case RTM_NEWADDR: case RTM_DELADDR: { const struct ifaddrmsg *m = NLMSG_DATA(h); TEXT("%s family %d prefix %d index %d flags %x", h->nlmsg_type == RTM_NEWADDR ? "address" : "address gone", m->ifa_family, m->ifa_prefixlen, m->ifa_index, m->ifa_flags & 0x80);
        show_ip("local", h, sizeof *m, IFA_LOCAL); if ((a = find(h, sizeof *m, IFA_LABEL))) TEXT("  label %s", (char *)RTA_DATA(a)); break; }
    case RTM_NEWROUTE: case RTM_DELROUTE: { const struct rtmsg *m = NLMSG_DATA(h); TEXT("%s family %d length %d table %d protocol %d type %d", h->nlmsg_type == RTM_NEWROUTE ? "route" : "route gone", m->rtm_family, m->rtm_dst_len, m->rtm_table, m->rtm_protocol, m->rtm_type);
        show_ip("to", h, sizeof *m, RTA_DST); show_ip("via", h, sizeof *m, RTA_GATEWAY); if ((a = find(h, sizeof *m, RTA_OIF))) TEXT("  out %d", *(int *)RTA_DATA(a)); if ((a = find(h, sizeof *m, RTA_PRIORITY))) TEXT("  metric %d", *(int *)RTA_DATA(a)); break; }
    case RTM_NEWLINK: { const struct ifinfomsg *m = NLMSG_DATA(h); TEXT("link %d type %d up %d", m->ifi_index, m->ifi_type, !!(m->ifi_flags & IFF_UP)); if ((a = find(h, sizeof *m, IFLA_IFNAME))) TEXT("  name %s", (char *)RTA_DATA(a)); if ((a = find(h, sizeof *m, IFLA_MTU))) TEXT("  mtu %d", *(int *)RTA_DATA(a)); break; }
    case NLMSG_ERROR: { const struct nlmsgerr *e = NLMSG_DATA(h); TEXT("error %s", e->error ? strerrorname_np(-e->error) : "0"); break; }
    case NLMSG_DONE: TEXT("done"); break;
    default: TEXT("type %d", h->nlmsg_type);
    }
}

/* Sends what was put together and shows what answers it; in a dump only those of the loopback, of IPv4. */
static void ask(const char *what) {
    TEXT("-- %s", what);
    if (send(nl, &q, q.h.nlmsg_len, 0) < 0) { TEXT("send %s", strerrorname_np(errno)); return; }
    static char b[32768];
    for (;;) {
        long n = recv(nl, b, sizeof b, 0); if (n < 0) { TEXT("%s", strerrorname_np(errno)); return; }
        for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            int end = h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE;
            if (!end && h->nlmsg_type == RTM_NEWADDR && ((struct ifaddrmsg *)NLMSG_DATA(h))->ifa_index != 1) continue;
            if (!end && h->nlmsg_type == RTM_NEWADDR && ((struct ifaddrmsg *)NLMSG_DATA(h))->ifa_family != AF_INET) continue;
            show(h); if (end || !(h->nlmsg_flags & NLM_F_MULTI)) return;
        }
    }
}
/* Shows what was told to the groups. */
static void heard(void) {
    static char b[32768]; long n;
    while ((n = recv(news, b, sizeof b, MSG_DONTWAIT)) > 0)
        for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            /* Linux has a table of local addresses too. */
            if ((h->nlmsg_type == RTM_NEWROUTE || h->nlmsg_type == RTM_DELROUTE) && ((struct rtmsg *)NLMSG_DATA(h))->rtm_table == RT_TABLE_LOCAL) continue;
            printf("told: "); show(h);
        }
}

static void address(int type, int flags, const char *ip, int prefix) {
    struct ifaddrmsg m = { .ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = 1 }; start(type, flags | NLM_F_ACK, &m, sizeof m); inet(IFA_LOCAL, ip); inet(IFA_ADDRESS, ip); 
}
static void route(int type, int flags, const char *ip, int prefix, int metric) {
    struct rtmsg m = { .rtm_family = AF_INET, .rtm_dst_len = prefix, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_LINK, .rtm_type = type == RTM_NEWROUTE ? RTN_UNICAST : 0 };
    if (type == RTM_DELROUTE) { m.rtm_protocol = 0; m.rtm_scope = RT_SCOPE_NOWHERE; }
    start(type, flags | NLM_F_ACK, &m, sizeof m); inet(RTA_DST, ip); number(RTA_OIF, 1); if (metric) number(RTA_PRIORITY, metric);
}

int main(void) {
    enter("netlink");
    /* On Linux in a network of our own, whose loopback is then brought up; here there is one anyway. */
    if (unshare(CLONE_NEWNET) == 0) { int s = socket(AF_INET, SOCK_DGRAM, 0); struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP }; ioctl(s, SIOCSIFFLAGS, &r); close(s); }
    nl = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)); news = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE));
    struct timeval patience = { 2, 0 }; setsockopt(nl, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE };
    T(bind(news, (struct sockaddr *)&a, sizeof a)); socklen_t n = sizeof a; T(getsockname(news, (struct sockaddr *)&a, &n)); SHOW(a.nl_groups); SHOW(n);

    struct ifaddrmsg im = { .ifa_family = AF_INET }; start(RTM_GETADDR, NLM_F_DUMP, &im, sizeof im); ask("addresses");
    address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "127.9.9.9", 32); ask("a new one"); heard();
    address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "127.9.9.9", 32); ask("the same again"); heard();
    address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "10.1.2.3", 33); ask("a prefix too long");
    address(RTM_NEWADDR, NLM_F_CREATE, "10.1.2.3", 24); ((struct ifaddrmsg *)NLMSG_DATA(&q.h))->ifa_index = 999; ask("no such link");
    start(RTM_GETADDR, NLM_F_DUMP, &im, sizeof im); ask("addresses now");
    int s = socket(AF_INET, SOCK_DGRAM, 0); struct sockaddr_in in = { .sin_family = AF_INET }; inet_pton(AF_INET, "127.9.9.9", &in.sin_addr); T(bind(s, (struct sockaddr *)&in, sizeof in)); close(s);
    address(RTM_DELADDR, 0, "127.9.9.9", 32); ask("gone"); heard();
    address(RTM_DELADDR, 0, "127.9.9.9", 32); ask("gone twice");

    route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "10.99.0.0", 16, 0); ask("a route"); heard();
    route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "10.99.0.0", 16, 0); ask("the same again");
    route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "10.99.0.0", 16, 7); ask("with a metric"); heard();
    route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "10.99.1.1", 16, 0); ask("bits beyond the prefix");
    route(RTM_NEWROUTE, 0, "10.98.0.0", 16, 0); ask("not to be made");
    route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "10.97.0.0", 16, 0); inet(RTA_GATEWAY, "192.0.2.1"); ask("a router that cannot be reached");
    route(RTM_DELROUTE, 0, "10.99.0.0", 16, 7); ask("one gone"); heard();
    route(RTM_DELROUTE, 0, "10.99.0.0", 16, 0); ask("the other gone"); heard();
    route(RTM_DELROUTE, 0, "10.99.0.0", 16, 0); ask("gone twice");
    struct rtmsg rm = { .rtm_family = AF_INET, .rtm_dst_len = 32 }; start(RTM_GETROUTE, 0, &rm, sizeof rm); inet(RTA_DST, "127.0.0.1"); ask("the way to the loopback");

    struct ifinfomsg lm = { .ifi_index = 1 }; start(RTM_GETLINK, 0, &lm, sizeof lm); ask("the link");
    lm.ifi_index = 999; start(RTM_GETLINK, 0, &lm, sizeof lm); ask("no link");
    lm.ifi_index = 1; start(RTM_NEWLINK, NLM_F_ACK, &lm, sizeof lm); number(IFLA_MTU, 1500); ask("another MTU");
    start(RTM_GETLINK, 0, &lm, sizeof lm); ask("the link now");
    start(RTM_NEWLINK, NLM_F_ACK, &lm, sizeof lm); number(IFLA_MTU, 65536); ask("the MTU as it was");
    start(9999, 0, &lm, sizeof lm); ask("nonsense"); start(RTM_NEWADDR, NLM_F_ACK, &lm, 2); ask("too short");

    TEXT("-- ioctls");
    s = socket(AF_INET, SOCK_DGRAM, 0); struct ifreq r = { .ifr_name = "lo" }; r.ifr_mtu = 2000; T(ioctl(s, SIOCSIFMTU, &r)); r.ifr_mtu = 0; T(ioctl(s, SIOCGIFMTU, &r)); SHOW(r.ifr_mtu); r.ifr_mtu = 65536; T(ioctl(s, SIOCSIFMTU, &r));
    T(ioctl(s, SIOCGIFFLAGS, &r)); r.ifr_flags &= ~IFF_UP; T(ioctl(s, SIOCSIFFLAGS, &r)); T(ioctl(s, SIOCGIFFLAGS, &r)); SHOW(!!(r.ifr_flags & IFF_UP)); r.ifr_flags |= IFF_UP; T(ioctl(s, SIOCSIFFLAGS, &r)); T(ioctl(s, SIOCGIFFLAGS, &r)); SHOW(!!(r.ifr_flags & IFF_UP));
    strcpy(r.ifr_name, "absent0"); T(ioctl(s, SIOCSIFMTU, &r)); T(ioctl(s, SIOCSIFFLAGS, &r)); close(s);

    TEXT("-- sock_diag");
    int d = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)); setsockopt(d, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience); int l = socket(AF_INET, SOCK_STREAM, 0); in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; bind(l, (struct sockaddr *)&in, sizeof in); listen(l, 5); n = sizeof in; getsockname(l, (struct sockaddr *)&in, &n);
    struct stat st; fstat(l, &st);
    struct inet_diag_req_v2 dr = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << 10 }; start(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &dr, sizeof dr); T(send(d, &q, q.h.nlmsg_len, 0) > 0);
    static char b[32768]; long got; int done = 0;
    while (!done && (got = recv(d, b, sizeof b, 0)) > 0)
        for (struct nlmsghdr *h = (void *)b; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY) { done = 1; TEXT("ended with %d", h->nlmsg_type); break; }
            struct inet_diag_msg *m = NLMSG_DATA(h); if (m->id.idiag_sport != in.sin_port) continue;
            TEXT("family %d state %d rqueue %d wqueue %d", m->idiag_family, m->idiag_state, m->idiag_rqueue, m->idiag_wqueue); SHOW(m->idiag_inode == st.st_ino);
        }
    dr.sdiag_protocol = 200; start(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &dr, sizeof dr); T(send(d, &q, q.h.nlmsg_len, 0) > 0); T(recv(d, b, sizeof b, 0) > 0); show((void *)b);
    close(l); close(d); close(nl); close(news);
    return leave();
}
