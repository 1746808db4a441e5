/* AF_UNIX sequenced packets: by path, by abstract name and in pairs; records, descriptors, credentials, peeking, shutting down, names of peers. */
#include "abi.h"
#include <sys/un.h>

static socklen_t n;
static struct sockaddr_un name(const char *path) { struct sockaddr_un a = { .sun_family = AF_UNIX }; memcpy(a.sun_path, path, strlen(path + !*path) + !*path); return a; }
static socklen_t len(const char *path) { return offsetof(struct sockaddr_un, sun_path) + (*path ? strlen(path) + 1 : 1 + strlen(path + 1)); }
static void who(const char *what, int fd, int (*ask)(int, struct sockaddr *, socklen_t *)) {
    struct sockaddr_un a; memset(&a, 0, sizeof a); n = sizeof a; int r = ask(fd, (void *)&a, &n);
    TEXT("%s: %d %s, %d bytes, family %d, %c%s", what, r, r ? strerrorname_np(errno) : "", r ? 0 : (int)n, r ? 0 : a.sun_family, n > 2 ? (*a.sun_path ? *a.sun_path : '@') : '-', n > 2 ? a.sun_path + 1 : "");
}

/* Receives with control messages, and tells all of it. */
static void take(int fd, size_t room, int flags) {
    char b[100] = "", control[256]; struct iovec iov = { b, room }; struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    errno = 0; long r = recvmsg(fd, &m, flags); TEXT("took %ld %s \"%s\" flags %x", r, r < 0 ? strerrorname_np(errno) : "", b, r < 0 ? 0 : m.msg_flags);
    for (struct cmsghdr *c = r < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        TEXT("  level %d type %d len %d", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len);
        if (c->cmsg_type == SCM_RIGHTS) { int fds[4]; int k = (c->cmsg_len - CMSG_LEN(0)) / 4; memcpy(fds, CMSG_DATA(c), k * 4); for (int i = 0; i < k; i++) { SHOW(fcntl(fds[i], F_GETFD)); close(fds[i]); } }
        if (c->cmsg_type == SCM_CREDENTIALS) { struct ucred u; memcpy(&u, CMSG_DATA(c), sizeof u); SHOW(u.pid == getpid()); SHOW(u.uid == getuid()); SHOW(u.gid == getgid()); }
    }
}

static void give(int fd, const char *text, int flags, int descriptors, int credentials) {
    char control[256] = { 0 }; struct iovec iov = { (void *)text, strlen(text) }; struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
    struct cmsghdr *c = (void *)control;
    if (descriptors) { int fds[2] = { 0, 1 }; c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(4 * descriptors); memcpy(CMSG_DATA(c), fds, 4 * descriptors); m.msg_controllen += CMSG_SPACE(4 * descriptors); c = (void *)(control + m.msg_controllen); }
    if (credentials) { struct ucred u = { getpid(), getuid(), getgid() }; c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_CREDENTIALS; c->cmsg_len = CMSG_LEN(sizeof u); memcpy(CMSG_DATA(c), &u, sizeof u); m.msg_controllen += CMSG_SPACE(sizeof u); }
    T(sendmsg(fd, &m, flags | MSG_NOSIGNAL));
}

