/* TCP's options, their errors, and what TCP_INFO tells over loopback. */
#include "abi.h"
#include <netinet/in.h>
#include <linux/tcp.h>
#include <arpa/inet.h>
static int opt(int fd, int name) { int v = -1; socklen_t l = sizeof v; if (getsockopt(fd, IPPROTO_TCP, name, &v, &l)) return -errno; return v; }
static int set(int fd, int name, int v) { return setsockopt(fd, IPPROTO_TCP, name, &v, sizeof v); }
static struct tcp_info info(int fd) { struct tcp_info i; socklen_t l = sizeof i; memset(&i, 0, sizeof i); getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &l); return i; }
static void both(int fd, const char *name, int number, int value) {
    int before = opt(fd, number), r = set(fd, number, value), error = r ? errno : 0;
    printf("%s %d: %d -> %s %d\n", name, value, before, error ? strerrorname_np(error) : "ok", opt(fd, number));
}
#define BOTH(fd, name, value) both(fd, #name, name, value)
static void settled(int fd) { for (int i = 0; i < 2000; i++) { struct tcp_info n = info(fd); if (!n.tcpi_unacked && !n.tcpi_notsent_bytes) break; usleep(1000); } }
static void tell(const char *who, int fd) {
    struct tcp_info i = info(fd);
    printf("%s: state %u ca %u options %x retransmits %u probes %u backoff %u\n", who, i.tcpi_state, i.tcpi_ca_state, i.tcpi_options & ~8 & ~16, i.tcpi_retransmits, i.tcpi_probes, i.tcpi_backoff);
    printf("  unacked %u sacked %u lost %u retrans %u total %u notsent %u\n", i.tcpi_unacked, i.tcpi_sacked, i.tcpi_lost, i.tcpi_retrans, i.tcpi_total_retrans, i.tcpi_notsent_bytes);
    printf("  acked %llu received %llu sent %llu again %llu\n", (long long)i.tcpi_bytes_acked, (long long)i.tcpi_bytes_received, (long long)i.tcpi_bytes_sent, (long long)i.tcpi_bytes_retrans);
    printf("  rtt %d rto %d mss %d cwnd %d ssthresh %x reordering %u rcv_rtt? dup %u ooo %u\n", i.tcpi_rtt > 0, i.tcpi_rto >= 200000 && i.tcpi_rto < 1000000, i.tcpi_snd_mss > 536, i.tcpi_snd_cwnd >= 2, i.tcpi_snd_ssthresh, i.tcpi_reordering, i.tcpi_dsack_dups, i.tcpi_rcv_ooopack);
}
int main(void) {
    enter("tcp_options");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; socklen_t l = sizeof a; char name[32]; int one = 1;
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    BOTH(s, TCP_NODELAY, 1); BOTH(s, TCP_NODELAY, 7); BOTH(s, TCP_NODELAY, 0); BOTH(s, TCP_CORK, 1); BOTH(s, TCP_CORK, 0);
    BOTH(s, TCP_MAXSEG, 87); BOTH(s, TCP_MAXSEG, 88); BOTH(s, TCP_MAXSEG, 32768); BOTH(s, TCP_MAXSEG, 1200); BOTH(s, TCP_MAXSEG, 0);
    BOTH(s, TCP_KEEPIDLE, 0); BOTH(s, TCP_KEEPIDLE, 32768); BOTH(s, TCP_KEEPIDLE, 77); BOTH(s, TCP_KEEPINTVL, 0); BOTH(s, TCP_KEEPINTVL, 9); BOTH(s, TCP_KEEPCNT, 128); BOTH(s, TCP_KEEPCNT, 0); BOTH(s, TCP_KEEPCNT, 4);
    BOTH(s, TCP_SYNCNT, 0); BOTH(s, TCP_SYNCNT, 128); BOTH(s, TCP_SYNCNT, 3);
    BOTH(s, TCP_LINGER2, -5); BOTH(s, TCP_LINGER2, 0); BOTH(s, TCP_LINGER2, 7); BOTH(s, TCP_LINGER2, 90); BOTH(s, TCP_LINGER2, 1000);
    BOTH(s, TCP_DEFER_ACCEPT, 1); BOTH(s, TCP_DEFER_ACCEPT, 5); BOTH(s, TCP_DEFER_ACCEPT, 30); BOTH(s, TCP_DEFER_ACCEPT, 0); BOTH(s, TCP_DEFER_ACCEPT, -1);
    BOTH(s, TCP_WINDOW_CLAMP, 1); BOTH(s, TCP_WINDOW_CLAMP, 5000); BOTH(s, TCP_WINDOW_CLAMP, 0);
    BOTH(s, TCP_QUICKACK, 0); BOTH(s, TCP_QUICKACK, 1);
    BOTH(s, TCP_USER_TIMEOUT, -1); BOTH(s, TCP_USER_TIMEOUT, 1234); BOTH(s, TCP_USER_TIMEOUT, 0);
    BOTH(s, TCP_NOTSENT_LOWAT, 4096); BOTH(s, TCP_NOTSENT_LOWAT, 0); BOTH(s, TCP_NOTSENT_LOWAT, -1); BOTH(s, TCP_NOTSENT_LOWAT, 0);
    BOTH(s, TCP_FASTOPEN, 5); BOTH(s, TCP_FASTOPEN, 1000000); BOTH(s, TCP_FASTOPEN, -1); BOTH(s, TCP_FASTOPEN, 0);
    BOTH(s, TCP_INFO, 1); BOTH(s, 999, 1);
    T(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, 3));
    l = sizeof name; T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &l)); SHOW(l);
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)); l = 3; T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &l)); SHOW(l);
    l = sizeof name; T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &l)); TEXT("%s", name);
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "no-such", 7)); T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    l = 1; T(getsockopt(s, IPPROTO_TCP, TCP_INFO, name, &l)); SHOW(l); SHOW(info(s).tcpi_state);
    T(bind(s, (void *)&a, sizeof a)); l = sizeof a; getsockname(s, (void *)&a, &l);
    T(set(s, TCP_NODELAY, 1)); T(set(s, TCP_USER_TIMEOUT, 777)); T(set(s, TCP_FASTOPEN, 3)); T(listen(s, 7));
    struct tcp_info i = info(s); SHOW(i.tcpi_state); SHOW(i.tcpi_unacked); SHOW(i.tcpi_sacked);
    BOTH(s, TCP_FASTOPEN, 4);
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    T(setsockopt(c, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    T(connect(c, (void *)&a, sizeof a)); i = info(s); SHOW(i.tcpi_unacked); int d = OK(accept(s, NULL, NULL));
    SHOW(opt(d, TCP_NODELAY)); SHOW(opt(d, TCP_USER_TIMEOUT)); SHOW(opt(c, TCP_MAXSEG) > 536); BOTH(c, TCP_FASTOPEN, 4);
    tell("client", c); tell("server", d);
    char b[100] = "";
    T(write(c, b, 100)); T(recv(d, b, 100, MSG_WAITALL)); T(write(d, b, 10)); T(recv(c, b, 10, MSG_WAITALL));
    settled(c); settled(d); tell("client", c); tell("server", d);
    i = info(c); SHOW(i.tcpi_data_segs_in); SHOW(i.tcpi_data_segs_out); i = info(d); SHOW(i.tcpi_data_segs_in); SHOW(i.tcpi_data_segs_out);
    T(set(c, TCP_CORK, 1)); T(write(c, "x", 1)); SHOW(info(c).tcpi_notsent_bytes); T(set(c, TCP_CORK, 0)); T(recv(d, b, 1, MSG_WAITALL)); settled(c);
    T(shutdown(c, SHUT_WR)); T(recv(d, b, 1, 0)); for (int n = 0; n < 1000 && info(c).tcpi_state != 5; n++) usleep(1000);
    SHOW(info(c).tcpi_state); SHOW(info(d).tcpi_state); tell("client", c);
    T(shutdown(d, SHUT_WR)); T(recv(c, b, 1, 0)); for (int n = 0; n < 1000 && info(d).tcpi_state != 7; n++) usleep(1000);
    SHOW(info(c).tcpi_state); SHOW(info(d).tcpi_state);
    close(c); close(d); close(s);
    return leave();
}
