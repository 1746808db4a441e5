// A web server of one thread on port 8000 that keeps connections. `/worst` answers by how many microseconds a second thread,
// which sleeps a millisecond again and again, was late at worst since it was asked last.
// `/work` takes a million instructions first; `/proc/...` answers with that file.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static _Atomic long worst;

static long now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000L + time.tv_nsec / 1000;
}

static void *sleeper(void *arg)
{
    for (;;) {
        long start = now_us();
        usleep(1000);
        long late = now_us() - start - 1000;
        if (late > atomic_load(&worst))
            atomic_store(&worst, late);
    }
    return arg;
}

// The requests are small and come whole.
static void answer(int fd)
{
    char request[2049], reply[4224], body[4096];
    ssize_t got = read(fd, request, sizeof request - 1);
    if (got < 16) {
        close(fd);
        return;
    }
    request[got] = 0;
    int size = snprintf(body, sizeof body, "Hello\n");
    if (memcmp(request, "GET /worst", 10) == 0)
        size = snprintf(body, sizeof body, "%ld\n", atomic_exchange(&worst, 0));
    if (memcmp(request, "GET /work", 9) == 0)
        for (int i = 0; i < 500000; i++)
            __asm__ volatile("");
    if (memcmp(request, "GET /proc/", 10) == 0) {
        *strchr(request + 4, ' ') = 0;
        int file = open(request + 4, O_RDONLY);
        size = read(file, body, sizeof body);
        close(file);
    }
    int length = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%.*s", size, size, body);
    if (write(fd, reply, length) != length)
        close(fd);
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8000)};
    struct epoll_event event = {.events = EPOLLIN}, events[64];
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    event.data.fd = listener;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) {
        perror("listen");
        return 1;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, sleeper, NULL);
    puts("serving");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listener) {
                answer(events[i].data.fd);
                continue;
            }
            int fd = accept(listener, NULL, NULL);
            event.data.fd = fd;
            if (fd >= 0)
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