static void conversation(const char *path) {
    TEXT("-- %c%s", *path ? *path : '@', path + 1); struct sockaddr_un a = name(path);
    int l = OK(socket(AF_UNIX, SOCK_SEQPACKET, 0)), c = OK(socket(AF_UNIX, SOCK_SEQPACKET, 0)), again = socket(AF_UNIX, SOCK_SEQPACKET, 0), stream = socket(AF_UNIX, SOCK_STREAM, 0);
    T(connect(c, (void *)&a, len(path))); T(listen(l, 1)); T(bind(l, (void *)&a, len(path))); T(bind(l, (void *)&a, len(path))); T(bind(again, (void *)&a, len(path))); T(connect(c, (void *)&a, len(path)));
    T(listen(l, 1)); T(connect(stream, (void *)&a, len(path))); T(send(c, "x", 1, MSG_NOSIGNAL)); T(recv(c, &n, 1, MSG_DONTWAIT)); T(connect(c, (void *)&a, len(path))); T(connect(c, (void *)&a, len(path)));
    int s = OK(accept(l, NULL, NULL)); who("listener", l, getsockname); who("server", s, getsockname); who("its peer", s, getpeername); who("client", c, getsockname); who("its peer", c, getpeername); who("listener's peer", l, getpeername);
    struct ucred u; n = sizeof u; T(getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &n)); SHOW(u.pid == getpid()); int v = 0; n = sizeof v; T(getsockopt(c, SOL_SOCKET, SO_TYPE, &v, &n)); SHOW(v);
    give(c, "one", 0, 0, 0); give(c, "three", MSG_EOR, 0, 0); give(c, "", 0, 0, 0); give(c, "last", 0, 0, 0);
    SHOW((ioctl(s, FIONREAD, &v), v)); take(s, 50, MSG_PEEK); take(s, 2, MSG_PEEK); take(s, 2, 0); take(s, 2, MSG_TRUNC); take(s, 50, 0); take(s, 50, 0); take(s, 50, MSG_DONTWAIT);
    give(c, "descriptors", 0, 2, 0); take(s, 50, MSG_PEEK); take(s, 50, MSG_CMSG_CLOEXEC); v = 1; T(setsockopt(s, SOL_SOCKET, SO_PASSCRED, &v, sizeof v));
    give(c, "who", 0, 0, 0); give(c, "I", 0, 0, 1); give(c, "both", 0, 1, 1); take(s, 50, 0); take(s, 50, 0); take(s, 50, 0);
    T(sendto(c, "named", 5, MSG_NOSIGNAL, (void *)&a, len(path)));
    struct pollfd p = { s, POLLIN | POLLRDHUP, 0 }; T(poll(&p, 1, 0)); take(s, 50, 0); give(c, "before", 0, 0, 0); T(shutdown(c, SHUT_WR)); p.revents = 0; T(poll(&p, 1, 0)); SHOW(p.revents);
    give(c, "after", 0, 0, 0); take(s, 50, 0); take(s, 50, 0); give(s, "still", 0, 0, 0); take(c, 50, 0); T(shutdown(s, SHUT_RDWR)); give(s, "over", 0, 0, 0); take(c, 50, 0); p.fd = c; T(poll(&p, 1, 0)); SHOW(p.revents);
    close(s); who("peer that is gone", c, getpeername); take(c, 50, 0); give(c, "gone", 0, 0, 0); close(c);
    c = socket(AF_UNIX, SOCK_SEQPACKET, 0); T(connect(c, (void *)&a, len(path))); close(l); take(c, 50, 0); give(c, "nobody", 0, 0, 0); close(c); close(again); close(stream);
    c = socket(AF_UNIX, SOCK_SEQPACKET, 0); T(connect(c, (void *)&a, len(path))); close(c); if (*path) T(unlink(path));
}

int main(void) {
    enter("unix_seqpacket");
    conversation("path"); conversation("\0abi-unix-seqpacket");
    TEXT("-- a pair"); int q[2]; T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q)); who("one", q[0], getsockname); who("its peer", q[0], getpeername);
    char big[5000] = { 0 }; T(send(q[0], big, sizeof big, 0)); T(recv(q[1], big, 100, MSG_TRUNC)); T(recv(q[1], big, 1, MSG_DONTWAIT));
    int v = 4608; T(setsockopt(q[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof v)); char *huge = calloc(1, 1 << 20); T(send(q[0], huge, 1 << 20, MSG_DONTWAIT)); free(huge);
    give(q[0], "unread", 0, 0, 0); close(q[1]); take(q[0], 50, 0); give(q[0], "closed", 0, 0, 0); T(send(q[0], "x", 1, MSG_OOB)); close(q[0]);
    struct sockaddr_un none = { .sun_family = AF_UNIX }; int s = socket(AF_UNIX, SOCK_SEQPACKET, 0); T(bind(s, (void *)&none, 2)); struct sockaddr_un a; n = sizeof a; T(getsockname(s, (void *)&a, &n)); SHOW(n); SHOW(a.sun_path[0]);
    T(accept(s, NULL, NULL)); T(send(s, "x", 1, MSG_NOSIGNAL)); T(shutdown(s, SHUT_RD)); T(listen(s, 5)); T(accept4(s, NULL, NULL, SOCK_NONBLOCK | 1 << 20)); close(s);
    return leave();
}
