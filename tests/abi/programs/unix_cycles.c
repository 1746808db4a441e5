/* Descriptors of UNIX sockets that only lie in each other's queues: nobody can reach them, and they are closed. */
#include "abi.h"

static void pass(int through, int first, int second) {
    char space[CMSG_SPACE(2 * sizeof(int))] = { 0 };
    struct iovec io = { "!", 1 };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE((second < 0 ? 1 : 2) * sizeof(int)) };
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN((second < 0 ? 1 : 2) * sizeof(int));
    memcpy(CMSG_DATA(h), (int[]){ first, second }, (second < 0 ? 1 : 2) * sizeof(int));
    T(sendmsg(through, &m, 0));
}

/* Closing a socket is what has the kernel look. Whether the pipe's other end was closed within two seconds. */
static void ended(int fd) {
    struct pollfd p = { fd, POLLIN, 0 };
    for (int n = 0; n < 200 && !(p.revents & POLLHUP); n++) {
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        close(s);
        poll(&p, 1, 10);
    }
    printf("%s\n", p.revents & POLLHUP ? "closed" : "open");
}

static void cycle(int kind) {
    int a[2], b[2], q[2];
    socketpair(AF_UNIX, kind, 0, a); pipe(q);
    /* Each in the other's queue. */
    pass(a[0], a[0], q[1]); pass(a[1], a[1], -1);
    close(a[0]); close(a[1]); close(q[1]); ended(q[0]); close(q[0]);
    /* Three in a ring. */
    int c[2]; socketpair(AF_UNIX, kind, 0, a); socketpair(AF_UNIX, kind, 0, b); socketpair(AF_UNIX, kind, 0, c); pipe(q);
    pass(a[0], b[1], q[1]); pass(b[0], c[1], -1); pass(c[0], a[1], -1);
    close(a[0]); close(a[1]); close(b[0]); close(b[1]); close(c[0]); close(c[1]); close(q[1]); ended(q[0]); close(q[0]);
    /* One that can still be received. */
    socketpair(AF_UNIX, kind, 0, a); socketpair(AF_UNIX, kind, 0, b); pipe(q);
    pass(b[0], q[1], -1); pass(a[0], b[1], b[0]); close(b[0]); close(b[1]); close(q[1]);
    struct pollfd p = { q[0], POLLIN, 0 }; int s = socket(AF_UNIX, SOCK_STREAM, 0); close(s); sleep_ms(50); T(poll(&p, 1, 0));
    close(a[0]); close(a[1]); ended(q[0]); close(q[0]);
}

int main(void) {
    enter("unix_cycles");
    cycle(SOCK_STREAM);
    cycle(SOCK_DGRAM);
    cycle(SOCK_SEQPACKET);
    return leave();
}
