// The measured server: one thread, one epoll, static. `GET /` is answered and the connection kept, `GET /close` is
// answered and the connection closed, `GET /count` says how many requests were served and how many connections are open.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 16384
#define BATCH 256

static const char KEEP[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHello\n";
static const char CLOSE[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nHello\n";

static unsigned long served;
static long connections;

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static void hang_up(int fd)
{
    close(fd);
    connections--;
}

// Answers one request. The load's requests are small, come whole and one at a time; others are hung up on.
static void serve(int fd)
{
    char request[2048];
    ssize_t got = read(fd, request, sizeof request);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 16 || memcmp(request + got - 4, "\r\n\r\n", 4) != 0) {
        hang_up(fd);
        return;
    }
    served++;
    const char *answer = KEEP;
    size_t size = sizeof KEEP - 1;
    char count[160];
    if (memcmp(request + 5, "close", 5) == 0) {
        answer = CLOSE;
        size = sizeof CLOSE - 1;
    } else if (memcmp(request + 5, "count", 5) == 0) {
        char body[64];
        int body_size = snprintf(body, sizeof body, "%lu %ld\n", served, connections);
        size = snprintf(count, sizeof count, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", body_size, body);
        answer = count;
    }
    if (write(fd, answer, size) != (ssize_t)size || answer == CLOSE)
        hang_up(fd);
}

int main(void)
{
    struct rlimit files = {MOST, MOST};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return fail("setrlimit");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8000)};
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener < 0 || bind(listener, (struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 16384) < 0)
        return fail("listen");
    int poll = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted) < 0)
        return fail("epoll");
    for (;;) {
        struct epoll_event ready[BATCH];
        int count = epoll_wait(poll, ready, BATCH, -1);
        if (count < 0 && errno != EINTR)
            return fail("epoll_wait");
        for (int at = 0; at < count; at++) {
            int fd = ready[at].data.fd;
            if (fd != listener) {
                serve(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                connections++;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                wanted.data.fd = fd;
                if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted) < 0)
                    hang_up(fd);
            }
        }
    }
}
