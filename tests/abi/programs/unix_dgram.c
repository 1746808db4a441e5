/* AF_UNIX datagrams and sequenced packets. */
#include "abi.h"
#include <sys/un.h>
static socklen_t name(struct sockaddr_un *a, const char *n) {
    memset(a, 0, sizeof *a); a->sun_family = AF_UNIX; strcpy(a->sun_path, n);
    return offsetof(struct sockaddr_un, sun_path) + strlen(n) + 1;
}
int main(void) {
    enter("unix_dgram");
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_un a, f; socklen_t la, fl = sizeof f; char b[64] = { 0 };
    int x = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), y = OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    la = name(&a, "x"); T(bind(x, (void *)&a, la));
    T(send(y, "a", 1, 0));
    T(sendto(y, "one", 3, 0, (void *)&a, la)); T(sendto(y, "", 0, 0, (void *)&a, la)); T(sendto(y, "three", 5, 0, (void *)&a, la));
    T(recvfrom(x, b, 2, MSG_TRUNC, (void *)&f, &fl)); SHOW(fl); TEXT("[%s]", b);
    T(recv(x, b, sizeof b, 0));
    struct sockaddr_un ya; socklen_t ly = name(&ya, "y"); T(bind(y, (void *)&ya, ly));
    T(connect(y, (void *)&a, la)); T(send(y, "named", 5, 0));
    T(recv(x, b, sizeof b, MSG_DONTWAIT));
    fl = sizeof f; memset(&f, 0, sizeof f);
    T(recvfrom(x, b, sizeof b, MSG_DONTWAIT, (void *)&f, &fl)); TEXT("%s", f.sun_path);
    T(recv(x, b, sizeof b, MSG_DONTWAIT));
    T(listen(x, 1)); T(accept(x, NULL, NULL));
    T(shutdown(x, SHUT_RD)); T(send(y, "x", 1, 0));
    close(x); T(send(y, "x", 1, 0)); 
    T(sendto(y, "x", 1, 0, (void *)&a, la));
    int s[2]; T(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    T(write(s[0], "pair", 4)); T(read(s[1], b, sizeof b));
    static char big[1 << 20]; T(send(s[0], big, sizeof big, 0));
    int q[2]; T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q));
    T(write(q[0], "first", 5)); T(write(q[0], "second", 6)); T(read(q[1], b, 2)); T(read(q[1], b, sizeof b));
    struct iovec io = { b, sizeof b }; struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
    T(write(q[0], "third", 5)); T(recvmsg(q[1], &m, 0)); SHOW(m.msg_flags & MSG_EOR);
    int on = 1; T(setsockopt(q[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    T(write(q[0], "ids", 3));
    char cb[CMSG_SPACE(sizeof(struct ucred))]; m.msg_control = cb; m.msg_controllen = sizeof cb;
    T(recvmsg(q[1], &m, 0)); struct cmsghdr *h = CMSG_FIRSTHDR(&m); SHOW(h->cmsg_type);
    struct ucred u; memcpy(&u, CMSG_DATA(h), sizeof u); SHOW(u.pid == getpid());
    close(q[0]); T(read(q[1], b, 1)); T(write(q[1], "x", 1));
    struct mmsghdr mm[3]; struct iovec ios[3]; memset(mm, 0, sizeof mm);
    for (int i = 0; i < 3; i++) { ios[i].iov_base = "abc"; ios[i].iov_len = i + 1; mm[i].msg_hdr.msg_iov = &ios[i]; mm[i].msg_hdr.msg_iovlen = 1; }
    T(sendmmsg(s[0], mm, 3, 0)); SHOW(mm[2].msg_len);
    char bufs[3][8];
    for (int i = 0; i < 3; i++) { ios[i].iov_base = bufs[i]; ios[i].iov_len = 8; }
    T(recvmmsg(s[1], mm, 3, MSG_WAITFORONE, NULL)); SHOW(mm[0].msg_len * 100 + mm[1].msg_len * 10 + mm[2].msg_len);
    unlink("x"); unlink("y");
    return leave();
}
