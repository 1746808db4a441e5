/* AF_VSOCK: `vsock` talks to itself over VMADDR_CID_LOCAL; `vsock CID PORT` sends what a client of the host would. */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TOTAL = 1 << 20 };
static char data[TOTAL];

static int fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

/* Gives everything back. */
static void *echo(void *listener) {
    int s = accept(*(int *)listener, NULL, NULL);
    if (s < 0) fail("accept");
    static char buffer[65536];
    for (ssize_t n; (n = recv(s, buffer, sizeof buffer, 0)) > 0;)
        for (ssize_t done = 0, part; done < n; done += part)
            if ((part = send(s, buffer + done, n - done, MSG_NOSIGNAL)) < 0) fail("echo");
    close(s);
    return NULL;
}

static void *pour(void *s) {
    for (size_t done = 0; done < TOTAL;) {
        ssize_t n = send(*(int *)s, data + done, TOTAL - done, 0);
        if (n < 0) fail("send");
        done += n;
    }
    shutdown(*(int *)s, SHUT_WR);
    return NULL;
}

static void through(int s) {
    for (size_t n = 0; n < TOTAL; n++) data[n] = n * 31 + (n >> 9);
    pthread_t sender;
    pthread_create(&sender, NULL, pour, &s);
    static char back[TOTAL];
    size_t got = 0;
    for (ssize_t n; got < TOTAL && (n = recv(s, back + got, TOTAL - got, 0)) != 0; got += n)
        if (n < 0) fail("recv");
    pthread_join(sender, NULL);
    printf("%zu bytes came back, %s\n", got, memcmp(data, back, TOTAL) ? "changed" : "as they were");
    char byte;
    printf("then %zd\n", recv(s, &byte, 1, 0));
}

static int listen_on(int kind, struct sockaddr_vm *at) {
    int l = socket(AF_VSOCK, kind, 0);
    socklen_t len = sizeof *at;
    *at = (struct sockaddr_vm){ .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY };
    if (l < 0 || bind(l, (void *)at, len) || getsockname(l, (void *)at, &len)) fail("bind");
    at->svm_cid = VMADDR_CID_LOCAL;
    return l;
}

static int connected(int kind, struct sockaddr_vm *to) {
    int s = socket(AF_VSOCK, kind, 0);
    if (s < 0 || connect(s, (void *)to, sizeof *to)) fail("connect");
    return s;
}

int main(int argc, char **argv) {
    struct sockaddr_vm at, peer;
    if (argc == 3) {
        at = (struct sockaddr_vm){ .svm_family = AF_VSOCK, .svm_cid = atoi(argv[1]), .svm_port = atoi(argv[2]) };
        int s = connected(SOCK_STREAM, &at);
        through(s);
        return 0;
    }
    int l = listen_on(SOCK_STREAM, &at), s = socket(AF_VSOCK, SOCK_STREAM, 0);
    printf("nobody listens: %s\n", connect(s, (void *)&at, sizeof at) ? strerror(errno) : "connected");
    close(s);
    listen(l, 4);
    pthread_t server;
    pthread_create(&server, NULL, echo, &l);
    s = connected(SOCK_STREAM, &at);
    socklen_t len = sizeof peer;
    getpeername(s, (void *)&peer, &len);
    printf("peer %u, the same port: %d\n", peer.svm_cid, peer.svm_port == at.svm_port);
    through(s);
    close(s);
    pthread_join(server, NULL);
    close(l);

    l = listen_on(SOCK_SEQPACKET, &at);
    listen(l, 4);
    s = connected(SOCK_SEQPACKET, &at);
    int t = accept(l, NULL, NULL);
    struct pollfd p = { t, POLLIN, 0 };
    printf("quiet: %d\n", poll(&p, 1, 10));
    send(s, "first", 5, MSG_EOR);
    send(s, "second", 6, 0);
    char buffer[4];
    struct iovec io = { buffer, sizeof buffer };
    struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
    for (int n = 0; n < 2; n++) {
        ssize_t got = recvmsg(t, &m, 0);
        printf("%.4s of %zd, flags %x\n", buffer, got, m.msg_flags);
    }
    close(s);
    int ready = poll(&p, 1, 1000);
    printf("poll %d, %x; recv %zd\n", ready, p.revents, recv(t, buffer, 1, 0));
    printf("send: %s\n", send(t, "x", 1, MSG_NOSIGNAL) < 0 ? strerror(errno) : "sent");
    s = socket(AF_VSOCK, SOCK_STREAM, 0);
    at.svm_cid = VMADDR_CID_HOST;
    printf("no host: %s\n", connect(s, (void *)&at, sizeof at) ? strerror(errno) : "connected");
    return 0;
}
