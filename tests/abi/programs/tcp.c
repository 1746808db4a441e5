/* TCP over loopback: connect, accept, options, ends, non-blocking. */
#include "abi.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
static int opt(int fd, int level, int name) { int v = -1; socklen_t l = sizeof v; if (getsockopt(fd, level, name, &v, &l)) return -errno; return v; }
static int sopt(int fd, int level, int name, int v) { return setsockopt(fd, level, name, &v, sizeof v); }
static void *client(void *arg) {
    int c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, arg, sizeof(struct sockaddr_in));
    char b[4]; int n = recv(c, b, 4, MSG_WAITALL);
    static char data[300000]; memset(data, n == 4 ? 'd' : '?', sizeof data);
    size_t at = 0; while (at < sizeof data) { ssize_t w = write(c, data + at, sizeof data - at); if (w <= 0) break; at += w; }
    shutdown(c, SHUT_WR);
    while (read(c, b, 4) > 0) { }
    close(c);
    return NULL;
}
int main(void) {
    enter("tcp");
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, p; socklen_t l = sizeof a, pl = sizeof p;
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    T(sopt(s, SOL_SOCKET, SO_REUSEADDR, 1)); T(opt(s, SOL_SOCKET, SO_REUSEADDR));
    T(opt(s, SOL_SOCKET, SO_TYPE)); T(opt(s, SOL_SOCKET, SO_PROTOCOL)); T(opt(s, SOL_SOCKET, SO_ERROR));
    T(sopt(s, IPPROTO_TCP, TCP_NODELAY, 1)); T(opt(s, IPPROTO_TCP, TCP_NODELAY));
    T(sopt(s, SOL_SOCKET, SO_KEEPALIVE, 1)); T(sopt(s, IPPROTO_TCP, TCP_KEEPIDLE, 33)); T(opt(s, IPPROTO_TCP, TCP_KEEPIDLE));
    T(sopt(s, IPPROTO_IP, IP_TTL, 31)); T(opt(s, IPPROTO_IP, IP_TTL)); T(sopt(s, IPPROTO_IP, IP_TTL, 999));
    T(sopt(s, SOL_SOCKET, 9999, 1)); T(sopt(s, 77, 1, 1)); T(opt(s, IPPROTO_IPV6, IPV6_V6ONLY));
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, "", 1));
    T(bind(s, (void *)&a, 4)); T(bind(s, (void *)&a, sizeof a)); T(bind(s, (void *)&a, sizeof a));
    T(getsockname(s, (void *)&a, &l)); SHOW(ntohs(a.sin_port) > 1024); SHOW(l);
    T(getpeername(s, (void *)&p, &pl)); T(accept(s, NULL, NULL));
    T(listen(s, 5)); T(opt(s, SOL_SOCKET, SO_ACCEPTCONN));
    int o = socket(AF_INET, SOCK_STREAM, 0); T(shutdown(o, SHUT_RD)); T(bind(o, (void *)&a, sizeof a)); close(o);
    fcntl(s, F_SETFL, O_NONBLOCK); T(accept(s, NULL, NULL)); fcntl(s, F_SETFL, 0);
    pthread_t t; pthread_create(&t, NULL, client, &a);
    int c = OK(accept4(s, (void *)&p, &pl, SOCK_CLOEXEC)); T(fcntl(c, F_GETFD)); SHOW(p.sin_family); SHOW(p.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    T(send(c, "go", 2, MSG_MORE)); T(send(c, "!!", 2, 0));
    static char b[65536]; size_t sum = 0; ssize_t n; int bad = 0;
    while ((n = read(c, b, sizeof b)) > 0) { sum += n; for (int i = 0; i < n; i++) bad += b[i] != 'd'; }
    SHOW(sum); SHOW(bad); SHOW(n);
    struct pollfd pf = { c, POLLIN | POLLOUT | POLLRDHUP, 0 }; T(poll(&pf, 1, 0)); printf("%x\n", pf.revents);
    T(shutdown(c, SHUT_WR)); pthread_join(t, NULL);
    T(write(c, "x", 1)); T(send(c, "x", 1, MSG_NOSIGNAL));
    close(c);
    c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    T(send(c, "x", 1, 0)); T(recv(c, b, 1, 0)); 
    n = connect(c, (void *)&a, sizeof a); SHOW(n == 0 || errno == EINPROGRESS);
    pf.fd = c; pf.events = POLLOUT; T(poll(&pf, 1, 5000)); printf("%x\n", pf.revents); T(opt(c, SOL_SOCKET, SO_ERROR));
    n = connect(c, (void *)&a, sizeof a); SHOW(n == 0 || errno == EISCONN); T(recv(c, b, 1, 0));
    int d = accept(s, NULL, NULL); T(send(d, "abcdef", 6, 0));
    pf.events = POLLIN; T(poll(&pf, 1, 5000));
    T(recv(c, b, 3, MSG_PEEK)); T(recv(c, b, 3, 0)); T(recv(c, b, 9, MSG_TRUNC));
    int k; T(ioctl(c, FIONREAD, &k)); SHOW(k);
    struct linger lg = { 1, 0 }; T(setsockopt(d, SOL_SOCKET, SO_LINGER, &lg, sizeof lg)); close(d);
    T(poll(&pf, 1, 5000)); printf("%x\n", pf.revents); T(recv(c, b, 1, 0)); T(recv(c, b, 1, 0)); T(send(c, "x", 1, 0));
    close(c); close(s);
    c = OK(socket(AF_INET, SOCK_STREAM, 0)); T(connect(c, (void *)&a, sizeof a)); T(opt(c, SOL_SOCKET, SO_ERROR));
    struct timeval tv = { 0, 20000 }; T(setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)); l = sizeof tv;
    T(getsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &tv, &l)); SHOW(tv.tv_usec);
    a.sin_family = 99; T(connect(c, (void *)&a, sizeof a));
    return leave();
}
