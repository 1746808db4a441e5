/* AF_UNIX streams: names, backlog, ends, descriptors and ids on their way. */
#include "abi.h"
#include <sys/un.h>
static socklen_t name(struct sockaddr_un *a, const char *n, int abstract) {
    memset(a, 0, sizeof *a); a->sun_family = AF_UNIX; strcpy(a->sun_path + abstract, n);
    return offsetof(struct sockaddr_un, sun_path) + strlen(n) + 1;
}
int main(void) {
    enter("unix_stream");
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_un a; socklen_t len; char b[64] = { 0 };
    T(socket(AF_UNIX, 77, 0)); T(socket(AF_UNIX, SOCK_STREAM, 5)); T(socket(999, SOCK_STREAM, 0));
    int l = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    T(fcntl(l, F_GETFD));
    T(listen(l, 5));
    len = name(&a, "sock", 0);
    T(bind(l, (void *)&a, len)); T(bind(l, (void *)&a, len));
    int c = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    T(bind(c, (void *)&a, len));
    T(connect(c, (void *)&a, len));
    T(listen(l, 0));
    T(connect(c, (void *)&a, len));
    T(connect(c, (void *)&a, len));
    int c2 = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    T(connect(c2, (void *)&a, len));
    T(send(c, "hello", 5, 0));
    struct sockaddr_un from; socklen_t fl = sizeof from;
    int s = OK(accept(l, (void *)&from, &fl)); SHOW(fl); SHOW(from.sun_family);
    fl = sizeof from; T(getsockname(s, (void *)&from, &fl)); TEXT("%s", from.sun_path);
    fl = sizeof from; T(getpeername(c, (void *)&from, &fl)); TEXT("%s %d", from.sun_path, (int)fl);
    T(recv(s, b, 3, MSG_PEEK)); T(recv(s, b, sizeof b, 0)); TEXT("[%.5s]", b);
    T(recv(s, b, sizeof b, MSG_DONTWAIT));
    T(recv(c, b, sizeof b, 0));
    int v; len = sizeof v;
    T(getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &len)); SHOW(v);
    T(getsockopt(c, SOL_SOCKET, SO_TYPE, &v, &len)); SHOW(v);
    T(getsockopt(c, SOL_SOCKET, SO_DOMAIN, &v, &len)); SHOW(v);
    struct ucred u; len = sizeof u;
    T(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &len)); SHOW(u.pid == getpid()); SHOW(u.uid == getuid());
    T(getsockopt(c, SOL_SOCKET, 9999, &v, &len));
    T(getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &len));
    T(ioctl(s, FIONREAD, &v)); SHOW(v);
    int p[2]; pipe(p);
    char cb[CMSG_SPACE(sizeof(int) * 2)] = { 0 };
    struct iovec io = { "fds", 3 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = sizeof cb };
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(sizeof p);
    memcpy(CMSG_DATA(h), p, sizeof p);
    T(sendmsg(c, &m, 0));
    close(p[1]);
    io.iov_base = b; io.iov_len = sizeof b; m.msg_controllen = sizeof cb;
    T(recvmsg(s, &m, MSG_CMSG_CLOEXEC)); SHOW(m.msg_flags & MSG_CTRUNC); SHOW(m.msg_controllen);
    h = CMSG_FIRSTHDR(&m); SHOW(h->cmsg_type);
    int got[2]; memcpy(got, CMSG_DATA(h), sizeof got);
    T(write(got[1], "via", 3)); T(read(p[0], b, 9)); T(fcntl(got[0], F_GETFD));
    h->cmsg_len = 5; io.iov_len = 3; m.msg_controllen = sizeof cb;
    T(sendmsg(c, &m, 0));
    T(shutdown(c, SHUT_WR)); T(send(c, "x", 1, 0)); T(read(s, b, 9));
    T(send(s, "back", 4, 0)); T(shutdown(c, 9));
    T(close(s));
    T(read(c, b, 9)); T(read(c, b, 9));
    int sp[2]; T(socketpair(AF_UNIX, SOCK_STREAM, 0, sp));
    T(write(sp[0], "unread", 6)); T(close(sp[1])); T(read(sp[0], b, 1)); T(read(sp[0], b, 1)); T(write(sp[0], "x", 1));
    T(socketpair(AF_INET, SOCK_STREAM, 0, sp));
    struct pollfd pf = { c2, POLLIN | POLLOUT, 0 };
    T(poll(&pf, 1, 0)); printf("%x\n", pf.revents);
    len = name(&a, "abi-abstract", 1);
    int l2 = OK(socket(AF_UNIX, SOCK_STREAM, 0)), c3 = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(connect(c3, (void *)&a, len)); T(bind(l2, (void *)&a, len)); T(listen(l2, 3)); T(connect(c3, (void *)&a, len));
    a.sun_path[0] = 0; T(connect(c3, (void *)&a, 1));
    len = name(&a, "absent", 0); T(connect(c2, (void *)&a, len));
    close(open("plain", O_CREAT | O_RDWR, 0600));
    len = name(&a, "plain", 0); int c4 = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(c4, (void *)&a, len));
    struct timeval tv = { 0, 30000 };
    T(setsockopt(c3, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv)); T(recv(c3, b, 1, 0));
    unlink("sock"); unlink("plain");
    return leave();
}
