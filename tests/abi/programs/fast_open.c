/* Connecting with data (TCP_FASTOPEN as a client), and the least TTL that is taken. */
#include "abi.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in addr;
static int listener;

static int client(int flags) {
    return socket(AF_INET, SOCK_STREAM | flags, 0);
}

static void served(const char *what) {
    char text[32] = { 0 };
    int fd = accept(listener, NULL, NULL);
    int n = recv(fd, text, sizeof text - 1, 0);
    printf("%s: the server hears %d: %s\n", what, n, text);
    T(send(fd, "answer", 6, 0));
    close(fd);
}

static void answered(int fd) {
    char text[32] = { 0 };
    T(recv(fd, text, sizeof text - 1, 0));
    printf("answer: %s\n", text);
    close(fd);
}

int main(void) {
    socklen_t len = sizeof addr;
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (void *)&addr, len);
    getsockname(listener, (void *)&addr, &len);
    int queue = 16;
    T(setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue));
    listen(listener, 16);

    /* The first time there is no cookie, the second time there may be one. */
    for (int round = 0; round < 2; round++) {
        int fd = client(0);
        T(sendto(fd, "hello", 5, MSG_FASTOPEN, (void *)&addr, len));
        served("sendto");
        T(sendto(fd, "again", 5, MSG_FASTOPEN, (void *)&addr, len));
        answered(fd);
    }
    for (int round = 0; round < 2; round++) {
        int on = 1, fd = client(0);
        T(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
        on = 7;
        len = sizeof on;
        T(getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, &len));
        printf("set: %d\n", on);
        len = sizeof addr;
        T(connect(fd, (void *)&addr, len));
        T(write(fd, "later", 5));
        served("connect");
        answered(fd);
    }
    int fd = client(0), on = 5;
    T(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
    T(sendto(fd, "x", 1, MSG_FASTOPEN, NULL, 0));
    close(fd);

    /* Nobody listens. */
    struct sockaddr_in closed = addr;
    int taken = socket(AF_INET, SOCK_STREAM, 0);
    closed.sin_port = 0;
    bind(taken, (void *)&closed, len);
    getsockname(taken, (void *)&closed, &len);
    fd = client(0);
    T(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&closed, len));
    close(fd);
    struct sockaddr_in unspecific = { .sin_family = AF_UNIX };
    fd = client(0);
    T(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&unspecific, len));
    T(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&addr, 4));
    close(fd);

    /* The least TTL: what comes with 64 is not taken by who wants 200. */
    fd = client(0);
    T(connect(fd, (void *)&addr, len));
    int peer = accept(listener, NULL, NULL), least = 200;
    T(setsockopt(fd, IPPROTO_IP, IP_MINTTL, &least, sizeof least));
    struct timeval soon = { 0, 300000 }, late = { 20, 0 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    T(send(peer, "far", 3, 0));
    char text[8] = { 0 };
    T(recv(fd, text, sizeof text, 0));
    least = 0;
    T(setsockopt(fd, IPPROTO_IP, IP_MINTTL, &least, sizeof least));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late);
    T(recv(fd, text, sizeof text, 0));
    printf("came: %s\n", text);
    least = 256;
    T(setsockopt(fd, IPPROTO_IP, IP_MINTTL, &least, sizeof least));
    return 0;
}
