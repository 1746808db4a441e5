/* TCP's urgent data over loopback: MSG_OOB, the mark, SO_OOBINLINE, POLLPRI, SIGURG. */
#include "abi.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <sys/epoll.h>
static volatile int urgent;
static void on_urgent(int sig) { urgent = sig == SIGURG; }
static int mark(int fd) { int m = -1; if (ioctl(fd, SIOCATMARK, &m)) return -errno; return m; }
static int inq(int fd) { int n = -1; if (ioctl(fd, FIONREAD, &n)) return -errno; return n; }
/* What poll says, once the peer's bytes have come. */
static int ready(int fd, int events) { struct pollfd p = { fd, events, 0 }; poll(&p, 1, 2000); p.events = POLLIN | POLLPRI; poll(&p, 1, 0); return p.revents; }
static void take(int fd, int most, int flags) {
    char b[64] = ""; struct iovec v = { b, most }; struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
    ssize_t n = recvmsg(fd, &m, flags);
    if (n < 0) printf("recv: %s\n", strerrorname_np(errno)); else printf("recv: %zd \"%.*s\" flags %x\n", n, (int)n, b, m.msg_flags);
}
int main(void) {
    enter("tcp_urgent");
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; socklen_t l = sizeof a;
    int one = 1, zero = 0;
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    T(mark(s)); T(recv(s, &one, 0, MSG_OOB));
    T(bind(s, (void *)&a, sizeof a)); getsockname(s, (void *)&a, &l); T(listen(s, 1));
    T(mark(s)); T(inq(s)); T(connect(c, (void *)&a, sizeof a));
    int d = OK(accept(s, NULL, NULL));
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    signal(SIGURG, on_urgent);
    T(fcntl(d, F_SETOWN, getpid())); SHOW(fcntl(d, F_GETOWN) == getpid());
    take(d, 4, MSG_OOB);
    /* Apart from the stream. */
    T(send(c, "abc!", 4, MSG_OOB)); T(send(c, "def", 3, 0));
    SHOW(ready(d, POLLPRI)); while (inq(d) < 3) usleep(1000);
    for (int i = 0; i < 2000 && !urgent; i++) usleep(1000);
    SHOW(urgent); SHOW(mark(d)); SHOW(inq(d));
    take(d, 4, MSG_OOB | MSG_PEEK); take(d, 0, MSG_OOB); take(d, 4, MSG_OOB);
    take(d, 10, 0); SHOW(mark(d)); SHOW(ready(d, POLLIN)); take(d, 1, 0); SHOW(mark(d)); take(d, 10, MSG_WAITALL | MSG_DONTWAIT);
    /* Taken before the mark is reached. */
    T(send(c, "x?", 2, MSG_OOB)); SHOW(ready(d, POLLPRI)); take(d, 1, MSG_OOB); SHOW(mark(d)); SHOW(ready(d, POLLIN)); take(d, 1, MSG_OOB);
    take(d, 10, 0); SHOW(mark(d)); take(d, 10, MSG_DONTWAIT); SHOW(mark(d));
    /* Nor does a read that waits for all go past the mark. */
    T(send(c, "all!", 4, MSG_OOB)); T(send(c, "more", 4, 0)); usleep(20000); take(d, 7, MSG_WAITALL); take(d, 4, MSG_WAITALL);
    /* Alone it is nothing to read; passed over it is gone. */
    T(send(c, "!", 1, MSG_OOB)); SHOW(ready(d, POLLPRI)); take(d, 10, MSG_DONTWAIT);
    T(send(c, "y", 1, 0)); SHOW(ready(d, POLLIN)); take(d, 10, 0); take(d, 1, MSG_OOB);
    /* The newest mark counts. */
    T(send(c, "a1", 2, MSG_OOB)); T(send(c, "b2", 2, MSG_OOB)); T(send(c, "c", 1, 0)); usleep(20000);
    SHOW(ready(d, POLLPRI)); take(d, 10, 0); take(d, 10, MSG_OOB); take(d, 10, 0);
    /* In the stream. */
    T(setsockopt(d, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one));
    T(send(c, "in", 2, 0)); T(send(c, "!line", 1, MSG_OOB)); T(send(c, "line", 4, 0)); usleep(20000);
    SHOW(ready(d, POLLPRI)); SHOW(inq(d)); take(d, 1, MSG_OOB);
    take(d, 20, 0); SHOW(mark(d)); take(d, 1, 0); SHOW(mark(d)); take(d, 20, 0);
    T(setsockopt(d, SOL_SOCKET, SO_OOBINLINE, &zero, sizeof zero));
    /* An owner by ioctl, and nobody. */
    int pid = getpid(); T(ioctl(d, FIOSETOWN, &pid)); pid = 0; T(ioctl(d, SIOCGPGRP, &pid)); SHOW(pid == getpid());
    T(fcntl(d, F_SETOWN, 0)); urgent = 0; T(send(c, "!", 1, MSG_OOB)); SHOW(ready(d, POLLPRI)); usleep(20000); SHOW(urgent);
    /* Edge by edge. */
    int e = OK(epoll_create1(0)); struct epoll_event ev = { .events = EPOLLPRI | EPOLLET }, got;
    T(epoll_ctl(e, EPOLL_CTL_ADD, d, &ev)); SHOW(epoll_wait(e, &got, 1, 1000)); printf("%x\n", got.events); SHOW(epoll_wait(e, &got, 1, 0));
    T(send(c, "?", 1, MSG_OOB)); SHOW(epoll_wait(e, &got, 1, 2000)); printf("%x\n", got.events);
    take(d, 1, MSG_OOB); close(c); SHOW(ready(d, POLLIN)); take(d, 10, MSG_OOB); take(d, 10, 0);
    close(d); close(s);
    return leave();
}
