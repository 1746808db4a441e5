// A thread on each CPU, with a listener of its own on port 7 (SO_REUSEPORT), echoes what its connections send.
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void *serve(void *argument)
{
    int cpu = (int)(intptr_t)argument, one = 1;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) {
        perror("sched_setaffinity");
        return NULL;
    }
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), set_of = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 64) < 0) {
        perror("listen");
        return NULL;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(set_of, EPOLL_CTL_ADD, listener, &event);
    printf("CPU %d listens\n", cpu);
    fflush(stdout);
    for (;;) {
        if (epoll_wait(set_of, &event, 1, -1) != 1)
            continue;
        int fd = event.data.fd;
        if (fd == listener) {
            event.data.fd = accept(listener, NULL, NULL);
            event.events = EPOLLIN;
            epoll_ctl(set_of, EPOLL_CTL_ADD, event.data.fd, &event);
            continue;
        }
        static __thread char bytes[65536];
        ssize_t got = read(fd, bytes, sizeof bytes);
        for (ssize_t at = 0, put; at < got; at += put) {
            put = write(fd, bytes + at, got - at);
            if (put <= 0)
                break;
        }
        if (got <= 0)
            close(fd);
    }
}

int main(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t thread;
    for (long cpu = 0; cpu < cpus; cpu++)
        if (pthread_create(&thread, NULL, serve, (void *)cpu) != 0)
            return 1;
    pthread_join(thread, NULL);
    return 1;
}
